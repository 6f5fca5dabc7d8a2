"""Does an evaluation loop need no_grad beside model.eval(), and what does forgetting either cost?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.failure import Failure
from benchmarks.models import Workload
from benchmarks.models.workload import map_tensors, tensors
from benchmarks.modes import DETACH, INFERENCE_MODE, NO_GRAD, TRACKED, Mode, Run, Step
from benchmarks.scenarios.scenario import Scenario, in_training

BATCHES = 4


def evaluation(workload: Workload, mode: Mode, steps: int = BATCHES) -> Step:
    """A loop over a DataLoader that holds the model's inputs `steps` times; the output holds the mean loss and the accuracy.

    Labels are drawn from a seed. Needs a model of tensors, batch first, that returns logits, batch first and classes last; raises Failure else.
    """
    inputs = [tensor.detach() for tensor in workload.input_tensors()]
    with torch.no_grad():
        logits = _logits(in_training(workload.module, lambda: workload.run(workload.module), training=False)())
    batch = len(logits)
    if not (inputs and batch) or any(one.is_nested or one.ndim == 0 or len(one) != batch for one in inputs):
        raise Failure("unsupported", "evaluation needs inputs and logits whose first dimension is the batch")
    shape = (steps * batch, *logits.shape[1:-1])
    labels = torch.randint(logits.shape[-1], shape, generator=torch.Generator().manual_seed(0)).to(logits.device)
    samples = TensorDataset(*(torch.cat([tensor] * steps) for tensor in inputs), labels)
    loader = DataLoader(samples, batch_size=batch)

    def run(model: Callable[..., Any]) -> torch.Tensor:
        total, correct = 0.0, 0.0
        for *values, targets in loader:
            loss, hits = _figures(model, workload, values, targets)
            total += loss
            correct += hits
        return torch.tensor([total / steps, correct / labels.numel()])

    return in_training(workload.module, mode.bind(workload.module, run), training=mode.name == FORGOT_EVAL.name)


def _figures(
    model: Callable[..., Any], workload: Workload, values: list[torch.Tensor], targets: torch.Tensor
) -> tuple[float, float]:
    """A function of its own, so that a batch's graph is gone before the next batch begins."""
    rest = iter(values)
    args, kwargs = map_tensors(lambda _: next(rest), (workload.args, workload.kwargs))
    logits = _logits(model(*args, **kwargs))
    loss, hits = F.cross_entropy(logits.movedim(-1, 1), targets), (logits.argmax(-1) == targets).sum()
    return loss.item(), hits.item()


def _logits(output: Any) -> torch.Tensor:
    """What an output in parts calls `logits`, or its first floating point tensor of two dimensions. Raises Failure if there is none."""
    named = output.get("logits") if isinstance(output, dict) else getattr(output, "logits", None)
    for tensor in tensors([named, output]):
        if tensor.is_floating_point() and tensor.ndim > 1 and not tensor.is_nested:
            return tensor
    raise Failure("unsupported", f"evaluation needs logits, batch first and classes last; {type(output).__name__} holds none")


def _detach_each(module: nn.Module, run: Run) -> Step:
    def model(*args: Any, **kwargs: Any) -> Any:
        return map_tensors(torch.Tensor.detach, module(*args, **kwargs))

    return lambda: run(model)


FORGOT_EVAL = replace(NO_GRAD, name="forgot_eval", summary="no_grad, with the model in train mode", same_output=False)

SCENARIO = Scenario(
    evaluation,
    modes=(
        Mode(TRACKED.name, "model.eval() and nothing else", TRACKED.bind, records=True),
        NO_GRAD,
        INFERENCE_MODE,
        replace(DETACH, summary="the output of each batch detached", bind=_detach_each),
        FORGOT_EVAL,
    ),
    models={"convnet": ("tiny",)},
    steps=BATCHES,
    budget_share=0.25,
)
