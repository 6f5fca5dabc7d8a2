"""Proves that the report tells all of a run in its order, escapes every name, loads nothing, and overwrites only reports."""

from __future__ import annotations

import base64
import csv
import hashlib
import os
import re
import shutil
import subprocess
from collections import defaultdict
from html.parser import HTMLParser
from pathlib import Path

import pytest
from builders import make_group, make_result, saved_run
from typer.testing import CliRunner, Result

from analysis import javascript, report
from analysis.__main__ import app
from analysis.cases import cases
from analysis.load import Run, load
from benchmarks.record import Interval, Unmeasured, tidy_rows

ROOT = Path(__file__).parent.parent
REFERENCE = ROOT / "results" / "reference" / "cpu.json"
HOSTILE = "</script><script>alert(1)</script>|`x`"
SECTIONS = ["answer", "claims", "speedup", "memory", "placebo", "conditions", "unmeasured", "cases"]


class Page(HTMLParser):
    """What a browser would see: ids in order, the texts of the elements by name, and everything that points somewhere."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.texts: defaultdict[str, list[str]] = defaultdict(list)
        self._open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        if tag == "section":
            self.ids.append(named["id"] or "")
        self.links += [named[name] or "" for name in ("src", "href", "action", "data", "poster", "srcset") if name in named]
        if tag == "meta" and named.get("http-equiv"):
            self.texts["policy"].append(named["content"] or "")
        if tag not in {"meta", "input", "link"}:
            self._open.append(tag)
            self.texts[tag].append("")

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        for tag in set(self._open):
            self.texts[tag][-1] += data


@pytest.fixture(autouse=True)
def without_the_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Bundling takes seconds; test_report_page.py has the real one. Reports are written in an empty folder."""
    monkeypatch.setattr(javascript, "begin", lambda: None)
    monkeypatch.setattr(javascript, "bundle", lambda: "const vegaEmbed = null;")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run() -> Run:
    gone = Unmeasured(make_result("frozen").case, "crashed", "exit code -9")
    return load(saved_run(Path("run.json"), [*make_group(), *make_group(size="small")], [gone]))


def analysis(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["report", *arguments])


def test_the_page_tells_everything_in_its_order(run: Run) -> None:
    page = Page(report.page([run]))
    assert [one for one in page.ids if one in SECTIONS] == SECTIONS
    assert page.links == [f"#{one}" for one in page.ids]
    assert "exit code -9" in "".join(page.texts["td"])


def test_nothing_is_loaded_and_only_the_two_scripts_of_the_page_may_run(run: Run) -> None:
    page = Page(report.page([run]))
    assert all(link.startswith("#") for link in page.links)
    programs = [text for text in page.texts["script"] if not text.startswith("{")]
    allowed = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(one.encode()).digest()).decode()}'" for one in programs)
    assert len(programs) == 2
    assert f"script-src {allowed};" in " ".join(page.texts["policy"][0].split())
    assert page.texts["policy"][0].startswith("default-src 'none';")


def test_names_from_a_run_are_text_and_nothing_else() -> None:
    case = {"model": HOSTILE, "size": HOSTILE}
    gone = Unmeasured(make_result("frozen", case=case).case, "crashed", HOSTILE)
    path = saved_run(Path("run.json"), [make_result("tracked", case=case), make_result(case=case)], [gone])
    path.write_text(path.read_text().replace('"unknown"', '"<b>"').replace('"here"', '"<b>"'))
    written = report.page([load(path)])
    page = Page(written)
    assert "<script>alert" not in written
    assert page.texts["td"].count(HOSTILE) >= 4
    assert "b" not in page.texts or "<b>" not in "".join(page.texts["b"])
    assert not re.search(r"(?<!\\)<(?!!--)", report.markdown([load(path), load(path)]))


def test_a_run_in_which_nothing_could_be_measured_is_reported_with_the_reasons() -> None:
    run = load(saved_run(Path("run.json"), unmeasured=[Unmeasured(make_result().case, "timed_out", "3 rounds in 300 s")]))
    assert "3 rounds in 300 s" in "".join(Page(report.page([run])).texts["td"])
    assert "3 rounds in 300 s" in report.markdown([run])


def test_several_runs_are_compared_with_the_first_and_told_apart(run: Run) -> None:
    other = load(saved_run(Path("other.json"), make_group()))
    assert "comparison" not in Page(report.page([run])).ids
    page = Page(report.page([run, other]))
    assert page.ids.index("comparison") == page.ids.index("conditions") - 1
    assert {"run", "other"} <= set(page.texts["h3"])
    assert "## Comparison\n" in report.markdown([run, other])
    assert "### other\n" in report.markdown([run, other])


def test_the_markdown_tells_the_same_without_pictures(run: Run) -> None:
    headings = re.findall(r"^## (.*)$", report.markdown([run]), re.MULTILINE)
    assert headings == [
        "The answer", "What the guide claims", "Every mode", "Machine and conditions", "What could not be measured",
    ]  # fmt: skip


def test_a_case_reads_sorts_and_is_copied_as_its_figures_need_it() -> None:
    results = [make_result("tracked"), make_result(speedup=Interval(0.9, 0.88, 0.92), verdict="slower", trusted=False)]
    table = cases(tidy_rows(results))
    assert [column.title for column in table.columns] == [
        "model", "size", "mode", "per call", "speedup", "verdict", "placebo", "faults", "peak", "ratio", "held", "saved", "RSS",
    ]  # fmt: skip
    row, cells, line = table.lines[1]
    assert row["mode"] == "no_grad"
    assert cells[3:6] == [("100 us", 100e-6), ("0.90 ±0.02", 0.9), ("slower?", "slower")]
    copied = next(csv.DictReader([table.csv_header, line]))
    assert (copied["model"], copied["seconds"], copied["speedup_low"], copied["inputs"]) == (
        "mlp",
        "0.0001",
        "0.88",
        "float32[8, 64]",
    )
    assert table.values("mode") == ["tracked", "no_grad"]


def test_what_was_not_measured_has_no_value_to_sort_by() -> None:
    table = cases(tidy_rows([make_result("tracked"), make_result(speedup=None, page_faults=None)]))
    assert table.lines[1][1][4:8:3] == [("-", ""), ("-", "")]


def test_the_command_writes_beside_the_run_and_over_its_own_report(run: Run) -> None:
    for _ in range(2):
        result = analysis("run.json")
        assert (result.exit_code, result.stdout, result.stderr) == (0, "report: run.html\n", "")
    assert Path("run.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert analysis("run.json", "-o", "report.md").exit_code == analysis("run.json", "-o", "report.md").exit_code == 0
    assert "## The answer" in Path("report.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("report.pdf", ".html or .md"),
        ("gone/report.html", "no folder gone"),
        ("mine.html", "no report of this suite"),
        ("x.md", "x.md"),
    ],
)
def test_a_place_that_is_no_place_for_a_report_is_refused_and_left_alone(run: Run, place: str, reason: str) -> None:
    Path("mine.html").write_text("<p>mine")
    Path("x.md").mkdir()
    result = analysis("run.json", "-o", place)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"error: -o {place}: ")
    assert reason in result.stderr
    assert Path("mine.html").read_text() == "<p>mine"
    assert sorted(path.name for path in Path().iterdir()) == ["mine.html", "run.json", "x.md"]


def test_a_file_of_other_tests_is_refused() -> None:
    saved_run(Path("other.json"), foreign=2)
    result = analysis("other.json")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("error: other.json: holds no results of this suite")


def test_the_charts_are_written_as_pictures_to_which_the_markdown_links(run: Run) -> None:
    result = analysis("run.json", "-o", "report.md", "--charts", "pictures/of run")
    assert result.stdout.splitlines()[-1] == "report: report.md"
    links = re.findall(r"!\[.*\]\(<(.*)>\)", Path("report.md").read_text(encoding="utf-8"))
    assert links
    assert all(Path(link).is_file() and Path(link).with_suffix(".png").is_file() for link in links)


def make_bench(folder: Path, pytest_does: str) -> subprocess.CompletedProcess[str]:
    """`make bench` in `folder` with a Python that runs `pytest_does` for pytest and tells what it is called with otherwise."""
    python = folder / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nif [ "$2" = pytest ]; then {pytest_does}; else shift; echo "$@"; fi\n')
    python.chmod(0o755)
    for name in ("pyproject.toml", "constraints.txt", ".venv/.up-to-date", "results/here/0001_old.json"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    os.utime(folder / "results/here/0001_old.json", (1, 1))
    command = ["make", "-s", "-f", str(ROOT / "Makefile"), "bench"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=30)


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make here")
@pytest.mark.parametrize(
    ("does", "succeeds"), [("touch results/here/0002_new.json", True), ("touch results/here/0002_new.json; exit 1", False)]
)
def test_make_bench_ends_with_the_report_of_its_own_run_and_with_the_status_of_pytest(
    tmp_path: Path, does: str, *, succeeds: bool
) -> None:
    done = make_bench(tmp_path, f"echo measured; {does}")
    assert done.stdout == "measured\nanalysis report results/here/0002_new.json\n"
    assert (done.returncode == 0) == succeeds


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make here")
def test_make_bench_reports_no_older_run_where_none_was_saved(tmp_path: Path) -> None:
    done = make_bench(tmp_path, "echo stopped; exit 4")
    assert (done.stdout, done.returncode != 0) == ("stopped\n", True)
