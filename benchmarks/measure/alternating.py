"""The arms of a group, timed together in one process (pages kept) or in a process each (as shipped).

The two protocols differ in the allocator alone: the same blocks, washout, core, warm-up and clock. As shipped an arm has a process
of its own, because what other arms allocate would change its heap; the heap is what has to be repeated.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from benchmarks import allocator
from benchmarks.device import device_named
from benchmarks.execution import compilations, compile_step, compiling
from benchmarks.failure import Failure
from benchmarks.measure.contract import preserved
from benchmarks.measure.queued import busy_seconds, limits_on
from benchmarks.measure.saved import histories
from benchmarks.measure.timing import Block, Limits, RunBlock, Timings, arm, garbage_collector_off, running, time_arms
from benchmarks.modes import TRACKED, Step
from benchmarks.record import COMPILED
from benchmarks.workers import note_arm

if TYPE_CHECKING:
    from benchmarks.plan import Job
    from benchmarks.workers import Workers

PLACEBO = "placebo"
"""The name of the second tracked arm of a group."""

KEPT_PAGES = "kept pages"
"""The name of the tracked arm that keeps its pages among arms that do not: what the allocator could give back, beside what modes do."""


def arms_of(modes: Sequence[str], *, as_shipped: bool = False) -> dict[str, str]:
    """The arms of a group by name, each with its mode: where tracked is among them, the placebo is tracked once more."""
    more = (PLACEBO, KEPT_PAGES) if as_shipped and allocator.unavailable() is None else (PLACEBO,)
    return {mode: mode for mode in modes} | (dict.fromkeys(more, TRACKED.name) if TRACKED.name in modes else {})


def time_together(job: Job, modes: Sequence[str], limits: Limits, process: int, own_process: bool) -> Timings:
    """Times `modes` and their placebo in this process; freed pages are kept from here on.

    `process` seeds what differs between one process and the next: the order of arms, where blocks come to lie, the core. On an accelerator
    the first one reads its own work too. Raises Failure where an arm cannot be timed, or tracks beside the others what it does not track alone.
    """
    if job.device == "cpu":
        allocator.keep_pages()
    if own_process:
        _settle_in(job, process, str(process))
    device = device_named(job.device)
    with on_core(core_of(job, process) if own_process else None), _built(job, arms_of(modes)) as steps:
        arms = {name: arm(name, step, device) for name, step in steps.items()}
        before = compilations()
        timings = time_arms(arms, limits_on(device, limits, process), random.Random(process))
        if job.execution == COMPILED:
            timings = replace(timings, recompilations=compilations() - before)
        if not process:
            _require_untracked(job, steps)
        if not device.accelerated or process:
            return timings
        own = {name: step for name, step in steps.items() if name != PLACEBO}
        return replace(timings, busy_seconds=busy_seconds(own, device, timings))


def _require_untracked(job: Job, steps: Mapping[str, Step]) -> None:
    """A mode was shown to keep its promise by itself; a model may remember what it did in another, as TorchScript does."""
    for name, step in steps.items():
        if name != PLACEBO and job.mode(name).history is False:
            with running(name):
                if found := histories(step()):
                    raise Failure("broken_contract", f"after calls in other modes the output has a history ({found[0]})")


def time_apart(workers: Workers, job: Job, modes: Sequence[str], limits: Limits, process: int) -> Timings:
    """Times `modes`, their placebo and KEPT_PAGES together with the allocator as shipped, each arm in a worker of its own.

    One computes while the others wait, on the same core where torch has one thread. Raises Failure naming the arm.
    """
    core = core_of(job, process)
    with ExitStack() as workers_open, on_core(core):  # a message is then a switch instead of waking another core up

        def run_of(name: str, mode: str) -> RunBlock:
            serving = workers.serve(serve_arm, job, name, mode, process, core, launch=process)
            ask = workers_open.enter_context(serving)

            def run(washout: int, calls: int) -> Block:
                with running(name):
                    block: Block = ask((washout, calls))
                return block

            return run

        runs = {name: run_of(name, mode) for name, mode in arms_of(modes, as_shipped=True).items()}
        return time_arms(runs, limits, random.Random(process))


def serve_arm(job: Job, name: str, mode: str, process: int, core: int | None) -> Callable[[tuple[int, int]], Block]:
    """Builds one arm in this process for good, as shipped unless it is KEPT_PAGES; returns what runs a block of it."""
    note_arm(name)
    if name == KEPT_PAGES:
        allocator.keep_pages()
    _settle_in(job, process, f"{process} {name}")
    stack = ExitStack()  # never left: the process ends with its parent's last question
    steps = stack.enter_context(_built(job, {name: mode}))
    run = arm(name, steps[name], device_named(job.device))
    stack.enter_context(on_core(core))

    def answer(question: tuple[int, int]) -> Block:
        return run(*question)

    answer.stack = stack  # type: ignore[attr-defined]
    return answer


@contextmanager
def _built(job: Job, modes: Mapping[str, str]) -> Iterator[dict[str, Step]]:
    """A step for each arm, by the arm's name, on one workload; compiled where that is asked for. Nothing is collected from then on.
    Afterwards all is as before."""
    with settings(job.effort.threads):  # also while the model is built: two threads on one core take many times as long as one
        workload = job.build()
        steps = {name: job.step(workload, mode) for name, mode in modes.items()}
        with preserved(workload.module, job.changing(workload)), compiling(job.execution, len(steps)):
            for name, step in steps.items() if job.execution == COMPILED else ():
                with running(name):
                    compile_step(step)
            with garbage_collector_off():
                yield steps


def _settle_in(job: Job, process: int, heap: str) -> None:
    """Makes this process's heap another than that of its siblings, which all start as copies of one."""
    if job.device == "cpu" and process:
        allocator.shift_heap(random.Random(heap))


def core_of(job: Job, process: int) -> int | None:
    """The core on which a process's arms take turns: another for each process. None with several threads, and where none can be held."""
    if job.effort.threads > 1 or job.device != "cpu" or not hasattr(os, "sched_setaffinity"):
        return None
    cores = sorted(os.sched_getaffinity(0))
    return cores[process % len(cores)]


@contextmanager
def on_core(core: int | None) -> Iterator[None]:
    """This process stays on the arms' core meanwhile, if there is one."""
    if core is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def settings(threads: int) -> Iterator[None]:
    """torch computes with so many threads inside, and gradients are on, whatever the user's file has set."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.enable_grad():
            yield
    finally:
        torch.set_num_threads(before)
