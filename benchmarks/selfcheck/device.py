"""`selfcheck device`: what the suite reads on an accelerator against what is known: bytes, its three clocks, a planted 2 %, processes."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterator
from dataclasses import replace

import torch

from benchmarks.device import DeviceError, device_named
from benchmarks.failure import Failure
from benchmarks.intervals import median_ratio
from benchmarks.measure.alternating import PLACEBO, time_together
from benchmarks.measure.examine import examine_together
from benchmarks.measure.known_blocks import try_meters
from benchmarks.measure.queued import bound_by
from benchmarks.measure.timing import Limits, Timings
from benchmarks.models import Source
from benchmarks.models.mlp import MLP
from benchmarks.modes import DEFAULT_MODES, DETACH, NO_GRAD, TRACKED
from benchmarks.plan import Job
from benchmarks.record import FORWARD
from benchmarks.selfcheck.findings import Findings, Goal
from benchmarks.selfcheck.planted import CALLS, planted_job
from benchmarks.workers import Launches, Workers

FAMILY = replace(MLP, sizes={**MLP.sizes, "odd": {"batch": 96, "width": 251, "depth": 8}})
"""The last divides evenly into nothing that an allocator rounds to."""

TIMED = (("mlp", "tiny"), ("transformer", "small"), ("mlp", "medium"), ("mlp", "huge"))
PLANTED = (("mlp", "tiny"), ("mlp", "huge"))
"""The host decides how long the first takes, the device the second."""

MODES = (TRACKED.name, NO_GRAD.name)
LONGER, SHORTER = f"51{CALLS}", f"50{CALLS}"
"""Their ratio is 1.02, whatever decides."""
OFF_PLANTED, PLACEBO_OFF, CLOCK_OFF, OVERLAP_OFF, PROCESSES_OFF = 0.003, 0.003, 0.02, 0.15, 0.01
PROCESSES = 5

_LIMITS = Limits(rounds=100, seconds=2.0, longest_seconds=10.0)


def check(device: str) -> Findings:
    """Raises DeviceError where there is nothing to check."""
    chosen = device_named(device)
    why = chosen.unavailable() if chosen.accelerated else "this checks accelerators alone; run it where there is one"
    if why is not None:
        raise DeviceError(f"--device {device}: {why}")
    return Findings(goals(device, Launches(timeout_seconds=120.0)))


def goals(device: str, workers: Workers) -> Iterator[Goal]:
    """In the order in which it is of use to know them. A worker that is lost is a goal that is missed, and the others go on."""
    checks = [
        start(device, workers),
        known_blocks(device, workers),
        *(mlp_bytes(size, device, workers) for size in FAMILY.sizes),
        *(clocks(*source, device, workers) for source in TIMED),
        *(planted(*source, device, workers) for source in PLANTED),
        processes(device, workers),
    ]
    for check_ in checks:
        try:
            yield from check_
        except Failure as failure:
            yield Goal(f"workers lost ({failure})", 1, 0, form="g")


def start(device: str, workers: Workers) -> Iterator[Goal]:
    found_open, seconds, _ = workers.run(opened, device)
    yield Goal(f"accelerators that a new worker finds open, where to open one takes {seconds:.2f} s", found_open, 0, form="g")
    *_, left_open = workers.run(opened, "cpu")
    yield Goal("accelerators that a worker on the CPU opens", left_open, 0, form="g")


def opened(device: str) -> tuple[bool, float, bool]:
    """Whether an accelerator is open in this worker, the seconds until a model is on `device`, and whether one is open then."""
    before = torch.cuda.is_initialized() or torch.cuda._is_in_bad_fork()  # type: ignore[no-untyped-call]
    begin = time.perf_counter()
    Source("mlp", "tiny").workload(device)
    device_named(device).synchronise()
    return before, time.perf_counter() - begin, torch.cuda.is_initialized()  # type: ignore[no-untyped-call]


def known_blocks(device: str, workers: Workers) -> Iterator[Goal]:
    wrong = workers.run(try_meters, device, 1, True)
    reasons = [f", {meter}: {reason}" for meter, reason in wrong.items()]
    yield Goal(f"meters that are off on known blocks{''.join(reasons)}", len(wrong), 0, form="g")


def mlp_bytes(size: str, device: str, workers: Workers) -> Iterator[Goal]:
    """Each ReLU keeps its result for backward, and the last Linear's is there beside them; untracked there are two at a time."""
    numbers = FAMILY.sizes[size]
    one = 4 * numbers["batch"] * numbers["width"]
    kept = numbers["depth"] * one
    known = {TRACKED.name: (kept + one, kept, kept), DETACH.name: (kept + one, one, kept)}
    source = Source("mlp", size, family=FAMILY)
    job = Job(scenario=FORWARD, source=source, device=device, dtype="float32", modes=DEFAULT_MODES)
    found = workers.run(examine_together, job, job.modes)
    for mode in job.modes:
        memory = found[mode].memory if mode in found else None
        read = memory and (memory.peak_tensor_bytes, memory.held_tensor_bytes, memory.saved_bytes)
        right = known.get(mode, (2 * one, one, 0))
        yield Goal(f"mlp {size} {mode}, peak, held and saved bytes: {read}, known: {right}; wrong", read != right, 0, form="g")


def clocks(model: str, size: str, device: str, workers: Workers) -> Iterator[Goal]:
    yield from clock_goals(f"{model} {size}", _timed(workers, planted_job(MODES, Source(model, size), device)))


def clock_goals(name: str, timings: Timings) -> Iterator[Goal]:
    """The host queues before the loop ends, the device works no longer than the loop, and the slower of the two decides."""
    for mode in MODES:
        host, busy = timings.host_seconds[mode], timings.busy_seconds.get(mode, math.nan)
        wall = statistics.median(timings.seconds[mode]) / timings.calls
        read = f"host {1e6 * host:.1f} us, busy {1e6 * busy:.1f} us, wall {1e6 * wall:.1f} us, bound by {bound_by(busy, wall)}"
        share = max(busy, host) / wall  # nan where busy is
        yield Goal(f"{name} {mode}, {read}: the slower of host and busy over wall", share, 1 + CLOCK_OFF, form=".1%")
        yield Goal(f"{name} {mode}, the same", share, 1 - OVERLAP_OFF, at_least=True, form=".1%")
    yield Goal(f"{name}, driver allocations while timing", sum(timings.driver_allocations.values()), 0, form="g")
    apart = abs(median_ratio(timings.seconds[TRACKED.name], timings.seconds[PLACEBO]) - 1)
    yield Goal(f"{name}, where no_grad is {_speedup(timings):.3f} times as fast, the same code timed twice", apart, PLACEBO_OFF)


def planted(model: str, size: str, device: str, workers: Workers) -> Iterator[Goal]:
    seconds = _timed(workers, planted_job((LONGER, SHORTER), Source(model, size), device), process=1).seconds
    ratio = median_ratio(seconds[LONGER], seconds[SHORTER])
    yield Goal(f"distance from a planted 1.02 on {model} {size}, read {ratio:.4f}", abs(ratio - 1.02), OFF_PLANTED)


def processes(device: str, workers: Workers) -> Iterator[Goal]:
    job = planted_job(MODES, Source("mlp", "small"), device)
    speedups = [_speedup(_timed(workers, job, number)) for number in range(PROCESSES)]
    yield Goal(f"speedups of {PROCESSES} processes, highest over lowest", max(speedups) / min(speedups) - 1, PROCESSES_OFF)


def _timed(workers: Workers, job: Job, process: int = 0) -> Timings:
    return workers.run(time_together, job, job.modes, _LIMITS, process, True, launch=process)


def _speedup(timings: Timings) -> float:
    return median_ratio(timings.seconds[TRACKED.name], timings.seconds[NO_GRAD.name])
