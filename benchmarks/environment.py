"""What the machine is, what on it harms a measurement, and what happened while a run went on.

A sensor returns facts and, where they do harm, a finding. It raises one of _UNTOLD where there is nothing that tells it.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch

from benchmarks.device import device_named

GIB = 2**30

try:
    import pynvml  # optional, and only for GPUs
except ImportError:
    pynvml = None

_UNTOLD: tuple[type[Exception], ...] = (OSError, LookupError, ValueError, AttributeError)
if pynvml is not None:
    _UNTOLD = (*_UNTOLD, pynvml.NVMLError)
"""What a sensor raises where the machine does not have what it asks for. Any other error is a mistake of ours and is raised."""

_SETTINGS = (
    "LD_PRELOAD", "GLIBC_TUNABLES", "PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_NO_CUDA_MEMORY_CACHING",
    "CUDA_LAUNCH_BLOCKING", "CUDA_VISIBLE_DEVICES", "CUDA_MODULE_LOADING", "CUDA_DEVICE_MAX_CONNECTIONS", "CUBLAS_WORKSPACE_CONFIG",
    "CUBLASLT_WORKSPACE_SIZE", "NVIDIA_TF32_OVERRIDE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "TORCH_CUDNN_V8_API_DISABLED",
)  # fmt: skip
"""Environment variables that change how memory is allocated, beside MALLOC_*, or what a GPU is asked to do."""

Finding = str
"""Something that harms a measurement, a colon, and what to do about it."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a run of so many threads looks: a file system, psutil, and where a GPU is measured NVML's binding with a handle."""

    threads: int
    root: Path = Path("/")
    system: Any = psutil
    nvml: Any = None
    gpu: Any = None

    @classmethod
    def of(cls, threads: int, devices: Iterable[str]) -> Place:
        """This machine. NVML is started for the first GPU among `devices`; it makes no CUDA context and ends with the process."""
        gpus = [name for name in devices if name.startswith("cuda")]
        if gpus and pynvml is not None:
            with suppress(*_UNTOLD):
                pynvml.nvmlInit()
                return cls(threads, nvml=pynvml, gpu=_gpu_handle(pynvml, int(gpus[0].partition(":")[2] or 0)))
        return cls(threads)

    @property
    def cores(self) -> int:
        return self.system.cpu_count(logical=False) or self.system.cpu_count() or 1


def _gpu_handle(nvml: Any, index: int) -> Any:
    """Of the GPU that CUDA counts as `index`. NVML counts in bus order, CUDA may not where GPUs differ."""
    visible = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    name = visible[index] if index < len(visible) and visible[index] else str(index)
    if name.startswith(("GPU-", "MIG-")):
        return nvml.nvmlDeviceGetHandleByUUID(name)
    return nvml.nvmlDeviceGetHandleByIndex(int(name))


def machine_facts(devices: Iterable[str]) -> dict[str, Any]:
    """What identifies the machine and the build, the same in every run on it. Opens the devices: ask for it in a worker."""
    return {
        "torch": str(torch.__version__),  # which is a class of torch's own
        "torch_parallel": [line.strip() for line in torch.__config__.parallel_info().splitlines() if "backend" in line],
        "microcode": _microcode(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "libc": " ".join(platform.libc_ver()),
        "environment": {
            name: value for name, value in sorted(os.environ.items()) if name in _SETTINGS or name.startswith("MALLOC_")
        },
        "affinity": sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "devices": {name: device_named(name).facts() for name in devices},
    }


def _microcode() -> str | None:
    """None where the processor does not tell it (all but x86), or the system does not."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("microcode"):
                return line.partition(":")[2].strip()
    return None


def steady(machine_info: Mapping[str, Any]) -> dict[str, Any]:
    """pytest-benchmark's facts of a machine, without the clock rate, which changes from second to second."""
    cpu = {name: value for name, value in machine_info["cpu"].items() if not name.startswith("hz_actual")}
    return {**machine_info, "cpu": cpu}


class Conditions:
    """The conditions of a run in `place`, which begins now. `before` are the findings to tell before it."""

    def __init__(self, place: Place, clock: Callable[[], float] = time.monotonic) -> None:
        self._place, self._clock, self._started = place, clock, clock()
        self._facts, self.before = _read(place, BEFORE)
        self._throttled_seconds = _throttled_seconds(place)

    def end(self) -> tuple[dict[str, Any], list[Finding]]:
        """Ends the run: what to save of it, `warnings` (all findings) included, and the findings to tell after it."""
        facts, findings = _read(self._place, AFTER)
        wall_seconds = self._clock() - self._started
        throttled_seconds = _throttled_seconds(self._place)
        if throttled_seconds is not None and self._throttled_seconds is not None:
            seconds = facts["throttled_seconds"] = throttled_seconds - self._throttled_seconds
            if seconds > 0.01 * wall_seconds:
                findings.append(
                    f"the CPU limit of the container stopped the run for {seconds:.1f} of {wall_seconds:.0f} s: raise it"
                )
        return {**self._facts, **facts, "warnings": [*self.before, *findings]}, findings


Reading = tuple[dict[str, Any], Finding | None]


def _read(place: Place, sensors: Sequence[Callable[[Place], Reading]]) -> tuple[dict[str, Any], list[Finding]]:
    facts: dict[str, Any] = {}
    findings = []
    for sensor in sensors:
        with suppress(*_UNTOLD):
            told, finding = sensor(place)
            facts |= told
            findings += [finding] if finding else []
    return facts, findings


def _governor(place: Place) -> Reading:
    files = place.root.glob("sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor")
    names = {file.read_text().strip() for file in files}
    others = ", ".join(sorted(names - {"performance"}))
    finding = f"CPU governor is {others}: frequencies wander; sudo cpupower frequency-set -g performance"
    return {"cpu_governor": ", ".join(sorted(names))} if names else {}, finding if others else None


def _turbo(place: Place) -> Reading:
    """Speedups bear it, because arms take turns; seconds follow heat and load."""
    folder = place.root / "sys/devices/system/cpu"
    inverted = (folder / "intel_pstate/no_turbo").exists()
    name, on = ("intel_pstate/no_turbo", "0") if inverted else ("cpufreq/boost", "1")
    turbo = (folder / name).read_text().strip() == on
    finding = f"turbo is on, seconds vary: echo {int(inverted)} | sudo tee /sys/devices/system/cpu/{name}"
    return {"turbo": turbo}, finding if turbo else None


def _load(place: Place) -> Reading:
    """The load is the whole machine's, and so are the cores it is compared with. Half a core is left to a shell and an editor."""
    average = place.system.getloadavg()[0]
    finding = f"load is {average:.1f} on {place.cores} cores: the run wants {place.threads}; close programs, or wait"
    return {"load_average_at_start": average}, finding if average > max(place.cores - place.threads, 0) + 0.5 else None


def _threads(place: Place) -> Reading:
    cores = place.cores
    with suppress(AttributeError):  # macOS has no affinity
        cores = min(cores, len(place.system.Process().cpu_affinity()))
    finding = f"more threads than cores ({place.threads}, {cores}): they wait for one another; --threads {cores}"
    return {}, finding if place.threads > cores else None


def _cpu_limit(place: Place) -> Reading:
    """The tightest quota among the control groups around this process."""
    quotas = [text.split() for text in _control_group_files(place.root, "cpu.max")]
    cores = min((int(quota) / int(period) for quota, period in quotas if quota != "max"), default=None)
    if cores is None or cores >= place.threads:
        return {"cpu_limit_cores": cores}, None
    harm = f"the CPU limit of the container is {cores:.3g} cores"
    return {"cpu_limit_cores": cores}, f"{harm}: the run wants {place.threads} and will be stopped; raise it"


def _throttled_seconds(place: Place) -> float | None:
    """How long all the control groups around this process have been stopped for, ever."""
    with suppress(*_UNTOLD):
        stats = [dict(line.split() for line in text.splitlines()) for text in _control_group_files(place.root, "cpu.stat")]
        stopped = [int(stat["throttled_usec"]) for stat in stats if "throttled_usec" in stat]
        return sum(stopped) / 1e6 if stopped else None
    return None


def _control_group_files(root: Path, name: str) -> list[str]:
    """The texts of the files `name` of this process's control group (version 2) and of those around it. LookupError if it has none.

    A container may be told its host's name of the group, and then finds its own at the mount.
    """
    own = (root / "proc/self/cgroup").read_text().partition("0::/")[2].splitlines()[0]
    mount = root / "sys/fs/cgroup"
    files = [folder / name for folder in ((mount / own), *(mount / own).parents) if folder.is_relative_to(mount)]
    return [file.read_text() for file in files if file.exists()]


def _memory(place: Place) -> Reading:
    free, total = place.system.virtual_memory().available, place.system.virtual_memory().total
    finding = f"only {free / GIB:.1f} of {total / GIB:.1f} GiB of memory are available: close other programs"
    return {"memory_available_bytes": free}, finding if free < 0.1 * total else None


def _launch_blocking(place: Place) -> Reading:
    on = place.nvml is not None and os.environ.get("CUDA_LAUNCH_BLOCKING", "0") not in ("", "0")
    return {}, "CUDA_LAUNCH_BLOCKING is set, each kernel is waited for: unset it" if on else None


def _gpu_processes(place: Place) -> Reading:
    running = place.nvml.nvmlDeviceGetComputeRunningProcesses(place.gpu)
    others = sorted({process.pid for process in running} - {os.getpid()})
    finding = f"another process is on the GPU ({', '.join(map(str, others))}): end it, or wait"
    return {"gpu_processes": others}, finding if others else None


def _gpu_power_limit(place: Place) -> Reading:
    limit = place.nvml.nvmlDeviceGetEnforcedPowerLimit(place.gpu) / 1000
    default = place.nvml.nvmlDeviceGetPowerManagementDefaultLimit(place.gpu) / 1000
    finding = f"the GPU's power limit is {limit:.0f} W, below its default: sudo nvidia-smi -pl {default:.0f}"
    return {"gpu_power_limit_watts": limit}, finding if limit < default else None


def _gpu_slowed(place: Place) -> Reading:
    reasons = place.nvml.nvmlDeviceGetCurrentClocksEventReasons(place.gpu)
    harmful = ("HwSlowdown", "HwThermalSlowdown", "SwThermalSlowdown", "HwPowerBrakeSlowdown", "SwPowerCap")
    names = [name for name in harmful if reasons & getattr(place.nvml, f"nvmlClocksEventReason{name}")]
    finding = f"the GPU slows itself down ({', '.join(names)}): let it cool, check its power; seconds suffer, ratios less"
    return {"gpu_slowed_by": names}, finding if names else None


def _gpu_clock(place: Place) -> Reading:
    clock = place.nvml.nvmlDeviceGetClockInfo(place.gpu, place.nvml.NVML_CLOCK_SM)
    highest = place.nvml.nvmlDeviceGetMaxClockInfo(place.gpu, place.nvml.NVML_CLOCK_SM)
    return {"gpu_clock_mhz": clock, "gpu_highest_clock_mhz": highest}, None


BEFORE = (
    _governor, _turbo, _load, _threads, _cpu_limit, _memory, _launch_blocking, _gpu_processes, _gpu_power_limit, _gpu_slowed,
)  # fmt: skip
AFTER = (_gpu_slowed, _gpu_clock)
"""Read while the GPU is warm: an idle one rests, which is no harm."""
