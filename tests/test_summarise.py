"""Proves that ratios are taken within a group of a run, and that means weigh cases alike and carry the interval that their formula says."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from builders import make_result, saved_run
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.load import load_all, rows_of
from analysis.summarise import CASE, means, needed_columns, ratios, repeats, summarise
from benchmarks.record import Interval, Kernels, Memory, Result, Row, tidy_rows
from benchmarks.statistics import combine, t99

QUICK = settings(max_examples=50, deadline=None, derandomize=True, database=None)


def frame_of(*runs: list[Result]) -> pd.DataFrame:
    """The runs' rows, called 0, 1, 2."""
    return pd.DataFrame([{**row, "run": str(number)} for number, results in enumerate(runs) for row in tidy_rows(results)])


def faster(speedup: float, noise: float = 0.0, mode: str = "no_grad", model: str = "mlp", **changes: Any) -> Result:
    """A result whose interval reaches from speedup / (1 + noise) to speedup * (1 + noise)."""
    interval = Interval(speedup, speedup / (1 + noise), speedup * (1 + noise))
    return make_result(mode, case={"model": model}, speedup=interval, **changes)


def mean_of(frame: pd.DataFrame, keys: tuple[str, ...] = ("mode",), metric: str = "speedup") -> list[Row]:
    rows = ratios(frame, metric)
    return rows_of(means(rows[rows["ratio"].notna()], keys))


def test_a_mean_is_geometric_and_weighs_cases_alike_however_often_they_were_run() -> None:
    often = [faster(4.0, model="often")]
    (found,) = mean_of(frame_of([*often, faster(1.0, model="once")], often, often))
    assert found["ratio"] == pytest.approx(2.0)
    assert (found["cases"], found["lowest"], found["highest"]) == (2, 1.0, 4.0)


def test_errors_of_cases_add_as_independent_ones_do() -> None:
    (found,) = mean_of(frame_of([faster(1.2, noise, model=str(noise)) for noise in (0.03, 0.04)]))
    half = math.hypot(math.log(1.03), math.log(1.04)) / 2
    assert found["low"] == pytest.approx(1.2 * math.exp(-half))
    assert found["high"] == pytest.approx(1.2 * math.exp(half))


@QUICK
@given(st.lists(st.tuples(st.floats(0.5, 2), st.floats(0.001, 0.2)), min_size=1, max_size=6))
def test_runs_of_one_case_are_combined_as_its_processes_are(runs: list[tuple[float, float]]) -> None:
    (found,) = mean_of(frame_of(*([faster(*run)] for run in runs)))
    expected = combine([Interval(speedup, speedup / (1 + noise), speedup * (1 + noise)) for speedup, noise in runs])
    assert [found["ratio"], found["low"], found["high"]] == pytest.approx([expected.estimate, expected.low, expected.high])


def test_the_spread_of_many_cases_has_the_degrees_of_freedom_of_all_of_them() -> None:
    runs = [[faster(speedup, model=str(number)) for number in range(10)] for speedup in (1.0, 1.1)]
    (found,) = mean_of(frame_of(*runs))
    deviation = math.log(1.1) / math.sqrt(2)
    half = t99(10) * math.sqrt(10 * deviation**2 / 2) / 10  # equal variances of one degree each: ten degrees
    assert found["high"] / found["ratio"] == pytest.approx(math.exp(half))


@QUICK
@given(st.lists(st.floats(0.5, 2), min_size=2, max_size=8))
def test_a_mean_lies_between_its_outermost_ratios(speedups: list[float]) -> None:
    (found,) = mean_of(frame_of([faster(one, model=str(number)) for number, one in enumerate(speedups)]))
    assert found["lowest"] == min(speedups)
    assert found["highest"] == max(speedups)
    assert min(speedups) <= found["ratio"] * (1 + 1e-12)
    assert found["ratio"] <= max(speedups) * (1 + 1e-12)


def test_what_is_asked_for_apart_stays_apart_in_the_order_of_the_rows() -> None:
    found = mean_of(
        frame_of([faster(1.1, model="b"), faster(1.2, model="a"), faster(1.3, mode="detach", model="b")]), ("model", "mode")
    )
    assert [(one["model"], one["mode"], round(one["ratio"], 9)) for one in found] == [
        ("b", "no_grad", 1.1), ("a", "no_grad", 1.2), ("b", "detach", 1.3),
    ]  # fmt: skip


def test_bytes_and_seconds_are_ratios_to_tracked_of_the_same_group_in_the_same_run() -> None:
    def run(seconds: float, saved: int) -> list[Result]:
        tracked = make_result("tracked", seconds=2 * seconds, memory=Memory(saved_bytes=4 * saved))
        return [make_result(seconds=seconds, memory=Memory(saved_bytes=saved)), tracked]

    frame = frame_of(run(1e-4, 10), run(3e-3, 7), [make_result("tracked", case={"model": "alone"})])
    assert ratios(frame, "seconds")["ratio"].tolist() == [0.5, 0.5]
    assert ratios(frame, "saved_bytes")["ratio"].tolist() == [0.25, 0.25]
    assert mean_of(frame, metric="saved_bytes")[0]["low"] is None


@pytest.mark.parametrize(
    ("tracked", "mode"), [(Memory(), Memory(saved_bytes=4)), (Memory(saved_bytes=4), Memory()), (Memory(saved_bytes=0), Memory(saved_bytes=0))]
)  # fmt: skip
def test_where_there_is_nothing_to_divide_there_is_no_ratio(tracked: Memory, mode: Memory) -> None:
    frame = frame_of([make_result("tracked", memory=tracked), make_result(memory=mode)])
    assert ratios(frame, "saved_bytes")["ratio"].isna().all()
    assert ratios(frame_of([make_result(memory=mode)]), "saved_bytes")["ratio"].isna().all()
    assert ratios(frame_of([make_result(speedup=None)]), "speedup")["ratio"].isna().all()


def test_zeros_make_a_mean_of_zero_only_among_themselves() -> None:
    def group(model: str, saved: int) -> list[Result]:
        case = {"model": model}
        return [make_result("tracked", case=case), make_result(case=case, memory=Memory(saved_bytes=saved))]

    assert mean_of(frame_of([*group("a", 0), *group("b", 0)]), metric="saved_bytes")[0]["ratio"] == 0
    (mixed,) = mean_of(frame_of([*group("a", 0), *group("b", 2048), *group("c", 512)]), metric="saved_bytes")
    assert (mixed["ratio"], mixed["cases"], mixed["lowest"]) == (pytest.approx(0.125), 2, 0)


def test_the_spread_between_runs_is_that_of_their_logarithms() -> None:
    found = repeats(ratios(frame_of([faster(1.0)], [faster(1.1)], [faster(1.21)]), "speedup"), ())
    assert found["deviation"].tolist() == pytest.approx([math.log(1.1)])
    assert np.isnan(repeats(ratios(frame_of([faster(1.0)]), "speedup"), ())["deviation"]).all()


def test_a_mean_with_other_kernels_says_so() -> None:
    rows = [faster(1.1, kernels=Kernels(True)), faster(1.1, mode="detach", kernels=Kernels(False)), faster(1.2, mode="frozen", kernels=Kernels(None))]  # fmt: skip
    assert [one["other_kernels"] for one in mean_of(frame_of(rows))] == [False, True, False]


def test_the_columns_that_are_needed_are_enough(tmp_path: Path) -> None:
    path = saved_run(tmp_path / "run.json", [make_result("tracked"), make_result()])
    for by, metric in ((["torch", "model"], "speedup"), (["run"], "peak_tensor_bytes")):
        frame = load_all([path], columns=needed_columns(by, metric)).frame
        assert mean_of(frame, (*by, "mode"), metric) == mean_of(load_all([path]).frame, (*by, "mode"), metric)
        assert len(frame.columns) < 20


def test_the_main_table_of_nothing_is_nothing() -> None:
    assert summarise(pd.DataFrame()).empty
    assert list(summarise(frame_of([make_result()])))[: len(CASE)] == CASE
