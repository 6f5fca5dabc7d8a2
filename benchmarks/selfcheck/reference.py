"""What a plain loop pays: long loops of one mode after the other, without any of the suite's timing code."""

from __future__ import annotations

import math
import multiprocessing
import os
import random
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import torch

from benchmarks import allocator
from benchmarks.modes import Step
from benchmarks.plan import Job

CALLS, UNTIMED, LONGEST_SECONDS = 100, 20, 0.5
"""Calls of a block, after so many untimed ones; fewer where they would take longer, which is where one takes more than 5 ms."""

_FEWEST_ROUNDS = 3

Readings = dict[str, list[float]]
"""By mode, seconds per call of each block; blocks at the same place are of the same round."""


def from_launch(job: Job, seconds: float, processes: int, seed: int) -> list[Readings]:
    """What each process reads, all forked from one new interpreter, whose layout they share."""
    readings: list[Readings] = _in_process("spawn", _launched, job, seconds, processes, seed)
    return readings


def _launched(job: Job, seconds: float, processes: int, seed: int) -> list[Readings]:
    return [_in_process("fork", loops, job, seconds, f"{seed} {number}") for number in range(processes)]


def _in_process(method: str, task: Callable[..., Any], *args: Any) -> Any:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(method)) as pool:
        return pool.submit(task, *args).result()


def loops(job: Job, seconds: float, seed: str) -> Readings:
    """Loops in each mode, in an order drawn anew for every round; one thread, one core and pages kept, from here on."""
    order = random.Random(seed)
    allocator.keep_pages()
    allocator.shift_heap(order)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {order.choice(sorted(os.sched_getaffinity(0)))})
    torch.set_num_threads(1)
    workload = job.build()
    steps = {mode: job.step(workload, mode) for mode in job.modes}
    calls = min(CALLS, math.ceil(LONGEST_SECONDS / min(_loop(step, UNTIMED) for step in steps.values())))
    readings: Readings = {mode: [] for mode in steps}
    until = time.perf_counter() + seconds
    while time.perf_counter() < until or len(readings[job.modes[0]]) < _FEWEST_ROUNDS:
        for mode in order.sample(list(steps), len(steps)):
            _loop(steps[mode], min(UNTIMED, calls))
            readings[mode].append(_loop(steps[mode], calls))
    return readings


def _loop(step: Step, calls: int) -> float:
    """Seconds per call."""
    start = time.perf_counter()
    for _ in range(calls):
        step()
    return (time.perf_counter() - start) / calls
