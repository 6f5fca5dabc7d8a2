"""A machine whose clock only simulated work moves: calls pay for what ran before them, blocks are noisy, processes and launches differ.

Its arms are timed by the suite's own procedure, from the washout to the interval, and the truth is known.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.device import Cpu
from benchmarks.measure.alternating import arms_of
from benchmarks.measure.timing import Block, Limits, RunBlock, Timings, arm, time_arms
from benchmarks.modes import Step
from benchmarks.workers import LAUNCHES, InProcess

SECONDS = {"tracked": 300e-6, "no_grad": 250e-6, "inference_mode": 200e-6, "detach": 305e-6}
"""Of a call in the steady state, by mode."""

TRUTHS = {mode: SECONDS["tracked"] / seconds for mode, seconds in SECONDS.items() if mode != "tracked"}
"""Speedups."""

_BURSTS, _BURST_LENGTH = 0.05, 0.5
"""So many blocks are hit by something else, which adds to their log-seconds an exponential of this mean."""


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


@dataclass(slots=True)
class Processes(InProcess):
    """Workers on simulated machines; each process and each launch has effects of its own, another `seed` other ones.

    The first call after a switch takes `carry` of a tracked call longer, whatever its mode, and the next `fading` of that.
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

    def run(self, task: Any, *args: Any, launch: int = 0) -> Any:  # noqa: ARG002 - a worker's
        """What `time_together` would return for the same arguments."""
        _, modes, limits, process, _ = args
        return self.time(modes, limits, process, launch % LAUNCHES)

    def time(self, modes: Sequence[str], limits: Limits, process: int = 0, launch: int = 0) -> Timings:
        of_process, of_launch = (random.Random(f"{self.seed} {place}") for place in (f"process {process}", f"launch {launch}"))
        effects = {mode: of_process.gauss(0, self.processes) + of_launch.gauss(0, self.launches) for mode in TRUTHS}
        machine = Machine(fading=self.fading)
        blocks = {}
        for name, mode in arms_of(modes).items():
            seconds = SECONDS[mode] * math.exp(effects.get(mode, 0.0))
            block = machine.block(name, machine.step(name, seconds, self.carry * SECONDS["tracked"]))
            blocks[name] = self._noisy(block, machine, random.Random(f"{self.seed} {process} {name}"))
        return time_arms(blocks, limits, of_process, lambda: machine.now)

    def _noisy(self, block: RunBlock, machine: Machine, draw: random.Random) -> RunBlock:
        state = draw.gauss(0, 1)

        def run(washout: int, calls: int) -> Block:
            nonlocal state
            state = self.correlation * state + math.sqrt(1 - self.correlation**2) * draw.gauss(0, 1)
            hit = self.bursts and draw.random() < _BURSTS
            slowness = math.exp(self.noise * state + (draw.expovariate(1 / _BURST_LENGTH) if hit else 0.0))
            machine.slowness = lambda _: slowness
            return block(washout, calls)

        return run
