"""Proves that every format shows the same texts, that no name breaks its markup, and that figures come out as they went in."""

from __future__ import annotations

import csv
import io
import json
import re

import pandas as pd
import pytest
from builders import Page, group, result, run
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from rich.cells import cell_len

from analysis.render import FIGURES, VIEWS, WIDTH, Table, html, latex, markdown, terminal
from benchmarks.record import Memory

QUICK = settings(max_examples=40, deadline=None, derandomize=True, database=None)
NOTE = "a note that is longer than the terminal is wide, because it has a lot to say about what limits these figures"


def table(*rows: tuple[str, ...], notes: tuple[str, ...] = (), title: str = "") -> Table:
    return Table(pd.DataFrame(rows, columns=["model", "mode", "per\ncall"]), list(notes), title)


SMALL = table(("mlp", "tracked", "125 us"), ("mlp", "no_grad", "~9 us"), notes=(NOTE,), title="times")


def test_the_terminal_aligns_figures_right_and_wraps_notes() -> None:
    expected = """\
times
                   per
model  mode       call
mlp    tracked  125 us
mlp    no_grad   ~9 us

a note that is longer than the terminal is wide, because it has a lot to say about what limits
  these figures"""
    assert terminal(SMALL) == expected


def test_labels_are_headings_on_the_terminal_and_columns_elsewhere() -> None:
    cells = pd.DataFrame({"mode": ["tracked", "no_grad", "tracked"], "time": ["1 s", "2 s", "3 s"]})
    labels = [("mlp", "5"), ("mlp", "5"), ("lstm", "")]
    labelled = Table(cells.set_axis(pd.MultiIndex.from_tuples(labels, names=["model", "parameters"])))
    assert terminal(labelled).split("\n") == [
        "mode     time", "", "mlp   5 parameters", "tracked   1 s", "no_grad   2 s", "", "lstm", "tracked   3 s",
    ]  # fmt: skip
    assert markdown(labelled).split("\n")[3] == "| mlp   | 5          | no_grad |  2 s |"
    assert "mlp & 5 & no\\_grad & 2 s" in latex(labelled)


def test_markdown_is_a_table_and_a_list() -> None:
    expected = f"""\
**times**

| model | mode    | per call |
| ----- | ------- | -------: |
| mlp   | tracked |   125 us |
| mlp   | no_grad |   \\~9 us |

- {NOTE}"""
    assert markdown(SMALL) == expected


def test_latex_is_a_booktabs_tabular_with_comments() -> None:
    expected = f"""\
\\begin{{tabular}}{{llr}}
\\toprule
model & mode & per call \\\\
\\midrule
mlp & tracked & 125 us \\\\
mlp & no\\_grad & \\textasciitilde 9 us \\\\
\\bottomrule
\\end{{tabular}}
% times
% {NOTE}"""
    assert latex(SMALL) == expected


def test_html_marks_figures_and_what_is_unclear() -> None:
    text = html(SMALL)
    assert '<th scope="col">mode</th><th scope="col" class="figure">per call</th>' in text
    assert '<td>mlp</td><td>no_grad</td><td class="figure unclear">~9 us</td>' in text
    assert text.startswith("<h3>times</h3>\n<table>")
    assert text.endswith(f"<ul>\n<li>{NOTE}</li>\n</ul>")


@pytest.mark.parametrize("view", VIEWS)
def test_a_table_without_rows_is_its_notes(view: str) -> None:
    shown = VIEWS[view](Table(pd.DataFrame(), ["nothing was measured"]))
    assert "nothing was measured" in shown
    assert "table" not in shown.replace("<table", "table")
    assert "tabular" not in shown
    assert VIEWS[view](Table(pd.DataFrame())) == ""


names = st.text(st.characters(exclude_categories=["C", "Zl", "Zp"], exclude_characters="\xa0"), min_size=1, max_size=12)
hostile = st.one_of(
    names,
    st.sampled_from(["<b>x</b>", "a|b", "`x`", "[x](javascript:1)", "&amp;", "**x**", "http://e.vil", "=1+1", "\\", "__x__"]),
)


@QUICK
@given(hostile, hostile, hostile)
def test_html_holds_any_text_and_nothing_else(model: str, mode: str, note: str) -> None:
    parsed = Page(html(table((model, mode, "1 s"), notes=(note,))))
    assert (parsed.texts["td"], parsed.texts["li"]) == ([model, mode, "1 s"], [note])
    assert set(parsed.texts) == {"table", "thead", "tbody", "tr", "th", "td", "ul", "li"}


@QUICK
@given(hostile, hostile, hostile)
def test_markdown_shows_any_text_as_it_is(model: str, mode: str, note: str) -> None:
    shown = MarkdownIt("gfm-like", {"linkify": False}).render(markdown(table((model, mode, "1 s"), notes=("x" + note,))))
    parsed = Page(shown)
    assert set(parsed.texts) <= {"table", "thead", "tbody", "tr", "th", "td", "ul", "li"}
    assert [text.split() for text in parsed.texts["td"][:2]] == [model.split(), mode.split()]


def test_markdown_makes_no_link_of_an_address() -> None:
    assert markdown(Table(pd.DataFrame(), ["see http://e.vil/x, www.e.vil and @somebody"])) == (
        "- see http&#58;//e.vil/x, www&#46;e.vil and &#64;somebody"
    )


def test_latex_escapes_what_it_would_run_or_take_as_an_argument() -> None:
    shown = latex(table(("[x]", r"\input{x}", "1 ±2 %"), ("*", "a&b_c^d~e#f$g", "1"), notes=("n",)))
    assert r"{}[x] & \textbackslash input\{x\} & 1 $\pm$2 \% \\" in shown
    assert r"{}* & a\&b\_c\textasciicircum d\textasciitilde e\#f\$g & 1 \\" in shown


@QUICK
@given(
    st.lists(
        st.tuples(names.map(lambda name: name * 20), names, st.sampled_from(["125 us", "~1.26 ±0.02", "-", "not known"])),
        min_size=1,
        max_size=3,
    )
)
def test_the_terminal_is_never_wider_than_it_may_be_and_cuts_no_figure(rows: list[tuple[str, str, str]]) -> None:
    shown = terminal(table(*rows, notes=("n" * 300,)))
    assert all(cell_len(line) <= WIDTH for line in shown.split("\n"))
    assert all(any(line.rstrip().endswith(row[2]) for line in shown.split("\n")) for row in rows)


def test_of_many_wide_columns_texts_give_way_to_figures() -> None:
    wide = pd.DataFrame([["x" * 200, "y" * 200, *["1,234,567 us"] * 5]], columns=[*"abcdefg"])
    (_, line) = terminal(Table(wide)).split("\n")
    assert line.count("1,234,567 us") == 5
    assert cell_len(line) <= WIDTH


FRAME = run(*group(), result("detach", memory=Memory(peak_tensor_bytes=2**53 + 1, unavailable={"saved_bytes": "lost"}))).frame


def test_csv_and_json_hold_the_figures_as_they_are() -> None:
    rows = list(csv.DictReader(io.StringIO(FIGURES["csv"](FRAME))))
    values = json.loads(FIGURES["json"](FRAME))
    for kind in (rows, values):
        assert [int(row["peak_tensor_bytes"]) for row in kind] == FRAME["peak_tensor_bytes"].tolist()
        assert [float(row["seconds"]) for row in kind] == FRAME["seconds"].tolist()
        assert [row["mode"] for row in kind] == ["tracked", "no_grad", "detach"]
    assert (rows[2]["saved_bytes"], values[2]["saved_bytes"]) == ("", None)
    assert (rows[2]["withheld"], values[2]["withheld"]) == ('{"saved_bytes": "lost"}', {"saved_bytes": "lost"})
    assert values[0]["trusted"] is True
    assert "nan" not in FIGURES["json"](FRAME).lower()


@pytest.mark.parametrize("evil", ["=1+1", "+1", "-1", "@x", "\t=1", "\r=1"])
def test_no_spreadsheet_computes_a_name(evil: str) -> None:
    text = FIGURES["csv"](pd.DataFrame({"model": [evil], "held": [-5]}))
    assert list(csv.reader(io.StringIO(text, newline=""))) == [["model", "held"], [f"'{evil}", "-5"]]


@QUICK
@given(st.lists(st.text(), min_size=1, max_size=3))
def test_csv_reads_back_whatever_a_text_holds(texts: list[str]) -> None:
    rows = list(csv.reader(io.StringIO(FIGURES["csv"](pd.DataFrame({"model": texts})), newline="")))
    assert [re.sub(r"^'(?=[=+\-@\t\r])", "", row[0]) for row in rows[1:]] == [
        re.sub(r"^'(?=[=+\-@\t\r])", "", text) for text in texts
    ]
