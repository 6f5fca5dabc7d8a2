"""Proves that every format shows the same figures, marks what is no evidence, and lets no name break its markup."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import product
from typing import Any

import pytest
from builders import make_group, make_result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from analysis.render import FORMATS, WIDTH, Column, Section, Table, comma_separated, html, json_list, latex, markdown, terminal
from analysis.summary import summary_table
from benchmarks.modes import MODES
from benchmarks.record import Interval, Kernels, Memory, ModelFacts, Result, Unmeasured, tidy_rows

QUICK = settings(max_examples=30, deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow])

LSTM = {"model": "lstm_1", "device": "cuda"}
OFF = Interval(1.05, 1.03, 1.07)
RESULTS = [
    *make_group(),
    make_result("tracked", case=LSTM, trusted=False, placebo=OFF, seconds=0.0125, memory=Memory(2**21, 1, 2**20, 0, 3 * 2**20)),
    make_result(
        "inference_mode", case=LSTM, trusted=False, placebo=OFF, memory=Memory(), kernels=Kernels(same_as_tracked=False)
    ),
]
UNMEASURED = [Unmeasured(make_result("frozen", case={"size": "large"}).case, "out_of_memory", "no 64 GiB here")]


def table(*results: Result, unmeasured: tuple[Unmeasured, ...] = ()) -> Table:
    return summary_table(tidy_rows(results), unmeasured)


def test_the_terminal_shows_a_section_per_group_and_what_to_make_of_it() -> None:
    expected = """\
  mode             per call     speedup  verdict       peak  ratio     saved       RSS

mlp tiny   forward, cpu, float32, resident   16,640 parameters, float32[8, 64]
  tracked          125.0 us           1  baseline  10.0 KiB   1.00  8.00 KiB  4.00 KiB
  no_grad          100.0 us  1.25 ±0.01  faster    4.00 KiB   0.40       0 B       0 B

lstm_1 tiny   forward, cuda, float32, resident   16,640 parameters, float32[8, 64]
  UNTRUSTED: identical code read 1.05 [1.03, 1.07] instead of 1
  tracked           12.5 ms           1  baseline  2.00 MiB   1.00  1.00 MiB  3.00 MiB
  inference_mode*  100.0 us  1.25 ±0.01  faster?          -      -         -         -

measured: forward; cpu, cuda; float32; resident
speedup: tracked's time over the mode's, ± the wider half of its 99 % interval; above 1: faster
ratio: peak tensor memory over tracked's; saved: kept for backward; RSS: what the process grew by
RSS on cuda: what the caching allocator reserved
placebo (identical code, 1 by construction): off by 2.5 % in the median group, 5.0 % in the worst
  (lstm_1 tiny cuda)
verdict?: the group is untrusted, its speedups are no evidence (lstm_1 tiny cuda)
*: other kernels than tracked, so not tracking alone: lstm_1 tiny cuda inference_mode
not measured: forward mlp large cpu float32 resident frozen: out_of_memory: no 64 GiB here"""
    assert terminal(table(*RESULTS, unmeasured=tuple(UNMEASURED))) == expected


def test_markdown_shows_one_table_whose_extra_columns_tell_the_groups_apart() -> None:
    expected = """\
| model  | size | device | mode             | per call |    speedup | verdict  |     peak | ratio |    saved |      RSS |
| ------ | ---- | ------ | ---------------- | -------: | ---------: | -------- | -------: | ----: | -------: | -------: |
| mlp    | tiny | cpu    | tracked          | 125.0 us |          1 | baseline | 10.0 KiB |  1.00 | 8.00 KiB | 4.00 KiB |
| mlp    | tiny | cpu    | no_grad          | 100.0 us | 1.25 ±0.01 | faster   | 4.00 KiB |  0.40 |      0 B |      0 B |
| lstm_1 | tiny | cuda   | tracked          |  12.5 ms |          1 | baseline | 2.00 MiB |  1.00 | 1.00 MiB | 3.00 MiB |
| lstm_1 | tiny | cuda   | inference_mode\\* | 100.0 us | 1.25 ±0.01 | faster?  |        - |     - |        - |        - |

- measured: forward; cpu, cuda; float32; resident
"""
    assert markdown(table(*RESULTS)).startswith(expected)


def test_latex_shows_a_booktabs_tabular_with_the_notes_as_comments() -> None:
    expected = r"""
\begin{tabular}{lllrrlrrrr}
\toprule
model & size & mode & per call & speedup & verdict & peak & ratio & saved & RSS \\
\midrule
mlp & tiny & tracked & 125.0 us & 1 & baseline & 10.0 KiB & 1.00 & 8.00 KiB & 4.00 KiB \\
mlp & tiny & no\_grad & 100.0 us & 1.25 $\pm$0.01 & faster & 4.00 KiB & 0.40 & 0 B & 0 B \\
\bottomrule
\end{tabular}
% measured: forward; cpu; float32; resident
"""
    text = latex(table(*make_group(), unmeasured=tuple(UNMEASURED)))
    assert text.startswith(expected.lstrip())
    assert all(line.startswith("% ") for line in text.partition("\\end{tabular}\n")[2].splitlines())


@st.composite
def groups(draw: st.DrawFn) -> list[Result]:
    """All modes by one allocator or both, with figures that one could measure: speedups below 10, times below 1000 s, memory below 1 TiB."""

    def interval() -> Interval:
        estimate, noise = draw(st.floats(0.1, 9.4)), draw(st.floats(0, 0.5))
        return Interval(estimate, estimate * (1 - noise), estimate * (1 + noise))

    tracked_peak = draw(st.integers(1, 2**36))
    size = st.none() | st.integers(0, 2**40 - 2**30)
    facts = ModelFacts(draw(st.integers(0, 10**12)), 4, [draw(st.sampled_from(["float32[8, 64]", "int64[4, 1024] " * 9]))])
    results = []
    for allocator, mode in product(draw(st.sampled_from([["resident"], ["default"], ["resident", "default"]])), MODES):
        figures: dict[str, Any] = {
            "seconds": draw(st.integers(1, 999)) * draw(st.sampled_from([1e-9, 1e-6, 1e-3, 1.0])),
            "memory": Memory(tracked_peak * draw(st.integers(0, 64)) // 8, 0, draw(size), draw(size), draw(size)),
            "placebo": interval(),
            "trusted": draw(st.booleans()),
            "model": facts,
            "kernels": Kernels(draw(st.booleans())),
            "page_faults": draw(st.none() | st.floats(0, 1e6)),
            "discarded_placebos": [OFF] * draw(st.integers(0, 2)),
        }
        figures |= {} if mode == "tracked" else {"speedup": draw(st.none() | st.just(interval())), "verdict": "unclear"}
        results.append(make_result(mode, case={"allocator": allocator}, **figures))
    return results


@QUICK
@given(groups())
def test_every_line_of_the_built_in_modes_fits_the_terminal(group: list[Result]) -> None:
    gone = Unmeasured(group[0].case, "crashed", "the reason is long " * 20 + "/path" * 30)
    lines = terminal(table(*group, unmeasured=(gone,))).splitlines()
    assert all(any(line.lstrip().startswith((f"{mode} ", f"{mode}* ")) for line in lines) for mode in MODES)
    assert max(len(line) for line in lines) <= WIDTH == 100


@QUICK
@given(groups())
def test_csv_and_json_hold_the_figures_themselves(group: list[Result]) -> None:
    rows = [{**row, "status": "measured", "reason": None} for row in tidy_rows(group)]
    assert json.loads(json_list(table(*group))) == rows
    read = list(csv.DictReader(io.StringIO(comma_separated(table(*group)))))
    assert read == [{name: "" if value is None else str(value) for name, value in row.items()} for row in rows]
    assert [float(row["seconds"]) for row in read] == [result.seconds for result in group]


def test_csv_keeps_texts_that_hold_commas_quotes_and_line_ends() -> None:
    name = 'my "model", the\nsecond'
    (read,) = csv.DictReader(io.StringIO(comma_separated(table(make_result(case={"model": name})))))
    assert read["model"] == name


def cells(line: str) -> list[str]:
    """The cells of a line of Markdown as GitHub reads them: split at bare pipes, backslashes taken off."""
    assert re.fullmatch(r"\|(?: (?:\\.|[^|\\])* \|)+", line)
    return [re.sub(r"\\(.)", r"\1", cell).strip() for cell in re.findall(r"((?:\\.|[^|\\])*)\|", line)[1:]]


names = st.text(st.characters(codec="ascii", categories=["L", "N", "P", "S"]), min_size=1)


@QUICK
@given(names)
def test_a_name_in_markdown_stays_one_cell_that_reads_the_same(name: str) -> None:
    header, _, row = markdown(table(make_result(case={"model": name}))).splitlines()[:3]
    assert len(cells(row)) == len(cells(header))
    assert cells(row)[0] == name


anything = st.text(min_size=1, max_size=20) | st.text("|\\`*_<>&;[]()~$#{}^%!\n\r\u2028 ab", min_size=1, max_size=12)


def shown_as(text: str) -> str:
    """What is left of any text in one line: blanks for line ends, a mark for what cannot be printed."""
    return "".join(one if one.isprintable() else " " if one.isspace() else "\ufffd" for one in text)


def one_cell(name: str) -> Table:
    return Table([Column(name, text=True), Column("x")], ("key",), [Section(name, (name,), [[name, "1"]])], [f"in {name}"])


@QUICK
@given(anything)
def test_a_parser_of_markdown_reads_any_name_as_it_stands(name: str) -> None:
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(markdown(one_cell(name)))
    inlines = [token.children or [] for token in tokens if token.type == "inline"]
    assert all(child.type in {"text", "text_special"} for inline in inlines for child in inline)
    title, _, cell, figure, note = ("".join(child.content for child in inline) for inline in inlines)
    assert title == cell == shown_as(name).strip()
    assert (figure, note) == ("1", f"in {shown_as(name)}".rstrip())


@QUICK
@given(anything)
def test_no_name_breaks_a_line_or_ends_a_comment_in_latex(name: str) -> None:
    *lines, note = latex(one_cell(name)).split("\n")
    assert [line for number, line in enumerate(lines) if number not in {2, 4}] == [
        r"\begin{tabular}{lr}", r"\toprule", r"\midrule", r"\bottomrule", r"\end{tabular}",
    ]  # fmt: skip
    assert lines[2].endswith(r" & x \\")
    assert lines[4].endswith(r" & 1 \\")
    assert all(len(re.findall(r"(?<!\\)(?:\\\\)*&", line)) == 1 for line in (lines[2], lines[4]))
    assert note == f"% in {shown_as(name)}"


class Reader(HTMLParser):
    """The texts of the elements that hold one, in order, and all names of elements."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.tags: set[str] = set()
        self.figures = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.figures += dict(attrs).get("class") == "figure"
        if tag in {"th", "td", "li"}:
            self.texts.append("")

    def handle_data(self, data: str) -> None:
        if data != "\n" and self.texts:
            self.texts[-1] += data


@QUICK
@given(anything)
def test_html_shows_any_name_as_text(name: str) -> None:
    shown = shown_as(name)
    read = Reader(html(replace(one_cell(name), sections=[Section("heading", ("",), [[name, "1"]])])))
    assert read.tags == {"table", "thead", "tbody", "tr", "th", "td", "ul", "li"}
    assert [text.replace("\n", "") for text in read.texts] == [shown, "x", "heading", shown, "1", f"in {shown}"]


def test_html_is_a_table_with_a_body_per_section_and_the_notes_below() -> None:
    expected = """\
<table>
<thead><tr><th scope="col">mode</th><th scope="col" class="figure">speedup</th></tr></thead>
<tbody>
<tr><th colspan="2" scope="rowgroup">&lt;script&gt; tiny<br>UNTRUSTED: why</th></tr>
<tr><td>no_grad</td><td class="figure">1.25 ±0.01</td></tr>
</tbody>
<tbody>
<tr><td>a&amp;b</td><td class="figure">-</td></tr>
</tbody>
</table>
<ul>
<li>a &lt;note&gt;</li>
</ul>"""
    sections = [Section("<script> tiny\n  UNTRUSTED: why", (), [["no_grad", "1.25 ±0.01"]]), Section("", (), [["a&b", "-"]])]
    assert html(Table([Column("mode", text=True), Column("speedup")], (), sections, ["a <note>"])) == expected


def test_no_name_steers_the_terminal() -> None:
    text = terminal(table(make_result("a\nb\x1b[2J", case={"model": "\x1b[31mred\x07\r"})))
    assert all(character.isprintable() or character == "\n" for character in text)
    assert "\n  a b\ufffd[2J " in text


@pytest.mark.parametrize(
    ("name", "escaped"),
    [
        ("a|b", r"a\|b"), ("<script>x", r"\<script>x"), ("_a_", r"\_a\_"), ("__a__.b", r"\_\_a\_\_.b"), ("~~a~~", r"\~\~a\~\~"), ("&lt;", r"\&lt;"), ("my_net", "my_net"), ("a*b*", r"a\*b\*"),
        ("`a`", r"\`a\`"), ("[a](b)", r"[a\](b)"), ("a\\", "a\\\\"), ("R&D 50%", "R&D 50%"),
    ],
)  # fmt: skip
def test_markdown_shows_markup_in_names_and_notes_as_it_stands(name: str, escaped: str) -> None:
    case = make_result(case={"model": name}).case
    text = markdown(table(make_result(case={"model": name}), unmeasured=(Unmeasured(case, "crashed", f"in {name} too"),)))
    assert f"\n| {escaped} " in text
    assert f"crashed: in {escaped} too" in text


@QUICK
@given(names)
def test_a_name_in_latex_holds_no_command_but_its_own_escapes(name: str) -> None:
    row = latex(table(make_result(case={"model": name}))).splitlines()[4]
    words = "textbackslash|textasciitilde|textasciicircum|textless|textgreater|textbar|textasciigrave"
    assert row.endswith(r" \\")
    assert re.fullmatch(
        rf"(?:\\(?:{words})\{{\}}|\\[&%$#_{{}}]|[^\\~^<>&%$#_{{}}])*",
        row.removesuffix(r" \\").removeprefix("{}").partition(" & ")[0],
    )
    assert len(re.findall(r"(?<!\\)&", row)) == 9
    assert not row.startswith(("[", "*"))  # an option of the \\ before it


def test_latex_shows_its_special_characters_as_themselves() -> None:
    row = latex(table(make_result(case={"model": r"<script>a_b&c 5%$#{}~^\|"}))).splitlines()[4]
    expected = r"\textless{}script\textgreater{}a\_b\&c 5\%\$\#\{\}\textasciitilde{}\textasciicircum{}\textbackslash{}\textbar{} & tiny & no\_grad &"
    assert row.startswith(expected)


@pytest.mark.parametrize("name", ["terminal", "markdown", "latex"])
def test_verdicts_of_an_untrusted_group_are_never_shown_without_saying_so(name: str) -> None:
    untrusted = FORMATS[name](table(*(make_result(mode, trusted=False) for mode in MODES)))
    assert untrusted.count("faster?") == len(MODES) - 1
    assert not re.search(r"(?<!: )faster\b(?!\?)", untrusted)
    assert "baseline?" not in untrusted
    assert "the group is untrusted" in untrusted
    trusted = FORMATS[name](table(*make_group()))
    assert "faster?" not in trusted
    assert "untrusted" not in trusted.lower()


@pytest.mark.parametrize("name", ["terminal", "markdown", "latex"])
@pytest.mark.parametrize("results", [[], make_group()])
def test_cases_that_were_not_measured_are_listed_with_their_reason(name: str, results: list[Result]) -> None:
    text = FORMATS[name](table(*results, unmeasured=tuple(UNMEASURED)))
    (line,) = [line for line in text.splitlines() if "not measured" in line]
    assert all(word in line.replace("\\", "") for word in ("mlp large", "frozen", "out_of_memory", "no 64 GiB here"))


@pytest.mark.parametrize("name", ["terminal", "markdown", "latex"])
def test_what_is_missing_is_a_dash_and_never_a_zero(name: str) -> None:
    lost = make_result("detach", speedup=None, placebo=None, trusted=False, verdict="unclear", memory=Memory())
    (line,) = [line for line in FORMATS[name](table(lost)).splitlines() if "detach" in line]
    shown = re.sub(r"[|&]| \\\\", " ", line.partition("detach")[2]).split()
    assert shown == ["100", "us", "-", "unclear?", "-", "-", "-", "-"]


def test_a_group_without_its_baseline_says_why_it_is_untrusted() -> None:
    assert "UNTRUSTED: tracked could not be measured" in terminal(table(make_result(placebo=None, trusted=False)))


def test_only_kernels_that_are_known_to_differ_are_called_other() -> None:
    for same in (True, None):
        assert "other kernels" not in terminal(table(make_result(kernels=Kernels(same))))


@pytest.mark.parametrize("name", ["terminal", "markdown", "latex"])
def test_without_rows_there_is_no_table_but_what_was_not_measured(name: str) -> None:
    text = FORMATS[name](table(unmeasured=tuple(UNMEASURED)))
    assert re.fullmatch(r"(- |% )?not measured: forward mlp large .*", text)
    assert FORMATS[name](table()) == ""
    assert json_list(table()) == "[]"


WIDE = Table(
    columns=[
        Column("mode", text=True),
        Column("one way of taking it"),
        Column("per call"),
        Column("dropped second", optional=2),
        Column("dropped first", optional=1),
    ],
    key_titles=("model",),
    sections=[Section("mlp", ("mlp",), [["no_grad", "1.25 ±0.01", "1 s", "2" * 30, "1" * 30]])],
    notes=["a note"],
)


def test_long_titles_break_above_their_figures_and_end_beside_the_short_ones() -> None:
    expected = """\
           one way of
  mode      taking it  per call                  dropped second                   dropped first

mlp
  no_grad  1.25 ±0.01       1 s  222222222222222222222222222222  111111111111111111111111111111

a note"""
    assert terminal(WIDE) == expected


@pytest.mark.parametrize(
    ("width", "left_out"), [(10, []), (40, ["dropped first"]), (70, ["dropped second", "dropped first"]), (200, ["dropped second", "dropped first"])]
)  # fmt: skip
def test_optional_columns_leave_in_their_order_once_the_terminal_is_full_and_are_told(width: int, left_out: list[str]) -> None:
    row = ["m" * width, *WIDE.sections[0].rows[0][1:]]
    wide = replace(WIDE, sections=[Section("mlp", ("mlp",), [row])])
    text = terminal(wide)
    assert [
        title for title in ("dropped second", "dropped first") if title.split()[1] not in text.partition("mlp")[0]
    ] == left_out
    note = f"left out to fit 100 columns: {', '.join(left_out)}; the other formats show everything"
    assert (note in text) == bool(left_out)
    assert all(cell in markdown(wide) and cell.replace("±", r"$\pm$") in latex(wide).replace(r"\_", "_") for cell in row)


def test_csv_and_json_tell_what_was_not_measured_and_why() -> None:
    lost = Unmeasured(make_result().case, "crashed", "SIGSEGV")
    (row,) = json.loads(json_list(table(unmeasured=(lost,))))
    assert (row["mode"], row["status"], row["reason"]) == ("no_grad", "crashed", "SIGSEGV")
    read = list(csv.DictReader(io.StringIO(comma_separated(table(make_result("tracked"), unmeasured=(lost,))))))
    assert [(row["mode"], row["status"], row["seconds"]) for row in read] == [
        ("tracked", "measured", str(make_result("tracked").seconds)), ("no_grad", "crashed", ""),
    ]  # fmt: skip


def test_a_reason_of_several_lines_stays_inside_the_comment_in_latex() -> None:
    text = latex(table(unmeasured=(Unmeasured(make_result().case, "crashed", "x\n\\input{evil}"),)))
    assert all(line.startswith("%") for line in text.splitlines() if "evil" in line)
