"""The built-in models are the same every time and ready to be tracked; inputs and outputs of every kind are walked through."""

from __future__ import annotations

import random
import subprocess
import sys
from collections import OrderedDict, UserDict
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.models import AS_BUILT, DTYPES, MODELS, SIZES, Source, Workload
from benchmarks.models.workload import Family, map_tensors, seeded, tensors

every_family = pytest.mark.parametrize("family", MODELS.values(), ids=MODELS)


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
def test_a_family_has_all_sizes_from_small_to_large(family: Family) -> None:
    assert tuple(family.sizes) == SIZES
    counts = [family.workload(size).facts().parameters for size in ("tiny", "small", "medium", "large")]
    assert counts == sorted(set(counts))
    assert all(family.sizes["huge"][name] >= value for name, value in family.sizes["large"].items())


@every_family
def test_a_model_is_built_with_the_same_values_every_time(family: Family) -> None:
    first, second = values(family.workload("tiny")), values(family.workload("tiny"))
    assert list(first) == list(second)
    assert all(torch.equal(first[name], second[name]) for name in first)


@every_family
def test_a_model_is_in_eval_mode_and_tracks_its_parameters(family: Family) -> None:
    workload = family.workload("small")
    assert not any(module.training for module in workload.module.modules())
    assert not any(tensor.requires_grad for tensor in workload.input_tensors())
    output = workload.run(workload.module)
    assert bool(output.isfinite().all())
    output.sum().backward()
    assert all(parameter.grad is not None for parameter in workload.module.parameters())


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


def test_seeding_for_the_cpu_asks_nothing_of_an_accelerator() -> None:
    """In a process whose torch claims to have one, and in which touching it is an error."""
    script = (
        "import torch\nfrom benchmarks.models.workload import seeded\n"
        "def touched(*args, **kwargs): raise SystemExit('touched')\n"
        "torch.cuda.device_count = lambda: 8\n"
        "for name in ('_lazy_init', '_lazy_call', 'get_rng_state', 'set_rng_state', 'manual_seed_all'):\n"
        "    setattr(torch.cuda, name, touched)\n"
        "with seeded(0): torch.rand(1)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_seeding_for_a_gpu_touches_that_one_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    touched: list[Any] = []

    def on(index: int) -> nullcontext[None]:
        touched.append(("on", index))
        return nullcontext()

    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: touched.append(("kept", device)))
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda _, device: touched.append(("put back", device)))
    monkeypatch.setattr(torch.cuda, "manual_seed", lambda seed: touched.append(("seeded", seed)))
    monkeypatch.setattr(torch.cuda, "device", on)
    with seeded(5, "cuda:1"):
        touched.append("inside")
    assert touched == [("kept", 1), ("on", 1), ("seeded", 5), "inside", ("put back", 1)]


class Echo(nn.Module):
    """Returns what it was called with."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))
        self.register_buffer("count", torch.tensor(3))
        self.register_buffer("scale", torch.tensor(2.0))
        self.register_buffer("rotation", torch.tensor([1 + 2j]))

    def forward(self, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        return args, kwargs


X, Y, IDS = torch.ones(2, 3), torch.zeros(1), torch.tensor([[1, 2]])


@pytest.mark.parametrize(
    ("inputs", "args", "kwargs"),
    [
        (X, (X,), {}),
        ((X, None, 3), (X, None, 3), {}),
        ((), (), {}),
        ({"x": X, "ids": IDS}, (), {"x": X, "ids": IDS}),
        (UserDict(x=X), (), {"x": X}),
        (({"x": X},), ({"x": X},), {}),
    ],
    ids=["tensor", "tuple", "nothing", "dict", "mapping", "dict as one argument"],
)
def test_inputs_are_passed_by_their_kind(inputs: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    workload = Workload.of(Echo(), inputs)
    assert workload.run(workload.module) == (args, kwargs)
    assert [id(tensor) for tensor in workload.input_tensors()] == [id(tensor) for tensor in tensors([args, kwargs])]


@pytest.mark.parametrize("inputs", [[X], {1: X}, None, np.ones(2)], ids=lambda value: type(value).__name__)
def test_inputs_of_another_kind_are_refused_by_their_type(inputs: Any) -> None:
    with pytest.raises(TypeError, match=rf"tensor.*tuple.*dict.*{type(inputs).__name__}"):
        Workload.of(Echo(), inputs)


def test_a_dtype_is_given_to_floating_point_values_and_to_nothing_else() -> None:
    mask = torch.tensor([True])
    workload = Workload.of(Echo(), (X, IDS, {"deep": [Y, mask]}, 3.0)).to("cpu", torch.bfloat16)
    assert {name: value.dtype for name, value in workload.module.state_dict().items()} == {
        "weight": torch.bfloat16, "count": torch.int64, "scale": torch.bfloat16, "rotation": torch.complex64,
    }  # fmt: skip
    assert [tensor.dtype for tensor in workload.input_tensors()] == [torch.bfloat16, torch.int64, torch.bfloat16, torch.bool]
    assert workload.args[3] == 3.0
    assert X.dtype == torch.float32
    assert all(parameter.requires_grad for parameter in workload.module.parameters())


def test_a_model_can_be_left_in_the_dtypes_it_was_built_in() -> None:
    workload = Workload.of(nn.Sequential(nn.Linear(3, 2).bfloat16(), nn.Linear(2, 1)), X.double())
    built = workload.to("cpu", DTYPES[AS_BUILT])
    assert [parameter.dtype for parameter in built.module.parameters()] == [torch.bfloat16] * 2 + [torch.float32] * 2
    assert built.args[0] is workload.args[0]


def test_an_input_that_requires_grad_stays_a_leaf_that_does() -> None:
    weight = torch.ones(2, requires_grad=True)
    (moved,) = Workload.of(Echo(), weight).to("cpu", torch.float64).args
    assert (moved.requires_grad, moved.is_leaf, moved.dtype) == (True, True, torch.float64)


def test_a_workload_tells_its_device_and_refuses_to_be_on_several() -> None:
    assert Workload.of(nn.Linear(3, 2), X).device == torch.device("cpu")
    with pytest.raises(ValueError, match=r"several devices \(cpu, meta\)"):
        _ = Workload.of(nn.Linear(3, 2, device="meta"), X).device


def test_facts_count_parameters_and_bytes_and_describe_each_input() -> None:
    facts = Workload.of(nn.Linear(3, 2), (X, {"ids": IDS})).to("cpu", torch.float64).facts()
    assert (facts.parameters, facts.parameter_bytes) == (8, 64)
    assert facts.inputs == ["float64[2, 3]", "int64[1, 2]"]


def test_a_source_builds_its_model_in_the_dtype_asked_for() -> None:
    workload = Source("mlp", "tiny").workload(dtype="bfloat16")
    assert {tensor.dtype for tensor in values(workload).values()} == {torch.bfloat16}
    with pytest.raises(KeyError):
        Source("no such model", "tiny").workload()


class Pair(NamedTuple):
    first: Any
    second: Any


@dataclass(frozen=True, slots=True)
class Slotted:
    first: Any
    second: Any


def test_mapping_replaces_every_tensor_of_a_copy_and_none_of_the_original() -> None:
    held = [X, Y, IDS, X, Y, IDS]
    cache = object()
    tree = {"a": [X, (Y, None)], "b": OrderedDict(c=UserDict(d=IDS)), "e": Pair(X, 3), "f": Slotted(Y, ["text", cache, IDS])}
    mapped = map_tensors(lambda tensor: tensor + 1, tree)
    assert [id(tensor) for tensor in tensors(tree)] == [id(tensor) for tensor in held]
    assert [tensor.tolist() for tensor in tensors(mapped)] == [(tensor + 1).tolist() for tensor in held]
    assert [type(value) for value in mapped.values()] == [list, OrderedDict, Pair, Slotted]
    assert (type(mapped["b"]["c"]), mapped["a"][1][1], mapped["e"].second) == (UserDict, None, 3)
    assert mapped["f"].second[1] is cache, "what nobody has told pytree of is passed over"


@pytest.mark.parametrize("walk", [tensors, lambda tree: map_tensors(torch.neg, tree)], ids=["find", "map"])
@pytest.mark.parametrize("wrap", [lambda inner: [inner], lambda inner: Slotted(inner, None)], ids=["lists", "dataclasses"])
def test_nesting_without_end_is_refused_in_words(wrap: Any, walk: Any) -> None:
    tree: Any = X
    for _ in range(2000):
        tree = wrap(tree)
    with pytest.raises(TypeError, match="nested too deep to be followed, or holds itself"):
        walk(tree)
