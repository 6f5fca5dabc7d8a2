"""From pairs of times to a speedup with its interval, and from the interval to a verdict. NumPy only, no torch.

The interval is for the median of the log-ratios within rounds. Its ends are order statistics, as in the sign test
(Conover, Practical Nonparametric Statistics, 3rd ed., section 3.2), so heavy tails and bursts do no harm. Neighbouring
rounds are not independent (frequency scaling, a busy neighbour), so the number of rounds that the ranks are computed
from is the effective one: n over the integrated autocorrelation time of the signs around the median, estimated by the
initial monotone sequence (Geyer 1992, Practical Markov Chain Monte Carlo, Statistical Science 7).
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
"""With so few the interval is the whole range, which encloses the median with 1 - 2 * 0.5**10 = 99.8 % confidence if rounds are independent.

Eight would reach 99 %; two more leave room for a little correlation. Where few rounds are strongly correlated the interval is too narrow
(AR(1) of 0.9: 92 % of intervals hold the median at 50 rounds, 97 % at 200, 99 % at 1,000)."""

_LOOKS_GROW_BY = 1.25

_Z99 = 2.5758293035489004
"""Two-sided 99 % quantile of the normal distribution."""


def next_look(rounds: int) -> int:
    """After how many rounds the intervals are looked at again: the gaps grow, since every look is a chance to stop by luck."""
    return math.ceil(rounds * _LOOKS_GROW_BY)


def paired_ratio(baseline_seconds: Sequence[float], seconds: Sequence[float]) -> Interval:
    """Median of baseline / other over rounds, with its 99 % interval; above 1 the other is faster.

    Both are seconds per call, one value a round, in the order they were run: `baseline_seconds[i]` and `seconds[i]`
    are from the same round. Raises ValueError if the lengths differ, there are fewer than MIN_ROUNDS, or a time is not positive and finite.
    """
    baseline, other = np.asarray(baseline_seconds, float), np.asarray(seconds, float)
    if baseline.shape != other.shape or baseline.ndim != 1 or baseline.size < MIN_ROUNDS:
        raise ValueError(
            f"two equally long series of at least {MIN_ROUNDS} rounds are needed, got {baseline.size} and {other.size}"
        )
    both = np.concatenate((baseline, other))
    if not (np.all(both > 0) and np.all(np.isfinite(both))):
        raise ValueError("times must be finite and above 0 seconds")
    log_ratios = np.log(baseline) - np.log(other)
    low, high = median_interval(log_ratios)
    return Interval(float(np.exp(np.median(log_ratios))), math.exp(low), math.exp(high))


def median_interval(values: Floats) -> tuple[float, float]:
    """The 99 % interval of the median of `values`, shape (n,), in the order they were observed.

    With fewer effective rounds than an order statistic needs, it widens beyond the smallest and largest value.
    """
    ordered = np.sort(values)
    n = ordered.size
    correlation_time = autocorrelation_time(np.sign(values - np.median(values)))
    effective = n / correlation_time
    rank_below_median = (_Z99 * math.sqrt(effective) / 2 + 0.5) * correlation_time
    rank = math.floor(n / 2 - rank_below_median)
    if rank >= 0:
        return float(ordered[rank]), float(ordered[n - 1 - rank])
    spread = float(ordered[-1] - ordered[0])
    beyond = spread * 2 * (rank_below_median - n / 2) / n
    return float(ordered[0]) - beyond, float(ordered[-1]) + beyond


def autocorrelation_time(values: Floats) -> float:
    """How many consecutive values, shape (n,), carry as much information as one independent value; at least 1."""
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


def combine(intervals: Sequence[Interval]) -> Interval:
    (one,) = intervals
    return one


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
