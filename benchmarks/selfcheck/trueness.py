"""`selfcheck trueness`: how far the suite's default measurement is from what a plain loop pays, and whether its intervals tell.

The reference and the suite take turns, repeat by repeat, so that both meet the same hour. Each repeat of each case has launches
of its own.
"""

from __future__ import annotations

import math
import os
import random
import statistics
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from benchmarks import allocator
from benchmarks.intervals import across, half_width, median_ratio, quotient
from benchmarks.modes import TRACKED, Step
from benchmarks.options import RunOptions
from benchmarks.plan import Job, own_sources, plan
from benchmarks.record import FORWARD, PAGES_KEPT, Interval
from benchmarks.selfcheck.findings import Findings, Goal, progress, table
from benchmarks.selfcheck.planted import BASE, TRUTHS, TWICE, planted_job, read
from benchmarks.workers import Launches

BIAS, WORST_BIAS, COVERAGE, HALF_WIDTH, WORST_HALF_WIDTH, OFF_PLANTED = 0.007, 0.02, 0.96, 0.02, 0.05, 0.005
PLANTED_ARMS = (TRACKED.name, TWICE, BASE, "+2 %", "+5 %")
PLANTED = {name: arms for name, arms in TRUTHS.items() if arms[0] in PLANTED_ARMS}

CALLS, UNTIMED, LONGEST_SECONDS = 100, 20, 0.5
"""Calls of a block, after so many untimed ones; fewer where they would take longer, which is where one takes more than 5 ms."""

_FEWEST_ROUNDS = 20
"""Fewer leave a process of small models so much noise that nothing can be told from it."""


@dataclass(slots=True)
class Case:
    """One speedup, of a mode of a job: as each process of the reference read it, and the suite in each repeat."""

    name: str
    reference: list[float] = field(default_factory=list)
    suite: list[Interval] = field(default_factory=list)


def trueness(*, repeats: int = 5, processes: int = 4, seconds: float = 1.5, **chosen: Any) -> Findings:
    """Measures forward passes and arms with a planted ratio in every repeat. Raises what `own_sources` and `plan` do.

    `chosen` are fields of RunOptions. In each repeat so many `processes` of the reference, from one launch, loop for `seconds` each.
    """
    fixed: dict[str, Any] = {"scenarios": (FORWARD,), "device": ("cpu",), "allocator": (PAGES_KEPT,)}
    options = RunOptions(**{"sizes": ("tiny", "small"), **chosen, **fixed})
    effort = options.effort
    sources, preload = own_sources(options, Launches(effort.worker_timeout)) if options.own_models else ([], [])
    jobs = plan(options, sources)
    cases = {(job, mode): Case(f"{job.source.model} {job.source.size} {mode}") for job in jobs for mode in job.modes[1:]}
    planted = replace(planted_job(PLANTED_ARMS), effort=effort)
    planted_ratios: dict[str, list[float]] = defaultdict(list)
    steps = repeats * (len(jobs) + 1)
    begin = progress(steps, steps * (20.0 + 5 * processes))
    for repeat in range(repeats):
        for job in jobs:
            begin(str(job))
            with closing(Launches(effort.worker_timeout, preload)) as launches:
                looped = [launches.run(loops, job, seconds, f"{repeat} {number}") for number in range(processes)]
            for mode, interval in _read(job, {mode: (TRACKED.name, mode) for mode in job.modes[1:]}, preload).items():
                cases[job, mode].reference += [median_ratio(one[TRACKED.name], one[mode]) for one in looped]
                cases[job, mode].suite.append(interval)
        begin("planted ratios")
        for name, interval in _read(planted, PLANTED).items():
            planted_ratios[name].append(interval.estimate)
    measured = list(cases.values())
    shown, goals = _judged(measured, planted_ratios, effort.processes)
    notes = (
        f"reference: {repeats * processes} processes from {repeats} launches; suite: the mean of {repeats} default measurements",
        "held: intervals of the suite with the reference in them; spread: the suite's highest reading over its lowest",
        f"the reference scatters too: were there no bias, it would lie {_expected(measured):.2%} away in the mean",
    )
    return Findings(goals, shown, notes, {"cases": measured, "planted": planted_ratios})


def _read(job: Job, ratios: Mapping[str, Sequence[Any]], preload: Sequence[str] = ()) -> dict[str, Interval]:
    """In launches that are started for this, and ready before it begins so that none imports meanwhile."""
    with closing(Launches(job.effort.worker_timeout, preload)) as launches:
        launches.wait(job.effort.processes)
        return read(job, launches, ratios)


def loops(job: Job, seconds: float, seed: str) -> dict[str, list[float]]:
    """What a plain loop pays, without any of the suite's timing code: by mode, seconds per call of each block.

    Blocks at the same place are of the same round, in an order drawn anew. To be run in a worker: one thread, one core and pages
    kept, from here on.
    """
    order = random.Random(seed)
    allocator.keep_pages()
    allocator.shift_heap(order)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {order.choice(sorted(os.sched_getaffinity(0)))})
    torch.set_num_threads(1)
    workload = job.build()
    steps = {mode: job.step(workload, mode) for mode in job.modes}
    calls = min(CALLS, math.ceil(LONGEST_SECONDS / min(_loop(step, UNTIMED) for step in steps.values())))
    readings: dict[str, list[float]] = {mode: [] for mode in steps}
    until = time.perf_counter() + seconds
    while time.perf_counter() < until or len(readings[job.modes[0]]) < _FEWEST_ROUNDS:
        for mode in order.sample(list(steps), len(steps)):
            _loop(steps[mode], min(UNTIMED, calls))
            readings[mode].append(_loop(steps[mode], calls))
    return readings


def _loop(step: Step, calls: int) -> float:
    """Seconds per call."""
    start = time.perf_counter()
    for _ in range(calls):
        step()
    return (time.perf_counter() - start) / calls


def _expected(cases: Sequence[Case]) -> float:
    """The mean distance of an unbiased reading from the reference: sqrt(2 / pi) standard errors, were both normal."""
    errors = []
    for case in cases:
        both = case.reference, [interval.estimate for interval in case.suite]
        errors.append(
            math.hypot(*(np.std(np.log(ratios), ddof=1) / math.sqrt(len(ratios)) for ratios in both if len(ratios) > 1))
        )
    return math.sqrt(2 / math.pi) * statistics.fmean(errors)


def _judged(cases: Sequence[Case], planted_ratios: Mapping[str, Sequence[float]], rests_on: int) -> tuple[str, list[Goal]]:
    """`rests_on` are the processes of a default measurement."""
    rows: list[tuple[str, ...]] = []
    distances: list[float] = []
    held: list[bool] = []
    apart: list[bool] = []
    for case in cases:
        truth, estimates = across(case.reference), [interval.estimate for interval in case.suite]
        mean, spread = statistics.geometric_mean(estimates), max(estimates) / min(estimates) - 1
        bias, width = mean / truth.estimate - 1, statistics.median(map(half_width, case.suite))
        holding = [interval.low <= truth.estimate <= interval.high for interval in case.suite]
        over = [quotient(interval, truth, (rests_on, len(case.reference))) for interval in case.suite]
        reference = (f"{truth.estimate:.3f}", f"{truth.low:.3f} to {truth.high:.3f}")
        suite = (f"{mean:.3f}", f"{bias:+.2%}", f"{sum(holding)} of {len(holding)}", f"{width:.2%}", f"{spread:.2%}")
        rows.append((case.name, *reference, *suite))
        distances.append(abs(bias))
        held += holding
        apart += [not ratio.low <= 1 <= ratio.high for ratio in over]
    widths = [half_width(interval) for case in cases for interval in case.suite]
    told_apart = f"readings told apart from the reference, whose own interval counts too, of {len(apart)}"
    goals = [
        Goal("distance from the reference, mean of all cases", statistics.fmean(distances), BIAS),
        Goal("distance from the reference, worst case", max(distances), WORST_BIAS),
        Goal(f"99 % intervals that hold the reference, of {len(held)}", statistics.fmean(held), COVERAGE, at_least=True),
        Goal(told_apart, statistics.fmean(apart), 1 - COVERAGE),
        Goal("half-width of an interval, median", statistics.median(widths), HALF_WIDTH),
        Goal("half-width of an interval, worst", max(widths), WORST_HALF_WIDTH),
    ]
    for name, ratios in planted_ratios.items():
        mean, planted_truth = statistics.geometric_mean(ratios), TRUTHS[name][2]
        what = f"distance from a planted {planted_truth:g}, mean of {len(ratios)} readings {mean:.4f}"
        goals.append(Goal(what, abs(mean / planted_truth - 1), OFF_PLANTED))
    columns = ("speedup of", "reference", "99 % interval", "suite", "bias", "held", "half-width", "spread")
    return table("What a plain loop pays, and what the suite reads", columns, rows), goals
