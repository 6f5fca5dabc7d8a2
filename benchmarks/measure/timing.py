"""Interleaved timing: every arm runs one block per round, in random order, so that a round's times are pairs.

A call pays for what ran before it: the first after another arm's is 20 to 45 % slower, whatever its mode, and it takes one to eight calls of a
small model to fade. So a block begins with untimed calls, the washout, whose number is found from the ratios themselves. A call includes
entering and leaving the mode and dropping its output, because tearing the graph down is part of what tracking costs.
"""

from __future__ import annotations

import gc
import math
import random
import resource
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.device import Device
from benchmarks.failure import Failure
from benchmarks.intervals import median_error
from benchmarks.modes import Step
from benchmarks.workers import note_arm

Clock = Callable[[], float]

PLATEAU = 0.003
"""A washout suffices where ratios are within 0.3 % of those after a long one."""

WASHOUTS = (0, 1, 2, 4, 8, 16)
LONGEST_WASHOUT_SECONDS = 2.5e-3
"""Caches and predictors fill within this time; more calls than fit into it are not tried."""

OUTLASTING_CALL_SECONDS = 5e-3
"""A call that lasts so long outlasts any carry-over, and gets no washout."""

LEAST_WASHOUT_SECONDS = 1.5e-3
"""Small models are given so much whatever is found: what is left after a few calls is below the noise of looking, and not below 1 %."""

_FEWEST_SURVEY_ROUNDS = 10
_SLOWEST_FADING = 0.9
_WARM_ROUNDS, _STILL_FALLING = 4, 0.95
"""An arm still gets faster while the fastest of its last three calls takes less than this share of the fastest before."""

_MANY_OBJECTS = 700
"""So many new objects that only a collection frees make one due: CPython's own threshold of the first generation."""


@dataclass(frozen=True, slots=True)
class Block:
    """What one arm took in one round: the first call after another arm's (None where it was one of several timed), the timed calls together,
    their faults. On accelerators also until the last of the calls was queued, and how often the device's allocator went to the driver.
    """

    first_seconds: float | None
    seconds: float
    faults: int = 0
    host_seconds: float | None = None
    driver_allocations: int = 0


RunBlock = Callable[[int, int], Block]
"""`run(washout, calls)` runs so many untimed calls of an arm and then times so many, here or in a worker."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How long rounds go on in one process: for `rounds` of them and `seconds` at least, unless they take `longest_seconds`; but for
    `fewest_rounds` in any case. A block's timed part lasts at least `block_seconds` and as many calls as its washout. `washout` and `calls`
    fix what an earlier process has found. `back_to_back` warms up with whole blocks, because an accelerator rests between single calls.
    Raises Failure `timed_out` after `timeout_seconds`."""

    rounds: int = 30
    seconds: float = 0.3
    longest_seconds: float = 1.5
    fewest_rounds: int = 3
    block_seconds: float = 200e-6
    survey_seconds: float = 0.6
    warm_seconds: float = 0.05
    longest_warm_seconds: float = 0.5
    timeout_seconds: float = 300.0
    washout: int | None = None
    calls: int | None = None
    back_to_back: bool = False


@dataclass(frozen=True, slots=True)
class Timings:
    """What one process read: by arm, seconds of blocks of `calls` calls, one value a round, in order.

    `first_seconds` are medians of the first call after another arm's, `page_faults` are per call. `launch` tells which launch the process came from,
    `elapsed_seconds` is what the rounds took, their washout included. Of arms on accelerators there are, per call, `host_seconds` and
    `driver_allocations`, and `busy_seconds` where all of a block could be queued ahead (measure/queued.py). `recompilations` are those of
    all arms of a compiled model after each one's first call.
    """

    calls: int
    washout: int
    seconds: dict[str, list[float]]
    first_seconds: dict[str, float] = field(default_factory=dict)
    page_faults: dict[str, float] = field(default_factory=dict)
    elapsed_seconds: float = 0.0
    launch: int = 0
    host_seconds: dict[str, float] = field(default_factory=dict)
    driver_allocations: dict[str, float] = field(default_factory=dict)
    busy_seconds: dict[str, float] = field(default_factory=dict)
    recompilations: int | None = None


def time_arms(arms: Mapping[str, RunBlock], limits: Limits, order: random.Random, clock: Clock = time.perf_counter) -> Timings:
    """Warms every arm up, finds the washout and the calls of a block unless `limits` has them, then runs rounds.

    Raises Failure `timed_out` if the fewest rounds do not fit into the timeout.
    """
    rounds = _Rounds(arms, order)
    rounds.run(0, 1)  # models are built, kernels chosen, caches filled: no clock runs before that
    begin = clock()
    call_seconds = (warm_up_back_to_back if limits.back_to_back else warm_up)(rounds, limits, clock)
    washout = limits.washout
    if washout is None:
        washout = find_washout(rounds, call_seconds, limits, clock)
    calls = limits.calls or max(1, washout, math.ceil(limits.block_seconds / call_seconds))
    blocks: list[dict[str, Block]] = []
    start = clock()
    while True:
        blocks.append(rounds.run(washout, calls))
        elapsed = clock() - start
        late = clock() - begin > limits.timeout_seconds
        enough = len(blocks) >= limits.rounds and elapsed >= limits.seconds
        if len(blocks) >= limits.fewest_rounds and (late or enough or elapsed >= limits.longest_seconds):
            break
        if late:
            reason = f"{len(blocks)} rounds in {clock() - begin:.0f} s, and {limits.fewest_rounds} are needed; give --worker-timeout more"
            raise Failure("timed_out", reason)
    by_arm = {name: [round_[name] for round_ in blocks] for name in arms}
    return Timings(
        calls=calls,
        washout=washout,
        seconds={name: [block.seconds for block in own] for name, own in by_arm.items()},
        first_seconds=_medians(by_arm, "first_seconds", 1),
        page_faults=_medians(by_arm, "faults", calls),
        elapsed_seconds=clock() - start,
        host_seconds=_medians(by_arm, "host_seconds", calls),
        driver_allocations={
            name: statistics.fmean(block.driver_allocations for block in own) / calls for name, own in by_arm.items()
        },
    )


def _medians(by_arm: Mapping[str, Sequence[Block]], figure: str, calls: int) -> dict[str, float]:
    """Of each arm whose blocks tell the figure, per call."""
    told = {name: [value for block in own if (value := getattr(block, figure)) is not None] for name, own in by_arm.items()}
    return {name: statistics.median(values) / calls for name, values in told.items() if values}


class _Rounds:
    """Runs each arm once, in an order drawn anew each time."""

    def __init__(self, arms: Mapping[str, RunBlock], order: random.Random) -> None:
        self._arms, self._order, self._names = arms, order, list(arms)

    def run(self, washout: int, calls: int) -> dict[str, Block]:
        self._order.shuffle(self._names)
        return {name: self._arms[name](washout, calls) for name in self._names}


def warm_up(rounds: _Rounds, limits: Limits, clock: Clock) -> float:
    """Runs rounds of single calls until no arm gets faster any more; returns the seconds of the fastest call of all.

    At least four rounds and `warm_seconds`, because some starts are slow and flat; after four rounds at most `longest_warm_seconds`.
    """
    history: dict[str, list[float]] = {}
    begin = clock()
    while True:
        for name, block in rounds.run(0, 1).items():
            history.setdefault(name, []).append(block.seconds)
        number, elapsed = len(next(iter(history.values()))), clock() - begin
        if number < _WARM_ROUNDS:
            continue
        falling = any(min(seconds[-3:]) < _STILL_FALLING * min(seconds[:-3]) for seconds in history.values())
        if elapsed >= (limits.longest_warm_seconds if falling else limits.warm_seconds):
            return min(min(seconds) for seconds in history.values())


def warm_up_back_to_back(rounds: _Rounds, limits: Limits, clock: Clock) -> float:
    """Runs rounds of blocks, each of twice as many calls as the last until the shortest lasts long enough, for `warm_seconds` at least;
    returns the seconds of a call in that. A single call would be one wait, and the device idle meanwhile."""
    calls, begin = 1, clock()
    while True:
        shortest = min(block.seconds for block in rounds.run(0, calls).values())
        if shortest < limits.block_seconds:
            calls *= 2
        elif clock() - begin >= limits.warm_seconds:
            return shortest / calls


def find_washout(rounds: _Rounds, call_seconds: float, limits: Limits, clock: Clock) -> int:
    """How many untimed calls let carry-over fade, from blocks with different washouts, all in the same rounds."""
    candidates = [number for number in WASHOUTS if number * call_seconds <= LONGEST_WASHOUT_SECONDS]
    if len(candidates) < 3:
        return int(call_seconds < OUTLASTING_CALL_SECONDS)
    calls = max(1, math.ceil(limits.block_seconds / call_seconds))
    survey: list[list[list[float]]] = []
    begin = clock()
    while len(survey) < _FEWEST_SURVEY_ROUNDS or clock() - begin < limits.survey_seconds:
        by_washout = [rounds.run(number, calls) for number in candidates]
        survey.append([[math.log(blocks[name].seconds) for name in sorted(blocks)] for blocks in by_washout])
    logs = np.array(survey)
    least = min(math.ceil(LEAST_WASHOUT_SECONDS / call_seconds), WASHOUTS[-1])
    return max(least, washout_of(candidates, logs[:, :, :1] - logs[:, :, 1:]))


def washout_of(candidates: Sequence[int], log_ratios: npt.NDArray[np.float64]) -> int:
    """The fewest calls after which every ratio is within PLATEAU of its plateau; `log_ratios` are of blocks after so many untimed calls, of
    shape (rounds, candidates, ratios), candidates 0 and 1 first.

    What is missing from the plateau, that of the last candidate, fades as `missing * share**calls`. Both are taken from the ratio
    that is affected most; the share is fitted to the other candidates and raised by its standard error.
    """
    if not log_ratios.shape[-1]:  # an arm on its own: nothing is switched
        return 1
    differences = log_ratios[:, -1:, :] - log_ratios[:, :-1, :]
    middles = np.median(differences, axis=0)
    errors = np.array([median_error(column) for column in differences[:, 0, :].T])
    worst = int(np.argmax(abs(middles[0]) / np.maximum(errors, 1e-12)))
    missing, error = float(middles[0, worst]), float(errors[worst])
    if abs(missing) <= max(PLATEAU, 2 * error):
        return 1
    later = np.array(candidates[1:-1])
    shares = np.linspace(0.0, _SLOWEST_FADING, 91)
    misfits = ((middles[1:, worst] - missing * shares[:, None] ** later) ** 2).sum(axis=1)
    share = min(float(shares[np.argmin(misfits)]) + error / abs(missing), _SLOWEST_FADING)
    needed = math.ceil(math.log(PLATEAU / abs(missing)) / math.log(share))
    return min(max(needed, 1), candidates[-1])


def minor_page_faults() -> int:
    """Page faults of this process so far that needed no disk."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


@contextmanager
def running(name: str) -> Iterator[None]:
    """Notes that the arm runs; what fails inside is a Failure that names it."""
    note_arm(name)
    try:
        yield
    except Exception as error:
        raise Failure.of(error, arm=name) from error


def arm(
    name: str, step: Step, device: Device, clock: Clock = time.perf_counter, faults: Callable[[], int] = minor_page_faults
) -> RunBlock:
    """An arm in this process. A block of it fails if the step raises or leaves gradients off."""

    def run(washout: int, calls: int) -> Block:
        collect_if_due()
        with running(name):
            block = _block(step, washout, calls, device, clock, faults)
            if not torch.is_grad_enabled():  # the arms after it would silently be untracked
                raise Failure("broken_contract", "gradients were left off after the call")
        return block

    return run


def _block(step: Step, washout: int, calls: int, device: Device, clock: Clock, faults: Callable[[], int]) -> Block:
    """The first call of the washout is waited for: where calls are only queued, what it takes by itself is its latency."""
    first_seconds = None
    device.synchronise()
    if washout:
        start = clock()
        step()
        device.synchronise()
        first_seconds = clock() - start
    for _ in range(washout - 1):
        step()
    device.synchronise()
    faults_before, driver_before, repeats, queues = faults(), device.driver_allocations(), range(calls), device.accelerated
    start = clock()
    for _ in repeats:
        step()
    host_seconds = clock() - start if queues else None
    device.synchronise()
    seconds = clock() - start
    if calls == 1 and not washout:
        first_seconds = seconds
    return Block(first_seconds, seconds, faults() - faults_before, host_seconds, device.driver_allocations() - driver_before)


def collect_if_due() -> None:
    """Cycles that a model leaves behind are collected between blocks: with the collector off they would fill the memory."""
    if not gc.isenabled() and gc.get_count()[0] > _MANY_OBJECTS:
        gc.collect()


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
