"""What does it cost to let gradients flow into a teacher, and what do the ways of stopping them give back?"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.models.mlp import MLP, build
from benchmarks.models.workload import Family, Workload
from benchmarks.modes import DETACH, NO_GRAD, TRACKED, Mode, Step
from benchmarks.scenarios.frozen_backbone import INFERENCE_MODE_CLONE
from benchmarks.scenarios.scenario import Scenario
from benchmarks.scenarios.training_step import gradients

DECAY = 0.99


class Pair(nn.Module):
    """A student, and a teacher whose values follow the student's slowly."""

    def __init__(self, student: nn.Module) -> None:
        super().__init__()
        self.student = student
        self.teacher = copy.deepcopy(student)
        with torch.no_grad():
            for parameter in self.teacher.parameters():
                parameter.add_(0.01 * torch.randn_like(parameter))


def target_network(workload: Workload, mode: Mode) -> Step:
    """The teacher under `mode`, the student's loss against it sent backward, then the teacher's update in place under no_grad.

    The output are the student's gradients, equal in all modes.
    """
    module = workload.module
    student, teacher = module.get_submodule("student"), module.get_submodule("teacher")
    targets = mode.bind(teacher, workload.run)
    pairs = list(zip(teacher.parameters(), student.parameters(), strict=True))

    def step() -> list[Any]:
        found = gradients(F.mse_loss(workload.run(student), targets()), student, within=module)
        with torch.no_grad():
            for average, value in pairs:
                average.lerp_(value, 1 - DECAY)
        return found

    return step


def _build(**size: int) -> tuple[nn.Module, torch.Tensor]:
    student, inputs = build(**size)
    return Pair(student), inputs


SCENARIO = Scenario(
    target_network,
    modes=(*(replace(mode, history=False, records=True) for mode in (TRACKED, DETACH, NO_GRAD)), INFERENCE_MODE_CLONE),
    families=(Family("mlp", {"small": MLP.sizes["small"]}, _build),),
    same_work=False,
    updates=True,
    budget_share=0.25,
)
