"""`selfcheck coverage`: how often the 99 % interval holds the truth, beside the methods that were rejected.

Everything is drawn from one seed. Values are log-ratios with a deviation of about 2 %, as on a shared machine.
"""

from __future__ import annotations

import math
import sys
import time
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from analysis.goals import Goal, goals_table
from analysis.render import Column, Section, Table
from benchmarks.record import Interval
from benchmarks.selfcheck.noise import DEVIATION, NOISES, STRONGEST, Floats, white
from benchmarks.statistics import (
    MIN_ROUNDS,
    autocorrelation_time,
    combine,
    median_interval,
    next_look,
    order_statistics,
    paired_ratio,
    settled,
    t99,
    within_precision,
)

Method = Callable[[Floats, np.random.Generator], tuple[float, float]]

ROUNDS = (10, 20, 50, 200, 1000, 2000)
PRECISION = 0.01
LAST_ROUND = 1000
"""The budget of the stopping study is spent after so many rounds."""
WIDTH_ALONE = "width alone"
STOP_REPEATS, PROCESS_REPEATS = 800, 400
FLOOR_FEW, FLOOR_MANY, MAX_WIDTH_FACTOR, MAX_GROUP_SECONDS = 0.95, 0.98, 1.5, 0.05


def bootstrap(values: Floats, rng: np.random.Generator, resamples: int = 500) -> tuple[float, float]:
    """Percentiles of the medians of circular blocks of sqrt(n) rounds (Politis and Romano 1992), by counting values below, without sorting."""
    n = values.size
    length = math.isqrt(n)
    ordered = np.sort(values)
    starts = rng.integers(0, n, (resamples, math.ceil(n / length)))

    def medians_up_to(rank: int) -> float:
        below = np.concatenate(([0], np.cumsum(np.resize(values <= ordered[rank], n + length))))
        return float(np.mean((below[starts + length] - below[starts]).sum(axis=1) > starts.shape[1] * length / 2))

    low, high = (ordered[bisect_left(range(n - 1), share, key=medians_up_to)] for share in (0.005, 0.995))
    return float(low), float(high)


def batches(values: Floats, _: np.random.Generator, number: int = 10) -> tuple[float, float]:
    """Student's t over the medians of ten stretches: their means would be ruled by bursts. n is a multiple of ten."""
    medians = np.median(values.reshape(number, -1), axis=1)
    half = t99(number - 1) * float(medians.std(ddof=1)) / math.sqrt(number)
    return float(medians.mean()) - half, float(medians.mean()) + half


def signs_only(values: Floats, _: np.random.Generator) -> tuple[float, float]:
    """The chosen method less what it does about drift and about few rounds."""
    return order_statistics(values, autocorrelation_time(np.sign(values - np.median(values))))


CHOSEN = "chosen"
METHODS: Mapping[str, tuple[Method, int]] = MappingProxyType({
    CHOSEN: (lambda values, _: median_interval(values), 1000),
    "signs only": (signs_only, 400),
    "bootstrap": (bootstrap, 400),
    "batches": (batches, 400),
})  # fmt: skip
"""By name, with how often each row draws."""


@dataclass(frozen=True, slots=True)
class Row:
    """Of `repeats` intervals, which share held the truth, and the median of half their width on the log scale."""

    name: str
    rounds: int
    method: str
    repeats: int
    share: float
    half_width: float

    @property
    def floor(self) -> float:
        """The share that is asked for; 0 below 20 rounds."""
        many = self.name in NOISES and self.rounds >= NOISES[self.name].rounds_for_98
        return FLOOR_MANY if many else FLOOR_FEW if self.rounds >= 20 else 0.0


def study(name: str, rounds: int, method: str, repeats: int) -> Row:
    """One cell of the table, from a seed of its own."""
    noise, rng = NOISES[name], np.random.default_rng([rounds, *name.encode()])
    ends = np.array([METHODS[method][0](noise.series(rng, rounds), rng) for _ in range(repeats)])
    return _row(name, rounds, method, ends - noise.truth(rounds, rounds))


def study_stopping(name: str, repeats: int, deviation: float = DEVIATION / 2) -> list[Row]:
    """Looks at each run until it may stop: by `settled`, and for comparison by the interval's width alone. `rounds` are means.

    The deviation is half the usual one, so that runs may stop while they are short, where luck has most to say.
    """
    noise, rng = NOISES[name], np.random.default_rng([*name.encode()])
    stops: dict[str, list[tuple[float, float, int]]] = {WIDTH_ALONE: [], CHOSEN: []}
    for _ in range(repeats):
        series = noise.series(rng, LAST_ROUND, deviation)
        seconds, waiting, rounds = np.exp(series), [WIDTH_ALONE, CHOSEN], MIN_ROUNDS
        while waiting:
            pair = seconds[:rounds].tolist(), [1.0] * rounds
            found, truth = paired_ratio(*pair), noise.truth(rounds, LAST_ROUND, deviation)
            narrow = within_precision(found, PRECISION)
            for rule, may_stop in ((WIDTH_ALONE, narrow), (CHOSEN, narrow and settled(*pair, PRECISION))):
                if rule in waiting and (may_stop or rounds == LAST_ROUND):
                    waiting.remove(rule)
                    stops[rule].append((math.log(found.low) - truth, math.log(found.high) - truth, rounds))
            rounds = min(next_look(rounds), LAST_ROUND)
    return [
        _row(name, round(np.mean([rounds for *_, rounds in found])), rule, np.array(found)[:, :2])
        for rule, found in stops.items()
    ]


def study_processes(processes: int, repeats: int, rounds: int = 200) -> list[Row]:
    """White rounds in each process, and processes that differ by as much as their medians' own error."""
    rng, name = np.random.default_rng(processes), f"{processes} processes"
    combined, alike = [], []
    for _ in range(repeats):
        shifts = rng.normal(size=processes) * DEVIATION * math.sqrt(math.pi / 2 / rounds)
        series = [shift + DEVIATION * white(rng, rounds) for shift in shifts]
        alone = [Interval(*np.exp([np.median(values), *median_interval(values)]).tolist()) for values in series]
        one = combine(alone)
        combined.append((math.log(one.low), math.log(one.high)))
        centre, halves = math.log(one.estimate), [math.log(each.high / each.low) / 2 for each in alone]
        half = math.sqrt(np.mean(np.square(halves)) / processes)
        alike.append((centre - half, centre + half))
    return [_row(name, rounds, rule, np.array(ends)) for rule, ends in ((CHOSEN, combined), ("as if alike", alike))]


def _row(name: str, rounds: int, method: str, errors: Floats) -> Row:
    """`errors` are ends less the truth, shape (repeats, 2)."""
    share = float(np.mean((errors[:, 0] <= 0) & (errors[:, 1] >= 0)))
    return Row(name, rounds, method, len(errors), share, float(np.median(errors[:, 1] - errors[:, 0])) / 2)


def seconds_of_group(lanes: int = 8, rounds: int = 5000) -> float:
    """What the intervals of a large group take, the median of five times."""
    rng, took = np.random.default_rng(0), []
    group = [np.exp(DEVIATION * white(rng, rounds)).tolist() for _ in range(lanes)]
    for _ in range(5):
        start = time.perf_counter()
        for lane in group[1:]:
            paired_ratio(group[0], lane)
        took.append(time.perf_counter() - start)
    return float(np.median(took))


def coverage() -> list[Table]:
    """Draws every noise for every method and number of rounds (about two minutes); returns the tables and a row for each goal."""
    rows, stops = [], []
    for name in NOISES:
        print(f"{name} ...", file=sys.stderr, flush=True)  # noqa: T201 - progress of a command
        rows += [study(name, rounds, method, repeats) for rounds in ROUNDS for method, (_, repeats) in METHODS.items()]
        stops += study_stopping(name, STOP_REPEATS)
    processes = [row for number in (2, 3, 5) for row in study_processes(number, PROCESS_REPEATS)]
    repeats = ", ".join(f"{name} {count}" for name, (_, count) in METHODS.items())
    shown = "how many 99 % intervals hold the truth; half their width in %"
    return [
        _table(rows, list(METHODS), f"by number of rounds, {shown}; values deviate by 2 %; drawn so often: {repeats}", _half_width),
        _table(stops, [WIDTH_ALONE, CHOSEN], f"the same where rounds stop at +-{PRECISION:.0%}, or at {LAST_ROUND:,}, and how many rounds it took on average; "
               f"values deviate by 1 %; drawn {STOP_REPEATS} times", lambda row: f"{row.rounds:,}"),
        _table(processes, [CHOSEN, "as if alike"], f"{shown}; 200 white rounds in each process, processes differ by as much as their medians' own error; drawn "
               f"{PROCESS_REPEATS} times", _half_width),
        goals_table(_goals(rows, stops, processes), [_price_of_few(rows)]),
    ]  # fmt: skip


def _goals(rows: Sequence[Row], stops: Sequence[Row], processes: Sequence[Row]) -> list[Goal]:
    own = [row for row in rows if row.method == CHOSEN]
    asked = [
        ("holds the truth from 200 rounds on (AR 0.9 from 1,000)", [row for row in own if row.floor == FLOOR_MANY], FLOOR_MANY),
        ("holds the truth from 20 rounds on", [row for row in own if row.floor], FLOOR_FEW),
        ("holds the truth where looking decides when to stop", [row for row in stops if row.method == CHOSEN], FLOOR_MANY),
        ("holds the truth across processes", [row for row in processes if row.method == CHOSEN], FLOOR_MANY),
    ]
    goals = []
    for what, among, floor in asked:
        worst = min(among, key=lambda row: row.share)
        goals.append(
            Goal(what, f"{_percent(worst)} %", f"at least {floor:.0%}", worst.share >= floor, f"{worst.name}, {worst.rounds}")
        )
    wide, narrow = max(_against_narrowest(rows, FLOOR_MANY), key=_factor)
    factor = _factor((wide, narrow))
    taken = seconds_of_group()
    return [
        *goals,
        Goal("width over the narrowest that holds as often, same rows", f"{factor:.2f}", f"at most {MAX_WIDTH_FACTOR}",
             factor <= MAX_WIDTH_FACTOR, f"{narrow.method}: {wide.name}, {wide.rounds}"),
        Goal("analysis of a group of 8 lanes, 5,000 rounds", f"{taken * 1000:.0f} ms",
             f"under {MAX_GROUP_SECONDS * 1000:.0f} ms", taken < MAX_GROUP_SECONDS, "median of 5"),
    ]  # fmt: skip


def _against_narrowest(rows: Sequence[Row], floor: float) -> list[tuple[Row, Row]]:
    """The chosen method's rows of which `floor` is asked, each with the narrowest row of the same noise and rounds that reaches it."""
    return [
        (own, min((row for row in rows if (row.name, row.rounds) == (own.name, own.rounds) and row.share >= floor),
                  key=lambda row: row.half_width, default=own))
        for own in rows if own.method == CHOSEN and own.floor == floor
    ]  # fmt: skip


def _factor(pair: tuple[Row, Row]) -> float:
    return pair[0].half_width / pair[1].half_width


def _price_of_few(rows: Sequence[Row]) -> str:
    wide, narrow = max(_against_narrowest(rows, FLOOR_FEW), key=_factor)
    strong = {row.rounds: row for row in rows if (row.name, row.method) == (STRONGEST, narrow.method)}[wide.rounds]
    return (
        f"price of few rounds: {_factor((wide, narrow)):.1f} times as wide as {narrow.method} ({wide.name}, {wide.rounds} rounds); "
        f"{narrow.method} hold the truth of {STRONGEST} {_percent(strong)} % of the time there"
    )


def _table(rows: Sequence[Row], methods: Sequence[str], note: str, second: Callable[[Row], str]) -> Table:
    """A section per noise and a row per number of rounds, or a row per noise if there is only one; every cell ends with `second`."""
    chunks = [rows[at : at + len(methods)] for at in range(0, len(rows), len(methods))]  # a row per method, in order
    lines = [(chunk[0], [f"{_percent(row)} %  {second(row):>6}" for row in chunk]) for chunk in chunks]
    columns = [Column("", text=True), *(Column(method) for method in methods)]
    names = dict.fromkeys(row.name for row in rows)
    if len(names) == len(lines):
        return Table(columns, (), [Section("", (), [[first.name, *cells] for first, cells in lines])], [note])
    sections = [
        Section(name, (name,), [[f"{first.rounds:>6,}", *cells] for first, cells in lines if first.name == name])
        for name in names
    ]
    return Table(columns, ("noise",), sections, [note])


def _half_width(row: Row) -> str:
    return f"{row.half_width:.2%}".removesuffix("%")


def _percent(row: Row) -> str:
    """The share in per cent, in steps no finer than its standard error."""
    error = math.sqrt(max(row.share * (1 - row.share), 0.01) / row.repeats)
    return f"{row.share * 100:.0f}" if error > 0.005 else f"{round(row.share * 200) / 2:.1f}"
