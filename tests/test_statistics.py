"""Proves that the interval covers the truth under the noise of real machines, and that verdicts follow from it alone."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from random import Random

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.record import Interval
from benchmarks.statistics import (
    MIN_EFFECTIVE_ROUNDS,
    MIN_ROUNDS,
    autocorrelation_time,
    combine,
    correlation_time,
    median_interval,
    next_look,
    order_statistics,
    paired_ratio,
    settled,
    t99,
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


def test_few_rounds_give_at_least_the_range_that_was_seen_and_correlated_ones_more() -> None:
    mixed = np.array([1.0, 8.0, 2.0, 9.0, 3.0, 7.0, 0.0, 6.0, 4.0, 5.0])
    assert len(mixed) == MIN_ROUNDS
    low, high = order_statistics(mixed, 1.0)
    assert low <= 0.0
    assert high >= 9.0
    wandering = np.array([0.0, 1.0, 2.0, 9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0])
    wider_low, wider_high = median_interval(wandering)
    assert wider_low < low
    assert wider_high > high


@QUICK
@given(distinct_ratios, st.floats(1, 30), st.floats(1, 30))
def test_the_interval_widens_with_the_correlation_time(values: list[int], one: float, other: float) -> None:
    narrow, wide = (order_statistics(np.array(values, float), time) for time in sorted((one, other)))
    assert wide[0] <= narrow[0]
    assert wide[1] >= narrow[1]


def test_sorting_the_rounds_so_that_neighbours_agree_widens_the_interval() -> None:
    shuffled = white(np.random.default_rng(7), 200)
    alike = np.concatenate((np.sort(shuffled)[::2], np.sort(shuffled)[::-2]))
    (low, high), (wide_low, wide_high) = median_interval(shuffled), median_interval(alike)
    assert wide_high - wide_low > 3 * (high - low)


@pytest.mark.parametrize("slope", [-1.0, 0.001, 5.0])
def test_a_straight_drift_is_not_taken_for_correlation(slope: float) -> None:
    noise = white(np.random.default_rng(7), 300)
    assert correlation_time(noise + slope * np.arange(300)) == pytest.approx(correlation_time(noise), rel=0.2)


def test_the_correlation_time_of_few_rounds_is_not_too_low_as_that_of_the_signs_alone_is() -> None:
    rng = np.random.default_rng(7)
    sign_time = 1 + 4 / math.pi * sum(math.asin(0.9**lag) for lag in range(1, 200))
    series = [autoregressive(0.9)(rng, 50) for _ in range(300)]
    assert np.mean([correlation_time(values) for values in series]) > sign_time
    assert np.mean([autocorrelation_time(np.sign(values - np.median(values))) for values in series]) < 0.9 * sign_time


def test_one_outlier_changes_the_correlation_time_little() -> None:
    noise = autoregressive(0.5)(np.random.default_rng(7), 200)
    spoilt = noise.copy()
    spoilt[100] = 1e9
    assert correlation_time(spoilt) == pytest.approx(correlation_time(noise), rel=0.15)


@pytest.mark.parametrize("weight", [0.0, 0.5, 0.9, 0.98])
def test_the_autocorrelation_time_of_a_long_series_is_what_theory_says(weight: float) -> None:
    found = autocorrelation_time(autoregressive(weight)(np.random.default_rng(7), 50_000))
    assert found == pytest.approx((1 + weight) / (1 - weight), rel=0.15)


@QUICK
@given(st.floats(-1e3, 1e3), st.integers(MIN_ROUNDS, 50))
def test_a_constant_series_counts_every_round(value: float, n: int) -> None:
    with np.errstate(all="raise"):
        assert correlation_time(np.full(n, float(np.float32(value)))) == 1.0
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


def test_looks_come_at_growing_gaps() -> None:
    looks = [MIN_ROUNDS]
    while looks[-1] < 5000:
        looks.append(next_look(looks[-1]))
    gaps = np.diff(looks)
    assert gaps[0] >= 1
    assert np.all(np.diff(gaps) >= 0)
    assert len(looks) < 40


def test_rounds_settle_when_the_interval_is_narrow_and_enough_of_them_are_independent() -> None:
    baseline = np.exp(0.001 * white(np.random.default_rng(7), 400))
    ones = [1.0] * 400
    assert settled(baseline.tolist(), ones, 0.01)
    assert not settled(baseline.tolist(), ones, 1e-5)
    few = MIN_EFFECTIVE_ROUNDS - 1
    assert within_precision(paired_ratio(baseline[:few].tolist(), ones[:few]), 0.01)
    assert not settled(baseline[:few].tolist(), ones[:few], 0.01)


def test_correlated_rounds_settle_later_however_narrow_the_interval() -> None:
    wandering = np.exp(1e-4 * autoregressive(0.9)(np.random.default_rng(7), 200)).tolist()
    assert within_precision(paired_ratio(wandering, [1.0] * 200), 0.01)
    assert not settled(wandering, [1.0] * 200, 0.01)


@pytest.mark.parametrize(
    ("degrees", "expected"), [(1, 63.6567), (2, 9.9248), (4, 4.6041), (11, 3.1058), (17, 2.8982), (40, 2.7045), (1e12, 2.5758)]
)
def test_quantiles_of_students_t_are_the_known_ones_and_never_smaller(degrees: float, expected: float) -> None:
    assert t99(degrees) == pytest.approx(expected, rel=0.003)
    assert t99(degrees) >= expected - 0.0005


sides = st.floats(0, 0.3)
some_intervals = st.lists(
    st.tuples(st.floats(-0.5, 0.5), sides, sides).map(
        lambda drawn: Interval(math.exp(drawn[0]), math.exp(drawn[0] - drawn[1]), math.exp(drawn[0] + drawn[2]))
    ),
    min_size=1,
    max_size=6,
)


@QUICK
@given(some_intervals, st.randoms(use_true_random=False))
def test_the_order_of_processes_does_not_matter(intervals: list[Interval], random: Random) -> None:
    mixed = random.sample(intervals, len(intervals))
    assert ends(combine(mixed)) == pytest.approx(ends(combine(intervals)), rel=1e-12)


@QUICK
@given(some_intervals)
def test_combined_processes_enclose_their_geometric_mean_and_are_never_narrower_than_their_own_intervals_imply(
    intervals: list[Interval],
) -> None:
    n, found = len(intervals), combine(intervals)
    assert found.estimate == pytest.approx(math.prod(one.estimate for one in intervals) ** (1 / n))
    assert found.low <= found.estimate <= found.high
    below = math.sqrt(sum(math.log(one.estimate / one.low) ** 2 for one in intervals)) / n
    above = math.sqrt(sum(math.log(one.high / one.estimate) ** 2 for one in intervals)) / n
    assert math.log(found.estimate / found.low) >= below - 1e-12
    assert math.log(found.high / found.estimate) >= above - 1e-12


@QUICK
@given(some_intervals, st.floats(0.1, 10))
def test_combining_scales_with_the_ratio(intervals: list[Interval], factor: float) -> None:
    scaled = [Interval(one.estimate * factor, one.low * factor, one.high * factor) for one in intervals]
    assert ends(combine(scaled)) == pytest.approx([factor * end for end in ends(combine(intervals))])


def test_one_process_keeps_its_interval() -> None:
    alone = Interval(1.2, 1.1, 1.25)
    assert combine([alone]) == alone


def test_processes_that_differ_by_more_than_their_intervals_widen_the_combined_one_as_students_t_says() -> None:
    found = combine([Interval(math.exp(x), math.exp(x - 1e-6), math.exp(x + 1e-6)) for x in (0.0, 0.1, 0.2)])
    half = 9.925 * 0.1 / math.sqrt(3)
    assert ends(found) == pytest.approx((math.exp(0.1 - half), math.exp(0.1), math.exp(0.1 + half)))


def test_no_process_is_refused() -> None:
    with pytest.raises(ValueError, match="at least two processes are needed, got 0"):
        combine([])
