"""Shows that a mode does what it says before it is measured: history, gradient mode, outputs, state."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from benchmarks.failure import Failure, describe, is_out_of_memory
from benchmarks.measure.graph import call_recording_saved, histories
from benchmarks.models.workload import seeded
from benchmarks.modes import Mode, Step
from benchmarks.record import Contract
from benchmarks.models.workload import tensors


@dataclass(frozen=True, slots=True)
class Observation:
    """One call: its output, what hung on it, and what it left behind."""

    output: Any
    histories: list[str]
    saved: int
    left_grad_enabled: bool
    changed_buffers: list[str]


def observe(step: Step, module: nn.Module, inputs: Iterable[torch.Tensor] = ()) -> Observation:
    """Calls `step` once from a known state, which is put back afterwards: buffers, inputs, random generators, gradient mode."""
    with preserved(module, inputs), torch.enable_grad():
        before = {name: buffer.clone() for name, buffer in module.named_buffers()}
        output, saved = call_recording_saved(step)
        left_grad_enabled = torch.is_grad_enabled()
        changed = [name for name, now in module.named_buffers() if name in before and not equal_bits(now, before[name])]
        return Observation(output, histories(output), len(saved), left_grad_enabled, changed)


def untracked(mode: Mode, seen: Observation) -> str | None:
    """What shows that nothing was tracked, against what `mode` promises."""
    if mode.history and not seen.histories:
        return "the output has no history"
    return "nothing was saved for backward" if mode.records and not seen.saved else None


def check_contract(mode: Mode, seen: Observation, reference: Observation | None) -> Contract:
    """Every promise that `seen` breaks. `reference` is a tracked call from the same state, None where tracked cannot be run.

    Outputs may differ by rounding, for a mode can select other kernels; whether they do is `equal_bits`'s to say.
    """
    broken = []
    lacking = untracked(mode, seen)
    if lacking:
        broken.append(f"{lacking}: nothing was tracked (does any parameter require grad?)")
    if mode.history is False and seen.histories:
        broken.append(f"the output has a history ({seen.histories[0]})")
    if mode.records is False and seen.saved:
        broken.append(f"{seen.saved} tensors were saved for backward")
    if not seen.left_grad_enabled:
        broken.append("gradients were left off after the call")
    if reference is not None and mode.same_output:
        difference = _difference(seen.output, reference.output)
        if difference:
            broken.append(f"the output differs from tracked's: {difference}")
    return Contract(holds=not broken, broken=broken, changed_buffers=seen.changed_buffers)


def reference_after(mode: Mode, step: Step, module: nn.Module, inputs: Iterable[torch.Tensor] = ()) -> Observation:
    """A tracked call after the mode's own. Raises Failure `broken_contract` if the mode left something that makes it fail."""
    try:
        return observe(step, module, inputs)
    except Exception as error:
        if is_out_of_memory(error):
            raise
        reason = f"a tracked call after {mode.name} fails: {describe(error)}"
        raise Failure("broken_contract", reason) from error


@contextmanager
def preserved(module: nn.Module, inputs: Iterable[torch.Tensor] = ()) -> Iterator[None]:
    """Random generators start from the same seed inside; afterwards they, the module's buffers and the inputs are as before."""
    buffers = [(owner, name, buffer) for owner in module.modules() for name, buffer in owner.named_buffers(recurse=False)]
    values = [(tensor, tensor.detach().clone()) for tensor in (*(buffer for _, _, buffer in buffers), *inputs)]
    try:
        with seeded(0):
            yield
    finally:
        with torch.no_grad():
            for tensor, value in values:
                if not bool(_same(tensor, value).all()):  # an expanded tensor can be compared, but not written to
                    tensor.copy_(value)
        for owner, name, buffer in buffers:
            setattr(owner, name, buffer)


def equal_bits(output: Any, expected: Any) -> bool:
    """Whether both hold the same tensors, bit by bit (NaN equals NaN)."""
    ours, theirs = list(tensors(output)), list(tensors(expected))
    return len(ours) == len(theirs) and all(
        one.shape == other.shape and one.dtype == other.dtype and bool(_same(one, other).all())
        for one, other in zip(ours, theirs, strict=True)
    )


def _difference(output: Any, expected: Any) -> str | None:
    """How `output` differs from `expected` by more than rounding, or None."""
    ours, theirs = list(tensors(output)), list(tensors(expected))
    if len(ours) != len(theirs):
        return f"{len(ours)} tensors instead of {len(theirs)}"
    for one, other in zip(ours, theirs, strict=True):
        if one.shape != other.shape or one.dtype != other.dtype:
            return f"{one.dtype}{list(one.shape)} instead of {other.dtype}{list(other.shape)}"
        relative, absolute = _TOLERANCES.get(one.dtype, (0.0, 0.0))
        if not bool((_same(one, other) | torch.isclose(one, other, relative, absolute)).all()):
            worst = (one.double() - other.double()).abs().nan_to_num(float("inf")).max()
            return f"by up to {worst.item():.2g} where values reach {other.double().abs().max().item():.2g}"
    return None


def _same(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    return (one == other) | (one.isnan() & other.isnan())


_TOLERANCES = {
    torch.float16: (1e-3, 1e-5),
    torch.bfloat16: (1.6e-2, 1e-5),
    torch.float32: (1.3e-6, 1e-5),
    torch.float64: (1e-7, 1e-7),
    torch.complex64: (1.3e-6, 1e-5),
    torch.complex128: (1e-7, 1e-7),
}
"""Relative and absolute tolerance per dtype, those of torch.testing.assert_close (which takes a second to import)."""
