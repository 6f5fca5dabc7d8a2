"""The CPU and CUDA behind one small interface: waiting for the work, events, memory, and what the device is."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import psutil
import torch

from benchmarks import allocator
DEFAULT, RESIDENT = "as_shipped", "pages_kept"

ALLOCATORS = (RESIDENT, DEFAULT)


@dataclass(frozen=True, slots=True)
class DeviceBytes:
    """What a device's caching allocator reports: bytes in tensors and bytes reserved, now and at their highest."""

    allocated: int
    peak_allocated: int
    reserved: int
    peak_reserved: int


class Device(Protocol):
    """What the instruments need of a device."""

    name: str

    def unavailable(self) -> str | None:
        """Why it cannot be used here, or None where it can."""

    def synchronise(self) -> None:
        """Returns when the work that was sent to the device is done."""

    def mark(self) -> Any:
        """An event in the device's own time, or None where it has none."""

    def seconds_between(self, start: Any, end: Any) -> float | None:
        """The device's own time between two marks, once it is synchronised; None where it has none."""

    def start_memory(self) -> None:
        """Lets go of cached memory and makes the peaks start from the present level."""

    def memory(self) -> DeviceBytes | None:
        """The allocator's statistics, or None where it keeps none."""

    def facts(self) -> dict[str, Any]:
        """What identifies the device, for `machine_info`."""


class Cpu:
    """The CPU: synchronous, without events, without an allocator that keeps statistics."""

    name = "cpu"

    def unavailable(self) -> str | None:
        return None

    def synchronise(self) -> None:
        pass

    def mark(self) -> None:
        return None

    def seconds_between(self, start: None, end: None) -> float | None:  # noqa: ARG002 - the interface's
        return None

    def start_memory(self) -> None:
        pass

    def memory(self) -> DeviceBytes | None:
        return None

    def facts(self) -> dict[str, Any]:
        return {"cores": psutil.cpu_count(logical=False), "threads_of_all_cores": psutil.cpu_count()}


class Cuda:
    """The current CUDA device. `cuda` is `torch.cuda`, or a stand-in of the same shape in a test."""

    name = "cuda"

    def __init__(self, cuda: Any = torch.cuda) -> None:
        self._cuda = cuda

    def unavailable(self) -> str | None:
        if self._cuda.is_available():
            return None
        built = "without CUDA" if torch.version.cuda is None else "with CUDA, but no GPU answers"
        return f"this torch ({torch.__version__}) is built {built}"

    def synchronise(self) -> None:
        self._cuda.synchronize()

    def mark(self) -> Any:
        event = self._cuda.Event(enable_timing=True)
        event.record()
        return event

    def seconds_between(self, start: Any, end: Any) -> float | None:
        milliseconds: float = start.elapsed_time(end)
        return milliseconds / 1000

    def start_memory(self) -> None:
        self._cuda.synchronize()
        self._cuda.empty_cache()
        self._cuda.reset_peak_memory_stats()

    def memory(self) -> DeviceBytes | None:
        self._cuda.synchronize()
        return DeviceBytes(
            allocated=self._cuda.memory_allocated(),
            peak_allocated=self._cuda.max_memory_allocated(),
            reserved=self._cuda.memory_reserved(),
            peak_reserved=self._cuda.max_memory_reserved(),
        )

    def facts(self) -> dict[str, Any]:
        properties = self._cuda.get_device_properties(self._cuda.current_device())
        return {
            "name": properties.name,
            "driver": _nvidia_driver(),
            "memory_bytes": properties.total_memory,
            "multiprocessors": properties.multi_processor_count,
            "capability": f"{properties.major}.{properties.minor}",
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
            "tf32": {"matmul": torch.backends.cuda.matmul.allow_tf32, "cudnn": torch.backends.cudnn.allow_tf32},
        }


def _nvidia_driver() -> str | None:
    with suppress(OSError):
        return Path("/proc/driver/nvidia/version").read_text().splitlines()[0]
    return None


DEVICES: Mapping[str, Callable[[], Device]] = MappingProxyType({"cpu": Cpu, "cuda": Cuda})


def default_device() -> str:
    """The accelerator if there is one, else `cpu`."""
    return "cuda" if Cuda().unavailable() is None else "cpu"


def machine_facts(devices: Iterable[str]) -> dict[str, Any]:
    """What identifies the machine and the build, the same in every run on it. Bytes and counts; nothing that varies."""
    return {
        "torch": torch.__version__,
        "torch_commit": torch.version.git_version,
        "torch_parallel": [line.strip() for line in torch.__config__.parallel_info().splitlines() if "backend" in line],
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "libc": " ".join(platform.libc_ver()),
        "allocator_environment": allocator.environment(),
        "affinity": sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "devices": {name: DEVICES[name]().facts() for name in devices},
    }


def device_named(name: str) -> Device:
    return DEVICES[name]()
