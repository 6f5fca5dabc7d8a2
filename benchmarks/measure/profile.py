"""One call under torch's profiler: what it allocated, event by event, and which operators ran.

Profiling costs time, so this never runs while timing.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from typing import Any

from torch._C._profiler import _ExperimentalConfig
from torch.autograd.profiler import profile, record_function

from benchmarks.modes import Step

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # its profiler writes two lines per use to file descriptor 2

_MEMORY_EVENT = "[memory]"
_CALL = "(the call)"


@dataclass(frozen=True, slots=True)
class Allocations:
    """Tensor bytes on the CPU above the level at the call's start: the highest, and the last with the output alive.

    Exact, temporaries included, but for threads that Python has started: torch's profiler sees the memory of the calling thread and of what
    torch itself forks from it. `operators` are those that it saw.
    """

    peak_bytes: int
    held_bytes: int
    operators: Counter[str]


@dataclass(frozen=True, slots=True)
class Operators:
    """How often each `aten::` operator ran, on all threads and on others than the caller's."""

    everywhere: Counter[str]
    elsewhere: Counter[str]

    def unseen(self, seen: Allocations) -> list[str]:
        """Operators of other threads whose memory is not in `seen`, by name."""
        return sorted((self.everywhere - seen.operators) & self.elsewhere)


def allocations(step: Step) -> Allocations:
    events = _events(step, profile_memory=True)
    on_cpu = [event for event in events if event.name() == _MEMORY_EVENT and event.device_type().name == "CPU"]
    level = peak = 0
    for event in sorted(on_cpu, key=lambda event: event.start_ns()):
        level += event.nbytes()
        peak = max(peak, level)
    return Allocations(peak, level, _count(events))


def operators(step: Step) -> Operators:
    """A call of its own: told to follow all threads, the profiler reports no memory."""
    events = _events(step, experimental_config=_ExperimentalConfig(profile_all_threads=True))
    (caller,) = (event.start_thread_id() for event in events if event.name() == _CALL)
    return Operators(_count(events), _count([event for event in events if event.start_thread_id() != caller]))


def _events(step: Step, **settings: Any) -> list[Any]:
    with profile(**settings) as profiler, record_function(_CALL):
        output = step()
    del output
    events: list[Any] = profiler.kineto_results.events()
    return events


def _count(events: list[Any]) -> Counter[str]:
    return Counter(event.name() for event in events if event.name().startswith("aten::"))
