"""Options are parsed once, derive their choices from the registries, and a wrong one is named with what it takes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.models import MODELS, SIZES
from benchmarks.options import ALL_MODES, OptionError, RunOptions, parse


def test_the_defaults_are_all_models_three_sizes_and_the_four_modes() -> None:
    options = parse(device="cpu")
    assert options == RunOptions(devices=("cpu",))
    assert options.models == ("mlp", "convnet", "transformer", "lstm")
    assert options.sizes == ("tiny", "small", "medium")
    assert options.modes == ("tracked", "no_grad", "inference_mode", "detach")
    assert options.allocators == ("resident", "default")
    assert (options.processes, options.retries) == (1, 1)
    assert (options.threads, options.budget, options.precision, options.timeout) == (1, 4.0, 0.01, 300.0)


def test_all_stands_for_every_name() -> None:
    options = parse(modes="all", sizes="all", models="all", device="cpu")
    assert (options.modes, options.sizes, options.models) == (ALL_MODES, SIZES, tuple(MODELS))


def test_with_a_model_of_ones_own_only_it_runs_unless_models_are_named_too() -> None:
    assert parse(own_models=["file.py:net"], device="cpu").models == ()
    both = parse(own_models=["file.py:net"], models="mlp", device="cpu")
    assert (both.models, both.own) == (("mlp",), ("file.py:net",))


@given(st.lists(st.sampled_from(sorted(ALL_MODES)), min_size=1))
def test_names_keep_their_order_and_repeats_count_once(names: list[str]) -> None:
    assert parse(modes=" , ".join(names), device="cpu").modes == tuple(dict.fromkeys(names))


def test_each_pattern_to_freeze_is_one_more_mode() -> None:
    options = parse(modes="tracked", freeze=["encoder.*", "head.?", "encoder.*"], device="cpu")
    assert options.modes == ("tracked", "frozen:encoder.*", "frozen:head.?")
    with pytest.raises(OptionError, match="--freeze: an empty pattern matches nothing"):
        parse(freeze=[""], device="cpu")


@pytest.mark.parametrize("option", ["models", "sizes", "modes", "scenarios", "device", "dtype", "allocator"])
@pytest.mark.parametrize("text", ["nonsense", "", ",", "all,nonsense"])
def test_an_unknown_or_missing_name_lists_the_right_ones(option: str, text: str) -> None:
    with pytest.raises(OptionError, match=f"--{option} {text}.*choose from"):
        parse(**{option: text})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "wrong",
    [
        {"budget": "0"}, {"budget": "-1"}, {"budget": "nan"}, {"budget": "soon"}, {"budget": "inf"},
        {"precision": "0"}, {"precision": "2"}, {"precision": "1"}, {"timeout": "0"},
        {"processes": "0"}, {"processes": "1.5"}, {"retries": "-1"}, {"retries": "many"},
        {"threads": "0"}, {"threads": "-1"}, {"threads": "1.5"}, {"threads": "two"}, {"threads": ""},
    ],
)  # fmt: skip
def test_numbers_out_of_range_are_named_with_what_was_expected(wrong: dict[str, Any]) -> None:
    ((option, text),) = wrong.items()
    with pytest.raises(OptionError, match=f"--{option} {text}: expected"):
        parse(device="cpu", **wrong)


def test_a_device_that_is_not_there_is_named_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(OptionError, match=r"--device cpu,cuda: there is no cuda device here: this torch .*--device cpu works"):
        parse(device="cpu,cuda")


def test_in_process_means_resident_for_the_other_needs_a_process_per_lane() -> None:
    assert parse(device="cpu", in_process=True).allocators == ("resident",)
    with pytest.raises(OptionError, match="--allocator default: needs a process per lane; leave out --in-process"):
        parse(device="cpu", in_process=True, allocator="default")


def test_cuda_has_no_allocator_as_shipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert parse(device="cuda", allocator="resident").allocators == ("resident",)
    with pytest.raises(OptionError, match="--allocator default: CUDA's caching allocator is resident"):
        parse(device="cuda", allocator="default")


@pytest.mark.parametrize(
    ("specs", "models", "expected"),
    [
        (["noseparator"], None, "expected path/to/file.py:function or package.module:function"),
        (["a.py:net", "b.py:net"], None, "--model a.py:net already names a model net"),
        (["a.py:mlp"], "mlp", "--models already names a model mlp"),
    ],
)
def test_specs_that_cannot_be_told_apart_or_read_are_refused(specs: list[str], models: str | None, expected: str) -> None:
    with pytest.raises(OptionError, match=expected):
        parse(own_models=specs, models=models, device="cpu")
