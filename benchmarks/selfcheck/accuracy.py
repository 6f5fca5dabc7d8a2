"""`selfcheck accuracy`: how far identical code reads apart, and how small an effect is found, here and by other harnesses.

The harnesses take turns, repeat by repeat, alone and beside a neighbour on the same core that computes for 0.3 to 1 s and
rests as long: how calm a machine is depends on the hour, and a disturbance that one controls does not. The suite alone also
takes turns with itself beside a worker of the engine (benchmarks/machines.py) that waits on the same core.
"""

from __future__ import annotations

import math
import statistics
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import pandas as pd

from benchmarks.intervals import resolution, verdict
from benchmarks.machines import INSTALL, LOOPBACK, ROOT
from benchmarks.measure.alternating import PLACEBO, core_of, on_core
from benchmarks.modes import NO_GRAD, TRACKED
from benchmarks.options import Effort
from benchmarks.plan import Job
from benchmarks.record import Interval
from benchmarks.selfcheck import peers
from benchmarks.selfcheck.findings import Findings, Goal, progress, table
from benchmarks.selfcheck.planted import BASE, IDENTICAL, SHARES, TRUTHS, USUAL, planted_job, read
from benchmarks.workers import Launches, Workers

SUITE, MEDIAN, MIN, TIMER = "this suite", "pytest-benchmark, median", "pytest-benchmark, min", "torch Timer"
ALONE, BESIDE, IDLE = "alone", "beside a neighbour", "beside an idle worker"
IDENTICAL_CODE, COST = "identical code", "tracked / no_grad"
RATIOS = {IDENTICAL_CODE: (TRACKED.name, IDENTICAL), COST: (TRACKED.name, NO_GRAD.name)} | {
    name: TRUTHS[name][:2] for name in SHARES
}
"""Each ratio's numerator and denominator."""

ARMS = (TRACKED.name, IDENTICAL, NO_GRAD.name, BASE, *SHARES)
TIMES_BETTER = {MEDIAN: 20.0, TIMER: 20.0, MIN: 3.0}
SIGNS_FOUND = {"+2 %": 0.95, "+1 %": 0.75}
SAME_OF_NULLS, STAYS_TRUE, WORKER_COSTS = 0.6, 0.01, 1.2
NULL_GROUPS = 5
"""So many follow one another in one condition: to start an engine takes seconds."""

_NEIGHBOUR = """
import os, random, time
parent, order = os.getppid(), random.Random(0)
while os.getppid() == parent:
    until = time.monotonic() + order.uniform(0.3, 1.0)
    while time.monotonic() < until:
        sum(range(10_000))
    time.sleep(order.uniform(0.3, 1.0))
"""

Null = tuple[Interval, str]
"""The ratio of two identical arms, and how a run would judge it."""


def accuracy(
    effort: Effort = USUAL, *, repeats: int = 10, seconds: float = 0.35, null_turns: int = 8, twins: int = 5
) -> Findings:
    """Repeats of all methods in two conditions, for so many `seconds` an arm; then turns of comparisons of tracked with its `twins`."""
    job = replace(planted_job(ARMS), effort=replace(effort, precision=0.99))
    null_job = replace(planted_job((TRACKED.name, *(f"{IDENTICAL} {number}" for number in range(twins)))), effort=effort)
    readings: list[dict[str, Any]] = []
    nulls: dict[str, list[Null]] = defaultdict(list)
    conditions = (ALONE, IDLE) if find_spec("distributed") else (ALONE,)
    comparisons = null_turns * len(conditions)
    begin = progress(2 * repeats + comparisons, repeats * 26 + comparisons * 28)
    with on_core(core_of(job, 0)), closing(Launches(effort.worker_timeout)) as workers:
        for condition in (ALONE, BESIDE) * repeats:
            begin(condition)
            with neighbour() if condition == BESIDE else nullcontext():
                readings += [{"condition": condition, **one} for one in _repeat(job, workers, seconds)]
        for condition in conditions * null_turns:
            begin(f"null comparisons, {condition}")
            with idle_worker() if condition == IDLE else nullcontext():
                for _ in range(NULL_GROUPS):
                    nulls[condition] += _compare_identical(null_job, workers)
    notes = (
        f"tracked mlp tiny, one thread on one core; {len(ARMS)} arms for about {seconds:g} s each; methods in turn",
        f"{SUITE}: {effort.processes} processes, however wide its intervals are; the others as shipped",
        "identical: how far the ratio of two identical arms is from 1",
        "+1 %, +2 %, +5 %: repeats that read an arm with so much work added as slower",
        f"null comparisons: default measurements, each of {twins} identical arms against one tracked arm",
        *([] if IDLE in conditions else [f"no idle worker, because Dask distributed is not installed; {INSTALL} installs it"]),
    )
    shown, goals = _judged(pd.DataFrame(readings), nulls)
    return Findings(goals, shown, notes, {"ratios": readings, "nulls": nulls})


def _repeat(job: Job, workers: Workers, seconds: float) -> Iterator[dict[str, Any]]:
    """What each method reads, by RATIOS, one after the other."""
    yield {"method": SUITE} | {name: interval.estimate for name, interval in read(job, workers, RATIOS).items()}
    by_statistic = peers.pytest_benchmark(ARMS, seconds)
    timer = workers.run(peers.torch_timer, job, seconds)
    for method, took in ((MEDIAN, by_statistic["median"]), (MIN, by_statistic["min"]), (TIMER, timer)):
        yield {"method": method} | {name: took[over] / took[under] for name, (over, under) in RATIOS.items()}


def _compare_identical(job: Job, workers: Workers) -> list[Null]:
    ratios = read(job, workers, {arm: (TRACKED.name, arm) for arm in (*job.modes[1:], PLACEBO)})
    reach = resolution(ratios.pop(PLACEBO))
    return [(ratio, verdict(ratio, reach)) for ratio in ratios.values()]


def neighbour() -> AbstractContextManager[Any]:
    """A process on this process's cores that computes and rests by turns; it ends with this process, however that ends."""
    return _running("-S", "-c", _NEIGHBOUR)


@contextmanager
def idle_worker() -> Iterator[None]:
    """A scheduler and a worker on this process's cores that wait for a run."""
    with ExitStack() as ending:

        def started(*arguments: str) -> str:
            """Its address, which it tells once it waits."""
            command = ("-m", "benchmarks.machines", *arguments, "--host", LOOPBACK, "--port", "0")
            process = ending.enter_context(_running(*command))
            assert process.stdout is not None
            return process.stdout.readline().partition(" at ")[2].partition(";")[0]

        started("worker", started("scheduler"))
        yield


@contextmanager
def _running(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, *arguments]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603 - our own
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def _judged(readings: pd.DataFrame, nulls: Mapping[str, Sequence[Null]]) -> tuple[str, list[Goal]]:
    """`readings` has a row for each condition, method and repeat, with a column for each ratio; `nulls` are by condition."""
    methods = readings.assign(error=(readings[IDENTICAL_CODE] - 1).abs()).groupby(["condition", "method"], sort=False)
    errors: Any = methods["error"].mean()
    costs: Any = methods[COST].agg(statistics.geometric_mean)
    rows = []
    for (condition, method), own in methods:
        error = (f"{errors[condition, method]:.2%}", f"{own['error'].max():.2%}")
        cost = f"{costs[condition, method]:.3f} ({own[COST].min():.3f} to {own[COST].max():.3f})"
        found = (f"{(own[name] > 1).sum()}/{len(own)}" for name in SHARES)
        rows.append((f"{method}, {condition}", *error, cost, *found))
    goals = []
    own_error = errors[BESIDE, SUITE]
    for method, times in TIMES_BETTER.items():
        error = errors[BESIDE, method]
        what = f"identical code beside a neighbour, {method}: {error:.2%} over the suite's {own_error:.2%}"
        goals.append(Goal(what, error / own_error if own_error else math.inf, times, at_least=True, form=".1f"))
    alone, beside = costs[ALONE, SUITE], costs[BESIDE, SUITE]
    what = f"{COST} of the suite, beside a neighbour {beside:.3f} against alone {alone:.3f}"
    goals.append(Goal(what, abs(beside / alone - 1), STAYS_TRUE))
    suite = readings[readings["method"] == SUITE]
    for name, share in SIGNS_FOUND.items():
        goals.append(Goal(f"sign of {name} found, of {len(suite)}", (suite[name] > 1).mean(), share, at_least=True, form=".0%"))
    words = Counter(word for _, word in nulls[ALONE])
    number = words.total()
    goals.append(Goal(f"wrong verdicts, of {number} null comparisons", words["faster"] + words["slower"], 0, form="g"))
    what = f"`same`, of {number} null comparisons"
    goals.append(Goal(what, words["same"] / number, SAME_OF_NULLS, at_least=True, form=".0%"))
    if IDLE in nulls:
        idle, none = (statistics.fmean(abs(ratio.estimate - 1) for ratio, _ in nulls[name]) for name in (IDLE, ALONE))
        what = f"identical code {IDLE} of --machines: {idle:.2%} over {none:.2%} {ALONE}, {number} null comparisons each"
        goals.append(Goal(what, idle / none if none else math.inf, WORKER_COSTS, form=".2f"))
    return table("Identical code and planted effects", ("method", "identical: mean", "worst", COST, *SHARES), rows), goals
