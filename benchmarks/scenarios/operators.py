"""What does tracking cost one operator, in nanoseconds, and what does entering and leaving each context cost?"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from benchmarks.models import Workload
from benchmarks.models.workload import Family
from benchmarks.modes import INFERENCE_MODE, NO_GRAD, SET_GRAD_ENABLED, TRACKED, Mode, Step
from benchmarks.record import CONTEXT
from benchmarks.scenarios.scenario import Scenario

CALLS = 50


class Operator(nn.Module):
    """One operator on a parameter of `size` x `size` values."""

    def __init__(self, operator: Callable[[torch.Tensor], Any], size: int) -> None:
        super().__init__()
        self.operator = operator
        self.values = nn.Parameter(torch.randn(size, size))

    def forward(self) -> Any:
        return self.operator(self.values)


def operators(workload: Workload, mode: Mode, steps: int = CALLS) -> Step:
    """`steps` times the operator within one entry into the mode; `context` enters and leaves it each time, with nothing inside.

    The output of `context` is a product made when it is bound, so that there is something to check and no call pays for it.
    """
    module = workload.module
    assert isinstance(module, Operator)
    operator, values = module.operator, module.values

    def run(_model: Any) -> Any:
        output = None
        for _ in range(steps):
            output = operator(values)
        return output

    if operator is not _context:
        return mode.bind(module, run)
    enter_and_leave = mode.bind(module, _nothing)
    product = mode.bind(module, lambda _model: operator(values))()

    def step() -> Any:
        for _ in range(steps):
            enter_and_leave()
        return product

    return step


def _nothing(_model: Any) -> None:
    pass


def _family(name: str, summary: str, operator: Callable[[torch.Tensor], Any], size: int = 16) -> Family:
    return Family(name, summary, {"tiny": {"size": size}}, partial(_built, operator))


def _built(operator: Callable[[torch.Tensor], Any], size: int) -> tuple[nn.Module, tuple[Any, ...]]:
    return Operator(operator, size), ()


def _multiply(values: torch.Tensor) -> torch.Tensor:
    return values * 2.0


def _context(values: torch.Tensor) -> torch.Tensor:
    return _multiply(values)


def _view(values: torch.Tensor) -> torch.Tensor:
    return values.view(-1)


def _index(values: torch.Tensor) -> torch.Tensor:
    return values[0]


def _matmul(values: torch.Tensor) -> torch.Tensor:
    return values @ values


def _sum(values: torch.Tensor) -> torch.Tensor:
    return values.sum()


SCENARIO = Scenario(
    operators,
    modes=(TRACKED, NO_GRAD, INFERENCE_MODE, SET_GRAD_ENABLED),
    families=(
        _family("elementwise", "x * 2.0", _multiply),
        _family("view", "x.view(-1)", _view),
        _family("index", "x[0]", _index),
        _family("matmul_small", "x @ x, 16 x 16", _matmul),
        _family("matmul_large", "x @ x, 128 x 128", _matmul, 128),
        _family("reduction", "x.sum()", _sum),
        _family(CONTEXT, "entering and leaving", _context),
    ),
    steps=CALLS,
    budget_share=0.15,
)
