"""A GPU on paper: an object of the shape of torch.cuda whose work, clock and memory a test sets in numbers."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any

BLOCK_BYTES = 1024
"""Memory is reserved in multiples of this."""


class FakeCuda:
    """Launched work waits in a queue: the host's time meets the device's only where the host synchronises.

    `resting_bytes` are allocated from the start, as a model's weights are. `log` holds the calls in their order.
    """

    def __init__(self, *, available: bool = True, resting_bytes: int = 0) -> None:
        self.available = available
        self.log: list[str] = []
        self.host_seconds = self._idle_from_seconds = 0.0
        self._allocated = self._peak_allocated = self._reserved = self._peak_reserved = 0
        self.allocate(resting_bytes)
        self.Event = partial(FakeEvent, self)

    def clock(self) -> float:
        self.log.append("clock")
        return self.host_seconds

    def launch(self, seconds: float, host_seconds: float = 0.0) -> None:
        """Queues work of so many seconds; the host is busy with it for `host_seconds` only."""
        self.log.append("launch")
        self.host_seconds += host_seconds
        self._idle_from_seconds = self.reached_seconds() + seconds

    def reached_seconds(self) -> float:
        """When the device will have done all that was launched."""
        return max(self._idle_from_seconds, self.host_seconds)

    def allocate(self, size_bytes: int) -> None:
        self._allocated += size_bytes
        self._peak_allocated = max(self._peak_allocated, self._allocated)
        self._reserved = max(self._reserved, -(-self._allocated // BLOCK_BYTES) * BLOCK_BYTES)
        self._peak_reserved = max(self._peak_reserved, self._reserved)

    def free(self, size_bytes: int) -> None:
        self._allocated -= size_bytes

    # From here on: torch.cuda's own names.

    def is_available(self) -> bool:
        return self.available

    def synchronize(self) -> None:
        self.log.append("synchronize")
        self.host_seconds = self.reached_seconds()

    def memory_allocated(self) -> int:
        self.log.append("memory")
        return self._allocated

    def max_memory_allocated(self) -> int:
        return self._peak_allocated

    def memory_reserved(self) -> int:
        return self._reserved

    def max_memory_reserved(self) -> int:
        return self._peak_reserved

    def empty_cache(self) -> None:
        self._reserved = -(-self._allocated // BLOCK_BYTES) * BLOCK_BYTES

    def reset_peak_memory_stats(self) -> None:
        self._peak_allocated, self._peak_reserved = self._allocated, self._reserved

    def current_device(self) -> int:
        return 1

    def get_device_properties(self, device: int) -> Any:
        return SimpleNamespace(name=f"GPU {device}", total_memory=2**37, multi_processor_count=132, major=9, minor=0)


class FakeEvent:
    """A mark in the device's queue. As torch's, it tells times only if asked to, and only once the host has waited for it."""

    def __init__(self, cuda: FakeCuda, *, enable_timing: bool = False) -> None:
        self._cuda, self._timing = cuda, enable_timing
        self.seconds: float | None = None

    def record(self) -> None:
        self._cuda.log.append("record")
        self.seconds = self._cuda.reached_seconds()

    def elapsed_time(self, end: FakeEvent) -> float:
        """Milliseconds, as torch.cuda.Event.elapsed_time returns them."""
        if not (self._timing and end._timing):
            raise ValueError("both events must be made with enable_timing=True")
        if self.seconds is None or end.seconds is None or end.seconds > self._cuda.host_seconds:
            raise RuntimeError("CUDA error: device not ready")
        return (end.seconds - self.seconds) * 1000


@dataclass
class Lane:
    """A step that needs `peak_bytes` in passing and holds `held_bytes` for as long as its output lives."""

    cuda: FakeCuda
    peak_bytes: int
    held_bytes: int

    def __call__(self) -> Held:
        self.cuda.allocate(self.peak_bytes)
        self.cuda.free(self.peak_bytes)
        return Held(self.cuda, self.held_bytes)


class Held:
    """An output on the device: its bytes are given back when it is dropped."""

    def __init__(self, cuda: FakeCuda, size_bytes: int) -> None:
        self._cuda, self._size_bytes = cuda, size_bytes
        cuda.allocate(size_bytes)

    def __del__(self) -> None:
        self._cuda.free(self._size_bytes)


class FakeSystem(SimpleNamespace):
    """An object of the shape of psutil: a machine of 4 cores and 16 GiB at rest, but for what is changed."""

    RLIMIT_AS, RLIM_INFINITY = 9, -1

    def __init__(
        self, load: float = 0.3, plugged: bool | None = True, available: int = 12 * 2**30, swapped: int = 0,
        affinity: tuple[int, ...] = (0, 1, 2, 3), address_space: int = RLIM_INFINITY,
    ) -> None:  # fmt: skip
        super().__init__(
            getloadavg=lambda: (load, 9.0, 9.0),
            cpu_count=lambda logical=True: 8 if logical else 4,
            sensors_battery=lambda: SimpleNamespace(power_plugged=plugged),
            sensors_temperatures=lambda: {"chip": [SimpleNamespace(current=41.0), SimpleNamespace(current=43.5)], "none": []},
            virtual_memory=lambda: SimpleNamespace(available=available, total=16 * 2**30),
            swap_memory=lambda: SimpleNamespace(used=swapped),
            Process=lambda: SimpleNamespace(
                cpu_affinity=lambda: list(affinity),
                rlimit=lambda limit: {self.RLIMIT_AS: (address_space, self.RLIM_INFINITY)}[limit],
            ),
        )


class FakeNvml(SimpleNamespace):
    """An object of the shape of NVML's binding: an idle GPU, but for what is changed. A handle is what it was asked for by."""

    def __init__(
        self,
        pids: tuple[int, ...] = (),
        set_mhz: int = 1785,
        reasons: int = 0x1,
        hot_seconds: float = 0.25,
        unsupported: str = "",
    ) -> None:
        super().__init__(
            NVML_CLOCK_SM="sm", NVML_PERF_POLICY_THERMAL="thermal",
            nvmlClocksThrottleReasonGpuIdle=0x1, nvmlClocksThrottleReasonHwSlowdown=0x8,
            nvmlClocksThrottleReasonSwThermalSlowdown=0x20, nvmlClocksThrottleReasonHwThermalSlowdown=0x40,
            nvmlClocksThrottleReasonHwPowerBrakeSlowdown=0x80,
            nvmlDeviceGetHandleByIndex=lambda index: index,
            nvmlDeviceGetHandleByUUID=lambda uuid: uuid,
            nvmlDeviceGetComputeRunningProcesses=lambda _: [SimpleNamespace(pid=pid) for pid in (*pids, os.getpid())],
            nvmlDeviceGetClockInfo=lambda _, clock: {"sm": 345}[clock],
            nvmlDeviceGetDefaultApplicationsClock=lambda _, clock: {"sm": 1785}[clock],
            nvmlDeviceGetApplicationsClock=lambda _, clock: {"sm": set_mhz}[clock],
            nvmlDeviceGetCurrentClocksThrottleReasons=lambda _: reasons,
            nvmlDeviceGetViolationStatus=lambda _, policy: {"thermal": SimpleNamespace(violationTime=hot_seconds * 1e9)}[policy],
        )  # fmt: skip
        if unsupported:
            delattr(self, unsupported)
