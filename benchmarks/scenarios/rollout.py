"""What does acting with tracking on cost an agent that learns from what it met, and which share of a whole step is acting under no_grad?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch.nn import functional as F

from benchmarks.models import Workload
from benchmarks.models.mlp import MLP
from benchmarks.models.workload import Family
from benchmarks.modes import NO_GRAD, TRACKED, Mode, Step
from benchmarks.record import ALONE
from benchmarks.scenarios.scenario import Scenario
from benchmarks.scenarios.training_step import gradients

ACTIONS = 8

ACTING_ALONE = replace(NO_GRAD, name=f"acting{ALONE}", summary="acting under no_grad, without the update", same_output=False)


def rollout(workload: Workload, mode: Mode, steps: int = ACTIONS) -> Step:
    """`steps` actions under `mode`, then one update's gradients by the ratio of policies (Schulman et al. 2017, arXiv:1707.06347).

    The output are the policy's gradients, equal in all modes. The environment takes no time to speak of: it turns what was seen by one place.
    """
    policy, (first,) = workload.module, workload.args

    def act(model: Any) -> list[torch.Tensor]:
        seen, chosen, scores = [], [], []
        for turned in range(steps):
            seen.append(first.roll(turned, -1))
            logarithms = F.log_softmax(model(seen[-1]), -1)
            chosen.append(logarithms.argmax(-1, keepdim=True))
            scores.append(logarithms.gather(-1, chosen[-1]))
        return [torch.cat(tensors) for tensors in (seen, chosen, scores)]

    acting = mode.bind(policy, act)

    def step() -> list[Any]:
        seen, chosen, scores = acting()
        ratio = (F.log_softmax(policy(seen), -1).gather(-1, chosen) - scores.detach()).exp()
        return gradients(-ratio.mean(), policy)

    return acting if mode is ACTING_ALONE else step


SCENARIO = Scenario(
    rollout,
    modes=(
        replace(TRACKED, summary="acting with tracking on", history=False, records=True),
        replace(NO_GRAD, summary="acting under no_grad", records=True),
        ACTING_ALONE,
    ),
    families=(Family("mlp", {"tiny": MLP.sizes["tiny"]}, MLP.build),),
    steps=ACTIONS,
    same_work=False,
    budget_share=0.1,
)
