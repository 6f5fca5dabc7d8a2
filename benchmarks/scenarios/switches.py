"""What does each way of switching tracking off and on again cost, in nanoseconds?"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from benchmarks.models import Workload
from benchmarks.models.workload import Family
from benchmarks.modes import INFERENCE_MODE, NO_GRAD, NO_GRAD_DECORATOR, SET_GRAD_ENABLED, TRACKED, Bind, Mode, Run, Step
from benchmarks.record import CONTEXT
from benchmarks.scenarios.operators import build
from benchmarks.scenarios.scenario import Scenario

CALLS = 50


def switches(workload: Workload, mode: Mode, steps: int = CALLS) -> Step:
    """Enters and leaves the mode `steps` times, with nothing inside; tracked is the bare loop.

    The output is a product made when it is bound, so that there is something to check and no call pays for it.
    """
    switch = mode.bind(workload.module, lambda _model: None)
    product = mode.bind(workload.module, workload.run)()

    def step() -> Any:
        for _ in range(steps):
            switch()
        return product

    return step


def _by_calls(set_enabled: Callable[[bool], object]) -> Bind:
    def bind(module: nn.Module, run: Run) -> Step:
        def step() -> Any:
            set_enabled(False)
            output = run(module)
            set_enabled(True)
            return output

        return step

    return bind


SCENARIO = Scenario(
    switches,
    modes=(
        TRACKED,
        NO_GRAD,
        NO_GRAD_DECORATOR,
        INFERENCE_MODE,
        SET_GRAD_ENABLED,
        Mode("set_grad_enabled_calls", "torch.set_grad_enabled(False), then (True)", _by_calls(torch.set_grad_enabled)),
        Mode("c_set_grad_enabled_calls", "the same of torch._C._set_grad_enabled", _by_calls(torch._C._set_grad_enabled)),
    ),
    families=(Family(CONTEXT, {"tiny": {}}, partial(build, "elementwise")),),
    steps=CALLS,
    runs_model=False,
    budget_share=0.15,
)
