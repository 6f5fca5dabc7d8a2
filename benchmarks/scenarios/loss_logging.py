"""What does `total += loss` hold that `.item()`, `.detach()` and `float(loss)` let go?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from benchmarks.models.mlp import MLP
from benchmarks.models.workload import Family, Workload
from benchmarks.modes import TRACKED, Mode, Step
from benchmarks.scenarios.scenario import Scenario
from benchmarks.scenarios.training_step import mean_square

STEPS = 8
BACKWARD = "mlp_backward"

KEPT: dict[str, tuple[str, Callable[[torch.Tensor], Any]]] = {
    "tracked": ("total += loss", lambda loss: loss),
    "item": ("total += loss.item()", torch.Tensor.item),
    "detach": ("total += loss.detach()", torch.Tensor.detach),
    "float": ("total += float(loss)", float),
}
"""By mode: how it is written, and what is kept of a loss."""


class WithBackward(nn.Sequential):
    """A model whose losses are sent backward."""


def loss_logging(workload: Workload, mode: Mode, steps: int = STEPS) -> Step:
    """`steps` forward passes whose losses are summed; the sum, as a tensor, is the output. Gradients of WithBackward are dropped each time."""
    backward, keep = isinstance(workload.module, WithBackward), KEPT[mode.name][1]

    def run(model: Callable[..., Any]) -> torch.Tensor:
        total: Any = 0.0
        for _ in range(steps):
            loss = mean_square(workload.run(model))
            if backward:
                loss.backward()  # type: ignore[no-untyped-call]
                workload.module.zero_grad()
            total += keep(loss)
        return torch.as_tensor(total, dtype=loss.dtype)

    return mode.bind(workload.module, run)


def _with_backward(**size: int) -> tuple[nn.Module, Any]:
    module, inputs = MLP.build(**size)
    return WithBackward(*module.children()), inputs


SCENARIO = Scenario(
    loss_logging,
    modes=tuple(
        Mode(name, written, TRACKED.bind, history=name == TRACKED.name, records=True) for name, (written, _) in KEPT.items()
    ),
    families=(
        Family("mlp", {"tiny": MLP.sizes["tiny"]}, MLP.build),
        Family(BACKWARD, {"tiny": MLP.sizes["tiny"]}, _with_backward),
    ),
    steps=STEPS,
    same_work=False,
    budget_share=0.25,
)
