"""One call under torch's profiler: what it allocated, event by event, and which operators ran.

Hooks cost time, so this never runs while timing. torch's profiler follows the calling thread and what torch itself forks from it
(`torch.jit.fork`), but no Python thread. It can be told to follow all threads, and then reports operators but no memory: so a
second call tells which operators the first did not see.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch._C._profiler import _ExperimentalConfig
from torch.autograd.profiler import profile, record_function

from benchmarks.modes import Step

_MEMORY_EVENT = "[memory]"
_CALL = "(the call)"


@dataclass(frozen=True, slots=True)
class CallProfile:
    """Tensor bytes on the CPU above the level at the call's start: highest, and final with the output alive.

    `unseen` are the operators on threads whose allocations are in neither figure.
    """

    peak_bytes: int
    held_bytes: int
    operators: frozenset[str]
    unseen: frozenset[str] = frozenset()


def profile_call(step: Step) -> CallProfile:
    """Runs `step` twice. The bytes are sums over the allocator's own events, so they are exact and include temporaries."""
    events = _events(step, profile_memory=True)
    on_cpu = (event for event in events if event.name() == _MEMORY_EVENT and event.device_type().name == "CPU")
    level = peak = 0
    for event in sorted(on_cpu, key=lambda event: event.start_ns()):
        level += event.nbytes()
        peak = max(peak, level)
    seen = _operators(events)
    events = _events(step, experimental_config=_ExperimentalConfig(profile_all_threads=True))
    (caller,) = (event.start_thread_id() for event in events if event.name() == _CALL)
    everywhere = _operators(events)
    elsewhere = _operators(event for event in events if event.start_thread_id() != caller)
    return CallProfile(peak, level, frozenset(seen | everywhere), frozenset((everywhere - seen) & elsewhere))


def _events(step: Step, **settings: Any) -> list[Any]:
    with _silenced_stderr(), profile(**settings) as profiler, record_function(_CALL):
        output = step()
    del output
    events: list[Any] = profiler.kineto_results.events()
    return events


def _operators(events: Iterable[Any]) -> Counter[str]:
    return Counter(event.name() for event in events if event.name().startswith("aten::"))


@contextmanager
def _silenced_stderr() -> Iterator[None]:
    """torch's profiler writes two lines per use to file descriptor 2, past Python's sys.stderr."""
    sys.stderr.flush()
    kept = os.dup(2)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(null)
