"""Which way of keeping gradients out of a backbone below a trainable head gives most back?"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from benchmarks.models.convnet import CONVNET, build
from benchmarks.models.workload import Family, Workload
from benchmarks.modes import DETACH, FROZEN, INFERENCE_MODE, NO_GRAD, TRACKED, Mode, Run, Step
from benchmarks.scenarios.scenario import Scenario
from benchmarks.scenarios.training_step import gradients, mean_square


class Transfer(nn.Module):
    """A backbone without its classifier, and a head to be trained on what it finds."""

    def __init__(self, convnet: nn.Module) -> None:
        super().__init__()
        head = convnet.get_submodule("head")
        assert isinstance(head, nn.Linear)
        convnet.add_module("head", nn.Identity())
        self.backbone = convnet
        self.head = nn.Sequential(nn.Linear(head.in_features, head.in_features), nn.ReLU(), head)


def frozen_backbone(workload: Workload, mode: Mode) -> Step:
    """The backbone under `mode`, the head and the backward pass tracked. The output are the head's gradients, equal in all modes."""
    module = workload.module
    features, head = mode.bind(module.get_submodule("backbone"), workload.run), module.get_submodule("head")
    return lambda: gradients(mean_square(head(features())), head, within=module)


def _clone_of_inference(module: nn.Module, run: Run) -> Step:
    """A clone made outside inference mode is an ordinary tensor, which autograd may save."""
    inferred = INFERENCE_MODE.bind(module, run)
    return lambda: inferred().clone()


INFERENCE_MODE_CLONE = Mode(
    "inference_mode_clone", "inference_mode, its output cloned outside", _clone_of_inference, records=True
)


def _build(**size: int) -> tuple[nn.Module, torch.Tensor]:
    convnet, images = build(**size)
    return Transfer(convnet), images


SCENARIO = Scenario(
    frozen_backbone,
    modes=(
        *(replace(mode, history=False, records=True) for mode in (TRACKED, FROZEN, NO_GRAD, DETACH)),
        INFERENCE_MODE_CLONE,
        replace(INFERENCE_MODE, records=True),
    ),
    families=(Family("convnet", {"small": CONVNET.sizes["small"]}, _build),),
    same_work=False,
    budget_share=0.25,
)
