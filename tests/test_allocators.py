"""Proves that a disagreement of the two speedups is told with its reason, and what keeping pages would gain."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from builders import make_result, make_timings
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.allocators import disagreements, kept_pages, trusted_pairs
from benchmarks.record import Interval, Result, tidy_rows
from benchmarks.statistics import verdict

QUICK = settings(deadline=None, derandomize=True, database=None)


def ratio(estimate: float) -> Interval:
    return Interval(estimate, estimate - 0.01, estimate + 0.01)


def both(
    alone: dict[str, float], shipped: dict[str, float], faults: dict[str, float], *, model: str = "net", seconds: tuple[float, float] = (1e-3, 1e-3)
) -> list[Result]:  # fmt: skip
    """One group by both allocators; tracked takes `seconds`."""
    return [
        *make_timings("resident", seconds[0], {mode: ratio(value) for mode, value in alone.items()}, {}, model=model),
        *make_timings("default", seconds[1], {mode: ratio(value) for mode, value in shipped.items()}, faults, model=model),
    ]


def told(results: list[Result]) -> list[str]:
    return disagreements(trusted_pairs(tidy_rows(results)), lambda row: str(row["model"]))


def test_a_disagreement_that_page_faults_explain_is_told_with_them() -> None:
    results = both({"no_grad": 1.07}, {"no_grad": 0.81}, {"tracked": 6112, "no_grad": 8096.4})
    assert told(results) == [
        "tracking alone and as shipped disagree, because of page faults: net no_grad 1.07 and 0.81 (8,096 faults a call, tracked 6,112)"
    ]


def test_equal_page_faults_explain_a_speedup_that_is_diluted_but_not_one_that_grew() -> None:
    faults = {"tracked": 900.0, "no_grad": 900.0}
    assert "because of page faults" in told(both({"no_grad": 1.40}, {"no_grad": 1.20}, faults))[0]
    (grown,) = told(both({"no_grad": 1.20}, {"no_grad": 1.40}, faults))
    assert grown.startswith("tracking alone and as shipped disagree, and page faults do not tell why")


@pytest.mark.parametrize("faults", [{}, {"tracked": 0.4, "no_grad": 0.2}])
def test_without_page_faults_they_are_not_blamed(faults: dict[str, float]) -> None:
    (note,) = told(both({"no_grad": 1.40}, {"no_grad": 1.20}, faults))
    assert "page faults do not tell why (as shipped, each mode has a process of its own): net no_grad 1.40 and 1.20 (0" in note


def test_page_faults_that_were_not_counted_are_not_blamed() -> None:
    results = both({"no_grad": 1.40}, {"no_grad": 1.20}, {"no_grad": 900.0})
    untold = [result for result in results if result.case.mode != "tracked"]
    (note,) = told(untold)
    assert "page faults do not tell why" in note
    assert note.endswith(": net no_grad 1.40 and 1.20")


@QUICK
@given(st.floats(1e-3, 1), st.floats(1e-3, 1), st.floats(1, 1e4), st.floats(1, 1e4), st.floats(1e-7, 1e-5))
def test_page_faults_are_blamed_wherever_they_are_all_that_differs(
    tracked: float, mode: float, tracked_faults: float, mode_faults: float, seconds_per_fault: float
) -> None:
    shipped = (tracked + seconds_per_fault * tracked_faults) / (mode + seconds_per_fault * mode_faults)
    exact = [Interval(value, value, value) for value in (tracked / mode, shipped)]
    results = make_timings("resident", tracked, {"no_grad": exact[0]}, {})
    results += make_timings("default", tracked, {"no_grad": exact[1]}, {"tracked": tracked_faults, "no_grad": mode_faults})
    if not math.isclose(shipped, tracked / mode, rel_tol=1e-9):
        assert "because of page faults" in told(results)[0]


def test_intervals_that_overlap_and_groups_that_are_untrusted_are_no_disagreement() -> None:
    assert told(both({"no_grad": 1.20}, {"no_grad": 1.215}, {"tracked": 900.0})) == []
    far = both({"no_grad": 1.20}, {"no_grad": 1.60}, {"tracked": 900.0})
    assert told(far)
    for allocator in ("resident", "default"):
        assert told([replace(one, trusted=one.case.allocator != allocator) for one in far]) == []


def test_of_many_disagreements_the_largest_of_four_groups_are_shown_and_the_rest_counted() -> None:
    results = [
        result
        for number in range(6)
        for result in both({"no_grad": 1.1, "detach": 1.1}, {"no_grad": 1.2 + number / 10, "detach": 1.15}, {"tracked": 900.0}, model=f"net{number}")
    ]  # fmt: skip
    (note,) = told(results)
    assert [text.split()[0] for text in note.partition("faults: ")[2].split("; ")] == ["net5", "net4", "net3", "net2", "and"]
    assert note.endswith("; and 8 more")
    assert "detach" not in note


def gained(*results: Result) -> list[str]:
    return kept_pages(tidy_rows(results), lambda row: str(row["model"]))


HOW = "keeping pages (MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=2147483647, or jemalloc) would make tracked faster as shipped"


def keeping(model: str, gain: Interval, speedup: Interval) -> list[Result]:
    shipped = {"model": model, "allocator": "default"}
    modes = [make_result("tracked", case=shipped, kept_pages=gain)]
    modes.append(make_result(case=shipped, kept_pages=gain, speedup=speedup, verdict=verdict(speedup)))
    return [*modes, make_result("tracked", case={"model": model})]


CONVNET = keeping("convnet", Interval(2.0, 1.9, 2.1), Interval(0.8, 0.7, 0.9))
LSTM = keeping("lstm", Interval(1.7, 1.5, 1.9), Interval(1.49, 1.3, 1.7))


def test_the_gain_of_keeping_pages_is_told_beside_that_of_the_best_mode() -> None:
    assert gained(*LSTM, *CONVNET) == [f"{HOW}: convnet 2.0 ±0.1 (no mode is faster); lstm 1.7 ±0.2 (best mode 1.5 ±0.2)"]


def test_a_gain_that_is_not_shown_by_its_whole_interval_is_not_told() -> None:
    assert gained(*keeping("mlp", Interval(1.3, 1.0, 1.6), Interval(1.2, 1.1, 1.3))) == []
    assert gained(*both({"no_grad": 1.2}, {"no_grad": 1.2}, {})) == []
    assert gained(*(replace(one, trusted=False) for one in CONVNET)) == []
