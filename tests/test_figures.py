"""Proves that figures carry a unit that suits them, and no digit that the noise makes up."""

from __future__ import annotations

import math
import re

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.figures import bytes_text, count_text, difference_text, percent_text, ratio_text, seconds_text, speedup_text

QUICK = settings(deadline=None, derandomize=True, database=None)
SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}


@pytest.mark.parametrize(
    ("seconds", "noise", "text"),
    [
        (1.2346e-4, 0.01, "123 us"), (1.2346e-4, 0.0005, "123 us"), (1.2346e-3, 0.0005, "1.23 ms"), (1.5, 0.01, "1.50 s"),
        (2.37e-4, 0.5, "200 us"), (1.2346e-4, 0.1, "120 us"), (0.99999, 0.002, "1.00 s"), (0.0125, 0.02, "12.5 ms"),
        (4.2e-8, 0.1, "42 ns"), (9.98e-4, 0.03, "1.00 ms"), (9.93e-4, 0.003, "993 us"), (90.0, 0.01, "90.0 s"),
        (5e-10, 0.1, "0.50 ns"), (9.213e-3, 0.02, "9.2 ms"),
        (1.2346e-4, math.nan, "123 us"), (1.2346e-3, None, "1.23 ms"), (9.213e-3, None, "9.2 ms"), (3e-4, math.inf, "300 us"),
        (None, 0.01, "-"), (math.nan, 0.01, "-"), (0.0, 0.01, "0.00 ns"), (5e-324, 0.01, "0.00 ns"), (1e9, 0.01, "1e+09 s"),
    ],
)  # fmt: skip
def test_a_time_is_shown_to_the_digit_on_which_processes_agree_and_three_at_most(
    seconds: float | None, noise: float | None, text: str
) -> None:
    assert seconds_text(seconds, noise) == text


@QUICK
@given(st.floats(1e-9, 900.0), st.floats(1e-6, 0.9))
def test_a_time_is_never_finer_than_its_noise_or_three_digits(seconds: float, noise: float) -> None:
    number, unit = seconds_text(seconds, noise).split(" ")
    value = seconds / SECONDS[unit]
    assert 0.9 <= float(number) < 1000
    assert len(number.replace(".", "").lstrip("0")) <= 3
    last_digit = 10.0 ** -len(number.partition(".")[2])
    assert last_digit >= min(value * noise / 10, 1.0) * (1 - 1e-9)
    assert abs(float(number) - value) <= max(value * noise, value / 100)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"), (1023, "1023 B"), (1024, "1.00 KiB"), (66_560, "65.0 KiB"), (327_680, "320 KiB"), (14_050_918, "13.4 MiB"),
        (5 * 1024**3, "5.00 GiB"), (3000 * 1024**3, "3000 GiB"), (1048575, "1.00 MiB"), (-48, "-48 B"), (None, "-"), (pd.NA, "-"),
    ],
)  # fmt: skip
def test_bytes_are_shown_in_the_unit_that_suits_them(size: int | None, text: str) -> None:
    assert bytes_text(size) == text


@pytest.mark.parametrize(
    ("estimate", "low", "high", "text"),
    [
        (1.2648, 1.25, 1.28, "1.26 ±0.02"), (0.81, 0.80, 0.89, "0.81 ±0.08"), (1.1402, 1.1302, 1.1412, "1.14 ±0.01"),
        (1.0004, 0.9983, 1.0031, "1.000 ±0.003"), (1.25, 1.25, 1.25, "1.250 ±0.001"), (14.2, 13.0, 15.9, "14 ±2"),
        (2.0, 1.12, 9.7, "1.1 to 9.7"), (1.0, 0.65, 1.2, "0.65 to 1.2"), (31.0, 10.0, 140.0, "10 to 140"),
        (0.98, 0.2, 11.0, "not known"), (1.0, 1e-8, 1e8, "not known"), (1.5, None, None, "not known"), (None, None, None, "not known"),
        (math.nan, math.nan, math.nan, "not known"),
    ],
)  # fmt: skip
def test_a_speedup_shows_its_interval_as_far_as_anything_is_known(
    estimate: float | None, low: float | None, high: float | None, text: str
) -> None:
    assert speedup_text(estimate, low, high) == text


@QUICK
@given(*[st.floats(1e-100, 1e100)] * 3)
def test_any_interval_has_a_text_of_bearable_length(one: float, two: float, three: float) -> None:
    low, estimate, high = sorted((one, two, three))
    assert len(speedup_text(estimate, low, high)) < 24
    assert len(difference_text(estimate, low, high)) < 30
    assert len(seconds_text(estimate, high)) < 12


@pytest.mark.parametrize(
    ("ends", "noise", "text"),
    [
        ((121e-9, 117e-9, 124e-9), None, "121 ±4 ns"), ((-1.9e-6, -1.94e-6, -1.86e-6), None, "-1.90 ±0.04 us"),
        ((2e-9, -3e-6, 3e-6), None, "0 ±3 us"), ((math.nan, 0.0, 0.0), None, "not known"), ((3e-6, 2.99e-6, 3.01e-6), 0.1, "3.0 ±0.3 us"),
        ((998e-9, 960e-9, 1030e-9), None, "1.00 ±0.04 us"),
    ],
)  # fmt: skip
def test_a_difference_of_times_shows_the_wider_half_of_its_interval_and_is_as_noisy_as_the_times(
    ends: tuple[float, float, float], noise: float | None, text: str
) -> None:
    assert difference_text(*ends, noise) == text


def test_ratios_counts_and_fractions_have_no_more_digits_than_they_mean() -> None:
    assert [ratio_text(ratio) for ratio in (0.4, 0.0, 123.4, None, math.nan)] == ["0.40", "0.00", "123", "-", "-"]
    counts = (0.0, 0.04, 0.34, 3.0, 9.97, 44.6, 8096.2, None, math.nan)
    assert [count_text(count) for count in counts] == ["0", "0", "0.3", "3", "10", "45", "8,096", "-", "-"]
    assert [percent_text(fraction) for fraction in (0.0, 0.0021, 0.1)] == ["0.0 %", "0.2 %", "10.0 %"]


@QUICK
@given(st.floats(0.1, 20.0), st.floats(0.002, 0.29), st.floats(0.002, 0.29))
def test_a_speedup_stops_at_the_digit_in_which_its_interval_begins(ratio: float, below: float, above: float) -> None:
    shown, noise = speedup_text(ratio, ratio * (1 - below), ratio * (1 + above)).split(" ±")
    assert len(shown.partition(".")[2]) == len(noise.partition(".")[2]) <= 3
    assert re.fullmatch(r"0*\.?0*[1-9]0*", noise.replace(".", "")) or float(noise) == 10
    assert float(noise) == pytest.approx(max(ratio * max(below, above), 1e-3), rel=0.5)
    assert abs(float(shown) - ratio) <= float(noise)
