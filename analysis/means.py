"""`summarise --by`: geometric means of one metric as a table, a row per value, a column per mode. Frame in, Table out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import fields
from types import MappingProxyType
from typing import TYPE_CHECKING

from analysis.allocators import TITLES
from analysis.figures import MISSING, percent_text, ratio_text, speedup_text
from analysis.render import Column, Section, Table
from benchmarks.record import CONTEXT, DEFAULT, OPERATORS, RESIDENT, Memory, Row, Unmeasured

if TYPE_CHECKING:
    import pandas as pd

BY = ("model", "size", "mode", "scenario", "device", "dtype", "allocator", "run", "machine", "torch", "commit", "threads")
TIMES = ("speedup", "seconds", "device_seconds")
EXACT = ("page_faults", *(one.name for one in fields(Memory) if "int" in str(one.type)))
METRICS = (*TIMES, *EXACT)

APART = ("scenario", "device", "dtype", "allocator")
"""What is never averaged together: each has a section of its own, unless it is asked for by name."""

ALLOCATOR_TITLES: Mapping[str, str] = MappingProxyType({name: f"{title} ({name})" for name, title in TITLES.items()})


def means_table(
    frame: pd.DataFrame, by: Sequence[str], metric: str = "speedup", unmeasured: Sequence[Unmeasured] = ()
) -> Table:
    """`frame` holds `summarise.needed_columns` of one run or more; `by` are names of BY, `metric` is one of METRICS."""
    from analysis import load, summarise

    if not frame.empty:
        frame = frame[~(frame["scenario"].eq(OPERATORS) & frame["model"].eq(CONTEXT))]
    if frame.empty:
        return Table([], (), [], _lost(unmeasured))
    every = summarise.ratios(frame, metric)
    if _is_memory(metric) and "allocator" not in by:  # measured once for both, one of which may lack the case
        known_first = every.iloc[every["ratio"].isna().argsort(kind="stable")]
        every = known_first.drop_duplicates(["run", *(name for name in summarise.CASE if name != "allocator")])
    rows = every[every["ratio"].notna() & (every["trusted"].astype(bool) | (metric not in TIMES))]
    apart = [name for name in APART if name not in by and not (name == "allocator" and _is_memory(metric))]
    keys = list(dict.fromkeys([*apart, *by, "mode"]))
    cells = load.rows_of(summarise.means(rows, keys))
    return Table(
        columns=_columns(cells, by, metric),
        key_titles=tuple(apart),
        sections=_sections(cells, apart, by, metric),
        notes=[*_definitions(frame, metric), *_left_out(every, metric), *_kernels(rows), *_spread(rows), *_lost(unmeasured)],
        raw=[_raw(cell, keys, metric) for cell in cells],
    )


def _is_memory(metric: str) -> bool:
    return metric in EXACT and metric != "page_faults"


def _modes(cells: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(cell["mode"] for cell in cells))


def _columns(cells: Sequence[Row], by: Sequence[str], metric: str) -> list[Column]:
    """Of many modes the terminal leaves the last out first."""
    names = [Column(name, text=True) for name in by]
    if "mode" in by:
        return [*names, Column(metric), Column("lowest"), Column("highest"), Column("cases")]
    modes = _modes(cells)
    return [*names, *(Column(mode, optional=len(modes) - number) for number, mode in enumerate(modes)), Column("cases")]


def _sections(cells: Sequence[Row], apart: Sequence[str], by: Sequence[str], metric: str) -> list[Section]:
    """Rows in the order in which each value was first met, the first of `by` before the second."""
    ranks = {name: {value: number for number, value in enumerate(dict.fromkeys(cell[name] for cell in cells))} for name in by}
    sections: dict[tuple[str, ...], dict[tuple[str, ...], dict[str, Row]]] = {}
    for cell in sorted(cells, key=lambda cell: [ranks[name][cell[name]] for name in by]):
        section = sections.setdefault(tuple(cell[name] for name in apart), {})
        section.setdefault(tuple(MISSING if cell[name] is None else str(cell[name]) for name in by), {})[cell["mode"]] = cell
    return [
        Section(
            ", ".join(ALLOCATOR_TITLES.get(value, value) for value in key),
            key,
            [[*values, *_figures(found, None if "mode" in by else _modes(cells), metric)] for values, found in lines.items()],
        )
        for key, lines in sections.items()
    ]


def _figures(found: Mapping[str, Row], modes: Sequence[str] | None, metric: str) -> list[str]:
    """One row's cells: a mean per mode and their number of cases, or that of its one mode with its outermost single ratios."""
    if modes is None:
        (one,) = found.values()
        return [_mean(one, metric), ratio_text(one["lowest"]), ratio_text(one["highest"]), str(one["cases"])]
    numbers = sorted({cell["cases"] for cell in found.values()})
    span = str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"
    return [*(_mean(found[mode], metric) if mode in found else MISSING for mode in modes), span]


def _mean(cell: Row, metric: str) -> str:
    """Times to the digit that their noise leaves certain; only the speedup's interval is one of pairs, and shown."""
    text = speedup_text if metric == "speedup" else ratio_text
    ends = (cell["low"], cell["high"]) if metric in TIMES else (None, None)
    return (text(cell["ratio"], *ends) if cell["ratio"] else "0") + ("*" if cell["other_kernels"] else "")


def _raw(cell: Row, keys: Sequence[str], metric: str) -> Row:
    figures: Row = {name: cell[name] for name in ("ratio", "lowest", "highest", "cases", "other_kernels")}
    ends = {name: cell[name] if metric == "speedup" else None for name in ("low", "high")}
    return {**{name: cell[name] for name in keys}, "metric": metric, **figures, **ends}


def _definitions(frame: pd.DataFrame, metric: str) -> list[str]:
    what = {name: [str(one) for one in frame[name].unique()] for name in (*APART, "run")}
    runs = f"{len(what['run']):,} run{'s' if len(what['run']) > 1 else ''}"
    measured = "; ".join([runs, *(", ".join(what[name]) for name in APART)])
    mean = "geometric mean over cases (of a case first over its runs)" if len(what["run"]) > 1 else "geometric mean over cases"
    if metric == "speedup":
        told = f"speedup: tracked's time over the mode's, {mean}, ± the wider half of its 99 % interval; above 1: faster"
    else:
        told = f"{metric}: the mode's over tracked's, {mean}; below 1: less than tracked"
    meanings = {
        RESIDENT: "while the allocator keeps its pages",
        DEFAULT: "with the allocator left as it is, a process per mode",
    }
    allocators = [] if _is_memory(metric) else [f"{TITLES[name]}: {meanings[name]} ({name})" for name in what["allocator"] if name in meanings]  # fmt: skip
    return [f"measured: {measured}", told, *allocators]


def _left_out(every: pd.DataFrame, metric: str) -> list[str]:
    untrusted = ~every["trusted"].astype(bool) & (metric in TIMES)
    missing = every["ratio"].isna() & ~untrusted
    zero = every["ratio"].eq(0)
    notes = []
    if untrusted.any():
        notes.append(f"left out, for their group is untrusted: {untrusted.sum():,} of {len(every):,} cases")
    if missing.any():
        notes.append(
            f"left out, for there is no ratio (not measured, or 0 of tracked): {missing.sum():,} of {len(every):,} cases"
        )
    if zero.any():
        notes.append(f"0 in {zero.sum():,} of {len(every):,} cases: a mean is 0 where all are, else that of the others")
    return notes


def _kernels(rows: pd.DataFrame) -> list[str]:
    other = rows[rows["same_kernels"].eq(False)]
    names = ", ".join(other["model"].unique())
    return [f"*: other kernels than tracked in some of the cases, so not tracking alone ({names})"] if len(other) else []


def _spread(rows: pd.DataFrame) -> list[str]:
    """How far runs of the same case lie apart."""
    from analysis import summarise

    cases = summarise.repeats(rows[rows["ratio"] > 0], ())
    cases = cases[cases["deviation"].notna()].sort_values("deviation", ascending=False)
    if cases.empty:
        return []
    (worst,) = cases.head(1).to_dict("records")
    name = " ".join(worst[field] for field in ("model", "size", "mode", "allocator"))
    middle, most = percent_text(cases["deviation"].median()), percent_text(worst["deviation"])
    return [f"between runs of the same case: standard deviation {middle} in the median case, {most} in the worst ({name})"]


def _lost(unmeasured: Sequence[Unmeasured]) -> list[str]:
    if not unmeasured:
        return []
    numbers = Counter(one.status for one in unmeasured)
    texts = ", ".join(f"{number:,} {status}" for status, number in numbers.items())
    return [f"not measured: {texts}; `summarise RUN` of a single run tells the cases and reasons"]
