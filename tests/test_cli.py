"""`pytest --benchmark` as a user types it: what it prints, what it saves, and what it does with models that misbehave."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from contextlib import redirect_stdout
from io import StringIO
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from commands import HERE, SHORT, TINY, Finished, run_here, type_here, type_in
from pytest_benchmark import cli, utils

from benchmarks import session

# A run that goes well.


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a compiler")
@pytest.mark.slow
def test_a_model_is_measured_eager_and_compiled_side_by_side(tmp_path: Path) -> None:
    finished = type_in(tmp_path, *TINY, *SHORT, "--processes", "1", "--modes", "no_grad", "--execution", "eager,compiled")
    assert finished.status == 0, finished.output
    assert "[2/2] forward mlp tiny cpu float32 compiled" in finished.output
    assert "\nmlp tiny compiled" in finished.output
    eager, compiled = ({one.case.execution: one for one in finished.results()}[name] for name in ("eager", "compiled"))
    assert (eager.compile_seconds, eager.recompilations, compiled.recompilations) == (None, None, 0)
    assert compiled.compile_seconds is not None
    assert compiled.compile_seconds > compiled.seconds
    assert compiled.memory.saved_bytes is None


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """One small run that several tests look at."""
    return type_here(tmp_path_factory.mktemp("storage"), *TINY, *HERE, page=True)


def test_a_run_ends_with_the_answer_and_where_everything_is_on_one_screen_without_control_codes(calm: Finished) -> None:
    assert calm.status == 0, calm.output
    ending = calm.output[calm.output.index("[1/1] forward mlp tiny cpu float32") :]
    for text in ("mlp tiny", "no_grad", "control: ", "\nrun    ", "\ntable  ", "\npage   ", "\nnext   "):
        assert text in ending
    for suffix in (".json", ".md", ".html"):
        assert str(calm.saved[0].with_suffix(suffix)) in ending
        assert calm.saved[0].with_suffix(suffix).stat().st_size > 100
    lines = ending.splitlines()
    assert len(lines) <= 50
    assert max(len(line) for line in lines if str(calm.storage) not in line) <= 120
    assert not set("\x1b\r\b") & set(calm.output)


def test_pytest_benchmark_lists_and_compares_saved_runs(calm: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    for command, told in (("list", calm.saved[0].name), ("compare", "mlp-tiny-cpu-float32-eager-pages_kept-no_grad")):
        monkeypatch.setattr(sys, "argv", ["pytest-benchmark", "--storage", f"file://{calm.storage}", command])
        with redirect_stdout(StringIO()) as said:
            cli.main()
        assert told in said.getvalue()


def test_a_run_can_be_cut_down_named_dumped_and_compared(calm: Finished, tmp_path: Path) -> None:
    dump = tmp_path / "run.json"
    more = ("-k", "no_grad", "--benchmark-save=named", f"--benchmark-json={dump}", "--benchmark-compare")
    again = type_here(calm.storage, *TINY, *HERE, *more)
    assert again.status == 0, again.output
    assert again.saved[-1].name == "0002_named.json"
    assert [one.case.mode for one in again.results()] == ["no_grad"]
    assert again.results()[0].speedup is not None, "tracked is measured for comparison"
    assert again.results()[0].memory.peak_rss_bytes is None, "this process was not the mode's alone"
    assert json.loads(dump.read_text())["gradtax"]["schema"] == 2
    assert "NOW" in again.output
    assert "machine_info is different" not in again.output


def test_disabled_benchmarks_check_contracts_and_save_nothing(tmp_path: Path) -> None:
    done = type_here(tmp_path, *TINY, *HERE, "--benchmark-disable")
    assert (done.status, "4 passed" in done.output, done.saved) == (0, True, []), done.output


def test_what_is_typed_is_measured_and_cannot_steer_the_terminal_and_what_harms_is_told_before_and_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Outside of a repository, where files are called by their time alone."""
    monkeypatch.setattr(utils, "in_any_parent", lambda *_: False)
    threads = str((os.cpu_count() or 1) + 1)
    chosen = ("--dtype", "amp_bfloat16", "--modes", "no_grad", "--freeze", "[!\x1b\r]*", "--threads", threads)
    done = type_here(tmp_path, *TINY, *HERE, *chosen)
    assert done.status == 0, done.output
    assert re.fullmatch(r"0001_\d{8}_\d{6}\.json", done.saved[0].name)
    assert [(one.case.dtype, one.model.inputs) for one in done.results()] == [("amp_bfloat16", ["float32[8, 64]"])] * 2
    assert not set("\x1b\r\b") & set(done.output + done.saved[0].with_suffix(".md").read_text())
    harm = "more threads than cores"
    assert done.output.index(f"warning: {harm}") < done.output.index("[1/1]")
    assert any(harm in warning for warning in done.run()["gradtax"]["conditions"]["warnings"])


def test_how_long_is_left_is_told_from_the_fourth_job_on_by_what_those_before_took_for_their_share(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, lines = count(step=10), list[str]()
    monkeypatch.setattr(session, "time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    jobs: list[Any] = [SimpleNamespace(share=share) for share in (1.0, 1.0, 2.0, 1.0, 20.0)]
    list(session.announced(jobs, lines.append))
    assert [line.partition("left")[0].rpartition(", ")[2] for line in lines[3:]] == ["about 52 s ", "about 80 s "]
    assert not any("left" in line for line in lines[:3])


# A run in workers, and models that misbehave.


def misbehaving(*names: str) -> list[str]:
    return [f"--model=tests/misbehaving.py:{name}" for name in names]


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """One run in workers of a model that behaves and of some that do not."""
    specs = misbehaving("segfaults", "asks_for_100_gb", "changes_grad_mode")
    options = (*TINY, *specs, "--modes", "tracked,no_grad", *SHORT, "--processes", "2")
    return type_in(tmp_path_factory.mktemp("storage"), *options)


def test_the_saved_run_holds_the_data_contract(mixed: Finished) -> None:
    results = {one.case.mode: one for one in mixed.results() if one.case.model == "mlp"}
    assert {mode: one.memory.peak_tensor_bytes for mode, one in results.items()} == {"tracked": 10240, "no_grad": 4096}
    for result in results.values():
        assert result.contract.holds
        assert (result.model.parameters, result.model.inputs) == (16640, ["float32[8, 64]"])
        assert [reading.launch for reading in result.processes] == [0, 1]
        assert result.washout_calls >= 1
    run = mixed.run()
    assert {benchmark["extra_info"]["schema"] for benchmark in run["benchmarks"]} == {run["gradtax"]["schema"]} == {2}
    assert {"command", "budget", "wall_seconds", "load_average_at_start"} <= set(run["gradtax"]["conditions"])
    assert run["machine_info"]["gradtax"]["threads"] is not None


def test_rounds_are_saved_as_pairs_from_which_the_speedup_follows(mixed: Finished) -> None:
    saved = {one["extra_info"]["case"]["mode"]: one for one in mixed.run()["benchmarks"][:2]}
    tracked, no_grad = (np.array(saved[mode]["stats"]["data"]) for mode in ("tracked", "no_grad"))
    rounds = [one["rounds"] for one in saved["no_grad"]["extra_info"]["processes"]]
    assert len(tracked) == len(no_grad) == sum(rounds)
    medians = [np.median(part) for part in np.split(np.log(tracked / no_grad), np.cumsum(rounds)[:-1])]
    estimate = saved["no_grad"]["extra_info"]["speedup"]["estimate"]
    assert estimate == pytest.approx(float(np.exp(np.mean(medians))), rel=1e-12)


def test_what_cannot_be_measured_is_told_by_mode_and_why_only_defects_fail_and_the_rest_goes_on(mixed: Finished) -> None:
    assert {(one.case.model, one.case.mode): one.status for one in mixed.unmeasured()} == {
        ("segfaults", "tracked"): "crashed",
        ("segfaults", "no_grad"): "crashed",
        ("asks_for_100_gb", "tracked"): "out_of_memory",
        ("asks_for_100_gb", "no_grad"): "out_of_memory",
        ("changes_grad_mode", "tracked"): "broken_contract",
    }
    assert (mixed.results()[-1].case.model, mixed.results()[-1].speedup) == ("changes_grad_mode", None)
    assert (mixed.status, "3 failed, 3 passed, 2 skipped" in mixed.output) == (1, True), mixed.output
    for reason in (
        "killed by SIGSEGV (misbehaving.py:",
        "tracked: out_of_memory: RuntimeError",
        "gradients were left off after the call",
    ):
        assert reason in mixed.output
    assert "Traceback" not in mixed.output


FROZEN = """
import torch
def frozen():
    return torch.nn.Linear(16, 16).requires_grad_(False), torch.randn(4, 16)
"""


@pytest.mark.parametrize(
    ("name", "failed", "reason", "statuses"),
    [
        ("raises", True, "ValueError: no", ["crashed", "crashed"]),
        ("returns_no_tensor", False, "holds no tensor", ["unsupported", "unsupported"]),
        ("frozen", False, "nothing to switch off", ["unsupported"]),
    ],
)
def test_a_run_that_measures_nothing_is_no_success_but_saved_and_a_finding_about_a_model_is_no_failure(
    tmp_path: Path, name: str, failed: bool, reason: str, statuses: list[str]
) -> None:
    (tmp_path / "own.py").write_text(FROZEN)
    (model,) = [f"--model={tmp_path}/own.py:frozen"] if name == "frozen" else misbehaving(name)
    done = type_here(tmp_path, model, "--modes", "tracked,no_grad", *HERE)
    assert ("failed" in done.output, [one.status for one in done.unmeasured()]) == (failed, statuses), done.output
    assert done.status == int(not done.results())
    assert reason in done.output
    assert "Not saving anything" not in done.output


# What is typed.


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--modes", "no_grad,nograd"), "--modes unknown nograd; choose from tracked, no_grad"),
        (("--budget", "0"), "--budget 0: expected a number above 0"),
        (("--scenarios", "rollout"), "--scenarios rollout: runs models of its own"),
        (("--model", "\x1b[31mnowhere.py:build"), "[31mnowhere.py:build: there is no file"),
        (("--models", "\x1b[31mmlp"), "[31mmlp; choose from"),
        (("--device", "tpu"), "--device tpu: "),
        (("--benchmark-storage=file:///proc/nowhere",), "--benchmark-storage /proc/nowhere: runs cannot be saved there"),
    ],
)
def test_bad_input_is_a_usage_error_in_one_line(arguments: tuple[str, ...], expected: str, tmp_path: Path) -> None:
    done = type_here(tmp_path, *TINY, *HERE, *arguments)
    assert done.status == 2
    (line,) = [line for line in done.output.splitlines() if line]
    assert expected in line
    assert line.isprintable()


def test_the_flag_tells_the_cases_from_the_suites_own_tests(tmp_path: Path) -> None:
    cases = type_here(tmp_path, "--collect-only", "-q", *TINY, *HERE)
    assert cases.status == 0
    assert "benchmarks/test_cases.py::test_case[forward-mlp-tiny-cpu-float32-eager-pages_kept-no_grad]" in cases.output
    assert "tests/" not in cases.output
    assert not list(tmp_path.glob("*/*"))
    own = run_here(tmp_path, "-p", "no:cacheprovider", "--collect-only", "-q", "tests/test_saving.py", "benchmarks")
    assert "test_saving.py::" in own.output
    assert "test_case[" not in own.output


def test_a_plugin_that_owns_timeout_gets_along_with_it(tmp_path: Path) -> None:
    class Timeout:
        def pytest_addoption(self, parser: pytest.Parser) -> None:
            parser.addoption("--timeout", type=float, help="as pytest-timeout has it")

    limits = ("--timeout", "5", "--worker-timeout", "7")
    done = type_here(tmp_path, *limits, "--collect-only", "-q", *TINY, *HERE, plugins=(Timeout(),))
    assert (done.status, "tests collected" in done.output) == (0, True), done.output
