"""One call under torch's profiler: what it allocated, event by event, and which operators ran.

Hooks cost time, so this never runs while timing. Only allocations on the calling thread are seen.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch.autograd.profiler import profile

from benchmarks.modes import Step

_MEMORY_EVENT = "[memory]"


@dataclass(frozen=True, slots=True)
class CallProfile:
    """Tensor bytes on the CPU above the level at the call's start: highest, and final with the output alive."""

    peak_bytes: int
    held_bytes: int
    operators: frozenset[str]


def profile_call(step: Step) -> CallProfile:
    """Runs `step` once. The bytes are sums over the allocator's own events, so they are exact and include temporaries."""
    with _silenced_stderr(), profile(profile_memory=True) as profiler:
        output = step()
    events = profiler.kineto_results.events()
    on_cpu = (event for event in events if event.name() == _MEMORY_EVENT and event.device_type().name == "CPU")
    level = peak = 0
    for event in sorted(on_cpu, key=lambda event: event.start_ns()):
        level += event.nbytes()
        peak = max(peak, level)
    del output
    return CallProfile(peak, level, frozenset(event.name() for event in events if event.name().startswith("aten::")))


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
