"""What each mode does to an output, around a call, and to functions that pause: found by running it."""

from __future__ import annotations

import types
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import torch
from torch import nn

from benchmarks.modes import INFERENCE_MODE, NO_GRAD, NO_GRAD_DECORATOR, SET_GRAD_ENABLED, Mode

Property = Callable[[Mode], bool | None]
"""Whether a mode has it; None where the question makes no sense for the mode."""

Context = Callable[[], Any]
"""Makes a new context object, which is a decorator too."""

BLOCKS: dict[str, Context] = {
    NO_GRAD.name: torch.no_grad,
    INFERENCE_MODE.name: torch.inference_mode,
    SET_GRAD_ENABLED.name: partial(torch.set_grad_enabled, False),
}
DECORATORS: dict[str, Context] = {**BLOCKS, NO_GRAD_DECORATOR.name: torch.no_grad}


def _output(mode: Mode, module: nn.Module | None = None, *, input_tracked: bool = False) -> torch.Tensor:
    inputs = torch.ones(3, 2, requires_grad=input_tracked)
    output: torch.Tensor = mode.bind(module or nn.Linear(2, 2), lambda model: model(inputs))()
    return output


def _works(action: Callable[[], object]) -> bool:
    try:
        action()
    except RuntimeError:
        return False
    return True


def _enters_tracked_code(mode: Mode) -> bool:
    """Multiplied by a weight, whose gradient needs the output to be kept."""
    output = _output(mode)
    return _works(lambda: torch.autograd.backward((output * torch.ones(2, requires_grad=True)).sum()))


def _reaches_threads(mode: Mode) -> bool:
    """Whether the output is untracked if the model runs in a thread that the call starts."""
    inputs = torch.ones(3, 2)  # made outside the mode: a tracking thread cannot take an inference tensor

    def run(model: Callable[..., Any]) -> Any:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(model, inputs).result()

    return mode.bind(nn.Linear(2, 2), run)().grad_fn is None


def _moves_statistics(mode: Mode) -> bool:
    norm = nn.BatchNorm1d(2).train()
    _output(mode, norm)
    return bool(norm.num_batches_tracked)


def _tracks() -> bool:
    return (2 * torch.ones(1, requires_grad=True)).grad_fn is not None


def _generator() -> Iterator[bool]:
    yield _tracks()
    yield _tracks()


@types.coroutine
def _pause(tracks: bool) -> Generator[bool, None, None]:
    yield tracks


async def _asynchronous() -> None:
    await _pause(_tracks())
    await _pause(_tracks())


def _untracked_inside_only(pauses: Iterable[bool]) -> bool:
    """`pauses` runs a function and yields what it tracks; its caller tracks before, at each pause and afterwards, or should."""
    inside, outside = [], [_tracks()]
    for tracks in pauses:
        inside.append(tracks)
        outside.append(_tracks())
    return not any(inside) and all([*outside, _tracks()])


def _used(contexts: Mapping[str, Context], run: Callable[[Context], Iterable[bool]], mode: Mode) -> bool | None:
    context = contexts.get(mode.name)
    return None if context is None else _untracked_inside_only(run(context))


def _block_in_generator(context: Context) -> Iterator[bool]:
    with context():
        yield from _generator()


async def _block_in_coroutine(context: Context) -> None:
    with context():
        await _asynchronous()


PROPERTIES: Mapping[str, Property] = {
    "output: in the graph": lambda mode: _output(mode).grad_fn is not None,
    "output: in the graph if the input is": lambda mode: _output(mode, input_tracked=True).grad_fn is not None,
    "output: requires_grad": lambda mode: _output(mode).requires_grad,
    "output: requires_grad of a view": lambda mode: _output(mode, nn.Flatten(0), input_tracked=True).requires_grad,
    "output: is an inference tensor": lambda mode: _output(mode).is_inference(),
    "output: can be sent backward": lambda mode: _works(_output(mode).sum().backward),
    "output: can enter tracked code": _enters_tracked_code,
    "output: can be changed in place": lambda mode: _works(partial(_output(mode).add_, 1)),
    "call: untracked in a thread it starts": _reaches_threads,
    "call: moves BatchNorm statistics": _moves_statistics,
    "decorator: holds in a function": partial(_used, DECORATORS, lambda context: (context()(_tracks)() for _ in range(2))),
    "decorator: holds in a generator": partial(_used, DECORATORS, lambda context: context()(_generator)()),
    "decorator: holds in an async function": partial(_used, DECORATORS, lambda context: context()(_asynchronous)().__await__()),
    "block: stays within a generator": partial(_used, BLOCKS, _block_in_generator),
    "block: stays within an async function": partial(_used, BLOCKS, lambda context: _block_in_coroutine(context).__await__()),
}


def has(mode: Mode, name: str) -> bool | None:
    """Whether `mode` has the property of that name, tried with gradients on; whatever the mode leaks is put right."""
    with torch.enable_grad():
        return PROPERTIES[name](mode)
