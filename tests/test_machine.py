"""Proves that machine, conditions and what was not measured are told of any run, with their units, and without what is not known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from builders import make_group, make_result, saved_run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from analysis import machine
from analysis.load import Run, load, rows_of
from analysis.render import markdown
from benchmarks.record import Memory, Unmeasured

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)
NAMES = st.sampled_from(
    ["cpu", "gradtax", "devices", "meters", "warnings", "command", "wall_seconds", "swap_used_bytes", "system"]
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return load(saved_run(tmp_path_factory.mktemp("runs") / "run.json", make_group()))


def told(run: Run) -> dict[str, str]:
    return {name: value for section in machine.conditions_table(run).sections for name, value in section.rows}


def test_figures_are_told_with_the_unit_that_their_name_carries(run: Run) -> None:
    conditions = {
        "swap_used_bytes": 2**21, "wall_seconds": 205.617, "memory_pressure_percent": 1.5, "temperatures_celsius": {"k10": 61.25},
        "in_process": False, "precision": 0.01, "command": ["pytest", "--benchmark"],
    }  # fmt: skip
    found = told(replace(run, machine_info={}, conditions=conditions))
    assert found == {
        "command": "pytest --benchmark", "swap used": "2.00 MiB", "whole run": "205.6 s", "memory pressure": "1.5 %",
        "temperatures celsius k10": "61.25", "in process": "no", "precision": "0.01", "file": str(run.path),
    }  # fmt: skip


def test_what_the_run_does_not_know_is_left_out(run: Run) -> None:
    found = told(replace(run, machine_info={"system": None}, conditions={"cpu_limit_cores": None, "meters": []}))
    assert found == {"file": str(run.path)}


def test_the_machine_is_named_with_its_devices_and_the_meters_are_counted(run: Run) -> None:
    machine_info = {
        "cpu": {"brand_raw": "Some CPU", "hz_advertised_friendly": "2 GHz"}, "system": "Linux", "release": "6.1",
        "gradtax": {"torch": "2.13.0", "devices": {"cuda": {"name": "Some GPU"}}},
    }  # fmt: skip
    conditions = {"meters": [{"within_tolerance": True}, {"within_tolerance": False}]}
    found = told(replace(run, machine_info=machine_info, conditions=conditions))
    assert list(found.items())[:4] == [
        ("cpu", "Some CPU, 2 GHz"), ("system", "Linux 6.1"), ("torch", "2.13.0"), ("cuda name", "Some GPU"),
    ]  # fmt: skip
    assert found["memory meters"] == "1 of 2 known blocks read within the meter's tolerance"


def test_warnings_are_those_of_the_run_and_of_its_meters(run: Run) -> None:
    changed = replace(run, conditions={"warnings": ["on battery"]}, broken_invariants=["mlp peaks low"])
    assert machine.warnings(changed) == ["on battery", "meters disagree: mlp peaks low"]


@pytest.mark.parametrize(
    ("saved_at", "text"),
    [
        ("2026-11-22T23:34:08.862376+00:00", "22 November 2026, 23:34 UTC"),
        ("2026-01-02T03:04:05", "2 January 2026, 03:04"),
        ("yesterday", "yesterday"),
        (None, "time unknown"),
    ],
)
def test_the_time_is_told_for_people(run: Run, saved_at: str | None, text: str) -> None:
    assert machine.when(replace(run, saved_at=saved_at)) == text
    assert text in machine.identity(replace(run, saved_at=saved_at), rows_of(run.frame))


def test_cases_without_figures_and_figures_that_were_withheld_are_told_with_their_reason(tmp_path: Path) -> None:
    gone = Unmeasured(make_result("frozen").case, "crashed", "exit code -9")
    withheld = make_result(memory=Memory(unavailable={"peak_rss_bytes": "its meter was off"}))
    table = machine.unmeasured_table(load(saved_run(tmp_path / "run.json", [make_result("tracked"), withheld], [gone])))
    case = ["forward", "mlp", "tiny", "cpu", "float32", "resident"]
    assert table.sections[0].rows == [
        [*case, "frozen", "crashed", "exit code -9"],
        [*case, "no_grad", "withheld: peak_rss_bytes", "its meter was off"],
    ]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(machine_info=st.dictionaries(NAMES, JSON), conditions=st.dictionaries(NAMES, JSON))
def test_nothing_that_a_file_may_hold_there_breaks_the_tables(run: Run, machine_info: Any, conditions: Any) -> None:
    changed = replace(run, machine_info=machine_info, conditions=conditions)
    assert "run.json" in markdown(machine.conditions_table(changed))
    assert all(isinstance(one, str) for one in (*machine.warnings(changed), *machine.identity(changed, rows_of(run.frame))))
