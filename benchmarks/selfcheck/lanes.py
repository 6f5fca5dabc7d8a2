"""The lanes that the self-checks time: one model under several names, some with extra work of a known share; and their ratios."""

from __future__ import annotations

import math
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from os import getpid

import torch

from benchmarks import allocator
from benchmarks.device import Cpu
from benchmarks.measure.timing import Announce, Limits, Stopwatch, Timings, time_lanes
from benchmarks.models import Source
from benchmarks.modes import NO_GRAD, TRACKED, Step
from benchmarks.record import Interval
from benchmarks.statistics import paired_ratio

MODEL = Source("mlp", "tiny")
TWIN, BASE = "identical tracked", "base"
PLANTED = {"+1 %": 0.01, "+2 %": 0.02, "+5 %": 0.05}
LANES = (TRACKED.name, TWIN, NO_GRAD.name, BASE, *PLANTED)

IDENTICAL, COST = "identical code", "tracked/no_grad"
RATIOS = {IDENTICAL: (TRACKED.name, TWIN), COST: (TRACKED.name, NO_GRAD.name)} | {name: (name, BASE) for name in PLANTED}
"""Each ratio's numerator and denominator; those of planted lanes are 1.01, 1.02 and 1.05 in truth."""

_MIN_EXTRA_SECONDS = 2e-6
"""Every spinning lane, the base too, spins so long at least: after a model's call the first reads of the clock come from cold
caches and last about 1 us, which is 1 % of a tiny model and would otherwise be missing from the planted extra."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What one repeat of a method read: RATIOS, and their 99 % intervals where the method gives any."""

    ratios: dict[str, float]
    intervals: dict[str, Interval] = field(default_factory=dict)


def of_medians(seconds: Mapping[str, float]) -> Reading:
    return Reading({name: seconds[over] / seconds[under] for name, (over, under) in RATIOS.items()})


def of_rounds(seconds: Mapping[str, Sequence[float]]) -> Reading:
    intervals = {name: paired_ratio(seconds[over], seconds[under]) for name, (over, under) in RATIOS.items()}
    return Reading({name: interval.estimate for name, interval in intervals.items()}, intervals)


def build_lanes() -> dict[str, Step]:
    workload = MODEL.workload()
    tracked, no_grad = (mode.bind(workload.module, workload.run) for mode in (TRACKED, NO_GRAD))
    twin = TRACKED.bind(workload.module, workload.run)
    steps = (tracked, twin, no_grad, planted(tracked, 0.0), *(planted(tracked, fraction) for fraction in PLANTED.values()))
    return dict(zip(LANES, steps, strict=True))


def planted(step: Step, fraction: float, clock: Callable[[], float] = time.perf_counter) -> Step:
    """`step` made longer by `fraction` of what this very call took, its output dropped included.

    The base is the same with a fraction of 0. What lies outside the clock's reads, entering and leaving the call, is the same in both:
    about 0.6 us, which makes 1.05 of a call of 100 us 1.0497. On a machine that is interrupted all the time it grows instead
    (1.053 with four to six busy processes on two cores): an interruption of the step is part of what is multiplied, and one of the
    extra comes on top.
    """

    def call() -> None:
        start = clock()
        step()
        end = clock() + _MIN_EXTRA_SECONDS
        until = end + (end - start) * fraction
        while clock() < until:
            pass

    return call


def time_built(
    build: Callable[[], dict[str, Step]], lane_seconds: float, settled: Callable[[Mapping[str, list[float]]], bool] | None,
    *, announce: Announce,
) -> Timings:  # fmt: skip
    """Times lanes as a run does: in rounds, pages kept, one thread. To be run in a room of its own."""
    allocator.keep_pages()
    torch.set_num_threads(1)
    lanes = build()
    budget = lane_seconds * len(lanes)
    limits = Limits(budget, budget * 10, settled)
    return time_lanes(lanes, Stopwatch(Cpu()), limits, random.Random(0), announce)


def spread(ratios: Sequence[float]) -> tuple[float, float]:
    """Mean and worst distance from 1; nan where there are no ratios."""
    if not ratios:
        return math.nan, math.nan
    errors = [abs(value - 1) for value in ratios]
    return statistics.fmean(errors), max(errors)


@contextmanager
def busy(processes: int) -> Iterator[None]:
    """So many processes that compute without a pause run beside what is inside; they end with this process, however it ends."""
    code = f"import os\nwhile os.getppid() == {getpid()}: sum(range(100_000))"
    started = [subprocess.Popen([sys.executable, "-S", "-c", code]) for _ in range(processes)]  # noqa: S603 - our own
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()
