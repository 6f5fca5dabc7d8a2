"""`selfcheck accuracy`: how far identical code reads apart, and how small an effect is found, here and by other harnesses.

The harnesses take turns, repeat by repeat, alone and beside a neighbour on the same core that computes for 0.3 to 1 s and
rests as long: how calm a machine is depends on the hour, and a disturbance that one controls does not.
"""

from __future__ import annotations

import math
import os
import statistics
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace

from rich.table import Table

from benchmarks.group import time_group
from benchmarks.intervals import resolution, verdict
from benchmarks.measure.alternating import PLACEBO, core_of, pin
from benchmarks.modes import NO_GRAD, TRACKED
from benchmarks.options import Effort
from benchmarks.record import PAGES_KEPT, Interval
from benchmarks.selfcheck import peers
from benchmarks.selfcheck.findings import Findings, Goal, progress, table
from benchmarks.selfcheck.planted import BASE, IDENTICAL, SHARES, TRUTHS, planted_job
from benchmarks.selfcheck.trueness import interval_of
from benchmarks.workers import Launches, Workers

SUITE, MEDIAN, MIN, TIMER = "this suite", "pytest-benchmark, median", "pytest-benchmark, min", "torch Timer"
ALONE, BESIDE = "alone", "beside a neighbour"
IDENTICAL_CODE, COST = "identical code", "tracked / no_grad"
RATIOS = {IDENTICAL_CODE: (TRACKED.name, IDENTICAL), COST: (TRACKED.name, NO_GRAD.name)} | {
    name: TRUTHS[name][:2] for name in SHARES
}
"""Each ratio's numerator and denominator."""

ARMS = (TRACKED.name, IDENTICAL, NO_GRAD.name, BASE, *SHARES)
TIMES_BETTER = {MEDIAN: 20.0, TIMER: 20.0, MIN: 3.0}
SIGNS_FOUND = {"+2 %": 0.95, "+1 %": 0.75}
SAME_OF_NULLS, STAYS_TRUE = 0.6, 0.01

_NEIGHBOUR = """
import os, random, time
parent, order = os.getppid(), random.Random(0)
while os.getppid() == parent:
    until = time.monotonic() + order.uniform(0.3, 1.0)
    while time.monotonic() < until:
        sum(range(10_000))
    time.sleep(order.uniform(0.3, 1.0))
"""


@dataclass(frozen=True, slots=True)
class Extent:
    """How much is measured: repeats of all methods in both conditions, for so many `seconds` an arm; then null comparisons."""

    repeats: int = 10
    seconds: float = 0.35
    null_groups: int = 40
    twins: int = 5
    effort: Effort = field(default_factory=Effort)


QUICK = Extent(repeats=1, seconds=0.01, null_groups=1, twins=2, effort=Effort(processes=2, budget=0.1))

Ratios = dict[str, float]
"""What one repeat of a method read, by RATIOS."""


@dataclass(frozen=True, slots=True)
class Null:
    """One comparison of two identical arms, as a run would judge it."""

    ratio: Interval
    verdict: str


def accuracy(extent: Extent) -> Findings:
    readings: dict[tuple[str, str], list[Ratios]] = defaultdict(list)
    steps = 2 * extent.repeats + extent.null_groups
    with one_core(), progress(steps, extent.repeats * 26 + extent.null_groups * 5) as begin:
        workers = Launches(extent.effort.worker_timeout)
        for number in range(2 * extent.repeats):
            condition = (ALONE, BESIDE)[number % 2]
            begin(condition)
            with neighbour() if condition == BESIDE else ExitStack():
                for method, ratios in _repeat(workers, extent).items():
                    readings[condition, method].append(ratios)
        nulls: list[Null] = []
        for _ in range(extent.null_groups):
            begin("null comparisons, alone")
            nulls += _compare_identical(workers, extent)
    notes = (
        f"tracked mlp tiny, one thread on one core; {len(ARMS)} arms for about {extent.seconds:g} s each; methods in turn",
        f"{SUITE}: {extent.effort.processes} processes, however wide its intervals are; the others as shipped",
        "identical: how far the ratio of two identical arms is from 1",
        "+1 %, +2 %, +5 %: repeats that read an arm with so much work added as slower",
        f"null comparisons: default measurements, alone, each of {extent.twins} identical arms against one tracked arm",
    )  # fmt: skip
    saved = [{"condition": key[0], "method": key[1], "ratios": own} for key, own in readings.items()]
    return Findings([_table(readings)], notes, list(_goals(readings, nulls)), {"ratios": saved, "nulls": nulls})


def _repeat(workers: Workers, extent: Extent) -> dict[str, Ratios]:
    """What each method reads, one after the other."""
    job = replace(planted_job(ARMS), effort=replace(extent.effort, precision=0.99))
    timings = time_group(job, PAGES_KEPT, ARMS, workers)
    by_statistic = peers.pytest_benchmark(ARMS, extent.seconds)
    timer = workers.run(peers.torch_timer, ARMS, extent.seconds)
    return {
        SUITE: {name: interval_of(timings, *arms).estimate for name, arms in RATIOS.items()},
        MEDIAN: _of_seconds(by_statistic["median"]),
        MIN: _of_seconds(by_statistic["min"]),
        TIMER: _of_seconds(timer),
    }


def _of_seconds(seconds: Mapping[str, float]) -> Ratios:
    return {name: seconds[over] / seconds[under] for name, (over, under) in RATIOS.items()}


def _compare_identical(workers: Workers, extent: Extent) -> list[Null]:
    arms = (TRACKED.name, *(f"{IDENTICAL} {number}" for number in range(extent.twins)))
    timings = time_group(replace(planted_job(arms), effort=extent.effort), PAGES_KEPT, arms, workers)
    reach = resolution(interval_of(timings, TRACKED.name, PLACEBO))
    ratios = [interval_of(timings, TRACKED.name, arm) for arm in arms[1:]]
    return [Null(ratio, verdict(ratio, reach)) for ratio in ratios]


@contextmanager
def one_core() -> Iterator[None]:
    """This process and those that it starts share one core inside, where the system can hold them there."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    pin(core_of(planted_job(ARMS), process=0))
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def neighbour() -> Iterator[None]:
    """A process on this process's cores that computes and rests by turns; it ends with this process, however that ends."""
    process = subprocess.Popen([sys.executable, "-S", "-c", _NEIGHBOUR])  # noqa: S603 - our own
    try:
        yield
    finally:
        process.kill()
        process.wait()


def spread(ratios: Sequence[float]) -> tuple[float, float]:
    """Mean and worst distance from 1, as fractions."""
    errors = [abs(ratio - 1) for ratio in ratios]
    return statistics.fmean(errors), max(errors)


def _table(readings: Mapping[tuple[str, str], Sequence[Ratios]]) -> Table:
    rows = []
    for (condition, method), own in readings.items():
        mean, worst = spread([ratios[IDENTICAL_CODE] for ratios in own])
        costs = [ratios[COST] for ratios in own]
        signs = (f"{_signs(own, name)}/{len(own)}" for name in SHARES)
        cost = f"{statistics.geometric_mean(costs):.3f} ({min(costs):.3f} to {max(costs):.3f})"
        rows.append((f"{method}, {condition}", f"{mean:.2%}", f"{worst:.2%}", cost, *signs))
    return table("Identical code and planted effects", ("method", "identical: mean", "worst", COST, *SHARES), rows)


def _signs(readings: Sequence[Ratios], name: str) -> int:
    return sum(ratios[name] > 1 for ratios in readings)


def _goals(readings: Mapping[tuple[str, str], Sequence[Ratios]], nulls: Sequence[Null]) -> Iterator[Goal]:
    suite = {condition: readings[condition, SUITE] for condition in (ALONE, BESIDE)}
    own_error, _ = spread([ratios[IDENTICAL_CODE] for ratios in suite[BESIDE]])
    for method, times in TIMES_BETTER.items():
        error, _ = spread([ratios[IDENTICAL_CODE] for ratios in readings[BESIDE, method]])
        what = f"identical code beside a neighbour, {method}: {error:.2%} over the suite's {own_error:.2%}"
        yield Goal(what, error / own_error if own_error else math.inf, times, at_least=True, form=".1f")
    alone, beside = (statistics.geometric_mean(ratios[COST] for ratios in own) for own in suite.values())
    yield Goal(
        f"{COST} of the suite, beside a neighbour {beside:.3f} against alone {alone:.3f}", abs(beside / alone - 1), STAYS_TRUE
    )
    for name, share in SIGNS_FOUND.items():
        both = [*suite[ALONE], *suite[BESIDE]]
        yield Goal(f"sign of {name} found, of {len(both)}", _signs(both, name) / len(both), share, at_least=True, form=".0%")
    words = Counter(null.verdict for null in nulls)
    yield Goal(f"wrong verdicts, of {len(nulls)} null comparisons", words["faster"] + words["slower"], 0, form="g")
    yield Goal(
        f"`same`, of {len(nulls)} null comparisons", words["same"] / len(nulls), SAME_OF_NULLS, at_least=True, form=".0%"
    )
