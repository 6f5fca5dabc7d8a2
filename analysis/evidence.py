"""What the rows of a run show, with intervals: readings that count, bytes beside tracked's, and how to say them. No pandas."""

from __future__ import annotations

import math
import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import Any

from analysis.allocators import Name, group_of, titles_of
from analysis.figures import speedup_text
from analysis.render import WIDTH
from benchmarks.record import DEFAULT, FORWARD, RESIDENT, Case, Interval, Row

BASELINE = "tracked"

SWITCHES = ("no_grad", "inference_mode", "set_grad_enabled", "no_grad_decorator")
"""Modes that switch tracking off for a block of code, the usual ones first."""

VERDICTS = ("faster", "slower", "same", "unclear")


def readable(rows: Iterable[Row], scenario: str = FORWARD) -> list[Row]:
    """The rows of `scenario`, without any interval that lacks an end, is out of order, or is no ratio of times."""
    found = []
    for row in rows:
        if row["scenario"] != scenario:
            continue
        texts = {field.name: one_line(row[field.name] or "") for field in fields(Case)}
        ratios = [name for name in ("speedup", "placebo", "over_no_grad", "kept_pages") if not _is_ratio(*_ends(row, name))]
        found.append({**row, **texts, **{f"{name}{end}": None for name in ratios for end in ("", "_low", "_high")}})
    return found


def one_line(text: object) -> str:
    return " ".join(str(text).split())


def _ends(row: Row, name: str) -> tuple[Any, Any, Any]:
    return row[f"{name}_low"], row[name], row[f"{name}_high"]


def _is_ratio(low: float | None, estimate: float | None, high: float | None) -> bool:
    return low is not None and estimate is not None and high is not None and 0 < low <= estimate <= high < math.inf


def interval(row: Row, name: str = "speedup") -> Interval:
    low, estimate, high = _ends(row, name)
    return Interval(estimate, low, high)


def timed(rows: Iterable[Row], mode: str, allocator: str | None = None) -> list[Row]:
    """The rows of `mode` that are evidence about time: of a trusted group, with a speedup, by one allocator or by any."""
    return [
        row for row in rows
        if row["mode"] == mode and row["trusted"] and row["speedup"] is not None and row["verdict"] in VERDICTS
        and allocator in (None, row["allocator"])
    ]  # fmt: skip


def tally(rows: Iterable[Row]) -> Counter[str]:
    return Counter(row["verdict"] for row in rows)


def beside_tracked(rows: Iterable[Row], mode: str, figure: str) -> list[tuple[Row, int, int]]:
    """Of each group that has both: the mode's row, its bytes and tracked's. Memory is the same for every allocator, so a group counts once.

    Bytes are exact, whether or not the group's times can be trusted.
    """
    known: dict[str, dict[tuple[str, ...], Row]] = {BASELINE: {}, mode: {}}
    for row in rows:
        if row["mode"] in known and row[figure] is not None:
            known[row["mode"]].setdefault(group_of(row), row)
    tracked = known[BASELINE]
    return [(row, row[figure], tracked[group][figure]) for group, row in known[mode].items() if group in tracked]


def by_allocator(rows: Sequence[Row], mode: str) -> dict[str, list[Row]]:
    """What is evidence about the mode's time, under the titles of the allocators that have any, tracking alone first."""
    found = {
        title: timed(rows, mode, allocator) for allocator, title in titles_of(rows).items() if allocator in (RESIDENT, DEFAULT)
    }
    return {title: some for title, some in found.items() if some}


def tally_text(rows: Sequence[Row]) -> str:
    counts = tally(rows)
    first, *rest = [verdict for verdict in VERDICTS if counts[verdict]]
    return ", ".join([f"{first}{on_groups(counts[first], len(rows))}", *(f"{one} on {counts[one]}" for one in rest)])


def of_all(number: int, total: int, unit: str) -> str:
    return f"{number} of {total} {unit}{'' if total == 1 else 's'}"


def on_groups(number: int, total: int) -> str:
    """Goes without saying where there is one group."""
    return "" if number == total == 1 else f" on {of_all(number, total, 'group')}"


def untrusted_groups(rows: Sequence[Row], name: Name) -> list[str]:
    titles = titles_of(rows)
    return [
        f"{name(row)} {titles.get(row['allocator'], '') if len(titles) > 1 else ''}".strip()
        for row in rows
        if not row["trusted"]
    ]


def switch_of(rows: Iterable[Row]) -> str:
    """The mode that stands for those that switch tracking off: the first of SWITCHES that was measured."""
    there = {row["mode"] for row in rows}
    return next((mode for mode in SWITCHES if mode in there), SWITCHES[0])


def namer(rows: Sequence[Row]) -> Name:
    """Names a group among `rows`: model and size, device and dtype where they differ; a user's model that has no sizes by its name."""
    differing = [name for name in ("device", "dtype") if len({row[name] for row in rows}) > 1]

    def name(row: Row) -> str:
        size = [] if row["size"] == "own" else [row["size"]]
        return " ".join([row["model"], *size, *(row[field] for field in differing)])

    return name


def figure(row: Row, name: str = "speedup") -> str:
    """`1.24 ±0.01`: the ratio and the wider half of its interval."""
    read = interval(row, name)
    return speedup_text(read.estimate, read.low, read.high)


def span(rows: Sequence[Row], name: Name) -> str:
    """The lowest and the highest speedup of `rows` (at least one) and where they were read."""
    ordered = sorted(rows, key=lambda row: row["speedup"])
    return " to ".join(f"{figure(row)} ({name(row)})" for row in (ordered[0], *ordered[1:][-1:]))


def wrapped(text: str, first: str = "", rest: str = "") -> list[str]:
    """Lines of at most 100 columns, with the first and the later ones indented; a figure stays with its interval."""
    kept = text.replace(" ±", "\N{NO-BREAK SPACE}±")
    lines = textwrap.wrap(kept, WIDTH, initial_indent=first, subsequent_indent=rest)
    return [line.replace("\N{NO-BREAK SPACE}±", " ±") for line in lines]


def few(texts: Iterable[str], shown: int = 4) -> str:
    """The first few, and how many more there are."""
    listed = list(dict.fromkeys(texts))
    if len(listed) > shown:
        listed = [*listed[:shown], f"{len(listed) - shown} more"]
    return listed[0] if len(listed) == 1 else f"{', '.join(listed[:-1])} and {listed[-1]}" if listed else ""


def by_size(rows: Sequence[Row], tracked: Iterable[Row]) -> dict[str, Interval]:
    """The geometric mean of each size's speedups, sizes by tracked's seconds, over the same models, devices and dtypes in every size.

    Empty where nothing has two sizes. The interval is the groups' own half-widths in quadrature over their number: they were measured
    independently, and it is about these models, not about others.
    """
    sizes: dict[str, dict[tuple[str, ...], Row]] = {}
    for row in rows:
        sizes.setdefault(row["size"], {})[row["model"], row["device"], row["dtype"]] = row
    common = set.intersection(*(set(found) for found in sizes.values())) if len(sizes) > 1 else set()
    if not common:
        return {}
    seconds = dict.fromkeys(sizes, 0.0)
    for row in tracked:
        if (row["model"], row["device"], row["dtype"]) in common and row["size"] in sizes:
            seconds[row["size"]] += row["seconds"] or 0.0
    return {size: _mean([interval(sizes[size][one]) for one in common]) for size in sorted(sizes, key=seconds.__getitem__)}


def fades(sizes: dict[str, Interval]) -> bool:
    """Whether the speedup of the slowest size lies below that of the fastest by their whole intervals."""
    read = list(sizes.values())
    return len(read) > 1 and read[-1].high < read[0].low


def sizes_text(sizes: dict[str, Interval]) -> str:
    return ", ".join(f"{size} {speedup_text(one.estimate, one.low, one.high)}" for size, one in sizes.items())


def _mean(read: Sequence[Interval]) -> Interval:
    centre = math.fsum(math.log(one.estimate) for one in read) / len(read)
    below, above = (
        math.hypot(*(math.log(ratio) for ratio in ratios)) / len(read)
        for ratios in ([one.estimate / one.low for one in read], [one.high / one.estimate for one in read])
    )
    return Interval(math.exp(centre), math.exp(centre - below), math.exp(centre + above))


def between(mode: Row, other: Row) -> Interval:
    """seconds(other) / seconds(mode) of two rows of one group: that of paired rounds where the run has it (`over_no_grad`).

    Else it is of the two speedups against the same tracked lane.
    Half-widths are added in quadrature on logarithms (the method of variance estimates recovery, Zou and Donner 2008, Statistics in
    Medicine 27). That takes the two speedups as independent. They share tracked's noise, which makes them move together, and so the
    interval is wider than it need be: 1.1 to 2.6 times that from paired rounds in the groups of the reference run that keep their pages.
    """
    if other["mode"] == "no_grad" and mode["over_no_grad"] is not None:
        return interval(mode, "over_no_grad")
    one, two = interval(mode), interval(other)
    estimate = one.estimate / two.estimate
    below = math.hypot(math.log(one.estimate / one.low), math.log(two.high / two.estimate))
    above = math.hypot(math.log(one.high / one.estimate), math.log(two.estimate / two.low))
    return Interval(estimate, estimate * math.exp(-below), estimate * math.exp(above))
