"""Proves that `python -m analysis` prints what is asked for, and answers what it cannot do in one line with its own exit status."""

from __future__ import annotations

import csv
import io
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from builders import group, run, saved, unmeasured

from analysis import __main__ as cli
from analysis import read as reading
from analysis.__main__ import By, Format, main
from analysis.read import IDENTITY, read
from analysis.render import FIGURES, VIEWS, rendered
from analysis.summarise import figures, summary

ROOT = Path(__file__).parent.parent
Shown = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs are looked up under results/ of the current folder."""
    monkeypatch.chdir(tmp_path)


def assert_refused(shown: Shown, status: int, words: str) -> None:
    out, err = shown.readouterr()
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"error: {words}")


@pytest.mark.parametrize("name", Format)
def test_every_format_prints_the_whole_run_and_nothing_else(name: Format, capsys: Shown) -> None:
    path = saved(Path("run.json"), run(*group(), *group(model="m" * 300), unmeasured=[unmeasured("frozen")]))
    assert main(["summarise", "run.json", "--format", name]) == 0
    found = read(path)
    out, err = capsys.readouterr()
    assert (out, err) == (rendered(summary(found), figures(found), name) + "\n", "")
    assert all(line.isprintable() and (len(line) <= 100 or name != "terminal") for line in out.splitlines())


def test_choices_are_those_that_there_are() -> None:
    assert {*Format} == {*VIEWS, *FIGURES}
    assert {*By} == {*IDENTITY, "model", "size", "mode", "device"}


def test_few_runs_stand_side_by_side_and_more_are_averaged(capsys: Shown) -> None:
    for number in range(6):
        saved(Path(f"runs/000{number}_x.json"), run(*group({"no_grad": 1.2}), saved_at=f"2026-11-2{number}"))
    assert main(["summarise", "runs/0000_x.json", "runs/0001_x.json"]) == 0
    assert "mlp    tiny  0000  1.20 ±0.01" in capsys.readouterr().out
    assert main(["summarise", "runs"]) == 0
    assert "mlp    tiny  1.200 ±0.005      1     6\n" in capsys.readouterr().out


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
    Path("a\x1b[2J.json").write_text(json.dumps({"benchmarks": []}))
    foreign = "a\N{REPLACEMENT CHARACTER}[2J.json: holds no results of this suite"  # nor can a name steer the terminal
    assert_refused(capsys, main([command, "a\x1b[2J.json"]), foreign)
    assert_refused(capsys, main([command]), "there is no saved run under results/")


def test_means_of_nothing_are_refused(capsys: Shown) -> None:
    saved(Path("a.json"), run(*group({})))
    assert_refused(capsys, main(["summarise", "a.json", "--by", "model"]), "nothing in 1 file has a speedup beside tracked's")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("summarise --by colour", "'colour' is not one of model, size, run"),
        ("summarise --format yaml", "terminal"),
        ("summarise --metric seconds", "peak_tensor_bytes"),
        ("compare a.json", "HEAD"),
        ("compare a.json a.json --allow speedup=2%", "only with --gate"),
        ("report a.json -o report.pdf", "its ending says the format, so .html or .md is expected"),
        ("frobnicate", "No such command"),
    ],
)
def test_wrong_options_are_refused_with_the_right_ones(arguments: str, words: str, capsys: Shown) -> None:
    saved(Path("a.json"))
    assert main(arguments.split()) == 2
    out, err = capsys.readouterr()
    assert (out, words in err) == ("", True)


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        ("a.json b.json", 0, []),
        ("a.json a.json --gate", 0, ["gate: nothing regressed (2 cases compared)"]),
        ("a.json b.json --gate", cli.REGRESSED, ["gate: 1 regression (2 cases compared)"]),
    ],
)
def test_the_gate_alone_makes_a_regression_an_exit_status(arguments: str, status: int, said: list[str], capsys: Shown) -> None:
    saved(Path("a.json"))
    saved(Path("b.json"), run(*group({"no_grad": 1.0})))
    assert main(["compare", *arguments.split()]) == status
    out, err = capsys.readouterr()
    assert "2 cases compared; speedups: " in out
    assert err.splitlines()[-1:] == said


@pytest.mark.parametrize(
    ("raised", "status"), [(KeyError("ours"), cli.CRASHED), (KeyboardInterrupt(), cli.INTERRUPTED), (BrokenPipeError(), 0)]
)
def test_a_crash_of_ours_and_an_interruption_are_told_apart_from_a_regression(
    raised: BaseException, status: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def stopped(*_: object) -> None:
        raise raised

    monkeypatch.setattr(reading, "read", stopped)
    monkeypatch.setattr(os, "dup2", lambda *_: None)  # pytest's own stdout stays
    saved(Path("a.json"))
    assert main(["summarise", "a.json"]) == status != cli.REGRESSED
    assert ("KeyError: 'ours'" in capfd.readouterr().err) == (status == cli.CRASHED)


def test_without_a_command_help_names_them_all(capsys: Shown) -> None:
    assert main([]) == 2
    shown = capsys.readouterr().err
    assert all(f"\n  {name} " in shown for name in ("summarise", "compare", "advise", "claims", "explain", "report", "share"))


def in_a_shell(command: str) -> str:
    """What it prints, where it ends well and has nothing to say."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, env=environment, check=True
    )
    assert done.stderr == ""
    return done.stdout


def test_a_reader_that_has_enough_ends_it_quietly() -> None:
    saved(Path("a.json"), run(*(one for number in range(400) for one in group(model=f"m{number}"))))
    assert in_a_shell(f"{sys.executable} -m analysis summarise a.json --format json | head -1") == "[\n"


def test_the_analysis_never_imports_torch_and_help_not_even_pandas() -> None:
    saved(Path("a.json"))
    script = (
        "import sys; from analysis.__main__ import main; main(['--help']); assert 'pandas' not in sys.modules\n"
        "assert main(['summarise', 'a.json']) == 0 and main(['summarise', 'a.json', '--by', 'run']) == 0\n"
        "assert 'torch' not in sys.modules"
    )
    assert "mlp tiny" in in_a_shell(shlex.join([sys.executable, "-c", script]))
