"""Options derive their choices from the registries, and a wrong value is named with what the option takes."""

from __future__ import annotations

import argparse
from contextlib import redirect_stderr, suppress
from io import StringIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.models import MODELS, SIZES
from benchmarks.options import (
    ALL_MODES,
    CHOSEN_BUDGET,
    Effort,
    RunOptions,
    add_options,
    names_of,
    number_above_0,
    parsed,
    size_in_bytes,
    whole_number,
)
from benchmarks.scenarios import SCENARIOS

QUICK = settings(deadline=None, derandomize=True, database=None)
REFUSED = argparse.ArgumentTypeError


def typed(*arguments: str) -> RunOptions:
    """What a user's arguments come to."""
    parser = argparse.ArgumentParser()
    add_options(parser.add_argument)
    return parsed(parser.parse_args(arguments))


def refusal(*arguments: str) -> str:
    """What argparse says of arguments that it refuses."""
    with redirect_stderr(StringIO()) as told, pytest.raises(SystemExit):
        typed(*arguments)
    return told.getvalue().splitlines()[-1]


def test_nothing_is_chosen_by_default_but_the_effort() -> None:
    assert typed() == RunOptions()
    assert RunOptions().effort == Effort(threads=1, processes=8, retries=1, worker_timeout=300.0)


def test_every_option_comes_back_as_it_was_typed() -> None:
    typed_in = typed(
        "--models", "mlp,lstm", "--model", "a.py:one", "--model", "b.py:two", "--sizes", "tiny", "--modes", "no_grad,item",
        "--freeze", "encoder.*", "--scenarios", "forward,operators", "--device", "cpu,cuda:1", "--dtype", "bfloat16",
        "--execution", "eager", "--allocator", "as_shipped", "--in-process", "--threads", "2", "--budget", "0.5",
        "--precision", "0.1", "--processes", "3", "--retries", "0", "--worker-timeout", "7.5",
        "--memory-limit", "1.5GiB", "--machines", "127.0.0.1:8786,node1", "--split",
    )  # fmt: skip
    assert typed_in == RunOptions(
        models=("mlp", "lstm"), own_models=("a.py:one", "b.py:two"), sizes=("tiny",), modes=("no_grad", "item"),
        freeze=("encoder.*",), scenarios=("forward", "operators"), device=("cpu", "cuda:1"), dtype=("bfloat16",),
        execution=("eager",), allocator=("as_shipped",), in_process=True, machines=("127.0.0.1:8786", "node1"), split=True, processes=3,
        effort=Effort(2, 0.5, 0.1, 3, 0, 7.5, 3 * 2**29),
    )  # fmt: skip


def test_few_models_that_were_chosen_get_more_time_each_unless_that_was_chosen_too() -> None:
    assert typed("--models", "mlp").effort.budget == typed("--model", "a.py:one").effort.budget == CHOSEN_BUDGET
    assert typed("--sizes", "tiny").effort.budget < CHOSEN_BUDGET
    assert typed("--models", "mlp", "--budget", "3").effort.budget == 3


def test_all_stands_for_every_name() -> None:
    options = typed("--modes", "all", "--sizes", "all", "--models", "all", "--scenarios", "all")
    assert (options.modes, options.sizes, options.models) == (ALL_MODES, SIZES, tuple(MODELS))
    assert options.scenarios == tuple(SCENARIOS)
    assert {mode.name for scenario in SCENARIOS.values() for mode in scenario.modes} <= set(ALL_MODES)


@pytest.mark.parametrize("option", ["models", "sizes", "modes", "scenarios", "dtype", "execution", "allocator"])
@pytest.mark.parametrize("text", ["nonsense", "", ",", "all,nonsense"])
def test_an_unknown_or_missing_name_is_refused_by_its_option(option: str, text: str) -> None:
    told = refusal(f"--{option}", text)
    assert f"--{option}: " in told
    assert "nonsense; choose from " in told if "nonsense" in text else "no name given" in told


@pytest.mark.parametrize(
    ("option", "texts", "expected"),
    [
        ("budget", ("0", "-1", "nan", "soon", "inf", ""), "a number above 0"),
        ("worker-timeout", ("0", "never"), "a number above 0"),
        ("precision", ("0", "1", "2", "nan"), "a number above 0 and below 1"),
        ("threads", ("0", "-1", "1.5", "two", ""), "a whole number from 1"),
        ("processes", ("0", "1.5"), "a whole number from 1"),
        ("retries", ("-1", "many"), "a whole number from 0"),
    ],
)
def test_a_number_out_of_range_is_refused_with_what_was_expected(option: str, texts: tuple[str, ...], expected: str) -> None:
    for text in texts:
        assert f"--{option}: {text}: expected {expected}" in refusal(f"--{option}={text}")


@QUICK
@given(st.lists(st.sampled_from(sorted(ALL_MODES)), min_size=1))
def test_names_keep_their_order_and_repeats_count_once(names: list[str]) -> None:
    assert names_of(ALL_MODES)(" , ".join(names)) == tuple(dict.fromkeys(names))


@QUICK
@given(st.text(), st.sampled_from(["mlp", "lstm", ""]))
def test_whatever_is_typed_gives_offered_names_or_is_refused(text: str, more: str) -> None:
    with suppress(REFUSED):
        chosen = names_of(MODELS)(f"{text},{more}")
        assert chosen
        assert set(chosen) <= set(MODELS)


@QUICK
@given(st.floats() | st.integers() | st.text(max_size=6))
def test_whatever_is_typed_gives_a_number_in_range_or_is_refused(value: float | str) -> None:
    with suppress(REFUSED):
        assert 0 < number_above_0(str(value), below=1) < 1
    with suppress(REFUSED):
        assert whole_number(str(value), least=2) >= 2


@pytest.mark.parametrize(("text", "size"), [("4GiB", 2**32), ("2 MiB", 2**21), ("1048576", 2**20), ("1048576B", 2**20)])
def test_a_size_is_a_number_with_its_unit(text: str, size: int) -> None:
    assert size_in_bytes(text) == size


@pytest.mark.parametrize("text", ["", "4 GB", "-1GiB", "0", "1KiB", "inf", "1e9", "GiB", "4GiB0"])
def test_anything_else_is_no_size(text: str) -> None:
    with pytest.raises(REFUSED, match="expected at least 1MiB"):
        size_in_bytes(text)


def test_an_empty_pattern_is_refused() -> None:
    assert "an empty pattern" in refusal("--freeze", "")
