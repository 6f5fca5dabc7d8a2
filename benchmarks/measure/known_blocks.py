"""The memory meters, tried on calls whose every figure is known in advance.

No two figures of a known call are the same, so a meter that reads another's (the final level for the peak, views for storages) is found
out. Where a meter is off by more than it may be, its figure is withheld from the whole run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from benchmarks import allocator
from benchmarks.device import Device, device_named
from benchmarks.measure.alternating import settings
from benchmarks.measure.memory import METERS, MIB, measure_memory
from benchmarks.measure.profile import operators
from benchmarks.models import Workload

BLOCKS_BYTES = (1 * MIB, 11 * MIB + 36, 16 * MIB, 256 * MIB)
"""The second is no multiple of anything that an allocator rounds to."""

_VALUE_BYTES = 4


@dataclass(frozen=True, slots=True)
class Reading:
    """One known call as one meter read it, None where it read nothing."""

    meter: str
    device: str
    block_bytes: int
    expected_bytes: int
    measured_bytes: int | None
    within_tolerance: bool


def try_meters(device_name: str, threads: int, own_process: bool) -> list[Reading]:
    """Tries the memory meters in use on a device; in a process of its own that of resident memory too."""
    if own_process and device_name == "cpu":
        allocator.return_pages()
    with settings(threads):
        return readings(device_named(device_name), device_name, own_process=own_process)


def readings(device: Device, place: str, *, own_process: bool) -> list[Reading]:
    """Every block, on the torch device `place`, as every meter of `device` reads it."""
    absent = {"peak_rss_bytes"} if device.memory() is not None or not own_process else set()
    absent |= {"peak_reserved_bytes"} if device.memory() is None else set()
    return [
        reading
        for block_bytes in BLOCKS_BYTES
        for reading in _read(KnownBlock(block_bytes, place), device, own_process=own_process)
        if reading.meter not in absent
    ]


def distrusted(found: Iterable[Reading]) -> dict[str, str]:
    """The meters that were off by more than they may be, and in words by how much in the worst of their readings."""
    wrong = [reading for reading in found if not reading.within_tolerance]
    wrong.sort(key=lambda reading: abs((reading.measured_bytes or 0) - reading.expected_bytes))
    return {
        reading.meter: f"its meter read {_text(reading.measured_bytes)} of a known {reading.expected_bytes:,} B"
        for reading in wrong
    }


class KnownBlock(nn.Module):
    """A model whose call needs `size_bytes` (a multiple of 4) at its peak, every page of them written.

    Its output keeps 2/8 and its graph 1/8, saved as three views of one quarter of it. Another 1/8 comes and goes first, so that all
    allocations sum to 9/8. Eighths are rounded down to whole values.
    """

    def __init__(self, size_bytes: int, device: str) -> None:
        super().__init__()
        self.size_bytes = size_bytes
        self.weight = nn.Parameter(torch.ones(1, device=device))

    def eighths_bytes(self, number: int) -> int:
        return self.size_bytes if number == 8 else self.size_bytes // (8 * _VALUE_BYTES) * _VALUE_BYTES * number

    def forward(self) -> Any:
        sizes = [self.eighths_bytes(number) // _VALUE_BYTES for number in (1, 2, 3, 8)]
        return _Known.apply(self.weight, *sizes)  # type: ignore[no-untyped-call]


class _Known(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: torch.Tensor, part: int, output: int, held: int, whole: int) -> torch.Tensor:
        torch.ones(part, device=weight.device)
        saved = torch.ones(part, device=weight.device)
        ctx.save_for_backward(*[saved[: part // 4]] * 3)
        result = torch.ones(output, device=weight.device)
        torch.ones(whole - held, device=weight.device)
        return result


def _read(block: KnownBlock, device: Device, *, own_process: bool) -> Iterator[Reading]:
    block()  # the first call in a process makes 4 MiB of torch's code resident
    memory = measure_memory(block, operators(block), device, Workload(block, (), {}), own_process=own_process)
    for meter in METERS.values():
        expected, measured = block.eighths_bytes(meter.eighths), getattr(memory, meter.figure)
        within = measured is not None and meter.allows(measured - expected, expected)
        yield Reading(meter.figure, str(block.weight.device), block.size_bytes, expected, measured, within)


def _text(size_bytes: int | None) -> str:
    return "nothing" if size_bytes is None else f"{size_bytes:,} B"
