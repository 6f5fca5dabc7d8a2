"""`pytest --benchmark` as a user types it: what it prints, what it saves, and what it does with models that misbehave."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from builders import environment

ROOT = Path(__file__).parent.parent
RESIDENT = ("--device", "cpu", "--allocator", "resident", "--budget", "0.1")
QUICK = ("--models", "mlp", "--sizes", "tiny", *RESIDENT)


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

    def statuses(self) -> dict[str, str]:
        return {one["case"]["mode"]: one["status"] for one in self.run()["gradtax"]["unmeasured"]}


def type_in(storage: Path, *arguments: str, program: tuple[str, ...] = ("pytest", "--benchmark")) -> Finished:
    """Runs the command from the root, output piped; storage is only set where the arguments do not do so."""
    where = () if any("storage" in argument for argument in arguments) else (f"--benchmark-storage=file://{storage}",)
    command = [sys.executable, "-m", *program, *(where if "--benchmark" in program else ()), *arguments]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False, env=environment(COLUMNS="80")
    )
    return Finished(done.returncode, done.stdout + done.stderr, storage)


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """One small run that several tests look at."""
    return type_in(tmp_path_factory.mktemp("storage"), *QUICK, "--precision", "0.5")


def test_a_run_ends_well_with_a_table_and_the_next_steps(quick: Finished) -> None:
    assert quick.status == 0, quick.output
    for text in ("[1/1] forward mlp tiny cpu", "s left", "per call", "99 % interval", "baseline", "saved: ", "next: "):
        assert text in quick.output
    assert [line.split()[0] for line in quick.output.splitlines() if line.startswith("  ")][1:5] == [
        "tracked", "no_grad", "inference_mode", "detach",
    ]  # fmt: skip


def test_piped_output_has_no_control_codes_and_fits_100_columns(quick: Finished) -> None:
    begin = quick.output.index("[1/1]")
    shown = [line for line in quick.output[begin:].splitlines() if str(quick.storage) not in line]
    assert max(len(line) for line in shown) <= 100
    assert not set("\x1b\r\b") & set(quick.output)


def test_the_saved_run_holds_the_data_contract(quick: Finished) -> None:
    run = quick.run()
    for benchmark in run["benchmarks"]:
        info = benchmark["extra_info"]
        assert info["schema"] == 1
        assert list(info["case"]) == ["scenario", "model", "size", "device", "dtype", "allocator", "mode"]
        assert set(info) >= {
            "seconds", "speedup", "verdict", "placebo", "trusted", "page_faults", "memory", "contract", "kernels", "model",
        }  # fmt: skip
        assert info["contract"] == {"holds": True, "broken": [], "changed_buffers": []}
        assert info["model"] == {"parameters": 16640, "parameter_bytes": 66560, "inputs": ["float32[8, 64]"]}
        assert info["kernels"] == {"same_as_tracked": True, "added": [], "removed": []}
        assert set(info["speedup"]) == {"estimate", "low", "high"}
        assert benchmark["group"] == "forward-mlp-tiny-cpu-float32-resident"
    peaks = {one["extra_info"]["case"]["mode"]: one["extra_info"]["memory"]["peak_tensor_bytes"] for one in run["benchmarks"]}
    assert peaks == {"tracked": 10240, "no_grad": 4096, "inference_mode": 4096, "detach": 10240}
    assert run["gradtax"]["schema"] == 1
    assert run["gradtax"]["unmeasured"] == []
    assert run["gradtax"]["conditions"]["measured_seconds"] <= run["gradtax"]["conditions"]["wall_seconds"]
    assert run["machine_info"]["gradtax"]["threads"] == 1


def test_rounds_are_saved_as_pairs_from_which_the_speedup_follows(quick: Finished) -> None:
    import numpy as np

    by_mode = {one["extra_info"]["case"]["mode"]: one for one in quick.run()["benchmarks"]}
    tracked, no_grad = (np.array(by_mode[mode]["stats"]["data"]) for mode in ("tracked", "no_grad"))
    assert by_mode["tracked"]["stats"]["rounds"] == len(tracked) == len(no_grad) >= 10
    assert by_mode["no_grad"]["extra_info"]["speedup"]["estimate"] == pytest.approx(
        float(np.exp(np.median(np.log(tracked / no_grad)))), rel=1e-12
    )
    assert by_mode["no_grad"]["extra_info"]["seconds"] == pytest.approx(float(np.median(no_grad)), rel=1e-12)


def test_the_table_lies_beside_the_run_as_markdown(quick: Finished) -> None:
    lines = quick.saved[-1].with_suffix(".md").read_text().splitlines()
    assert lines[0].startswith("| model | size | mode")
    assert [line.split("|")[3].strip() for line in lines[2:6]] == ["tracked", "no_grad", "inference_mode", "detach"]


def test_pytest_benchmark_lists_and_compares_saved_runs(quick: Finished) -> None:
    listed = type_in(quick.storage, "list", program=("pytest_benchmark", "--storage", f"file://{quick.storage}"))
    assert listed.status == 0
    assert quick.saved[-1].name in listed.output
    compared = type_in(quick.storage, "compare", program=("pytest_benchmark", "--storage", f"file://{quick.storage}"))
    assert compared.status == 0
    assert "mlp-tiny-cpu-float32-resident-no_grad" in compared.output


def test_a_run_can_be_named_dumped_and_compared(quick: Finished, tmp_path: Path) -> None:
    dump = tmp_path / "run.json"
    again = type_in(
        quick.storage, *QUICK, "--modes", "no_grad", "--precision", "0.5",
        "--benchmark-save=named", f"--benchmark-json={dump}", "--benchmark-compare",
    )  # fmt: skip
    assert again.status == 0, again.output
    assert any(path.name.endswith("_named.json") for path in again.saved)
    assert json.loads(dump.read_text())["gradtax"]["schema"] == 1
    assert "NOW" in again.output
    assert "machine_info is different" not in again.output


@pytest.mark.skipif(sys.platform != "linux", reason="limits of the address space are read on Linux")
def test_what_harms_is_told_once_before_the_first_group_and_saved(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (2**46, hard))  # too much to do harm; the command inherits it
    try:
        done = type_in(tmp_path, *QUICK, "--precision", "0.5", "--modes", "tracked", "--in-process")
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    text = "address space is limited to 65536.0 GiB: large models may fail; ulimit -v unlimited"
    assert done.output.count(f"warning: {text}\n") == 1
    assert done.output.index(text) < done.output.index("[1/1]")
    conditions = done.run()["gradtax"]["conditions"]
    assert text in conditions["warnings"]
    assert {"load_average_at_start", "load_average_at_end", "memory_available_bytes", "wall_seconds"} <= set(conditions)


def test_disabled_benchmarks_check_contracts_and_save_nothing(tmp_path: Path) -> None:
    done = type_in(tmp_path, *QUICK, "--benchmark-disable")
    assert done.status == 0, done.output
    assert "4 passed" in done.output
    assert done.saved == []


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

def late(calls=[0]):
    def misbehave(inference, tracked):
        calls[0] += inference
        if calls[0] > 60:
            raise ValueError("worn out")
    return made(misbehave)

def raising():
    def misbehave(inference, tracked):
        raise ValueError("never works")
    return made(misbehave)

def lying():
    class Lying(nn.Linear):
        def forward(self, x):
            with torch.enable_grad():
                return super().forward(x)
    return Lying(16, 16), torch.randn(4, 16)

def sized(size):
    width = {"tiny": 8, "small": 16, "medium": 32, "large": 64}[size]
    return nn.Linear(width, width), {"input": torch.randn(2, width)}

def number():
    class Number(nn.Linear):
        def forward(self, x):
            return super().forward(x).sum().item()
    return Number(16, 16), torch.randn(4, 16)
"""


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "broken.py"
    path.write_text(BROKEN)
    return path


def measure_broken(path: Path, name: str, storage: Path, *more: str) -> Finished:
    return type_in(storage, "--model", f"{path}:{name}", *RESIDENT, "--precision", "0.5", *more)


def test_a_lane_that_crashes_fails_and_one_out_of_memory_is_skipped_while_the_rest_goes_on(
    broken: Path, tmp_path: Path
) -> None:
    done = measure_broken(broken, "crashing", tmp_path)
    assert done.status == 1
    assert "1 failed, 2 passed, 1 skipped" in done.output
    assert done.statuses() == {"inference_mode": "crashed", "no_grad": "out_of_memory"}
    assert "killed by SIGSEGV (broken.py:19)" in done.output
    assert "MemoryError: no room for weights" in done.output
    assert "Traceback" not in done.output
    assert not [line for line in done.output.splitlines() if line.startswith(("F", "s")) and "%]" in line], "no letters"


def test_a_lane_that_hangs_is_given_up_and_one_that_torch_refuses_is_unsupported(broken: Path, tmp_path: Path) -> None:
    done = measure_broken(broken, "hanging", tmp_path, "--timeout", "4")
    assert done.status == 1
    assert "1 failed, 2 passed, 1 skipped" in done.output
    assert done.statuses() == {"inference_mode": "timed_out", "no_grad": "unsupported"}


def test_a_lane_that_fails_only_while_timed_is_named_and_left_out(broken: Path, tmp_path: Path) -> None:
    done = measure_broken(broken, "late", tmp_path)
    assert "1 failed, 3 passed" in done.output
    assert done.statuses() == {"inference_mode": "crashed"}
    assert "ValueError: worn out" in done.output


def test_a_broken_contract_fails_with_its_reason(broken: Path, tmp_path: Path) -> None:
    done = measure_broken(broken, "lying", tmp_path)
    assert "1 failed, 3 passed" in done.output
    assert done.statuses() == {"no_grad": "broken_contract"}  # inference mode has the last word over enable_grad
    assert "the output has a history (AddmmBackward0)" in done.output


def test_a_run_in_which_nothing_could_be_measured_is_saved_all_the_same(broken: Path, tmp_path: Path) -> None:
    done = measure_broken(broken, "raising", tmp_path)
    assert "4 failed" in done.output
    assert set(done.statuses().values()) == {"crashed"}
    assert done.run()["benchmarks"] == []
    assert "Not saving anything" not in done.output
    shown = type_in(tmp_path, "summarise", str(done.saved[-1]), program=("analysis",))
    assert shown.status == 0
    assert "ValueError: never works" in shown.output


def test_a_model_of_ones_own_runs_in_its_sizes_and_only_the_selected_modes(broken: Path, tmp_path: Path) -> None:
    done = measure_broken(broken, "sized", tmp_path, "--sizes", "tiny,large", "-k", "no_grad")
    assert done.status == 0, done.output
    cases = [one["extra_info"]["case"] for one in done.run()["benchmarks"]]
    assert [(case["model"], case["size"], case["mode"]) for case in cases] == [
        ("sized", "tiny", "no_grad"), ("sized", "large", "no_grad"),
    ]  # fmt: skip
    assert all(one["extra_info"]["speedup"] is not None for one in done.run()["benchmarks"])


def test_in_process_needs_no_room_and_leaves_out_what_only_a_room_can_tell(tmp_path: Path) -> None:
    done = type_in(tmp_path, *QUICK, "--in-process", "--precision", "0.5")
    assert done.status == 0, done.output
    memory = done.run()["benchmarks"][0]["extra_info"]["memory"]
    assert memory["peak_tensor_bytes"] == 10240
    assert memory["peak_rss_bytes"] is None


def test_scenarios_bring_their_models_and_what_torch_refuses_is_a_row_with_its_message(tmp_path: Path) -> None:
    done = type_in(tmp_path, "--scenarios", "frozen_backbone,loss_logging", "--device", "cpu", "--budget", "0.4")
    assert done.status == 0, done.output
    memory = {
        tuple(one["extra_info"]["case"][name] for name in ("model", "mode")): one["extra_info"]["memory"]
        for one in done.run()["benchmarks"]
    }
    per_step = {mode: memory["mlp", mode]["held_bytes_per_step"] for mode in ("tracked", "item", "detach", "float")}
    assert per_step == {"tracked": 8192, "item": 0, "detach": 0, "float": 0}
    assert memory["mlp_backward", "tracked"]["heap_bytes_per_step"] > memory["mlp_backward", "item"]["heap_bytes_per_step"]
    (refused,) = done.run()["gradtax"]["unmeasured"]
    assert (refused["case"]["mode"], refused["status"]) == ("inference_mode", "unsupported")
    assert "Inference tensors cannot be saved for backward" in refused["reason"]
    assert "Converting a tensor" not in done.output


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--scenarios", "generation", "--models", "mlp"), "--scenarios generation: generation runs models of its own"),
        (("--scenarios", "training_step", "--modes", "item"), "nothing to measure: --scenarios training_step has none of"),
        (("--modes", "no_grad,nograd"), "--modes no_grad,nograd: unknown nograd; choose from tracked, no_grad"),
        (("--model", "nowhere.py:build"), "nowhere.py:build: there is no file nowhere.py"),
        (("--benchmark-storage=file:///proc/nowhere",), "--benchmark-storage /proc/nowhere: runs cannot be saved there"),
    ],
)
def test_bad_input_is_a_usage_error_in_one_line(arguments: tuple[str, ...], expected: str, tmp_path: Path) -> None:
    done = type_in(tmp_path, *QUICK, *arguments)
    assert done.status == 2
    assert [line for line in done.output.splitlines() if line] == [
        line for line in done.output.splitlines() if expected in line
    ]
    assert "Traceback" not in done.output


def test_an_output_that_is_no_tensor_is_a_usage_error_that_names_the_file(broken: Path, tmp_path: Path) -> None:
    done = measure_broken(broken, "number", tmp_path)
    assert done.status == 2
    assert f"{broken}:number: the model's output is float without a tensor; expected tensors" in done.output


def test_the_flag_tells_the_cases_from_the_suites_own_tests(tmp_path: Path) -> None:
    cases = type_in(tmp_path, "--collect-only", "-q", "--scenarios", "forward")
    assert cases.status == 0
    assert "96 tests collected" in cases.output
    assert "tests/" not in cases.output
    own = type_in(tmp_path, "--collect-only", "-q", program=("pytest",))
    assert "test_case[" not in own.output


def test_another_path_through_the_kernels_is_told_by_name(tmp_path: Path) -> None:
    """nn.TransformerEncoderLayer in eval mode takes a fused path where gradients are off, and needs more memory there."""
    path = tmp_path / "encoder.py"
    path.write_text(
        "import torch\ndef layer():\n"
        "    return torch.nn.TransformerEncoderLayer(64, 8, batch_first=True).eval(), torch.randn(1, 1024, 64)\n"
    )
    done = type_in(tmp_path, "--model", f"{path}:layer", *RESIDENT, "--modes", "tracked,no_grad")
    tracked, no_grad = (one["extra_info"] for one in done.run()["benchmarks"])
    assert no_grad["kernels"]["same_as_tracked"] is False
    assert "aten::_transformer_encoder_layer_fwd" in no_grad["kernels"]["added"]
    assert no_grad["memory"]["peak_tensor_bytes"] > tracked["memory"]["peak_tensor_bytes"]
    assert "other kernels than tracked, so not tracking alone: layer own no_grad" in done.output
    explained = type_in(tmp_path, "explain", str(done.saved[-1]), "--mode", "no_grad", program=("analysis",))
    assert "aten::_transformer_encoder_layer_fwd" in explained.output
