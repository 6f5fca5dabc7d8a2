"""A frame has a row per case: how results make it, and the questions that are asked of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from functools import partial
from operator import attrgetter
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.intervals import quotient, t_quantile
from benchmarks.record import (
    ALONE,
    CASE,
    CONTEXT,
    EAGER,
    FORWARD,
    GROUP,
    OPERATORS,
    PAGES_KEPT,
    SWITCHES,
    Interval,
    Memory,
    Result,
)

JOB = tuple(name for name in GROUP if name != "allocator")
"""The fields of a group but its allocator. Memory is measured once for both, so it belongs to a job and a mode."""

TRACKED = "tracked"

BYTES = tuple(field.name for field in fields(Memory) if field.name not in ("saved_by_module", "unavailable"))

_SCALARS = {
    "seconds": "float", "verdict": "str", "trusted": "boolean", "resolution": "float", "washout_calls": "Int64",
    "after_switch_seconds": "float", "page_faults": "float", "host_seconds": "float", "busy_seconds": "float", "bound_by": "str",
    "driver_allocations": "float", "compile_seconds": "float", "recompilations": "Int64", "steps": "Int64", "also_as_shipped": "boolean",
}  # fmt: skip


def _end_of(interval: str, end: str, result: Result) -> float | None:
    found = getattr(result, interval)
    return None if found is None else float(getattr(found, end))


def seconds_noise(result: Result) -> float | None:
    """The relative 99 % half-width of `seconds`, by Student's t over processes; None for fewer than two."""
    logarithms = np.log([reading.seconds for reading in result.processes])
    if logarithms.size < 2:
        return None
    with np.errstate(over="ignore"):
        return float(np.expm1(t_quantile(logarithms.size - 1) * logarithms.std(ddof=1) / np.sqrt(logarithms.size)))


_COLUMNS: Sequence[tuple[str, str, Callable[[Result], Any]]] = [
    *((name, "str", attrgetter(f"case.{name}")) for name in CASE),
    *((name, kind, attrgetter(name)) for name, kind in _SCALARS.items()),
    *(
        (f"{interval}{suffix}", "float", partial(_end_of, interval, end))
        for interval in ("speedup", "placebo", "over_no_grad", "kept_pages")
        for suffix, end in (("", "estimate"), ("_low", "low"), ("_high", "high"))
    ),
    ("seconds_noise", "float", seconds_noise),
    *((name, "Int64", attrgetter(f"memory.{name}")) for name in BYTES),
    ("same_kernels", "boolean", attrgetter("kernels.same_as_tracked")),
    ("kernels_added", "str", lambda result: " ".join(result.kernels.added)),
    ("kernels_removed", "str", lambda result: " ".join(result.kernels.removed)),
    ("changed_buffers", "str", lambda result: " ".join(result.contract.changed_buffers)),
    ("changes", "str", lambda result: " and ".join(result.contract.changes)),
    ("parameters", "Int64", attrgetter("model.parameters")),
    ("parameter_bytes", "Int64", attrgetter("model.parameter_bytes")),
    ("inputs", "str", lambda result: ", ".join(result.model.inputs)),
    ("processes", "Int64", lambda result: len(result.processes)),
    ("process_speedups", "object", lambda result: [one.speedup for one in result.processes if one.speedup is not None]),
    ("withheld", "object", attrgetter("memory.unavailable")),
]
"""Whole numbers that may be missing never pass through a float, which would lose digits."""
COLUMNS = {name: value for name, _, value in _COLUMNS}
"""Every column of a frame and how a result gives it."""
_TYPES = {name: kind for name, kind, _ in _COLUMNS}


def frame_of(columns: Mapping[str, Sequence[Any]]) -> pd.DataFrame:
    """Values of COLUMNS, or of others that are texts. Each column has a type of its own, whatever is missing from it."""
    return pd.DataFrame({name: pd.Series(values, dtype=_TYPES.get(name, "str")) for name, values in columns.items()})


def timed(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows whose speedup is evidence: trusted, with an interval, not tracked itself, and of the same work, which can be tracked."""
    is_evidence = frame["trusted"].astype(bool) & frame["speedup_low"].notna() & frame["mode"].ne(TRACKED)
    return frame[is_evidence & ~is_context(frame) & ~is_part(frame)]


def is_context(frame: pd.DataFrame) -> pd.Series[bool]:
    """Rows that enter and leave a context around nothing; their tracked arm is an empty loop."""
    return frame["scenario"].isin([OPERATORS, SWITCHES]) & frame["model"].eq(CONTEXT)


def is_part(frame: pd.DataFrame) -> pd.Series[bool]:
    """Rows that run a part of the step alone; their ratio of times is its share of the step (of no_grad's where that was timed)."""
    return frame["mode"].str.endswith(ALONE)


def other_kernels(frame: pd.DataFrame) -> pd.Series[bool]:
    """Rows that are known to have run other kernels than tracked, so that they do not show tracking alone."""
    return frame["same_kernels"].eq(other=False).fillna(value=False).astype(bool)


def preferred(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows with pages kept where a job has them, because what is left is tracking itself; else those as shipped."""
    is_kept = frame["allocator"].eq(PAGES_KEPT)
    return frame[is_kept | ~is_kept.groupby([frame[name] for name in (*_run(frame), *JOB)]).transform("any")]


def memory(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per job and mode (and run): the first whose peak is known, else the first. The order and the index are the frame's."""
    known_first = frame.iloc[frame["peak_tensor_bytes"].isna().to_numpy().argsort(kind="stable")]
    return known_first.drop_duplicates([*_run(frame), *JOB, "mode"]).sort_index()


def against(frame: pd.DataFrame, on: Sequence[str] = GROUP) -> pd.DataFrame:
    """Every row with the columns of tracked in the same group (and run) beside its own, with the suffix `_base`; missing where it is not there."""
    keys = [*_run(frame), *on]
    base = frame[frame["mode"].eq(TRACKED)]
    joined = frame.merge(base, on=keys, how="left", suffixes=("", "_base"), validate="many_to_one")
    return joined.set_index(frame.index)


def labels(frame: pd.DataFrame, fields: Sequence[str] = GROUP) -> pd.Series[str]:
    """Each row's group in few words, such as `lstm tiny as_shipped`: its model and size, and what tells groups of the frame apart.

    Forward passes and eager execution go without saying.
    """
    shown = [name for name in fields if name in ("model", "size") or len(frame[name].unique()) > 1]
    words = frame[shown].astype(object).replace({"scenario": FORWARD, "execution": EAGER}, "")
    return pd.Series([" ".join(filter(None, row)) for row in words.itertuples(index=False)], index=frame.index, dtype="str")


def ends_of(row: Any, name: str = "speedup", side: str = "") -> list[float]:
    """The estimate, the low and the high end of an interval in a row of `each`; `side` is what a merge appended to the columns' names."""
    return [float(getattr(row, f"{name}{end}{side}")) for end in ("", "_low", "_high")]


def speedup_change(row: Any, one: str, other: str, comparisons: int) -> Interval | None:
    """The speedup of side `one` over that of side `other`; None beyond what a float holds, as files can say anything."""
    ours, others = (int(getattr(row, f"processes{side}")) for side in (one, other))
    try:
        ratio, base = (Interval(*ends_of(row, side=side)) for side in (one, other))
        return quotient(ratio, base, (ours, others), comparisons)
    except (OverflowError, ValueError):
        return None


def each(frame: pd.DataFrame) -> Iterator[Any]:
    """The rows, whose columns are attributes; `Index` is the row's label."""
    return frame.itertuples()


def _run(frame: pd.DataFrame) -> list[str]:
    return ["run"] if "run" in frame else []
