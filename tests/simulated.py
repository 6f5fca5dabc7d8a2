"""A machine whose clock only simulated work moves: arms pay for what ran before them, and processes differ."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from benchmarks.device import Cpu
from benchmarks.measure.timing import Limits, RunBlock, Timings, arm, time_arms
from benchmarks.modes import Step


@dataclass
class Machine:
    """Time passes while an arm works, `slowness(now)` times as fast as its calls' cost says.

    The first call after another arm's takes `carry_over` seconds more, the next `fading` times as much more, and so on.
    """

    slowness: Callable[[float], float] = lambda _: 1.0
    fading: float = 0.5
    now: float = 0.0
    faults: int = 0
    calls: list[str] = field(default_factory=list)
    """The arm of each call so far."""
    _extra_seconds: float = 0.0

    def step(self, name: str, cost: float, carry_over: float = 0.0, cold: Sequence[float] = (), faults: int = 0) -> Step:
        """The first calls take so many times longer as `cold` says."""
        factors = iter(cold)

        def call() -> None:
            switched = not self.calls or self.calls[-1] != name
            self._extra_seconds = carry_over if switched else self._extra_seconds * self.fading
            self.calls.append(name)
            self.now += (cost * next(factors, 1.0) + self._extra_seconds) * self.slowness(self.now)
            self.faults += faults

        return call

    def block(self, name: str, step: Step) -> RunBlock:
        return arm(name, step, Cpu(), lambda: self.now, lambda: self.faults)

    def time(self, steps: dict[str, Step], limits: Limits, seed: int = 0) -> Timings:
        blocks = {name: self.block(name, step) for name, step in steps.items()}
        return time_arms(blocks, limits, random.Random(seed), lambda: self.now)


def noisy(generator: random.Random, deviation: float, burst_share: float = 0.0) -> Callable[[float], float]:
    """Slowness that scatters by `deviation`, with bursts that slow so large a share of calls threefold."""

    def slowness(_: float) -> float:
        burst = 3.0 if generator.random() < burst_share else 1.0
        return burst * max(0.1, generator.gauss(1.0, deviation))

    return slowness
