"""Interleaved timing: every lane runs once per round, in random order, so that a round's times are pairs.

A call includes entering and leaving the mode and dropping its output, since tearing the graph down is part of what
tracking costs. The clock, the random order and the page-fault counter are arguments, for tests on a simulated machine.
"""

from __future__ import annotations

import gc
import math
import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

import torch

from benchmarks.device import Device
from benchmarks.failure import Failure
from benchmarks.modes import Step
from benchmarks.statistics import MIN_ROUNDS, next_look

MIN_BLOCK_SECONDS = 200e-6
"""A lane's share of a round lasts at least this long, so that reading the clock (about 0.1 us) does not show."""

_MIN_WARMUP_ROUNDS, _MAX_WARMUP_ROUNDS = 4, 50
_STILL_FALLING = 0.95
"""A lane is still warming up while its fastest call of the last rounds is below this share of its fastest call before."""


def minor_page_faults() -> int:
    """Page faults of this process so far that needed no disk; 0 where the system does not count them."""
    try:
        import resource  # not on Windows
    except ImportError:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


class Announce(Protocol):
    """Told which lane runs now (before every block), and how far the rounds are (at growing gaps)."""

    def lane(self, name: str) -> None: ...

    def rounds(self, done: int, elapsed_seconds: float) -> None: ...


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds by lane, one value a round, in order, each for a block of `calls` calls.

    `device_seconds` are the same between two events of the device, empty where it has none. `page_faults` are per call, the
    median over rounds. `elapsed_seconds` is what the rounds took together.
    """

    calls: int
    warmup_rounds: int
    elapsed_seconds: float
    seconds: dict[str, list[float]]
    device_seconds: dict[str, list[float]]
    page_faults: dict[str, float]


@dataclass(slots=True)
class Stopwatch:
    """Times blocks of calls on a device."""

    device: Device
    clock: Callable[[], float] = time.perf_counter
    faults: Callable[[], int] = minor_page_faults

    def block(self, step: Step, calls: int) -> Block:
        device, clock = self.device, self.clock
        repeats = range(calls)
        faults = self.faults()
        device.synchronise()
        start_mark = device.mark()
        start = clock()
        for _ in repeats:
            step()
        end_mark = device.mark()
        device.synchronise()
        seconds = clock() - start
        return Block(seconds, device.seconds_between(start_mark, end_mark), self.faults() - faults)


@dataclass(frozen=True, slots=True)
class Block:
    """Totals over the calls of one lane in one round."""

    seconds: float
    device_seconds: float | None
    faults: int


@dataclass(frozen=True, slots=True)
class Limits:
    """When rounds stop: `settled(seconds by lane)` says that they suffice; `budget_seconds` is what they may take.

    Rounds do not stop before MIN_ROUNDS, nor before `settling_seconds`, however calm the first ones look: a shorter
    stretch shows nothing of how the machine drifts. They do stop at `timeout_seconds`, counted from the first warm-up call.
    """

    budget_seconds: float
    timeout_seconds: float
    settled: Callable[[Mapping[str, list[float]]], bool]

    @property
    def settling_seconds(self) -> float:
        return self.budget_seconds / 4


@dataclass(slots=True)
class _Series:
    seconds: list[float] = field(default_factory=list)
    device_seconds: list[float] = field(default_factory=list)
    faults: list[int] = field(default_factory=list)


def time_lanes(
    lanes: Mapping[str, Step], stopwatch: Stopwatch, limits: Limits, order: random.Random, announce: Announce
) -> Timings:
    """Warms every lane up, then runs rounds until `limits` says stop.

    Raises Failure `timed_out` if MIN_ROUNDS do not fit into the timeout, and a Failure naming the lane if a lane raises.
    """
    names = list(lanes)
    clock = stopwatch.clock
    begin = clock()
    with garbage_collector_off():
        warmup_rounds, calls = warm_up(lanes, stopwatch, limits.budget_seconds / 4, announce)
        series = {name: _Series() for name in names}
        start = clock()
        rounds, look = 0, MIN_ROUNDS
        while True:
            order.shuffle(names)
            for name in names:
                block = _block(stopwatch, name, lanes[name], calls, announce)
                one = series[name]
                one.seconds.append(block.seconds)
                if block.device_seconds is not None:
                    one.device_seconds.append(block.device_seconds)
                one.faults.append(block.faults)
            rounds += 1
            elapsed = clock() - start
            late = clock() - begin > limits.timeout_seconds
            if rounds < MIN_ROUNDS:
                if late:
                    reason = f"{rounds} rounds in {clock() - begin:.0f} s, and {MIN_ROUNDS} are needed; give --timeout more"
                    raise Failure("timed_out", reason)
                continue
            if late or elapsed >= limits.budget_seconds:
                break
            if rounds >= look:
                announce.rounds(rounds, elapsed)
                seconds = {name: one.seconds for name, one in series.items()}
                if elapsed >= limits.settling_seconds and limits.settled(seconds):
                    break
                look = next_look(rounds)
    return Timings(
        calls=calls,
        warmup_rounds=warmup_rounds,
        elapsed_seconds=elapsed,
        seconds={name: series[name].seconds for name in lanes},
        device_seconds={name: series[name].device_seconds for name in lanes if series[name].device_seconds},
        page_faults={name: statistics.median(series[name].faults) / calls for name in lanes},
    )


def warm_up(lanes: Mapping[str, Step], stopwatch: Stopwatch, cap_seconds: float, announce: Announce) -> tuple[int, int]:
    """Runs rounds of single calls until no lane gets faster any more, or the cap is reached after the fewest rounds.

    Returns how many rounds it took, and the calls that a block needs to last MIN_BLOCK_SECONDS in every lane.
    """
    seconds: dict[str, list[float]] = {name: [] for name in lanes}
    start = stopwatch.clock()
    rounds = 0
    while rounds < _MAX_WARMUP_ROUNDS:
        for name, step in lanes.items():
            seconds[name].append(_block(stopwatch, name, step, 1, announce).seconds)
        rounds += 1
        if rounds < _MIN_WARMUP_ROUNDS:
            continue
        if stopwatch.clock() - start > cap_seconds or not any(_still_falling(series) for series in seconds.values()):
            break
    fastest = min(min(series) for series in seconds.values())
    return rounds, max(1, math.ceil(MIN_BLOCK_SECONDS / fastest)) if fastest > 0 else 1


def _still_falling(seconds: list[float]) -> bool:
    return min(seconds[-3:]) < _STILL_FALLING * min(seconds[:-3])


def _block(stopwatch: Stopwatch, name: str, step: Step, calls: int, announce: Announce) -> Block:
    announce.lane(name)
    try:
        block = stopwatch.block(step, calls)
    except Exception as error:
        raise Failure.of(error, lane=name) from error
    if not torch.is_grad_enabled():  # the lanes after it would silently be untracked
        raise Failure("broken_contract", "gradients were left off after the call", name)
    return block


@contextmanager
def garbage_collector_off() -> Iterator[None]:
    """Collects once, then keeps the collector off inside."""
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
