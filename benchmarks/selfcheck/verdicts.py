"""`selfcheck verdicts`: how often identical code is called faster or slower, and how often an interval holds a planted effect."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from analysis.goals import Goal, goals_table
from analysis.render import Table
from benchmarks import options, suite
from benchmarks.modes import TRACKED, Step
from benchmarks.plan import plan
from benchmarks.record import Interval
from benchmarks.results import settled_group
from benchmarks.room import CleanRooms
from benchmarks.selfcheck.accuracy import ALONE, BUSY, SAVED, progress, save
from benchmarks.selfcheck.lanes import BASE, MODEL, busy, planted, spread, time_built
from benchmarks.statistics import paired_ratio, verdict

GROUPS, TWINS, COPIES, FRACTION = 25, 8, 4, 0.05
NEAR = 0.003
"""An interval that misses the planted ratio by no more still counts as holding it; the plant itself is known within 0.001."""
LANE_SECONDS = options.BUDGET_SECONDS / 5
"""What a lane of a default group has: four modes and the placebo share the budget."""


@dataclass(frozen=True, slots=True)
class Intervals:
    """The intervals that one timing gave: tracked over identical lanes, and planted lanes over their base."""

    identical: list[Interval]
    planted: list[Interval]


def build_group() -> dict[str, Step]:
    workload = MODEL.workload()
    tracked = TRACKED.bind(workload.module, workload.run)
    twins = {f"identical {number}": TRACKED.bind(workload.module, workload.run) for number in range(TWINS)}
    longer = {f"planted {number}": planted(tracked, FRACTION) for number in range(COPIES)}
    return {TRACKED.name: tracked, **twins, BASE: planted(tracked, 0.0), **longer}


settled = partial(settled_group, precision=options.PRECISION)
"""As in a run with default options."""


def time_a_group() -> Intervals:
    seconds = CleanRooms(options.TIMEOUT_SECONDS).run(time_built, build_group, LANE_SECONDS, settled).seconds
    return Intervals(
        [paired_ratio(seconds[TRACKED.name], one) for name, one in seconds.items() if name.startswith("identical")],
        [paired_ratio(one, seconds[BASE]) for name, one in seconds.items() if name.startswith("planted")],
    )


def placebos_of_medium_models() -> dict[str, list[float]]:
    """What the placebo reads for each built-in model of medium size, in a run with default options; thrown-away timings count too."""
    chosen = options.parse(sizes="medium", device="cpu", allocator="resident")
    rooms, found = suite.rooms_for(chosen), {}
    bench = suite.Bench(chosen, rooms)
    for one in plan(chosen, rooms):
        results = [timed.result for timed in bench.measure(one).measured]
        read = [results[0].placebo, *results[0].discarded_placebos] if results else []
        found[one.group.model] = [placebo.estimate for placebo in read if placebo is not None]
    return found


def verdicts(
    processes: int = 0, groups: int = GROUPS, folder: Path = SAVED,
    time_group: Callable[[], Intervals] = time_a_group, medium: Callable[[], dict[str, list[float]]] = placebos_of_medium_models,
) -> list[Table]:  # fmt: skip
    """Measures for two to six minutes beside so many busy processes; returns the counts and the goals, saved in `folder`."""
    start, found, beside = time.perf_counter(), [], BUSY if processes else ALONE
    with busy(processes), progress(groups + 1) as (tell, advance):
        tell(f"{MODEL.model} {MODEL.size}, beside {beside}")
        for _ in range(groups):
            found.append(time_group())
            advance()
        tell(f"medium models, beside {beside}")
        models = medium()
        advance()
    goals = list(
        _goals([one for group in found for one in group.identical], [one for group in found for one in group.planted], models)
    )
    findings = {"beside": beside, "busy_processes": processes, "groups": [asdict(one) for one in found], "medium": models}
    path = save(folder / f"verdicts-{beside}.json", start, goals, **findings)
    notes = [
        f"{MODEL.model} {MODEL.size}, beside {beside}: {groups} groups, {LANE_SECONDS:g} s per lane at most, stopped as a run stops",
        "comparisons of one group share one baseline and one stretch of time: they are not independent of each other",
        f"medium models: {', '.join(f'{name} {_readings(read)}' for name, read in models.items())}",
        f"saved as {path}",
    ]
    return [goals_table(goals, notes)]


def _goals(identical: Sequence[Interval], longer: Sequence[Interval], models: Mapping[str, Sequence[float]]) -> Iterator[Goal]:
    words = Counter(map(verdict, identical))
    n, wrong, same = len(identical), words["faster"] + words["slower"], words["same"]
    yield Goal(f"identical code called faster or slower, of {n}", f"{wrong}", f"at most {n // 100}", wrong <= n // 100,
               ", ".join(f"{word} {count}" for word, count in words.items()))  # fmt: skip
    yield Goal(f"identical code shown to be the same, of {n}", f"{same}", f"at least {n // 2}", same >= n / 2)
    truth, n = 1 + FRACTION, len(longer)
    held, near = (sum(one.low - slack <= truth <= one.high + slack for one in longer) for slack in (0.0, NEAR))
    yield Goal(f"planted 5% held within 0.3%, of {n}", f"{near}", f"at least {round(0.98 * n)}", near >= 0.98 * n,
               f"{held} by the interval itself")  # fmt: skip
    mean, worst = spread([one for read in models.values() for one in read])
    yield Goal("identical code, mean of medium models", f"{mean:.2%}", "at most 1%", mean <= 0.01, f"worst {worst:.2%}")


def _readings(read: Sequence[float]) -> str:
    return " and ".join(f"{one:.4f}" for one in read) or "not measured"
