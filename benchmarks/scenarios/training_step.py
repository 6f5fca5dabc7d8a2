"""How long does a whole training step take, of which everything else is a fraction?"""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.models import Workload
from benchmarks.modes import TRACKED, Mode, Step
from benchmarks.scenarios.scenario import Scenario
from benchmarks.models.workload import tensors

LEARNING_RATE = 1e-6
"""So small that the thousandth step computes with values like the first one's."""


def training_step(workload: Workload, mode: Mode) -> Step:
    """Forward, backward, and plain gradient descent in place; the loss is the mean square of the output.

    The update is written out: torch.optim imports the compiler on first use, two seconds in every process.
    """
    parameters = [parameter for parameter in workload.module.parameters() if parameter.requires_grad]

    def run(model: Any) -> torch.Tensor:
        loss = mean_square(workload.run(model))
        loss.backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            for parameter in parameters:
                if parameter.grad is not None:
                    parameter.add_(parameter.grad, alpha=-LEARNING_RATE)
                    parameter.grad = None
        return loss.detach()

    return mode.bind(workload.module, run)


def mean_square(output: Any) -> torch.Tensor:
    """A loss for any output: the sum of the mean squares of its floating point tensors. Raises NotImplementedError if it has none."""
    means = [tensor.square().mean() for tensor in tensors(output) if tensor.is_floating_point()]
    if not means:
        raise NotImplementedError("the output has no floating point tensor to make a loss of")
    return torch.stack(means).sum() if len(means) > 1 else means[0]


SCENARIO = Scenario(
    training_step,
    modes=(Mode(TRACKED.name, "forward, backward and update", TRACKED.bind, records=True),),
    models={"mlp": ("small",), "convnet": ("small",), "transformer": ("small",), "lstm": ("small",)},
    updates=True,
    budget_share=0.1,
)
