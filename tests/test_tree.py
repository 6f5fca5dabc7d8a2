"""Every tensor of a nested output is found, and a mapped copy has the same shape: containers, dataclasses, transformers' outputs."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.tree import map_tensors, tensors

QUICK = settings(max_examples=100, deadline=None, derandomize=True, database=None)


class Pair(NamedTuple):
    first: Any
    second: Any


@dataclass(frozen=True)
class Frozen:
    first: Any
    second: Any


@dataclass(frozen=True, slots=True)
class Slotted:
    first: Any
    second: Any


@dataclass
class ModelOutput(OrderedDict[str, Any]):
    """As in transformers: the fields that are not None are items too, and both are kept alike."""

    logits: Any = None
    hidden: Any = None

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if getattr(self, field.name) is not None:
                self[field.name] = getattr(self, field.name)

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, value)
        super().__setattr__(key, value)

    def __reduce__(self) -> Any:
        reduced: Any = super().__reduce__()
        make, _, *rest = reduced
        return make, tuple(getattr(self, field.name) for field in dataclasses.fields(self)), *rest


Leaves = list[torch.Tensor]
Tree = tuple[Any, Leaves]
"""A tree with the tensors in it, depth first."""


def leaf(value: Any) -> Tree:
    return value, [value] if isinstance(value, torch.Tensor) else []


def joined(children: Sequence[Tree]) -> tuple[list[Any], Leaves]:
    return [tree for tree, _ in children], [tensor for _, found in children for tensor in found]


def branches(children: st.SearchStrategy[Tree]) -> st.SearchStrategy[Tree]:
    several = st.lists(children, max_size=4).map(joined)
    two = st.lists(children, min_size=2, max_size=2).map(joined)
    return st.one_of(
        several,
        several.map(lambda tree: (tuple(tree[0]), tree[1])),
        several.map(lambda tree: ({f"key {i}": value for i, value in enumerate(tree[0])}, tree[1])),
        several.map(lambda tree: (OrderedDict(enumerate(tree[0])), tree[1])),
        two.map(lambda tree: (Pair(*tree[0]), tree[1])),
        two.map(lambda tree: (Frozen(*tree[0]), tree[1])),
        two.map(lambda tree: (Slotted(*tree[0]), tree[1])),
        two.map(lambda tree: (ModelOutput(*tree[0]), tree[1])),
    )


PLAIN = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=3))
TREES = st.recursive(st.one_of(st.builds(torch.zeros, st.just(1)), PLAIN).map(leaf), branches, max_leaves=20)


def outline(tree: Any) -> Any:
    """Types, keys and values, and each tensor as itself: equal where two trees are the same."""
    if isinstance(tree, torch.Tensor):
        return id(tree)
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        attributes = [outline(getattr(tree, field.name)) for field in dataclasses.fields(tree)]
        items = [(key, outline(value)) for key, value in tree.items()] if isinstance(tree, dict) else []
        return type(tree), attributes, items
    if isinstance(tree, dict):
        return type(tree), [(key, outline(value)) for key, value in tree.items()]
    if isinstance(tree, list | tuple):
        return type(tree), [outline(value) for value in tree]
    return type(tree), tree


@QUICK
@given(TREES)
def test_mapping_the_identity_gives_the_same_tree(tree: Tree) -> None:
    assert outline(map_tensors(lambda tensor: tensor, tree[0])) == outline(tree[0])


@QUICK
@given(TREES)
def test_every_tensor_is_found_once_and_depth_first(tree: Tree) -> None:
    assert [id(tensor) for tensor in tensors(tree[0])] == [id(tensor) for tensor in tree[1]]


@QUICK
@given(TREES)
def test_mapping_replaces_every_tensor_of_a_copy_and_none_of_the_original(tree: Tree) -> None:
    before = outline(tree[0])
    mapped = map_tensors(lambda tensor: tensor + 1, tree[0])
    assert [tensor.item() for tensor in tensors(mapped)] == [1.0] * len(tree[1])
    assert outline(tree[0]) == before
    assert [tensor.item() for tensor in tree[1]] == [0.0] * len(tree[1])


def test_an_output_that_is_a_dict_and_a_dataclass_is_mapped_under_its_keys_and_its_attributes() -> None:
    output = ModelOutput(logits=torch.zeros(2), hidden=(torch.zeros(1),))
    mapped = map_tensors(lambda tensor: tensor + 1, output)
    assert type(mapped) is ModelOutput
    assert mapped.logits is mapped["logits"]
    assert mapped.logits.tolist() == [1, 1]
    assert mapped.hidden[0].tolist() == mapped["hidden"][0].tolist() == [1]
    assert output.logits.tolist() == output["logits"].tolist() == [0, 0]


def test_a_defaultdict_keeps_its_default() -> None:
    mapped = map_tensors(torch.neg, defaultdict(list, a=torch.ones(1)))
    assert (mapped["a"].item(), mapped["missing"]) == (-1, [])


def test_torchs_own_result_tuples_keep_their_names() -> None:
    mapped = map_tensors(torch.neg, torch.max(torch.tensor([[1.0, 3.0]]), dim=1))
    assert (mapped.values.tolist(), mapped.indices.tolist()) == ([-3], [-1])


@pytest.mark.parametrize("value", [np.ones(2), {1, 2}, object(), Frozen], ids=["array", "set", "object", "class"])
def test_what_holds_no_tensors_is_refused_by_its_type(value: Any) -> None:
    with pytest.raises(TypeError, match=type(value).__name__):
        list(tensors([torch.ones(1), {"deep": (value,)}]))
    assert map_tensors(torch.neg, [value])[0] is value
