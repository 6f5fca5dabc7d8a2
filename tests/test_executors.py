"""Here: jobs one after the other, and no figure of a meter that known blocks have shown to be off."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import builders

from benchmarks.executors import Here
from benchmarks.failure import Failure
from benchmarks.measure.known_blocks import try_meters
from benchmarks.measure.memory import METERS
from benchmarks.models import Source
from benchmarks.plan import Job
from benchmarks.record import GroupResult, Memory, Timed
from benchmarks.workers import InProcess, Workers

JOB = Job(scenario="forward", source=Source("mlp", "tiny"), device="cpu", dtype="float32", modes=("tracked",))
OFF = {"peak_tensor_bytes": "its meter read 512 B of a known 1,024 B"}
MEMORY = Memory(peak_tensor_bytes=4096, held_tensor_bytes=1024, saved_bytes=512, peak_rss_bytes=8192)


class StandIn(InProcess):
    """Tries meters from a script."""

    def __init__(self, found: dict[str, str] | Failure) -> None:
        self.found = found
        self.tried: list[str] = []

    def run(self, task: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        assert task is try_meters
        self.tried.append(args[0])
        if isinstance(self.found, Failure):
            raise self.found
        return self.found


def measure(job: Job, workers: Workers) -> Iterator[GroupResult]:
    """What `group.measure` yields, made up."""
    case = replace(builders.case("tracked"), device=job.device, dtype=job.dtype)
    yield GroupResult(case.group, [Timed(builders.result("tracked", memory=MEMORY, device=job.device), [1e-4], 1)])


def memories(workers: StandIn, *devices: str) -> list[Memory]:
    jobs = [replace(JOB, device=device) for device in devices]
    return [timed.result.memory for group in Here(workers).results(jobs, measure) for timed in group.timed]


def test_meters_are_tried_once_for_each_device_and_where_they_are_right_figures_come_as_they_are() -> None:
    workers = StandIn({})
    assert memories(workers, "cpu", "cuda", "cpu", "cuda") == [MEMORY] * 4
    assert workers.tried == ["cpu", "cuda"]


def test_a_figure_whose_meter_is_off_is_withheld_with_the_reason() -> None:
    (memory,) = memories(StandIn(OFF), "cpu")
    assert memory.peak_tensor_bytes is None
    assert memory.unavailable == OFF
    assert memory.saved_bytes == 512


def test_where_meters_cannot_be_tried_no_figure_is_trusted_and_jobs_are_timed_all_the_same() -> None:
    (memory,) = memories(StandIn(Failure("timed_out", "it was lost")), "cpu")
    assert {getattr(memory, figure) for figure in METERS} == {None}
    assert "could not be tried: timed_out: it was lost" in memory.unavailable["saved_bytes"]


def test_an_unforeseen_error_costs_what_is_left_of_its_job_alone() -> None:
    def breaks(job: Job, workers: Workers) -> Iterator[GroupResult]:
        yield from measure(job, workers)
        if job.dtype == "bfloat16":
            raise OSError(24, "Too many open files")

    both = replace(JOB, allocators=("pages_kept", "as_shipped"), dtype="bfloat16")
    first, lost, after = Here(StandIn({})).results([both, JOB], breaks)
    assert (len(first.timed), len(after.timed)) == (1, 1)
    assert [(one.case.allocator, one.status) for one in lost.unmeasured] == [("as_shipped", "crashed")]
    assert "Too many open files" in lost.unmeasured[0].reason
