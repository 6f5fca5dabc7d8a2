"""A report tells all of a run in its order, escapes every name, loads nothing, and is written whole or not at all."""

from __future__ import annotations

import os
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
MOST_BYTES = 400 * 1024
REFERENCE = Path(__file__).parent.parent / "results" / "reference" / "cpu.json"


@pytest.fixture
def run() -> Run:
    lost = [builders.unmeasured("frozen", "crashed", "exit code -9")]
    return builders.run(*builders.group(), *builders.group(size="small"), unmeasured=lost)


def test_the_page_tells_everything_in_its_order(run: Run) -> None:
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


def test_nothing_is_loaded_and_only_the_script_and_the_style_of_the_page_may_run(run: Run) -> None:
    page = Page(report.page(run))
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
    texts = table.cells.set_index("mode")
    assert texts["verdict"].to_dict() == {
        "tracked": "baseline",
        "no_grad": "faster",
        "detach": "unclear",
        "frozen": "untrusted",
    }
    assert list(texts.loc["no_grad", ["per call", "peak", "resident"]]) == ["100 us", "4.00 KiB", "-"]
    by_title = [dict(zip(table.columns, row, strict=True)) for row in values]
    assert [row["speedup"] for row in by_title] == [1.0, 1.25, 1.0, ""]
    assert [row["peak"] for row in by_title] == [10240, 4096, 4096, 4096]


def test_an_accelerators_other_clocks_and_what_decides_are_in_the_rows_of_its_cases() -> None:
    gpu: dict[str, Any] = {
        "host_seconds": 2e-4,
        "busy_seconds": 1e-4,
        "bound_by": "host",
        "memory": {"peak_reserved_bytes": 2**21},
    }
    table, values = report.cases(builders.run(*builders.group(), *builders.group(device="cuda", **gpu)).frame)
    assert table.cells.iloc[-1, -4:].to_list() == ["200 us", "100 us", "host", "2.00 MiB"]
    assert (values[0][-4:], values[-1][-4:]) == ([""] * 4, [2e-4, 1e-4, "host", 2**21])
    assert "host" not in report.cases(builders.run().frame)[0].columns


def test_fields_of_a_case_are_columns_where_they_tell_rows_apart() -> None:
    table, _ = report.cases(builders.run(*builders.group(), *builders.group(device="cuda")).frame)
    assert table.columns[:4] == ["model", "size", "device", "mode"]


def test_names_from_a_run_are_text_and_nothing_else(tmp_path: Path) -> None:
    memory = Memory(10, 10, 10, unavailable={"peak_rss_bytes": HOSTILE})
    results = builders.group({HOSTILE: 1.3, "no_grad": 1.2}, model=HOSTILE, size="\x1b[31m\nx", memory=memory)
    machine = {"cpu": {"brand_raw": HOSTILE}, "gradtax": {"torch": HOSTILE, HOSTILE: HOSTILE}}
    facts = {"machine": machine, "commit": "<b>", "conditions": {"warnings": [HOSTILE], HOSTILE: HOSTILE}}
    lost = [builders.unmeasured("frozen", "crashed", HOSTILE, model=HOSTILE)]
    made = builders.run(*results, unmeasured=lost, **facts)
    run = read(builders.saved(tmp_path, made), name=HOSTILE)
    text = report.page(run)
    page = Page(text)
    assert page.texts["td"].count(HOSTILE) >= len(results)
    assert not {"img", "b"} & set(page.texts)
    assert len(page.texts["script"]) == 1
    assert "\x1b" not in text
    assert not re.search(r"(?<!\\)<(?!!--)", report.markdown(run))


def test_a_run_in_which_nothing_could_be_measured_is_reported_with_the_reasons() -> None:
    lost = [builders.unmeasured("no_grad", "timed_out", "3 rounds in 300 s")]
    nothing = Run([], unmeasured=lost)
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


def test_the_page_of_a_default_run_is_small_enough_to_send() -> None:
    assert len(report.page(read(REFERENCE)).encode()) <= MOST_BYTES


@pytest.mark.parametrize(
    ("place", "reason"),
    [("report.pdf", ".html or .md"), ("gone/report.html", "No such file"), ("folder.html", "cannot be written")],
)
def test_a_place_that_cannot_be_written_is_refused_by_name_and_nothing_is_left_there(
    run: Run, tmp_path: Path, place: str, reason: str
) -> None:
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(AnalysisError, match=f"^{re.escape(str(tmp_path / place))}: .*{reason}"):
        report.write(run, tmp_path / place)
    assert [path.name for path in tmp_path.iterdir()] == ["folder.html"]


def test_a_folder_for_pictures_that_is_a_file_is_refused(run: Run, tmp_path: Path) -> None:
    (tmp_path / "pictures").touch()
    with pytest.raises(AnalysisError, match="pictures: cannot be written"):
        report.write(run, tmp_path / "report.html", tmp_path / "pictures")
    assert not (tmp_path / "report.html").exists()


def test_a_report_that_was_there_stays_whole_where_the_new_one_fails(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "report.html"
    report.write(run, path)
    before = path.read_text(encoding="utf-8")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(AnalysisError, match="No space left"):
        report.write(run, path)
    assert path.read_text(encoding="utf-8") == before
    assert list(tmp_path.iterdir()) == [path]
