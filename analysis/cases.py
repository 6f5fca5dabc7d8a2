"""The questions asked of a frame: which rows are evidence, what stands beside what, and what a group is called."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from benchmarks.record import CASE, CONTEXT, EAGER, FORWARD, GROUP, OPERATORS

if TYPE_CHECKING:
    from collections.abc import Sequence

JOB = tuple(name for name in GROUP if name != "allocator")
"""The fields of a group but its allocator. Memory is measured once for both, so it belongs to a job and a mode."""

TRACKED = "tracked"


def timed(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows whose speedup is evidence: trusted, with an interval, not tracked itself, and around something that can be tracked."""
    is_evidence = frame["trusted"].astype(bool) & frame["speedup_low"].notna() & frame["mode"].ne(TRACKED)
    return frame[is_evidence & ~is_context(frame)]


def is_context(frame: pd.DataFrame) -> pd.Series[bool]:
    """Rows that enter and leave a context around nothing; their tracked arm is an empty loop."""
    return frame["scenario"].eq(OPERATORS) & frame["model"].eq(CONTEXT)


def memory(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per job and mode (and run): the first whose peak is known, else the first. The order and the index are the frame's."""
    known_first = frame.iloc[frame["peak_tensor_bytes"].isna().to_numpy().argsort(kind="stable")]
    return known_first.drop_duplicates([*_run(frame), *JOB, "mode"]).sort_index()


def against(frame: pd.DataFrame, mode: str = TRACKED, on: Sequence[str] = GROUP) -> pd.DataFrame:
    """Every row with the columns of `mode` in the same group (and run) beside its own, with the suffix `_base`; missing where it is not there."""
    keys = [*_run(frame), *on]
    base = frame[frame["mode"].eq(mode)]
    joined = frame.merge(base, on=keys, how="left", suffixes=("", "_base"), validate="many_to_one")
    return joined.set_index(frame.index)


def labels(frame: pd.DataFrame, fields: Sequence[str] = GROUP) -> pd.Series[str]:
    """Each row's group in few words, such as `lstm tiny as_shipped`: its model and size, and what tells groups of the frame apart.

    Forward passes and eager execution go without saying.
    """
    shown = [name for name in fields if name in ("model", "size") or len(frame[name].unique()) > 1]
    words = frame[shown].astype(object).replace({"scenario": FORWARD, "execution": EAGER}, "")
    return pd.Series([" ".join(filter(None, row)) for row in words.itertuples(index=False)], index=frame.index, dtype="str")


def _run(frame: pd.DataFrame) -> list[str]:
    return ["run"] if "run" in frame else []


__all__ = ["CASE", "GROUP", "JOB", "TRACKED", "against", "is_context", "labels", "memory", "timed"]
