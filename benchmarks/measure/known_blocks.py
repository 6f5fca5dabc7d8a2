"""The memory meters, tried on calls whose every figure is known in advance.

No two figures of a known call are the same, so a meter that reads another's (the final level for the peak, views for storages) is found
out. Where a meter is off by more than it may be, its figure is withheld from the whole run.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from benchmarks import allocator
from benchmarks.device import device_named
from benchmarks.measure.alternating import settings
from benchmarks.measure.memory import METERS, MIB, measure_memory
from benchmarks.measure.profile import operators
from benchmarks.models import Workload

BLOCKS_BYTES = (1 * MIB, 11 * MIB + 32, 16 * MIB, 256 * MIB)
"""The second is no multiple of anything that an allocator rounds to."""


def try_meters(device_name: str, threads: int, own_process: bool) -> dict[str, str]:
    """The meters of a device that are off by more than they may be, and in words by how much in the worst of their readings.

    That of resident memory is tried in a process of its own only.
    """
    if own_process and device_name == "cpu":
        allocator.return_pages()
    device = device_named(device_name)
    here = {"peak_rss_bytes": own_process and not device.accelerated, "peak_reserved_bytes": device.accelerated}
    meters = [meter for figure, meter in METERS.items() if here.get(figure, True)]
    wrong: list[tuple[int, str, str]] = []
    with settings(threads):
        for block in (KnownBlock(size_bytes, device_name) for size_bytes in BLOCKS_BYTES):
            block()  # the first call in a process makes 4 MiB of torch's code resident
            memory = measure_memory(block, operators(block), device, Workload(block, (), {}), own_process=own_process)
            for meter in meters:
                known, read = meter.eighths * block.eighth_bytes, getattr(memory, meter.figure)
                if read is None or not meter.allows(read - known, known):
                    said = "nothing" if read is None else f"{read:,} B"
                    wrong.append((abs((read or 0) - known), meter.figure, f"its meter read {said} of a known {known:,} B"))
    return {figure: reason for _, figure, reason in sorted(wrong)}


class KnownBlock(nn.Module):
    """A model whose call needs `size_bytes` (a multiple of 32) at its peak, every page of them written.

    Its output keeps 2/8 and its graph 1/8, saved as three views of one quarter of it. Another 1/8 comes and goes first, so that all
    allocations sum to 9/8.
    """

    def __init__(self, size_bytes: int, device: str) -> None:
        super().__init__()
        self.eighth_bytes = size_bytes // 8
        self.weight = nn.Parameter(torch.ones(1, device=device))

    def forward(self) -> Any:
        return _Known.apply(self.weight, self.eighth_bytes // self.weight.element_size())  # type: ignore[no-untyped-call]


class _Known(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: torch.Tensor, eighth: int) -> torch.Tensor:
        def ones(eighths: int) -> torch.Tensor:
            return torch.ones(eighths * eighth, device=weight.device)

        ones(1)
        saved = ones(1)
        ctx.save_for_backward(*[saved[: eighth // 4]] * 3)
        result = ones(2)
        ones(5)
        return result
