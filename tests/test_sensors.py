"""Each thing that harms a measurement is told in a line with its advice, from its own source; what is missing or harmless is not."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from stand_ins import FakeNvml, FakeSystem

from benchmarks.sensors import BEFORE, COUNTERS, GIB, Place, read, started_nvml

CPU = "sys/devices/system/cpu"


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{text}\n")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A machine on which every source answers and nothing does harm."""
    write(tmp_path, {
        f"{CPU}/cpu0/cpufreq/scaling_governor": "performance",
        f"{CPU}/cpu11/cpufreq/scaling_governor": "performance",
        f"{CPU}/intel_pstate/no_turbo": "1",
        "proc/pressure/memory": "some avg10=0.12 avg60=9.00 avg300=9.00 total=99\nfull avg10=9.00 avg60=9.00 avg300=9.00 total=9",
        "proc/self/cgroup": "0::/",
        "sys/fs/cgroup/cpu.max": "400000 100000",
        "sys/fs/cgroup/cpu.stat": "usage_usec 5\nthrottled_usec 2500000",
    })  # fmt: skip
    return Place(1, tmp_path, FakeSystem(), FakeNvml())


def texts(place: Place) -> list[str]:
    return [str(finding) for finding in read(place, BEFORE)[1]]


def test_a_quiet_machine_gives_facts_and_no_warning(place: Place) -> None:
    facts, findings = read(place, BEFORE)
    assert findings == []
    assert facts == {
        "cpu_governor": "performance", "turbo": False, "load_average_at_start": 0.3, "cpu_limit_cores": 4.0, "on_battery": False,
        "memory_available_bytes": 12 * GIB, "swap_used_bytes": 0, "memory_pressure_percent": 0.12,
        "address_space_limit_bytes": None, "gpu_processes": [], "gpu_clock_mhz": 345, "gpu_default_clock_mhz": 1785,
        "gpu_throttle_reasons": [],
    }  # fmt: skip
    assert read(place, COUNTERS) == ({"throttled_seconds": 2.5, "gpu_throttled_seconds": 0.25}, [])


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (
            {f"{CPU}/cpu11/cpufreq/scaling_governor": "powersave"},
            "CPU governor is powersave: frequencies wander; ",
        ),
        ({f"{CPU}/intel_pstate/no_turbo": "0"}, f"turbo is on, seconds vary: echo 1 | sudo tee /{CPU}/intel_pstate/no_turbo"),
        ({"proc/pressure/memory": "some avg10=3.10 avg60=0.00"}, "programs wait for memory 3 % of the time: close some"),
        ({"sys/fs/cgroup/cpu.max": "50000 100000"}, "the CPU limit of the container is 0.5 cores: the run wants 1"),
    ],
)
def test_what_the_kernel_tells_in_files_is_warned_of(place: Place, files: dict[str, str], said: str) -> None:
    write(place.root, files)
    (text,) = texts(place)
    assert text.startswith(said)
    assert len(f"warning: {text}") <= 100


@pytest.mark.parametrize(("boost", "turbo"), [("1", True), ("0", False)])
def test_turbo_is_called_boost_without_intels_driver(place: Place, boost: str, turbo: bool) -> None:
    (place.root / CPU / "intel_pstate/no_turbo").unlink()
    write(place.root, {f"{CPU}/cpufreq/boost": boost})
    assert read(place, BEFORE)[0]["turbo"] is turbo
    assert texts(place) == [f"turbo is on, seconds vary: echo 0 | sudo tee /{CPU}/cpufreq/boost"][: int(turbo)]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"load": 3.7}, "load is 3.7 on 4 cores: the run wants 1; close programs, or wait"),
        ({"affinity": (3,)}, None),
        ({"plugged": False}, "on battery, the CPU saves power: plug in"),
        ({"plugged": None}, None),
        ({"available": GIB}, "only 1.0 of 16.0 GiB of memory are available: close other programs"),
        ({"swapped": 2 * GIB}, "2.0 GiB are in swap: they may come back while timing; close other programs"),
        ({"swapped": GIB // 8}, None),
        ({"address_space": 4 * GIB}, "address space is limited to 4.0 GiB: large models may fail; ulimit -v unlimited"),
    ],
)
def test_what_psutil_tells_is_warned_of_where_it_does_harm(place: Place, change: dict[str, Any], said: str | None) -> None:
    assert texts(replace(place, system=FakeSystem(**change))) == ([said] if said else [])


@pytest.mark.parametrize(
    ("threads", "change", "said"),
    [
        (4, {}, []),
        (3, {"affinity": (0, 2)}, ["more threads than cores (3, 2): they wait for one another; --threads 2"]),
        (3, {"load": 1.4}, []),
        (3, {"load": 1.6}, ["load is 1.6 on 4 cores: the run wants 3; close programs, or wait"]),
    ],
)
def test_threads_are_compared_with_the_cores_that_the_run_may_use_and_that_are_free(
    place: Place, threads: int, change: dict[str, Any], said: list[str]
) -> None:
    assert texts(replace(place, threads=threads, system=FakeSystem(**change))) == said


def test_more_threads_than_the_machine_has_cores_are_warned_of_where_there_is_no_affinity(place: Place) -> None:
    system = FakeSystem()
    system.Process = lambda: SimpleNamespace(rlimit=lambda _: (system.RLIM_INFINITY, system.RLIM_INFINITY))
    write(place.root, {"sys/fs/cgroup/cpu.max": "max 100000"})
    assert texts(replace(place, threads=5, system=system))[-1].startswith("more threads than cores (5, 4)")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"pids": (7,)}, "another process is on the GPU (7): end it, or wait"),
        ({"set_mhz": 1200}, "the GPU's clock is 1200 MHz, below its default of 1785: reset it: sudo nvidia-smi -rac"),
        ({"reasons": 0}, "the GPU's clock is 345 MHz, below its default of 1785: reset it: sudo nvidia-smi -rac"),
        ({"reasons": 0x41}, "the GPU is throttled (HwThermalSlowdown): let it cool, check its power"),
    ],
)
def test_what_nvml_tells_is_warned_of(place: Place, change: dict[str, Any], said: str) -> None:
    assert texts(replace(place, nvml=FakeNvml(**change))) == [said]


def test_a_run_on_the_cpu_alone_says_nothing_of_gpus(place: Place) -> None:
    assert not [name for source in (BEFORE, COUNTERS) for name in read(replace(place, nvml=None), source)[0] if "gpu" in name]


def test_what_a_gpu_does_not_support_takes_nothing_else_away(place: Place) -> None:
    nvml = FakeNvml(pids=(7,), unsupported="nvmlDeviceGetDefaultApplicationsClock")
    facts, findings = read(replace(place, nvml=nvml), BEFORE)
    assert len(findings) == 1
    assert {name for name in facts if "gpu" in name} == {"gpu_processes", "gpu_clock_mhz", "gpu_throttle_reasons"}


def test_the_binding_has_what_is_asked_of_its_stand_in() -> None:
    pynvml = pytest.importorskip("pynvml")
    assert set(vars(FakeNvml())) <= set(dir(pynvml))


@pytest.mark.parametrize(
    ("visible", "handle"), [("", 0), ("2,0", 2), ("GPU-1f,GPU-2e", "GPU-1f"), ("MIG-3d", "MIG-3d"), ("NoDevFiles", 0)]
)
def test_the_gpu_looked_at_is_the_first_that_cuda_may_use(
    place: Place, monkeypatch: pytest.MonkeyPatch, visible: str, handle: int | str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert place.gpu == handle


def test_a_machine_that_tells_nothing_gives_no_facts_no_warnings_and_no_errors(tmp_path: Path) -> None:
    silent = Place(1, tmp_path, object(), object())
    assert read(silent, [*BEFORE, *COUNTERS]) == ({}, [])


def test_files_that_cannot_be_understood_are_passed_over(place: Place) -> None:
    write(place.root, {"proc/pressure/memory": "", "proc/self/cgroup": "?"})
    facts = read(place, [*BEFORE, *COUNTERS])[0]
    assert not {"memory_pressure_percent", "cpu_limit_cores", "throttled_seconds"} & set(facts)
    assert facts["cpu_governor"] == "performance"


def test_this_machine_can_be_read() -> None:
    facts, _ = read(Place(1), BEFORE)
    assert 0 < facts["memory_available_bytes"] < psutil.virtual_memory().total


def _fails() -> None:
    raise RuntimeError("no driver")


@pytest.mark.parametrize(
    ("binding", "started"),
    [(None, False), (SimpleNamespace(nvmlInit=_fails), False), (SimpleNamespace(nvmlInit=lambda: None), True)],
)
def test_nvml_is_used_where_its_binding_is_installed_and_starts(
    monkeypatch: pytest.MonkeyPatch, binding: Any, started: bool
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", binding)
    assert started_nvml() is (binding if started else None)
