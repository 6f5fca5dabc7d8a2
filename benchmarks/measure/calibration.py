"""The memory meters, tried on a call whose every figure is known in advance.

No two figures of that call are the same, so a meter that reads another's (the final level for the peak, views for storages) is found
out. Where a meter is off by more than it may be, its figure is withheld from the whole run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import torch

from analysis.figures import bytes_text
from benchmarks.device import Device
from benchmarks.measure.graph import saved_for_backward
from benchmarks.measure.memory import device_bytes, graph_size, peak_rss_bytes
from benchmarks.measure.profile import profile_call
from benchmarks.modes import Step

MIB = 2**20
BLOCKS_BYTES = (1 * MIB, 16 * MIB, 256 * MIB)
_HELD_SECONDS = 0.03

State = Literal["cold", "warm"]
_STATES: tuple[State, ...] = ("cold", "warm")


@dataclass(frozen=True, slots=True)
class Meter:
    """What a meter should read of a known call, in eighths of its block, and how far off it may be: a fraction of that, and bytes."""

    eighths: int
    fraction: float = 0.0
    bytes: int = 0

    def expected_bytes(self, block_bytes: int) -> int:
        return block_bytes * self.eighths // 8

    def allows(self, error_bytes: int, block_bytes: int) -> bool:
        return abs(error_bytes) <= self.fraction * self.expected_bytes(block_bytes) + self.bytes

    @property
    def tolerance(self) -> str:
        parts = [f"{self.fraction:.0%}"] * bool(self.fraction) + [bytes_text(self.bytes)] * bool(self.bytes)
        return " + ".join(parts) or "exact"


METERS: Mapping[str, Meter] = MappingProxyType(
    {
        "peak_tensor_bytes": Meter(8),
        "held_tensor_bytes": Meter(3),
        "saved_bytes": Meter(1),
        "peak_rss_bytes": Meter(8, 0.02, 256 * 1024),  # whole pages, and what the call runs through for the first time
        "graph_heap_bytes": Meter(
            3, bytes=32 * 1024
        ),  # read with the tensors in it: beside them nodes, and pages around blocks
        "peak_reserved_bytes": Meter(8, bytes=20 * MIB),  # CUDA's caching allocator reserves small blocks 20 MiB at a time
    }
)
"""The figures of record.Memory that are measured with a meter."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One known call as one meter read it, None where it could not. The first call with a meter and block is cold, the second warm."""

    meter: str
    device: str
    block_bytes: int
    state: State
    expected_bytes: int
    measured_bytes: int | None
    error_bytes: int | None
    within_tolerance: bool


def known_step(block_bytes: int, device: str, *, written: bool) -> Step:
    """Its call needs `block_bytes` (a multiple of 128) at its peak; with `written` every page is touched, and kept for 30 ms.

    The output keeps 2/8 of them and the graph 1/8, saved as three views of one quarter of it. Another 1/8 comes and goes first, so
    that all allocations sum to 9/8.
    """
    weight = torch.ones(1, device=device, requires_grad=True)

    def step() -> Any:
        return _Known.apply(weight, block_bytes // 8, written)  # type: ignore[no-untyped-call]

    return step


class _Known(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: torch.Tensor, part_bytes: int, written: bool) -> torch.Tensor:
        make = torch.ones if written else torch.empty

        def tensor(parts: int) -> torch.Tensor:
            return make(parts * part_bytes // 4, dtype=torch.float32, device=weight.device)

        tensor(1)
        saved = tensor(1)
        ctx.save_for_backward(*[saved[: len(saved) // 4]] * 3)
        output = tensor(2)
        passing = tensor(5)
        time.sleep(_HELD_SECONDS if written else 0)
        del passing
        return output


@dataclass(frozen=True, slots=True)
class Instrument:
    """`read` runs a step and returns what its meters found, by their names in METERS. `written`: the step has to touch its pages."""

    read: Callable[[Step], Mapping[str, int | None]]
    written: bool = False


def instruments(device: Device, *, own_process: bool) -> list[Instrument]:
    """Those that `measure_memory` uses there. Resident memory comes first, since what a process has done before matters most to it."""

    def resident(step: Step) -> Mapping[str, int | None]:
        return {"peak_rss_bytes": peak_rss_bytes(step)[0]}

    def heap(step: Step) -> Mapping[str, int | None]:
        return {"graph_heap_bytes": graph_size(step)[1]}

    def tensors(step: Step) -> Mapping[str, int | None]:
        found = device_bytes(step, device)
        if found is None:
            call = profile_call(step)
            return {"peak_tensor_bytes": call.peak_bytes, "held_tensor_bytes": call.held_bytes}
        return dict(zip(("peak_tensor_bytes", "held_tensor_bytes", "peak_reserved_bytes"), found, strict=True))

    def saved(step: Step) -> Mapping[str, int | None]:
        return {"saved_bytes": saved_for_backward(step, []).total_bytes}

    alone = own_process and device.memory() is None
    return [*([Instrument(resident, written=True), Instrument(heap)] if alone else []), Instrument(tensors), Instrument(saved)]


def readings(found: Iterable[Instrument], device: str) -> list[Reading]:
    """Sends each block through every meter of `found`, twice."""
    return [reading for instrument in found for block in BLOCKS_BYTES for reading in _read(instrument, block, device)]


def _read(instrument: Instrument, block_bytes: int, device: str) -> Iterator[Reading]:
    step = known_step(block_bytes, device, written=instrument.written)
    for state in _STATES:
        for name, measured in instrument.read(step).items():
            meter = METERS[name]
            expected = meter.expected_bytes(block_bytes)
            error = None if measured is None else measured - expected
            within = error is not None and meter.allows(error, block_bytes)
            yield Reading(name, device, block_bytes, state, expected, measured, error, within)


def distrusted(found: Iterable[Reading]) -> dict[str, str]:
    """The meters that were off by more than they may be, and in words by how much in the worst of their readings.

    Only warm ones count, for the suite's figures are of warm calls: the first in a process makes 4 MiB of torch's code resident.
    """
    wrong = [one for one in found if one.state == "warm" and not one.within_tolerance]
    worst = {one.meter: one for one in sorted(wrong, key=lambda one: abs(one.error_bytes or 0))}
    return {
        name: f"its meter was off by {bytes_text(one.error_bytes)} on a known call of {bytes_text(one.block_bytes)}"
        f" (tolerance: {METERS[name].tolerance})"
        if one.error_bytes is not None
        else f"its meter read nothing of a known call of {bytes_text(one.block_bytes)}"
        for name, one in worst.items()
    }
