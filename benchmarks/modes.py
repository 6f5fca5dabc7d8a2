"""Ways of handling gradients: how a step runs under each, and what each promises.

A mode turns a model and a way of running it into a step: a function of no arguments that does the whole thing once,
entering and leaving the mode included. A context object is made anew in every call, since a re-entered one leaks its mode.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import torch
from torch import nn

from benchmarks.failure import Failure, is_out_of_memory
from benchmarks.models.workload import map_tensors

Run = Callable[[Callable[..., Any]], Any]
"""Runs the scenario once with the model that it is given: `lambda model: model(*args, **kwargs)` for a forward pass."""

Step = Callable[[], Any]
"""Runs the scenario once in one mode and returns its output."""

Bind = Callable[[nn.Module, Run], Step]


@dataclass(frozen=True, slots=True)
class Mode:
    """One way of handling gradients. `history`, `records` and `same_output` are promises, named as in record.Promise."""

    name: str
    summary: str
    bind: Bind
    history: bool | None = False
    """Whether the output is part of a graph. None promises nothing."""
    records: bool | None = False
    """Whether the call keeps tensors for a backward pass while it runs. None promises nothing."""
    same_output: bool = True
    """The output is tracked's."""
    own_operators: frozenset[str] = frozenset()
    """The `aten::` operators that the mode adds by its nature."""


def _tracked(module: nn.Module, run: Run) -> Step:
    return lambda: run(module)


def _within(context: Callable[[], AbstractContextManager[Any]], module: nn.Module, run: Run) -> Step:
    def step() -> Any:
        with context():
            return run(module)

    return step


def _detach(module: nn.Module, run: Run) -> Step:
    return lambda: map_tensors(torch.Tensor.detach, run(module))


def _no_grad_decorator(module: nn.Module, run: Run) -> Step:
    @torch.no_grad()
    def step() -> Any:
        return run(module)

    return step


def _frozen(module: nn.Module, run: Run, pattern: str = "*") -> Step:
    """Runs a twin whose parameters named like `pattern` do not require grad."""
    named = list(module.named_parameters(remove_duplicate=False))
    matching = [parameter for name, parameter in named if fnmatchcase(name, pattern)]
    if not matching and pattern != "*":
        names = ", ".join(name for name, _ in named)
        raise Failure("unsupported", f"no parameter's name matches {pattern}; there are {names}")
    twin = twin_of(module, matching)
    return lambda: run(twin)


def _detached_parameters(module: nn.Module, run: Run) -> Step:
    """functional_call on a twin: cuDNN's recurrent layers keep hold of the weights that they are swapped for.

    Each parameter is given once per module that owns it: functional_call leaves one behind, untracked, that is swapped twice.
    """
    twin = twin_of(module, [])
    values = {id(parameter): nn.Parameter(parameter.detach(), requires_grad=False) for parameter in module.parameters()}
    detached: dict[str, torch.Tensor] = {
        name: values[id(parameter)]
        for path, owner in twin.named_modules()
        for name, parameter in owner.named_parameters(path, recurse=False, remove_duplicate=False)
    }

    def model(*args: Any, **kwargs: Any) -> Any:
        return torch.func.functional_call(twin, detached, args, kwargs, tie_weights=False)

    return lambda: run(model)


def twin_of(module: nn.Module, frozen: list[nn.Parameter]) -> nn.Module:
    """A copy of the module that shares every value with it, but whose counterparts of `frozen` do not require grad."""
    shared: dict[int, Any] = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    shared |= {id(parameter): nn.Parameter(parameter.detach(), requires_grad=False) for parameter in frozen}
    try:
        twin = copy.deepcopy(module, shared)
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise Failure("unsupported", f"the module cannot be copied: {error}") from error
    values = {id(value) for value in shared.values()}
    if not all(id(parameter) in values for parameter in twin.parameters()):  # TorchScript's own
        raise Failure("unsupported", f"a copy of {type(module).__name__} does not share its parameters")
    return twin


TRACKED = Mode("tracked", "gradients on, as torch starts: the baseline", _tracked, history=True, records=None)
NO_GRAD = Mode("no_grad", "with torch.no_grad()", partial(_within, torch.no_grad))
INFERENCE_MODE = Mode("inference_mode", "with torch.inference_mode()", partial(_within, torch.inference_mode))
DETACH = Mode(
    "detach", "tracked, then .detach() on the result", _detach, records=None, own_operators=frozenset({"aten::detach"})
)
SET_GRAD_ENABLED = Mode(
    "set_grad_enabled", "with torch.set_grad_enabled(False)", partial(_within, partial(torch.set_grad_enabled, mode=False))
)
FROZEN = Mode("frozen", "requires_grad_(False) on every parameter", _frozen)
DETACHED_PARAMETERS = Mode("detached_parameters", "torch.func.functional_call with detached parameters", _detached_parameters)
NO_GRAD_DECORATOR = Mode("no_grad_decorator", "a function decorated with @torch.no_grad()", _no_grad_decorator)

MODES = {
    mode.name: mode
    for mode in (
        TRACKED, NO_GRAD, INFERENCE_MODE, DETACH,
        SET_GRAD_ENABLED, FROZEN, DETACHED_PARAMETERS, NO_GRAD_DECORATOR,
    )
}  # fmt: skip
DEFAULT_MODES = (TRACKED.name, NO_GRAD.name, INFERENCE_MODE.name, DETACH.name)

_FREEZING = "frozen:"


def freezing(pattern: str) -> str:
    """The name of the mode in which parameters whose dotted name matches `pattern`, as file names in a shell, do not require grad."""
    return f"{_FREEZING}{pattern}"


def is_freezing(name: str) -> bool:
    return name.startswith(_FREEZING)


def mode_named(name: str) -> Mode:
    """The mode of a registered name, or one of `freezing`'s. Raises KeyError."""
    if not is_freezing(name):
        return MODES[name]
    pattern = name.removeprefix(_FREEZING)
    return Mode(name, f"requires_grad_(False) on {pattern}", partial(_frozen, pattern=pattern), history=None, records=None)
