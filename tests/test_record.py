"""Proves that identities join, that a record survives JSON unchanged, and that a tidy row says what its result says."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import get_args

import msgspec
import pytest
from builders import make_group, make_result
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.record import (
    SCHEMA,
    SKIPPED_STATUSES,
    Case,
    Group,
    Interval,
    Kernels,
    Memory,
    ModelFacts,
    ProcessReading,
    Result,
    Status,
    Unmeasured,
    tidy_columns,
    tidy_rows,
    to_json,
)

QUICK = settings(deadline=None, derandomize=True, database=None)

words = st.text(max_size=8)
cases = st.builds(Case, *[words] * 7)
numbers = st.floats(allow_nan=False, allow_infinity=False)
intervals = st.none() | st.builds(Interval, numbers, numbers, numbers)
sizes = st.none() | st.integers(0, 2**62)
results = st.builds(
    Result,
    case=cases,
    seconds=numbers,
    speedup=intervals,
    placebo=intervals,
    page_faults=st.none() | numbers,
    memory=st.builds(Memory, sizes, sizes, sizes, sizes, sizes, st.none() | words),
    device_seconds=st.none() | numbers,
    cold_seconds=st.none() | numbers,
    warmup_calls=st.none() | st.integers(1, 1000),
    processes=st.lists(
        st.builds(
            ProcessReading, st.integers(10, 5000), numbers, st.none() | numbers, st.none() | numbers, st.none() | numbers
        ),
        max_size=3,
    ),
)


@QUICK
@given(cases)
def test_a_case_is_its_group_and_a_mode(case: Case) -> None:
    assert case.group.case(case.mode) == case
    assert str(case) == f"{case.group}-{case.mode}"


def test_a_case_reads_as_its_fields_in_the_order_of_the_grid() -> None:
    assert str(make_result().case) == "forward-mlp-tiny-cpu-float32-resident-no_grad"


def test_cases_that_differ_in_any_one_field_are_different_keys() -> None:
    case = make_result().case
    others = [dataclasses.replace(case, **{field.name: "other"}) for field in dataclasses.fields(Case)]
    assert len({case, *others, dataclasses.replace(case)}) == 8


@pytest.mark.parametrize("record", [make_result(), make_result().case, make_result().case.group])
def test_records_cannot_be_changed(record: Result | Case | Group) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(record, dataclasses.fields(record)[0].name, "other")


@QUICK
@given(results)
def test_a_result_comes_back_from_json_as_it_was(result: Result) -> None:
    assert msgspec.json.decode(json.dumps(to_json(result), allow_nan=False), type=Result) == result


@QUICK
@given(st.builds(Unmeasured, cases, st.sampled_from(get_args(Status)), words))
def test_an_unmeasured_case_comes_back_from_json_as_it_was(unmeasured: Unmeasured) -> None:
    assert msgspec.json.decode(json.dumps(to_json(unmeasured)), type=Unmeasured) == unmeasured


def test_the_saved_keys_are_those_of_the_data_contract() -> None:
    saved = to_json(make_result())
    assert saved["schema"] == SCHEMA == 1
    assert {key: sorted(value) for key, value in saved.items() if isinstance(value, dict)} == {
        "case": ["allocator", "device", "dtype", "mode", "model", "scenario", "size"],
        "speedup": ["estimate", "high", "low"],
        "placebo": ["estimate", "high", "low"],
        "memory": [
            "cast_saved_bytes",
            "expected_saved_bytes",
            "graph_heap_bytes",
            "graph_nodes",
            "heap_bytes_per_step",
            "held_bytes_per_step",
            "held_tensor_bytes",
            "opaque_saved_bytes",
            "peak_reserved_bytes",
            "peak_rss_bytes",
            "peak_tensor_bytes",
            "rss_method",
            "saved_by_module",
            "saved_by_operator",
            "saved_bytes",
            "unavailable",
        ],
        "contract": ["broken", "changed_buffers", "holds"],
        "kernels": ["added", "removed", "same_as_tracked"],
        "model": ["inputs", "parameter_bytes", "parameters"],
    }
    assert {key for key, value in saved.items() if not isinstance(value, dict)} == {
        "seconds", "verdict", "trusted", "page_faults", "device_seconds", "over_no_grad", "kept_pages", "cold_seconds", "warmup_calls", "discarded_placebos",
        "processes", "steps", "schema",
    }  # fmt: skip


def test_a_tidy_row_holds_every_figure_under_a_name_with_its_unit() -> None:
    result = make_result(
        model=ModelFacts(5, 20, ["float32[8, 64]", "int64[8]"]), kernels=Kernels(same_as_tracked=False), device_seconds=9e-5,
        cold_seconds=2e-3, kept_pages=Interval(1.5, 1.4, 1.6), warmup_calls=6, discarded_placebos=[Interval(1.1, 1.05, 1.2)],
        processes=[ProcessReading(40, 1e-4, None, None, 0.0)] * 3,
    )  # fmt: skip
    assert tidy_rows([make_result("tracked"), result])[1] == {
        "scenario": "forward", "model": "mlp", "size": "tiny", "device": "cpu", "dtype": "float32", "allocator": "resident",
        "mode": "no_grad", "seconds": 100e-6, "steps": 1, "seconds_per_step": 100e-6, "speedup": 1.25, "speedup_low": 1.24, "speedup_high": 1.26, "verdict": "faster",
        "placebo": 1.001, "placebo_low": 0.996, "placebo_high": 1.006, "trusted": True, "page_faults": 0.0,
        "device_seconds": 9e-5, "over_no_grad": None, "over_no_grad_low": None, "over_no_grad_high": None, "cold_seconds": 2e-3, "kept_pages": 1.5, "kept_pages_low": 1.4, "kept_pages_high": 1.6, "warmup_calls": 6, "discarded": 1, "processes": 3, "peak_tensor_bytes": 4096, "held_tensor_bytes": 4096, "saved_bytes": 0, "peak_rss_bytes": 0,
        "peak_reserved_bytes": None, "rss_method": "kernel", "expected_saved_bytes": None,
            "opaque_saved_bytes": None, "graph_nodes": None, "graph_heap_bytes": None, "held_bytes_per_step": None, "heap_bytes_per_step": None, "cast_saved_bytes": None, "unavailable": "", "peak_tensor_ratio": 0.4, "contract_holds": True, "changed_buffers": "",
        "same_kernels": False, "parameters": 5, "parameter_bytes": 20, "inputs": "float32[8, 64] int64[8]",
    }  # fmt: skip


@QUICK
@given(st.lists(results, max_size=4))
def test_tidy_rows_keep_order_and_columns_whatever_is_missing(found: list[Result]) -> None:
    rows = tidy_rows(iter(found))
    assert [row["seconds"] for row in rows] == [result.seconds for result in found]
    assert all(list(row) == list(tidy_rows([make_result()])[0]) for row in rows)


@QUICK
@given(st.lists(results, max_size=4))
def test_chosen_columns_are_those_of_the_rows(found: list[Result]) -> None:
    names = ["mode", "speedup_low", "peak_tensor_ratio", "saved_bytes", "inputs"]
    assert tidy_columns(found, [*names, "run"]) == {name: [row[name] for row in tidy_rows(found)] for name in names}


def test_an_interval_that_is_missing_leaves_its_three_columns_empty() -> None:
    (row,) = tidy_rows([make_result(speedup=None, placebo=None)])
    assert [row[name + end] for name in ("speedup", "placebo") for end in ("", "_low", "_high")] == [None] * 6


def test_the_peak_ratio_is_taken_within_the_group() -> None:
    lstm = make_result("tracked", case={"model": "lstm"}, memory=Memory(peak_tensor_bytes=8192))
    rows = tidy_rows([make_result(case={"model": "lstm"}), *make_group(), lstm])
    assert [row["peak_tensor_ratio"] for row in rows] == [0.5, 1.0, 0.4, 1.0]


@pytest.mark.parametrize(
    ("tracked_peak", "peak", "ratio"),
    [(None, 4096, None), (0, 4096, None), (4096, None, None), (4096, 0, 0.0), (4096, 4096, 1.0)],
)
def test_the_peak_ratio_is_missing_where_it_means_nothing(
    tracked_peak: int | None, peak: int | None, ratio: float | None
) -> None:
    tracked, other = make_result("tracked", memory=Memory(tracked_peak)), make_result(memory=Memory(peak))
    assert tidy_rows([tracked, other])[1]["peak_tensor_ratio"] == ratio
    assert tidy_rows([other])[0]["peak_tensor_ratio"] is None


def test_only_what_the_machine_or_the_mode_cannot_do_is_skipped() -> None:
    assert set(get_args(Status)) - SKIPPED_STATUSES == {"timed_out", "crashed", "broken_contract"}


def test_the_record_needs_nothing_but_the_standard_library() -> None:
    code = "import sys; sys.path.insert(0, sys.argv[1]); import benchmarks.record"
    root = Path(__file__).parent.parent
    subprocess.run([sys.executable, "-S", "-I", "-c", code, root], check=True, timeout=60)
