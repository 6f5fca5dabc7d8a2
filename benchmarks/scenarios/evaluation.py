"""Does an evaluation loop need no_grad beside model.eval(), and what does forgetting either cost?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.models import Workload
from benchmarks.modes import DETACH, INFERENCE_MODE, NO_GRAD, TRACKED, Mode, Run, Step
from benchmarks.scenarios.scenario import Scenario

BATCHES = 4


def evaluation(workload: Workload, mode: Mode, steps: int = BATCHES) -> Step:
    """A loop over a DataLoader of `steps` batches, drawn from a seed; the output holds the mean loss and the accuracy.

    Needs a model of one floating point tensor, batch first, whose output are logits, classes last; raises NotImplementedError else.
    """
    if len(workload.args) != 1 or workload.kwargs or not isinstance(workload.args[0], torch.Tensor):
        raise NotImplementedError("evaluation draws its samples like the model's input, which must be one tensor")
    (batch,) = workload.args
    if not batch.is_floating_point():
        raise NotImplementedError(f"evaluation draws its samples from a normal distribution, not as {batch.dtype}")
    with torch.no_grad():
        classes = workload.run(workload.module).shape[-1]
    generator = torch.Generator().manual_seed(0)
    samples = torch.randn(steps * len(batch), *batch.shape[1:], generator=generator).to(batch)
    labels = torch.randint(classes, (len(samples),), generator=generator).to(batch.device)
    loader = DataLoader(TensorDataset(samples, labels), batch_size=len(batch))

    def run(model: Callable[..., torch.Tensor]) -> torch.Tensor:
        total, correct = 0.0, 0.0
        for inputs, targets in loader:
            loss, hits = _figures(model, inputs, targets)
            total += loss
            correct += hits
        return torch.tensor([total / steps, correct / len(samples)])

    training, before = mode is FORGOT_EVAL, workload.module.training

    def step() -> Any:
        workload.module.train(training)
        try:
            return bound()
        finally:
            workload.module.train(before)

    bound = mode.bind(workload.module, run)
    return step


def _figures(model: Callable[..., torch.Tensor], inputs: torch.Tensor, targets: torch.Tensor) -> tuple[float, float]:
    """A function of its own, so that a batch's graph is gone before the next batch begins."""
    logits = model(inputs)
    loss, hits = F.cross_entropy(logits.movedim(-1, 1), targets), (logits.argmax(-1) == targets).sum()
    return loss.item(), hits.item()


def _detach_each(module: nn.Module, run: Run) -> Step:
    def model(*args: Any) -> Any:
        return module(*args).detach()

    return lambda: run(model)


FORGOT_EVAL = replace(NO_GRAD, name="forgot_eval", summary="no_grad, with the model in train mode", same_output=False)

SCENARIO = Scenario(
    evaluation,
    modes=(
        Mode(TRACKED.name, "model.eval() and nothing else", TRACKED.bind, records=True),
        NO_GRAD,
        INFERENCE_MODE,
        replace(DETACH, summary="the logits of each batch detached", bind=_detach_each),
        FORGOT_EVAL,
    ),
    models={"convnet": ("tiny",)},
    steps=BATCHES,
    budget_share=0.25,
)
