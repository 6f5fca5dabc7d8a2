"""What a model family or a user's function yields: a module and the inputs of one forward pass."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.record import ModelFacts
from benchmarks.tree import map_tensors, tensors

SIZES = ("tiny", "small", "medium", "large")

DTYPES = MappingProxyType(
    {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}
)

Inputs = torch.Tensor | tuple[Any, ...] | dict[str, Any]
"""One tensor, a tuple of positional arguments or a dict of keyword arguments."""


@dataclass(frozen=True, slots=True)
class Workload:
    """A module with the arguments of its forward pass.

    `closed_form(element_bytes)` is what a tracked pass saves for backward by theory, None where there is none.
    """

    module: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    closed_form: Callable[[int], int] | None = None

    @classmethod
    def of(cls, module: nn.Module, inputs: Inputs) -> Workload:
        """Raises TypeError if `inputs` is neither a tensor, a tuple nor a dict with text keys."""
        if isinstance(inputs, torch.Tensor):
            return cls(module, (inputs,), {})
        if isinstance(inputs, tuple):
            return cls(module, inputs, {})
        if isinstance(inputs, dict) and all(isinstance(key, str) for key in inputs):
            return cls(module, (), inputs)
        raise TypeError(
            "inputs must be a tensor, a tuple of positional arguments or a dict of keyword arguments, "
            f"got {type(inputs).__name__}"
        )

    def to(self, device: torch.device | str, dtype: torch.dtype) -> Workload:
        """The same on `device`, with floating point parameters, buffers and inputs as `dtype`. The module is moved in place."""

        def move(tensor: torch.Tensor) -> torch.Tensor:
            return tensor.to(device, dtype if tensor.is_floating_point() else None)

        args, kwargs = map_tensors(move, self.args), map_tensors(move, self.kwargs)
        module: nn.Module = self.module._apply(move)  # type: ignore[no-untyped-call]  # .to makes complex real
        return replace(self, module=module, args=args, kwargs=kwargs)

    def run(self, model: Callable[..., Any]) -> Any:
        return model(*self.args, **self.kwargs)

    def constants(self) -> list[torch.Tensor]:
        """Parameters, buffers and inputs: what is there before the call and stays after it."""
        return [*self.module.parameters(), *self.module.buffers(), *self.input_tensors()]

    def input_tensors(self) -> list[torch.Tensor]:
        return list(tensors((self.args, list(self.kwargs.values()))))

    def facts(self) -> ModelFacts:
        parameters = list(self.module.parameters())
        return ModelFacts(
            parameters=sum(parameter.numel() for parameter in parameters),
            parameter_bytes=sum(parameter.numel() * parameter.element_size() for parameter in parameters),
            inputs=[f"{str(t.dtype).removeprefix('torch.')}{list(t.shape)}" for t in self.input_tensors()],
        )


@dataclass(frozen=True, slots=True)
class Family:
    """A built-in model in every size. `build(**sizes[size])` returns the module and its inputs.

    `saved_bytes(**sizes[size], element_bytes=...)` is the closed form of what one tracked forward pass on a CPU keeps for backward, but
    for workspaces that only the library knows the size of; None where there is no closed form.
    """

    name: str
    summary: str
    sizes: Mapping[str, Mapping[str, int]]
    build: Callable[..., tuple[nn.Module, Inputs]]
    saved_bytes: Callable[..., int] | None = None

    def workload(self, size: str) -> Workload:
        """The model in eval mode with parameters that require grad; the same values every time."""
        with seeded(0):
            module, inputs = self.build(**self.sizes[size])
        workload = Workload.of(module.eval(), inputs)
        if self.saved_bytes is None:
            return workload
        return replace(workload, closed_form=partial(_by_element, self.saved_bytes, self.sizes[size]))


def _by_element(saved_bytes: Callable[..., int], size: Mapping[str, int], element_bytes: int) -> int:
    return saved_bytes(**size, element_bytes=element_bytes)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Python's, NumPy's and torch's generators start from `seed` inside, and are put back afterwards."""
    python_state, numpy_state = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng():
            random.seed(seed)
            np.random.seed(seed)
            torch.manual_seed(seed)
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
