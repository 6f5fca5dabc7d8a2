"""Proves that intervals hold the truth under the noise of real machines, and that verdicts follow from them alone."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from random import Random

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.intervals import (
    across,
    combined_ratio,
    disproved,
    geometric_mean,
    half_width,
    median_ratio,
    quotient,
    resolution,
    t_quantile,
    verdict,
)
from benchmarks.record import Interval, from_json, to_json

QUICK = settings(deadline=None, derandomize=True, database=None)

Floats = npt.NDArray[np.float64]
Draw = Callable[[np.random.Generator, int], Floats]

sides = st.floats(0, 0.3)
intervals = st.tuples(st.floats(-0.5, 0.5), sides, sides).map(
    lambda drawn: Interval(math.exp(drawn[0]), math.exp(drawn[0] - drawn[1]), math.exp(drawn[0] + drawn[2]))
)


def ends(interval: Interval) -> tuple[float, float, float]:
    return interval.low, interval.estimate, interval.high


def swapped(interval: Interval) -> tuple[float, float, float]:
    return 1 / interval.high, 1 / interval.estimate, 1 / interval.low


def around(log_ratio: float, half: float) -> Interval:
    return Interval(math.exp(log_ratio), math.exp(log_ratio - half), math.exp(log_ratio + half))


# The rounds of one process.


def autoregressive(weight: float) -> Draw:
    """Stationary noise of which each value keeps `weight` of the one before; its autocorrelation time is (1 + w) / (1 - w)."""

    def draw(rng: np.random.Generator, n: int) -> Floats:
        shocks = rng.normal(size=n) * math.sqrt(1 - weight**2)
        shocks[0] = rng.normal()
        return np.array(list(itertools.accumulate(shocks, lambda before, shock: weight * before + shock)))

    return draw


white = autoregressive(0.0)


def drift(rng: np.random.Generator, n: int) -> Floats:
    return np.linspace(-2, 2, n) + white(rng, n)


def heavy_tails(rng: np.random.Generator, n: int) -> Floats:
    return rng.standard_t(2, n)


def bursts(rng: np.random.Generator, n: int) -> Floats:
    """One round in twenty is slowed tenfold, on either side."""
    return white(rng, n) + math.log(10) / 0.02 * rng.choice([-1.0, 0.0, 1.0], n, p=[0.025, 0.95, 0.025])


@pytest.mark.parametrize(
    ("draw", "rounds"),
    [
        (white, 30), (white, 200), (autoregressive(0.5), 200), (autoregressive(0.9), 1000),
        (drift, 200), (heavy_tails, 200), (bursts, 200),
    ],
)  # fmt: skip
def test_the_interval_of_one_process_holds_the_median_of_correlated_drifting_and_heavy_tailed_rounds(
    draw: Draw, rounds: int
) -> None:
    rng = np.random.default_rng(20260101)
    found = [combined_ratio([(np.exp(1e-3 * draw(rng, rounds)).tolist(), [1.0] * rounds)]) for _ in range(300)]
    assert sum(interval.low <= 1 <= interval.high for interval in found) >= 0.97 * 300


def test_one_process_counts_as_ten_short_ones() -> None:
    logs = white(np.random.default_rng(7), 40)
    rounds = np.exp(logs).tolist(), [1.0] * 40
    batches = [(rounds[0][begin : begin + 4], rounds[1][begin : begin + 4]) for begin in range(0, 40, 4)]
    assert combined_ratio([rounds]) == combined_ratio(batches)
    with pytest.raises(ValueError, match="at least 10 rounds of a single process are needed, got 9"):
        combined_ratio([([1.0] * 9, [1.0] * 9)])


# Across processes.


@pytest.mark.parametrize(
    ("degrees", "expected"),
    [(1, 63.6567), (2, 9.92484), (7, 3.49948), (30, 2.75000), (31, 2.74404), (120, 2.61742), (math.inf, 2.57583)],
)
def test_the_quantiles_of_students_t_are_the_known_ones(degrees: float, expected: float) -> None:
    assert t_quantile(degrees) == pytest.approx(expected, rel=1e-4)
    assert t_quantile(7, 0.95) == pytest.approx(2.36462, rel=1e-4)


def test_processes_that_differ_give_students_interval_around_their_geometric_mean() -> None:
    half = 9.92484 * 0.1 / math.sqrt(3)
    assert ends(across([math.exp(x) for x in (0.0, 0.1, 0.2)])) == pytest.approx(ends(around(0.1, half)), rel=1e-4)
    with pytest.raises(ValueError, match="at least two processes are needed, got 1"):
        across([1.0])


processes = st.lists(st.tuples(st.floats(-0.3, 0.3), st.floats(0, 0.1), st.integers(0, 10**6)), min_size=2, max_size=5).map(
    lambda drawn: [
        (np.exp(level + spread * white(np.random.default_rng(seed), 30)).tolist(), [1.0] * 30) for level, spread, seed in drawn
    ]
)


@QUICK
@given(processes)
def test_the_interval_across_processes_is_never_narrower_than_students_t_nor_than_their_own_rounds(
    rounds: list[tuple[list[float], list[float]]],
) -> None:
    """Of normal rounds a median's standard error is sqrt(pi / 2n) deviations, here from the median deviation."""
    combined = combined_ratio(rounds)
    whole = across([median_ratio(*pair) for pair in rounds])
    logs = [np.log(baseline) for baseline, _ in rounds]
    errors = [math.sqrt(math.pi / 60) * 1.4826 * float(np.median(abs(log - np.median(log)))) for log in logs]
    own = 2.5758 * math.hypot(*errors) / len(rounds)
    assert combined.estimate == whole.estimate
    assert combined.low == pytest.approx(min(whole.low, whole.estimate * math.exp(-own)), rel=1e-5)
    assert combined.high == pytest.approx(max(whole.high, whole.estimate * math.exp(own)), rel=1e-5)


@QUICK
@given(processes, st.floats(0.1, 10), st.randoms(use_true_random=False))
def test_combining_scales_with_the_ratio_swaps_with_the_series_and_knows_no_order(
    rounds: list[tuple[list[float], list[float]]], factor: float, random: Random
) -> None:
    expected = combined_ratio(rounds)
    scaled = combined_ratio([([factor * x for x in baseline], other) for baseline, other in rounds])
    assert ends(scaled) == pytest.approx([factor * end for end in ends(expected)])
    assert swapped(combined_ratio([(other, baseline) for baseline, other in rounds])) == pytest.approx(ends(expected))
    assert ends(combined_ratio(random.sample(rounds, len(rounds)))) == pytest.approx(ends(expected))


def test_processes_that_have_nothing_in_common_give_an_interval_that_a_file_holds() -> None:
    """The ends by Student's t with one degree of freedom would be beyond what a float holds."""
    apart = combined_ratio([([1e-6] * 3, [1.0] * 3), ([1.0] * 3, [1e-6] * 3)])
    assert resolution(from_json(to_json(apart), Interval)) < 1e18
    assert apart.low < 1e-12
    assert verdict(apart) == "unclear"


@QUICK
@given(st.lists(intervals, min_size=1, max_size=6))
def test_half_widths_combine_as_independent_errors_do(several: list[Interval]) -> None:
    n, mean = len(several), geometric_mean(several)
    assert mean.estimate == pytest.approx(math.prod(one.estimate for one in several) ** (1 / n))
    below = math.sqrt(sum(math.log(one.estimate / one.low) ** 2 for one in several)) / n
    above = math.sqrt(sum(math.log(one.high / one.estimate) ** 2 for one in several)) / n
    assert math.log(mean.estimate / mean.low) == pytest.approx(below, abs=1e-9)
    assert math.log(mean.high / mean.estimate) == pytest.approx(above, abs=1e-9)


# Whether two speedups differ.

numbers = st.tuples(st.integers(0, 16), st.integers(0, 16))


@QUICK
@given(intervals, intervals, numbers, st.integers(1, 50))
def test_swapping_a_quotients_sides_inverts_it(one: Interval, other: Interval, rests: tuple[int, int], many: int) -> None:
    forth, back = quotient(one, other, rests, many), quotient(other, one, rests[::-1], many)
    assert forth.estimate == pytest.approx(one.estimate / other.estimate)
    assert swapped(back) == pytest.approx(ends(forth))


def test_few_processes_count_with_the_degrees_of_freedom_of_welch() -> None:
    """Equal errors of 8 and 8 processes have 14 degrees; where one is certain, the other's own 7 remain."""
    error = 0.01
    eight = around(0.0, t_quantile(7) * error)
    both = quotient(eight, eight, (8, 8))
    assert math.log(both.high) == pytest.approx(t_quantile(14) * error * math.sqrt(2), rel=1e-6)
    alone = quotient(eight, Interval(1.0, 1.0, 1.0), (8, 8))
    assert math.log(alone.high) == pytest.approx(t_quantile(7) * error, rel=1e-6)


def test_several_comparisons_need_wider_intervals() -> None:
    interval = around(0.0, t_quantile(math.inf) * 0.01)
    certain = Interval(1.0, 1.0, 1.0)
    ten = quotient(interval, certain, comparisons=10)
    assert math.log(ten.high) == pytest.approx(3.2905 * 0.01, rel=1e-3)  # the normal quantile of 99.9 %


# Verdicts.


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (1.011, 1.5, "faster"), (1.01, 1.5, "unclear"), (1.009, 1.011, "unclear"),
        (0.5, 0.989, "slower"), (0.5, 0.99, "unclear"), (0.989, 0.991, "unclear"),
        (0.99, 1.01, "same"), (1.0, 1.0, "same"), (1.01, 1.01, "same"), (0.99, 0.99, "same"),
        (0.9899, 1.01, "unclear"), (0.99, 1.0101, "unclear"), (0.9, 1.1, "unclear"),
    ],
)  # fmt: skip
def test_the_verdict_follows_from_where_the_interval_lies(low: float, high: float, expected: str) -> None:
    interval = Interval((low + high) / 2, low, high)
    assert verdict(interval) == expected
    assert disproved(interval) == (expected in ("faster", "slower"))


@QUICK
@given(st.lists(st.floats(0.97, 1.03), min_size=5, max_size=5).map(sorted), st.floats(0, 0.03))
def test_a_narrower_interval_or_a_coarser_resolution_never_contradicts(points: list[float], reach: float) -> None:
    low, less_low, middle, less_high, high = points
    wide, narrow = Interval(middle, low, high), Interval(middle, less_low, less_high)
    assert verdict(wide) in ("unclear", verdict(narrow))
    assert verdict(narrow, reach) in ("unclear", verdict(narrow))


@pytest.mark.parametrize(
    ("interval", "reach", "expected"),
    [
        (Interval(1.05, 1.04, 1.06), 0.049, "faster"), (Interval(1.05, 1.04, 1.06), 0.051, "unclear"),
        (Interval(0.95, 0.94, 0.96), 0.049, "slower"), (Interval(0.95, 0.94, 0.96), 0.051, "unclear"),
        (Interval(1.0, 0.995, 1.005), 0.0099, "same"), (Interval(1.0, 0.995, 1.005), 0.0101, "unclear"),
    ],
)  # fmt: skip
def test_no_verdict_is_finer_than_the_placebo_shows_the_group_to_be(interval: Interval, reach: float, expected: str) -> None:
    assert verdict(interval, reach) == expected


def test_resolution_is_the_placebos_farther_end_and_half_width_the_wider_half() -> None:
    placebo = Interval(1.01, 0.97, 1.02)
    assert resolution(placebo) == pytest.approx(0.03)
    assert resolution(Interval(1.03, 1.02, 1.04)) == pytest.approx(0.04)
    assert half_width(placebo) == pytest.approx(1 - 0.97 / 1.01)
    assert half_width(Interval(2.0, 1.99, 2.1)) == pytest.approx(0.05)
