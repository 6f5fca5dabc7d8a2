"""What one mode does and needs, found before it is timed: its contract, its kernels, its memory and its page faults."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from benchmarks import allocator
from benchmarks.device import device_named
from benchmarks.execution import compile_anew, compiling
from benchmarks.failure import Failure, cannot_be_had, describe, is_out_of_memory
from benchmarks.measure.alternating import settings
from benchmarks.measure.contract import Observation, check_contract, equal_bits, observe, preserved
from benchmarks.measure.memory import kept_rss_bytes, measure_memory, with_growth
from benchmarks.measure.profile import Operators, operators
from benchmarks.measure.timing import garbage_collector_off, minor_page_faults
from benchmarks.modes import TRACKED, Step
from benchmarks.record import COMPILED, Broken, Contract, Kernels, Memory, ModelFacts
from benchmarks.scenarios import SCENARIOS
from benchmarks.workers import note_arm

if TYPE_CHECKING:
    from benchmarks.plan import Job

_MOST_CALLS, _CALLING_SECONDS = 200, 0.05


@dataclass(frozen=True, slots=True)
class AsShipped:
    """A call with the allocator as shipped: its minor page faults, what it takes, and what stays resident after it."""

    page_faults: float
    seconds: float
    kept_rss_bytes: int | None


@dataclass(frozen=True, slots=True)
class Examination:
    """What one mode was found to do and to need."""

    contract: Contract
    kernels: Kernels
    memory: Memory | None
    """None where the contract does not hold, and where nothing was to be measured."""
    model: ModelFacts
    as_shipped: AsShipped | None
    """None on devices and in a process that others use too."""
    compile_seconds: float | None = None
    """Of compiled steps."""


def examine(job: Job, mode_name: str, with_tracked: bool, own_process: bool, calls_only: bool = False) -> Examination:
    """Checks the mode's contract and measures what it needs; `calls_only` stops at the contract.

    `with_tracked` runs tracked too, for comparison. `own_process` says that this process was started for this mode alone, so that its
    allocator may be set and its resident memory means something. Raises Failure where the mode cannot be run.
    """
    note_arm(mode_name)
    may_set_allocator = own_process and job.device == "cpu"
    if may_set_allocator:  # where blocks come to lie decides about page faults: each mode tries another heap
        allocator.shift_heap(random.Random(mode_name))
    with settings(job.effort.threads), compiling(job.execution, arms=2):
        subject = _Subject(job, mode_name)
        with subject.refusals():
            with subject.preserved():
                compile_seconds = compile_anew(subject.step) if subject.compiled else None
                shipped = as_shipped(subject.step) if may_set_allocator and not calls_only else None
            if may_set_allocator:
                allocator.return_pages()
            seen = subject.observe(subject.step)
            if not seen.output:
                raise Failure("unsupported", "the output holds no tensor; there is nothing to track")
        reference = subject.tracked_after() if with_tracked else None
        if isinstance(reference, Broken):
            contract = Contract(holds=False, broken=[reference], changed_buffers=seen.changed_buffers)
        else:
            contract = check_contract(subject.mode, seen, reference)
        changes = {"inputs": seen.changed_inputs, "the number of threads": torch.get_num_threads() != job.effort.threads}
        contract = replace(contract, changes=[what for what, changed in changes.items() if changed])
        kernels, memory = Kernels(same_as_tracked=None), None
        if contract.holds and not calls_only:
            with subject.preserved():
                ran = operators(subject.step)
            if isinstance(reference, Observation) and subject.scenario.same_work and not subject.compiled:
                kernels = subject.compare_kernels(ran, seen, reference)
            del seen, reference
            memory = subject.memory(ran, own_process=own_process)
            memory = replace(memory, kept_rss_bytes=shipped.kept_rss_bytes if shipped else None)
    return Examination(contract, kernels, memory, subject.workload.facts(), shipped, compile_seconds)


def examine_together(job: Job, modes: Sequence[str], calls_only: bool = False) -> dict[str, Examination]:
    """Examines the modes in this process, tracked first, until one fails: an accelerator's error spoils whatever comes after it."""
    found: dict[str, Examination] = {}
    for mode in modes:
        try:
            found[mode] = examine(job, mode, with_tracked=True, own_process=False, calls_only=calls_only)
        except Exception:  # noqa: BLE001 - a worker of its own will say what it is
            break
        if not found[mode].contract.holds:
            break
    return found


class _Subject:
    """A mode's step and tracked's on one workload. Each method calls them from the same state and puts it back; no graph outlives its call."""

    def __init__(self, job: Job, mode: str) -> None:
        self.scenario, self.compiled = SCENARIOS[job.scenario], job.execution == COMPILED
        self.mode, self.tracked_mode = self.scenario.mode(mode), self.scenario.mode(TRACKED.name)
        self.workload = job.build()
        self.step, self._tracked = job.step(self.workload, mode), job.step(self.workload, TRACKED.name)
        self._job, self._changing = job, job.changing(self.workload)

    def preserved(self) -> AbstractContextManager[None]:
        return preserved(self.workload.module, self._changing)

    def observe(self, step: Step) -> Observation:
        return observe(step, self.workload.module, self._changing, record=not self.compiled)

    @contextmanager
    def refusals(self) -> Iterator[None]:
        """torch refuses a mode where the same step works tracked; an error that tracked meets as well is the model's own."""
        try:
            yield
        except Exception as error:
            failure = Failure.of(error)
            in_any_mode = isinstance(error, Failure) or cannot_be_had(error)
            if failure.status == "unsupported" and not in_any_mode and not self._tracked_works():
                failure = Failure("crashed", failure.reason)
            raise failure from error

    def _tracked_works(self) -> bool:
        with suppress(Exception):
            self.observe(self._tracked)
            return True
        return False

    def tracked_after(self) -> Observation | Broken:
        """A tracked call after the mode's own, or what the mode left that makes it fail. Raises what it raises for want of memory."""
        try:
            seen = self.observe(self._tracked)
        except Exception as error:
            if is_out_of_memory(error):
                raise
            return Broken("tracked_after", f"a tracked call after {self.mode.name} fails: {describe(error)}")
        untracked = {broken.promise for broken in check_contract(self.tracked_mode, seen).broken} & {"history", "records"}
        if untracked and self.mode.name != TRACKED.name:
            return Broken("tracked_after", f"a tracked call after {self.mode.name} is not tracked")
        return seen

    def compare_kernels(self, ran: Operators, seen: Observation, reference: Observation) -> Kernels:
        """Other operators are other kernels, and so are other bits from the same ones (oneDNN's LSTM without a workspace).

        Unless tracked's own bits differ from call to call: then they say nothing.
        """
        if self.mode.name == TRACKED.name:
            return Kernels(same_as_tracked=True)
        with self.preserved():
            tracked = _computing(operators(self._tracked))
        ours = _computing(ran)
        for name in self.mode.own_operators:
            ours[name] = min(ours[name], tracked[name])
        same = ours == tracked and (
            equal_bits(seen.output, reference.output) or not equal_bits(self.observe(self._tracked).output, reference.output)
        )
        return Kernels(same, _named(ours - tracked), _named(tracked - ours))

    def memory(self, ran: Operators, *, own_process: bool) -> Memory:
        device = device_named(self._job.device)
        with self.preserved():
            memory = measure_memory(self.step, ran, device, self.workload, own_process=own_process, compiled=self.compiled)
            if self.scenario.steps == 1:
                return memory
            return with_growth(memory, lambda steps: self._job.step(self.workload, self.mode.name, steps=steps), device)


def as_shipped(step: Step) -> AsShipped:
    """Of a call that has been warmed up; faults and seconds are means over some calls.

    A new process copies pages that it shares with its parent when it first writes to them: what is left of that is below about 0.5.
    """
    with garbage_collector_off():
        _call_again_and_again(step, 5)
        before, start = minor_page_faults(), time.perf_counter()
        calls = _call_again_and_again(step, 10)
        faults, seconds = minor_page_faults() - before, time.perf_counter() - start
    return AsShipped(faults / calls, seconds / calls, kept_rss_bytes(step))


def _call_again_and_again(step: Step, fewest: int) -> int:
    """For 50 ms or 200 calls, but at least `fewest`; returns their number."""
    calls, start = 0, time.perf_counter()
    while calls < fewest or (calls < _MOST_CALLS and time.perf_counter() - start < _CALLING_SECONDS):
        step()
        calls += 1
    return calls


def _computing(ran: Operators) -> Counter[str]:
    """Without those that only allocate."""
    return Counter({name: number for name, number in ran.everywhere.items() if not name.startswith("aten::empty")})


def _named(operators_: Counter[str]) -> list[str]:
    """Such as `aten::mm` or, for three of them, `aten::mm x3`."""
    return [name if number == 1 else f"{name} x{number}" for name, number in sorted(operators_.items())]
