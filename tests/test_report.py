"""A report tells all of a run in its order, escapes every name, loads nothing, and is written whole or not at all."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import builders
import pytest
from builders import Page

from analysis import report
from analysis.read import AnalysisError, Run, read
from benchmarks.record import Interval, Memory

HOSTILE = "</script><script>alert(1)</script>|`x`<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def run() -> Run:
    lost = [builders.unmeasured("frozen", "crashed", "exit code -9")]
    return builders.run(*builders.group(), *builders.group(size="small"), unmeasured=lost)


def test_the_page_tells_everything_in_its_order_and_nothing_is_loaded_or_run_but_its_own(run: Run) -> None:
    page = Page(report.page(run))
    assert [title.lower() for title in page.texts["h2"]] == [
        "the answer",
        "charts",
        "what to know of these figures",
        "ten common statements, tested here",
        "machine and conditions",
        "what could not be measured",
        "all cases",
    ]
    assert "exit code -9" in page.texts["td"]
    assert "no_grad" in page.texts["p"][1]
    assert len(set(page.texts["p"])) == len(page.texts["p"]), "advice repeats the answer"
    assert not {"src", "href", "action", "data", "srcset", "style", "onclick", "xlink:href"} & set(page.attributes)
    (script,), (style,) = page.texts["script"], page.texts["style"]
    (policy,) = (content for content in page.attributes["content"] if "default-src" in content)
    assert policy.startswith("default-src 'none';")
    assert f"style-src '{report.digest(style)}'; script-src '{report.digest(script)}';" in policy


def test_every_case_has_a_row_with_texts_and_values_to_sort_by() -> None:
    unclear = builders.result("detach", Interval(1.0, 0.97, 1.03))
    run = builders.run(builders.result("tracked"), builders.result(), unclear, builders.result("frozen", None, trusted=False))
    table, values = report.cases(run.frame)
    assert table.columns[:6] == ["model", "size", "mode", "per call", "speedup", "verdict"]
    assert [row[2:6] for row in table.rows] == [
        ["tracked", "125 us", "1", "baseline"],
        ["no_grad", "100 us", "1.25 ±0.01", "faster"],
        ["detach", "125 us", "~1.00 ±0.03", "unclear"],
        ["frozen", "125 us", "not known", "untrusted"],
    ]
    of_no_grad = dict(zip(table.columns, table.rows[1], strict=True))
    assert (of_no_grad["peak"], of_no_grad["resident"]) == ("4.00 KiB", "-")
    by_title = [dict(zip(table.columns, row, strict=True)) for row in values]
    assert [(row["speedup"], row["peak"]) for row in by_title] == [(1.0, 10240), (1.25, 4096), (1.0, 4096), ("", 4096)]


def test_fields_of_a_case_and_an_accelerators_clocks_are_columns_where_they_tell_rows_apart() -> None:
    clocks: dict[str, Any] = {"host_seconds": 2e-4, "busy_seconds": 1e-4, "bound_by": "host"}
    gpu = builders.group(device="cuda", memory={"peak_reserved_bytes": 2**21}, **clocks)
    table, values = report.cases(builders.run(*builders.group(), *gpu).frame)
    assert table.columns[:4] == ["model", "size", "device", "mode"]
    assert table.cells.iloc[-1, -4:].to_list() == ["200 us", "100 us", "host", "2.00 MiB"]
    assert (values[0][-4:], values[-1][-4:]) == ([""] * 4, [2e-4, 1e-4, "host", 2**21])
    assert "host" not in report.cases(builders.run().frame)[0].columns


def test_names_from_a_run_are_text_and_nothing_else(tmp_path: Path) -> None:
    """test_report_page.py asks a browser too."""
    memory = Memory(10, 10, 10, unavailable={"peak_rss_bytes": HOSTILE})
    results = builders.group({HOSTILE: 1.3, "no_grad": 1.2}, model=HOSTILE, size="\x1b[31m\nx", memory=memory)
    machine = {"cpu": {"brand_raw": HOSTILE}, "gradtax": {"torch": HOSTILE, HOSTILE: HOSTILE}}
    facts = {"machine": machine, "commit": "<b>", "conditions": {"warnings": [HOSTILE], HOSTILE: HOSTILE}}
    lost = [builders.unmeasured("frozen", "crashed", HOSTILE, model=HOSTILE)]
    run = read(builders.saved(tmp_path, builders.run(*results, unmeasured=lost, **facts)), name=HOSTILE)
    text = report.page(run)
    page = Page(text)
    assert page.texts["td"].count(HOSTILE) >= len(results)
    assert not {"img", "b"} & set(page.texts)
    assert len(page.texts["script"]) == 1
    assert "\x1b" not in text
    assert not re.search(r"(?<!\\)<(?!!--)", report.markdown(run))


def test_a_run_in_which_nothing_could_be_measured_is_reported_with_the_reasons() -> None:
    nothing = Run([], unmeasured=[builders.unmeasured("no_grad", "timed_out", "3 rounds in 300 s")])
    assert "3 rounds in 300 s" in Page(report.page(nothing)).texts["td"]
    assert "3 rounds in 300 s" in report.markdown(nothing)


def test_the_markdown_tells_the_same_with_the_summary_and_links_to_pictures(run: Run, tmp_path: Path) -> None:
    written = report.write(run, tmp_path / "report.md", tmp_path / "some pictures")
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert headings[:3] == ["The answer", "Charts", "Figures"]
    assert headings[-2:] == ["Machine and conditions", "What could not be measured"]
    links = re.findall(r"!\[.*\]\(<(.*)>\)", text)
    assert links[0] == "some pictures/answer.svg"
    assert {tmp_path / link for link in links} == {path for path in written if path.suffix == ".svg"}


def test_charts_lie_in_the_folder_that_is_named_which_need_not_be_there(run: Run, tmp_path: Path) -> None:
    page, folder = tmp_path / "report.html", tmp_path / "some" / "pictures"
    written = report.write(run, page, folder)
    assert (written[0], written[-1]) == (folder / "answer.svg", page)
    assert sorted(folder.iterdir()) == sorted(written[:-1])


def test_the_page_of_a_default_run_is_small_enough_to_send() -> None:
    assert len(report.page(read(builders.REFERENCE)).encode()) <= 400 * 1024


@pytest.mark.parametrize(
    ("place", "pictures", "reason"),
    [
        ("gone/report.html", None, "gone/report.html: .*No such file"),
        ("folder.html", None, "folder.html: cannot be written"),
        ("report.html", "file", "file: cannot be written"),
    ],
)
def test_a_place_that_cannot_be_written_is_refused_by_name_and_nothing_is_left_there(
    run: Run, tmp_path: Path, place: str, pictures: str | None, reason: str
) -> None:
    (tmp_path / "folder.html").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(AnalysisError, match=f"^{re.escape(str(tmp_path))}/{reason}"):
        report.write(run, tmp_path / place, tmp_path / pictures if pictures else None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.html"]
