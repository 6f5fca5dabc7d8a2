"""Where jobs are measured. An executor has one method; it yields a group at a time, in whatever order groups are done."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Protocol

from benchmarks.failure import Failure
from benchmarks.group import measure
from benchmarks.measure.known_blocks import try_meters
from benchmarks.measure.memory import METERS, withheld
from benchmarks.plan import Job
from benchmarks.record import GroupResult
from benchmarks.workers import Workers

Measure = Callable[[Job, Workers], Iterator[GroupResult]]
"""What is done with a job: group.measure, or group.check, which times nothing."""


class Executor(Protocol):
    def results(self, jobs: Iterable[Job], measure: Measure = measure) -> Iterator[GroupResult]: ...


class Here:
    """This machine, one job after the other. Its memory meters are tried on known blocks before the first job of each device; figures whose
    meter is off are withheld from what it yields."""

    def __init__(self, workers: Workers) -> None:
        self.workers = workers
        self._reasons: dict[str, dict[str, str]] = {}

    def results(self, jobs: Iterable[Job], measure: Measure = measure) -> Iterator[GroupResult]:
        for job in jobs:
            if job.device not in self._reasons:
                self._reasons[job.device] = self._try_meters(job)
            for group in self._contained(job, measure):
                yield _without(group, self._reasons[job.device])

    def _contained(self, job: Job, measure: Measure) -> Iterator[GroupResult]:
        """What becomes of the job; an error that no measurement has foreseen costs what is left of it, and not the jobs behind it."""
        left = list(job.allocators)
        try:
            for result in measure(job, self.workers):
                left.remove(result.group.allocator)
                yield result
        except Exception as error:  # noqa: BLE001 - a run of hours goes on
            failure = Failure.of(error)
            for name in left:
                yield job.failed(name, failure)

    def _try_meters(self, job: Job) -> dict[str, str]:
        """The figures not to be trusted on the job's device, each with the reason."""
        try:
            return self.workers.run(try_meters, job.device, job.effort.threads, self.workers.fresh)
        except Failure as failure:
            return dict.fromkeys(METERS, f"its meter could not be tried: {failure}")


def _without(group: GroupResult, reasons: dict[str, str]) -> GroupResult:
    timed = [replace(one, result=replace(one.result, memory=withheld(one.result.memory, reasons))) for one in group.timed]
    return replace(group, timed=timed)
