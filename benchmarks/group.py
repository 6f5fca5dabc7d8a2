"""From a job to its results: every mode is examined once, then all are timed together, once per allocator."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from benchmarks import allocator
from benchmarks.device import accelerated
from benchmarks.failure import Failure
from benchmarks.intervals import MARGIN, MIN_ROUNDS, combined_ratio, disproved, half_width, median_ratio, resolution, verdict
from benchmarks.measure.alternating import KEPT_PAGES, PLACEBO, time_apart, time_together
from benchmarks.measure.examine import Examination, examine, examine_together
from benchmarks.measure.queued import bound_by
from benchmarks.measure.timing import Limits, Timings
from benchmarks.modes import NO_GRAD, TRACKED
from benchmarks.plan import Job
from benchmarks.record import (
    AS_SHIPPED,
    PAGE_FAULT_SECONDS,
    PAGES_KEPT,
    Broken,
    Case,
    Group,
    GroupResult,
    Interval,
    ProcessReading,
    Result,
    Timed,
    Unmeasured,
)
from benchmarks.scenarios import SCENARIOS
from benchmarks.workers import LAUNCHES, Workers

FAULTS = 0.5
"""Fewer page faults per call are what the kernel does now and then."""

_SHARE_AS_SHIPPED = 0.5
"""Of the time with pages kept: heaps differ by so much that more rounds in one tell little."""

_NOTHING_TRACKED = "there is nothing to switch off: no parameter requires grad, or the model switches tracking off itself, so tracked is no_grad here"

_MOST_PROCESSES = 1.5
"""Up to so many times the processes asked for, while intervals are wide and the budget lasts."""


@dataclass(slots=True)
class _Modes:
    """What is known of a job's modes: what each was found to do, and why some may not be timed."""

    examined: dict[str, Examination] = field(default_factory=dict)
    failures: dict[str, Failure] = field(default_factory=dict)

    @property
    def sound(self) -> list[str]:
        return [mode for mode in self.examined if mode not in self.failures]

    def broken(self, mode: str) -> list[Broken]:
        return self.examined[mode].contract.broken if mode in self.examined else []

    def unmeasured(self, group: Group) -> list[Unmeasured]:
        """Tracked is listed even where it was not asked for: it is why the others have no speedup."""
        return [
            Unmeasured(group.case(mode), failure.status, failure.reason, [one.promise for one in self.broken(mode)])
            for mode, failure in self.failures.items()
        ]


def measure(job: Job, workers: Workers) -> Iterator[GroupResult]:
    """Examines each mode in a worker of its own, then times those that hold their contract together, once per allocator.

    A mode that fails is left out and reported as Unmeasured; the others go on, without a speedup if tracked is what failed. Where no mode's
    page faults as shipped can make up what a verdict tells apart, both allocators are one figure, measured with pages kept if that was asked for.
    """
    modes = examine_modes(job, workers)
    one_figure = {PAGES_KEPT, AS_SHIPPED} <= set(job.allocators) and not any(
        _faults_tell(modes.examined[mode]) for mode in modes.sound
    )
    for name in job.allocators:
        if name == AS_SHIPPED and one_figure:
            yield GroupResult(job.group(name))
        else:
            yield _measure_group(job, name, modes, workers, also_as_shipped=one_figure)


def _faults_tell(found: Examination) -> bool:
    shipped = found.as_shipped
    return shipped is not None and shipped.page_faults >= max(FAULTS, MARGIN * shipped.seconds / PAGE_FAULT_SECONDS)


def check(job: Job, workers: Workers) -> Iterator[GroupResult]:
    """Runs each mode and checks its contract; times nothing and measures nothing."""
    modes = examine_modes(job, workers, calls_only=True)
    for name in job.allocators:
        yield GroupResult(job.group(name), unmeasured=modes.unmeasured(job.group(name)))


def examine_modes(job: Job, workers: Workers, *, calls_only: bool = False) -> _Modes:
    """Tracked comes first, asked for or not: it is what the others are compared with.

    On an accelerator one worker examines all of them, since opening it takes a second; those that it does not come to get one each.
    """
    modes = _Modes()
    chosen = list(dict.fromkeys((TRACKED.name, *job.modes)))
    together: dict[str, Examination] = {}
    if workers.fresh and accelerated(job.device):
        with suppress(Failure):
            together = workers.run(examine_together, job, chosen, calls_only)
    for mode in chosen:
        with_tracked = TRACKED.name not in modes.failures
        try:
            modes.examined[mode] = together.get(mode) or workers.run(
                examine, job, mode, with_tracked, workers.fresh, calls_only
            )
        except Failure as failure:
            modes.failures[mode] = failure
        if broken := modes.broken(mode):
            untracked = mode == TRACKED.name and {one.promise for one in broken} <= {"history", "records"}
            reason = "; ".join(one.reason for one in broken)
            modes.failures[mode] = Failure("unsupported", _NOTHING_TRACKED) if untracked else Failure("broken_contract", reason)
    return modes


def _measure_group(job: Job, allocator_: str, modes: _Modes, workers: Workers, *, also_as_shipped: bool) -> GroupResult:
    group = job.group(allocator_)
    why = allocator.unavailable() if job.device == "cpu" and allocator_ == PAGES_KEPT else None
    if why is not None:
        return job.failed(allocator_, Failure("unsupported", why))
    modes = replace(modes, failures=dict(modes.failures))
    timings: list[Timings] = []
    discarded: list[Interval] = []
    while not timings and any(mode in job.modes for mode in modes.sound):
        arms = modes.sound
        try:
            timings, discarded = _time_until_trusted(job, allocator_, arms, workers)
        except Failure as failure:
            lost = TRACKED.name if failure.arm in (PLACEBO, KEPT_PAGES) else failure.arm
            modes.failures |= dict.fromkeys([lost] if lost in arms else arms, failure)
    timed = [
        Timed(
            replace(
                _result(group.case(mode), modes.examined[mode], timings),
                discarded_placebos=discarded,
                steps=SCENARIOS[job.scenario].steps,
                also_as_shipped=also_as_shipped,
            ),
            [seconds for process in timings for seconds in process.seconds[mode]],
            timings[0].calls,
        )
        for mode in job.modes
        if timings and mode in timings[0].seconds
    ]
    return GroupResult(group, timed, modes.unmeasured(group))


def _time_until_trusted(
    job: Job, allocator_: str, modes: Sequence[str], workers: Workers
) -> tuple[list[Timings], list[Interval]]:
    """Times again, `effort.retries` times at most, while the placebo is shown not to be 1; returns the placebos of what was discarded too."""
    discarded: list[Interval] = []
    while True:
        timings = time_group(job, allocator_, modes, workers)
        placebo = ratio_of(timings, PLACEBO)
        if placebo is None or not disproved(placebo) or len(discarded) == job.effort.retries:
            return timings, discarded
        discarded.append(placebo)


def time_group(job: Job, allocator_: str, modes: Sequence[str], workers: Workers) -> list[Timings]:
    """Processes one after the other, from launches in turn; all with the washout and the calls per block that the first one found."""
    effort, share = job.effort, SCENARIOS[job.scenario].budget_share
    part = _SHARE_AS_SHIPPED if allocator_ == AS_SHIPPED else 1.0
    budget = effort.budget * share * part
    short, usual = min(1.0, 4 * share) * part, Limits()
    limits = replace(
        usual,
        rounds=round(usual.rounds * short),
        seconds=usual.seconds * short,
        longest_seconds=budget / effort.processes,
        fewest_rounds=usual.fewest_rounds if effort.processes > 1 else MIN_ROUNDS,
        survey_seconds=usual.survey_seconds * short,
        timeout_seconds=effort.worker_timeout * 0.9,
    )
    timings: list[Timings] = []
    while _more_needed(timings, effort.processes, effort.precision, budget):
        number = len(timings)
        if timings:
            limits = replace(limits, washout=timings[0].washout, calls=timings[0].calls)
        if allocator_ == AS_SHIPPED:
            read = time_apart(workers, job, modes, limits, number)
        else:
            read = workers.run(time_together, job, modes, limits, number, workers.fresh, launch=number)
        timings.append(replace(read, launch=number % LAUNCHES))
    return timings


def _more_needed(timings: Sequence[Timings], processes: int, precision: float, budget: float) -> bool:
    """At least `processes`; then more where intervals are wide, while the budget lasts. Two processes tell too little of their spread to go on."""
    if len(timings) < processes:
        return True
    if processes < 3 or len(timings) >= _MOST_PROCESSES * processes:
        return False
    if sum(one.elapsed_seconds for one in timings) >= budget:
        return False
    arms = [name for name in timings[0].seconds if name != TRACKED.name]
    return any(half_width(ratio) > precision for name in arms if (ratio := ratio_of(timings, name)) is not None)


def ratio_of(timings: Sequence[Timings], arm: str, base: str = TRACKED.name) -> Interval | None:
    """seconds(base) / seconds(arm): across processes, from the rounds of each; None where either was not timed."""
    if not {base, arm} <= timings[0].seconds.keys():
        return None
    return combined_ratio([(one.seconds[base], one.seconds[arm]) for one in timings])


def _result(case: Case, examined: Examination, timings: Sequence[Timings]) -> Result:
    mode, placebo = case.mode, ratio_of(timings, PLACEBO)
    reach = None if placebo is None else resolution(placebo)
    baseline = mode == TRACKED.name
    speedup = Interval(1.0, 1.0, 1.0) if baseline else ratio_of(timings, mode)
    assert examined.memory is not None
    processes = [_reading(mode, one) for one in timings]
    first = [one.first_seconds[mode] for one in timings if mode in one.first_seconds]
    return Result(
        case=case,
        seconds=statistics.geometric_mean(one.seconds for one in processes),
        speedup=speedup,
        verdict="baseline" if baseline else "unclear" if speedup is None else verdict(speedup, reach or 0.0),
        placebo=placebo,
        trusted=placebo is not None and not disproved(placebo),
        resolution=reach,
        washout_calls=timings[0].washout,
        after_switch_seconds=statistics.geometric_mean(first) if first else None,
        page_faults=statistics.fmean(one.page_faults[mode] for one in timings),
        memory=examined.memory,
        contract=examined.contract,
        kernels=examined.kernels,
        model=examined.model,
        processes=processes,
        over_no_grad=ratio_of(timings, mode, NO_GRAD.name) if mode not in (TRACKED.name, NO_GRAD.name) else None,
        kept_pages=ratio_of(timings, KEPT_PAGES),
        compile_seconds=examined.compile_seconds,
        recompilations=sum(again) if (again := [n for one in timings if (n := one.recompilations) is not None]) else None,
        **_of_accelerators(mode, timings),
    )


def _of_accelerators(mode: str, timings: Sequence[Timings]) -> dict[str, Any]:
    """The fields of a result that timings on accelerators fill; the device's own work is read in the first process."""
    host = [one.host_seconds[mode] for one in timings if mode in one.host_seconds]
    busy, first = timings[0].busy_seconds.get(mode), statistics.median(timings[0].seconds[mode]) / timings[0].calls
    return {
        "host_seconds": statistics.geometric_mean(host) if host else None,
        "busy_seconds": busy,
        "bound_by": None if busy is None else bound_by(busy, first),
        "driver_allocations": statistics.fmean(one.driver_allocations[mode] for one in timings) if host else None,
    }


def _reading(mode: str, timings: Timings) -> ProcessReading:
    tracked, blocks, placebo = (timings.seconds.get(arm, []) for arm in (TRACKED.name, mode, PLACEBO))
    return ProcessReading(
        launch=timings.launch,
        rounds=len(blocks),
        seconds=statistics.median(blocks) / timings.calls,
        speedup=median_ratio(tracked, blocks) if tracked else None,
        placebo=median_ratio(tracked, placebo) if tracked else None,
        page_faults=timings.page_faults[mode],
    )
