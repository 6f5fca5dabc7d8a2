"""From times to a speedup with its interval, and from the interval to a verdict. NumPy only, no torch.

Processes differ by more than their rounds show, so the interval of a result is Student's t over processes, never narrower than their rounds allow
(Kalibera and Jones 2013, Rigorous benchmarking in reasonable time, ISMM). `python -m benchmarks.selfcheck coverage` shows that this holds.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from benchmarks.record import Interval, Verdict

Floats = npt.NDArray[np.float64]

MARGIN = 0.01
"""Speedups within +-1 % count as no difference."""

MIN_ROUNDS = 10
"""Of a single process: so many batches are made of its rounds."""

CONFIDENCE = 0.99

FARTHEST = 30.0
"""In logarithms, a factor of 1e13: no measured interval reaches farther from its estimate, which says nothing already, and files hold no more."""


def median_ratio(baseline_seconds: Sequence[float], seconds: Sequence[float]) -> float:
    """Median of baseline / other over the rounds of one process; above 1 the other is faster.

    Both are seconds of a block, one value a round, in the order they were run: `baseline_seconds[i]` and `seconds[i]` are from the same round.
    """
    return float(np.exp(np.median(np.log(baseline_seconds) - np.log(seconds))))


def combined_ratio(pairs: Sequence[tuple[Sequence[float], Sequence[float]]]) -> Interval:
    """baseline / other with its 99 % interval, from the rounds of one process or several; `pairs` holds what `median_ratio` takes, of each.

    Student's t over their medians, but never narrower than their own rounds allow, each taken as independent: how they are correlated shows
    between processes. A single process counts as MIN_ROUNDS short ones, its rounds cut into batches one after the other (batch means: Law,
    Simulation Modeling and Analysis, 5th ed., section 9.5.3). Raises ValueError for one of fewer than MIN_ROUNDS rounds.
    """
    if len(pairs) == 1:
        pairs = _batches(*pairs[0])
    errors = [median_error(np.log(baseline) - np.log(seconds)) for baseline, seconds in pairs]
    own_rounds = t_quantile(math.inf) * math.hypot(*errors) / len(errors)
    return across([median_ratio(*pair) for pair in pairs], least=own_rounds)


def _batches(baseline: Sequence[float], seconds: Sequence[float]) -> list[tuple[Sequence[float], Sequence[float]]]:
    if len(seconds) < MIN_ROUNDS:
        raise ValueError(f"at least {MIN_ROUNDS} rounds of a single process are needed, got {len(seconds)}")
    ends = [len(seconds) * number // MIN_ROUNDS for number in range(MIN_ROUNDS + 1)]
    return [(baseline[begin:end], seconds[begin:end]) for begin, end in itertools.pairwise(ends)]


def median_error(values: Floats) -> float:
    """The standard error of the median of independent `values`, shape (n,), were they normal with their median deviation."""
    deviation = 1.4826 * float(np.median(np.abs(values - np.median(values))))
    return math.sqrt(math.pi / 2) * deviation / math.sqrt(values.size)


def across(ratios: Sequence[float], least: float = 0.0) -> Interval:
    """The geometric mean of ratios, one per process, with its 99 % interval by Student's t over their logarithms.

    In these it reaches `least` to either side at least. Raises ValueError for fewer than two ratios.
    """
    if len(ratios) < 2:
        raise ValueError(f"at least two processes are needed, got {len(ratios)}")
    logarithms = np.log(ratios)
    half = t_quantile(len(ratios) - 1) * float(logarithms.std(ddof=1)) / math.sqrt(len(ratios))
    half = min(max(half, least), FARTHEST)
    return _around(float(logarithms.mean()), half, half)


def _around(centre: float, below: float, above: float) -> Interval:
    """From logarithms."""
    return Interval(math.exp(centre), math.exp(centre - below), math.exp(centre + above))


def geometric_mean(intervals: Sequence[Interval]) -> Interval:
    """The geometric mean of independent ratios, their half-widths combined as independent errors. Raises ValueError if there are none."""
    low, estimate, high = np.log([(one.low, one.estimate, one.high) for one in intervals]).T
    below, above = (math.hypot(*side) / len(intervals) for side in (estimate - low, high - estimate))
    return _around(float(estimate.mean()), below, above)


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
    return _around(math.log(one.estimate / other.estimate), below * width, above * width)


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
