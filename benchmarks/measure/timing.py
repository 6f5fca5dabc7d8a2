"""Interleaved timing: every lane runs once per round, in random order, so that a round's times are pairs.

A call includes entering and leaving the mode and dropping its output, since tearing the graph down is part of what
tracking costs. A lane may live in this process or in a room of its own. The clock, the random order and the page-fault counter are arguments, for tests on a simulated machine.
"""

from __future__ import annotations

import gc
import itertools
import math
import random
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import torch

from benchmarks.device import Device
from benchmarks.failure import Failure
from benchmarks.modes import Step
from benchmarks.statistics import MIN_ROUNDS, next_look

MIN_BLOCK_SECONDS = 200e-6
"""A lane's share of a round lasts at least this long, so that reading the clock (about 0.1 us) does not show."""

MIN_WARMUP_ROUNDS = 4
_STILL_FALLING = 0.95
"""A lane is still warming up while its fastest call of the last three is below this share of its fastest call before."""


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

    `warmup_calls` are those that a lane took to become stationary. `device_seconds` are the same as `seconds` between two events of the
    device, empty where it has none. `page_faults` are per call, the median over rounds. `elapsed_seconds` is what the rounds took.
    """

    calls: int
    warmup_calls: dict[str, int]
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
    """When rounds stop: `settled(seconds by lane)` says that they suffice, None that the budget is to be used up.

    `budget_seconds` is what their blocks may take together. A block lasts at least `block_seconds`, unless `calls` fixes its calls. Rounds
    do not stop before `min_rounds`, nor, if they may at all, before `settling_seconds`, however calm the first ones look: a shorter stretch
    shows nothing of how the machine drifts. They do stop at `timeout_seconds`, counted from the first warm-up call.
    """

    budget_seconds: float
    timeout_seconds: float
    settled: Callable[[Mapping[str, list[float]]], bool] | None
    calls: int | None = None
    min_rounds: int = MIN_ROUNDS
    block_seconds: float = MIN_BLOCK_SECONDS

    @property
    def settling_seconds(self) -> float:
        return self.budget_seconds / 4

    @property
    def warmup_cap_seconds(self) -> float:
        return min(self.budget_seconds, self.timeout_seconds) / 4


@dataclass(slots=True)
class _Series:
    seconds: list[float] = field(default_factory=list)
    device_seconds: list[float] = field(default_factory=list)
    faults: list[int] = field(default_factory=list)

    def add(self, block: Block) -> None:
        self.seconds.append(block.seconds)
        self.faults.append(block.faults)
        if block.device_seconds is not None:
            self.device_seconds.append(block.device_seconds)


RunBlock = Callable[[int], Block]
"""Runs a lane's step so many times and tells what it took, here or in a room of its own."""


def time_lanes(
    lanes: Mapping[str, Step], stopwatch: Stopwatch, limits: Limits, order: random.Random, announce: Announce
) -> Timings:
    """Times steps in this process, interleaved. Raises as `time_blocks` does, and a Failure naming the lane if a lane raises."""
    runs = {name: partial(run_block, stopwatch, name, step) for name, step in lanes.items()}
    with garbage_collector_off():
        return time_blocks(runs, stopwatch.clock, limits, order, announce)


def time_blocks(
    runs: Mapping[str, RunBlock], clock: Callable[[], float], limits: Limits, order: random.Random, announce: Announce
) -> Timings:
    """Warms every lane up, then runs rounds until `limits` says stop.

    Raises Failure `timed_out` if the fewest rounds do not fit into the timeout.
    """
    names = list(runs)
    begin = clock()
    warmup_calls, fastest = warm_up(runs, clock, limits.warmup_cap_seconds, announce)
    calls = limits.calls or (max(1, math.ceil(limits.block_seconds / fastest)) if fastest > 0 else 1)
    series = {name: _Series() for name in names}
    start = clock()
    rounds, in_blocks, look = 0, 0.0, limits.min_rounds
    while True:
        order.shuffle(names)
        for name in names:
            announce.lane(name)
            block = runs[name](calls)
            series[name].add(block)
            in_blocks += block.seconds
        rounds += 1
        late = clock() - begin > limits.timeout_seconds
        if rounds < limits.min_rounds:
            if late:
                reason = f"{rounds} rounds in {clock() - begin:.0f} s, and {limits.min_rounds} are needed; give --timeout more"
                raise Failure("timed_out", reason)
            continue
        if late or in_blocks >= limits.budget_seconds:
            break
        if rounds >= look:
            announce.rounds(rounds, in_blocks)
            seconds = {name: one.seconds for name, one in series.items()}
            if limits.settled and in_blocks >= limits.settling_seconds and limits.settled(seconds):
                break
            look = next_look(rounds)
    return Timings(
        calls=calls,
        warmup_calls=warmup_calls,
        elapsed_seconds=clock() - start,
        seconds={name: series[name].seconds for name in runs},
        device_seconds={name: series[name].device_seconds for name in runs if series[name].device_seconds},
        page_faults={name: statistics.median(series[name].faults) / calls for name in runs},
    )


def warm_up(
    runs: Mapping[str, RunBlock], clock: Callable[[], float], cap_seconds: float, announce: Announce
) -> tuple[dict[str, int], float]:
    """Runs rounds of single calls until no lane gets faster any more, for at least a fifth of the cap and four rounds.

    The fifth is for starts that are slow and flat. Once the cap is reached it ends after the fourth round whatever the lanes do. Returns
    how many calls each lane took to become stationary, and the seconds of the fastest call of all.
    """
    starts = {name: _Start() for name in runs}
    begin = clock()
    for rounds in itertools.count(1):
        for name, run in runs.items():
            announce.lane(name)
            starts[name].add(run(1).seconds)
        elapsed = clock() - begin
        warm = elapsed >= cap_seconds / 5 and all(start.stationary_from is not None for start in starts.values())
        if rounds >= MIN_WARMUP_ROUNDS and (warm or elapsed > cap_seconds):
            break
    calls = {name: start.stationary_from or rounds for name, start in starts.items()}
    return calls, min(start.fastest for start in starts.values())


class _Start:
    """The first calls of a lane. `stationary_from` counts the calls after which it got no faster, None while it still does."""

    def __init__(self) -> None:
        self._recent: deque[float] = deque(maxlen=MIN_WARMUP_ROUNDS - 1)
        self._fastest_before = math.inf
        self._calls = 0
        self.stationary_from: int | None = None

    @property
    def fastest(self) -> float:
        return min(self._fastest_before, *self._recent)

    def add(self, seconds: float) -> None:
        if len(self._recent) == self._recent.maxlen:
            self._fastest_before = min(self._fastest_before, self._recent[0])
        self._recent.append(seconds)
        self._calls += 1
        if min(self._recent) < _STILL_FALLING * self._fastest_before:
            self.stationary_from = None
        elif self.stationary_from is None:
            self.stationary_from = self._calls


def run_block(stopwatch: Stopwatch, name: str, step: Step, calls: int) -> Block:
    """Raises Failure naming the lane if the step raises or leaves gradients off."""
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
