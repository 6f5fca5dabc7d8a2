"""Arms whose ratio is known beforehand: one model under several names, to which some add a known share of its work."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.group import ratio_of, time_group
from benchmarks.models import Source, Workload
from benchmarks.modes import NO_GRAD, TRACKED, Mode, Step
from benchmarks.options import Effort
from benchmarks.plan import Job
from benchmarks.record import FORWARD, PAGES_KEPT, Interval
from benchmarks.workers import Workers

MODEL, USUAL = Source("mlp", "tiny"), Effort()
BASE, CALLS = "base", " calls"
"""An arm of several calls is called by their number, as `2 calls`."""
TWICE = f"2{CALLS}"
IDENTICAL = "identical"
"""An arm is called so, or so and a number, where it is tracked once more."""

SHARES = {"+1 %": 0.01, "+2 %": 0.02, "+5 %": 0.05}
TRUTHS = {name: (name, BASE, 1 + share) for name, share in SHARES.items()} | {"x 2": (TWICE, TRACKED.name, 2.0)}
"""The known ratios: the longer arm, the shorter one, and what their times have to each other."""

_LEAST_EXTRA_SECONDS = 2e-6
"""Every arm that spins, the base too, does so for at least so long: after a call of the model the first reads of the clock come
from cold caches and take about 1 us, which is 1 % of a tiny model and would else be missing from the planted extra."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlantedJob(Job):
    """A job whose modes are names of planted arms. It can be timed as any other job; it cannot be examined."""

    def mode(self, name: str) -> Mode:
        """Of which nothing is promised."""
        return replace(TRACKED, name=name, history=None)

    def step(self, workload: Workload, mode: str, **_: int) -> Step:
        """Raises KeyError for a name that is none of an arm's."""
        tracked = TRACKED.bind(workload.module, workload.run)
        if mode == TRACKED.name or mode.startswith(IDENTICAL):
            return tracked
        if mode == NO_GRAD.name:
            return NO_GRAD.bind(workload.module, workload.run)
        if mode.endswith(CALLS):
            return repeated(tracked, int(mode.removesuffix(CALLS)))
        return lengthened(tracked, ({BASE: 0.0} | SHARES)[mode])


def planted_job(arms: Sequence[str], source: Source = MODEL, device: str = "cpu") -> PlantedJob:
    return PlantedJob(scenario=FORWARD, source=source, device=device, dtype="float32", modes=tuple(arms))


def repeated(step: Step, calls: int) -> Step:
    def call() -> None:
        for _ in range(calls):
            step()

    return call


def lengthened(step: Step, share: float, clock: Callable[[], float] = time.perf_counter) -> Step:
    """`step` made longer by `share` of what this very call took, the dropping of its output included.

    The base is the same with a share of 0. What lies outside the two reads of the clock is the same in both, about 0.6 us,
    which makes 1.05 of a call of 100 us 1.0497.
    """

    def call() -> None:
        start = clock()
        step()
        end = clock() + _LEAST_EXTRA_SECONDS
        until = end + (end - start) * share
        while clock() < until:
            pass

    return call


def read(job: Job, workers: Workers, ratios: Mapping[str, Sequence[Any]]) -> dict[str, Interval]:
    """Times the job as a run does. By the names of `ratios`, seconds of their first arm over those of their second."""
    timings = time_group(job, PAGES_KEPT, job.modes, workers)
    found = {name: ratio_of(timings, under, over) for name, (over, under, *_) in ratios.items()}
    return {name: interval for name, interval in found.items() if interval is not None}
