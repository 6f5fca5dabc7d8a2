"""A machine of drawn numbers: calls pay for what ran before them, blocks are noisy, processes and launches differ.

It stands in for workers, so that the suite's own procedure runs on it, from the washout to the interval, and the truth is
known.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from benchmarks.measure.alternating import arms_of
from benchmarks.measure.timing import Block, Limits, RunBlock, Timings, time_arms
from benchmarks.workers import LAUNCHES

SECONDS = {"tracked": 300e-6, "no_grad": 250e-6, "inference_mode": 200e-6, "detach": 305e-6}
"""Of a call in the steady state, by mode."""

TRUTHS = {mode: SECONDS["tracked"] / seconds for mode, seconds in SECONDS.items() if mode != "tracked"}
"""Speedups."""

_BURSTS, _BURST_LENGTH = 0.05, 0.5
"""So many blocks are hit by something else, which adds to their log-seconds an exponential of this mean."""


@dataclass(slots=True)
class Machine:
    """Workers whose processes are simulated; each process and each launch has effects of its own, another `seed` other ones.

    The first call after a switch takes `carry` of a tracked call longer, whatever its mode; each call leaves `fading` of that
    to the next.
    Deviations are of logarithms: `noise` of blocks, `processes` and `launches` of speedups. `correlation` is that of an arm's
    neighbouring blocks.
    """

    carry: float = 0.3
    fading: float = 0.4
    noise: float = 0.03
    correlation: float = 0.0
    bursts: bool = False
    processes: float = 0.01
    launches: float = 0.0
    seed: int = 0
    fresh: bool = True

    def run(self, task: object, *args: Any, arms: Sequence[str] = (), launch: int = 0) -> Any:  # noqa: ARG002 - a worker's
        """What `time_together` would return for the same arguments."""
        _, modes, limits, process, _ = args
        return self.time(modes, limits, process, launch % LAUNCHES)

    def serve(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise NotImplementedError("arms are simulated together")

    def time(self, modes: Sequence[str], limits: Limits, process: int = 0, launch: int = 0) -> Timings:
        of_process, of_launch = (random.Random(f"{self.seed} {place}") for place in (f"process {process}", f"launch {launch}"))
        effects = {mode: of_process.gauss(0, self.processes) + of_launch.gauss(0, self.launches) for mode in TRUTHS}
        clock = _Clock()
        arms = {
            name: self._arm(
                SECONDS[mode] * math.exp(effects.get(mode, 0.0)), clock, random.Random(f"{self.seed} {process} {name}")
            )
            for name, mode in arms_of(modes).items()
        }
        return time_arms(arms, limits, of_process, clock)

    def _arm(self, seconds: float, clock: _Clock, draw: random.Random) -> RunBlock:
        state = draw.gauss(0, 1)
        first_excess, renewed = self.carry * SECONDS["tracked"], math.sqrt(1 - self.correlation**2)

        def run(washout: int, calls: int) -> Block:
            nonlocal state
            state = self.correlation * state + renewed * draw.gauss(0, 1)
            log = self.noise * state
            if self.bursts and draw.random() < _BURSTS:
                log += draw.expovariate(1 / _BURST_LENGTH)
            slowness = math.exp(log)
            clock.now += slowness * (washout * seconds + first_excess * _sum_of_powers(self.fading, 0, washout))
            timed = slowness * (calls * seconds + first_excess * _sum_of_powers(self.fading, washout, washout + calls))
            clock.now += timed
            return Block(slowness * (seconds + first_excess) if washout else None, timed)

        return run


@dataclass(slots=True)
class _Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


def _sum_of_powers(base: float, begin: int, end: int) -> float:
    return (base**begin - base**end) / (1 - base)
