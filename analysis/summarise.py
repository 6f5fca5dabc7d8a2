"""Frame to frame: what a report shows of a run, and the means of many."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

GROUP = ["scenario", "model", "size", "device", "dtype", "allocator"]
CASE = [*GROUP, "mode"]


def needed_columns(by: Sequence[str], metric: str) -> list[str]:
    """What `ratios` and `means` read of a frame, so that the rest of thousands of runs need not be kept."""
    return list(dict.fromkeys([*CASE, "run", *by, metric, "speedup", "speedup_low", "speedup_high", "trusted", "same_kernels"]))


def ratios(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The cases but `tracked`, with `ratio`: the speedup, or else `metric` over that of tracked in the same group and run.

    NaN where either is missing or tracked's is 0. `below` and `above` are how far the ends of the speedup's interval are from it, as
    differences of logarithms: the noise of every ratio of times, NaN for other metrics, which are exact counts.
    """
    import numpy as np

    is_tracked = frame["mode"].eq("tracked")
    rows = frame[~is_tracked]
    if metric != "speedup":
        tracked = frame.loc[is_tracked, ["run", *GROUP, metric]].rename(columns={metric: "tracked"})
        rows = rows.merge(tracked, on=["run", *GROUP], how="left", validate="many_to_one")
    number = {
        name: rows[name].to_numpy(dtype=float, na_value=np.nan)
        for name in (metric, "speedup", "speedup_low", "speedup_high", "tracked")
        if name in rows
    }
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = (
            number[metric]
            if metric == "speedup"
            else number[metric] / np.where(number["tracked"] > 0, number["tracked"], np.nan)
        )
    timed = metric.endswith(("speedup", "seconds"))
    return rows.assign(
        ratio=ratio,
        below=np.log(number["speedup"] / number["speedup_low"]) if timed else np.nan,
        above=np.log(number["speedup_high"] / number["speedup"]) if timed else np.nan,
    )


def repeats(rows: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """Of `ratios` above 0: a row per case and value of `keys`, with what its n runs say together.

    `logarithm` is the mean of their logarithms, `deviation` the standard deviation (NaN for one run). `below` and `above` are the 99 %
    half-widths that this mean has if nothing but the runs' own noise differs: the root of the sum of their squares, over n.
    """
    import numpy as np

    names = list(dict.fromkeys([*keys, *CASE]))
    squares = rows.assign(logarithm=np.log(rows["ratio"]), below=rows["below"] ** 2, above=rows["above"] ** 2)
    groups = squares.groupby(names, sort=False, dropna=False)
    found = groups.agg(
        logarithm=("logarithm", "mean"), deviation=("logarithm", "std"), n=("logarithm", "size"),
        below=("below", "mean"), above=("above", "mean"),
    )  # fmt: skip
    own = {side: np.sqrt(found[side] / found["n"]) for side in ("below", "above")}
    return found.assign(**own).reset_index()


def means(rows: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """The geometric mean of `ratios` per value of `keys`: over a case's runs first, then over cases, so that each case weighs the same.

    `low` and `high` are its 99 % interval for these cases, not for others. Errors of different cases are independent, so the half-width is
    the root of the sum of squares of `repeats`, over the number of cases. Runs differ by more than their rounds show, so it is never below
    what that spread gives: Student's t times the root of the sum of deviation**2 / n, over the number of cases, with the degrees of freedom
    of Welch and Satterthwaite (1946, Biometrics Bulletin 2). Of one case that is the interval of statistics.combine.
    `lowest` and `highest` are the outermost single ratios, `cases` how many cases are averaged. A mean of nothing but zeros is 0; beside
    others zeros have no logarithm and are left out. `other_kernels`: whether any of the cases ran other kernels than tracked.
    """
    import numpy as np

    cases = repeats(rows[rows["ratio"] > 0], keys)
    variance = (cases["deviation"] ** 2 / cases["n"]).fillna(0.0)
    found = (
        cases.assign(
            below=cases["below"] ** 2,
            above=cases["above"] ** 2,
            variance=variance,
            share=variance**2 / (cases["n"] - 1).clip(lower=1),
        )
        .groupby(list(keys), sort=False, dropna=False)
        .agg(
            logarithm=("logarithm", "mean"), below=("below", "mean"), above=("above", "mean"), n=("logarithm", "size"),
            variance=("variance", "sum"), share=("share", "sum"),
        )
    )  # fmt: skip
    every = rows.assign(other_kernels=rows["same_kernels"].eq(False), case=rows.groupby(CASE, sort=False).ngroup()).groupby(
        list(keys), sort=False, dropna=False
    )
    whole = every.agg(
        lowest=("ratio", "min"), highest=("ratio", "max"), cases=("case", "nunique"), other_kernels=("other_kernels", "any")
    ).join(found)
    spread = _t99_half_widths(whole["variance"], whole["share"])
    below, above = (np.maximum(np.sqrt(whole[side] * whole["n"]), spread) / whole["n"] for side in ("below", "above"))
    return whole.assign(
        cases=whole["n"].fillna(whole["cases"]).astype(int),
        ratio=np.exp(whole["logarithm"]).fillna(0.0),
        low=np.exp(whole["logarithm"] - below),
        high=np.exp(whole["logarithm"] + above),
    ).reset_index()[[*keys, "ratio", "low", "high", "lowest", "highest", "cases", "other_kernels"]]


def _t99_half_widths(variance: pd.Series[float], share: pd.Series[float]) -> pd.Series[float]:
    """Student's t times the root of `variance`, whose degrees of freedom are variance**2 / `share`; 0 where there is no spread."""
    import numpy as np

    from benchmarks.statistics import t99

    degrees = (variance**2 / share).where(share > 0)
    return (degrees.map(t99, na_action="ignore").astype(float) * np.sqrt(variance)).fillna(0.0)


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
