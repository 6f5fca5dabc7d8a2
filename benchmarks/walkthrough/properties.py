"""What a mode does to an output and around a call, each property found by running."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from benchmarks.measure.graph import histories
from benchmarks.modes import Mode


@dataclass(frozen=True, slots=True)
class Finding:
    """`yes`, `no` or `-` where the property makes no sense for the mode, or `fails`; and why, in torch's words or ours."""

    answer: str
    why: str = ""


NO_SENSE = Finding("-")

Property = Callable[[Mode], Finding]


def _output(mode: Mode, *, input_tracked: bool = False) -> torch.Tensor:
    """What a linear layer gives under the mode."""
    inputs = torch.ones(3, 2, requires_grad=input_tracked)
    output: torch.Tensor = mode.bind(nn.Linear(2, 2), lambda model: model(inputs))()
    return output


def answer(holds: bool, why_not: str = "") -> Finding:
    return Finding("yes") if holds else Finding("no", why_not)


def _unless_raised(action: Callable[[], object]) -> Finding:
    try:
        action()
    except RuntimeError as error:
        return Finding("no", str(error))
    return Finding("yes")


def _has_history(mode: Mode) -> Finding:
    return answer(bool(histories(_output(mode))))


def _has_history_from_input(mode: Mode) -> Finding:
    return answer(bool(histories(_output(mode, input_tracked=True))))


def _requires_grad(mode: Mode) -> Finding:
    return answer(_output(mode).requires_grad)


def _view_requires_grad(mode: Mode) -> Finding:
    inputs = torch.ones(2, requires_grad=True)
    return answer(mode.bind(nn.Flatten(0), lambda model: model(inputs))().requires_grad)


def _is_inference(mode: Mode) -> Finding:
    return answer(_output(mode).is_inference())


def _backward(mode: Mode) -> Finding:
    return _unless_raised(partial(torch.autograd.backward, _output(mode).sum()))


def _usable_when_tracked(mode: Mode) -> Finding:
    """The output times a weight: backward needs the output kept."""
    output, weight = _output(mode), torch.ones(2, requires_grad=True)
    return _unless_raised(lambda: torch.autograd.backward((output * weight).sum()))


def _in_place(mode: Mode) -> Finding:
    return _unless_raised(partial(_output(mode).add_, 1))


def _restored(mode: Mode, *, raising: bool = False) -> Finding:
    """Tried in both gradient modes."""

    def run(_model: Callable[..., Any]) -> torch.Tensor:
        if raising:
            raise ZeroDivisionError
        return torch.ones(1)

    step, kept = mode.bind(nn.Linear(2, 2), run), []
    for before in (True, False):
        with torch.set_grad_enabled(before):
            with suppress(ZeroDivisionError):
                step()
            kept.append(torch.is_grad_enabled() == before and not torch.is_inference_mode_enabled())
    return answer(all(kept))


def _reaches_thread(mode: Mode) -> Finding:
    """What the step gives, where the model runs in a thread that is started inside the step."""
    if mode.history is not False:
        return NO_SENSE
    inputs = torch.ones(1, 2)  # made outside: the thread could not track with an inference tensor

    def run(model: Callable[..., Any]) -> Any:
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(model, inputs).result()

    return answer(not histories(mode.bind(nn.Linear(2, 2), run)()), "gradients are on in the thread")


def _moves_statistics(mode: Mode) -> Finding:
    norm = nn.BatchNorm1d(2).train()
    mode.bind(norm, lambda model: model(torch.arange(6.0).reshape(3, 2)))()
    assert norm.running_mean is not None
    return answer(bool(norm.running_mean.any()))


OUTPUT: Mapping[str, Property] = MappingProxyType(
    {
        "in the graph": _has_history,
        "in the graph if the input is": _has_history_from_input,
        "requires_grad": _requires_grad,
        "requires_grad of a view": _view_requires_grad,
        "an inference tensor": _is_inference,
        "backward works": _backward,
        "usable in tracked code": _usable_when_tracked,
        "changeable in place": _in_place,
    }
)
CALL: Mapping[str, Property] = MappingProxyType(
    {
        "gradient mode restored": _restored,
        "and after an exception": partial(_restored, raising=True),
        "holds in a new thread": _reaches_thread,
        "BatchNorm statistics move": _moves_statistics,
    }
)
