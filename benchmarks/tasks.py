"""What is done inside a room: examine one lane, time the lanes of a group together, try out a user's model."""

from __future__ import annotations

import itertools
import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from benchmarks import allocator
from benchmarks.device import DEVICES, machine_facts
from benchmarks.failure import Failure
from benchmarks.measure.calibration import Reading, instruments, readings
from benchmarks.measure.contract import Observation, check_contract, equal_bits, observe, preserved, reference_after, untracked
from benchmarks.measure.memory import measure_memory, with_growth
from benchmarks.measure.profile import profile_call
from benchmarks.measure.timing import (
    MIN_WARMUP_ROUNDS,
    Announce,
    Limits,
    Stopwatch,
    Timings,
    garbage_collector_off,
    run_block,
    time_lanes,
)
from benchmarks.models import DTYPES, OWN_SIZE, Source, Workload, own
from benchmarks.modes import DETACH, TRACKED, Mode, Step
from benchmarks.record import FORWARD, Contract, Group, Kernels, Memory, ModelFacts
from benchmarks.scenarios import SCENARIOS
from benchmarks.scenarios.scenario import Scenario

PLACEBO = "placebo"
"""The name of the second tracked lane of a group."""

KEPT_PAGES = "kept pages"
"""The name of the tracked lane that keeps its pages among lanes that do not: what the allocator could give back, beside what modes do."""


@dataclass(frozen=True, slots=True)
class Job:
    """A group and what it takes to run it. `build` makes the workload on the group's device, in its dtype."""

    group: Group
    build: Callable[[], Workload]
    threads: int

    @property
    def scenario(self) -> Scenario:
        return SCENARIOS[self.group.scenario]

    def step(self, workload: Workload, mode: str) -> Step:
        return self.scenario.bind(workload, self.scenario.mode(mode))

    def changing(self, workload: Workload) -> list[torch.Tensor]:
        """What a call may change, beside buffers: inputs, and parameters where the scenario updates them."""
        return [*workload.input_tensors(), *(workload.module.parameters() if self.scenario.updates else ())]


@dataclass(frozen=True, slots=True)
class Examination:
    """What one lane was found to do and to need, before it is timed. `memory` is None where the contract does not hold.

    `memory_seconds` is the time that the memory passes took, `cold_seconds` that of the first call in a process of its own.
    """

    contract: Contract
    kernels: Kernels
    memory: Memory | None
    model: ModelFacts
    memory_seconds: float
    cold_seconds: float | None = None


def examine(job: Job, mode_name: str, *, with_tracked: bool, own_process: bool, announce: Announce) -> Examination:
    """Times the lane's first call, checks its contract and measures its memory.

    `with_tracked` runs the tracked mode too, for comparison, after the lane's own first call. `own_process` says that this process
    was started for this lane alone, so that its allocator may be set and its resident memory means something.
    """
    if own_process:
        allocator.return_pages()
    announce.lane(mode_name)
    scenario = job.scenario
    mode, tracked_mode, device = scenario.mode(mode_name), scenario.mode(TRACKED.name), DEVICES[job.group.device]()
    workload = job.build()
    module, inputs = workload.module, job.changing(workload)
    with _settings(job.threads):
        step, tracked = job.step(workload, mode_name), job.step(workload, TRACKED.name)
        with preserved(module, inputs):
            cold_seconds = run_block(Stopwatch(device), mode_name, step, 1).seconds if own_process else None
        seen = observe(step, module, inputs)
        own.check_output(job.group.model, seen.output)
        reference = reference_after(mode, tracked, module, inputs) if with_tracked else None
        if reference is not None and mode is not tracked_mode and untracked(tracked_mode, reference):
            raise Failure("broken_contract", f"a tracked call after {mode_name} is not tracked")
        with preserved(module, inputs):
            start = time.perf_counter()
            profiled = profile_call(step)
            memory_seconds = time.perf_counter() - start
            tracked_operators = profile_call(tracked).operators if with_tracked else None
        kernels = _compare_kernels(mode, profiled.operators, tracked_operators, seen, reference if scenario.same_work else None)
        contract = check_contract(mode, seen, reference)
        del seen, reference
        memory = None
        if contract.holds:
            with preserved(module, inputs):
                start = time.perf_counter()
                expected = _expected_saved_bytes(job, mode, workload)
                memory = measure_memory(
                    step, profiled, device, workload, expected_saved_bytes=expected, own_process=own_process
                )
                if scenario.steps > 1:
                    memory = with_growth(memory, lambda steps: scenario.bind(workload, mode, steps=steps), device)
                memory_seconds += time.perf_counter() - start
    return Examination(contract, kernels, memory, workload.facts(), memory_seconds, cold_seconds)


def time_group(job: Job, modes: Sequence[str], limits: Limits, process: int, *, announce: Announce) -> Timings:
    """Times `modes` together in this process, with their placebo; freed pages are kept from here on.

    `process` seeds what differs between one process and the next: the order of lanes, and where blocks come to lie after the first.
    """
    allocator.keep_pages()
    if process:
        allocator.shift_heap(random.Random(process))
    workload = job.build()
    with _settings(job.threads), preserved(workload.module, job.changing(workload)):
        lanes = {name: job.step(workload, mode) for name, mode in lanes_of(modes).items()}
        return time_lanes(lanes, Stopwatch(DEVICES[job.group.device]()), limits, random.Random(process), announce)


def lanes_of(modes: Sequence[str]) -> dict[str, str]:
    """The lanes of a group by name, each with its mode: where tracked is among them, the placebo is tracked once more."""
    return {mode: mode for mode in modes} | ({PLACEBO: TRACKED.name} if TRACKED.name in modes else {})


class Server(Announce, Protocol):
    """An announce that can also answer the parent's questions for as long as it asks."""

    def serve(self, answer: Callable[[Any], Any]) -> None: ...


def drive_lane(job: Job, mode: str, *, core: int | None, heap: str, kept_pages: bool, announce: Server) -> None:
    """Serves one lane to the parent, with the allocator as shipped unless `kept_pages`.

    Asked for a number of calls, it answers with the fields of their Block. It stays on `core` if there is one; `heap` seeds where its
    blocks come to lie. After the warm-up, one call before each block goes untimed, since the other lanes have filled the caches meanwhile.
    """
    announce.lane(mode)
    if core is not None:
        os.sched_setaffinity(0, {core})
    allocator.shift_heap(random.Random(heap))
    if kept_pages:
        allocator.keep_pages()
    workload = job.build()
    with _settings(job.threads), preserved(workload.module, job.changing(workload)), garbage_collector_off():
        stopwatch, step = Stopwatch(DEVICES[job.group.device]()), job.step(workload, mode)

        served = itertools.count()

        def block(calls: int) -> tuple[float, float | None, int]:
            if next(served) >= MIN_WARMUP_ROUNDS:
                run_block(stopwatch, mode, step, 1)
            one = run_block(stopwatch, mode, step, calls)
            return (one.seconds, one.device_seconds, one.faults)  # a plain tuple travels in half the time

        announce.serve(block)


def try_own(spec: str, sizes: Sequence[str], *, announce: Announce) -> tuple[Source, ...] | str:
    """Builds the user's model in each of `sizes` (once, if it takes none) and runs it once.

    Returns what to measure, or in words what is wrong with the function or with what it returns. Whatever else the model does,
    raising included, is left to the lanes to report: it may do so in one mode only.
    """
    try:
        model = own.load(spec)
        sources = tuple(Source(own.name_of(spec), size, spec) for size in (sizes if model.sized else (OWN_SIZE,)))
        for source in sources:
            announce.lane(source.size)
            _try_source(model, source)
    except own.ModelError as error:
        return str(error)
    return sources


def _try_source(model: own.OwnModel, source: Source) -> None:
    try:
        workload = model.workload(source.size)
        output = workload.run(workload.module)
    except own.ModelError:
        raise
    except Exception:  # noqa: BLE001 - the lanes say it, by name and status
        return
    own.check_output(model.spec, output)


def calibrate(device: str, threads: int, *, own_process: bool, announce: Announce) -> list[Reading]:
    """Tries the memory meters in use on `device`; with `own_process` those of resident memory too."""
    del announce
    if own_process:
        allocator.return_pages()
    with _settings(threads):
        return readings(instruments(DEVICES[device](), own_process=own_process), device)


def describe_machine(devices: Sequence[str], threads: int, *, announce: Announce) -> dict[str, Any]:
    """The machine's facts, asked for in a room so that asking a GPU what it is does not open it in the parent."""
    del announce
    with _settings(threads):
        return machine_facts(devices)


def _expected_saved_bytes(job: Job, mode: Mode, workload: Workload) -> int | None:
    """The closed forms hold for one forward pass on a CPU, and for the kernels that run in these two dtypes."""
    group = job.group
    if (
        workload.closed_form is None
        or (group.scenario, group.device) != (FORWARD, "cpu")
        or group.dtype not in _CLOSED_FORM_DTYPES
    ):
        return None
    if mode.records is False:
        return 0
    return workload.closed_form(DTYPES[group.dtype].itemsize) if mode in (TRACKED, DETACH) else None


_CLOSED_FORM_DTYPES = ("float32", "bfloat16")


def _compare_kernels(
    mode: Mode, operators: frozenset[str], tracked: frozenset[str] | None, seen: Observation, reference: Observation | None
) -> Kernels:
    """Other operators are other kernels; so are other bits from the same operators (oneDNN's LSTM without a workspace)."""
    if tracked is None or reference is None:
        return Kernels(same_as_tracked=None)
    operators -= mode.own_operators - tracked
    same = operators == tracked and (mode.name == TRACKED.name or equal_bits(seen.output, reference.output))
    return Kernels(same, sorted(operators - tracked), sorted(tracked - operators))


@contextmanager
def _settings(threads: int) -> Iterator[None]:
    """torch computes with so many threads inside, and gradients are on, whatever the user's file has set."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.enable_grad():
            yield
    finally:
        torch.set_num_threads(before)
