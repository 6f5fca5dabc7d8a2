"""Proves that the interval covers the truth under the noise of real machines, and that verdicts follow from it alone."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.record import Interval
from benchmarks.statistics import (
    MIN_ROUNDS,
    autocorrelation_time,
    median_interval,
    paired_ratio,
    verdict,
    within_precision,
)

QUICK = settings(deadline=None, derandomize=True, database=None)

Floats = npt.NDArray[np.float64]
Pairs = list[tuple[float, float]]

RNG = np.random.Generator
TRUTH = 1.25

seconds = st.floats(1e-7, 1e2)
distinct_ratios = st.lists(st.integers(100, 10_000), min_size=MIN_ROUNDS, max_size=60, unique=True)
series = st.tuples(distinct_ratios, st.randoms(use_true_random=False)).map(
    lambda drawn: [(ratio / 1000 * other, other) for ratio in drawn[0] for other in (drawn[1].uniform(1e-6, 1e-1),)]
)
"""Pairs whose ratios are apart by far more than rounding, so that the same rounds stay on the same side of the median."""


def split(pairs: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [baseline for baseline, _ in pairs], [other for _, other in pairs]


def ends(interval: Interval) -> tuple[float, float, float]:
    return interval.low, interval.estimate, interval.high


@QUICK
@given(st.lists(st.tuples(seconds, seconds), min_size=MIN_ROUNDS, max_size=60))
def test_the_interval_contains_the_estimate(pairs: Pairs) -> None:
    low, estimate, high = ends(paired_ratio(*split(pairs)))
    assert 0 < low <= estimate * (1 + 1e-12)
    assert estimate <= high * (1 + 1e-12)


@QUICK
@given(st.lists(st.tuples(seconds, seconds), min_size=MIN_ROUNDS, max_size=60))
def test_the_estimate_is_the_median_of_the_ratios_on_a_log_scale(pairs: Pairs) -> None:
    ordered = sorted(baseline / other for baseline, other in pairs)
    middle = math.sqrt(ordered[len(pairs) // 2] * ordered[(len(pairs) - 1) // 2])
    assert paired_ratio(*split(pairs)).estimate == pytest.approx(middle, rel=1e-9)


@QUICK
@given(series, st.floats(0.01, 100), st.floats(0.01, 100))
def test_scaling_both_series_scales_nothing_and_scaling_one_scales_the_ratio(pairs: Pairs, both: float, one: float) -> None:
    baseline, other = split(pairs)
    expected = ends(paired_ratio(baseline, other))
    assert ends(paired_ratio([x * both for x in baseline], [x * both for x in other])) == pytest.approx(expected, rel=1e-9)
    assert ends(paired_ratio([x * one for x in baseline], other)) == pytest.approx([x * one for x in expected], rel=1e-9)


@QUICK
@given(series)
def test_swapping_the_series_inverts_the_ratio_and_swaps_the_ends(pairs: Pairs) -> None:
    baseline, other = split(pairs)
    forth, back = paired_ratio(baseline, other), paired_ratio(other, baseline)
    assert (1 / back.high, 1 / back.estimate, 1 / back.low) == pytest.approx(ends(forth), rel=1e-9)


@pytest.mark.parametrize(
    ("baseline", "other"),
    [
        ([], []), ([1.0] * 10, []), ([1.0] * 11, [1.0] * 10), ([1.0] * 9, [1.2] * 9),
        ([0.0] + [1.0] * 9, [1.0] * 10), ([1.0] * 10, [1.0] * 9 + [0.0]), ([-1.0] * 10, [1.0] * 10),
        ([1.0] * 10, [math.nan] * 10), ([math.inf] * 10, [1.0] * 10),
    ],
)  # fmt: skip
def test_series_that_are_no_pairs_of_times_are_refused(baseline: list[float], other: list[float]) -> None:
    with pytest.raises(ValueError, match=r"equally long series of at least 10 rounds|finite and above 0 seconds"):
        paired_ratio(baseline, other)


def autoregressive(weight: float) -> Callable[[RNG, int], Floats]:
    """Stationary noise of which each value keeps `weight` of the one before; its autocorrelation time is (1 + w) / (1 - w)."""

    def draw(rng: RNG, n: int) -> Floats:
        shocks = rng.normal(size=n) * math.sqrt(1 - weight**2)
        shocks[0] = rng.normal()
        return np.array(list(itertools.accumulate(shocks, lambda before, shock: weight * before + shock)))

    return draw


white = autoregressive(0.0)


def drift(rng: RNG, n: int) -> Floats:
    return np.linspace(-2, 2, n) + white(rng, n)


def heavy_tails(rng: RNG, n: int) -> Floats:
    return rng.standard_t(2, n)


def correlated_with_outliers(rng: RNG, n: int) -> Floats:
    """Outliers so large that the correlation of the rest does not show in the values, only in their signs."""
    outliers: Floats = 1000 * rng.choice([-1.0, 0.0, 1.0], n, p=[0.02, 0.96, 0.02])
    return autoregressive(0.5)(rng, n) + outliers


def covered(draw: Callable[[RNG, int], Floats], n: int, repeats: int = 300) -> float:
    """The share of seeded repeats in which the interval contains the true median, 0."""
    rng = np.random.default_rng(20260101)
    intervals = [median_interval(draw(rng, n)) for _ in range(repeats)]
    return sum(low <= 0 <= high for low, high in intervals) / repeats


@pytest.mark.parametrize(
    ("draw", "rounds"),
    [
        (white, 200),
        (autoregressive(0.5), 200),
        (drift, 200),
        (heavy_tails, 200),
        (autoregressive(0.9), 1000),
        (correlated_with_outliers, 200),
    ],
)
def test_the_interval_covers_the_median_of_correlated_drifting_and_heavy_tailed_rounds(
    draw: Callable[[RNG, int], Floats], rounds: int
) -> None:
    assert covered(draw, rounds) >= 0.97


def test_the_interval_covers_the_ratio_when_bursts_slow_one_lane_tenfold() -> None:
    rng = np.random.default_rng(20260101)
    hits = 0
    for _ in range(300):
        lanes = np.exp(rng.normal(scale=0.02, size=(2, 200))) * np.array([[TRUTH], [1.0]])
        lanes[rng.random((2, 200)) < 0.05] *= 10
        interval = paired_ratio(lanes[0].tolist(), lanes[1].tolist())
        hits += interval.low <= TRUTH <= interval.high
        assert interval.high / interval.low < 1.05  # the deviation that a mean would go by is 70 %
    assert hits / 300 >= 0.97


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_the_interval_is_as_wide_as_theory_says_and_no_wider(weight: float) -> None:
    """The median's standard error is sqrt(pi t / 2n) for normal noise, t the autocorrelation time of signs (arcsine law)."""
    sign_time = 1 + 2 * sum(2 / math.pi * math.asin(weight**lag) for lag in range(1, 50))
    rng = np.random.default_rng(20260101)
    widths = [high - low for low, high in (median_interval(autoregressive(weight)(rng, 1000)) for _ in range(100))]
    assert np.mean(widths) == pytest.approx(2 * 2.576 * math.sqrt(math.pi * sign_time / 2000), rel=0.2)


def test_the_interval_of_the_fewest_rounds_is_what_was_seen_and_of_less_it_is_more() -> None:
    seen = np.array([1.0, 8.0, 2.0, 9.0, 3.0, 7.0, 0.0, 6.0, 4.0, 5.0])
    assert len(seen) == MIN_ROUNDS
    assert median_interval(seen) == (0.0, 9.0)
    low, high = median_interval(seen[:4])
    assert low < 1.0
    assert high > 9.0


@pytest.mark.parametrize("weight", [0.0, 0.5, 0.9, 0.98])
def test_the_autocorrelation_time_of_a_long_series_is_what_theory_says(weight: float) -> None:
    found = autocorrelation_time(autoregressive(weight)(np.random.default_rng(7), 50_000))
    assert found == pytest.approx((1 + weight) / (1 - weight), rel=0.15)


@QUICK
@given(st.floats(-1e3, 1e3), st.integers(1, 50))
def test_a_constant_series_counts_every_round(value: float, n: int) -> None:
    with np.errstate(all="raise"):
        assert autocorrelation_time(np.full(n, float(np.float32(value)))) == 1.0


@QUICK
@given(st.lists(st.sampled_from([-1, 1]), min_size=4, max_size=30).filter(lambda signs: len(set(signs)) > 1))
def test_the_autocorrelation_time_of_a_short_series_is_what_the_definition_says(signs: list[int]) -> None:
    """Geyer's initial monotone sequence in exact fractions, without Fourier transforms."""
    n = len(signs)
    centred = [sign - Fraction(sum(signs), n) for sign in signs]
    products = [sum(a * b for a, b in zip(centred, centred[lag:], strict=False)) for lag in range(n)]
    pairs = [(products[lag] + products[lag + 1]) / products[0] for lag in range(0, n - 1, 2)]
    monotone = itertools.accumulate(itertools.takewhile(lambda pair: pair > 0, pairs), min)
    assert autocorrelation_time(np.array(signs, float)) == pytest.approx(max(1.0, float(2 * sum(monotone) - 1)))


def test_rounds_that_alternate_count_no_more_than_independent_ones() -> None:
    assert autocorrelation_time(np.tile([1.0, -1.0], 50)) == 1.0


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
    assert verdict(Interval(1.0, low, high)) == expected


near_one = st.floats(0.97, 1.03)


@QUICK
@given(st.lists(near_one, min_size=4, max_size=4).map(sorted))
def test_a_narrower_interval_never_contradicts_a_wider_one(points: list[float]) -> None:
    wide, narrow = verdict(Interval(1.0, points[0], points[3])), verdict(Interval(1.0, points[1], points[2]))
    assert wide in ("unclear", narrow)


@QUICK
@given(st.lists(near_one, min_size=2, max_size=2).map(sorted))
def test_exactly_one_verdict_fits_an_interval(points: list[float]) -> None:
    low, high = points
    fits = {"faster": low > 1.01, "slower": high < 0.99, "same": 0.99 <= low <= high <= 1.01}
    assert [word for word, holds in fits.items() if holds] in ([], [verdict(Interval(1.0, low, high))])
    assert any(fits.values()) or verdict(Interval(1.0, low, high)) == "unclear"


@pytest.mark.parametrize(
    ("low", "high", "expected"), [(1.981, 2.019, True), (1.979, 2.019, False), (1.981, 2.021, False), (2.0, 2.0, True)]
)
def test_precision_is_a_fraction_of_the_estimate_at_both_ends(low: float, high: float, expected: bool) -> None:
    assert within_precision(Interval(2.0, low, high), 0.01) is expected
