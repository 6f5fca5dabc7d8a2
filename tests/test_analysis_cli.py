"""Proves that `python -m analysis` prints tables of saved runs, and answers what it cannot read in one clear line."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from builders import make_group, make_result, saved_run
from typer.testing import CliRunner, Result

from analysis.__main__ import app
from analysis.load import load, rows_of
from analysis.means import BY, METRICS
from analysis.render import FORMATS
from analysis.summary import summary_table
from benchmarks.record import Unmeasured

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
    rows = rows_of(load(saved_run(Path("run.json"), results, [gone])).frame)
    result = analysis("summarise", "run.json", "--format", name)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == FORMATS[name](summary_table(rows, [gone])) + "\n"


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
    assert_refused(analysis("summarise", "run.json", "--format", "pdf"), "--format pdf", *FORMATS)


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


@pytest.mark.parametrize("name", ["summarise", "explain", "selfcheck", "completion"])
def test_help_of_every_command_shows_an_example_of_it(name: str) -> None:
    told = " ".join(analysis(name, "--help").stdout.split())
    assert re.search(rf"Example: .*python -m analysis {name}", told)


def test_alone_it_tells_the_commands_and_the_run_that_they_would_look_at() -> None:
    told = analysis()
    assert (told.exit_code, told.stderr) == (0, "")
    assert all(f"  python -m analysis {name} " in told.stdout for name in ("summarise", "explain", "selfcheck", "completion"))
    assert "there is no saved run under results/; `pytest --benchmark` makes one" in told.stdout
    saved_run(Path("results/machine/0003_x.json"), make_group())
    assert "Unless another run is named they look at results/machine/0003_x.json" in analysis().stdout
    assert max(len(line) for line in told.stdout.splitlines()) <= 100


def test_a_few_runs_stand_side_by_side_and_many_are_averaged() -> None:
    for number in range(1, 7):
        saved_run(Path(f"runs/{number}.json"), make_group())
    few, many = analysis("summarise", "runs/1.json", "runs/2.json").stdout, analysis("summarise", "runs").stdout
    assert re.findall(r"^  mlp +tiny +(\w+) ", few, re.MULTILINE) == ["1", "2"]
    assert re.findall(r"^  mlp .*", many, re.MULTILINE) == ["  mlp    tiny  1.250 ±0.004      1"]
    assert "measured: 6 runs" in many


def test_the_same_file_named_twice_is_one_run() -> None:
    saved_run(Path("a.json"), make_group())
    assert analysis("summarise", "a.json", "./a.json", "*.json").stdout == analysis("summarise", "a.json").stdout


def test_by_and_metric_choose_the_rows_and_what_is_averaged() -> None:
    saved_run(Path("a.json"), [*make_group(), *make_group(model="lstm")])
    assert (
        "\n  tiny     0.40      2\n" in analysis("summarise", "a.json", "--by", "size", "--metric", "peak_tensor_bytes").stdout
    )
    assert "\n  mlp    tiny     0.40      1\n" in analysis("summarise", "a.json", "--metric", "peak_tensor_bytes").stdout
    assert "\n  tiny  lstm   1.25 ±0.01      1\n" in analysis("summarise", "a.json", "--by", "size, model,size").stdout


@pytest.mark.parametrize(("option", "known"), [("--by", BY), ("--metric", METRICS)])
def test_a_wrong_name_is_refused_with_the_right_ones(option: str, known: tuple[str, ...]) -> None:
    saved_run(Path("a.json"), make_group())
    assert_refused(analysis("summarise", "a.json", option, "colour"), f"{option} colour: unknown", ", ".join(known))


def test_what_cannot_be_read_ends_it_or_is_left_out_and_told() -> None:
    saved_run(Path("runs/a.json"), make_group())
    Path("runs/odd.json").write_text(Path("runs/a.json").read_text().replace('"seconds": 0.0001,', '"seconds": "soon",'))
    Path("runs/other.json").write_text("{}")
    wrong = "runs/odd.json: benchmarks[1].extra_info.seconds: expected `float`, got `str`"
    refused = analysis("summarise", "runs")
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert refused.stderr == f"error: {wrong}; --keep-going leaves it out\n"
    told = analysis("summarise", "runs", "--keep-going", "--by", "run")
    assert told.exit_code == 0
    assert told.stderr.splitlines() == [
        "passed over, for pytest-benchmark did not save it: runs/other.json", f"left out: {wrong}",
    ]  # fmt: skip
    assert "measured: 2 runs" in told.stdout


def test_if_nothing_is_left_going_on_ends_in_an_error() -> None:
    for name in ("a.json", "b.json"):
        Path(name).write_text("not JSON")
    result = analysis("summarise", "a.json", "b.json", "--keep-going")
    assert (result.exit_code, result.stdout) == (2, "")
    assert [line.partition(":")[0] for line in result.stderr.splitlines()] == ["left out", "left out", "error"]
    assert "2 files: no results of this suite" in result.stderr


def test_reading_runs_never_imports_torch() -> None:
    code = "import sys, analysis.__main__, analysis.load, analysis.selfcheck; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True, timeout=60)
    assert found.stdout == "False\n"


def test_help_and_finding_a_run_wait_for_no_heavy_import() -> None:
    code = "import sys, analysis.__main__, analysis.load; print({'pandas', 'numpy', 'altair', 'jinja2'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True, timeout=60)
    assert found.stdout == "set()\n"


def test_the_module_runs_as_a_command(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "analysis", "summarise", str(tmp_path / "missing.json")]
    found = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True, timeout=60)
    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr.startswith(f"error: {tmp_path / 'missing.json'}: no such file")
    assert "Traceback" not in found.stderr
