"""What autograd keeps for the backward pass: the bytes it saves, and whether an output is part of a graph."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from benchmarks.modes import Step
from benchmarks.tree import tensors

StorageKey = tuple[torch.device, int]


def saved_bytes(step: Step, apart: Iterable[torch.Tensor]) -> int:
    """Bytes that one call of `step` keeps for backward, but for those of `apart` (parameters, buffers, inputs).

    Every storage counts once and at its full size, however many views of it are saved.
    """
    _, saved = call_recording_saved(step)
    known = {key for tensor in apart for key, _ in _storages(tensor)}
    sizes = {key: size for tensor in saved for key, size in _storages(tensor) if key not in known}
    return sum(sizes.values())


def call_recording_saved(step: Step) -> tuple[Any, list[torch.Tensor]]:
    """The output of one call and every tensor that autograd saved during it.

    The list keeps them alive: otherwise a freed one's address is taken by the next, and two count as one.
    """
    saved: list[torch.Tensor] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        saved.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = step()
    return output, saved


def histories(output: Any) -> list[str]:
    """The names of the graph nodes that the output's tensors hang on. `requires_grad` is no test: views report True."""
    return [type(tensor.grad_fn).__name__ for tensor in tensors(output) if tensor.grad_fn is not None]


def _storages(tensor: torch.Tensor) -> Iterable[tuple[StorageKey, int]]:
    if tensor.layout is torch.strided:
        storage = tensor.untyped_storage()
        return [((storage.device, storage.data_ptr()), storage.nbytes())] if storage.nbytes() else []
    if tensor.is_sparse:
        return [part for values in (tensor._indices(), tensor._values()) for part in _storages(values)]
    return [((tensor.device, id(tensor)), tensor.numel() * tensor.element_size())]
