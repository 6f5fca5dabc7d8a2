"""Proves that `python -m analysis` prints tables of saved runs, and answers what it cannot read in one clear line."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from builders import make_group, make_result, saved_run
from typer.testing import CliRunner, Result

from analysis.__main__ import app
from analysis.render import FORMATS
from analysis.summary import summary_table
from benchmarks.record import Unmeasured, tidy_rows

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs are looked up under results/ of the current folder."""
    monkeypatch.chdir(tmp_path)


def analysis(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def assert_refused(result: Result, *words: str) -> None:
    assert result.exit_code == 2
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith("error: ")
    assert all(word in result.stderr for word in words)
    assert result.exception is None or isinstance(result.exception, SystemExit)


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_prints_the_table_of_the_run_and_nothing_else(name: str) -> None:
    gone = Unmeasured(make_result("frozen").case, "crashed", "exit code -9")
    results = [*make_group(), *make_group(model="lstm"), *make_group(allocator="default")]
    saved_run(Path("run.json"), results, [gone])
    result = analysis("summarise", "run.json", "--format", name)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == FORMATS[name](summary_table(tidy_rows(results), [gone])) + "\n"


def test_the_newest_run_is_summarised_for_the_terminal_unless_told_otherwise() -> None:
    for number, model in ((1, "older"), (2, "newer")):
        run = saved_run(Path(f"results/machine/000{number}_x.json"), make_group(model=model))
        os.utime(run, (number, number))
    result = analysis("summarise")
    assert result.exit_code == 0
    assert "\nnewer tiny   forward" in result.stdout
    assert analysis("summarise", "latest").stdout == result.stdout
    assert "\nolder tiny   forward" in analysis("summarise", "0001").stdout


def test_tracked_stands_first_however_the_run_was_saved() -> None:
    saved_run(Path("run.json"), reversed(make_group()))
    read = csv.DictReader(io.StringIO(analysis("summarise", "run.json", "--format", "csv").stdout))
    assert [row["mode"] for row in read] == ["tracked", "no_grad"]


def test_benchmarks_of_other_tests_are_told_on_stderr_and_leave_the_output_clean() -> None:
    saved_run(Path("run.json"), make_group(), foreign=3)
    result = analysis("summarise", "run.json", "--format", "json")
    assert result.exit_code == 0
    assert result.stderr == "run.json: 3 benchmarks of other tests skipped\n"
    assert len(json.loads(result.stdout)) == 2


def test_a_run_in_which_nothing_could_be_measured_says_what_happened() -> None:
    saved_run(Path("run.json"), unmeasured=[Unmeasured(make_result().case, "timed_out", "3 rounds in 300 s")])
    result = analysis("summarise", "run.json")
    assert result.exit_code == 0
    assert "not measured: forward mlp tiny cpu float32 resident no_grad: timed_out: 3 rounds in 300 s" in result.stdout


def test_an_unknown_format_is_refused_with_those_that_exist() -> None:
    saved_run(Path("run.json"), make_group())
    assert_refused(analysis("summarise", "run.json", "--format", "html"), "--format html", *FORMATS)


@pytest.mark.parametrize("run", ["missing.json", "0007", "7", "latest", "."])
def test_a_run_that_does_not_exist_is_refused_by_name(run: str) -> None:
    assert_refused(analysis("summarise", run), {"7": "0007", "latest": "no saved run"}.get(run, run))


@pytest.mark.parametrize(
    ("content", "reason"),
    [("", "not JSON"), ("speedup,1.2\n", "not JSON"), ("[1, 2]", "not a run"), ('{"benchmarks": []}', "no results")],
)
def test_a_file_that_holds_no_run_is_refused_by_name(content: str, reason: str) -> None:
    Path("odd.json").write_text(content)
    assert_refused(analysis("summarise", "odd.json"), "odd.json", reason)


def test_an_unknown_command_or_option_is_a_usage_error() -> None:
    for arguments in (["summarize"], ["summarise", "--formats", "csv"], ["summarise", "a", "b"]):
        result = analysis(*arguments)
        assert (result.exit_code, result.stdout) == (2, "")
        assert "Traceback" not in result.stderr


def test_help_names_the_commands_the_formats_and_an_example() -> None:
    assert "summarise" in analysis("--help").stdout
    told = " ".join(analysis("summarise", "--help").stdout.split())
    assert "python -m analysis summarise" in told
    assert ", ".join(FORMATS) in told


def test_reading_runs_never_imports_torch() -> None:
    code = "import sys, analysis.__main__, analysis.load; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True, timeout=60)
    assert found.stdout == "False\n"


def test_the_module_runs_as_a_command(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "analysis", "summarise", str(tmp_path / "missing.json")]
    found = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True, timeout=60)
    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr.startswith(f"error: {tmp_path / 'missing.json'}: no such file")
    assert "Traceback" not in found.stderr
