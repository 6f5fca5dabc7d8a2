"""Proves that means over runs are what their definition says, with zeros in them, and that nothing is averaged that should not be."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from builders import group, result, run

from analysis.means import means, means_tables
from analysis.render import Table
from benchmarks.intervals import across, geometric_mean
from benchmarks.record import CONTEXT, Interval, Memory, Result

BOTH = ("pages_kept", "as_shipped")


def mean_of(*runs: list[Result], by: tuple[str, ...] = ("model",), metric: str = "speedup") -> tuple[pd.DataFrame, list[Table]]:
    """The means over runs, each of these results, and their tables."""
    frames = [run(*results).frame.assign(run=str(number)) for number, results in enumerate(runs)]
    found = means(pd.concat(frames, ignore_index=True), by, metric)
    return found, means_tables(found, by, metric)


def the_row(found: pd.DataFrame) -> tuple[list[float], list[int]]:
    """The ratio with its interval, and how many cases and runs it is of."""
    (row,) = found.to_dict("records")
    return [row[name] for name in ("ratio", "low", "high")], [row[name] for name in ("cases", "runs")]


def ends(interval: Interval) -> Any:
    return pytest.approx([interval.estimate, interval.low, interval.high], rel=1e-4)


def test_the_mean_over_cases_is_geometric_and_its_interval_that_of_independent_ratios() -> None:
    ratios = [Interval(1.2, 1.1, 1.4), Interval(1.8, 1.5, 1.9)]
    found, _ = mean_of([result("no_grad", ratio, size=size) for ratio, size in zip(ratios, ("tiny", "small"), strict=True)])
    assert the_row(found) == (ends(geometric_mean(ratios)), [2, 1])


def test_runs_that_scatter_widen_the_interval_to_students_t() -> None:
    readings = [1.2, 1.3, 1.25, 1.22]
    found, _ = mean_of(*([result("no_grad", Interval(one, one * 0.999, one * 1.001))] for one in readings))
    assert the_row(found) == (ends(across(readings)), [1, 4])


def test_each_case_weighs_the_same_however_many_runs_have_it() -> None:
    found, _ = mean_of([result("no_grad", 1.0), result("no_grad", 4.0, size="small")], [result("no_grad", 1.0)])
    assert found["ratio"].tolist() == pytest.approx([2.0])


def test_the_scatter_of_all_cases_counts_together() -> None:
    """Two runs alone give one degree of freedom; ten cases of two runs give ten."""
    ratios = np.exp(np.random.default_rng(0).normal(0, 0.01, (2, 10))).tolist()
    found, _ = mean_of(*([result("no_grad", Interval(r, r, r), size=f"s{n}") for n, r in enumerate(row)] for row in ratios))
    (_, low, high), _ = the_row(found)
    assert math.log(high / low) < 0.04


def test_only_evidence_is_averaged_and_what_is_unclear_is_marked_above_the_definition() -> None:
    unclear, bad = group({"no_grad": Interval(1.0, 0.9, 1.1)}), group({"no_grad": 9.0}, model="bad", trusted=False)
    _, (table,) = mean_of([*unclear, *bad, *group({"no_grad": 0.1}, scenario="operators", model=CONTEXT)])
    assert table.rows == [["mlp", "~1.0 ±0.1", "1", "1"]]
    assert table.notes[0].startswith("speedup: tracked's time over the mode's, geometric mean over cases")


def memories(tracked: int, **bytes_of: int | None) -> list[Result]:
    """tracked and modes that save so many bytes, as both allocators read them."""
    sizes = {"tracked": tracked, **bytes_of}
    return [result(mode, allocator=name, memory=Memory(1, saved_bytes=size)) for name in BOTH for mode, size in sizes.items()]


def test_bytes_are_the_ratio_of_sums_so_that_zeros_count_and_count_once_for_both_allocators() -> None:
    runs = [memories(100, no_grad=0, detach=100), memories(100, no_grad=50, detach=None)]
    found, _ = mean_of(*runs, metric="saved_bytes")
    assert found[["mode", "ratio", "cases", "runs"]].to_numpy().tolist() == [["no_grad", 0.25, 1, 2], ["detach", 1.0, 1, 1]]
    _, (table,) = mean_of(memories(0, no_grad=0), metric="saved_bytes")
    assert table.rows == [["mlp", "-", "1", "1"]], "tracked has none"


def test_scenarios_devices_and_allocators_are_not_averaged_unless_asked_for() -> None:
    parts: list[Any] = [{}, {"device": "cuda"}, {"scenario": "evaluation"}, {"allocator": "as_shipped"}]
    apart = [one for number, part in enumerate(parts) for one in group({"no_grad": 1.2 + number / 10}, **part)]
    assert [table.title for table in mean_of(apart)[1]] == [
        "speedup, forward, cpu, float32, eager, pages_kept", "speedup, forward, cuda, float32, eager, pages_kept",
        "speedup, evaluation, cpu, float32, eager, pages_kept", "speedup, forward, cpu, float32, eager, as_shipped",
    ]  # fmt: skip
    _, (first, *_) = mean_of(apart, by=("device",))
    assert [row[:2] for row in first.rows] == [["cpu", "1.20 ±0.01"], ["cuda", "1.30 ±0.01"]]


def test_runs_stand_side_by_side_in_the_order_of_what_was_asked_for() -> None:
    runs = ([*group({"no_grad": ratio}), *group({"no_grad": ratio + 1}, model="lstm")] for ratio in (1.2, 1.0))
    _, (table,) = mean_of(*runs, by=("model", "run"))
    assert table.columns == ["model", "run", "no_grad", "cases", "runs"]
    assert [row[:3] for row in table.rows] == [
        ["mlp", "0", "1.20 ±0.01"], ["mlp", "1", "1.00 ±0.01"], ["lstm", "0", "2.20 ±0.02"], ["lstm", "1", "2.00 ±0.02"],
    ]  # fmt: skip


@pytest.mark.parametrize("by", [("mode",), ("model", "mode"), ("model",)])
def test_many_modes_or_modes_that_are_asked_for_are_rows(by: tuple[str, ...]) -> None:
    modes = [f"mode{number}" for number in range(6)]
    _, (table,) = mean_of(group(dict.fromkeys(modes, 1.2)), by=by)
    assert [row[table.columns.index("mode")] for row in table.rows] == modes
