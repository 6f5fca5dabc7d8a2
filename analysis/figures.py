"""Figures as people read them: units that adapt, and digits that stop where the noise begins."""

from __future__ import annotations

import math

MISSING = "-"


def seconds_text(seconds: float | None, relative_noise: float | None) -> str:
    """A time in ns, us, ms or s, to the first digit that `relative_noise` (a fraction of the value) leaves certain."""
    if seconds is None:
        return MISSING
    if seconds == 0:
        return "0 s"
    unit, factor = _second_unit(seconds)
    value = seconds * factor
    return f"{_rounded(value, value * relative_noise if relative_noise else value / 100)} {unit}"


def bytes_text(size: int | None) -> str:
    """Bytes in B, KiB, MiB or GiB: whole bytes below 1 KiB, else three digits or more."""
    if size is None:
        return MISSING
    value = float(size)
    for unit in ("B", "KiB", "MiB"):
        if abs(value) < _NEARLY_1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{_three_digits(value)} {unit}"
        value /= 1024
    return f"{_three_digits(value)} GiB"


def ratio_text(ratio: float | None, low: float | None = None, high: float | None = None) -> str:
    """A ratio to the digit that its interval leaves certain; to two decimals where it has none."""
    if ratio is None:
        return MISSING
    if low is None or high is None:
        return f"{ratio:.2f}"
    return _rounded(ratio, (high - low) / 2)


def speedup_text(estimate: float | None, low: float | None, high: float | None) -> str:
    """`1.26 ±0.02`: a ratio and the wider half of its interval, both to the digit in which that half begins; `±?` if that is 10 times the ratio."""
    if estimate is None or low is None or high is None:
        return ratio_text(estimate)
    noise = max(high - estimate, estimate - low)
    if noise >= _HOPELESS * estimate:
        return f"{estimate:.1g} ±?"
    return f"{_rounded(estimate, noise)} ±{_rounded(noise, noise)}"


def difference_text(estimate: float, low: float, high: float) -> str:
    """`121 ±4 ns`: a difference of times and the wider half of its interval, in the estimate's unit, to the digit in which that half begins."""
    noise = max(high - estimate, estimate - low)
    unit, factor = _second_unit(max(abs(estimate), noise))
    return f"{_rounded(estimate * factor, noise * factor)} ±{_rounded(noise * factor, noise * factor)} {unit}"


def count_text(count: float | None) -> str:
    """A mean count: whole from 10 on, to one decimal below."""
    if count is None:
        return MISSING
    return f"{count:,.0f}" if count >= 10 else f"{round(count, 1):g}"


def percent_text(fraction: float) -> str:
    return f"{100 * fraction:.1f} %"


def interval_text(low: float | None, high: float | None) -> str:
    """Both ends of an interval to the same digit."""
    if low is None or high is None:
        return MISSING
    return f"[{_rounded(low, (high - low) / 2)}, {_rounded(high, (high - low) / 2)}]"


def relative_noise(low: float | None, high: float | None) -> float | None:
    """Half the width of a ratio's interval over its middle."""
    if low is None or high is None or low + high <= 0:
        return None
    return (high - low) / (high + low)


_HOPELESS = 10
"""A ratio that may be so many times larger is not known at all."""

_NEARLY_ONE, _NEARLY_1024 = 0.9995, 1023.5
"""What is shown as 1 or as 1024 goes to the larger unit."""

_SECOND_UNITS = (("s", 1.0), ("ms", 1e3), ("us", 1e6), ("ns", 1e9))


def _second_unit(seconds: float) -> tuple[str, float]:
    chosen = ((unit, factor) for unit, factor in _SECOND_UNITS if seconds * factor >= _NEARLY_ONE)
    return next(chosen, _SECOND_UNITS[-1])


def _rounded(value: float, noise: float) -> str:
    """`value` up to the digit in which `noise` begins, with at most four decimals."""
    digits = 4 if noise <= 0 else min(4, -math.floor(math.log10(noise)))
    return f"{round(value, digits):.{max(0, digits)}f}"


def _three_digits(value: float) -> str:
    rounded = abs(float(f"{value:.3g}")) or 1.0
    return f"{value:.{max(0, 2 - math.floor(math.log10(rounded)))}f}"
