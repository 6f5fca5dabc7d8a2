"""A run's record says what it began with, what grew meanwhile, and every warning that was shown."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from stand_ins import FakeNvml, FakeSystem

from benchmarks.conditions import Conditions
from benchmarks.sensors import Place


@pytest.fixture
def place(tmp_path: Path) -> Place:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/\n")
    throttle(tmp_path, 5.0)
    return Place(1, tmp_path, FakeSystem(load=0.25), FakeNvml())


def throttle(root: Path, seconds: float) -> None:
    (root / "sys/fs/cgroup/cpu.stat").write_text(f"throttled_usec {seconds * 1e6:.0f}\n")


def lasting(seconds: float) -> Iterator[float]:
    yield from (1000.0, 1000.0 + seconds)


def test_time_throttled_in_the_run_is_recorded_and_beyond_1_percent_told(place: Place) -> None:
    conditions = Conditions(place, lasting(100).__next__)
    throttle(place.root, 8.0)
    assert conditions.before == []
    assert [str(one) for one in conditions.after] == [
        "the CPU limit of the container stopped the run for 3.0 of 100 s: raise it"
    ]
    record = conditions.record()
    assert record["throttled_seconds"] == 3
    assert record["warnings"] == [str(one) for one in conditions.after]


def test_a_little_throttling_is_recorded_but_not_worth_a_word(place: Place) -> None:
    conditions = Conditions(place, lasting(100).__next__)
    throttle(place.root, 5.5)
    assert conditions.after == []
    assert conditions.record()["throttled_seconds"] == 0.5


def test_heat_on_the_gpu_while_the_run_went_on_is_told(place: Place) -> None:
    nvml = FakeNvml(hot_seconds=60)
    conditions = Conditions(replace(place, nvml=nvml), lasting(100).__next__)
    assert conditions.before == []
    vars(nvml).update(vars(FakeNvml(hot_seconds=80)))
    assert [str(one) for one in conditions.after] == ["heat slowed the GPU for 20.0 of 100 s: let it cool, and measure again"]
    assert conditions.record()["gpu_throttled_seconds"] == 20


def test_what_is_shown_at_the_end_is_what_was_saved(place: Place) -> None:
    conditions = Conditions(place, lasting(100).__next__)
    saved = conditions.record()
    throttle(place.root, 99.0)
    assert conditions.after == []
    assert conditions.record() == saved


def test_warnings_from_before_the_run_stand_in_its_record_with_the_facts(place: Place) -> None:
    system = FakeSystem(plugged=False)
    record = Conditions(replace(place, system=system), lasting(100).__next__).record()
    assert record["warnings"] == ["on battery, the CPU saves power: plug in"]
    assert record["on_battery"] is True


def test_load_is_recorded_from_start_and_end_and_each_chip_at_its_hottest(place: Place) -> None:
    conditions = Conditions(place, lasting(100).__next__)
    vars(place.system).update(vars(FakeSystem(load=1.5)))
    record = conditions.record()
    assert (record["load_average_at_start"], record["load_average_at_end"]) == (0.25, 1.5)
    assert record["temperatures_celsius"] == {"chip": 43.5}


def test_a_counter_that_was_not_there_before_the_run_tells_nothing(place: Place) -> None:
    (place.root / "sys/fs/cgroup/cpu.stat").unlink()
    conditions = Conditions(place, lasting(100).__next__)
    throttle(place.root, 8.0)
    assert conditions.after == []
    assert "throttled_seconds" not in conditions.record()
