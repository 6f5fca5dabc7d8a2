"""From pairs of times to a speedup with its interval, and from the interval to a verdict. NumPy only, no torch.

The interval is for the median of the log-ratios within rounds. Its ends are order statistics, as in the sign test
(Conover, Practical Nonparametric Statistics, 3rd ed., section 3.2), so heavy tails and bursts do no harm. Neighbouring
rounds are not independent (frequency scaling, a busy neighbour), so the number of rounds that the ranks are computed
from is the effective one: n over the correlation time of the signs around the median. A steady drift is no correlation,
and taken out first. `python -m benchmarks.selfcheck coverage` shows that the method holds, and what was rejected.
"""

from __future__ import annotations

import math
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
"""With so few the interval is at least the whole range, which holds the median with 1 - 2 * 0.5**10 = 99.8 % confidence if rounds are
independent. Eight would reach 99 %; two more leave room for a little correlation."""

MIN_EFFECTIVE_ROUNDS = 50
"""Rounds may stop early once they are worth so many independent ones.

Looking is a chance to stop by luck, and what luck makes small is the correlation time: with AR(1) noise of 0.9, stopping as soon as
the interval is narrow leaves 89 % of intervals that hold the median, from 20 effective rounds on it is 96 %, from 50 on 98.5 %."""

_LOOKS_GROW_BY = 1.25

_T99_BY_DEGREES = {
    1: 63.657, 2: 9.925, 3: 5.841, 4: 4.604, 5: 4.032, 6: 3.707, 7: 3.499, 8: 3.355, 9: 3.250, 10: 3.169,
    12: 3.055, 15: 2.947, 20: 2.845, 30: 2.750, 60: 2.660, math.inf: 2.576,
}  # fmt: skip
"""Two-sided 99 % quantiles of Student's t."""


def next_look(rounds: int) -> int:
    """After how many rounds the intervals are looked at again: the gaps grow, since every look is a chance to stop by luck."""
    return math.ceil(rounds * _LOOKS_GROW_BY)


def paired_ratio(baseline_seconds: Sequence[float], seconds: Sequence[float]) -> Interval:
    """Median of baseline / other over rounds, with its 99 % interval; above 1 the other is faster.

    Both are seconds per call, one value a round, in the order they were run: `baseline_seconds[i]` and `seconds[i]`
    are from the same round. Raises ValueError if the lengths differ, there are fewer than MIN_ROUNDS, or a time is not positive and finite.
    """
    log_ratios = _log_ratios(baseline_seconds, seconds)
    low, high = median_interval(log_ratios)
    return Interval(float(np.exp(np.median(log_ratios))), math.exp(low), math.exp(high))


def median_ratio(baseline_seconds: Sequence[float], seconds: Sequence[float]) -> float:
    """The estimate of `paired_ratio` alone, from one round on."""
    return float(np.exp(np.median(np.log(baseline_seconds) - np.log(seconds))))


def settled(baseline_seconds: Sequence[float], seconds: Sequence[float], precision: float) -> bool:
    """Whether rounds may stop: the interval is within `precision` (a fraction), and the rounds are worth MIN_EFFECTIVE_ROUNDS.

    Takes and raises what `paired_ratio` does.
    """
    if not within_precision(paired_ratio(baseline_seconds, seconds), precision):
        return False
    log_ratios = _log_ratios(baseline_seconds, seconds)
    return log_ratios.size / correlation_time(log_ratios) >= MIN_EFFECTIVE_ROUNDS


def combine(intervals: Sequence[Interval]) -> Interval:
    """One interval from those of the same case in separate processes; that of a single process is returned as it is.

    That of `across`, but never narrower than the processes' own intervals would give if nothing else differed. Raises ValueError
    if there are none.
    """
    if len(intervals) == 1:
        return intervals[0]
    whole = across([one.estimate for one in intervals])
    low, estimate, high = np.log([(one.low, one.estimate, one.high) for one in intervals]).T
    below, above = (math.sqrt(np.mean(side**2) / len(intervals)) for side in (estimate - low, high - estimate))
    low_end, high_end = whole.estimate * math.exp(-below), whole.estimate * math.exp(above)
    return Interval(whole.estimate, min(whole.low, low_end), max(whole.high, high_end))


def across(ratios: Sequence[float]) -> Interval:
    """The geometric mean of ratios, one per process or heap, with its 99 % interval by Student's t over their logarithms.

    Processes differ by more than their rounds show, so they are what counts, and not how many rounds they have (Kalibera and Jones
    2013, Rigorous benchmarking in reasonable time, ISMM). Raises ValueError for fewer than two.
    """
    if len(ratios) < 2:
        raise ValueError(f"at least two processes are needed, got {len(ratios)}")
    logarithms = np.log(ratios)
    centre = float(logarithms.mean())
    half = t99(len(ratios) - 1) * float(logarithms.std(ddof=1)) / math.sqrt(len(ratios))
    return Interval(math.exp(centre), math.exp(centre - half), math.exp(centre + half))


def t99(degrees_of_freedom: float) -> float:
    """The two-sided 99 % quantile of Student's t from 1 degree of freedom on; at most 0.3 % too large between the table's entries."""
    inverse = [1 / degrees for degrees in reversed(_T99_BY_DEGREES)]
    return float(np.interp(1 / degrees_of_freedom, inverse, list(reversed(_T99_BY_DEGREES.values()))))


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


def median_interval(values: Floats) -> tuple[float, float]:
    """The 99 % interval of the median of `values`, shape (n,), n at least MIN_ROUNDS, in the order they were observed."""
    return order_statistics(values, correlation_time(values))


def order_statistics(values: Floats, correlation_time: float) -> tuple[float, float]:
    """The 99 % interval of the median of `values`, shape (n,), if `correlation_time` of them are worth one independent value.

    The quantile is Student's t, as the correlation time is itself estimated from so many effective values, less two for level and slope.
    With fewer effective rounds than an order statistic needs, the interval widens beyond the smallest and largest value.
    """
    ordered = np.sort(values)
    n = ordered.size
    effective = n / correlation_time
    rank_below_median = (t99(max(effective - 2, 3)) * math.sqrt(effective) / 2 + 0.5) * correlation_time
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


def verdict(speedup: Interval) -> Verdict:
    """`faster` or `slower` where the whole interval lies beyond the margin, `same` where it lies within, else `unclear`."""
    if speedup.low > 1 + MARGIN:
        return "faster"
    if speedup.high < 1 - MARGIN:
        return "slower"
    if speedup.low >= 1 - MARGIN and speedup.high <= 1 + MARGIN:
        return "same"
    return "unclear"


def within_precision(speedup: Interval, precision: float) -> bool:
    """Whether both ends of the interval are within `precision` (a fraction) of the estimate."""
    return speedup.high / speedup.estimate - 1 <= precision and 1 - speedup.low / speedup.estimate <= precision
