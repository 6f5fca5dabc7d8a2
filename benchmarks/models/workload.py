"""What a model family or a user's function yields: a module and the inputs of one forward pass."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import partial
from types import ModuleType
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import nn
from torch.utils import _pytree as pytree

from benchmarks.record import ModelFacts

SIZES = ("tiny", "small", "medium", "large", "huge")
"""`huge` fills a data centre's GPU and is too much for most CPUs."""

AS_BUILT = "as_built"
"""The dtype of a model that is measured in the dtypes that it was built in."""

DTYPES: dict[str, torch.dtype | None] = {
    "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64, AS_BUILT: None,
    "amp_bfloat16": torch.float32, "amp_float16": torch.float32,
}  # fmt: skip
"""What the model and its inputs are in."""

AUTOCAST = {"amp_bfloat16": torch.bfloat16, "amp_float16": torch.float16}
"""Those of DTYPES in which steps run under autocast, and what to."""

DRAWN = 65_537
"""Values of a tensor that are random. A prime, so that rows of a matrix differ."""

Inputs = torch.Tensor | tuple[Any, ...] | Mapping[str, Any]
"""One tensor, a tuple of positional arguments or a mapping of keyword arguments."""


@dataclass(frozen=True, slots=True)
class Workload:
    """A module with the arguments of its forward pass."""

    module: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @classmethod
    def of(cls, module: nn.Module, inputs: Inputs) -> Workload:
        """A named tuple, such as a PackedSequence, is one argument. Raises TypeError for `inputs` of another kind, or keys that are no texts."""
        if isinstance(inputs, torch.Tensor) or hasattr(inputs, "_fields"):
            return cls(module, (inputs,), {})
        if isinstance(inputs, tuple):
            return cls(module, inputs, {})
        if isinstance(inputs, Mapping) and all(isinstance(key, str) for key in inputs):
            return cls(module, (), dict(inputs))
        raise TypeError(
            "inputs must be a tensor, a tuple of positional arguments or a dict of keyword arguments, "
            f"got {type(inputs).__name__}"
        )

    def to(self, device: torch.device | str, dtype: torch.dtype | None) -> Workload:
        """The same on `device`, with floating point parameters, buffers and inputs as `dtype` (None: as they are).

        The module is moved in place. Inputs that require grad still do, as leaves.
        """
        moved_inputs: dict[int, torch.Tensor] = {}

        def move(tensor: torch.Tensor) -> torch.Tensor:
            return tensor.to(device, dtype if tensor.is_floating_point() else None)

        def move_input(tensor: torch.Tensor) -> torch.Tensor:
            if id(tensor) not in moved_inputs:  # a tensor that is given twice stays one tensor
                moved = move(tensor.detach())
                stayed = (moved.device, moved.dtype) == (tensor.device, tensor.dtype)
                moved_inputs[id(tensor)] = tensor if stayed else moved.requires_grad_(tensor.requires_grad)
            return moved_inputs[id(tensor)]

        args, kwargs = map_tensors(move_input, self.args), map_tensors(move_input, self.kwargs)
        module: nn.Module = self.module._apply(move)  # type: ignore[no-untyped-call]  # .to makes complex values real
        return replace(self, module=module, args=args, kwargs=kwargs)

    @property
    def dtype(self) -> str:
        """What its parameters are in, such as `bfloat16`, or `bfloat16+float32`; without any, the inputs that require grad."""
        inputs = (tensor for tensor in self.input_tensors() if tensor.requires_grad)
        return "+".join(sorted({_name(tensor.dtype) for tensor in [*self.module.parameters()] or inputs}))

    def run(self, model: Callable[..., Any]) -> Any:
        return model(*self.args, **self.kwargs)

    def input_tensors(self) -> list[torch.Tensor]:
        return tensors((self.args, list(self.kwargs.values())))

    def facts(self) -> ModelFacts:
        parameters = list(self.module.parameters())
        return ModelFacts(
            parameters=sum(parameter.numel() for parameter in parameters),
            parameter_bytes=sum(parameter.numel() * parameter.element_size() for parameter in parameters),
            inputs=list(map(kind_of, self.input_tensors())),
        )


def kind_of(tensor: torch.Tensor) -> str:
    """Such as `float32[8, 16]`, with the layout of one that is not strided."""
    shape = f" nested in {tensor.dim()} dimensions" if tensor.is_nested else list(tensor.shape)
    layout = "" if tensor.layout is torch.strided else f" {_name(tensor.layout)}"
    return f"{_name(tensor.dtype)}{shape}{layout}"


def _name(kind: torch.dtype | torch.layout) -> str:
    return str(kind).removeprefix("torch.")


@dataclass(frozen=True, slots=True)
class Family:
    """A built-in model in several sizes. `build(**sizes[size])` returns the module and its inputs; the docstring of its file says what it is.

    `imports` names modules that building it imports and that a launch of workers may import once for all.
    """

    name: str
    sizes: Mapping[str, Mapping[str, Any]]
    build: Callable[..., tuple[nn.Module, Inputs]]
    imports: tuple[str, ...] = ()

    def workload(self, size: str, **instead: int) -> Workload:
        """The model in eval mode on the CPU, the same values every time; `instead` are numbers in place of the size's own."""
        with seeded(0):
            module, inputs = self.build(**{**self.sizes[size], **instead})
        return Workload.of(module.eval(), inputs)


def tensors(tree: Any) -> list[torch.Tensor]:
    """The tensors in a nested input or output, in order: in what torch's pytree knows, and in mappings and the attributes of other objects.

    The latter, such as the caches that models return, count once each. Functions, modules and classes are passed over. Raises TypeError
    where the nesting is too deep to be followed, as in a list that holds itself.
    """
    try:
        return _found(tree, set())
    except RecursionError as error:
        raise _too_deep(tree) from error


def map_tensors(function: Callable[[torch.Tensor], Any], tree: Any) -> Any:
    """A copy of `tree` with `function` applied to every tensor that `tensors` finds. Raises TypeError as it does."""
    try:
        return _mapped(function, tree, {})
    except RecursionError as error:
        raise _too_deep(tree) from error


def _found(tree: Any, opened: set[int]) -> list[torch.Tensor]:
    """`opened` are the ids of objects that were looked through before: they may refer to each other."""
    found: list[torch.Tensor] = []
    for leaf in pytree.tree_leaves(tree):
        if isinstance(leaf, torch.Tensor):
            found.append(leaf)
        elif id(leaf) not in opened and (parts := _parts(leaf)):
            opened.add(id(leaf))
            found += _found(list(parts.values()), opened)
    return found


def _mapped(function: Callable[[torch.Tensor], Any], tree: Any, copies: dict[int, Any]) -> Any:
    """The plain containers by hand: pytree takes 20 us for a tuple of three, which `detach` would be charged with."""
    if isinstance(tree, torch.Tensor):
        return function(tree)
    if type(tree) in (tuple, list):
        return type(tree)([_mapped(function, value, copies) for value in tree])
    if type(tree) is dict:
        return {key: _mapped(function, value, copies) for key, value in tree.items()}
    return pytree.tree_map(lambda leaf: _mapped_leaf(function, leaf, copies), tree)


def _mapped_leaf(function: Callable[[torch.Tensor], Any], leaf: Any, copies: dict[int, Any]) -> Any:
    if isinstance(leaf, torch.Tensor):
        return function(leaf)
    if id(leaf) in copies:
        return copies[id(leaf)]
    parts = _parts(leaf)
    if not parts or not _found(leaf, set()):  # what holds no tensor is no copy: not all objects can be copied
        return leaf
    rebuilt = copies[id(leaf)] = copy.copy(leaf)
    put: Callable[[Any, Any], None] = rebuilt.__setitem__ if isinstance(leaf, Mapping) else partial(object.__setattr__, rebuilt)
    for name, value in parts.items():
        put(name, _mapped(function, value, copies))
    return rebuilt


def _parts(leaf: Any) -> dict[Any, Any]:
    """By key of a mapping, by name of a dataclass's value or a plain object; none of what can be called, such as modules."""
    if isinstance(leaf, Mapping):
        return dict(leaf)
    if is_dataclass(leaf) and not isinstance(leaf, type):
        return {field.name: getattr(leaf, field.name, None) for field in fields(leaf)}
    plain = not callable(leaf) and not isinstance(leaf, ModuleType)
    return dict(getattr(leaf, "__dict__", {})) if plain else {}


def _too_deep(tree: Any) -> TypeError:
    return TypeError(f"{type(tree).__name__} is nested too deep to be followed, or holds itself")


@contextmanager
def seeded(seed: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """Python's, NumPy's and torch's generators start from `seed` inside, and are put back afterwards.

    Of accelerators only `device` is touched, if it is one: opening every GPU of a machine costs seconds and memory on each.
    """
    python_state, numpy_state = random.getstate(), np.random.get_state()
    place = torch.device(device)
    accelerators = [] if place.type == "cpu" else [place.index or 0]
    try:
        with torch.random.fork_rng(accelerators, device_type=place.type):
            random.seed(seed)
            np.random.seed(seed)
            torch.default_generator.manual_seed(seed)
            for index in accelerators:
                with torch.cuda.device(index):
                    torch.cuda.manual_seed(seed)
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)


@contextmanager
def drawn_in_part() -> Iterator[None]:
    """Random tensors repeat their first values inside. A group builds its model in up to 60 processes, and to draw each value would take longer
    than to measure."""

    def repeating(fill: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def filled(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
            if tensor.numel() <= DRAWN or not tensor.is_contiguous():
                return fill(tensor, *args, **kwargs)
            drawn, *rest = torch.split(tensor.detach().view(-1), DRAWN)
            fill(drawn, *args, **kwargs)
            for part in rest:
                part.copy_(drawn[: len(part)])
            return tensor

        return filled

    with patch.multiple(torch.Tensor, normal_=repeating(torch.Tensor.normal_), uniform_=repeating(torch.Tensor.uniform_)):
        yield
