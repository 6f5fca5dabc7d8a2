"""What does a frozen network keep where its input requires grad, as for a saliency map, an attack or a prompt that is tuned?"""

from __future__ import annotations

from dataclasses import replace

import torch

from benchmarks.failure import Failure
from benchmarks.models import Workload
from benchmarks.models.workload import map_tensors
from benchmarks.modes import FROZEN, TRACKED, Mode, Step
from benchmarks.scenarios.scenario import Scenario

PLAIN_INPUT = replace(FROZEN, name="frozen_plain_input", summary="frozen, and the input does not require grad either")


def frozen_input(workload: Workload, mode: Mode) -> Step:
    """A forward pass whose floating point inputs require grad. Raises Failure for a model that has none, such as one of token ids."""
    if not any(tensor.is_floating_point() for tensor in workload.input_tensors()):
        raise Failure("unsupported", "frozen_input needs an input that can require grad, and token ids cannot")

    def given(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.detach().requires_grad_(tensor.is_floating_point() and mode is not PLAIN_INPUT)

    args, kwargs = map_tensors(given, (workload.args, workload.kwargs))
    return mode.bind(workload.module, replace(workload, args=args, kwargs=kwargs).run)


SCENARIO = Scenario(
    frozen_input,
    modes=(
        replace(TRACKED, summary="parameters and input require grad"),
        replace(FROZEN, summary="frozen, but the input requires grad", history=True, records=None),
        PLAIN_INPUT,
    ),
    models={"mlp": ("tiny",)},
    budget_share=0.1,
)
