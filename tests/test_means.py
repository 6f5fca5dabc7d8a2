"""Proves that means over runs are what their definition says, with zeros in them, and that nothing is averaged that should not be."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from builders import group, result, run, saved

from analysis.cases import each
from analysis.means import METRICS, means, means_tables, needed_columns
from analysis.read import Run, RunFile, read_all
from benchmarks.intervals import across, geometric_mean
from benchmarks.record import CONTEXT, Interval, Memory, Result


def mean_of(tmp_path: Path, *runs: Run, by: tuple[str, ...] = ("model",), metric: str = "speedup") -> pd.DataFrame:
    dated = [replace(measured, saved_at=f"2026-11-{number:02}") for number, measured in enumerate(runs)]
    files = [RunFile(saved(tmp_path / f"{number}.json", measured), f"{number}") for number, measured in enumerate(dated)]
    return means(read_all(files, needed_columns(metric), print), by, metric)


def test_the_mean_over_cases_is_geometric_and_its_interval_that_of_independent_ratios(tmp_path: Path) -> None:
    ratios = [Interval(1.2, 1.1, 1.4), Interval(1.8, 1.5, 1.9)]
    sizes = [result("no_grad", ratio, size=size) for ratio, size in zip(ratios, ("tiny", "small"), strict=True)]
    (row,) = each(mean_of(tmp_path, run(*sizes)))
    expected = geometric_mean(ratios)
    assert (row.ratio, row.low, row.high) == pytest.approx((expected.estimate, expected.low, expected.high))
    assert (row.cases, row.runs) == (2, 1)


def test_runs_that_scatter_widen_the_interval_to_students_t(tmp_path: Path) -> None:
    readings = [1.2, 1.3, 1.25, 1.22]
    (row,) = each(mean_of(tmp_path, *(run(result("no_grad", Interval(one, one * 0.999, one * 1.001))) for one in readings)))
    expected = across(readings)
    assert (row.ratio, row.low, row.high) == pytest.approx((expected.estimate, expected.low, expected.high), rel=1e-4)
    assert (row.cases, row.runs) == (1, 4)


def test_each_case_weighs_the_same_however_many_runs_have_it(tmp_path: Path) -> None:
    runs = [run(result("no_grad", 1.0), result("no_grad", 4.0, size="small")), run(result("no_grad", 1.0))]
    assert mean_of(tmp_path, *runs)["ratio"].tolist() == pytest.approx([2.0])


def test_the_scatter_of_all_cases_counts_together(tmp_path: Path) -> None:
    """Two runs alone give one degree of freedom; ten cases of two runs give ten."""
    noise = np.random.default_rng(0).normal(0, 0.01, (2, 10))
    ratios = np.exp(noise).tolist()
    runs = [run(*(result("no_grad", Interval(r, r, r), size=f"s{n}") for n, r in enumerate(row))) for row in ratios]
    (row,) = each(mean_of(tmp_path, *runs))
    assert math.log(row.high / row.low) < 0.04


def test_only_evidence_is_averaged(tmp_path: Path) -> None:
    mixed = run(
        *group({"no_grad": 1.5}), *group({"no_grad": 9.0}, model="bad", trusted=False),
        *group({"no_grad": 0.1}, scenario="operators", model=CONTEXT),
    )  # fmt: skip
    assert mean_of(tmp_path, mixed)["model"].tolist() == ["mlp"]


def memories(**bytes_of: int | None) -> list[Result]:
    """tracked, of 100 bytes, and modes that save so many."""
    tracked = result("tracked", memory=Memory(peak_tensor_bytes=1, saved_bytes=100))
    return [tracked, *(result(mode, memory=Memory(peak_tensor_bytes=1, saved_bytes=size)) for mode, size in bytes_of.items())]


def test_bytes_are_the_ratio_of_sums_so_that_zeros_count(tmp_path: Path) -> None:
    runs = [run(*memories(no_grad=0, detach=100)), run(*memories(no_grad=50, detach=None))]
    found = mean_of(tmp_path, *runs, metric="saved_bytes").set_index("mode")
    assert found["ratio"].to_dict() == {"no_grad": 0.25, "detach": 1.0}
    assert found["runs"].to_dict() == {"no_grad": 2, "detach": 1}


def test_bytes_of_which_tracked_has_none_have_no_ratio(tmp_path: Path) -> None:
    none = Memory(peak_tensor_bytes=0)
    found = mean_of(tmp_path, run(result("tracked", memory=none), result(memory=none)), metric="peak_tensor_bytes")
    assert found["ratio"].isna().tolist() == [True]
    assert means_tables(found, ["model"], "peak_tensor_bytes")[0].rows == [["mlp", "-", "1", "1"]]


def test_memory_counts_once_for_both_allocators(tmp_path: Path) -> None:
    both = [one for allocator in ("pages_kept", "as_shipped") for one in group(allocator=allocator)]
    (row,) = each(mean_of(tmp_path, run(*both), metric="peak_tensor_bytes"))
    assert (row.ratio, row.cases) == (0.4, 1)
    assert len(mean_of(tmp_path, run(*both))) == 2


def test_scenarios_devices_and_allocators_are_not_averaged_unless_asked_for(tmp_path: Path) -> None:
    apart = run(
        *group({"no_grad": 1.2}), *group({"no_grad": 1.8}, device="cuda"), *group({"no_grad": 1.4}, scenario="evaluation")
    )
    assert len(mean_of(tmp_path, apart)) == 3
    titles = [table.title for table in means_tables(mean_of(tmp_path, apart), ["model"])]
    assert titles == [
        "speedup, forward, cpu, float32, eager, pages_kept", "speedup, forward, cuda, float32, eager, pages_kept",
        "speedup, evaluation, cpu, float32, eager, pages_kept",
    ]  # fmt: skip
    (first, _) = means_tables(mean_of(tmp_path, apart, by=("device",)), ["device"])
    assert [row[:2] for row in first.rows] == [["cpu", "1.20 ±0.01"], ["cuda", "1.80 ±0.02"]]


def test_runs_stand_side_by_side_in_the_order_of_what_was_asked_for(tmp_path: Path) -> None:
    runs = [
        run(*group({"no_grad": ratio}), *group({"no_grad": ratio + 1}, model="lstm"))
        for ratio in (1.2, Interval(1.0, 0.9, 1.1).estimate)
    ]
    by = ("model", "run")
    (table,) = means_tables(mean_of(tmp_path, *runs, by=by), by)
    assert table.columns == ["model", "run", "no_grad", "cases", "runs"]
    assert [row[:3] for row in table.rows] == [
        ["mlp", "0", "1.20 ±0.01"], ["mlp", "1", "1.00 ±0.01"], ["lstm", "0", "2.20 ±0.02"], ["lstm", "1", "2.00 ±0.02"],
    ]  # fmt: skip


def test_what_is_unclear_is_marked_and_the_definition_stands_below(tmp_path: Path) -> None:
    (table,) = means_tables(mean_of(tmp_path, run(result("no_grad", Interval(1.0, 0.9, 1.1)))), ["model"])
    assert table.rows[0][1] == "~1.0 ±0.1"
    assert table.notes[0].startswith("speedup: tracked's time over the mode's, geometric mean over cases")


@pytest.mark.parametrize("by", [("mode",), ("model", "mode"), ("model",)])
def test_many_modes_or_modes_that_are_asked_for_are_rows(tmp_path: Path, by: tuple[str, ...]) -> None:
    many = run(*group({f"mode{number}": 1.2 for number in range(6)}))
    (table,) = means_tables(mean_of(tmp_path, many, by=by), by)
    assert [row[table.columns.index("mode")] for row in table.rows] == [f"mode{number}" for number in range(6)]


@pytest.mark.parametrize("metric", METRICS)
def test_means_of_nothing_are_nothing(tmp_path: Path, metric: str) -> None:
    found = mean_of(tmp_path, run(result("tracked")), metric=metric)
    assert found.empty
    assert means_tables(found, ["model"], metric) == []
