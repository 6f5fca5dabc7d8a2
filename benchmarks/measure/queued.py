"""Timing where calls are only queued: the protocol of accelerators, and the pass that reads the device's own work.

There are three clocks. Until the last call of a block is queued is the host's time, until the device is done is the wall's; both come
from the timed rounds. How long the device works is read behind a queue that is held, so that no gap between calls is counted.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from benchmarks.device import Device
from benchmarks.measure.timing import Limits, Timings, collect_if_due, running
from benchmarks.modes import Step

WASHOUT = 1
"""Caches and clocks of an accelerator are warm after a call, and a curve of single calls would show how long waiting takes."""

WARM_SECONDS, WARM_AGAIN_SECONDS = 0.5, 0.15
"""Of back-to-back blocks: a first process brings the clocks up, later ones find them up."""

HELD_BLOCKS, _HELD_SECONDS = 30, 1.0
_TRIED_IN_VAIN = 5
_SHARE_OF_A_BLOCK = 4
"""A queue holds about 1,000 launches, and a block of 5 ms may have as many."""

_LEAST_HOLD_SECONDS = 200e-6
HOST_BELOW, DEVICE_ABOVE = 0.5, 0.9
"""Shares of wall time that the device works, below and above which the host or the device alone decides how long a call takes."""


def limits_on(device: Device, limits: Limits, process: int) -> Limits:
    """The limits for a process on `device`; a CPU's are as they are."""
    if not device.accelerated:
        return limits
    warm_seconds = WARM_AGAIN_SECONDS if process else WARM_SECONDS
    return replace(
        limits, washout=WASHOUT, block_seconds=device.min_block_seconds, back_to_back=True, warm_seconds=warm_seconds
    )


def busy_seconds(steps: Mapping[str, Step], device: Device, timings: Timings) -> dict[str, float]:
    """How long the device works on a call, by arm: the median of HELD_BLOCKS, fewer of long ones, which the arms run in turn.

    An arm is missing whose calls cannot all wait in the queue, because a step waits for the device or has more launches than it holds.
    """
    calls = max(1, timings.calls // _SHARE_OF_A_BLOCK)
    read: dict[str, list[float]] = {name: [] for name in steps}
    round_seconds = sum(statistics.median(timings.seconds[name]) / timings.calls for name in steps) * (calls + 1)
    blocks = min(max(int(_HELD_SECONDS / round_seconds), _TRIED_IN_VAIN), HELD_BLOCKS)
    for number in range(blocks):
        for name, step in steps.items():
            if number < _TRIED_IN_VAIN or read[name]:
                seconds = held_block(name, step, calls, device, 2 * calls * timings.host_seconds[name])
                read[name] += [] if seconds is None else [seconds / calls]
    return {name: statistics.median(values) for name, values in read.items() if len(values) > blocks / 2}


def held_block(name: str, step: Step, calls: int, device: Device, hold_seconds: float) -> float | None:
    """What the device works on so many calls of an arm; None if it began before all were queued."""
    collect_if_due()
    with running(name):
        step()
        device.synchronise()
        device.hold(max(hold_seconds, _LEAST_HOLD_SECONDS))
        device.mark_start()
        for _ in range(calls):
            step()
        device.mark_end()
        began = device.reached_start()
        device.synchronise()
    return None if began else device.seconds_between_marks()


def bound_by(busy: float, wall: float) -> Literal["host", "device", "both"]:
    """What decides how long a call takes."""
    share = busy / wall
    return "host" if share < HOST_BELOW else "device" if share > DEVICE_ABOVE else "both"
