"""The built-in models are the same every time, complete in their sizes and ready to be tracked; inputs of every kind are passed on."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.models import DTYPES, MODELS, OWN_SIZE, SIZES, Source, Workload
from benchmarks.models.workload import Family, seeded
from benchmarks.tree import tensors

every_family = pytest.mark.parametrize("family", MODELS.values(), ids=MODELS)
every_size = pytest.mark.parametrize("size", SIZES)


def values(workload: Workload) -> dict[str, torch.Tensor]:
    inputs = {f"input {number}": tensor for number, tensor in enumerate(workload.input_tensors())}
    return {**workload.module.state_dict(), **inputs}


def draws() -> Iterator[float]:
    """The next value of each global generator."""
    yield random.random()
    yield np.random.random()
    yield torch.rand(()).item()


def start_generators() -> None:
    random.seed(7)
    np.random.seed(7)
    torch.manual_seed(7)


@every_family
def test_a_family_has_the_four_sizes_from_small_to_large(family: Family) -> None:
    assert tuple(family.sizes) == SIZES
    counts = [family.workload(size).facts().parameters for size in SIZES]
    assert counts == sorted(set(counts))


@every_family
@every_size
def test_a_model_is_built_with_the_same_values_every_time(family: Family, size: str) -> None:
    torch.manual_seed(1)
    first = values(family.workload(size))
    torch.manual_seed(2)
    second = values(family.workload(size))
    assert list(first) == list(second)
    assert all(torch.equal(first[name], second[name]) for name in first)


@every_family
def test_building_a_model_leaves_the_global_random_generators_alone(family: Family) -> None:
    start_generators()
    expected = list(draws())
    start_generators()
    family.workload("tiny")
    assert list(draws()) == expected


@every_family
@every_size
def test_a_model_is_in_eval_mode_and_only_its_parameters_require_grad(family: Family, size: str) -> None:
    workload = family.workload(size)
    assert not any(module.training for module in workload.module.modules())
    assert all(parameter.requires_grad and parameter.is_leaf for parameter in workload.module.parameters())
    assert not any(tensor.requires_grad for tensor in workload.input_tensors())
    assert not any(tensor.is_inference() for tensor in values(workload).values())


@every_family
@pytest.mark.parametrize("size", ["tiny", "small"])
def test_a_forward_pass_of_a_model_tracks_and_gives_finite_values(family: Family, size: str) -> None:
    workload = family.workload(size)
    output = workload.run(workload.module)
    assert output.grad_fn is not None
    assert bool(output.isfinite().all())
    output.sum().backward()
    assert all(parameter.grad is not None for parameter in workload.module.parameters())


def test_names_of_the_registries_are_those_of_their_entries() -> None:
    assert list(MODELS) == [family.name for family in MODELS.values()]
    assert list(DTYPES) == [str(dtype).removeprefix("torch.") for dtype in DTYPES.values()]
    assert OWN_SIZE not in SIZES


def test_generators_are_seeded_inside_and_put_back_afterwards_also_after_an_exception() -> None:
    start_generators()
    expected = list(draws())
    start_generators()
    first: list[float] = []

    def draw_and_raise() -> None:
        with seeded(3):
            first.extend(draws())
            raise ValueError("inside")

    with pytest.raises(ValueError, match="inside"):
        draw_and_raise()
    assert list(draws()) == expected
    with seeded(3):
        assert list(draws()) == first != expected


class Echo(nn.Module):
    """Returns what it was called with."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))
        self.register_buffer("count", torch.tensor(3))
        self.register_buffer("scale", torch.tensor(2.0))

    def forward(self, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        return args, kwargs


X, Y, IDS = torch.ones(2, 3), torch.zeros(1), torch.tensor([[1, 2]])


@pytest.mark.parametrize(
    ("inputs", "args", "kwargs"),
    [
        (X, (X,), {}),
        ((X, IDS), (X, IDS), {}),
        ((X, None, 3), (X, None, 3), {}),
        ((), (), {}),
        ({"x": X, "ids": IDS}, (), {"x": X, "ids": IDS}),
        (({"x": X},), ({"x": X},), {}),
    ],
    ids=["tensor", "tuple", "tuple with others", "nothing", "dict", "dict as one argument"],
)
def test_inputs_are_passed_by_their_kind(inputs: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    workload = Workload.of(Echo(), inputs)
    assert workload.run(workload.module) == (args, kwargs)
    expected = [*tensors(args), *tensors(kwargs)]
    assert [id(tensor) for tensor in workload.input_tensors()] == [id(tensor) for tensor in expected]


@pytest.mark.parametrize("inputs", [[X], {1: X}, None, 3.0, np.ones(2), iter([X])], ids=lambda value: type(value).__name__)
def test_inputs_of_another_kind_are_refused_by_their_type(inputs: Any) -> None:
    with pytest.raises(TypeError, match=rf"tensor.*tuple.*dict.*{type(inputs).__name__}"):
        Workload.of(Echo(), inputs)


def test_a_dtype_is_given_to_floating_point_values_and_to_nothing_else() -> None:
    mask = torch.tensor([True])
    workload = Workload.of(Echo(), (X, IDS, {"deep": [Y, mask]}, 3.0)).to("cpu", torch.bfloat16)
    assert {name: value.dtype for name, value in workload.module.state_dict().items()} == {
        "weight": torch.bfloat16, "count": torch.int64, "scale": torch.bfloat16,
    }  # fmt: skip
    assert [tensor.dtype for tensor in workload.input_tensors()] == [torch.bfloat16, torch.int64, torch.bfloat16, torch.bool]
    assert workload.args[3] == 3.0
    assert X.dtype == torch.float32
    assert all(parameter.requires_grad for parameter in workload.module.parameters())
    keywords = Workload.of(Echo(), {"x": X, "ids": IDS}).to("cpu", torch.float64)
    assert [tensor.dtype for tensor in keywords.input_tensors()] == [torch.float64, torch.int64]


def test_facts_count_parameters_and_bytes_and_describe_each_input() -> None:
    facts = Workload.of(nn.Linear(3, 2), (X, {"ids": IDS})).to("cpu", torch.float64).facts()
    assert (facts.parameters, facts.parameter_bytes) == (8, 64)
    assert facts.inputs == ["float64[2, 3]", "int64[1, 2]"]


def test_a_source_builds_its_model_in_the_dtype_asked_for() -> None:
    workload = Source("mlp", "tiny").workload(dtype="bfloat16")
    assert {tensor.dtype for tensor in values(workload).values()} == {torch.bfloat16}
    with pytest.raises(KeyError):
        Source("no such model", "tiny").workload()


def test_complex_values_stay_complex_on_their_way_to_a_device_and_a_dtype() -> None:
    module = nn.Module()
    module.register_buffer("rotation", torch.tensor([1 + 2j]))
    module.weight = nn.Parameter(torch.ones(2, dtype=torch.float64))
    moved = Workload.of(module, torch.ones(1)).to("cpu", torch.float32).module
    assert moved.get_buffer("rotation").tolist() == [1 + 2j]
    assert moved.get_parameter("weight").dtype is torch.float32
