"""A mode as decorator of, and as block inside, functions that pause: is anything tracked in them, and does it leak while they wait?"""

from __future__ import annotations

import types
from collections.abc import Callable, Generator, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

import torch

from benchmarks.modes import INFERENCE_MODE, NO_GRAD, NO_GRAD_DECORATOR, SET_GRAD_ENABLED, Mode
from benchmarks.walkthrough.properties import NO_SENSE, Finding, Property, answer

Context = Callable[[], Any]
"""Makes a new context object, which is a decorator too."""

BLOCKS: Mapping[str, Context] = MappingProxyType(
    {
        NO_GRAD.name: torch.no_grad,
        INFERENCE_MODE.name: torch.inference_mode,
        SET_GRAD_ENABLED.name: partial(torch.set_grad_enabled, False),
    }
)
DECORATORS: Mapping[str, Context] = MappingProxyType({**BLOCKS, NO_GRAD_DECORATOR.name: torch.no_grad})


def _tracks() -> bool:
    return (2 * torch.ones(1, requires_grad=True)).grad_fn is not None


def _generator() -> Generator[bool, None, None]:
    yield _tracks()
    yield _tracks()


@types.coroutine
def _pause() -> Generator[None, None, None]:
    yield


async def _coroutine() -> list[bool]:
    before = _tracks()
    await _pause()
    return [before, _tracks()]


def _decorated_function(context: Context) -> Finding:
    decorated = context()(_tracks)
    outside = [_tracks()]
    return _switched_off([decorated(), decorated()], [*outside, _tracks()])


def _decorated_generator(context: Context) -> Finding:
    return _consumed(context()(_generator)())


def _decorated_coroutine(context: Context) -> Finding:
    return _awaited(context()(_coroutine)())


def _block_in_generator(context: Context) -> Finding:
    def generator() -> Generator[bool, None, None]:
        with context():
            yield from _generator()

    return _consumed(generator())


def _block_in_coroutine(context: Context) -> Finding:
    async def coroutine() -> list[bool]:
        with context():
            return await _coroutine()

    return _awaited(coroutine())


def _consumed(generator: Generator[bool, None, None]) -> Finding:
    inside, outside = [], [_tracks()]
    for tracked in generator:
        inside.append(tracked)
        outside.append(_tracks())
    return _switched_off(inside, [*outside, _tracks()])


def _awaited(coroutine: Any) -> Finding:
    """Runs it to its end by hand, as an event loop does, and looks around while it waits."""
    outside = [_tracks()]
    coroutine.send(None)
    outside.append(_tracks())
    try:
        coroutine.send(None)
    except StopIteration as done:
        return _switched_off(done.value, [*outside, _tracks()])
    raise AssertionError("it waits once")


def _switched_off(inside: Sequence[bool], outside: Sequence[bool]) -> Finding:
    """From what was tracked inside the function, and by its caller before, between and after."""
    why = ["gradients are on inside"] * any(inside) + ["gradients are off for the caller"] * (not all(outside))
    return answer(not why, " and ".join(why))


def _decorator(look: Callable[[Context], Finding], mode: Mode) -> Finding:
    return look(DECORATORS[mode.name]) if mode.name in DECORATORS else NO_SENSE


def _block(look: Callable[[Context], Finding], mode: Mode) -> Finding:
    return look(BLOCKS[mode.name]) if mode.name in BLOCKS else NO_SENSE


AS_DECORATOR: Mapping[str, Property] = MappingProxyType(
    {
        "a function": partial(_decorator, _decorated_function),
        "a generator function": partial(_decorator, _decorated_generator),
        "an async function": partial(_decorator, _decorated_coroutine),
    }
)
AS_BLOCK: Mapping[str, Property] = MappingProxyType(
    {
        "a generator function": partial(_block, _block_in_generator),
        "an async function": partial(_block, _block_in_coroutine),
    }
)
