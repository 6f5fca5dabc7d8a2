"""What autograd keeps for the backward pass: how many bytes and for which module, and whether an output is part of a graph."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from benchmarks.models.workload import Workload, tensors
from benchmarks.modes import Step
from benchmarks.record import SavedBy

MOST_SAVERS = 20
MODEL, REST = "(model)", "(smaller ones, anywhere)"


class CannotRecord(Exception):
    """The step does what torch does not let saved-tensor hooks watch, such as torch.func.grad; the text is torch's."""


@dataclass(frozen=True)
class Saved:
    """The fields of record.Memory that saved tensors fill: unique storages at full size. Opaque are workspaces whose layout only the library
    knows (uint8, as oneDNN's LSTM keeps)."""

    saved_bytes: int
    opaque_saved_bytes: int
    cast_saved_bytes: int
    input_saved_bytes: int
    saved_by_module: list[SavedBy]


def record_saved(step: Step, note: Callable[[torch.Tensor], None] | None = None) -> tuple[Any, list[torch.Tensor]]:
    """The output of one call, and every tensor that autograd saved during it; `note` is shown each at once.

    The list keeps them alive: the address of a freed one is taken by the next, and two would count as one. Raises CannotRecord.
    """
    saved: list[torch.Tensor] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept = tensor.detach()  # an operator's own output, kept as it is, would keep its graph alive for good
        saved.append(kept)
        if note is not None:
            note(kept)
        return kept

    try:
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            return step(), saved
    except RuntimeError as error:
        if "saved tensor hooks" in str(error):
            raise CannotRecord(str(error)) from error
        raise


def saved_for_backward(step: Step, workload: Workload) -> Saved:
    """What one call of `step` keeps for backward beside the workload's parameters and buffers; of its inputs that is told apart.

    Each storage counts once, for the submodule that was running when it was first saved; all is the model's where the step does not bear
    being watched (torch.compile cannot trace it). Raises CannotRecord.
    """
    ledger = _Ledger(workload)
    try:
        with register_module_forward_pre_hook(ledger.enter), register_module_forward_hook(ledger.leave, always_call=True):
            record_saved(step, ledger.note)
    except CannotRecord:
        raise
    except Exception:  # noqa: BLE001 - the step itself has run before, unwatched
        ledger = _Ledger(workload)
        record_saved(step, ledger.note)
    return Saved(
        ledger.by_module.total(), ledger.opaque_bytes, ledger.cast_bytes, ledger.input_bytes, _largest(ledger.by_module)
    )


class _Ledger:
    """Adds up the storages that it is shown, each once, for the innermost module that is running then."""

    def __init__(self, workload: Workload) -> None:
        self.by_module: Counter[str] = Counter()
        self.opaque_bytes = self.cast_bytes = self.input_bytes = 0
        self._module = workload.module
        self._parameters = list(self._module.parameters())
        self._inputs = {key for tensor in workload.input_tensors() for key, _ in _storages(tensor)}
        self._seen = {key for tensor in (*self._parameters, *self._module.buffers()) for key, _ in _storages(tensor)}
        self._paths = _paths_in(self._module)
        self._running = [MODEL]

    def note(self, tensor: torch.Tensor) -> None:
        for key, size_bytes in _storages(tensor):
            if key in self._seen:
                continue
            self._seen.add(key)
            if key in self._inputs:
                self.input_bytes += size_bytes
            elif _is_cast(tensor, self._parameters):
                self.cast_bytes += size_bytes
            else:
                self.by_module[self._running[-1]] += size_bytes
                self.opaque_bytes += size_bytes if tensor.dtype is torch.uint8 else 0

    def enter(self, module: nn.Module, _inputs: Any) -> None:
        if id(module) not in self._paths:
            self._paths |= _paths_in_copy(module, self._module)
        self._running.append(self._paths[id(module)])

    def leave(self, _module: nn.Module, _inputs: Any, _output: Any) -> None:
        self._running.pop()


def _is_cast(tensor: torch.Tensor, parameters: list[nn.Parameter]) -> bool:
    """Whether its storage holds the values of a parameter of another dtype, and nothing else.

    The values tell: while an operator saves, autocast reads as switched off, and a copy does not know what it is a copy of.
    """
    if tensor.layout is not torch.strided or not tensor.is_floating_point():
        return False
    values = torch.empty(0, dtype=tensor.dtype, device=tensor.device).set_(tensor.untyped_storage())
    for parameter in parameters:
        alike = parameter.numel() == values.numel() and parameter.device == values.device
        if alike and parameter.dtype is not values.dtype:
            cast = parameter.detach().to(values.dtype)  # dense, its strides kept
            if torch.equal(cast.as_strided(values.shape, (1,)), values):
                return True
    return False


def _storages(tensor: torch.Tensor) -> Iterator[tuple[tuple[torch.device, int], int]]:
    """The key and the size of each storage that `tensor` lies in."""
    if tensor.layout is torch.sparse_coo:
        yield from _storages(tensor._indices())
        yield from _storages(tensor._values())
    elif tensor.layout is not torch.strided:
        yield (tensor.device, id(tensor)), tensor.numel() * tensor.element_size()
    elif tensor.untyped_storage().nbytes():
        yield (tensor.device, tensor.untyped_storage().data_ptr()), tensor.untyped_storage().nbytes()


def storage_bytes(found: Iterable[torch.Tensor], without: Iterable[torch.Tensor]) -> int:
    """Of the storages of `found`, each once, but for those that tensors of `without` lie in."""
    known = {key for tensor in without for key, _ in _storages(tensor)}
    sizes = dict(pair for tensor in found for pair in _storages(tensor))
    return sum(size for key, size in sizes.items() if key not in known)


def histories(output: Any) -> list[str]:
    """The names of the graph nodes that the output's tensors hang on. `requires_grad` is no test: views report True."""
    return [type(tensor.grad_fn).__name__ for tensor in tensors(output) if tensor.grad_fn is not None]


def graph_nodes(output: Any) -> int:
    """How many autograd nodes hang on the output's tensors, the parameters' accumulators included."""
    seen = {tensor.grad_fn for tensor in tensors(output) if tensor.grad_fn is not None}
    pending = list(seen)
    while pending:
        for node, _ in pending.pop().next_functions:
            if node is not None and node not in seen:
                seen.add(node)
                pending.append(node)
    return len(seen)


def _paths_in(module: nn.Module, prefix: str = "") -> dict[int, str]:
    return {id(part): ".".join(filter(None, (prefix, name))) or MODEL for name, part in module.named_modules()}


def _paths_in_copy(copy: nn.Module, module: nn.Module) -> dict[int, str]:
    """Paths in the part of `module` that `copy` is a copy of, as modes that freeze make one: it shares the values of every parameter.

    A module that is no such copy goes by its class.
    """
    addresses = [parameter.data_ptr() for parameter in copy.parameters()]
    for path, part in module.named_modules() if addresses else ():
        if type(part) is type(copy) and [parameter.data_ptr() for parameter in part.parameters()] == addresses:
            return _paths_in(copy, path)
    return {id(copy): type(copy).__name__}


def _largest(sizes: Counter[str]) -> list[SavedBy]:
    ordered = [SavedBy(name, size) for name, size in sizes.most_common() if size]
    rest_bytes = sum(saver.bytes for saver in ordered[MOST_SAVERS:])
    return [*ordered[:MOST_SAVERS], *([SavedBy(REST, rest_bytes)] if rest_bytes else [])]
