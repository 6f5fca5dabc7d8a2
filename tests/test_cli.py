"""`pytest --benchmark` as a user types it: what it prints, what it saves, and what it does with models that misbehave."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from builders import environment

from benchmarks import allocator
from benchmarks.record import Result, Unmeasured, from_json

ROOT = Path(__file__).parent.parent
TINY = ("--models", "mlp", "--sizes", "tiny", "--device", "cpu", "--budget", "0.2", "--processes", "2")
HERE = (*TINY, "--in-process", "--processes", "1")
"""Starts no launch, each of which imports torch."""


@dataclass(frozen=True)
class Finished:
    status: int
    output: str
    storage: Path

    @property
    def saved(self) -> list[Path]:
        return sorted(self.storage.glob("*/*.json"))

    def run(self) -> dict[str, Any]:
        loaded: dict[str, Any] = json.loads(self.saved[-1].read_text())
        return loaded

    def results(self) -> list[Result]:
        return [from_json(one["extra_info"], Result) for one in self.run()["benchmarks"]]

    def unmeasured(self) -> list[Unmeasured]:
        return [from_json(one, Unmeasured) for one in self.run()["gradtax"]["unmeasured"]]


def type_in(storage: Path, *arguments: str, program: tuple[str, ...] = ("pytest", "--benchmark")) -> Finished:
    """Runs the command from the root, output piped; storage is only set where the arguments do not do so."""
    where = () if any("storage" in argument for argument in arguments) else (f"--benchmark-storage=file://{storage}",)
    command = [sys.executable, "-m", *program, *(where if "--benchmark" in program else ()), *arguments]
    variables = environment(COLUMNS="80")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False, env=variables)
    return Finished(done.returncode, done.stdout + done.stderr, storage)


# A run that goes well.


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a compiler")
@pytest.mark.slow
def test_a_model_is_measured_eager_and_compiled_side_by_side(tmp_path: Path) -> None:
    finished = type_in(tmp_path, *TINY, "--processes", "1", "--modes", "no_grad", "--execution", "eager,compiled")
    assert finished.status == 0, finished.output
    assert "[2/2] forward mlp tiny cpu float32 compiled" in finished.output
    assert "\nmlp tiny compiled" in finished.output
    eager, compiled = ({one.case.execution: one for one in finished.results()}[name] for name in ("eager", "compiled"))
    assert (eager.compile_seconds, eager.recompilations, compiled.recompilations) == (None, None, 0)
    assert compiled.compile_seconds is not None
    assert compiled.compile_seconds > compiled.seconds
    assert compiled.memory.saved_bytes is None


def test_a_model_is_measured_under_autocast(tmp_path: Path) -> None:
    finished = type_in(tmp_path, *HERE, "--dtype", "amp_bfloat16", "--modes", "no_grad")
    assert finished.status == 0, finished.output
    (result,) = finished.results()
    assert (result.case.dtype, result.model.inputs) == ("amp_bfloat16", ["float32[8, 64]"])


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """One small run that several tests look at."""
    return type_in(tmp_path_factory.mktemp("storage"), *TINY)


def test_a_run_ends_with_the_answer_and_where_everything_is(tiny: Finished) -> None:
    assert tiny.status == 0, tiny.output
    begin = tiny.output.index("[1/1] forward mlp tiny cpu float32")
    for text in ("mlp tiny", "no_grad", "control: ", "\nrun    ", "\ntable  ", "\npage   ", "\nnext   "):
        assert text in tiny.output[begin:]
    for suffix in (".json", ".md", ".html"):
        assert str(tiny.saved[0].with_suffix(suffix)) in tiny.output
        assert tiny.saved[0].with_suffix(suffix).stat().st_size > 100


def test_piped_output_has_no_control_codes_and_fits_one_screen(tiny: Finished) -> None:
    lines = tiny.output[tiny.output.index("[1/1]") :].splitlines()
    shown = [line for line in lines if str(tiny.storage) not in line]
    assert len(lines) <= 50
    assert max(map(len, shown)) <= 120
    assert not set("\x1b\r\b") & set(tiny.output)


@pytest.mark.skipif(allocator.unavailable() is not None, reason="pages are kept by glibc")
def test_how_long_is_left_is_told_from_the_fourth_job_on_by_what_those_before_took_for_their_share(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    edge: Any = request.config.pluginmanager.get_plugin(str(ROOT / "conftest.py"))
    clock, lines = count(step=10), list[str]()
    monkeypatch.setattr(edge, "time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    monkeypatch.setattr(edge.Progress, "_write", lambda _, line: lines.append(line))
    jobs = [SimpleNamespace(share=share) for share in (1.0, 1.0, 2.0, 1.0, 20.0)]
    list(edge.Progress(request.config, jobs).announced(jobs))
    assert [line.partition("left")[0].rpartition(", ")[2] for line in lines[3:]] == ["about 52 s ", "about 80 s "]
    assert not any("left" in line for line in lines[:3])


def test_the_saved_run_holds_the_data_contract(tiny: Finished) -> None:
    kept = {one.case.mode: one for one in tiny.results() if one.case.allocator == "pages_kept"}
    assert list(kept) == ["tracked", "no_grad", "inference_mode", "detach"]
    for result in kept.values():
        assert result.contract.holds
        assert (result.model.parameters, result.model.inputs) == (16640, ["float32[8, 64]"])
        assert len(result.processes) == 2
        assert {reading.launch for reading in result.processes} == {0, 1}
        assert result.washout_calls >= 1
        assert result.also_as_shipped is not any(one.case.allocator == "as_shipped" for one in tiny.results())
    peaks = {mode: result.memory.peak_tensor_bytes for mode, result in kept.items()}
    assert peaks == {"tracked": 10240, "no_grad": 4096, "inference_mode": 4096, "detach": 10240}
    run = tiny.run()
    assert {benchmark["extra_info"]["schema"] for benchmark in run["benchmarks"]} == {run["gradtax"]["schema"]} == {2}
    assert {"command", "budget", "wall_seconds", "load_average_at_start"} <= set(run["gradtax"]["conditions"])
    assert run["machine_info"]["gradtax"]["threads"] is not None


def test_rounds_are_saved_as_pairs_from_which_the_speedup_follows(tiny: Finished) -> None:
    saved = {one["extra_info"]["case"]["mode"]: one for one in tiny.run()["benchmarks"][:4]}
    tracked, no_grad = (np.array(saved[mode]["stats"]["data"]) for mode in ("tracked", "no_grad"))
    rounds = [one["rounds"] for one in saved["no_grad"]["extra_info"]["processes"]]
    assert len(tracked) == len(no_grad) == sum(rounds)
    medians = [np.median(part) for part in np.split(np.log(tracked / no_grad), np.cumsum(rounds)[:-1])]
    estimate = saved["no_grad"]["extra_info"]["speedup"]["estimate"]
    assert estimate == pytest.approx(float(np.exp(np.mean(medians))), rel=1e-12)


def test_pytest_benchmark_lists_and_compares_saved_runs(tiny: Finished) -> None:
    program = ("pytest_benchmark", "--storage", f"file://{tiny.storage}")
    listed, compared = (type_in(tiny.storage, name, program=program) for name in ("list", "compare"))
    assert (listed.status, compared.status) == (0, 0)
    assert tiny.saved[0].name in listed.output
    assert "mlp-tiny-cpu-float32-eager-pages_kept-no_grad" in compared.output


def test_a_run_can_be_cut_down_named_dumped_and_compared(tiny: Finished, tmp_path: Path) -> None:
    dump = tmp_path / "run.json"
    again = type_in(
        tiny.storage, *HERE, "-k", "no_grad", "--benchmark-save=named", f"--benchmark-json={dump}", "--benchmark-compare"
    )
    assert again.status == 0, again.output
    assert again.saved[-1].name == "0002_named.json"
    assert [one.case.mode for one in again.results()] == ["no_grad"]
    assert again.results()[0].speedup is not None, "tracked is measured for comparison"
    assert again.results()[0].memory.peak_rss_bytes is None, "this process was not the mode's alone"
    assert json.loads(dump.read_text())["gradtax"]["schema"] == 2
    assert "NOW" in again.output
    assert "machine_info is different" not in again.output


def test_disabled_benchmarks_check_contracts_and_save_nothing(tmp_path: Path) -> None:
    done = type_in(tmp_path, *HERE, "--benchmark-disable")
    assert done.status == 0, done.output
    assert "4 passed" in done.output
    assert done.saved == []


def test_what_is_typed_cannot_steer_the_terminal(tmp_path: Path) -> None:
    done = type_in(tmp_path, *HERE, "--modes", "no_grad", "--freeze", "[!\x1b\r]*")
    assert done.status == 0, done.output
    assert len(done.results()) == 2
    assert not set("\x1b\r\b") & set(done.output + done.saved[0].with_suffix(".md").read_text())


def test_what_harms_is_told_before_the_first_job_and_saved(tmp_path: Path) -> None:
    done = type_in(tmp_path, *HERE, "--modes", "tracked", "--threads", str((os.cpu_count() or 1) + 1))
    text = "more threads than cores"
    assert done.output.index(f"warning: {text}") < done.output.index("[1/1]")
    assert any(text in warning for warning in done.run()["gradtax"]["conditions"]["warnings"])


# Models that misbehave.

BROKEN = """
import ctypes, signal, torch
from torch import nn

class Broken(nn.Linear):
    def forward(self, x):
        inference, grad = torch.is_inference_mode_enabled(), torch.is_grad_enabled()
        self.misbehave(inference, grad and self.weight.requires_grad)
        return super().forward(x)

def made(misbehave):
    model = Broken(16, 16)
    model.misbehave = misbehave
    return model, torch.randn(4, 16)

def crashing():
    def misbehave(inference, tracked):
        if inference:
            ctypes.string_at(0)
        elif not tracked:
            raise MemoryError("no room for weights")
    return made(misbehave)

def hanging():
    def misbehave(inference, tracked):
        while inference:
            signal.pause()
        if not tracked:
            raise RuntimeError("Inference tensors cannot be saved for backward")
    return made(misbehave)

def lying():
    class Lying(nn.Linear):
        def forward(self, x):
            with torch.enable_grad():
                return super().forward(x)
    return Lying(16, 16), torch.randn(4, 16)

def sized(size):
    width = {"tiny": 8, "large": 64}[size]
    return nn.Linear(width, width), {"input": torch.randn(2, width)}

def frozen():
    return nn.Linear(16, 16).requires_grad_(False), torch.randn(4, 16)

def text():
    class Text(nn.Linear):
        def forward(self, x):
            return "no tensor"
    return Text(16, 16), torch.randn(4, 16)

def never():
    def misbehave(inference, tracked):
        raise ValueError("never works")
    return made(misbehave)
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "broken.py"
    path.write_text(BROKEN)
    return path


@pytest.fixture(scope="module")
def misbehaving(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """One run of them all."""
    specs = [word for name in ("crashing", "hanging", "lying", "sized") for word in ("--model", f"{models}:{name}")]
    return type_in(
        tmp_path_factory.mktemp("storage"), *specs, "--sizes", "tiny,large", "--modes", "tracked,no_grad,inference_mode",
        "--allocator", "pages_kept", *TINY[4:], "--worker-timeout", "5",
    )  # fmt: skip


def test_what_cannot_be_measured_is_told_by_mode_and_the_rest_goes_on(misbehaving: Finished) -> None:
    assert misbehaving.status == 1
    assert {(one.case.model, one.case.mode): one.status for one in misbehaving.unmeasured()} == {
        ("crashing", "inference_mode"): "crashed",
        ("crashing", "no_grad"): "out_of_memory",
        ("hanging", "inference_mode"): "timed_out",
        ("hanging", "no_grad"): "unsupported",
        ("lying", "no_grad"): "broken_contract",  # inference mode has the last word over enable_grad
    }
    measured = {(one.case.model, one.case.size, one.case.mode) for one in misbehaving.results()}
    assert measured >= {("crashing", "own", "tracked"), ("hanging", "own", "tracked"), ("lying", "own", "inference_mode")}
    assert {size for model, size, _ in measured if model == "sized"} == {"tiny", "large"}


def test_only_what_points_at_a_defect_fails_and_each_says_why(misbehaving: Finished) -> None:
    assert "3 failed, 10 passed, 2 skipped" in misbehaving.output
    for reason in ("killed by SIGSEGV (broken.py:", "MemoryError: no room for weights", "not done within 5 s", "has a history"):
        assert reason in misbehaving.output
    assert "Traceback" not in misbehaving.output


def test_a_run_in_which_nothing_could_be_measured_is_saved_all_the_same(models: Path, tmp_path: Path) -> None:
    done = type_in(tmp_path, "--model", f"{models}:never", "--modes", "tracked", "--in-process", *TINY[4:6])
    assert "1 failed" in done.output
    assert [(one.status, done.run()["benchmarks"]) for one in done.unmeasured()] == [("crashed", [])]
    assert "ValueError: never works" in done.output
    assert "Not saving anything" not in done.output


@pytest.mark.parametrize(("name", "status", "said"), [("frozen", 0, "nothing to switch off"), ("text", 1, "holds no tensor")])
def test_a_finding_about_a_model_is_no_failure_but_a_run_that_measures_nothing_is(
    models: Path, tmp_path: Path, name: str, status: int, said: str
) -> None:
    done = type_in(tmp_path, "--model", f"{models}:{name}", "--modes", "tracked,no_grad", "--in-process", *TINY[4:6])
    assert (done.status, "failed" in done.output) == (status, False), done.output
    assert said in done.output


# What is typed.


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--modes", "no_grad,nograd"), "--modes unknown nograd; choose from tracked, no_grad"),
        (("--budget", "0"), "--budget 0: expected a number above 0"),
        (("--scenarios", "rollout"), "--scenarios rollout: runs models of its own"),
        (("--model", "nowhere.py:build"), "nowhere.py:build: there is no file nowhere.py"),
        (("--model", "\x1b[31mnowhere.py:build"), "[31mnowhere.py:build: there is no file"),
        (("--models", "\x1b[31mmlp"), "[31mmlp; choose from"),
        (("--device", "tpu"), "--device tpu: "),
        (("--benchmark-storage=file:///proc/nowhere",), "--benchmark-storage /proc/nowhere: runs cannot be saved there"),
    ],
)
def test_bad_input_is_a_usage_error_in_one_line(arguments: tuple[str, ...], expected: str, tmp_path: Path) -> None:
    done = type_in(tmp_path, *TINY, "--in-process", *arguments)
    assert done.status == 2
    (line,) = [line for line in done.output.splitlines() if line]
    assert expected in line
    assert line.isprintable()


def test_the_flag_tells_the_cases_from_the_suites_own_tests(tmp_path: Path) -> None:
    cases = type_in(tmp_path, "--collect-only", "-q", *TINY)
    assert cases.status == 0
    assert "benchmarks/test_cases.py::test_case[forward-mlp-tiny-cpu-float32-eager-pages_kept-no_grad]" in cases.output
    assert "tests/" not in cases.output
    assert not list(tmp_path.glob("*/*"))
    own = type_in(tmp_path, "--collect-only", "-q", "tests/test_saving.py", "benchmarks", program=("pytest",))
    assert "test_saving.py::" in own.output
    assert "test_case[" not in own.output


def test_a_plugin_that_owns_timeout_gets_along_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "stand_in_plugin.py").write_text(
        "def pytest_addoption(parser):\n    parser.addoption('--timeout', type=float, help='as pytest-timeout has it')\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    done = type_in(tmp_path, "-p", "stand_in_plugin", "--timeout", "5", "--worker-timeout", "7", "--collect-only", "-q", *TINY)
    assert done.status == 0, done.output
    assert "tests collected" in done.output
