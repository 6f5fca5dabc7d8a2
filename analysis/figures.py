"""Figures as people read them: units that adapt, and digits that stop where the noise begins."""

from __future__ import annotations

import math

import pandas as pd

MISSING = "-"
NOT_KNOWN = "not known"

_WIDE = 0.3
"""Intervals with a wider half than this fraction are shown by their ends."""
_HOPELESS = 20
"""An interval whose ends are so many times apart tells nothing."""
_FINEST = 1e-3
"""No ratio is shown finer."""
_UNKNOWN_NOISE = 0.05
"""Taken for the noise of a time that a single process read: two digits, as separate readings of one loop differ by up to a fifth."""
_SECOND_UNITS = (("s", 1.0), ("ms", 1e3), ("us", 1e6), ("ns", 1e9))
_NEARLY_1024 = 1023.5
"""What is shown as 1024 goes to the larger unit."""


def seconds_text(seconds: float | None, noise: float | None = None) -> str:
    """A time in ns, us, ms or s: to the digit in which `noise` (a fraction of it) begins, three digits at most."""
    if pd.isna(seconds):
        return MISSING
    known = _UNKNOWN_NOISE if pd.isna(noise) else min(max(noise, 1e-9), 1.0)
    digit = max(abs(seconds) * known, _third_digit(max(abs(seconds), 1e-9)))
    unit, factor = _second_unit(abs(seconds), digit)
    return f"{_to_digit_of(seconds * factor, digit * factor)} {unit}"


def bytes_text(size: int | None) -> str:
    """Bytes in B, KiB, MiB or GiB: whole bytes below 1 KiB, else three digits or more."""
    if pd.isna(size):
        return MISSING
    power = next((power for power in range(3) if abs(size) / 1024**power < _NEARLY_1024), 3)
    value = size / 1024**power
    return f"{_to_digit_of(value, min(_third_digit(value), 1.0) if power else 1.0)} {('B', 'KiB', 'MiB', 'GiB')[power]}"


def speedup_text(estimate: float | None, low: float | None, high: float | None) -> str:
    """`1.26 ±0.02`: a ratio and the wider half of its 99 % interval; `1.1 to 9.7` where that is wide, `not known` where it tells nothing."""
    if pd.isna(estimate) or pd.isna(low) or pd.isna(high) or high / low > _HOPELESS:
        return NOT_KNOWN
    if max(high / estimate - 1, 1 - low / estimate) > _WIDE:
        return f"{_two_digits(low)} to {_two_digits(high)}"
    half = max(high - estimate, estimate - low, _FINEST)
    return _with_half(estimate, half)


def share_text(ratio: float | None, low: float | None, high: float | None) -> str:
    """`31.2 ±0.4 %`: what a part takes of a step, from how many times as fast it is."""
    if pd.isna(ratio) or pd.isna(low) or pd.isna(high) or high / low > _HOPELESS:
        return NOT_KNOWN
    share, half = 1 / ratio, max(1 / low - 1 / ratio, 1 / ratio - 1 / high, _FINEST)
    return f"{_with_half(100 * share, 100 * half)} %"


def ratio_text(ratio: float | None) -> str:
    """A ratio of exact figures, such as of bytes: two decimals."""
    return MISSING if pd.isna(ratio) else f"{ratio:.2f}" if ratio < 100 else f"{ratio:.3g}"


def difference_text(estimate: float, low: float, high: float, noise: float | None = None) -> str:
    """`121 ±4 ns`: a difference of times and the wider half of its interval, in one unit, to the digit in which that half begins.

    The interval is that of the times' ratio. `noise` is the relative half-width of the times themselves, which the difference has too.
    """
    if not all(map(math.isfinite, (estimate, low, high))):
        return NOT_KNOWN
    scatter = 0.0 if pd.isna(noise) else abs(estimate) * noise
    half = max(math.hypot(max(high - estimate, estimate - low), scatter), abs(estimate) * _FINEST)
    unit, factor = _second_unit(max(abs(estimate), half), half)
    return f"{_with_half(estimate * factor, half * factor)} {unit}"


def count_text(count: float | None) -> str:
    """A mean count: whole from 10 on, to one decimal below."""
    if pd.isna(count):
        return MISSING
    return f"{count:,.0f}" if count >= 9.95 else f"{count:.1f}".removesuffix(".0")


def percent_text(fraction: float) -> str:
    return f"{100 * fraction:.1f} %"


def short_text(text: str, most: int = 120) -> str:
    """The text in one line of at most so many characters."""
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 3]}..."


def _second_unit(seconds: float, noise: float) -> tuple[str, float]:
    """The largest in which `seconds`, rounded to the digit in which `noise` begins, are 1 or more, and how many there are in a second."""
    shown = round(seconds, -math.floor(math.log10(max(noise, 1e-12)))) * (1 + 1e-9)
    fitting = ((unit, factor) for unit, factor in _SECOND_UNITS if shown * factor >= 1)
    return next(fitting, _SECOND_UNITS[-1])


def _third_digit(value: float) -> float:
    """What the third digit of `value`, as it is when rounded to three, counts."""
    return 10.0 ** (math.floor(math.log10(abs(float(f"{value:.3g}")) or 1.0)) - 2)


def _to_digit_of(value: float, noise: float) -> str:
    """`value` rounded to the digit in which `noise` begins."""
    if abs(value) >= 1e9 or noise < 1e-9:
        return f"{value:.2g}"
    decimals = -math.floor(math.log10(noise))
    return f"{round(value, decimals):.{max(0, decimals)}f}"


def _with_half(value: float, half: float) -> str:
    return f"{_to_digit_of(value, half)} ±{_to_digit_of(half, half)}"


def _two_digits(value: float) -> str:
    return f"{float(f'{value:.2g}'):g}"
