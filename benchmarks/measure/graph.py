"""What autograd keeps for the backward pass: how many bytes, saved by whom, and whether an output is part of a graph."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.modes import Step
from benchmarks.record import SavedBy
from benchmarks.models.workload import tensors

StorageKey = tuple[torch.device, int]

MOST_SAVERS = 20
_MODEL = "(model)"
REST = "(smaller ones, anywhere)"


@dataclass(frozen=True, slots=True)
class Saved:
    """Bytes kept for backward: unique storages at full size. The two lists each sum to the total, the largest first.

    `opaque_bytes` are in workspaces whose layout only the library knows (uint8, as oneDNN's LSTM keeps). `cast_bytes` are not in the
    total: copies of parameters in another dtype, as autocast makes them.
    """

    total_bytes: int
    opaque_bytes: int
    cast_bytes: int
    by_module: list[SavedBy]
    by_operator: list[SavedBy]


def saved_for_backward(step: Step, apart: Iterable[torch.Tensor], module: nn.Module | None = None) -> Saved:
    """What one call of `step` keeps for backward, but for the storages of `apart` (parameters, buffers, inputs).

    Every storage counts once, for the first that saves it: the path of the submodule of `module` that was running, and the torch
    function that was. They, and the casts, are found by a second call. Where that does not work (torch.compile does not trace what
    watches it) or comes to another sum, all is the model's.
    """
    known = {key for tensor in apart for key, _ in _storages(tensor)}
    sizes: dict[StorageKey, int] = {}
    opaque: set[StorageKey] = set()

    autocast = False

    def note(tensor: torch.Tensor) -> None:
        nonlocal autocast
        autocast |= torch.is_autocast_enabled(tensor.device.type)
        for key, size in _storages(tensor):
            if key not in known:
                sizes[key] = size
                if tensor.dtype is torch.uint8:
                    opaque.add(key)

    call_recording_saved(step, note)
    total = sum(sizes.values())
    try:
        modules, operators, cast = _savers(step, known, module, autocast=autocast)
    except Exception:  # noqa: BLE001 - the step itself has just run without
        modules, operators, cast = Counter(), Counter(), 0
    if modules.total() + cast != total:
        modules, operators, cast = Counter({_MODEL: total}), Counter({_MODEL: total}), 0
    return Saved(total - cast, sum(sizes[key] for key in opaque), cast, _largest(modules), _largest(operators))


def _savers(
    step: Step, known: set[StorageKey], module: nn.Module | None, *, autocast: bool
) -> tuple[Counter[str], Counter[str], int]:
    """Bytes saved by module path and by torch function in one call, and those of casts."""
    seen = set(known)
    modules: Counter[str] = Counter()
    operators: Counter[str] = Counter()
    cast = 0
    casts = _Casts(module.parameters() if module is not None else ())
    with _running(module) as where, casts if autocast else nullcontext():  # the first dispatch mode imports for two seconds

        def note(tensor: torch.Tensor) -> None:
            nonlocal cast
            for key, size in _storages(tensor):
                if key in seen:
                    continue
                seen.add(key)
                if key in casts.made:
                    cast += size
                else:
                    modules[where.module()] += size
                    operators[where.operator()] += size

        call_recording_saved(step, note)
    return modules, operators, cast


class _Casts(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the storages that copies of parameters in another dtype are `made` in, and keeps them alive."""

    def __init__(self, parameters: Iterable[torch.Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._parameters = {key for parameter in parameters for key, _ in _storages(parameter)}
        self.made: dict[StorageKey, torch.Tensor] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        if func is torch.ops.aten._to_copy.default and any(key in self._parameters for key, _ in _storages(args[0])):
            self.made.update((key, output) for key, _ in _storages(output))
        return output


def call_recording_saved(step: Step, note: Callable[[torch.Tensor], object] = id) -> tuple[Any, list[torch.Tensor]]:
    """The output of one call and every tensor that autograd saved during it; `note` is shown each at once.

    The list keeps them alive: otherwise a freed one's address is taken by the next, and two count as one.
    """
    saved: list[torch.Tensor] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        saved.append(tensor)
        note(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = step()
    return output, saved


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


class _Where(TorchFunctionMode):
    """Which submodule and which torch function are running: the innermost module, the outermost function in it."""

    def __init__(self, module: nn.Module | None) -> None:
        super().__init__()
        self._names = {id(part): name for name, part in module.named_modules()} if module is not None else {}
        self._modules: list[nn.Module] = []
        self._operators: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self._operators.append(getattr(func, "__name__", str(func)))
        try:
            return func(*args, **(kwargs or {}))
        finally:
            self._operators.pop()

    def enter_module(self, module: nn.Module, _inputs: Any) -> None:
        self._modules.append(module)

    def leave_module(self, _module: nn.Module, _inputs: Any, _output: Any) -> None:
        self._modules.pop()

    def module(self) -> str:
        """Its dotted path; the model itself is `(model)`, and a module that is no part of it goes by its class."""
        if not self._modules:
            return _MODEL
        return self._names.get(id(self._modules[-1]), type(self._modules[-1]).__name__) or _MODEL

    def operator(self) -> str:
        return self._operators[-1] if self._operators else "(other)"


@contextmanager
def _running(module: nn.Module | None) -> Iterator[_Where]:
    where = _Where(module)
    hooks = (
        register_module_forward_pre_hook(where.enter_module),
        register_module_forward_hook(where.leave_module, always_call=True),
    )
    try:
        with where:
            yield where
    finally:
        for hook in hooks:
            hook.remove()


def _largest(sizes: Counter[str]) -> list[SavedBy]:
    ordered = [SavedBy(name, size) for name, size in sizes.most_common() if size]
    rest = sum(one.bytes for one in ordered[MOST_SAVERS:])
    return [*ordered[:MOST_SAVERS], *([SavedBy(REST, rest)] if rest else [])]


def _storages(tensor: torch.Tensor) -> Iterable[tuple[StorageKey, int]]:
    if tensor.layout is torch.strided:
        storage = tensor.untyped_storage()
        return [((storage.device, storage.data_ptr()), storage.nbytes())] if storage.nbytes() else []
    if tensor.is_sparse:
        return [part for values in (tensor._indices(), tensor._values()) for part in _storages(values)]
    return [((tensor.device, id(tensor)), tensor.numel() * tensor.element_size())]
