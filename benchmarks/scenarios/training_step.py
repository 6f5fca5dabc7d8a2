"""How long does a whole training step take, and which share of it is its forward pass under no_grad?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from benchmarks.failure import Failure
from benchmarks.models import Workload
from benchmarks.models.workload import tensors
from benchmarks.modes import NO_GRAD, TRACKED, Mode, Step
from benchmarks.record import ALONE
from benchmarks.scenarios.scenario import Scenario, in_training

LEARNING_RATE = 1e-6
"""So small that the thousandth step computes with values like the first one's."""


FORWARD_ALONE = replace(NO_GRAD, name=f"forward{ALONE}", summary="the forward pass of it alone, under no_grad")


def mean_square(output: Any) -> torch.Tensor:
    """A loss for any output: the sum of the mean squares of its floating point tensors. Raises Failure if it has none."""
    means = [tensor.square().mean() for tensor in tensors(output) if tensor.is_floating_point()]
    if not means:
        raise Failure("unsupported", "the output has no floating point tensor to make a loss of")
    return torch.stack(means).sum() if len(means) > 1 else means[0]


def training_step(workload: Workload, mode: Mode, loss: Callable[[Any], torch.Tensor] = mean_square) -> Step:
    """Forward, backward, and plain gradient descent in place, in train mode. The output is the loss; Failure is raised for one without grad.

    The update is written out: torch.optim imports the compiler on first use, two seconds in every process.
    """
    parameters = [parameter for parameter in workload.module.parameters() if parameter.requires_grad]
    leaves = [*parameters, *(tensor for tensor in workload.input_tensors() if tensor.requires_grad and tensor.is_leaf)]

    def run(model: Any) -> torch.Tensor:
        value = loss(workload.run(model))
        if mode is FORWARD_ALONE:
            return value
        if not value.requires_grad:
            raise Failure("unsupported", "there is nothing to train: the loss does not require grad")
        value.backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            for parameter in parameters:
                if parameter.grad is not None:
                    parameter.add_(parameter.grad, alpha=-LEARNING_RATE)
        for leaf in leaves:
            leaf.grad = None
        return value.detach()

    return in_training(workload.module, mode.bind(workload.module, run), training=True)


def gradients(loss: torch.Tensor, module: nn.Module, within: nn.Module | None = None) -> list[Any]:
    """Of the module's parameters; none is left there, nor anywhere in what it is `within`."""
    loss.backward()  # type: ignore[no-untyped-call]
    found = [parameter.grad for parameter in module.parameters()]
    (within or module).zero_grad()
    return found


SCENARIO = Scenario(
    training_step,
    modes=(Mode(TRACKED.name, "forward, backward and update, in train mode", TRACKED.bind, records=True), FORWARD_ALONE),
    models={"mlp": ("small",), "convnet": ("small",), "transformer": ("small",), "lstm": ("small",)},
    same_work=False,
    updates=True,
    budget_share=0.1,
)
