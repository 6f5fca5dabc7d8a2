"""Timing with the allocator as shipped: a process per lane, driven round by round from here, so that no lane inherits another's heap."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import psutil

from benchmarks import allocator
from benchmarks.failure import Failure
from benchmarks.measure.timing import Block, Limits, RunBlock, Timings, time_blocks
from benchmarks.modes import TRACKED
from benchmarks.room import Aloud, Listen, Room, Rooms
from benchmarks.tasks import KEPT_PAGES, Job, drive_lane, lanes_of

LAYOUTS = 6
"""How many heaps each lane gets, one after the other. Blocks are given back to the kernel or kept depending on where they happen to lie:
calls of one LSTM in processes that differ in nothing else cause 0 to 2,690 page faults, and identical code reads 0.75 to 1.37. So the heap is
what has to be repeated, and rounds in one heap say little."""

FEWEST_ROUNDS = 3
BLOCK_SECONDS = 2e-3
"""Ten times what a block lasts elsewhere, for every block costs a message and a call that warms the caches."""


def time_in_lock_step(rooms: Rooms, job: Job, modes: Sequence[str], limits: Limits, layout: int, listen: Listen) -> Timings:
    """Times `modes`, their placebo and KEPT_PAGES together, each lane in a room of its own; one computes while the others wait.

    The lanes' heaps differ from one another and from those of another `layout`. With one thread the rooms share one core: a message is
    then a switch instead of waking another core up. Only what a room itself timed counts. Raises Failure naming the lane.
    """
    lanes = lanes_of(modes)
    if TRACKED.name in lanes and allocator.unavailable() is None:
        lanes[KEPT_PAGES] = TRACKED.name
    with one_core(job.threads) as core, ExitStack() as open_rooms:

        def run_of(lane: str, mode: str) -> RunBlock:
            room = rooms.open(
                drive_lane, job, mode, core=core, heap=f"{layout} {lane}", kept_pages=lane == KEPT_PAGES, lanes=(mode,)
            )
            return _driven(lane, open_rooms.enter_context(room))

        runs = {lane: run_of(lane, mode) for lane, mode in lanes.items()}
        return time_blocks(runs, time.perf_counter, limits, random.Random(layout), Aloud(listen))


def _driven(lane: str, room: Room) -> RunBlock:
    def run(calls: int) -> Block:
        try:
            return Block(*room.ask(calls))
        except Failure as failure:
            raise Failure(failure.status, failure.reason, lane) from failure

    return run


@contextmanager
def one_core(threads: int) -> Iterator[int | None]:
    """The core that this thread stays on meanwhile; None with several threads, and where a system cannot hold one (macOS)."""
    if threads > 1 or not hasattr(os, "sched_setaffinity"):
        yield None
        return
    before, core = os.sched_getaffinity(0), psutil.Process().cpu_num()
    os.sched_setaffinity(0, {core})
    try:
        yield core
    finally:
        os.sched_setaffinity(0, before)
