"""Timing with the allocator as shipped: a process per lane, driven round by round from here, so that no lane inherits another's heap."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from contextlib import ExitStack

from benchmarks.failure import Failure
from benchmarks.measure.timing import Block, Limits, RunBlock, Timings, time_blocks
from benchmarks.room import Aloud, Listen, Room, Rooms
from benchmarks.tasks import Job, drive_lane, lanes_of


def time_in_lock_step(rooms: Rooms, job: Job, modes: Sequence[str], limits: Limits, listen: Listen) -> Timings:
    """Times `modes` and their placebo together, each lane in a room of its own; one computes while the others wait.

    Only what a room itself timed counts: the messages and the call that warms its caches do not. Raises Failure naming the lane.
    """
    with ExitStack() as open_rooms:
        runs = {
            lane: _driven(lane, open_rooms.enter_context(rooms.open(drive_lane, job, mode, lanes=(mode,))))
            for lane, mode in lanes_of(modes).items()
        }
        return time_blocks(runs, time.perf_counter, limits, random.Random(0), Aloud(listen))


def _driven(lane: str, room: Room) -> RunBlock:
    def run(calls: int) -> Block:
        try:
            block: Block = room.ask(calls)
        except Failure as failure:
            raise Failure(failure.status, failure.reason, lane) from failure
        return block

    return run
