"""The CPU and CUDA behind one small interface: waiting for the work, events, memory, and what the device is.

ROCm builds of torch answer as `cuda` too. A new device is a class here and a line in `device_named`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import psutil
import torch

CYCLES_PER_SECOND = 2e9
"""Of torch.cuda._sleep: no GPU runs much faster, so that what is asked for is the least that one gets."""


class DeviceError(ValueError):
    """A device that cannot be measured, and what to do."""


@dataclass(frozen=True, slots=True)
class DeviceBytes:
    """What a device's caching allocator reports, now and at its highest: bytes that tensors asked for, and bytes reserved."""

    requested: int
    peak_requested: int
    reserved: int
    peak_reserved: int
    inexact: str | None = None
    """Why the former are sizes of the allocator's blocks; None where they are what was asked for."""


class Device:
    """What the instruments need of a device; by itself, one that does its work at once and keeps no statistics, as a CPU does."""

    accelerated = False
    """Whether work is queued for it and done while the host goes on."""
    min_block_seconds = 200e-6
    """So long that reading the clock, and on an accelerator waiting, does not show."""

    def unavailable(self) -> str | None:
        """Why it cannot be used here and what to do, or None where it can."""
        return None

    def synchronise(self) -> None:
        """Returns when the work that was sent to the device is done."""

    def work_seconds(self, run: Callable[[], None], hold_seconds: float) -> float | None:  # noqa: ARG002 - an accelerator's
        """How long the device works on what `run` sends, which waits in its queue meanwhile: it is held busy for so long at least.

        None where it came to the work before all of it was sent, and where there is no such clock.
        """
        return None

    def start_memory(self) -> None:
        """Lets go of cached memory and makes the peaks start from the present level."""

    def memory(self) -> DeviceBytes | None:
        """The allocator's statistics, or None where it keeps none."""
        return None

    def driver_allocations(self) -> int:
        """How often so far its allocator asked the driver for memory, gave some back, or tried again: that makes a call wait."""
        return 0

    def facts(self) -> dict[str, Any]:
        """What identifies the device, for `machine_info`; None for what it does not tell."""
        return {}


class Cpu(Device):
    def facts(self) -> dict[str, Any]:
        return {"cores": psutil.cpu_count(logical=False), "threads_of_all_cores": psutil.cpu_count()}


class Cuda(Device):
    """A CUDA device by its index. `cuda` is `torch.cuda`, or a stand-in of the same shape in a test."""

    accelerated = True
    min_block_seconds = 5e-3

    def __init__(self, name: str = "cuda", cuda: Any = torch.cuda) -> None:
        self._name, self._cuda = name, cuda
        self._index = int(name.partition(":")[2] or 0)

    @cached_property
    def _marks(self) -> tuple[Any, Any]:
        """Two marks in the device's queue. Made once: making an event costs microseconds."""
        return self._cuda.Event(enable_timing=True), self._cuda.Event(enable_timing=True)

    def unavailable(self) -> str | None:
        count = self._cuda.device_count() if self._cuda.is_available() else 0
        if self._index < count:
            return None
        if count:
            return f"there is no {self._name}: there are {count} GPUs, counted from 0 (CUDA_VISIBLE_DEVICES hides the others)"
        kind, version = ("ROCm", torch.version.hip) if torch.version.hip else ("CUDA", torch.version.cuda)
        if version:
            return f"this torch ({torch.__version__}) is built with {kind} {version}, but no GPU answers; see what its driver's tools say"
        return f"this torch ({torch.__version__}) is built without CUDA and ROCm; install one that has them, or measure the cpu"

    def synchronise(self) -> None:
        self._cuda.synchronize(self._index)

    def work_seconds(self, run: Callable[[], None], hold_seconds: float) -> float | None:
        start, end = self._marks
        stream = self._cuda.current_stream(self._index)
        self.synchronise()
        with self._cuda.device(self._index):
            self._cuda._sleep(int(hold_seconds * CYCLES_PER_SECOND))
        start.record(stream)
        run()
        end.record(stream)
        began = start.query()
        self.synchronise()
        milliseconds: float = start.elapsed_time(end)
        return None if began else milliseconds / 1000

    def start_memory(self) -> None:
        self.synchronise()
        self._cuda.empty_cache()
        self._cuda.reset_peak_memory_stats(self._index)

    def memory(self) -> DeviceBytes | None:
        self.synchronise()
        statistics = self._cuda.memory_stats(self._index)

        def now_and_peak(kind: str) -> tuple[int, int]:
            return statistics.get(f"{kind}_bytes.all.current", 0), statistics.get(f"{kind}_bytes.all.peak", 0)

        requested, reserved = now_and_peak("requested"), now_and_peak("reserved")
        if requested[1] or not now_and_peak("allocated")[1]:
            return DeviceBytes(*requested, *reserved)
        reason = "this allocator tells the sizes of its blocks alone, up to 1 MiB a tensor more than was asked for"
        return DeviceBytes(*now_and_peak("allocated"), *reserved, inexact=reason)

    def driver_allocations(self) -> int:
        statistics = self._cuda.memory_stats(self._index)
        return sum(statistics.get(f"num_{event}", 0) for event in ("device_alloc", "device_free", "alloc_retries"))

    def facts(self) -> dict[str, Any]:
        backends: Any = torch.backends

        def properties() -> Any:
            return self._cuda.get_device_properties(self._index)

        return _told({
            "name": lambda: properties().name,
            "driver": lambda: Path("/proc/driver/nvidia/version").read_text().splitlines()[0],
            "memory_bytes": lambda: properties().total_memory,
            "multiprocessors": lambda: properties().multi_processor_count,
            "capability": lambda: f"{properties().major}.{properties().minor}",
            "cuda": lambda: torch.version.cuda,
            "rocm": lambda: torch.version.hip,
            "cudnn": backends.cudnn.version,
            "float32_matmul": lambda: backends.cuda.matmul.fp32_precision,
            "float32_convolution": lambda: backends.cudnn.conv.fp32_precision,
            "float32_recurrent": lambda: backends.cudnn.rnn.fp32_precision,
        })  # fmt: skip


def _told(facts: Mapping[str, Callable[[], Any]]) -> dict[str, Any]:
    """Each fact by itself, None where it is not told: a card or a torch that lacks one must not cost a run its others."""
    told = dict.fromkeys(facts)
    for name, fact in facts.items():
        with suppress(RuntimeError, OSError, AttributeError, LookupError, AssertionError):
            told[name] = fact()
    return told


def device_named(name: str) -> Device:
    """`cpu`, `cuda` (the first GPU) or `cuda:N`. Raises DeviceError for another."""
    if name == "cpu":
        return Cpu()
    if re.fullmatch(r"cuda(:\d+)?", name):
        return Cuda(name)
    if name.partition(":")[0] in ("hip", "rocm"):
        raise DeviceError(f"{name}: torch calls AMD's GPUs cuda; ask for cuda or cuda:N")
    raise DeviceError(f"{name}: there is no clock and no meter for it here; ask for cpu, cuda or cuda:N")


def accelerated(name: str) -> bool:
    return device_named(name).accelerated


def default_device() -> str:
    """The GPU if there is one that can be measured, else `cpu`."""
    return "cuda" if Cuda().unavailable() is None else "cpu"
