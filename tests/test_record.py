"""Identities join, records survive JSON unchanged, and the saved keys are those of the data contract."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, get_args

import builders
import msgspec
import pytest

from benchmarks.record import (
    CASE,
    SCHEMA,
    SKIPPED_STATUSES,
    Group,
    Interval,
    Memory,
    Result,
    SavedBy,
    Status,
    Unmeasured,
    from_json,
    to_json,
)


def test_a_case_is_its_group_and_a_mode_and_reads_as_its_fields_in_the_order_of_the_grid() -> None:
    case = builders.case("no_grad")
    assert case.group.case(case.mode) == case
    assert type(case.group) is Group
    assert str(case) == f"{case.group}-no_grad" == "forward-mlp-tiny-cpu-float32-eager-pages_kept-no_grad"
    assert len({case, *(replace(case, **{name: "other"}) for name in CASE), replace(case)}) == 9, "all fields are the key"


@pytest.mark.parametrize(
    "record",
    [
        builders.result("tracked"),
        builders.result(model="\u2028 a \x00 name, \N{PILE OF POO}", speedup=None, resolution=None),
        builders.result(bound_by="both", recompilations=0, discarded_placebos=[Interval(1.0, 1e-99, 1e99)]),
        builders.result(memory=Memory(peak_tensor_bytes=2**62, saved_by_module=[SavedBy("x", 0)], unavailable={"a": "why"})),
        *(Unmeasured(builders.case(), status, "why", ["history"]) for status in get_args(Status)),
    ],
)
def test_a_record_comes_back_from_json_as_it_was(record: Result | Unmeasured) -> None:
    assert from_json(json.loads(json.dumps(to_json(record), allow_nan=False)), type(record)) == record


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
    [(0.0, 1.0, 2.0), (1.1, 1.0, 2.0), (0.5, 1.0, 0.9), (1.0, 1.0, float("inf")), (float("nan"), 1.0, 1.0)],
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


def test_only_what_the_machine_or_the_mode_cannot_do_is_skipped() -> None:
    assert set(get_args(Status)) - SKIPPED_STATUSES == {"timed_out", "crashed", "broken_contract"}
