"""What the two allocators tell together: where their speedups disagree and why, and what keeping pages would gain."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from analysis.figures import count_text, ratio_text, speedup_text
from benchmarks.record import DEFAULT, RESIDENT, Row

GROUP = ("scenario", "model", "size", "device", "dtype")
"""What tells the sections of the table apart: a group but for its allocator."""

TITLES: Mapping[str, str] = MappingProxyType({RESIDENT: "tracking alone", DEFAULT: "as shipped"})
"""What an allocator's speedup is called beside the other's."""

SHOWN = 4
"""Of a list that can grow long, the largest few."""

WORTH_KEEPING = 1.01
"""From which gain on, shown by its whole interval, it is said what keeping pages would bring."""

KEEP_PAGES = "MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=2147483647, or jemalloc"

Name = Callable[[Row], str]
"""A row's group in as few words as tell it from the others."""


def titles_of(rows: Iterable[Row]) -> dict[str, str]:
    """The allocators in `rows` and what their speedups are called: by their titles where there are two to tell apart."""
    found = {row["allocator"] for row in rows}
    return {name: TITLES[name] for name in TITLES if name in found} if len(found) > 1 else dict.fromkeys(found, "speedup")


def group_of(row: Row) -> tuple[str, ...]:
    return tuple(row[name] for name in GROUP)


@dataclass(frozen=True, slots=True)
class Pair:
    """The rows of one case by both allocators, and the page faults per call of tracked as shipped."""

    alone: Row
    shipped: Row
    tracked_faults: float | None

    @property
    def disagrees(self) -> bool:
        """Whether the two intervals lie apart."""
        ends = [row[f"speedup_{end}"] for row in (self.alone, self.shipped) for end in ("low", "high")]
        return None not in ends and bool(ends[1] < ends[2] or ends[3] < ends[0])

    @property
    def distance(self) -> float:
        return abs(math.log(self.shipped["speedup"] / self.alone["speedup"]))

    @property
    def by_faults(self) -> bool:
        """Whether page faults explain the difference.

        With f faults per call at c seconds each, the speedup as shipped is (t_tracked + c f_tracked) / (t_mode + c f_mode), which lies
        between that of tracking alone and f_tracked / f_mode. So they do where it lies on that side, and there are faults at all.
        """
        if self.tracked_faults is None or self.shipped["page_faults"] is None:
            return False
        pulled_up = self.tracked_faults > self.alone["speedup"] * self.shipped["page_faults"]
        risen = self.shipped["speedup"] > self.alone["speedup"]
        return max(self.tracked_faults, self.shipped["page_faults"]) >= 1 and bool(pulled_up == risen)

    def __str__(self) -> str:
        read = [ratio_text(*(row[f"speedup{end}"] for end in ("", "_low", "_high"))) for row in (self.alone, self.shipped)]
        text, faults = f"{self.alone['mode']} {' and '.join(read)}", self.shipped["page_faults"]
        if faults is None or self.tracked_faults is None:
            return text
        return f"{text} ({count_text(faults)} faults a call, tracked {count_text(self.tracked_faults)})"


def trusted_pairs(rows: Sequence[Row]) -> list[Pair]:
    """Of the cases in `rows` that both allocators measured and whose groups can be trusted."""
    shipped = {(*group_of(row), row["mode"]): row for row in rows if row["allocator"] == DEFAULT and row["trusted"]}
    alone = {(*group_of(row), row["mode"]): row for row in rows if row["allocator"] == RESIDENT and row["trusted"]}
    faults = {group_of(row): row["page_faults"] for row in shipped.values() if row["mode"] == "tracked"}
    return [Pair(row, shipped[case], faults.get(case[:-1])) for case, row in alone.items() if case in shipped]


def disagreements(pairs: Iterable[Pair], name: Name) -> list[str]:
    """A note for those that page faults explain and one for the others; of each group the mode that differs most."""
    apart = sorted((pair for pair in pairs if pair.disagrees), key=lambda pair: -pair.distance)
    notes = []
    for by_faults, reason in (
        (True, "because of page faults"),
        (False, "and page faults do not tell why (as shipped, each mode has a process of its own)"),
    ):
        found = [pair for pair in apart if pair.by_faults == by_faults]
        furthest: dict[str, str] = {}
        for pair in found:
            furthest.setdefault(name(pair.alone), f"{name(pair.alone)} {pair}")
        if found:
            notes.append(f"{' and '.join(TITLES.values())} disagree, {reason}: {_few([*furthest.values()], len(found))}")
    return notes


def kept_pages(rows: Iterable[Row], name: Name) -> list[str]:
    """What tracked would gain from an allocator that keeps its pages, measured beside the modes, and the best that a mode gains there."""
    shipped = [row for row in rows if row["allocator"] == DEFAULT and row["trusted"]]
    gains = {group_of(row): row for row in shipped if (row["kept_pages_low"] or 0) >= WORTH_KEEPING}
    best: dict[tuple[str, ...], Row] = {}
    for row in shipped:
        if row["verdict"] == "faster":
            best[group_of(row)] = max(row, best.get(group_of(row), row), key=lambda one: one["speedup"])
    worth = sorted(gains.values(), key=lambda row: -row["kept_pages"])
    if not worth:
        return []
    texts = []
    for row in worth:
        fastest = best.get(group_of(row))
        beside = f"best mode {_with_interval(fastest, 'speedup')}" if fastest else "no mode is faster"
        texts.append(f"{name(row)} {_with_interval(row, 'kept_pages')} ({beside})")
    return [f"keeping pages ({KEEP_PAGES}) would make tracked faster as shipped: {_few(texts, len(texts))}"]


def _with_interval(row: Row, ratio: str) -> str:
    return speedup_text(row[ratio], row[f"{ratio}_low"], row[f"{ratio}_high"])


def _few(texts: Sequence[str], total: int) -> str:
    shown = texts[:SHOWN]
    return "; ".join([*shown, *([f"and {total - len(shown)} more"] if total > len(shown) else [])])
