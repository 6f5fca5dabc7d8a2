"""The allocator as shipped: every lane has a process of its own, one computes at a time, and who fails is named."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks.allocator import shift_heap
from benchmarks.failure import Failure
from benchmarks.lockstep import one_core, time_in_lock_step
from benchmarks.measure.timing import Limits
from benchmarks.models import Workload
from benchmarks.record import Group
from benchmarks.room import CleanRooms, nobody
from benchmarks.statistics import MIN_ROUNDS
from benchmarks.tasks import Job

GROUP = Group("forward", "recorder", "own", "cpu", "float32", "default")
LIMITS = Limits(budget_seconds=0.01, timeout_seconds=60, settled=lambda _: True, calls=2)


class Recorder(nn.Linear):
    """Notes its process at the start and the end of each call, and fails at call `fails_at` where gradients are off."""

    def __init__(self, where: Path, fails_at: int) -> None:
        super().__init__(4, 4)
        self.where, self.left = where, fails_at

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.left -= not torch.is_grad_enabled()
        if self.left == 0:
            raise ValueError("worn out")
        with self.where.open("a") as file:
            file.write(f"{os.getpid()} begins\n")
            output: torch.Tensor = super().forward(x)
            file.write(f"{os.getpid()} ends\n")
        return output


class Build:
    """A workload's builder that can be sent to another process."""

    def __init__(self, where: Path, fails_at: int = -1) -> None:
        self.where, self.fails_at = where, fails_at

    def __call__(self) -> Workload:
        return Workload.of(Recorder(self.where, self.fails_at), torch.randn(2, 4))


@pytest.fixture(scope="module")
def rooms() -> CleanRooms:
    return CleanRooms(timeout_seconds=60)


def time(rooms: CleanRooms, build: Build, listen: Any = nobody) -> Any:
    return time_in_lock_step(rooms, Job(GROUP, build, threads=1), ["tracked", "no_grad"], LIMITS, 0, listen)


def test_lanes_have_processes_of_their_own_and_compute_one_at_a_time(rooms: CleanRooms, tmp_path: Path) -> None:
    timings = time(rooms, Build(tmp_path / "log"))
    assert {lane: len(seconds) for lane, seconds in timings.seconds.items()} == dict.fromkeys(
        ("tracked", "no_grad", "placebo", "kept pages"), MIN_ROUNDS
    )
    assert all(seconds > 0 for series in timings.seconds.values() for seconds in series)
    noted = [line.split() for line in (tmp_path / "log").read_text().splitlines()]
    assert [event for _, event in noted] == ["begins", "ends"] * (len(noted) // 2), "no two at the same time"
    assert len({pid for pid, _ in noted} - {str(os.getpid())}) == 4


def test_each_block_follows_one_call_that_is_not_counted(rooms: CleanRooms, tmp_path: Path) -> None:
    timings = time(rooms, Build(tmp_path / "log"))
    noted = [line.split()[0] for line in (tmp_path / "log").read_text().splitlines()]
    blocks_of_two = MIN_ROUNDS * 4
    runs = [pid for number, pid in enumerate(noted) if number == 0 or noted[number - 1] != pid]
    assert noted[-6:] == [noted[-1]] * 6, "begins and ends of one call and a block of two"
    assert timings.calls == 2
    assert len(runs) <= len(noted) / 2
    assert len(noted) / 2 >= 3 * blocks_of_two


def test_a_lane_that_fails_is_named_and_leaves_no_process_behind(rooms: CleanRooms, tmp_path: Path) -> None:
    with pytest.raises(Failure) as caught:
        time(rooms, Build(tmp_path / "log", fails_at=6))
    assert (caught.value.lane, caught.value.status) == ("no_grad", "crashed")
    assert "worn out" in caught.value.reason
    pids = {int(line.split()[0]) for line in (tmp_path / "log").read_text().splitlines()}
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists() and pid != os.getpid()]


def address_of_a_block(heap: str, *, announce: Any) -> int:
    shift_heap(random.Random(heap))
    return torch.empty(1000).data_ptr()


def test_a_heap_is_laid_out_by_its_seed_though_all_rooms_are_copies_of_one_process(rooms: CleanRooms) -> None:
    addresses = [rooms.run(address_of_a_block, heap) for heap in ("0 tracked", "0 placebo", "0 tracked")]
    assert addresses[0] == addresses[2] != addresses[1]


def test_with_one_thread_the_parent_stays_on_a_core_and_gets_the_others_back() -> None:
    before = os.sched_getaffinity(0)
    with one_core(1) as core:
        assert os.sched_getaffinity(0) == {core}
    assert os.sched_getaffinity(0) == before
    with one_core(2) as core:
        assert (core, os.sched_getaffinity(0)) == (None, before)
