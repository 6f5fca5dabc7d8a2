"""Where to see what harms a measurement: one source per thing, each with what to do about it.

A source returns facts and, where they do harm, a finding. What is missing here raises, in whatever way, and is then passed over.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks import control_groups

GIB = 2**30


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that harms a measurement, and what to do about it."""

    what: str
    advice: str

    def __str__(self) -> str:
        return f"{self.what}: {self.advice}"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a run of so many threads looks: a file system, psutil, and NVML's binding where a GPU is measured."""

    threads: int
    root: Path = Path("/")
    system: Any = psutil
    nvml: Any = None

    @property
    def cores(self) -> int:
        return self.system.cpu_count(logical=False) or self.system.cpu_count() or 1

    @property
    def gpu(self) -> Any:
        """NVML's handle of the first GPU that CUDA may use. NVML counts in bus order, CUDA may not where GPUs differ."""
        first = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0].strip()
        if first.startswith(("GPU-", "MIG-")):
            return self.nvml.nvmlDeviceGetHandleByUUID(first)
        return self.nvml.nvmlDeviceGetHandleByIndex(int(first) if first.isdecimal() else 0)


def started_nvml() -> Any:
    """NVML's binding, None without it or without a driver. It makes no CUDA context, and ends with the process."""
    with suppress(Exception):  # there are as many errors as drivers
        import pynvml  # optional, and only for GPUs

        pynvml.nvmlInit()
        return pynvml
    return None


Reading = tuple[dict[str, Any], Finding | None]
Source = Callable[[Place], Reading]


def governor(place: Place) -> Reading:
    files = place.root.glob("sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor")
    names = {file.read_text().strip() for file in files}
    others = ", ".join(sorted(names - {"performance"}))
    found = Finding(f"CPU governor is {others}", "frequencies wander; sudo cpupower frequency-set -g performance")
    return {"cpu_governor": ", ".join(sorted(names))} if names else {}, found if others else None


def turbo(place: Place) -> Reading:
    """Speedups bear it, for lanes take turns; seconds follow heat and load."""
    folder = place.root / "sys/devices/system/cpu"
    inverted = (folder / "intel_pstate/no_turbo").exists()
    name, on = ("intel_pstate/no_turbo", "0") if inverted else ("cpufreq/boost", "1")
    turbo = (folder / name).read_text().strip() == on
    found = Finding("turbo is on, seconds vary", f"echo {int(inverted)} | sudo tee /sys/devices/system/cpu/{name}")
    return {"turbo": turbo}, found if turbo else None


def load_at_start(place: Place) -> Reading:
    """The load is the whole machine's, and so are the cores it is compared with. Half a core is left to a shell and an editor."""
    average = place.system.getloadavg()[0]
    found = Finding(f"load is {average:.1f} on {place.cores} cores", f"the run wants {place.threads}; close programs, or wait")
    return {"load_average_at_start": average}, found if average > max(place.cores - place.threads, 0) + 0.5 else None


def threads(place: Place) -> Reading:
    cores = place.cores
    with suppress(AttributeError):  # macOS has no affinity
        cores = min(cores, len(place.system.Process().cpu_affinity()))
    found = Finding(f"more threads than cores ({place.threads}, {cores})", f"they wait for one another; --threads {cores}")
    return {}, found if place.threads > cores else None


def cpu_limit(place: Place) -> Reading:
    cores = control_groups.cpu_limit_cores(place.root)
    if cores is None or cores >= place.threads:
        return {"cpu_limit_cores": cores}, None
    advice = f"the run wants {place.threads} and will be stopped; raise it"
    return {"cpu_limit_cores": cores}, Finding(f"the CPU limit of the container is {cores:.3g} cores", advice)


def battery(place: Place) -> Reading:
    on_battery = place.system.sensors_battery().power_plugged is False
    return {"on_battery": on_battery}, Finding("on battery, the CPU saves power", "plug in") if on_battery else None


def memory(place: Place) -> Reading:
    free, total = place.system.virtual_memory().available, place.system.virtual_memory().total
    found = Finding(f"only {free / GIB:.1f} of {total / GIB:.1f} GiB of memory are available", "close other programs")
    return {"memory_available_bytes": free}, found if free < 0.1 * total else None


def swap(place: Place) -> Reading:
    used, total = place.system.swap_memory().used, place.system.virtual_memory().total
    found = Finding(f"{used / GIB:.1f} GiB are in swap", "they may come back while timing; close other programs")
    return {"swap_used_bytes": used}, found if used > 0.01 * total else None


def memory_pressure(place: Place) -> Reading:
    """The share of the last ten seconds in which some process waited for memory."""
    some = (place.root / "proc/pressure/memory").read_text().splitlines()[0]
    percent = float(dict(pair.split("=") for pair in some.split()[1:])["avg10"])
    found = Finding(f"programs wait for memory {percent:.0f} % of the time", "close some, or measure smaller models")
    return {"memory_pressure_percent": percent}, found if percent >= 1 else None


def address_space(place: Place) -> Reading:
    limit, _ = place.system.Process().rlimit(place.system.RLIMIT_AS)
    if limit == place.system.RLIM_INFINITY:
        return {"address_space_limit_bytes": None}, None
    found = Finding(f"address space is limited to {limit / GIB:.1f} GiB", "large models may fail; ulimit -v unlimited")
    return {"address_space_limit_bytes": limit}, found


def gpu_processes(place: Place) -> Reading:
    running = place.nvml.nvmlDeviceGetComputeRunningProcesses(place.gpu)
    others = sorted({one.pid for one in running} - {os.getpid()})
    found = Finding(f"another process is on the GPU ({', '.join(map(str, others))})", "end it, or wait")
    return {"gpu_processes": others}, found if others else None


def gpu_clock(place: Place) -> Reading:
    return {"gpu_clock_mhz": place.nvml.nvmlDeviceGetClockInfo(place.gpu, place.nvml.NVML_CLOCK_SM)}, None


def gpu_default_clock(place: Place) -> Reading:
    """An idle GPU slows itself down, which is no harm; what it is set to, or runs at when busy, may be."""
    gpu, nvml = place.gpu, place.nvml
    default = nvml.nvmlDeviceGetDefaultApplicationsClock(gpu, nvml.NVML_CLOCK_SM)
    clock = nvml.nvmlDeviceGetApplicationsClock(gpu, nvml.NVML_CLOCK_SM)
    if not nvml.nvmlDeviceGetCurrentClocksThrottleReasons(gpu) & nvml.nvmlClocksThrottleReasonGpuIdle:
        clock = min(clock, nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_SM))
    found = Finding(f"the GPU's clock is {clock} MHz, below its default of {default}", "reset it: sudo nvidia-smi -rac")
    return {"gpu_default_clock_mhz": default}, found if clock < default else None


def gpu_throttling(place: Place) -> Reading:
    reasons = place.nvml.nvmlDeviceGetCurrentClocksThrottleReasons(place.gpu)
    harmful = ("HwSlowdown", "HwThermalSlowdown", "SwThermalSlowdown", "HwPowerBrakeSlowdown")
    names = [name for name in harmful if reasons & getattr(place.nvml, f"nvmlClocksThrottleReason{name}")]
    found = Finding(f"the GPU is throttled ({', '.join(names)})", "let it cool, check its power")
    return {"gpu_throttle_reasons": names}, found if names else None


def load_at_end(place: Place) -> Reading:
    return {"load_average_at_end": place.system.getloadavg()[0]}, None


def temperatures(place: Place) -> Reading:
    sensors = place.system.sensors_temperatures()
    return {"temperatures_celsius": {name: max(one.current for one in found) for name, found in sensors.items() if found}}, None


def cpu_throttled(place: Place) -> Reading:
    return {"throttled_seconds": control_groups.throttled_seconds(place.root)}, None


def gpu_throttled(place: Place) -> Reading:
    status = place.nvml.nvmlDeviceGetViolationStatus(place.gpu, place.nvml.NVML_PERF_POLICY_THERMAL)
    return {"gpu_throttled_seconds": status.violationTime / 1e9}, None  # nanoseconds


BEFORE: tuple[Source, ...] = (
    governor, turbo, load_at_start, threads, cpu_limit, battery, memory, swap, memory_pressure, address_space,
    gpu_processes, gpu_clock, gpu_default_clock, gpu_throttling,
)  # fmt: skip
AFTER: tuple[Source, ...] = (load_at_end, temperatures)
COUNTERS: tuple[Source, ...] = (cpu_throttled, gpu_throttled)
"""Seconds that only grow."""


def read(place: Place, sources: Iterable[Source]) -> tuple[dict[str, Any], list[Finding]]:
    facts: dict[str, Any] = {}
    findings = []
    for source in sources:
        with suppress(Exception):  # no run fails for a sensor
            found, finding = source(place)
            facts |= found
            findings += [finding] if finding else []
    return facts, findings
