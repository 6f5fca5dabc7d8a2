"""`selfcheck trueness`: how far the suite's default measurement is from what a plain loop pays, and whether its intervals tell.

The reference and the suite take turns, repeat by repeat, so that both meet the same hour. Each repeat of each case has launches
of its own.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
from rich.table import Table

from benchmarks.group import ratio_of, time_group
from benchmarks.intervals import across, half_width, median_error, median_ratio
from benchmarks.measure.timing import Timings
from benchmarks.modes import TRACKED
from benchmarks.options import Effort
from benchmarks.plan import Job
from benchmarks.record import PAGES_KEPT, Interval
from benchmarks.selfcheck import planted
from benchmarks.selfcheck.findings import Findings, Goal, progress, table
from benchmarks.selfcheck.reference import CALLS, UNTIMED, from_launch
from benchmarks.workers import LAUNCHES, Launches

BIAS, WORST_BIAS, COVERAGE, HALF_WIDTH, WORST_HALF_WIDTH, OFF_PLANTED = 0.007, 0.02, 0.96, 0.02, 0.05, 0.005
PLANTED_ARMS = (TRACKED.name, planted.TWICE, planted.BASE, "+2 %", "+5 %")


@dataclass(frozen=True, slots=True)
class Extent:
    """How much is measured. In each repeat so many `processes` of the reference, from one launch, loop for `seconds` each."""

    repeats: int = 5
    processes: int = 4
    seconds: float = 1.5
    effort: Effort = field(default_factory=Effort)


QUICK = Extent(repeats=1, processes=2, seconds=0.02, effort=Effort(processes=2, budget=0.1))


@dataclass(frozen=True, slots=True)
class Process:
    """What one process of a launch read: a ratio, and the standard error of its logarithm by its own rounds."""

    launch: str
    ratio: float
    error: float

    @classmethod
    def of(cls, launch: str, over: Sequence[float], under: Sequence[float]) -> Process:
        return cls(launch, median_ratio(over, under), median_error(np.log(over) - np.log(under)))


@dataclass(slots=True)
class Case:
    """One speedup, of a mode of a job: read by the reference, and by the suite in each repeat."""

    name: str
    mode: str
    reference: list[Process] = field(default_factory=list)
    suite: list[Interval] = field(default_factory=list)
    processes: list[Process] = field(default_factory=list)
    """The suite's, of all repeats."""

    @property
    def truth(self) -> Interval:
        return across([process.ratio for process in self.reference])

    @property
    def mean(self) -> float:
        return statistics.geometric_mean(interval.estimate for interval in self.suite)

    @property
    def bias(self) -> float:
        return self.mean / self.truth.estimate - 1

    @property
    def held(self) -> int:
        return sum(interval.low <= self.truth.estimate <= interval.high for interval in self.suite)

    @property
    def spread(self) -> float:
        """The deviation between repeats, as a fraction; nan for a single one."""
        return float(np.std(np.log([one.estimate for one in self.suite]), ddof=1)) if len(self.suite) > 1 else math.nan


def trueness(jobs: Sequence[Job], extent: Extent, preload: Sequence[str] = ()) -> Findings:
    """Measures every job in every repeat, and arms with a planted ratio; `preload` is what the user's models import."""
    jobs = [replace(job, effort=extent.effort) for job in jobs]
    cases = {
        job: [Case(f"{job.source.model} {job.source.size}", mode) for mode in job.modes if mode != TRACKED.name] for job in jobs
    }
    planted_ratios: dict[str, list[float]] = defaultdict(list)
    steps = extent.repeats * (len(jobs) + 1)
    with progress(steps, steps * (9 + extent.processes * extent.seconds)) as begin:
        for repeat in range(extent.repeats):
            for job in jobs:
                begin(str(job))
                _read_reference(job, cases[job], extent, repeat)
                _read_suite(job, cases[job], repeat, preload)
            begin("planted ratios")
            for name, ratio in _read_planted(extent.effort).items():
                planted_ratios[name].append(ratio)
    measured = [case for own in cases.values() for case in own]
    notes = (
        f"reference: {extent.repeats * extent.processes} processes from {extent.repeats} launches",
        f"blocks of {CALLS} calls after {UNTIMED} untimed ones; fewer where a call takes more than 5 ms",
        f"suite: the mean of {extent.repeats} default measurements, each from launches of its own",
        "held: intervals of the suite with the reference in them",
        "rounds: what the noise of its rounds lets a process deviate by; processes: what they add to it (physical pages)",
        "launches: what they add to that (address-space layout; for the reference also the hour, as each repeat is a launch)",
        "repeats: the deviation of the suite's readings; what is more than processes and launches let expect is the hour's",
    )
    readings = {"cases": measured, "planted": planted_ratios}
    return Findings([_biases(measured), _scatter(measured)], notes, list(_goals(measured, planted_ratios)), readings)


def _read_reference(job: Job, cases: Sequence[Case], extent: Extent, repeat: int) -> None:
    processes = from_launch(job, extent.seconds, extent.processes, seed=repeat)
    for case in cases:
        case.reference += [Process.of(f"{repeat}", one[TRACKED.name], one[case.mode]) for one in processes]


def _read_suite(job: Job, cases: Sequence[Case], repeat: int, preload: Sequence[str]) -> None:
    with fresh_launches(job.effort, preload) as workers:
        timings = time_group(job, PAGES_KEPT, job.modes, workers)
    for case in cases:
        case.suite.append(interval_of(timings, TRACKED.name, case.mode))
        case.processes += [
            Process.of(f"{repeat} {one.launch}", one.seconds[TRACKED.name], one.seconds[case.mode]) for one in timings
        ]


def _read_planted(effort: Effort) -> dict[str, float]:
    job = replace(planted.planted_job(PLANTED_ARMS), effort=effort)
    with fresh_launches(effort) as workers:
        timings = time_group(job, PAGES_KEPT, job.modes, workers)
    known = {name: truth[:2] for name, truth in planted.TRUTHS.items() if truth[0] in PLANTED_ARMS}
    return {name: interval_of(timings, *arms).estimate for name, arms in known.items()}


def interval_of(timings: Sequence[Timings], over: str, under: str) -> Interval:
    """seconds(over) / seconds(under), of two arms that were timed."""
    interval = ratio_of(timings, under, over)
    assert interval is not None
    return interval


@contextmanager
def fresh_launches(effort: Effort, preload: Sequence[str] = ()) -> Iterator[Launches]:
    """Workers of servers that are started for this, ready before it begins so that none imports meanwhile, and ended after it."""
    with closing(Launches(effort.worker_timeout, preload)) as workers:
        workers.wait()
        yield workers


def deviations(processes: Sequence[Process]) -> tuple[float, float, float]:
    """What their rounds let processes deviate by, and what processes and launches add to it; nan where there is no telling.

    One-way random effects, groups of unequal size (Searle, Casella and McCulloch 1992, Variance components, section 3.6).
    """
    launches: dict[str, list[float]] = defaultdict(list)
    for process in processes:
        launches[process.launch].append(math.log(process.ratio))
    rounds = float(np.mean([process.error**2 for process in processes]))
    sizes = np.array([len(group) for group in launches.values()])
    n, k = int(sizes.sum()), len(launches)
    if k < 2 or n <= k:
        return math.sqrt(rounds), math.nan, math.nan
    means = np.array([np.mean(group) for group in launches.values()])
    within = sum(len(group) * float(np.var(group)) for group in launches.values()) / (n - k)
    between = float(sizes @ (means - sizes @ means / n) ** 2) / (k - 1)
    size = (n - float(sizes @ sizes) / n) / (k - 1)
    return math.sqrt(rounds), math.sqrt(max(0.0, within - rounds)), math.sqrt(max(0.0, between - within) / size)


def _biases(cases: Sequence[Case]) -> Table:
    rows = []
    for case in cases:
        truth, width = case.truth, statistics.median(map(half_width, case.suite))
        interval = f"{truth.low:.3f} to {truth.high:.3f}"
        held = f"{case.held} of {len(case.suite)}"
        figures = (f"{truth.estimate:.3f}", interval, f"{case.mean:.3f}", f"{case.bias:+.2%}", held, f"{width:.2%}")
        rows.append((f"{case.name} {case.mode}", *figures))
    columns = ("speedup of", "reference", "99 % interval", "suite", "bias", "held", "half-width")
    return table("What a plain loop pays, and what the suite reads", columns, rows)


def _scatter(cases: Sequence[Case]) -> Table:
    rows = []
    for case in cases:
        rounds, own, launches = deviations(case.processes)
        number = len(case.processes) / len(case.suite)
        expected = math.sqrt(launches**2 / LAUNCHES + (own**2 + rounds**2) / number)
        figures = (*deviations(case.reference), rounds, own, launches, case.spread, expected)
        rows.append((f"{case.name} {case.mode}", *(f"{figure:.2%}" for figure in figures)))
    columns = (
        "deviation by",
        "reference: rounds",
        "processes",
        "launches",
        "suite: rounds",
        "processes",
        "launches",
        "repeats",
        "expected",
    )
    return table("Where readings scatter", columns, rows)


def _goals(cases: Sequence[Case], planted_ratios: Mapping[str, Sequence[float]]) -> Iterator[Goal]:
    biases = [abs(case.bias) for case in cases]
    half_widths = [half_width(interval) for case in cases for interval in case.suite]
    yield Goal("distance from the reference, mean of all cases", statistics.fmean(biases), BIAS)
    yield Goal("distance from the reference, worst case", max(biases), WORST_BIAS)
    held = sum(case.held for case in cases) / len(half_widths)
    yield Goal(f"99 % intervals that hold the reference, of {len(half_widths)}", held, COVERAGE, at_least=True)
    yield Goal("half-width of an interval, median", statistics.median(half_widths), HALF_WIDTH)
    yield Goal("half-width of an interval, worst", max(half_widths), WORST_HALF_WIDTH)
    for name, ratios in planted_ratios.items():
        mean, truth = statistics.geometric_mean(ratios), planted.TRUTHS[name][2]
        yield Goal(
            f"distance from a planted {truth:g}, mean of {len(ratios)} readings {mean:.4f}", abs(mean / truth - 1), OFF_PLANTED
        )
