"""The arms of a group in one process and in a process each: the same blocks, one computing at a time, and who fails is named."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from stand_ins import Net, job_of, launches
from torch import nn

from benchmarks import allocator
from benchmarks.failure import Failure
from benchmarks.measure.alternating import KEPT_PAGES, PLACEBO, arms_of, core_of, serve_arm, time_apart, time_together
from benchmarks.measure.timing import Limits, Timings
from benchmarks.models import Workload
from benchmarks.options import Effort
from benchmarks.plan import Job
from benchmarks.workers import InProcess

ARMS = ("tracked", "no_grad", PLACEBO, KEPT_PAGES)
LIMITS = Limits(rounds=4, seconds=0.0, warm_seconds=0.0, longest_warm_seconds=0.0, washout=2, calls=3)


@dataclass(frozen=True)
class Recorded:
    """Where recorders come from. In `where` they note, each with its process and threads, when they are built and each call's begin and end."""

    where: Path
    fails_at: int = -1
    model: str = "recorder"
    size: str = "own"

    def workload(self, device: str, dtype: str) -> Workload:
        self.note("builds")
        return Workload.of(Recorder(self), torch.randn(2, 4))

    def note(self, event: str) -> None:
        with self.where.open("a") as file:
            file.write(f"{event} {os.getpid()} {torch.get_num_threads()}\n")

    def noted(self, *events: str) -> list[list[str]]:
        return [words for line in self.where.read_text().splitlines() if (words := line.split())[0] in events]


class Recorder(nn.Linear):
    """Fails at call `fails_at` where gradients are off."""

    def __init__(self, source: Recorded) -> None:
        super().__init__(4, 4)
        self.source, self.left = source, source.fails_at

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.left -= not torch.is_grad_enabled()
        if self.left == 0:
            raise ValueError("worn out")
        self.source.note("begins")
        output: torch.Tensor = super().forward(x)
        self.source.note("ends")
        return output


@pytest.fixture
def recorded(tmp_path: Path) -> Recorded:
    return Recorded(tmp_path / "log")


def job(source: Recorded) -> Job:
    return Job(scenario="forward", source=source, device="cpu", dtype="float32", modes=ARMS[:2])


needs_glibc = pytest.mark.skipif(allocator.unavailable() is not None, reason="pages are kept by glibc")


@needs_glibc
def test_as_shipped_arms_have_processes_of_their_own_and_compute_one_at_a_time(recorded: Recorded) -> None:
    timings = time_apart(launches(), job(recorded), ARMS[:2], LIMITS, process=0)
    assert (set(timings.seconds), {len(seconds) for seconds in timings.seconds.values()}) == (set(ARMS), {4})
    assert set(timings.page_faults) == set(timings.first_seconds) == set(ARMS)
    noted = [event for event, *_ in recorded.noted("begins", "ends")]
    assert noted == ["begins", "ends"] * (len(noted) // 2), "no two at the same time"
    processes = [process for _, process, _ in recorded.noted("begins")]
    assert len(set(processes) - {str(os.getpid())}) == 4
    blocks = [processes[start : start + 5] for start in range(len(processes) - 5 * 4 * 4, len(processes), 5)]
    assert all(len(set(block)) == 1 for block in blocks), "a washout of two calls and a block of three"
    for number in range(0, len(blocks), 4):
        assert len({block[0] for block in blocks[number : number + 4]}) == 4, "each arm once a round"


@needs_glibc
def test_an_arm_that_fails_as_shipped_is_named_and_no_process_stays_behind(recorded: Recorded) -> None:
    source = replace(recorded, fails_at=6)
    with pytest.raises(Failure, match="worn out") as caught:
        time_apart(launches(), job(source), ARMS[:2], LIMITS, process=0)
    assert (caught.value.arm, caught.value.status) == ("no_grad", "crashed")
    assert not [process for _, process, _ in source.noted("begins") if psutil.pid_exists(int(process))]


def test_with_pages_kept_all_arms_share_one_process(recorded: Recorded) -> None:
    timings = launches().run(time_together, job(recorded), ARMS[:2], LIMITS, 0, True)
    assert {name: len(seconds) for name, seconds in timings.seconds.items()} == dict.fromkeys(ARMS[:3], 4)
    assert len({process for _, process, _ in recorded.noted("begins")}) == 1
    with pytest.raises(Failure, match="worn out") as caught:
        launches().run(time_together, job(replace(recorded, fails_at=6)), ARMS[:2], LIMITS, 0, True)
    assert caught.value.arm == "no_grad"


def remembering(net: Net, x: torch.Tensor) -> Any:
    """Tracks in every mode once it was tracked some times."""
    net.calls += torch.is_grad_enabled()
    with torch.set_grad_enabled(net.calls > 2 or torch.is_grad_enabled()):
        return net.linear(x)


@pytest.mark.parametrize("process", [0, 1])
def test_an_arm_that_the_others_make_track_is_named_by_the_first_process(process: int) -> None:
    def read(*modes: str) -> Timings:
        return time_together(job_of(remembering), modes, LIMITS, process, own_process=False)

    assert set(read("no_grad", "inference_mode").seconds) == {"no_grad", "inference_mode"}
    if process:
        assert read("tracked", "no_grad").seconds
        return
    with pytest.raises(Failure, match=r"after calls in other modes the output has a history \(AddmmBackward0\)") as caught:
        read("tracked", "no_grad")
    assert (caught.value.status, caught.value.arm) == ("broken_contract", "no_grad")


def test_a_model_is_built_with_the_threads_that_it_is_timed_with(recorded: Recorded) -> None:
    """Two threads on the one core of an arm wait for each other: modernbert took 12 s instead of 0.7."""
    building = replace(job(recorded), effort=Effort(threads=3))
    launches().run(time_together, building, ARMS[:2], LIMITS, 0, True)
    with launches().serve(serve_arm, building, "tracked", "tracked", 0, None) as ask:
        ask((0, 1))
    assert [threads for *_, threads in recorded.noted("builds")] == ["3"] * 2


def test_in_this_process_cores_threads_and_gradients_are_put_back(recorded: Recorded) -> None:
    before = os.sched_getaffinity(0), torch.get_num_threads()
    with torch.no_grad():
        timings = InProcess().run(time_together, job(recorded), ARMS[:2], LIMITS, 0, False)
        assert not torch.is_grad_enabled()
    assert (os.sched_getaffinity(0), torch.get_num_threads()) == before
    assert set(timings.seconds) == set(ARMS[:3])


def test_no_arm_keeps_pages_where_they_cannot_be_kept_and_none_is_tracked_again_where_tracked_is_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(allocator, "unavailable", lambda: None)
    assert arms_of(["no_grad"], as_shipped=True) == {"no_grad": "no_grad"}
    monkeypatch.setattr(allocator, "unavailable", lambda: "no glibc")
    assert arms_of(["tracked"], as_shipped=True) == dict.fromkeys(("tracked", PLACEBO), "tracked")


def test_processes_take_turns_on_cores_where_one_thread_computes(recorded: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5})
    one = job(recorded)
    assert [core_of(one, process) for process in range(3)] == [3, 5, 3]
    assert core_of(replace(one, effort=Effort(threads=2)), 0) is None
    assert core_of(replace(one, device="cuda"), 0) is None


def addresses_of_blocks(heap: str) -> list[int]:
    allocator.shift_heap(random.Random(heap))
    return [torch.empty(size).data_ptr() for size in (1000, 5000, 20_000, 30_000)]


@needs_glibc
def test_a_heap_is_laid_out_by_its_seed_though_all_workers_are_copies_of_one_process() -> None:
    first, other, again = (launches().run(addresses_of_blocks, heap) for heap in ("0 tracked", "0 placebo", "0 tracked"))
    assert first == again != other


def test_each_process_but_the_first_has_a_heap_of_its_own(recorded: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    heaps: list[float] = []
    monkeypatch.setattr(allocator, "shift_heap", lambda seeded: heaps.append(seeded.random()))
    monkeypatch.setattr(allocator, "keep_pages", lambda: None)
    for process in (0, 1, 2, 1):
        time_together(job(recorded), ARMS[:2], LIMITS, process, own_process=True)
    first, other, again = heaps
    assert first == again != other
