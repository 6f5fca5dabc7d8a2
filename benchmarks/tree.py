"""Tensors inside nested outputs and inputs: tuples, lists, dicts and dataclasses, as forward functions return them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch


def tensors(tree: Any) -> Iterator[torch.Tensor]:
    """Every tensor in `tree`, depth first. None, numbers and texts beside tensors are passed over.

    Raises TypeError for a value that is neither a tensor nor a container of tensors.
    """
    if isinstance(tree, torch.Tensor):
        yield tree
    elif isinstance(tree, Mapping):
        for value in tree.values():
            yield from tensors(value)
    elif isinstance(tree, list | tuple):
        for value in tree:
            yield from tensors(value)
    elif is_dataclass(tree) and not isinstance(tree, type):
        for field in fields(tree):
            yield from tensors(getattr(tree, field.name))
    elif not isinstance(tree, None | bool | int | float | complex | str):
        raise TypeError(f"expected tensors, or tuples, lists, dicts or dataclasses of them, got {type(tree).__name__}")


def map_tensors(function: Callable[[torch.Tensor], Any], tree: Any) -> Any:
    """`tree` with `function` applied to every tensor; containers are rebuilt, other values are kept."""
    if isinstance(tree, torch.Tensor):
        return function(tree)
    if isinstance(tree, Mapping):
        rebuilt: Any = copy.copy(tree)
        for key, value in tree.items():
            rebuilt[key] = map_tensors(function, value)
        return rebuilt
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*(map_tensors(function, value) for value in tree))
    if isinstance(tree, list | tuple):
        return type(tree)(map_tensors(function, value) for value in tree)
    if is_dataclass(tree) and not isinstance(tree, type):
        rebuilt = copy.copy(tree)
        for field in fields(tree):
            object.__setattr__(rebuilt, field.name, map_tensors(function, getattr(tree, field.name)))
        return rebuilt
    return tree
