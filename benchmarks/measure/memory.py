"""What one call needs in memory: tensors to the byte, and what the process really grew by.

Each figure is above the level at the call's start, with the output alive.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from benchmarks.device import Device
from benchmarks.measure.graph import graph_nodes, saved_for_backward
from benchmarks.measure.profile import CallProfile
from benchmarks.models import Workload
from benchmarks.modes import Step
from benchmarks.record import Memory

_CLEAR_REFS, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")
_RESET_PEAK = "5"
_SAMPLE_SECONDS = 0.001
_FEWEST_SAMPLES = 10


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
    process was started for this lane (`own_process`) and gives freed pages back: elsewhere they are None.
    """
    alone = own_process and device.memory() is None
    rss, method = peak_rss_bytes(step) if alone else (None, None)
    peak, held, reserved = device_bytes(step, device) or (profiled.peak_bytes, profiled.held_bytes, None)
    nodes, heap = graph_size(step)
    saved = saved_for_backward(step, workload.constants(), workload.module)
    return Memory(
        peak_tensor_bytes=peak,
        held_tensor_bytes=held,
        saved_bytes=saved.total_bytes,
        peak_rss_bytes=rss,
        peak_reserved_bytes=reserved,
        rss_method=method,
        expected_saved_bytes=expected_saved_bytes,
        opaque_saved_bytes=saved.opaque_bytes,
        graph_nodes=nodes,
        graph_heap_bytes=heap - held if alone and heap is not None else None,
        saved_by_module=saved.by_module,
        saved_by_operator=saved.by_operator,
    )


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
    short for it.
    """
    process = psutil.Process()
    try:
        before = process.memory_info().rss
        _CLEAR_REFS.write_text(_RESET_PEAK)
    except OSError:
        return sampled_rss_bytes(step, lambda: process.memory_info().rss), "sampler"
    output = step()
    peak = _high_water_bytes()
    del output
    return max(0, peak - before), "kernel"


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
