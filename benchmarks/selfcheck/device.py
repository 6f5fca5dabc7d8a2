"""`selfcheck device`: what the suite reads on an accelerator against what is known: bytes, its three clocks, a planted 2 %, processes.

Each check is told as it is made: ok, FAIL, or the figure alone where nothing is known of it. What needs the device runs in workers.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import nn

from benchmarks.device import Device, DeviceError, default_device, device_named
from benchmarks.failure import Failure
from benchmarks.intervals import median_ratio
from benchmarks.measure.alternating import PLACEBO, settings
from benchmarks.measure.known_blocks import Reading, try_meters
from benchmarks.measure.memory import device_bytes
from benchmarks.measure.queued import bound_by, busy_seconds, limits_on
from benchmarks.measure.saved import saved_for_backward
from benchmarks.measure.timing import Limits, Timings, arm, garbage_collector_off, time_arms
from benchmarks.models import MODELS, Source
from benchmarks.modes import DETACH, INFERENCE_MODE, NO_GRAD, TRACKED, Step
from benchmarks.workers import Launches, Workers

CHAINS = ((4, 64, 256), (8, 96, 251), (12, 1000, 1000))
"""Layers, batch and width of chains of Linear; the second divides evenly into nothing that an allocator rounds to."""

TIMED = (("mlp", "tiny"), ("transformer", "small"), ("mlp", "medium"), ("mlp", "huge"))
PLANTED = (("mlp", "tiny"), ("mlp", "huge"))
"""The host decides how long the first takes, the device the second."""

SHARE, OFF_PLANTED = 0.02, 0.003
PLACEBO_OFF, CLOCK_OFF, OVERLAP_OFF, PROCESSES_OFF = 0.003, 0.02, 0.15, 0.01
PROCESSES = 5

_LIMITS = Limits(rounds=100, seconds=2.0, longest_seconds=10.0)
_LEAST_SECONDS = 2e-6
"""Both planted arms get so much: to begin spinning, or to launch a pause, costs something by itself."""
_CALIBRATION_SECONDS = 0.01


@dataclass(frozen=True, slots=True)
class Check:
    """A figure, what it should be, and whether it is; None where nothing is known of it."""

    name: str
    figure: str
    expected: str = ""
    good: bool | None = None

    def __str__(self) -> str:
        word = {True: "ok", False: "FAIL", None: ""}[self.good]
        return f"{word:<5} {self.name}: {self.figure}{f' (expected: {self.expected})' if self.expected else ''}"


def spin(seconds: float) -> None:
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass


@dataclass(frozen=True, slots=True)
class Bench:
    """A device with the clock that runs beside it, and what keeps the host busy."""

    device: Device
    clock: Callable[[], float] = time.perf_counter
    spin: Callable[[float], None] = spin

    def time(self, steps: Mapping[str, Step], process: int = 0) -> Timings:
        """Times steps as the suite does in a process."""
        arms = {name: arm(name, step, self.device, self.clock) for name, step in steps.items()}
        limits = limits_on(self.device, _LIMITS, process)
        return time_arms(arms, limits, random.Random(process), self.clock)

    def all_clocks(self, steps: Mapping[str, Step]) -> Timings:
        """The same with the device's own work."""
        timings = self.time(steps)
        return replace(timings, busy_seconds=busy_seconds(steps, self.device, timings))

    def planted_ratio(self, step: Step) -> float:
        """What the suite reads of `step` made SHARE longer, on the host or on the device, whichever decides how long it takes."""
        alone = self.all_clocks({"alone": step})
        wall = wall_seconds(alone, "alone")
        pause = self.held() if bound_by(alone.busy_seconds.get("alone", 0.0), wall) == "device" else self.spin
        extra = {"base": 0.0, "longer": SHARE * (wall + _LEAST_SECONDS)}
        timings = self.time({name: _followed(step, partial(pause, _LEAST_SECONDS + more)) for name, more in extra.items()})
        return median_ratio(timings.seconds["longer"], timings.seconds["base"])

    def held(self) -> Callable[[float], None]:
        """Keeps the device busy for so many seconds: as many as a clock says, not the least that `hold` promises."""
        self.device.synchronise()
        self.device.mark_start()
        self.device.hold(_CALIBRATION_SECONDS)
        self.device.mark_end()
        self.device.synchronise()
        factor = _CALIBRATION_SECONDS / (self.device.seconds_between_marks() or _CALIBRATION_SECONDS)
        return lambda seconds: self.device.hold(seconds * factor)


def _followed(step: Step, pause: Callable[[], None]) -> Step:
    def call() -> None:
        step()
        pause()

    return call


def wall_seconds(timings: Timings, name: str) -> float:
    """Of a call, the median over rounds."""
    return statistics.median(timings.seconds[name]) / timings.calls


# What runs in workers.


def fresh_state(device_name: str) -> tuple[bool, float]:
    """Whether a worker starts with the accelerator unopened, and the seconds of opening it."""
    untouched = not (_opened() or torch.cuda._is_in_bad_fork())
    start = time.perf_counter()
    torch.zeros(1, device=device_name)
    device_named(device_name).synchronise()
    return untouched, time.perf_counter() - start


def cpu_only() -> bool:
    """Whether building a model on the CPU leaves the accelerator unopened."""
    Source("mlp", "tiny").workload("cpu")
    return not _opened()


def _opened() -> bool:
    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]


def chain(device_name: str, layers: int, batch: int, width: int) -> dict[str, tuple[int, int]]:
    """Peak and held bytes of a chain of Linear layers, by mode."""
    module = nn.Sequential(*[nn.Linear(width, width) for _ in range(layers)]).to(device_name)
    inputs = torch.randn(batch, width, device=device_name)
    read = {}
    for mode in (TRACKED, NO_GRAD, INFERENCE_MODE, DETACH):
        step = mode.bind(module, lambda model: model(inputs))
        step()
        step()
        on_device = device_bytes(step, device_named(device_name))
        assert on_device is not None
        read[mode.name] = on_device[:2]
    return read


def saved(device_name: str, size: str) -> int:
    workload = Source("mlp", size).workload(device_name)
    return saved_for_backward(TRACKED.bind(workload.module, workload.run), workload.constants(), workload.module).total_bytes


def clocks(device_name: str, model: str, size: str, process: int | None = None) -> Timings:
    """All three of them, or those of the timed rounds where it is one of several processes."""
    workload = Source(model, size).workload(device_name)
    modes = {TRACKED.name: TRACKED, PLACEBO: TRACKED, NO_GRAD.name: NO_GRAD}
    with settings(1), garbage_collector_off():
        steps = {name: mode.bind(workload.module, workload.run) for name, mode in modes.items()}
        bench = Bench(device_named(device_name))
        return bench.all_clocks(steps) if process is None else bench.time(steps, process)


def planted(device_name: str, model: str, size: str) -> float:
    workload = Source(model, size).workload(device_name)
    with settings(1), garbage_collector_off():
        return Bench(device_named(device_name)).planted_ratio(TRACKED.bind(workload.module, workload.run))


# What is made of it.


def state_checks(untouched: bool, seconds: float, cpu_untouched: bool) -> Iterator[Check]:
    yield Check("a worker starts with the accelerator unopened", str(untouched), "True", untouched)
    yield Check("seconds that opening it takes", f"{seconds:.2f}")
    yield Check("a worker on the CPU leaves it unopened", str(cpu_untouched), "True", cpu_untouched)


def block_checks(readings: Iterable[Reading]) -> Iterator[Check]:
    for reading in readings:
        name = f"{reading.meter} of a known {reading.block_bytes:,} B"
        yield Check(name, f"{reading.measured_bytes}", f"{reading.expected_bytes}", reading.within_tolerance)


def chain_checks(layers: int, unit: int, read: dict[str, tuple[int, int]]) -> Iterator[Check]:
    """A tracked chain keeps each layer's result; an untracked one has two at a time. `unit` is the bytes of one."""
    tracked, untracked = layers * unit, 2 * unit
    known = {
        TRACKED.name: (tracked, tracked), DETACH.name: (tracked, unit),
        NO_GRAD.name: (untracked, unit), INFERENCE_MODE.name: (untracked, unit),
    }  # fmt: skip
    for mode, expected in known.items():
        name = f"peak and held bytes of {layers} layers of {unit:,} B, {mode}"
        yield Check(name, str(read[mode]), str(expected), read[mode] == expected)


def clock_checks(name: str, timings: Timings) -> Iterator[Check]:
    """The host queues before the loop ends, the device works no longer than the loop, and the slower of the two decides."""
    for mode in (TRACKED.name, NO_GRAD.name):
        wall, host, busy = wall_seconds(timings, mode), timings.host_seconds[mode], timings.busy_seconds.get(mode)
        texts = [
            f"{word} {1e6 * seconds:.1f} us" for word, seconds in (("host", host), ("wall", wall), ("busy", busy)) if seconds
        ]
        figure = f"{', '.join(texts)}, bound by {bound_by(busy, wall) if busy is not None else '-'}"
        ordered = busy is not None and max(host, busy) <= wall * (1 + CLOCK_OFF)
        overlap = busy is not None and max(host, busy) >= wall * (1 - OVERLAP_OFF)
        yield Check(f"{name} {mode}", figure, "neither host nor busy above wall, one of them close to it", ordered and overlap)
    asked = sum(timings.driver_allocations.values())
    yield Check(f"{name}, driver allocations while timing", f"{asked:g}", "0", asked == 0)
    apart = abs(median_ratio(timings.seconds[TRACKED.name], timings.seconds[PLACEBO]) - 1)
    yield Check(f"{name}, the same code timed twice", f"{apart:.2%} apart", f"at most {PLACEBO_OFF:.1%}", apart <= PLACEBO_OFF)
    yield Check(f"{name}, speedup of no_grad", f"{_speedup(timings):.3f}")


def planted_check(name: str, ratio: float) -> Check:
    expected = f"{1 + SHARE - OFF_PLANTED:.3f} to {1 + SHARE + OFF_PLANTED:.3f}"
    return Check(f"{SHARE:.0%} planted on {name}", f"{ratio:.4f}", expected, abs(ratio - 1 - SHARE) <= OFF_PLANTED)


def process_check(processes: Sequence[Timings]) -> Check:
    speedups = [_speedup(timings) for timings in processes]
    apart = max(speedups) / min(speedups) - 1
    name = f"speedups of {len(speedups)} processes"
    return Check(name, f"{apart:.2%} apart", f"at most {PROCESSES_OFF:.0%}", apart <= PROCESSES_OFF)


def _speedup(timings: Timings) -> float:
    return median_ratio(timings.seconds[TRACKED.name], timings.seconds[NO_GRAD.name])


def checks(device_name: str, workers: Workers) -> Iterator[Check]:
    """All of them, in the order in which it is of use to know them; a worker that is lost is a check that fails."""
    run = workers.run
    groups: list[tuple[str, Callable[[], Iterable[Check]]]] = [
        ("starting", lambda: state_checks(*run(fresh_state, device_name), run(cpu_only))),
        ("known blocks", lambda: block_checks(run(try_meters, device_name, 1, True))),
        *(("chains", partial(_chain, run, device_name, *numbers)) for numbers in CHAINS),
        *(("saved", partial(_saved, run, device_name, size)) for size in MODELS["mlp"].sizes),
        *(("clocks", partial(_clocks, run, device_name, *source)) for source in TIMED),
        *(("planted", partial(_planted, run, device_name, *source)) for source in PLANTED),
        ("processes", lambda: [process_check([run(clocks, device_name, "mlp", "small", n, launch=n) for n in range(PROCESSES)])]),
    ]  # fmt: skip
    for name, group in groups:
        try:
            yield from group()
        except Failure as failure:
            yield Check(name, f"{failure.status}: {failure.reason}", "a figure", good=False)


def _chain(run: Callable[..., Any], device_name: str, layers: int, batch: int, width: int) -> Iterable[Check]:
    return chain_checks(layers, 4 * batch * width, run(chain, device_name, layers, batch, width))


def _saved(run: Callable[..., Any], device_name: str, size: str) -> Iterable[Check]:
    """Each ReLU keeps its result, which is also the next layer's input."""
    numbers, read = MODELS["mlp"].sizes[size], run(saved, device_name, size)
    expected = 4 * numbers["depth"] * numbers["batch"] * numbers["width"]
    return [Check(f"bytes saved for backward by mlp {size}", str(read), str(expected), read == expected)]


def _clocks(run: Callable[..., Any], device_name: str, model: str, size: str) -> Iterable[Check]:
    return clock_checks(f"{model} {size}", run(clocks, device_name, model, size))


def _planted(run: Callable[..., Any], device_name: str, model: str, size: str) -> Iterable[Check]:
    return [planted_check(f"{model} {size}", run(planted, device_name, model, size))]


def main(arguments: Sequence[str] | None = None, workers: Workers | None = None) -> int:
    """Exit status 0 where everything is as expected, 1 where something is not, 2 where there is nothing to check."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.selfcheck device", description=__doc__)
    parser.add_argument("--device", metavar="NAME", default=default_device(), help="cuda or cuda:N (default: the first)")
    name: str = parser.parse_args(arguments).device
    try:
        device = device_named(name)
        why = device.unavailable() if device.accelerated else "there is no accelerator here, and this checks nothing else"
    except DeviceError as error:
        why = str(error)
    if why is not None:
        print(why)  # noqa: T201 - a command's
        return 2
    good = True
    for check in checks(name, workers or Launches(timeout_seconds=120.0)):
        print(check, flush=True)  # noqa: T201
        good &= check.good is not False
    return 0 if good else 1
