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


class WithBackward(nn.Sequential):
    """A model whose losses are sent backward."""


def loss_logging(workload: Workload, mode: Mode, steps: int = STEPS) -> Step:
    """`steps` forward passes whose losses are summed; the sum, as a tensor, is the output. Gradients of WithBackward are dropped each time."""
    backward, keep = isinstance(workload.module, WithBackward), KEEP[mode.name]

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


KEEP: dict[str, Callable[[torch.Tensor], Any]] = {
    "tracked": lambda loss: loss, "item": torch.Tensor.item, "detach": torch.Tensor.detach, "float": float,
}  # fmt: skip


def _with_backward(**size: int) -> tuple[nn.Module, Any]:
    module, inputs = MLP.build(**size)
    return WithBackward(*module.children()), inputs


SCENARIO = Scenario(
    loss_logging,
    modes=(
        Mode("tracked", "total += loss", TRACKED.bind, history=True, records=True),
        Mode("item", "total += loss.item()", TRACKED.bind, records=True),
        Mode("detach", "total += loss.detach()", TRACKED.bind, records=True),
        Mode("float", "total += float(loss)", TRACKED.bind, records=True),
    ),
    families=(
        Family("mlp", "losses of forward passes alone", {"tiny": MLP.sizes["tiny"]}, MLP.build),
        Family(BACKWARD, "each loss sent backward", {"tiny": MLP.sizes["tiny"]}, _with_backward),
    ),
    steps=STEPS,
    same_work=False,
    budget_share=0.25,
)
