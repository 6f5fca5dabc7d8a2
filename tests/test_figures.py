"""Proves that figures carry a unit that suits them, and no digit that the noise makes up."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.figures import (
    bytes_text,
    count_text,
    difference_text,
    interval_text,
    percent_text,
    ratio_text,
    relative_noise,
    seconds_text,
    speedup_text,
)

QUICK = settings(deadline=None, derandomize=True, database=None)

SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
BYTES = {"B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}

noises = st.floats(1e-6, 0.9)


def step(text: str) -> float:
    """What the last digit of a number stands for."""
    return 10.0 ** -len(text.partition(".")[2])


def assert_shows(text: str, value: float, noise: float) -> None:
    """`text` is `value` rounded to the first digit of `noise`: not finer, coarser only beyond four decimals."""
    assert re.fullmatch(r"\d+(\.\d{1,4})?", text)
    rounded_to = 10.0 ** math.floor(math.log10(noise)) if noise >= 1 else step(text)
    assert float(text) % rounded_to == 0 or noise < 1
    assert abs(float(text) - value) <= rounded_to * 0.5 * (1 + 1e-6) + value * 1e-12
    assert rounded_to * 10 >= noise * (1 - 1e-9)
    assert rounded_to <= max(noise, 1e-4) * (1 + 1e-9)


@pytest.mark.parametrize(
    ("seconds", "noise", "text"),
    [
        (1.2346e-4, 0.01, "123 us"), (1.2346e-4, 0.005, "123.5 us"), (1.2346e-4, 0.0005, "123.46 us"),
        (1.5, 0.01, "1.50 s"), (2.37e-4, 0.5, "200 us"), (0.99999, 0.002, "1.000 s"), (0.0, 0.01, "0 s"), (0.0125, 0.02, "12.5 ms"), (4.2e-8, 0.1, "42 ns"), (1e-6, 0.1, "1.0 us"), (90.0, 0.01, "90.0 s"),
        (5e-10, 0.1, "0.50 ns"), (1.2346e-4, None, "123 us"), (1.2346e-3, None, "1.23 ms"), (1.2346e-3, 0.0, "1.23 ms"),
        (1.23456789e-3, 1e-9, "1.2346 ms"), (None, 0.01, "-"),
    ],
)  # fmt: skip
def test_a_time_is_shown_in_the_unit_and_to_the_digit_that_suit_it(
    seconds: float | None, noise: float | None, text: str
) -> None:
    assert seconds_text(seconds, noise) == text


@pytest.mark.parametrize(
    ("ends", "text"),
    [
        ((121e-9, 117e-9, 124e-9), "121 ±4 ns"),
        ((-1.9e-6, -1.94e-6, -1.86e-6), "-1.90 ±0.04 us"),
        ((2e-9, -3e-6, 3e-6), "0 ±3 us"),
    ],
)
def test_a_difference_of_times_shows_the_wider_half_of_its_interval(ends: tuple[float, float, float], text: str) -> None:
    assert difference_text(*ends) == text


def test_a_ratio_that_may_be_ten_times_as_large_is_shown_as_not_known() -> None:
    assert (speedup_text(0.98, 0.2, 11.0), speedup_text(0.98, 1e-8, 1e8)) == ("1 ±?", "1 ±?")
    assert speedup_text(0.98, 0.1, 9.0) == "1 ±8"


@QUICK
@given(st.floats(1e-9, 900.0), noises)
def test_a_time_is_never_shown_finer_than_its_noise(seconds: float, noise: float) -> None:
    number, unit = seconds_text(seconds, noise).split(" ")
    value = seconds / SECONDS[unit]
    assert 0.9995 - 1e-9 <= value < 999.5
    assert_shows(number, value, value * noise)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"), (1, "1 B"), (1023, "1023 B"), (1024, "1.00 KiB"), (4096, "4.00 KiB"), (66_560, "65.0 KiB"),
        (327_680, "320 KiB"), (14_050_918, "13.4 MiB"), (5 * 1024**3, "5.00 GiB"), (3000 * 1024**3, "3000 GiB"), (1048575, "1.00 MiB"), (None, "-"),
    ],
)  # fmt: skip
def test_bytes_are_shown_in_the_unit_that_suits_them(size: int | None, text: str) -> None:
    assert bytes_text(size) == text


@QUICK
@given(st.integers(0, 2**50))
def test_bytes_are_exact_below_a_kibibyte_and_right_to_three_digits_above(size: int) -> None:
    number, unit = bytes_text(size).split(" ")
    assert abs(float(number) * BYTES[unit] - size) <= (0 if size < 1024 else size * 0.005)
    assert unit == "B" or len(number.replace(".", "")) >= 3


@pytest.mark.parametrize(
    ("ratio", "low", "high", "text"),
    [
        (1.2345, 1.2295, 1.2395, "1.234"), (1.25, 1.23, 1.27, "1.25"), (1.5, 1.2, 1.8, "1.5"), (12.3, 10.1, 14.5, "12"),
        (1.23456, 1.23455, 1.23457, "1.2346"), (1.25, 1.25, 1.25, "1.2500"), (0.4, None, None, "0.40"), (1.5, 1.2, None, "1.50"),
        (None, 1.0, 2.0, "-"), (0.0, None, None, "0.00"),
    ],
)  # fmt: skip
def test_a_ratio_is_shown_to_the_digit_that_its_interval_leaves(
    ratio: float | None, low: float | None, high: float | None, text: str
) -> None:
    assert ratio_text(ratio, low, high) == text


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [(1.23, 1.27, "[1.23, 1.27]"), (0.995, 1.0, "[0.995, 1.000]"), (9.0, 31.0, "[10, 30]"), (None, 1.0, "-"), (1.0, None, "-")],
)
def test_both_ends_of_an_interval_are_shown_to_the_same_digit(low: float | None, high: float | None, text: str) -> None:
    assert interval_text(low, high) == text


@QUICK
@given(st.floats(0.1, 20.0), noises, noises)
def test_a_ratio_and_its_interval_stop_at_the_same_digit(ratio: float, below: float, above: float) -> None:
    low, high = ratio * (1 - below), ratio * (1 + above)
    shown = [ratio_text(ratio, low, high), *interval_text(low, high).strip("[]").split(", ")]
    for text, value in zip(shown, (ratio, low, high), strict=True):
        assert_shows(text, value, (high - low) / 2)
    assert len({step(text) for text in shown}) == 1


@pytest.mark.parametrize(
    ("estimate", "low", "high", "text"),
    [
        (1.2648, 1.25, 1.28, "1.26 ±0.02"), (0.81, 0.80, 0.89, "0.81 ±0.08"), (1.1402, 1.1302, 1.1412, "1.14 ±0.01"), (1.0004, 0.9983, 1.0031, "1.000 ±0.003"),
        (1.25, 1.25, 1.25, "1.2500 ±0.0000"), (31.0, 10.0, 40.0, "30 ±20"), (1.5, None, None, "1.50"), (None, None, None, "-"),
    ],
)  # fmt: skip
def test_a_speedup_shows_the_wider_half_of_its_interval(
    estimate: float | None, low: float | None, high: float | None, text: str
) -> None:
    assert speedup_text(estimate, low, high) == text


@QUICK
@given(st.floats(0.1, 20.0), noises, noises)
def test_a_speedup_is_never_shown_finer_than_its_noise(ratio: float, below: float, above: float) -> None:
    shown, noise = speedup_text(ratio, ratio * (1 - below), ratio * (1 + above)).split(" ±")
    wider = ratio * max(below, above)
    assert_shows(shown, ratio, wider)
    assert_shows(noise, wider, wider)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0.0, "0"),
        (0.04, "0"),
        (0.34, "0.3"),
        (3.0, "3"),
        (9.97, "10"),
        (44.6, "45"),
        (8096.2, "8,096"),
        (1234567, "1,234,567"),
        (None, "-"),
    ],
)
def test_a_count_has_no_more_digits_than_it_means(count: float | None, text: str) -> None:
    assert count_text(count) == text


def test_a_fraction_reads_as_per_cent() -> None:
    assert [percent_text(fraction) for fraction in (0.0, 0.0021, 0.1)] == ["0.0 %", "0.2 %", "10.0 %"]


@pytest.mark.parametrize(("low", "high", "noise"), [(0.9, 1.1, 0.1), (1.8, 2.2, 0.1), (1.0, 1.0, 0.0)])
def test_noise_is_half_the_interval_over_its_middle(low: float, high: float, noise: float) -> None:
    found = relative_noise(low, high)
    assert found is not None
    assert math.isclose(found, noise, abs_tol=1e-12)


@pytest.mark.parametrize(("low", "high"), [(None, 1.0), (1.0, None), (0.0, 0.0), (-2.0, 1.0)])
def test_noise_is_missing_where_there_is_no_interval_of_a_ratio(low: float | None, high: float | None) -> None:
    assert relative_noise(low, high) is None
