"""Proves that `python -m analysis` prints what is asked for, and answers what it cannot do in one line with its own exit status."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from builders import group, run, saved, unmeasured

from analysis import __main__ as cli
from analysis import read as reading
from analysis.__main__ import By, Format, Metric, main
from analysis.means import METRICS
from analysis.read import IDENTITY, read
from analysis.render import FIGURES, VIEWS, rendered
from analysis.summarise import figures, summary

ROOT = Path(__file__).parent.parent
Shown = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs are looked up under results/ of the current folder."""
    monkeypatch.chdir(tmp_path)


def analysis(*arguments: str) -> subprocess.CompletedProcess[str]:
    """In a fresh interpreter."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "100"}
    return subprocess.run(
        [sys.executable, "-m", "analysis", *arguments], capture_output=True, text=True, check=False, env=environment
    )


def assert_refused(shown: Shown, status: int, *words: str) -> None:
    out, err = shown.readouterr()
    assert (status, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert err.startswith("error: ")
    assert all(word in err for word in words)


@pytest.mark.parametrize("name", Format)
def test_every_format_prints_the_whole_run_and_nothing_else(name: Format, capsys: Shown) -> None:
    path = saved(
        Path("run.json"), run(*group(), *group(model="lstm"), *group(allocator="as_shipped"), unmeasured=[unmeasured("frozen")])
    )
    assert main(["summarise", "run.json", "--format", name]) == 0
    found = read(path)
    assert capsys.readouterr() == (rendered(summary(found), figures(found), name) + "\n", "")


def test_choices_are_those_that_there_are() -> None:
    assert {*Format} == {*VIEWS, *FIGURES}
    assert tuple(Metric) == METRICS
    assert {*By} == {*IDENTITY, "model", "size", "mode", "device"}


def test_the_newest_run_is_summarised_unless_told_otherwise(capsys: Shown) -> None:
    for number, model in ((1, "older"), (2, "newer")):
        os.utime(saved(Path(f"results/machine/000{number}_x.json"), run(*group(model=model))), (number, number))
    assert main(["summarise"]) == 0
    assert "newer tiny" in capsys.readouterr().out
    assert main(["summarise", "1"]) == 0
    assert "older tiny" in capsys.readouterr().out


def test_few_runs_stand_side_by_side_and_more_are_averaged(capsys: Shown) -> None:
    for number in range(6):
        saved(Path(f"runs/000{number}_x.json"), run(*group({"no_grad": 1.2}), saved_at=f"2026-11-2{number}"))
    assert main(["summarise", "runs/0000_x.json", "runs/0001_x.json"]) == 0
    assert "mlp    tiny  0000  1.20 ±0.01" in capsys.readouterr().out
    assert main(["summarise", "runs"]) == 0
    (_, titles, line, *_) = capsys.readouterr().out.split("\n")
    assert titles.split() == ["model", "size", "no_grad", "cases", "runs"]
    assert line.split() == ["mlp", "tiny", "1.200", "±0.005", "1", "6"]


def test_means_are_by_what_is_asked_for_and_of_any_metric(capsys: Shown) -> None:
    saved(Path("a.json"), run(*group(), *group(size="small")))
    assert main(["summarise", "a.json", "--by", "torch, model", "--metric", "saved_bytes", "--format", "csv"]) == 0
    (row,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert {name: row[name] for name in ("torch", "model", "mode", "ratio", "cases")} == {
        "torch": "2.13.0", "model": "mlp", "mode": "no_grad", "ratio": "0.0", "cases": "2",
    }  # fmt: skip


def test_a_broken_file_in_a_folder_is_left_out_but_one_that_is_named_stops(capsys: Shown) -> None:
    saved(Path("runs/good.json"))
    Path("runs/torn.json").write_text('{"evil\x1b')
    assert main(["summarise", "runs", "--metric", "speedup"]) == 0
    out, err = capsys.readouterr()
    assert "mlp    tiny  good" in out
    assert err.startswith("left out: runs/torn.json: not JSON")
    assert_refused(capsys, main(["summarise", "runs", "runs/torn.json"]), "runs/torn.json: not JSON")


@pytest.mark.parametrize("command", ["summarise", "advise", "claims", "explain", "report"])
def test_what_cannot_be_read_is_refused_in_one_line(command: str, capsys: Shown) -> None:
    assert_refused(capsys, main([command, "missing.json"]), "missing.json: no such file")
    Path("foreign.json").write_text(json.dumps({"benchmarks": []}))
    assert_refused(capsys, main([command, "foreign.json"]), "foreign.json: holds no results of this suite")
    assert_refused(capsys, main([command]), "there is no saved run under results/")


def test_names_of_files_cannot_steer_the_terminal(capsys: Shown) -> None:
    Path("a\x1b[2J.json").write_text("{")
    assert_refused(capsys, main(["summarise", "a\x1b[2J.json"]), "a\N{REPLACEMENT CHARACTER}[2J.json: not JSON")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["summarise", "--by", "colour"], "'colour' is not one of model, size, run"),
        (["summarise", "--format", "yaml"], "terminal"),
        (["summarise", "--metric", "seconds"], "peak_tensor_bytes"),
        (["compare", "a.json"], "HEAD"),
        (["compare", "a.json", "a.json", "--allow", "speedup=2%"], "only with --gate"),
        (["frobnicate"], "No such command"),
    ],
)
def test_wrong_options_are_refused_with_the_right_ones(arguments: list[str], words: str, capsys: Shown) -> None:
    saved(Path("a.json"))
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert (out, words in err) == ("", True)


def test_means_of_nothing_are_refused(capsys: Shown) -> None:
    saved(Path("a.json"), run(*group({})))
    assert_refused(capsys, main(["summarise", "a.json", "--by", "model"]), "nothing in 1 file has a speedup beside tracked's")


def test_a_crash_of_ours_is_told_apart_from_a_regression(monkeypatch: pytest.MonkeyPatch, capsys: Shown) -> None:
    def broken(*_: object) -> None:
        raise KeyError("ours")

    monkeypatch.setattr(reading, "read", broken)
    saved(Path("a.json"))
    assert main(["summarise", "a.json"]) == cli.CRASHED == 3
    assert "KeyError: 'ours'" in capsys.readouterr().err


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, BrokenPipeError])
def test_an_interruption_is_no_regression_either(
    interruption: type[BaseException], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def stopped(*_: object) -> None:
        raise interruption

    monkeypatch.setattr(reading, "read", stopped)
    monkeypatch.setattr(os, "dup2", lambda *_: None)  # pytest's own stdout stays
    saved(Path("a.json"))
    assert main(["summarise", "a.json"]) in (0, 130)


def test_without_a_command_help_names_them_all() -> None:
    shown = analysis()
    assert (shown.returncode, all(name in shown.stdout + shown.stderr for name in ("summarise", "compare", "advise"))) == (
        2,
        True,
    )
    assert analysis("summarise", "--help").returncode == 0


def test_piped_output_holds_no_control_characters_and_keeps_to_100_columns() -> None:
    saved(Path("a.json"), run(*group({"no_grad": 1.0}), *group(model="m" * 300)))
    shown = analysis("summarise", "a.json")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert all(line.isprintable() and len(line) <= 100 for line in shown.stdout.splitlines())


def test_a_reader_that_has_enough_ends_it_quietly() -> None:
    saved(Path("a.json"), run(*(one for number in range(400) for one in group(model=f"m{number}"))))
    command = f"{sys.executable} -m analysis summarise a.json --format json | head -1"
    shown = subprocess.run(
        command, shell=True, capture_output=True, text=True, check=True, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    assert (shown.stdout, shown.stderr) == ("[\n", "")


def test_the_analysis_never_imports_torch_and_help_not_even_pandas() -> None:
    saved(Path("a.json"))
    script = (
        "import sys; from analysis.__main__ import main; assert 'pandas' not in sys.modules\n"
        "assert main(['summarise', 'a.json']) == 0 and main(['summarise', 'a.json', '--by', 'run']) == 0\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
