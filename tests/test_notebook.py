"""The door for notebooks: a live module or a SPEC, measured in three lines and left as it was."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks import allocator
from benchmarks.models.own import ModelError
from benchmarks.notebook import Measurement, measure_model
from benchmarks.options import CHOSEN_BUDGET, OptionError
from benchmarks.plan import Job
from benchmarks.workers import InProcess


def measured(module: nn.Module, inputs: Any, **options: Any) -> Measurement:
    return measure_model(module, inputs, budget=0.05, **options)


def test_a_live_module_is_measured_in_three_lines_eager_and_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.execution.BACKEND", "eager")  # graphs as they are, without a compiler
    module, inputs = nn.Sequential(nn.Linear(256, 256), nn.Linear(256, 256)), torch.randn(64, 256)
    result = measured(module, inputs, modes="tracked,no_grad", execution="eager,compiled")
    cases = [(one.case.execution, one.case.mode, one.compile_seconds is None) for one in result.results]
    assert cases[:2] == [("eager", "tracked", True), ("eager", "no_grad", True)]
    assert cases[2:] == [("compiled", "tracked", False), ("compiled", "no_grad", False)]
    assert result["tracked"].memory.peak_tensor_bytes == 2 * 65536
    assert result["tracked"].memory.peak_rss_bytes is None, "this process is not the model's alone"
    assert (result["no_grad"].case.model, result["no_grad"].case.size) == ("Sequential", "own")
    assert len(result["no_grad"].processes) == 1
    assert "Sequential" in repr(result)
    assert "no_grad" in repr(result)
    with pytest.raises(KeyError, match="detach"):
        result["detach"]


def test_a_model_gets_the_time_of_one_that_was_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    jobs: list[Job] = []
    monkeypatch.setattr("benchmarks.notebook._measured", lambda planned, _: jobs.extend(planned))
    measure_model(nn.Linear(2, 2), torch.ones(1, 2))
    assert [job.effort.budget for job in jobs] == [CHOSEN_BUDGET]


def test_a_live_module_is_left_as_it_was() -> None:
    module = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Dropout(0.5)).train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    inputs = torch.randn(4, 8)
    random_state, threads = torch.get_rng_state(), torch.get_num_threads()
    measured(module, inputs, modes=["frozen", "detached_parameters", "detach"], name="mine")
    assert module.training
    assert all(parameter.requires_grad and parameter.grad is None for parameter in module.parameters())
    assert torch.get_num_threads() == threads
    assert torch.is_grad_enabled()
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random_state)


def test_a_mode_that_leaves_the_model_untracked_for_the_next_call_breaks_its_promise() -> None:
    class Forgets(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if not torch.is_grad_enabled():
                self.requires_grad_(requires_grad=False)
            return super().forward(x)

    result = measured(Forgets(4, 4), torch.randn(2, 4), modes="tracked,no_grad")
    assert [(one.case.mode, one.promises) for one in result.unmeasured] == [("no_grad", ["tracked_after"])]


@pytest.mark.skipif(allocator.unavailable() is not None, reason="resident memory follows glibc's tensors")
def test_a_spec_is_measured_in_workers_with_resident_memory(tmp_path: Path) -> None:
    path = tmp_path / "own.py"
    path.write_text("import torch\ndef net():\n    return torch.nn.Linear(4, 4), torch.randn(2**20, 4)\n")
    result = measure_model(f"{path}:net", modes="no_grad", budget=0.05, processes=1)
    resident = result["no_grad"].memory.peak_rss_bytes
    assert resident == pytest.approx(16 * 2**20, rel=0.02, abs=256 * 1024)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "expected"),
    [
        ((nn.Linear(2, 2),), {}, TypeError, "inputs are missing"),
        ((nn.ReLU(), torch.randn(2)), {}, TypeError, "nothing to track"),
        ((nn.Linear(2, 2), [torch.randn(2)]), {}, TypeError, "inputs must be a tensor"),
        ((nn.Linear(2, 2), torch.randn(2)), {"modes": "nograd"}, argparse.ArgumentTypeError, "unknown nograd"),
        ((nn.Linear(2, 2), torch.randn(2, device="meta")), {}, OptionError, "spread over cpu, meta"),
        (("nowhere.py:net",), {"dtype": "float"}, argparse.ArgumentTypeError, "unknown float; choose from float32"),
        (("nowhere.py:net",), {}, ModelError, "there is no file nowhere.py"),
        (("nowhere.py:net",), {"budget": 0}, OptionError, "budget 0: expected a "),
    ],
)
def test_wrong_use_is_told_in_words(
    monkeypatch: pytest.MonkeyPatch, arguments: tuple[Any, ...], options: dict[str, Any], error: type[Exception], expected: str
) -> None:
    monkeypatch.setattr("benchmarks.local.Launches", lambda *_, **__: InProcess())
    with pytest.raises(error, match=expected):
        measure_model(*arguments, **options)
