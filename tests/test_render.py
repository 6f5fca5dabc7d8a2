"""Proves that every format shows the same texts, that no name breaks its markup, and that figures come out as they went in."""

from __future__ import annotations

import csv
import io
import json
import re

import pandas as pd
import pytest
from builders import Page, group, result, run
from hypothesis import example, given, settings
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
SHOWN = {
    "terminal": """\
times
                   per
model  mode       call
mlp    tracked  125 us
mlp    no_grad   ~9 us

a note that is longer than the terminal is wide, because it has a lot to say about what limits
  these figures""",
    "markdown": f"""\
**times**

| model | mode    | per call |
| ----- | ------- | -------: |
| mlp   | tracked |   125 us |
| mlp   | no_grad |   \\~9 us |

- {NOTE}""",
    "latex": f"""\
\\begin{{tabular}}{{llr}}
\\toprule
model & mode & per call \\\\
\\midrule
mlp & tracked & 125 us \\\\
mlp & no\\_grad & \\textasciitilde 9 us \\\\
\\bottomrule
\\end{{tabular}}
% times
% {NOTE}""",
    "html": f"""\
<h3>times</h3>
<table>
<thead><tr><th scope="col">model</th><th scope="col">mode</th><th scope="col" class="figure">per call</th></tr></thead>
<tbody>
<tr><td>mlp</td><td>tracked</td><td class="figure">125 us</td></tr>
<tr><td>mlp</td><td>no_grad</td><td class="figure unclear">~9 us</td></tr>
</tbody>
</table>
<ul>
<li>{NOTE}</li>
</ul>""",
}
"""Figures stand right, what is unclear is marked, and notes below."""


@pytest.mark.parametrize("view", VIEWS)
def test_a_table_is_shown_in_the_way_of_its_format_and_without_rows_it_is_its_notes(view: str) -> None:
    assert VIEWS[view](SMALL) == SHOWN[view]
    nothing = VIEWS[view](Table(pd.DataFrame(), ["nothing was measured"]))
    assert re.sub(r"\W|ul|li", "", nothing) == "nothingwasmeasured"
    assert VIEWS[view](Table(pd.DataFrame())) == ""


def test_labels_are_headings_on_the_terminal_and_columns_elsewhere() -> None:
    cells = pd.DataFrame({"mode": ["tracked", "no_grad", "tracked"], "time": ["1 s", "2 s", "3 s"]})
    labels = pd.DataFrame([("mlp", "5"), ("mlp", "5"), ("lstm", "")], columns=["model", "parameters"])
    labelled = Table(labels.join(cells), labels=2)
    assert terminal(labelled).split("\n") == [
        "mode     time", "", "mlp   5 parameters", "tracked   1 s", "no_grad   2 s", "", "lstm", "tracked   3 s",
    ]  # fmt: skip
    assert markdown(labelled).split("\n")[3] == "| mlp   | 5          | no_grad |  2 s |"
    assert "mlp & 5 & no\\_grad & 2 s" in latex(labelled)


names = st.text(st.characters(exclude_categories=["C", "Zl", "Zp"], exclude_characters="\xa0"), min_size=1, max_size=12)
hostile = st.one_of(
    names,
    st.sampled_from(["<b>x</b>", "a|b", "`x`", "[x](javascript:1)", "&amp;", "**x**", "http://e.vil", "=1+1", "\\", "__x__"]),
)


@QUICK
@given(hostile, hostile, hostile)
def test_html_and_markdown_show_any_text_as_it_is_and_nothing_else(model: str, mode: str, note: str) -> None:
    one = table((model, mode, "1 s"), notes=(f"x{note}",))
    shown = Page(html(one))
    assert (shown.texts["td"], shown.texts["li"]) == ([model, mode, "1 s"], [f"x{note}"])
    assert set(shown.texts) == {"table", "thead", "tbody", "tr", "th", "td", "ul", "li"}
    from_markdown = Page(MarkdownIt("gfm-like", {"linkify": False}).render(markdown(one)))
    assert set(from_markdown.texts) == set(shown.texts)
    assert [text.split() for text in from_markdown.texts["td"][:2]] == [model.split(), mode.split()]


def test_markdown_makes_no_link_of_an_address() -> None:
    assert markdown(Table(pd.DataFrame(), ["see http://e.vil/x, www.e.vil and @somebody"])) == (
        "- see http&#58;//e.vil/x, www&#46;e.vil and &#64;somebody"
    )


def test_latex_escapes_what_it_would_run_or_take_as_an_argument() -> None:
    shown = latex(table(("[x]", r"\input{x}", "1 ±2 %"), ("*", "a&b_c^d~e#f$g", "1"), notes=("n",)))
    assert r"{}[x] & \textbackslash input\{x\} & 1 $\pm$2 \% \\" in shown
    assert r"{}* & a\&b\_c\textasciicircum d\textasciitilde e\#f\$g & 1 \\" in shown


rows_of_any_width = st.tuples(
    names.map(lambda name: name * 20), names, st.sampled_from(["125 us", "~1.26 ±0.02", "-", "not known"])
)


@QUICK
@given(st.lists(rows_of_any_width, min_size=1, max_size=3))
@example([("0" * 100, "a name that is a number is no figure", "125 us")])
def test_the_terminal_is_never_wider_than_it_may_be_and_cuts_no_figure(rows: list[tuple[str, str, str]]) -> None:
    lines = terminal(table(*rows, notes=("n" * 300,))).split("\n")
    assert all(cell_len(line) <= WIDTH for line in lines)
    assert all(any(line.rstrip().endswith(row[2]) for line in lines) for row in rows)


def test_of_many_wide_columns_texts_give_way_to_figures() -> None:
    wide = pd.DataFrame([["x" * 200, "y" * 200, *["1,234,567 us"] * 5]], columns=[*"abcdefg"])
    (_, line) = terminal(Table(wide)).split("\n")
    assert line.count("1,234,567 us") == 5
    assert cell_len(line) <= WIDTH


def test_csv_and_json_hold_the_figures_as_they_are() -> None:
    memory = Memory(peak_tensor_bytes=2**53 + 1, unavailable={"saved_bytes": "lost"})
    frame = run(*group(), result("detach", memory=memory)).frame
    rows = list(csv.DictReader(io.StringIO(FIGURES["csv"](frame))))
    values = json.loads(FIGURES["json"](frame))
    for kind in (rows, values):
        assert [int(row["peak_tensor_bytes"]) for row in kind] == frame["peak_tensor_bytes"].tolist()
        assert [float(row["seconds"]) for row in kind] == frame["seconds"].tolist()
        assert [row["mode"] for row in kind] == ["tracked", "no_grad", "detach"]
    assert (rows[2]["saved_bytes"], values[2]["saved_bytes"]) == ("", None)
    assert (rows[2]["withheld"], values[2]["withheld"]) == ('{"saved_bytes": "lost"}', {"saved_bytes": "lost"})
    assert values[0]["trusted"] is True
    assert "nan" not in FIGURES["json"](frame).lower()


@QUICK
@given(st.lists(st.text() | st.builds(str.__add__, st.sampled_from("=+-@\t\r"), st.text()), min_size=1, max_size=3))
def test_csv_reads_back_whatever_a_text_holds_and_no_spreadsheet_computes_it(texts: list[str]) -> None:
    csv_text = FIGURES["csv"](pd.DataFrame({"model": texts, "held": -5}))
    _, *rows = csv.reader(io.StringIO(csv_text, newline=""))
    assert rows == [[f"'{text}" if text and text[0] in "=+-@\t\r" else text, "-5"] for text in texts]
