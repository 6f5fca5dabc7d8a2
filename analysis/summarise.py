"""Frame to frame: what a report shows of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

GROUP = ["scenario", "model", "size", "device", "dtype", "allocator"]


def summarise(frame: pd.DataFrame) -> pd.DataFrame:
    """The main table: groups in the order in which they were measured, tracked first in each; the columns of `frame`."""
    if frame.empty:
        return frame
    order = frame.groupby(GROUP, sort=False).ngroup()
    baseline_last = frame["mode"].ne("tracked")
    return (
        frame.assign(_order=order, _rest=baseline_last)
        .sort_values(["_order", "_rest"], kind="stable")
        .drop(columns=["_order", "_rest"])
    )
