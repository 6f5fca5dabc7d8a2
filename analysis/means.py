"""Means of one metric over many runs, by what is asked for. Frame in, frame or table out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from analysis.cases import JOB, TRACKED, against, is_context, memory, timed
from analysis.figures import MISSING, NOT_KNOWN, ratio_text, speedup_text
from analysis.render import UNCLEAR, Table
from benchmarks.intervals import t_quantile, verdict
from benchmarks.record import CASE, Interval

_MOST_COLUMNS = 4
_APART = ("scenario", "device", "dtype", "execution", "allocator")
"""What is never averaged together, unless it is asked for by name."""

COLUMNS = (*CASE, "speedup", "speedup_low", "speedup_high", "trusted", "peak_tensor_bytes", "held_tensor_bytes", "saved_bytes")
"""What is read of a frame, beside the columns that tell runs apart."""


def means(frame: pd.DataFrame, by: Sequence[str], metric: str = "speedup") -> pd.DataFrame:
    """A row per value of `by` and mode, in scenarios, devices and so on of its own: `ratio low high cases runs`.

    The speedup's is a geometric mean, of a case over runs first. That of bytes is the sum of the modes' over the sum of tracked's, because
    bytes can be 0; NaN where tracked has none.
    """
    apart = [name for name in _APART if name not in by and not (name == "allocator" and metric != "speedup")]
    keys = list(dict.fromkeys([*apart, *by, "mode"]))
    return _mean_speedups(timed(frame), keys) if metric == "speedup" else _byte_ratios(frame, keys, metric)


def _byte_ratios(frame: pd.DataFrame, keys: list[str], metric: str) -> pd.DataFrame:
    both = against(memory(frame[~is_context(frame)]), on=JOB)
    both = both[both["mode"].ne(TRACKED)].dropna(subset=[metric, f"{metric}_base"])
    both = both.assign(case=both.groupby(list(JOB), sort=False).ngroup())
    sums = both.groupby(keys, sort=False, dropna=False).agg(
        mode_bytes=(metric, "sum"), tracked_bytes=(f"{metric}_base", "sum"), cases=("case", "nunique"), runs=("run", "nunique")
    )
    ratio = sums["mode_bytes"].astype(float) / sums["tracked_bytes"].astype(float).replace(0.0, np.nan)
    return sums.assign(ratio=ratio, low=np.nan, high=np.nan)[["ratio", "low", "high", "cases", "runs"]].reset_index()


def _mean_speedups(rows: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Geometric means with the 99 % interval for these cases, not for others.

    Errors of different cases are independent: half-widths add as squares. Runs of a case differ by more than their own intervals may
    say, so the half-width is never below Student's t over the runs' scatter (degrees of freedom: Welch and Satterthwaite).
    """
    logs = np.log(rows[["speedup", "speedup_low", "speedup_high"]].to_numpy(float))
    squares = rows.assign(centre=logs[:, 0], below=(logs[:, 0] - logs[:, 1]) ** 2, above=(logs[:, 2] - logs[:, 0]) ** 2)
    by_case = squares.groupby(list(dict.fromkeys([*keys, *CASE])), sort=False, dropna=False)
    cases = by_case[["centre", "below", "above"]].mean().assign(variance=by_case["centre"].var().fillna(0.0))
    runs = by_case.size()
    cases[["below", "above", "variance"]] = cases[["below", "above", "variance"]].div(runs, axis=0)
    cases = cases.assign(runs=runs, spread=cases["variance"] ** 2 / (runs - 1).clip(lower=1))
    by_key = cases.groupby(keys, sort=False, dropna=False)
    sums, number = by_key[["centre", "below", "above", "variance", "spread"]].sum(), by_key.size()
    degrees = (sums["variance"] ** 2 / sums["spread"]).where(sums["spread"] > 0)
    scatter = degrees.map(t_quantile, na_action="ignore").astype(float).fillna(0.0) * np.sqrt(sums["variance"])
    below, above = (np.maximum(np.sqrt(sums[side]), scatter) for side in ("below", "above"))
    ends = {"ratio": sums["centre"], "low": sums["centre"] - below, "high": sums["centre"] + above}
    with np.errstate(over="ignore"):
        ratios = pd.DataFrame({name: np.exp(end / number) for name, end in ends.items()})
    return ratios.assign(cases=number, runs=by_key["runs"].max()).reset_index()


def means_tables(found: pd.DataFrame, by: Sequence[str], metric: str = "speedup") -> list[Table]:
    """`found` is of `means`. A table for each scenario, device and so on; in it a column per mode, or if there are many, a row."""
    ranks = [pd.factorize(found[name], sort=name == "date")[0] for name in by]
    found = found.iloc[np.lexsort(ranks[::-1])] if ranks else found
    figures = found[["ratio", "low", "high"]].itertuples(index=False, name=None)
    cells = found.assign(text=[_speedup_text(*row) if metric == "speedup" else ratio_text(row[0]) for row in figures])
    apart = [name for name in found.columns[: found.columns.get_loc("mode")] if name not in by]
    groups = cells.groupby(apart, sort=False) if apart else [((), cells)]
    tables = [Table(_cells(rows, by, metric), [], ", ".join([metric, *map(str, key)])) for key, rows in groups]
    return [*tables[:-1], replace(tables[-1], notes=[_OF_SPEEDUPS if metric == "speedup" else _OF_BYTES])] if tables else []


_OF_SPEEDUPS = "speedup: tracked's time over the mode's, geometric mean over cases (of a case over its runs first), 99 % interval; ~: partly inside 1 ±1 %"
_OF_BYTES = "bytes: the sum of the mode's over the sum of tracked's; below 1 is less than tracked"


def _speedup_text(estimate: float, low: float, high: float) -> str:
    text = speedup_text(estimate, low, high)
    is_unclear = text != NOT_KNOWN and verdict(Interval(estimate, low, high)) == "unclear"
    return f"{UNCLEAR}{text}" if is_unclear else text


def _cells(rows: pd.DataFrame, by: Sequence[str], metric: str) -> pd.DataFrame:
    names = [name for name in by if name != "mode"]
    if "mode" in by or not names or len(rows["mode"].unique()) > _MOST_COLUMNS:
        return rows[[*names, "mode", "text", "cases", "runs"]].rename(columns={"text": metric}).astype(str)
    wide = rows.set_index([*names, "mode"])["text"].unstack("mode", fill_value=MISSING, sort=False)  # noqa: PD010 - pivot sorts
    counts = rows.groupby(names, sort=False, dropna=False)[["cases", "runs"]].max()
    return wide.join(counts).rename_axis(columns=None).reset_index().astype(str)
