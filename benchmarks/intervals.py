"""From times to a speedup with its interval, and from the interval to a verdict. NumPy only, no torch.

Within a process the interval is for the median of the log-ratios of rounds. Its ends are order statistics, as in the sign test
(Conover, Practical Nonparametric Statistics, 3rd ed., section 3.2), so heavy tails and bursts do no harm. Neighbouring rounds are not
independent (frequency scaling, a busy neighbour), so the number of rounds that the ranks are computed from is the effective one: n over the
correlation time of the signs around the median. A steady drift is no correlation, and taken out first.

Processes differ by more than their rounds show, so the interval of a result is Student's t over processes, never narrower than theirs allow
(Kalibera and Jones 2013, Rigorous benchmarking in reasonable time, ISMM). `python -m benchmarks.selfcheck coverage` shows that this holds.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.record import Interval

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from benchmarks.record import Verdict

    Floats = npt.NDArray[np.float64]

MARGIN = 0.01
"""Speedups within +-1 % count as no difference."""

MIN_ROUNDS = 10
"""With so few the interval within a process is at least the whole range, which holds the median with 1 - 2 * 0.5**10 = 99.8 % confidence if
rounds are independent. Eight would reach 99 %; two more leave room for a little correlation."""

CONFIDENCE = 0.99


def paired_ratio(baseline_seconds: Sequence[float], seconds: Sequence[float]) -> Interval:
    """Median of baseline / other over the rounds of one process, with its 99 % interval; above 1 the other is faster.

    Both are seconds per call, one value a round, in the order they were run: `baseline_seconds[i]` and `seconds[i]`
    are from the same round. Raises ValueError if the lengths differ, there are fewer than MIN_ROUNDS, or a time is not positive and finite.
    """
    log_ratios = _log_ratios(baseline_seconds, seconds)
    low, high = order_statistics(log_ratios, correlation_time(log_ratios))
    return Interval(float(np.exp(np.median(log_ratios))), math.exp(low), math.exp(high))


def median_ratio(baseline_seconds: Sequence[float], seconds: Sequence[float]) -> float:
    """The estimate of `paired_ratio` alone, from one round on."""
    return float(np.exp(np.median(np.log(baseline_seconds) - np.log(seconds))))


def combined_ratio(pairs: Sequence[tuple[Sequence[float], Sequence[float]]]) -> Interval:
    """baseline / other from the rounds of one process or several; `pairs` holds what `paired_ratio` takes, of each.

    Of several: Student's t over their medians, but never narrower than their own rounds allow, each taken as independent: how they are
    correlated shows between processes. Raises ValueError for no process, and as `paired_ratio` does for a single one.
    """
    if len(pairs) == 1:
        return paired_ratio(*pairs[0])
    whole = across([median_ratio(*pair) for pair in pairs])
    errors = [median_error(np.log(baseline) - np.log(seconds)) for baseline, seconds in pairs]
    least = t_quantile(math.inf) * math.sqrt(sum(error**2 for error in errors)) / len(errors)
    low, high = whole.estimate * math.exp(-least), whole.estimate * math.exp(least)
    return Interval(whole.estimate, min(whole.low, low), max(whole.high, high))


def median_error(values: Floats) -> float:
    """The standard error of the median of independent `values`, shape (n,), were they normal with their median deviation."""
    deviation = 1.4826 * float(np.median(np.abs(values - np.median(values))))
    return math.sqrt(math.pi / 2) * deviation / math.sqrt(values.size)


def across(ratios: Sequence[float]) -> Interval:
    """The geometric mean of ratios, one per process, with its 99 % interval by Student's t over their logarithms.

    Raises ValueError for fewer than two.
    """
    if len(ratios) < 2:
        raise ValueError(f"at least two processes are needed, got {len(ratios)}")
    logarithms = np.log(ratios)
    centre = float(logarithms.mean())
    half = t_quantile(len(ratios) - 1) * float(logarithms.std(ddof=1)) / math.sqrt(len(ratios))
    return Interval(math.exp(centre), math.exp(centre - half), math.exp(centre + half))


def geometric_mean(intervals: Sequence[Interval]) -> Interval:
    """The geometric mean of independent ratios, their half-widths combined as independent errors. Raises ValueError if there are none."""
    if not intervals:
        raise ValueError("at least one interval is needed")
    low, estimate, high = np.log([(one.low, one.estimate, one.high) for one in intervals]).T
    centre = float(estimate.mean())
    below, above = (math.sqrt(np.mean(side**2) / len(intervals)) for side in (estimate - low, high - estimate))
    return Interval(math.exp(centre), math.exp(centre - below), math.exp(centre + above))


def quotient(one: Interval, other: Interval, processes: tuple[int, int] = (0, 0), comparisons: int = 1) -> Interval:
    """one / other with its 99 % interval: the one rule for whether two speedups differ.

    `processes` are how many each rests on (0: unknown, taken as many). Degrees of freedom by Welch and Satterthwaite; with several
    `comparisons` the interval is as wide as they need to hold all at once (Bonferroni).
    """
    errors = []
    for interval, number in zip((one, other), processes, strict=True):
        low, estimate, high = np.log((interval.low, interval.estimate, interval.high))
        errors.append(np.array((estimate - low, high - estimate)) / t_quantile(number - 1 if number > 1 else math.inf))
    below, above = np.hypot(errors[0], errors[1][::-1])  # the other's upper end makes the quotient small
    variances = [float(np.mean(error**2)) for error in errors]
    spread = sum(v**2 / (n - 1) for v, n in zip(variances, processes, strict=True) if n > 1)
    degrees = max(1, math.floor(sum(variances) ** 2 / spread)) if spread else math.inf
    width = t_quantile(degrees, 1 - (1 - CONFIDENCE) / comparisons)
    ratio = math.log(one.estimate / other.estimate)
    return Interval(math.exp(ratio), math.exp(ratio - below * width), math.exp(ratio + above * width))


@lru_cache(maxsize=1024)
def t_quantile(degrees_of_freedom: float, confidence: float = CONFIDENCE) -> float:
    """The two-sided quantile of Student's t, from 1 degree of freedom on; within 2e-6 of it (relative).

    With t = sqrt(degrees) * tan(angle) the density is cos(angle)**(degrees - 1), which is summed up.
    """
    degrees = min(degrees_of_freedom, 1e5)
    farthest = min(math.pi / 2, 12 / math.sqrt(degrees)) if degrees > 30 else math.pi / 2
    angles = np.linspace(0, farthest, 20_001)
    density = np.cos(angles) ** (degrees - 1)
    held = np.concatenate(([0.0], np.cumsum((density[1:] + density[:-1]) / 2)))
    return float(math.sqrt(degrees) * math.tan(np.interp(confidence * held[-1], held, angles)))


def _log_ratios(baseline_seconds: Sequence[float], seconds: Sequence[float]) -> Floats:
    baseline, other = np.asarray(baseline_seconds, float), np.asarray(seconds, float)
    if baseline.shape != other.shape or baseline.ndim != 1 or baseline.size < MIN_ROUNDS:
        raise ValueError(
            f"two equally long series of at least {MIN_ROUNDS} rounds are needed, got {baseline.size} and {other.size}"
        )
    both = np.concatenate((baseline, other))
    if not (np.all(both > 0) and np.all(np.isfinite(both))):
        raise ValueError("times must be finite and above 0 seconds")
    log_ratios: Floats = np.log(baseline) - np.log(other)
    return log_ratios


def order_statistics(values: Floats, correlation_time: float) -> tuple[float, float]:
    """The 99 % interval of the median of `values`, shape (n,), if `correlation_time` of them are worth one independent value.

    The quantile is Student's t, as the correlation time is itself estimated from so many effective values, less two for level and slope.
    With fewer effective rounds than an order statistic needs, the interval widens beyond the smallest and largest value.
    """
    ordered = np.sort(values)
    n = ordered.size
    effective = n / correlation_time
    rank_below_median = (t_quantile(max(effective - 2, 3)) * math.sqrt(effective) / 2 + 0.5) * correlation_time
    rank = math.floor(n / 2 - rank_below_median)
    if rank >= 0:
        return float(ordered[rank]), float(ordered[n - 1 - rank])
    spread = float(ordered[-1] - ordered[0])
    beyond = spread * 2 * (rank_below_median - n / 2) / n
    return float(ordered[0]) - beyond, float(ordered[-1]) + beyond


def correlation_time(values: Floats) -> float:
    """How many consecutive values, shape (n,), tell as much about their median as one independent value; at least 1.

    The larger of two estimates, after a straight drift is taken out: one assumes no shape of the correlation but sees too little of it in
    few rounds, the other sees it in few rounds but assumes that it fades by the same share each round.
    """
    residuals = _without_drift(values)
    return max(autocorrelation_time(np.sign(residuals)), _fading_time(residuals))


def _without_drift(values: Floats) -> Floats:
    """`values` less their resistant line (Tukey 1977, Exploratory Data Analysis, chapter 5): through the medians of the outer thirds.

    Twice, since the first line is rough where the drift within a third is larger than the noise.
    """
    n = values.size
    third = n // 3
    residuals = values
    for _ in range(2):
        slope = (_median(residuals[-third:]) - _median(residuals[:third])) / (n - third)
        residuals = residuals - slope * np.arange(n)
    return residuals - _median(residuals)


def _median(values: Floats) -> float:
    """np.median spends 30 us on checks, more than sorting takes."""
    ordered = np.sort(values)
    return float(ordered[(values.size - 1) // 2] + ordered[values.size // 2]) / 2


def _fading_time(residuals: Floats) -> float:
    """The correlation time of the signs of first-order autoregressive noise that is as correlated as its neighbours are, at least 1.

    Outliers are cut at Huber's 1.35 standard deviations (twice the median deviation). The correlation of neighbours is too low by
    (2 + 5 w) / n where level and slope are estimated from the same values (Shaman and Stine 1988, The bias of autoregressive coefficient
    estimators, JASA 83; the fifth w is that n - 1 products stand over n squares). Signs of normal values: the arcsine law.
    """
    n = residuals.size
    cut = 2 * _median(np.abs(residuals))
    kept = np.clip(residuals, -cut, cut)
    kept -= kept.mean()
    power = float(kept @ kept)
    if power == 0.0:
        return 1.0
    weight = min(max((n * float(kept[1:] @ kept[:-1]) / power + 2) / (n - 5), 0.0), 0.99)
    return float(1 + 4 / math.pi * np.arcsin(weight ** np.arange(1, n)).sum())


def autocorrelation_time(values: Floats) -> float:
    """How many consecutive values, shape (n,), tell as much about their mean as one independent value; at least 1.

    The initial monotone sequence (Geyer 1992, Practical Markov Chain Monte Carlo, Statistical Science 7).
    """
    centred = values - values.mean()
    n = centred.size
    power = float(centred @ centred)
    if n < 4 or power == 0.0:
        return 1.0
    spectrum = np.fft.rfft(centred, 2 * n)
    autocorrelation = np.fft.irfft(spectrum * np.conj(spectrum))[:n] / power
    pairs = autocorrelation[: n // 2 * 2].reshape(-1, 2).sum(axis=1)
    not_positive = np.flatnonzero(pairs <= 0)
    positive = pairs[: not_positive[0]] if not_positive.size else pairs
    return float(max(1.0, 2 * np.minimum.accumulate(positive).sum() - 1))


def resolution(placebo: Interval) -> float:
    """How far the placebo's interval reaches from 1, as a fraction."""
    return max(placebo.high - 1, 1 - placebo.low)


def verdict(speedup: Interval, resolution: float = 0.0) -> Verdict:
    """`faster` or `slower` where the whole interval lies beyond the margin, `same` where it lies within, else `unclear`.

    No verdict is finer than `resolution`: `same` needs one within the margin, `faster` and `slower` an effect beyond it.
    """
    effect = abs(speedup.estimate - 1)
    if speedup.low > 1 + MARGIN and effect > resolution:
        return "faster"
    if speedup.high < 1 - MARGIN and effect > resolution:
        return "slower"
    if speedup.low >= 1 - MARGIN and speedup.high <= 1 + MARGIN and resolution <= MARGIN:
        return "same"
    return "unclear"


def disproved(placebo: Interval) -> bool:
    """Whether identical code was shown to differ by more than the margin, so that the group cannot be trusted."""
    return verdict(placebo) in ("faster", "slower")


def half_width(interval: Interval) -> float:
    """The wider half of an interval, as a fraction of its estimate."""
    return max(interval.high / interval.estimate - 1, 1 - interval.low / interval.estimate)
