"""What does tracking cost one operator, in nanoseconds?"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from benchmarks.models import Workload
from benchmarks.models.workload import Family
from benchmarks.modes import INFERENCE_MODE, NO_GRAD, SET_GRAD_ENABLED, TRACKED, Mode, Step
from benchmarks.scenarios.scenario import Scenario

CALLS = 50

OPERATORS: dict[str, tuple[int, Callable[[torch.Tensor], torch.Tensor]]] = {
    "elementwise": (16, lambda x: x * 2.0),
    "view": (16, lambda x: x.view(-1)),
    "index": (16, lambda x: x[0]),
    "matmul_small": (16, lambda x: x @ x),
    "matmul_large": (128, lambda x: x @ x),
    "reduction": (16, lambda x: x.sum()),
}
"""By name: rows and columns of `x`, and the call."""


class Operator(nn.Module):
    """One operator, on a parameter."""

    def __init__(self, name: str) -> None:
        super().__init__()
        size, self.call = OPERATORS[name]
        self.values = nn.Parameter(torch.randn(size, size))

    def forward(self) -> torch.Tensor:
        return self.call(self.values)


def operators(workload: Workload, mode: Mode, steps: int = CALLS) -> Step:
    """`steps` times the operator within one entry into the mode."""
    module = workload.module
    assert isinstance(module, Operator)
    operator, values = module.call, module.values

    def run(_model: Any) -> Any:
        output = None
        for _ in range(steps):
            output = operator(values)
        return output

    return mode.bind(module, run)


def build(name: str) -> tuple[nn.Module, tuple[Any, ...]]:
    return Operator(name), ()


SCENARIO = Scenario(
    operators,
    modes=(TRACKED, NO_GRAD, INFERENCE_MODE, SET_GRAD_ENABLED),
    families=tuple(Family(name, {"tiny": {}}, partial(build, name)) for name in OPERATORS),
    steps=CALLS,
    runs_model=False,
    budget_share=0.15,
)
