"""What harms a measurement is told in a line with its advice, before a run and after it; what is missing or harmless is not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from stand_ins import FakeNvml, FakeSystem

from benchmarks import environment
from benchmarks.environment import GIB, Conditions, Place, machine_facts

CPU = "sys/devices/system/cpu"
GROUPS = "sys/fs/cgroup"


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{text}\n")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """A machine on which every sensor answers and nothing does harm."""
    monkeypatch.delenv("CUDA_LAUNCH_BLOCKING", raising=False)
    write(tmp_path, {
        f"{CPU}/cpu0/cpufreq/scaling_governor": "performance",
        f"{CPU}/cpu11/cpufreq/scaling_governor": "performance",
        f"{CPU}/intel_pstate/no_turbo": "1",
        "proc/self/cgroup": "0::/",
        f"{GROUPS}/cpu.max": "400000 100000",
        f"{GROUPS}/cpu.stat": "usage_usec 5\nthrottled_usec 5000000",
    })  # fmt: skip
    return Place(1, tmp_path, FakeSystem(), FakeNvml(), gpu=0)


def during(place: Place, event: Callable[[], Any], seconds: float = 100) -> tuple[dict[str, Any], list[str]]:
    """What is saved of, and told after, a run of so many seconds while `event` happened."""
    conditions = Conditions(place, iter((1000.0, 1000.0 + seconds)).__next__)
    event()
    return conditions.end()


def test_a_quiet_machine_gives_facts_and_no_warning(place: Place) -> None:
    facts, findings = during(place, lambda: None)
    assert findings == []
    assert facts == {
        "cpu_governor": "performance", "turbo": False, "load_average_at_start": 0.3, "cpu_limit_cores": 4.0,
        "memory_available_bytes": 12 * GIB, "throttled_seconds": 0.0, "gpu_processes": [], "gpu_power_limit_watts": 700.0,
        "gpu_slowed_by": [], "gpu_clock_mhz": 345, "gpu_highest_clock_mhz": 1980, "warnings": [],
    }  # fmt: skip


def changed(place: Place, threads: int = 1, files: Any = None, nvml: Any = None, **system: Any) -> Place:
    write(place.root, files or {})
    return replace(place, threads=threads, system=FakeSystem(**system), nvml=FakeNvml(**(nvml or {})))


GPU_IS_SLOW = "let it cool, check its power; seconds suffer, ratios less"
HARMS: list[tuple[dict[str, Any], list[str]]] = [
    ({"files": {f"{CPU}/cpu11/cpufreq/scaling_governor": "powersave"}},
     ["CPU governor is powersave: frequencies wander; sudo cpupower frequency-set -g performance"]),
    ({"files": {f"{CPU}/intel_pstate/no_turbo": "0"}},
     [f"turbo is on, seconds vary: echo 1 | sudo tee /{CPU}/intel_pstate/no_turbo"]),
    ({"files": {f"{GROUPS}/cpu.max": "50000 100000"}},
     ["the CPU limit of the container is 0.5 cores: the run wants 1 and will be stopped; raise it"]),
    ({"available": GIB}, ["only 1.0 of 16.0 GiB of memory are available: close other programs"]),
    ({"threads": 4}, []),
    ({"threads": 3, "affinity": (0, 2)}, ["more threads than cores (3, 2): they wait for one another; --threads 2"]),
    ({"threads": 3, "load": 1.4}, []),
    ({"threads": 3, "load": 1.6}, ["load is 1.6 on 4 cores: the run wants 3; close programs, or wait"]),
    ({"nvml": {"pids": (7,)}}, ["another process is on the GPU (7): end it, or wait"]),
    ({"nvml": {"power_limit": 500}}, ["the GPU's power limit is 500 W, below its default: sudo nvidia-smi -pl 700"]),
    ({"nvml": {"reasons": 0x41}}, [f"the GPU slows itself down (HwThermalSlowdown): {GPU_IS_SLOW}"]),
    ({"nvml": {"reasons": 0x4}}, [f"the GPU slows itself down (SwPowerCap): {GPU_IS_SLOW}"]),
]  # fmt: skip


@pytest.mark.parametrize(("change", "said"), HARMS)
def test_what_harms_is_told_before_the_run_and_in_its_record(place: Place, change: dict[str, Any], said: list[str]) -> None:
    there = changed(place, **change)
    assert Conditions(there).before == said
    assert Conditions(there).end()[0]["warnings"][: len(said)] == said
    assert max(map(len, said), default=0) <= 110


def test_turbo_is_called_boost_without_intels_driver(place: Place) -> None:
    (place.root / CPU / "intel_pstate/no_turbo").unlink()
    for boost, told in (("1", [f"turbo is on, seconds vary: echo 0 | sudo tee /{CPU}/cpufreq/boost"]), ("0", [])):
        write(place.root, {f"{CPU}/cpufreq/boost": boost})
        assert Conditions(place).before == told


def test_the_tightest_of_the_groups_around_the_process_is_its_limit_and_their_throttled_times_add_up(place: Place) -> None:
    write(place.root, {
        "proc/self/cgroup": "1:cpu:/old\n0::/pod/job",
        f"{GROUPS}/pod/job/cpu.max": "max 100000", f"{GROUPS}/pod/job/cpu.stat": "usage_usec 9\nthrottled_usec 500000",
        f"{GROUPS}/pod/cpu.max": "150000 100000", f"{GROUPS}/pod/cpu.stat": "throttled_usec 2000000",
        f"{GROUPS}/other/cpu.max": "1000 100000", f"{GROUPS}/other/cpu.stat": "throttled_usec 9000000",
    })  # fmt: skip
    facts, _ = during(place, lambda: write(place.root, {f"{GROUPS}/pod/cpu.stat": "throttled_usec 4000000"}))
    assert (facts["cpu_limit_cores"], facts["throttled_seconds"]) == (1.5, 2.0)


@pytest.mark.parametrize(("seconds", "said"), [(3.0, True), (0.5, False)])
def test_time_throttled_in_the_run_is_recorded_and_beyond_1_percent_told(place: Place, seconds: float, said: bool) -> None:
    write(place.root, {"proc/self/cgroup": "0::/by/the/hosts/name"})
    stopped = {f"{GROUPS}/cpu.stat": f"throttled_usec {5_000_000 + seconds * 1e6:.0f}"}
    facts, findings = during(place, lambda: write(place.root, stopped))
    assert (facts["throttled_seconds"], facts["cpu_limit_cores"]) == (seconds, 4)
    assert findings == ["the CPU limit of the container stopped the run for 3.0 of 100 s: raise it"][: int(said)]
    assert facts["warnings"] == findings


def test_slowing_while_the_run_went_on_is_told_after_it(place: Place) -> None:
    _, findings = during(place, lambda: vars(place.nvml).update(vars(FakeNvml(reasons=0x8))))
    assert findings == [f"the GPU slows itself down (HwSlowdown): {GPU_IS_SLOW}"]


def test_kernels_that_are_waited_for_one_by_one_are_warned_of_on_a_gpu(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_LAUNCH_BLOCKING", "1")
    assert Conditions(place).before == ["CUDA_LAUNCH_BLOCKING is set, each kernel is waited for: unset it"]
    assert not [name for name in Conditions(replace(place, nvml=None)).end()[0] if "gpu" in name]
    assert machine_facts([])["environment"]["CUDA_LAUNCH_BLOCKING"] == "1"


def test_the_binding_has_what_is_asked_of_its_stand_in() -> None:
    pynvml = pytest.importorskip("pynvml")
    assert set(vars(FakeNvml())) <= set(dir(pynvml))


@pytest.mark.parametrize(
    ("visible", "device", "handle"),
    [("", "cuda", 0), ("2,0", "cuda:1", 0), ("GPU-1f,GPU-2e", "cuda", "GPU-1f"), ("MIG-3d", "cuda:0", "MIG-3d")],
)
def test_the_gpu_looked_at_is_the_one_that_is_measured(
    monkeypatch: pytest.MonkeyPatch, visible: str, device: str, handle: int | str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr(environment, "pynvml", FakeNvml())
    assert Place.of(1, ["cpu", device]).gpu == handle
    assert Place.of(1, ["cpu"]).gpu is None


def test_a_machine_that_tells_nothing_gives_no_facts_no_warnings_and_no_errors(tmp_path: Path) -> None:
    assert Conditions(Place(1, tmp_path, object(), object(), gpu=0)).end() == ({"warnings": []}, [])


def test_files_that_cannot_be_understood_are_passed_over(place: Place) -> None:
    write(place.root, {"proc/self/cgroup": "?", f"{CPU}/intel_pstate/no_turbo": ""})
    facts, _ = Conditions(place).end()
    assert not {"cpu_limit_cores", "throttled_seconds"} & set(facts)
    assert facts["cpu_governor"] == "performance"


def test_a_mistake_in_a_sensor_is_not_taken_for_a_machine_without_it(place: Place) -> None:
    def mistaken() -> Any:
        raise TypeError("an argument too many")

    place.system.getloadavg = mistaken
    with pytest.raises(TypeError, match="an argument too many"):
        Conditions(place)


def test_this_machine_and_its_facts_can_be_read() -> None:
    conditions, _ = Conditions(Place.of(1, ["cpu"])).end()
    assert conditions["memory_available_bytes"] > 0
    facts = machine_facts(["cpu"])
    assert facts == machine_facts(["cpu"])
    assert (list(facts["devices"]), facts["torch"]) == (["cpu"], torch.__version__)
