"""What one call needs in memory: tensors to the byte, and what the process really grew by.

Each figure is above the level at the call's start, with the output alive.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import linear_regression
from types import MappingProxyType
from typing import Any

import psutil

from benchmarks import allocator
from benchmarks.device import Device
from benchmarks.measure.graph import graph_nodes, saved_for_backward
from benchmarks.measure.profile import CallProfile, profile_call
from benchmarks.models import Workload
from benchmarks.modes import Step
from benchmarks.record import Memory

_CLEAR_REFS, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")
_RESET_PEAK = "5"
_SAMPLE_SECONDS = 0.001
_FEWEST_SAMPLES = 10

_RESTS_ON: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "held_tensor_bytes": {"graph_heap_bytes": None},
        "peak_rss_bytes": {"rss_method": None},
        "saved_bytes": {"opaque_saved_bytes": None, "cast_saved_bytes": None, "saved_by_module": [], "saved_by_operator": []},
    }
)


def measure_memory(
    step: Step,
    profiled: CallProfile,
    device: Device,
    workload: Workload,
    *,
    expected_saved_bytes: int | None,
    own_process: bool,
) -> Memory:
    """All memory figures of `step`, which has been warmed up.

    On a CPU the tensor bytes are those of `profiled`. Resident memory and the heap are measured on the CPU only, and only where this
    process was started for this lane (`own_process`) and gives freed pages back: elsewhere they are None. Figures that miss what
    other threads did are withheld.
    """
    alone = own_process and device.memory() is None
    rss, method = peak_rss_bytes(step) if alone else (None, None)
    on_device = device_bytes(step, device)
    peak, held, reserved = on_device or (profiled.peak_bytes, profiled.held_bytes, None)
    nodes, heap = graph_size(step)
    saved = saved_for_backward(step, workload.constants(), workload.module)
    found = Memory(
        peak_tensor_bytes=peak,
        held_tensor_bytes=held,
        saved_bytes=saved.total_bytes,
        peak_rss_bytes=rss,
        peak_reserved_bytes=reserved,
        rss_method=method,
        expected_saved_bytes=expected_saved_bytes,
        opaque_saved_bytes=saved.opaque_bytes,
        cast_saved_bytes=saved.cast_bytes,
        graph_nodes=nodes,
        graph_heap_bytes=heap - held if alone and heap is not None else None,
        saved_by_module=saved.by_module,
        saved_by_operator=saved.by_operator,
    )
    if not profiled.unseen:
        return found
    blind = ("saved_bytes",) if on_device else ("peak_tensor_bytes", "held_tensor_bytes", "saved_bytes")
    operators = ", ".join(sorted(profiled.unseen)[:3])
    return withheld(found, dict.fromkeys(blind, f"the step starts threads that this meter does not see ({operators})"))


def withheld(memory: Memory, reasons: Mapping[str, str]) -> Memory:
    """`memory` without the figures that `reasons` name, nor what rests on them; a figure that was not there needs no reason."""
    missed = {name: why for name, why in reasons.items() if getattr(memory, name) is not None}
    without = {key: value for name in missed for key, value in {name: None, **_RESTS_ON.get(name, {})}.items()}
    return replace(memory, **without, unavailable=memory.unavailable | missed)


def with_growth(memory: Memory, loop: Callable[[int], Step], device: Device) -> Memory:
    """`memory` with what the output of `loop(steps)` holds more for each further step: the slope of a least-squares line over 1, 2 and 4 steps."""
    steps, held, heap = (1, 2, 4), [], []
    for number in steps:
        step = loop(number)
        step()
        on_device = device_bytes(step, device)
        tensors = on_device[1] if on_device else profile_call(step).held_bytes
        grown = graph_size(step)[1]
        held.append(tensors)
        heap.append(None if grown is None or on_device else grown - tensors)
    whole = [size for size in heap if size is not None] if memory.graph_heap_bytes is not None else []
    return replace(
        memory,
        held_bytes_per_step=None if memory.held_tensor_bytes is None else _slope(steps, held),
        heap_bytes_per_step=_slope(steps, whole) if whole else None,
    )


def _slope(steps: Sequence[int], sizes: Sequence[int]) -> int:
    return round(linear_regression(steps, sizes).slope)


def graph_size(step: Step) -> tuple[int, int | None]:
    """The autograd nodes that hang on the output of one call, and the bytes that the heap (tensors included) grew by with it alive.

    The second is None where psutil cannot ask the allocator.
    """
    before = _heap_bytes()
    output = step()
    after = _heap_bytes()
    return graph_nodes(output), None if before is None or after is None else after - before


def _heap_bytes() -> int | None:
    if not hasattr(psutil, "heap_info"):
        return None
    heap = psutil.heap_info()
    return int(heap.heap_used + heap.mmap_used)


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
        after.peak_allocated - before.allocated,
        after.allocated - before.allocated,
        after.peak_reserved - before.reserved,
    )


def peak_rss_bytes(step: Step) -> tuple[int | None, str]:
    """How far the process's resident memory rose during one call, and by which method that was found.

    The kernel's own high-water mark where it can be reset (Linux, /proc/self/clear_refs), else a sampler: None if the call was too
    short for it. The method names the allocator where it is not glibc's: that one may keep pages, and then less is found.
    """
    other = allocator.preloaded()
    beside = f", {other} preloaded" if other else ""
    allocator.release_free_pages()
    try:
        _CLEAR_REFS.write_text(_RESET_PEAK)
        before = _high_water_bytes()  # the same counter as at the end: the kernel's others differ from it by 0.2 MiB
    except OSError:
        process = psutil.Process()
        return sampled_rss_bytes(step, lambda: process.memory_info().rss), f"sampler{beside}"
    output = step()
    peak = _high_water_bytes()
    del output
    return max(0, peak - before), f"kernel{beside}"


def sampled_rss_bytes(step: Step, rss: Callable[[], int], sample_seconds: float = _SAMPLE_SECONDS) -> int | None:
    """The same by calling `rss` from a thread, every millisecond; None if it was called fewer than ten times."""
    samples: list[int] = []
    done = threading.Event()

    def sample() -> None:
        while not done.is_set():
            samples.append(rss())
            time.sleep(sample_seconds)

    sampler = threading.Thread(target=sample, daemon=True)
    before = rss()
    sampler.start()
    try:
        output = step()
    finally:
        done.set()
        sampler.join()
    del output
    return max(0, max(samples) - before) if len(samples) >= _FEWEST_SAMPLES else None


def _high_water_bytes() -> int:
    for line in _STATUS.read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"{_STATUS} has no VmHWM")
