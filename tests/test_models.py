"""The built-in models are the same every time and ready to be tracked; inputs and outputs of every kind are walked through."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from collections import OrderedDict, UserDict, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils.rnn import pack_sequence

from benchmarks.models import MODELS, SIZES, Source, Workload
from benchmarks.models.workload import Family, map_tensors, seeded, tensors

every_family = pytest.mark.parametrize("family", MODELS.values(), ids=MODELS)


def values(workload: Workload) -> dict[str, torch.Tensor]:
    inputs = {f"input {number}": tensor for number, tensor in enumerate(workload.input_tensors())}
    return {**workload.module.state_dict(), **inputs}


def draws() -> list[float]:
    """The next value of each global generator."""
    return [random.random(), np.random.random(), torch.rand(()).item()]


@contextmanager
def generators_left_alone() -> Iterator[None]:
    """Asserts that what comes next is what would have come without what is done inside."""

    def start() -> None:
        random.seed(7)
        np.random.seed(7)
        torch.manual_seed(7)

    start()
    expected = draws()
    start()
    yield
    assert draws() == expected


@every_family
def test_a_family_has_all_sizes_from_small_to_large(family: Family) -> None:
    assert tuple(family.sizes) == SIZES
    counts = [family.workload(size).facts().parameters for size in ("tiny", "small", "medium", "large")]
    assert counts == sorted(set(counts))
    assert all(family.sizes["huge"][name] >= value for name, value in family.sizes["large"].items())


@every_family
def test_a_model_is_built_with_the_same_values_every_time_and_leaves_the_generators_alone(family: Family) -> None:
    with generators_left_alone():
        first = values(family.workload("tiny"))
    second = values(family.workload("tiny"))
    assert list(first) == list(second)
    assert all(torch.equal(first[name], second[name]) for name in first)


@every_family
@pytest.mark.parametrize("size", ["tiny", "small"])
def test_a_model_is_in_eval_mode_and_tracks_its_parameters(family: Family, size: str) -> None:
    workload = family.workload(size)
    assert not any(module.training for module in workload.module.modules())
    assert not any(tensor.requires_grad for tensor in workload.input_tensors())
    output = workload.run(workload.module)
    assert bool(output.isfinite().all())
    output.sum().backward()
    assert all(parameter.grad is not None for parameter in workload.module.parameters())


def test_generators_are_seeded_inside_and_put_back_afterwards_also_after_an_exception() -> None:
    first: list[float] = []
    with generators_left_alone(), suppress(ValueError), seeded(3):
        first += draws()
        raise ValueError
    with seeded(3):
        assert draws() == first


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
PACKED = pack_sequence([X, Y[:, None]])


@pytest.mark.parametrize(
    ("inputs", "args", "kwargs"),
    [
        (X, (X,), {}),
        ((X, None, 3), (X, None, 3), {}),
        ((), (), {}),
        ({"x": X, "ids": IDS}, (), {"x": X, "ids": IDS}),
        (UserDict(x=X), (), {"x": X}),
        (({"x": X},), ({"x": X},), {}),
        (PACKED, (PACKED,), {}),
    ],
    ids=["tensor", "tuple", "nothing", "dict", "mapping", "dict as one argument", "named tuple as one argument"],
)
def test_inputs_are_passed_by_their_kind(inputs: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    workload = Workload.of(Echo(), inputs)
    assert workload.run(workload.module) == (args, kwargs)
    assert [id(tensor) for tensor in workload.input_tensors()] == [id(tensor) for tensor in tensors([args, kwargs])]


@pytest.mark.parametrize("inputs", [[X], {1: X}, None, np.ones(2)], ids=lambda value: type(value).__name__)
def test_inputs_of_another_kind_are_refused_by_their_type(inputs: Any) -> None:
    with pytest.raises(TypeError, match=rf"tensor.*tuple.*dict.*{type(inputs).__name__}"):
        Workload.of(Echo(), inputs)


def test_an_input_that_is_given_twice_stays_one_tensor() -> None:
    moved = Workload.of(Echo(), {"x": X, "again": [X]}).to("cpu", torch.bfloat16)
    assert moved.kwargs["x"] is moved.kwargs["again"][0]


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


def test_an_input_that_requires_grad_stays_a_leaf_that_does() -> None:
    weight = torch.ones(2, requires_grad=True)
    (moved,) = Workload.of(Echo(), weight).to("cpu", torch.float64).args
    assert (moved.requires_grad, moved.is_leaf, moved.dtype) == (True, True, torch.float64)


def test_facts_count_parameters_and_bytes_and_describe_each_input() -> None:
    facts = Workload.of(nn.Linear(3, 2), (X, {"ids": IDS})).to("cpu", torch.float64).facts()
    assert (facts.parameters, facts.parameter_bytes) == (8, 64)
    assert facts.inputs == ["float64[2, 3]", "int64[1, 2]"]
    unusual = (torch.nested.nested_tensor([X, X[:1]]), X.to_sparse())
    assert Workload.of(nn.Identity(), unusual).facts().inputs == ["float32 nested in 3 dimensions", "float32[2, 3] sparse_coo"]


def test_a_source_builds_its_model_in_the_dtype_asked_for() -> None:
    workload = Source("mlp", "tiny").workload(dtype="bfloat16")
    assert {tensor.dtype for tensor in values(workload).values()} == {torch.bfloat16}


class Pair(NamedTuple):
    first: Any
    second: Any


@dataclass(frozen=True, slots=True)
class Slotted:
    first: Any
    second: Any


class Cache:
    """An object that nobody has told pytree of."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor


CONTAINERS: list[Any] = [
    list, tuple,
    lambda children: dict(enumerate(children)), lambda children: OrderedDict(enumerate(children)),
    lambda children: UserDict(enumerate(children)),
    lambda children: Pair(children[:1], children[1:]), lambda children: Slotted(children[:1], children[1:]),
]  # fmt: skip
LEAVES = st.one_of(st.builds(torch.zeros, st.just(1)), st.none(), st.integers(), st.text(max_size=3), st.builds(object))
TREES = st.recursive(
    LEAVES, lambda inner: st.builds(lambda make, held: make(held), st.sampled_from(CONTAINERS), st.lists(inner))
)


def outline(tree: Any) -> Any:
    """Types, keys and values, and each leaf as itself: equal where two trees are the same."""
    if isinstance(tree, Slotted):
        return type(tree), [outline(getattr(tree, part.name)) for part in fields(tree)]
    if isinstance(tree, dict | UserDict):
        return type(tree), [(key, outline(value)) for key, value in tree.items()]
    if isinstance(tree, list | tuple):
        return type(tree), [outline(value) for value in tree]
    return id(tree)


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(TREES)
def test_mapping_replaces_every_tensor_of_a_copy_in_order_and_none_of_the_original(tree: Any) -> None:
    before, held = outline(tree), tensors(tree)
    assert outline(map_tensors(lambda tensor: tensor, tree)) == before
    seen: list[torch.Tensor] = []

    def raised(tensor: torch.Tensor) -> torch.Tensor:
        seen.append(tensor)
        return tensor + 1

    mapped = map_tensors(raised, tree)
    assert [id(tensor) for tensor in seen] == [id(tensor) for tensor in held]
    assert [tensor.item() for tensor in tensors(mapped)] == [1.0] * len(held)
    assert outline(tree) == before


def test_containers_of_torch_and_of_python_keep_their_names_and_defaults() -> None:
    largest = map_tensors(torch.neg, torch.max(torch.tensor([[1.0, 3.0]]), dim=1))
    assert (largest.values.tolist(), largest.indices.tolist()) == ([-3], [-1])
    assert len(tensors(pack_sequence([torch.ones(3), torch.ones(2)]))) == 2
    mapped = map_tensors(torch.neg, defaultdict(list, a=torch.ones(1)))
    assert (mapped["a"].item(), mapped["missing"]) == (-1, [])


def test_an_object_that_nobody_told_pytree_of_is_looked_through_once() -> None:
    """So are the caches that decoders return; such objects may refer to each other."""
    cache: Any = Cache(X)
    cache.layers = [Cache(Y), "text", None, 3]
    cache.layers[0].owner = cache
    assert [id(tensor) for tensor in tensors((cache, cache))] == [id(X), id(Y)]
    first, again = map_tensors(torch.neg, (cache, cache))
    assert first is again is first.layers[0].owner
    assert [tensor.tolist() for tensor in tensors(first)] == [(-X).tolist(), [-0.0]]
    assert first.layers[1:] == ["text", None, 3]
    assert cache.tensor is X


def test_what_holds_no_values_of_its_own_is_passed_over_and_what_pytree_was_told_of_is_its_to_open() -> None:
    empty = threading.Lock()
    assert tensors((Y, np.ones(2), Slotted, nn.Linear(2, 2), torch, lambda: X, empty)) == [Y]
    assert map_tensors(torch.neg, [Y, empty])[1] is empty

    class Told(Cache):
        pass

    torch.utils._pytree.register_pytree_node(Told, lambda told: ([told.tensor], None), lambda held, _: Told(*held))
    assert tensors(Told(X)) == [X]
    assert map_tensors(torch.neg, Told(X)).tensor.tolist() == (-X).tolist()


def _holding_itself() -> Any:
    holding: list[Any] = [X]
    holding.append(holding)
    return holding


def _deep(make: Any) -> Any:
    tree: Any = X
    for _ in range(2000):
        tree = make(tree)
    return tree


@pytest.mark.parametrize(
    "tree",
    [_holding_itself(), _deep(lambda inner: [inner]), _deep(lambda inner: Slotted(inner, None))],
    ids=["itself", "lists", "dataclasses"],
)
def test_nesting_without_end_is_refused_in_words(tree: Any) -> None:
    for walk in (tensors, lambda tree: map_tensors(torch.neg, tree)):
        with pytest.raises(TypeError, match="nested too deep to be followed, or holds itself"):
            walk(tree)
