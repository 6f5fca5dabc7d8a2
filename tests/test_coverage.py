"""Proves that the chosen interval holds the truth under every noise of the study, and that the study's tables say what was drawn."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from benchmarks.selfcheck import coverage as module
from benchmarks.selfcheck.__main__ import COMMANDS
from benchmarks.selfcheck.coverage import (
    CHOSEN,
    WIDTH_ALONE,
    Row,
    batches,
    bootstrap,
    coverage,
    study,
    study_processes,
    study_stopping,
)
from benchmarks.selfcheck.noise import DEVIATION, NOISES, STRONGEST
from benchmarks.statistics import MIN_EFFECTIVE_ROUNDS


@pytest.mark.parametrize("name", NOISES)
def test_the_interval_holds_the_truth_where_rounds_are_many(name: str) -> None:
    assert study(name, NOISES[name].rounds_for_98, CHOSEN, 200).share >= 0.98


@pytest.mark.parametrize("name", [name for name in NOISES if name != STRONGEST])
def test_the_interval_holds_the_truth_where_rounds_are_few(name: str) -> None:
    assert study(name, 20, CHOSEN, 200).share >= 0.97


def test_the_interval_widens_where_few_rounds_are_strongly_correlated() -> None:
    found = study(STRONGEST, 20, CHOSEN, 200)
    assert found.share >= 0.94
    assert found.half_width > 4 * DEVIATION


@pytest.mark.parametrize("name", NOISES)
def test_every_noise_has_its_median_where_the_truth_is_said_to_be(name: str) -> None:
    noise, n = NOISES[name], 20_001
    series = noise.series(np.random.default_rng(7), n)
    assert np.median(series) == pytest.approx(noise.truth(n, n), abs=0.1 * DEVIATION)


def test_the_truth_of_a_drift_is_where_it_stands_in_the_middle_of_what_was_seen() -> None:
    noise = NOISES["drift"]
    seen = [noise.series(np.random.default_rng(seed), 2000)[:501] for seed in range(50)]
    assert np.median(seen) == pytest.approx(noise.truth(501, 2000), abs=0.02 * DEVIATION)


def test_neighbours_are_as_correlated_as_the_noise_says() -> None:
    series = NOISES[STRONGEST].series(np.random.default_rng(7), 100_000)
    assert np.corrcoef(series[1:], series[:-1])[0, 1] == pytest.approx(0.9, abs=0.01)
    assert np.std(series) == pytest.approx(DEVIATION, rel=0.05)


def test_bursts_make_one_round_in_twenty_ten_times_slower_in_either_lane() -> None:
    series = NOISES["bursts"].series(np.random.default_rng(7), 100_000)
    for direction in (1, -1):
        assert np.mean(direction * series > 1) == pytest.approx(0.05 * 0.95, rel=0.1)
        assert np.median(series[direction * series > 1]) == pytest.approx(direction * math.log(10), abs=0.01)


def test_the_bootstrap_counts_the_medians_that_sorting_finds() -> None:
    values = np.random.default_rng(7).normal(size=25)  # five blocks of five: an odd number of picks
    starts = np.random.default_rng(8).integers(0, 25, (500, 5))
    medians = np.sort([np.median([values[(start + step) % 25] for start in row for step in range(5)]) for row in starts])
    assert bootstrap(values, np.random.default_rng(8)) == (medians[2], medians[494])


def test_batches_use_students_t_over_the_medians_of_ten_stretches() -> None:
    values = np.repeat(np.arange(10.0), 5)
    values[::5] = 1e9
    half = 3.250 * np.std(np.arange(10.0), ddof=1) / math.sqrt(10)
    assert batches(values, np.random.default_rng(7)) == pytest.approx((4.5 - half, 4.5 + half))


def test_rounds_that_stop_by_width_alone_stop_by_luck_and_the_chosen_rule_waits() -> None:
    alone, chosen = study_stopping(STRONGEST, 60)
    assert (alone.method, chosen.method) == (WIDTH_ALONE, CHOSEN)
    assert alone.share < 0.95 < chosen.share
    assert chosen.rounds > max(alone.rounds, 3 * MIN_EFFECTIVE_ROUNDS)


def test_processes_that_differ_are_held_when_combined_and_missed_by_their_own_intervals_alone() -> None:
    combined, alike = study_processes(5, 200)
    assert combined.share >= 0.98
    assert alike.share < 0.97


def rows_of(chosen: float, width: float) -> list[Row]:
    fewer = [Row("white", 20, CHOSEN, 100, chosen, 0.05), Row("white", 20, "batches", 100, 0.96, 0.02)]
    many = [Row("white", 200, CHOSEN, 100, chosen, width), Row("white", 200, "batches", 100, 0.99, 0.02)]
    strong = [Row(STRONGEST, 20, CHOSEN, 100, 0.96, 0.1), Row(STRONGEST, 20, "batches", 100, 0.65, 0.02)]
    return [*fewer, *many, *strong]


@pytest.mark.parametrize(
    ("chosen", "width", "expected"),
    [
        (0.99, 0.029, [True, True, True, True, True]),
        (0.97, 0.029, [False, True, True, True, True]),
        (0.94, 0.02, [False, False, True, True, True]),
        (0.99, 0.031, [True, True, True, True, False]),
    ],
)  # fmt: skip
def test_goals_are_reached_or_missed_by_the_rows_alone(chosen: float, width: float, expected: list[bool]) -> None:
    sound = [Row("white", 100, CHOSEN, 100, 0.99, 0.01), Row("white", 50, WIDTH_ALONE, 100, 0.5, 0.01)]
    *found, _ = module._goals(rows_of(chosen, width), sound, sound)
    assert [goal.reached for goal in found] == expected


def test_a_method_that_holds_less_than_is_asked_is_no_measure_of_width() -> None:
    rows = [dataclasses.replace(row, share=0.97) if row.method == "batches" else row for row in rows_of(0.99, 0.1)]
    assert module._against_narrowest(rows, 0.98) == [(rows[2], rows[2])]


def test_the_price_of_few_rounds_names_the_narrower_method_and_what_it_misses() -> None:
    text = module._price_of_few(rows_of(0.99, 0.02))
    assert "2.5 times as wide as batches (white, 20 rounds)" in text
    assert f"{STRONGEST} 65 %" in text


@pytest.mark.parametrize(("share", "repeats", "expected"), [(0.983, 1000, "98.5"), (0.983, 100, "98"), (1.0, 1000, "100.0")])
def test_shares_are_shown_no_finer_than_they_are_known(share: float, repeats: int, expected: str) -> None:
    assert module._percent(Row("white", 200, CHOSEN, repeats, share, 0.01)) == expected


def test_the_command_shows_every_noise_and_method_and_ends_with_goals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "METHODS", {name: (method, 3) for name, (method, _) in module.METHODS.items()})
    monkeypatch.setattr(module, "STOP_REPEATS", 1)
    monkeypatch.setattr(module, "PROCESS_REPEATS", 2)
    monkeypatch.setattr(module, "ROUNDS", (20, 1000))
    rows, stops, processes, goals = coverage()
    assert [section.heading for section in rows.sections] == list(NOISES)
    assert [column.title for column in rows.columns] == ["", *module.METHODS]
    assert all([row[0].strip() for row in section.rows] == ["20", "1,000"] for section in rows.sections)
    assert [row[0] for row in stops.sections[0].rows] == list(NOISES)
    assert [row[0] for row in processes.sections[0].rows] == ["2 processes", "3 processes", "5 processes"]
    assert len(goals.sections[0].rows) == 6
    assert COMMANDS["coverage"][0] is coverage


def test_the_same_rows_are_drawn_every_time() -> None:
    assert study("white", 20, "bootstrap", 20) == study("white", 20, "bootstrap", 20)
