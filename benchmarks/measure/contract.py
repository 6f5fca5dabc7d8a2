"""Shows that a mode does what it says before it is measured: history, gradient mode, outputs, state."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import torch
from torch import nn

from benchmarks.failure import Failure, describe, is_out_of_memory
from benchmarks.measure.saved import CannotRecord, histories, record_saved, storage_bytes
from benchmarks.models.workload import kind_of, seeded, tensors
from benchmarks.modes import TRACKED, Mode, Step
from benchmarks.record import Broken, Contract


@dataclass(frozen=True, slots=True)
class Observation:
    """One call: its output's tensors, detached, so that no graph is held; the nodes that they hung on; and what the call left behind.

    `saved` tells how many tensors autograd saved, None where that was not or could not be watched, and `saved_bytes` their storages
    beside parameters.
    """

    output: list[torch.Tensor]
    histories: list[str]
    saved: int | None
    left_grad_enabled: bool
    changed_buffers: list[str]
    changed_inputs: bool = False
    tracked_inputs: bool = False
    saved_bytes: int = 0


def observe(step: Step, module: nn.Module, inputs: Iterable[torch.Tensor] = (), *, record: bool = True) -> Observation:
    """Calls `step` once from a known state, which is put back afterwards: buffers, inputs, random generators, gradient mode.

    `record` counts what autograd saves, unless torch does not let it.
    """
    inputs = list(inputs)
    try:
        with preserved(module, inputs), torch.enable_grad():
            before = {name: buffer.clone() for name, buffer in module.named_buffers()}
            given = [(tensor, tensor.detach().clone()) for tensor in inputs if not isinstance(tensor, nn.Parameter)]
            tracked_inputs = any(tensor.requires_grad for tensor, _ in given)
            output, saved = record_saved(step) if record else (step(), None)
            try:
                held = tensors(output)
            except TypeError as error:
                raise Failure("unsupported", f"the output cannot be looked through: {error}") from error
            after = [(name, buffer) for name, buffer in module.named_buffers() if name in before]
            return Observation(
                output=[tensor.detach() for tensor in held],
                histories=histories(output),
                saved=None if saved is None else len(saved),
                left_grad_enabled=torch.is_grad_enabled(),
                changed_buffers=[name for name, buffer in after if not equal_bits([buffer], [before[name]])],
                changed_inputs=any(not equal_bits([tensor], [value]) for tensor, value in given),
                tracked_inputs=tracked_inputs,
                saved_bytes=storage_bytes(saved or [], module.parameters()),
            )
    except CannotRecord:
        return observe(step, module, inputs, record=False)


def check_contract(mode: Mode, seen: Observation, reference: Observation | None = None) -> Contract:
    """Every promise that `seen` breaks. `reference` is a tracked call from the same state, if there is one to compare with.

    Outputs may differ by rounding, because a mode can select other kernels; whether they do is `equal_bits`'s to say.
    """
    broken, untracked = [], "nothing was tracked (does any parameter require grad?)"
    if mode.history and not seen.histories:
        broken.append(Broken("history", f"the output has no history: {untracked}"))
    elif mode.records and seen.saved == 0:
        broken.append(Broken("records", f"nothing was saved for backward: {untracked}"))
    cause = "an input requires grad" if seen.tracked_inputs else "the model tracks by itself"
    opening = f"{mode.name} does not switch tracking off here, because {cause}: "
    if mode.history is False and seen.histories:
        broken.append(Broken("history", f"{opening}the output has a history ({seen.histories[0]})"))
    if mode.records is False and seen.saved:
        broken.append(
            Broken("records", f"{'' if broken else opening}{seen.saved_bytes:,} B are kept for backward beside parameters")
        )
    if not seen.left_grad_enabled:
        broken.append(Broken("grad_mode", "gradients were left off after the call"))
    difference = _difference(seen.output, reference.output) if reference is not None and mode.same_output else None
    if difference:
        told = f"the output differs from tracked's: {difference}"
        if mode.name == TRACKED.name:
            told = f"the output differs from call to call: {difference}; state that a call changes has to be a buffer"
        broken.append(Broken("same_output", told))
    return Contract(holds=not broken, broken=broken, changed_buffers=seen.changed_buffers)


@contextmanager
def preserved(module: nn.Module, inputs: Iterable[torch.Tensor] = ()) -> Iterator[None]:
    """Random generators start from the same seed inside; afterwards they, the module's buffers and the inputs are as before.

    After an exception that is tried only: on a device that has failed nothing can be put back, and the exception tells why.
    """
    buffers = [(owner, name, buffer) for owner in module.modules() for name, buffer in owner.named_buffers(recurse=False)]
    values = [(tensor, tensor.detach().clone()) for tensor in (*(buffer for _, _, buffer in buffers), *inputs)]

    def put_back() -> None:
        for owner, name, buffer in buffers:
            setattr(owner, name, buffer)
        with torch.no_grad():
            for tensor, value in values:
                if not equal_bits([tensor], [value]):  # an expanded tensor can be compared, but not written to
                    tensor.copy_(value)

    places = [tensor.device for tensor in (*module.parameters(), *(tensor for tensor, _ in values))]
    try:
        with seeded(0, next((place for place in places if place.type != "cpu"), "cpu")):
            yield
    except BaseException:
        with suppress(Exception):
            put_back()
        raise
    put_back()


def equal_bits(output: list[torch.Tensor], expected: list[torch.Tensor]) -> bool:
    """Whether both hold the same tensors, bit by bit (NaN equals NaN). Tensors without values (meta) are alike if their shapes are."""
    return len(output) == len(expected) and all(
        kind_of(seen) == kind_of(wanted) and (seen.is_meta or _all_close(_dense(seen), _dense(wanted)))
        for seen, wanted in zip(output, expected, strict=True)
    )


def _difference(output: list[torch.Tensor], expected: list[torch.Tensor]) -> str | None:
    """How `output` differs from `expected` by more than rounding, or None. Raises Failure `unsupported` where torch cannot tell."""
    if len(output) != len(expected):
        return f"{len(output)} tensors instead of {len(expected)}"
    for seen, wanted in zip(output, expected, strict=True):
        if kind_of(seen) != kind_of(wanted):
            return f"{kind_of(seen)} instead of {kind_of(wanted)}"
        try:
            difference = _beyond_rounding(_dense(seen), _dense(wanted))
        except (RuntimeError, TypeError) as error:
            if is_out_of_memory(error):
                raise
            raise Failure("unsupported", f"outputs of this kind cannot be compared: {describe(error)}") from error
        if difference:
            return difference
    return None


def _dense(tensor: torch.Tensor) -> torch.Tensor:
    """The same values as a tensor that can be compared."""
    if tensor.is_quantized:
        return tensor.dequantize()
    if tensor.is_nested:
        return tensor.to_padded_tensor(float("nan"))
    return tensor if tensor.layout is torch.strided else tensor.to_dense()


def _beyond_rounding(seen: torch.Tensor, wanted: torch.Tensor) -> str | None:
    if _all_close(seen, wanted, *_TOLERANCES.get(seen.dtype, ())):
        return None
    if seen.dtype in _TOLERANCES:
        largest = wanted[wanted.isfinite()].abs().max().item() if wanted.isfinite().any() else 0.0
        if _all_close(seen, wanted, absolute=_ROUNDINGS * torch.finfo(seen.dtype).eps * largest):
            return None
    wide = torch.complex128 if wanted.is_complex() else torch.float64
    worst = (seen.to(wide) - wanted.to(wide)).abs().nan_to_num(float("inf")).max()
    return f"by up to {worst.item():.2g} where values reach {wanted.to(wide).abs().max().item():.2g}"


def _all_close(seen: torch.Tensor, wanted: torch.Tensor, relative: float = 0.0, absolute: float = 0.0) -> bool:
    return bool(torch.isclose(seen, wanted, relative, absolute, equal_nan=True).all())


_TOLERANCES = {
    torch.float16: (1e-3, 1e-5),
    torch.bfloat16: (1.6e-2, 1e-5),
    torch.float32: (1.3e-6, 1e-5),
    torch.float64: (1e-7, 1e-7),
    torch.complex64: (1.3e-6, 1e-5),
    torch.complex128: (1e-7, 1e-7),
}
"""Relative and absolute tolerance per dtype, those of torch.testing.assert_close (which takes a second to import)."""

_ROUNDINGS = 6
"""So many roundings of the largest value are allowed to small ones too: in half precision a value near 0 is a difference of large ones.
nn.TransformerEncoder, which runs other kernels untracked, was 1.8 to 2.6 of them off in 2 to 96 layers."""
