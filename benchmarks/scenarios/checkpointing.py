"""What does activation checkpointing cost and give back in training, and what does it cost where nothing is tracked?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from benchmarks.models import Workload
from benchmarks.models.transformer import build
from benchmarks.models.workload import Family
from benchmarks.modes import NO_GRAD, TRACKED, Bind, Mode, Run, Step, twin_of
from benchmarks.record import ALONE
from benchmarks.scenarios.scenario import Scenario
from benchmarks.scenarios.training_step import gradients, mean_square

SIZE = {"batch": 4, "tokens": 32, "width": 32, "heads": 2, "depth": 4, "vocabulary": 64}
"""Activations are most of its memory."""


class Checkpointed(nn.Module):
    """A block that keeps its input alone, and runs once more in the backward pass."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: torch.Tensor) -> Any:
        return checkpoint(self.block, x, use_reentrant=False)


def checkpointing(workload: Workload, mode: Mode) -> Step:
    """A forward and a backward pass; the output are the gradients. Under no_grad the forward pass alone, with its loss."""

    def run(model: Any) -> Any:
        loss = mean_square(workload.run(model))
        return gradients(loss, workload.module) if loss.requires_grad else loss

    return mode.bind(workload.module, run)


def _checkpointed(mode: Mode) -> Bind:
    def bind(module: nn.Module, run: Run) -> Step:
        twin = twin_of(module, [])
        twin.blocks = nn.Sequential(*map(Checkpointed, twin.get_submodule("blocks").children()))
        return mode.bind(twin, run)

    return bind


SCENARIO = Scenario(
    checkpointing,
    modes=(
        replace(TRACKED, summary="forward and backward", history=False, records=True),
        Mode("checkpoint", "the same with torch.utils.checkpoint around each block", _checkpointed(TRACKED), records=True),
        replace(NO_GRAD, name=f"forward{ALONE}", summary="the forward pass alone, under no_grad", same_output=False),
        Mode(
            f"checkpoint{ALONE}",
            "the forward pass alone with torch.utils.checkpoint, under no_grad",
            _checkpointed(NO_GRAD),
            same_output=False,
        ),
    ),
    by_default=False,  # torch.utils.checkpoint imports the compiler on first use, two seconds in every process
    families=(Family("decoder", {"small": SIZE}, build),),
    same_work=False,
    budget_share=0.1,
)
