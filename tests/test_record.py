"""Identities join, records survive JSON unchanged, and the saved keys are those of the data contract."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, get_args

import builders
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.record import (
    AS_SHIPPED,
    CASE,
    PAGES_KEPT,
    SCHEMA,
    Case,
    Group,
    Interval,
    Result,
    SavedBy,
    Status,
    Unmeasured,
    from_json,
    to_json,
)

QUICK = settings(deadline=None, derandomize=True, database=None)

words = st.text(max_size=8)
times = st.floats(1e-12, 1e6)
bytes_ = st.none() | st.integers(0, 2**62)
intervals = st.none() | st.lists(st.floats(1e-99, 1e99), min_size=3, max_size=3).map(sorted).map(
    lambda ends: Interval(ends[1], ends[0], ends[2])
)
allocators = st.sampled_from([PAGES_KEPT, AS_SHIPPED])
cases = st.fixed_dictionaries(dict.fromkeys(CASE, words) | {"allocator": allocators}).map(lambda names: Case(**names))
results = st.builds(
    replace,
    st.just(builders.result()),
    case=cases,
    seconds=times,
    speedup=intervals,
    placebo=intervals,
    resolution=st.none() | times,
    memory=st.builds(
        replace,
        st.just(builders.result().memory),
        peak_tensor_bytes=bytes_,
        saved_by_module=st.lists(st.builds(SavedBy, words, st.integers(0, 2**62)), max_size=3),
        unavailable=st.dictionaries(words, words, max_size=2),
    ),
    discarded_placebos=st.lists(intervals.filter(bool), max_size=2),
    bound_by=st.sampled_from(["host", "device", "both", None]),
)


@QUICK
@given(cases)
def test_a_case_is_its_group_and_a_mode(case: Case) -> None:
    assert case.group.case(case.mode) == case
    assert type(case.group) is Group
    assert str(case) == f"{case.group}-{case.mode}"


def test_a_case_reads_as_its_fields_in_the_order_of_the_grid() -> None:
    assert str(builders.case("no_grad")) == "forward-mlp-tiny-cpu-float32-eager-pages_kept-no_grad"


def test_cases_that_differ_in_any_one_field_are_different_keys() -> None:
    case = builders.case()
    assert len({case, *(replace(case, **{name: "other"}) for name in CASE), replace(case)}) == 9


@QUICK
@given(results)
def test_a_result_comes_back_from_json_as_it_was(result: Result) -> None:
    assert from_json(json.loads(json.dumps(to_json(result), allow_nan=False)), Result) == result


@QUICK
@given(st.builds(Unmeasured, cases, st.sampled_from(get_args(Status)), words, st.lists(st.just("history"), max_size=1)))
def test_an_unmeasured_case_comes_back_from_json_as_it_was(unmeasured: Unmeasured) -> None:
    assert from_json(json.loads(json.dumps(to_json(unmeasured))), Unmeasured) == unmeasured


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"seconds": "soon"}, r"\$\.seconds"),
        ({"verdict": "maybe"}, r"\$\.verdict"),
        ({"speedup": {"estimate": 1.2, "low": 1.3, "high": 1.4}}, r"0 < low <= estimate <= high"),
        ({"memory": {"saved_bytes": 1.5}}, r"\$\.memory\.saved_bytes"),
    ],
)
def test_what_is_no_result_is_refused_by_the_field_that_is_wrong(change: dict[str, Any], place: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=place):
        from_json(to_json(builders.result()) | change, Result)


@pytest.mark.parametrize(
    ("low", "estimate", "high"),
    [(0.0, 1.0, 2.0), (-1.0, 1.0, 2.0), (1.1, 1.0, 2.0), (0.5, 1.0, 0.9), (1.0, 1.0, float("inf")), (float("nan"), 1.0, 1.0)],
)
def test_an_interval_holds_its_estimate_between_finite_ends_above_zero(low: float, estimate: float, high: float) -> None:
    with pytest.raises(ValueError, match="0 < low <= estimate <= high is needed"):
        Interval(estimate, low, high)


def test_the_saved_keys_are_those_of_the_data_contract() -> None:
    saved = to_json(builders.result())
    assert saved["schema"] == SCHEMA == 2
    assert list(saved["case"]) == list(CASE)
    assert set(saved) >= {
        "seconds", "speedup", "verdict", "placebo", "trusted", "resolution", "washout_calls", "after_switch_seconds",
        "page_faults", "processes", "memory", "contract", "kernels", "model", "host_seconds", "busy_seconds", "bound_by",
    }  # fmt: skip
    assert set(saved["speedup"]) == {"estimate", "low", "high"}
    assert set(saved["processes"][0]) >= {"launch", "rounds", "seconds", "speedup", "placebo"}
    assert set(saved["memory"]) >= {
        "peak_tensor_bytes", "held_tensor_bytes", "saved_bytes", "peak_rss_bytes", "peak_reserved_bytes", "saved_by_module",
    }  # fmt: skip
    assert saved["memory"]["peak_reserved_bytes"] is None, "what could not be measured is null"
    assert set(saved["contract"]) >= {"holds", "broken"}
    assert set(saved["kernels"]) == {"same_as_tracked", "added", "removed"}
    assert set(saved["model"]) == {"parameters", "parameter_bytes", "inputs"}
