"""What one call needs in memory: tensors to the byte, and what the process really grew by.

Each figure is above the level at the call's start, with the output alive, and none is read while the garbage collector may free cycles.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import linear_regression
from typing import Any

import psutil

from benchmarks import allocator
from benchmarks.device import Device
from benchmarks.measure.profile import Operators, allocations
from benchmarks.measure.saved import CannotRecord, graph_nodes, saved_for_backward
from benchmarks.measure.timing import garbage_collector_off
from benchmarks.models import Workload
from benchmarks.modes import Step
from benchmarks.record import Memory

KIB, MIB = 2**10, 2**20

_CLEAR_REFS, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


@dataclass(frozen=True, slots=True)
class Meter:
    """The instrument of one field of record.Memory, `figure`.

    `eighths` of a known block is what it should read (measure/known_blocks.py), within a fraction of that and some bytes. `beside` are
    the fields that rest on it.
    """

    figure: str
    eighths: int
    fraction: float = 0.0
    bytes: int = 0
    beside: tuple[str, ...] = ()

    def allows(self, error_bytes: int, true_bytes: int) -> bool:
        return abs(error_bytes) <= self.fraction * true_bytes + self.bytes


PEAK_RSS = Meter("peak_rss_bytes", 8, fraction=0.02, bytes=256 * KIB, beside=("kept_rss_bytes",))
"""The kernel counts pages per core and sums them late, and a call runs through some of the program for the first time."""

METERS = {
    meter.figure: meter
    for meter in (
        Meter("peak_tensor_bytes", 8),
        Meter("held_tensor_bytes", 3, beside=("held_bytes_per_step", "heap_bytes_per_step")),
        Meter("saved_bytes", 1, beside=("opaque_saved_bytes", "cast_saved_bytes", "input_saved_bytes", "saved_by_module")),
        PEAK_RSS,
        Meter("peak_reserved_bytes", 8, bytes=20 * MIB),  # CUDA's caching allocator reserves small blocks 20 MiB at a time
    )
}


def measure_memory(
    step: Step, ran: Operators, device: Device, workload: Workload, *, own_process: bool, compiled: bool = False
) -> Memory:
    """All memory figures of `step`, which has been warmed up and is known to have `ran` these operators.

    Resident memory is measured on the CPU, and only where this process was started for this mode (`own_process`) and gives freed pages
    back: elsewhere it is None. Figures that miss what other threads do, or that torch does not let be watched, are withheld, and so are
    tensor bytes where a device tells its allocator's blocks only.
    """
    with garbage_collector_off():
        rss = peak_rss_bytes(step) if own_process and not device.accelerated else None
        on_device = device_bytes(step, device)
        on_cpu = allocations(step)
        peak, held, reserved = on_device or (on_cpu.peak_bytes, on_cpu.held_bytes, None)
        found = Memory(
            peak_tensor_bytes=peak,
            held_tensor_bytes=held,
            peak_rss_bytes=rss,
            peak_reserved_bytes=reserved,
            graph_nodes=graph_nodes(step()),
            **_saved(step, workload, compiled=compiled),
        )
    reasons: dict[str, str] = {}
    statistics, tensor_meters = device.memory(), ("peak_tensor_bytes", "held_tensor_bytes")
    if statistics is not None and statistics.inexact is not None:
        reasons = dict.fromkeys(tensor_meters, statistics.inexact)
    if missed := ran.unseen(on_cpu):
        why = f"the step starts threads that this meter does not see ({', '.join(missed[:3])})"
        reasons |= dict.fromkeys(("saved_bytes",) if on_device else (*tensor_meters, "saved_bytes"), why)
    return withheld(found, reasons)


def _saved(step: Step, workload: Workload, *, compiled: bool) -> dict[str, Any]:
    """The fields that the saved tensors fill."""
    why = "torch.compile chooses what is saved, and under hooks that watch it another step would be compiled"
    if not compiled:
        try:
            return vars(saved_for_backward(step, workload))
        except CannotRecord as error:
            why = f"torch does not let it be watched: {error}"
    return {"unavailable": {"saved_bytes": why}}


def withheld(memory: Memory, reasons: Mapping[str, str]) -> Memory:
    """`memory` without the figures of METERS that `reasons` name, nor what rests on them; a figure that was not there needs no reason."""
    missed = {figure: reason for figure, reason in reasons.items() if getattr(memory, figure) is not None}
    nothing = Memory()
    without = {name: getattr(nothing, name) for figure in missed for name in (figure, *METERS[figure].beside)}
    return replace(memory, **without, unavailable=memory.unavailable | missed)


def with_growth(memory: Memory, loop: Callable[[int], Step], device: Device) -> Memory:
    """`memory` with what the output of `loop(steps)` holds more for each further step: the slope of a least-squares line over 1, 2 and 4 steps.

    The heap's own growth is what it grows by beside tensors; None where psutil cannot ask the allocator, and on devices.
    """
    if memory.held_tensor_bytes is None:
        return memory
    steps, held, heap = (1, 2, 4), [], []
    with garbage_collector_off():
        for number in steps:
            step = loop(number)
            step()
            on_device = device_bytes(step, device)
            held.append(on_device[1] if on_device else allocations(step).held_bytes)
            if not on_device and hasattr(psutil, "heap_info") and allocator.preloaded() is None:
                heap.append(heap_bytes(step) - held[-1])
    return replace(
        memory,
        held_bytes_per_step=round(linear_regression(steps, held).slope),
        heap_bytes_per_step=round(linear_regression(steps, heap).slope) if heap else None,
    )


def heap_bytes(step: Step) -> int:
    """What the heap, tensors included, has grown by with the output of one call alive."""
    before = psutil.heap_info()
    output = step()
    after = psutil.heap_info()
    del output
    return int(after.heap_used + after.mmap_used - before.heap_used - before.mmap_used)


def device_bytes(step: Step, device: Device) -> tuple[int, int, int] | None:
    """Peak and held tensor bytes and peak reserved bytes, from the device's allocator; None where it keeps no statistics."""
    device.start_memory()
    before = device.memory()
    if before is None:
        return None
    output = step()
    after = device.memory()
    assert after is not None
    del output
    return (
        after.peak_requested - before.requested,
        after.requested - before.requested,
        after.peak_reserved - before.reserved,
    )


def peak_rss_bytes(step: Step) -> int | None:
    """How far the process's resident memory rose during one call, by the kernel's own high-water mark.

    None where that cannot be reset (Linux can, by /proc/self/clear_refs), and where it rose by no more than the meter may be off.
    """
    return _rise(step, _high_water_bytes)


def kept_rss_bytes(step: Step) -> int | None:
    """How much more is resident after one call whose output is gone, by the same mark, which begins at what is resident; None as above."""

    def call() -> None:
        step()

    return _rise(call, _resident_bytes)


def _rise(step: Step, level: Callable[[], int]) -> int | None:
    """How far `level` lies above what was resident before the call, its output alive; no free pages are left over from earlier."""
    allocator.release_free_pages()
    try:
        before = _resident_bytes()
    except OSError:
        return None
    output = step()
    rise = level() - before
    del output
    return None if PEAK_RSS.allows(rise, rise) else rise


def _resident_bytes() -> int:
    """By the counter that tells the peak, made to begin anew here: the kernel's others differ from it by 0.2 MiB."""
    _CLEAR_REFS.write_text("5")
    return _high_water_bytes()


def _high_water_bytes() -> int:
    for line in _STATUS.read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * KIB
    raise OSError(f"{_STATUS} has no VmHWM")
