"""`selfcheck accuracy`: how far identical code reads apart, and how small an effect is still found, here and elsewhere.

The suite and the other harnesses measure the same lanes of the same model for the same seconds, first alone, then with as
many busy processes beside them as there are cores.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from analysis.goals import Goal, goals_table
from analysis.render import Column, Section, Table
from benchmarks.room import CleanRooms
from benchmarks.selfcheck import lanes, peers
from benchmarks.selfcheck.lanes import COST, IDENTICAL, LANES, MODEL, PLANTED, Reading
from benchmarks.tasks import describe_machine

SAVED = peers.ROOT / "results" / "selfcheck"
SECONDS = 0.5
SUITE, PYTEST_BENCHMARK, TORCH_TIMER, PYPERF = "this suite", "pytest-benchmark", "torch Timer", "pyperf"
ALONE, BUSY = "nothing", "busy"


@dataclass(frozen=True, slots=True)
class Method:
    """A harness, and how often it measures all lanes alone and beside busy processes."""

    name: str
    measure: peers.Measure
    repeats: int
    repeats_busy: int


@dataclass(frozen=True, slots=True)
class Found:
    """A row of the table: what a method read under one condition. Errors are fractions, `signs` counts by planted lane."""

    method: str
    beside: str
    identical_mean: float
    identical_worst: float
    cost_low: float
    cost_high: float
    signs: dict[str, int]
    readings: list[Reading]

    @classmethod
    def of(cls, method: str, beside: str, readings: list[Reading]) -> Found:
        mean, worst = lanes.spread([one.ratios[IDENTICAL] for one in readings])
        costs = [one.ratios[COST] for one in readings]
        signs = {name: sum(one.ratios[name] > 1 for one in readings) for name in PLANTED}
        return cls(method, beside, mean, worst, min(costs), max(costs), signs, readings)


def suite_itself(repeats: int, seconds: float, advance: Callable[[], None]) -> list[Reading]:
    rooms, readings = CleanRooms(60 + seconds * 10 * len(LANES)), []
    for _ in range(repeats):
        timings = rooms.run(lanes.time_built, lanes.build_lanes, seconds, None, lanes=LANES)
        readings.append(lanes.of_rounds(timings.seconds))
        advance()
    return readings


def default_methods() -> list[Method]:
    """Repeats that fit into five minutes: 20 of the suite, as many of the others as the rest of the time allows."""
    alone, beside = (6, 4) if peers.pyperf else (8, 5)
    methods = [
        Method(SUITE, suite_itself, 20, 20),
        Method(PYTEST_BENCHMARK, peers.pytest_benchmark, alone, beside),
        Method(TORCH_TIMER, peers.torch_timer, alone, beside),
    ]
    return [*methods, Method(PYPERF, peers.pyperf, 3, 2)] if peers.pyperf else methods


def accuracy(
    methods: Sequence[Method] | None = None, seconds: float = SECONDS, processes: int | None = None, folder: Path = SAVED
) -> list[Table]:
    """Measures for four to five minutes; returns the table and the goals, saved in `folder` as accuracy.json."""
    methods = default_methods() if methods is None else methods
    processes = processes if processes is not None else os.cpu_count() or 1
    start = time.perf_counter()
    with progress(sum(method.repeats + method.repeats_busy for method in methods)) as (tell, advance):
        found = []
        for method in methods:
            tell(f"{method.name}, alone")
            found.append(Found.of(method.name, ALONE, method.measure(method.repeats, seconds, advance)))
        with lanes.busy(processes):
            for method in methods:
                tell(f"{method.name}, beside {processes} busy processes")
                found.append(Found.of(method.name, BUSY, method.measure(method.repeats_busy, seconds, advance)))
    goals = [goal for beside in (ALONE, BUSY) for goal in _goals([one for one in found if one.beside == beside])]
    rows = [asdict(one) for one in found]
    facts = {"model": f"{MODEL.model} {MODEL.size}", "seconds_per_lane": seconds, "busy_processes": processes}
    path = save(folder / "accuracy.json", start, goals, **facts, found=rows)
    return [_table(found, seconds, processes), goals_table(goals, [f"saved as {path}"])]


def _goals(found: Sequence[Found]) -> Iterator[Goal]:
    """The goals under one condition. Counts are asked for as shares, so that they hold for any number of repeats."""
    by_name = {one.method: one for one in found}
    suite = by_name[SUITE]
    beside, repeats = suite.beside, len(suite.readings)
    yield Goal(
        f"{IDENTICAL}, mean, beside {beside}", _percent(suite.identical_mean), "at most 0.3%", suite.identical_mean <= 0.003
    )
    yield Goal(f"  worst of {repeats}", _percent(suite.identical_worst), "at most 1%", suite.identical_worst <= 0.01)
    for name in (PYTEST_BENCHMARK, TORCH_TIMER):
        if name in by_name:
            peer = by_name[name].identical_mean
            times = peer / suite.identical_mean if suite.identical_mean else math.inf
            yield Goal(f"  mean below that of {name}", f"{times:.0f} times", "at least 20 times", times >= 20,
                       f"{_percent(peer)} / {_percent(suite.identical_mean)}")  # fmt: skip
    for name, share in (("+2 %", 0.95), ("+1 %", 0.75)):
        signs, needed = suite.signs[name], math.ceil(share * repeats)
        yield Goal(f"  sign of {name} found", f"{signs} of {repeats}", f"at least {needed}", signs >= needed)


def _table(found: Sequence[Found], seconds: float, processes: int) -> Table:
    columns = [Column("method", text=True), Column("beside", text=True), Column("A/A mean"), Column("A/A worst"),
               Column(COST), *(Column(name) for name in PLANTED)]  # fmt: skip
    rows = [
        [one.method, one.beside, _percent(one.identical_mean), _percent(one.identical_worst),
         f"{one.cost_low:.3f} to {one.cost_high:.3f}", *(f"{signs}/{len(one.readings)}" for signs in one.signs.values())]
        for one in found
    ]  # fmt: skip
    notes = [
        f"{MODEL.model} {MODEL.size}, one thread, {seconds:g} s per lane, the other harnesses as shipped and by their medians",
        f"beside: {BUSY} is {processes} processes that compute without a pause, as many as cores",
        f"A/A: distance from 1 of the ratio of {IDENTICAL}; {COST}: lowest and highest over repeats",
        "+1 %, +2 %, +5 %: repeats that read a lane with so much extra work as slower than the same lane without",
        *(_interval_note(one) for one in found if one.method == SUITE),
    ]
    if not any(one.method == PYPERF for one in found):
        notes.append("pyperf is not installed; pip install pyperf adds its row")
    return Table(columns, (), [Section("", (), rows)], notes, [asdict(one) for one in found])


def _interval_note(suite: Found) -> str:
    """What the suite read of the planted lanes, and how often its intervals lie above 1 where they should, and beside 1 where they should not."""
    intervals = [one.intervals for one in suite.readings]
    medians = ", ".join(f"{name} {statistics.median(one[name].estimate for one in intervals):.4f}" for name in PLANTED)
    above = ", ".join(f"{name} {sum(one[name].low > 1 for one in intervals)}" for name in PLANTED)
    wrong = sum(not one[IDENTICAL].low <= 1 <= one[IDENTICAL].high for one in intervals)
    return (
        f"{SUITE} beside {suite.beside}: median readings {medians}; of {len(intervals)} intervals (99 %) wholly above 1: {above}; "
        f"{IDENTICAL} excludes 1: {wrong}"
    )


def _percent(fraction: float) -> str:
    return f"{fraction:.2%}"


@contextmanager
def progress(steps: int) -> Iterator[tuple[Callable[[str], None], Callable[[], None]]]:
    """A bar on stderr; yields what tells it what is measured now, and what moves it on by a step."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=steps)
        yield lambda text: bar.update(task, description=text), lambda: bar.advance(task)


def save(path: Path, start: float, goals: Sequence[Goal], **findings: Any) -> Path:
    """Replaces the file at `path` as a whole; `start` is when the check began, by perf_counter."""
    machine = CleanRooms(60).run(describe_machine, ("cpu",), 1)
    whole = {
        "machine": machine,
        "wall_seconds": time.perf_counter() - start,
        **findings,
        "goals": [asdict(goal) for goal in goals],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(whole, indent=1))
    unfinished.replace(path)
    return path
