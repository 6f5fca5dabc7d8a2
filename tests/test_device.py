"""A GPU's times and bytes are its own and exact, shown with torch.cuda played; a device that cannot be measured says so."""

from __future__ import annotations

import psutil
import pytest
import torch
from stand_ins import MIB, FakeCuda, Work

from benchmarks.device import Cuda, DeviceBytes, DeviceError, accelerated, default_device, device_named
from benchmarks.measure.memory import device_bytes


def test_torch_cuda_has_what_is_asked_of_its_stand_in() -> None:
    own = set("allocate clock devices events free host_seconds indices launch reached_seconds tells_requests".split())  # noqa: SIM905
    asked = {name for name in dir(FakeCuda()) if not name.startswith("_")} - own
    assert asked | {"_sleep"} <= set(dir(torch.cuda))


@pytest.mark.parametrize(("host_seconds", "found"), [(2.0**-10, 4 * 2.0**-6), (0.5, None)])
def test_the_devices_own_time_is_told_where_all_its_work_has_waited_in_the_queue(
    host_seconds: float, found: float | None
) -> None:
    cuda = FakeCuda()
    device, work = Cuda(cuda=cuda), Work(cuda, 4, host_seconds, 2.0**-6)
    assert [device.work_seconds(work, hold_seconds=0.25) for _ in range(2)] == [found] * 2
    assert cuda.events == 2, "marks are made once"


def test_a_large_tensor_that_gets_a_rest_with_it_counts_what_it_asked_for() -> None:
    """1.5 MiB after three times 6 in a segment of 20 are given 2 MiB: blocks' sizes would count half a MiB too much."""
    cuda = FakeCuda()
    for mebibytes in (6, 6, 6, 1.5):
        cuda.allocate(int(mebibytes * MIB))
    assert Cuda(cuda=cuda).memory() == DeviceBytes(20_447_232, 20_447_232, 20 * MIB, 20 * MIB)
    assert cuda.memory_stats(0)["allocated_bytes.all.current"] == 20 * MIB


def test_what_tensors_asked_for_is_told_and_peaks_start_from_the_present_level() -> None:
    cuda = FakeCuda(resting_bytes=100)
    cuda.free(cuda.allocate(3 * MIB + 4))
    device = Cuda(cuda=cuda)
    assert device.memory() == DeviceBytes(100, 3 * MIB + 104, 22 * MIB, 22 * MIB)
    device.start_memory()
    assert device.memory() == DeviceBytes(100, 100, 2 * MIB, 2 * MIB)


def test_everything_is_asked_of_the_device_with_the_index_that_was_named() -> None:
    cuda = FakeCuda(devices=2)
    device = Cuda("cuda:1", cuda)
    device.start_memory()
    device.memory()
    device.driver_allocations()
    device.work_seconds(lambda: None, hold_seconds=1e-3)
    assert cuda.indices == {1}
    assert device.facts()["name"] == "GPU 1"


@pytest.mark.parametrize(
    ("name", "count", "cuda_version", "hip_version", "said"),
    [
        ("cuda", 0, None, None, "built without CUDA and ROCm; install one"),
        ("cuda", 0, "13.0", None, "built with CUDA 13.0, but no GPU answers"),
        ("cuda", 0, None, "7.1", "built with ROCm 7.1, but no GPU answers"),
        ("cuda:2", 2, "13.0", None, "no cuda:2: there are 2 GPUs"),
    ],
)
def test_a_gpu_that_is_not_there_says_why(
    monkeypatch: pytest.MonkeyPatch, name: str, count: int, cuda_version: str | None, hip_version: str | None, said: str
) -> None:
    monkeypatch.setattr(torch.version, "cuda", cuda_version)
    monkeypatch.setattr(torch.version, "hip", hip_version)
    assert said in (Cuda(name, FakeCuda(devices=count)).unavailable() or "")


@pytest.mark.parametrize(
    ("name", "said"),
    [("mps", "ask for cpu, cuda or cuda:N"), ("cuda:x", "ask for"), ("", "ask for"), ("rocm", "torch calls AMD's GPUs cuda")],
)
def test_a_device_that_cannot_be_measured_is_refused_with_what_to_ask_for(name: str, said: str) -> None:
    with pytest.raises(DeviceError, match=said):
        device_named(name)


def test_a_fact_that_a_card_does_not_tell_costs_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def incompatible() -> int:
        raise RuntimeError("cuDNN version incompatibility")

    monkeypatch.setattr(torch.backends.cudnn, "version", incompatible)
    facts = Cuda(cuda=FakeCuda()).facts()
    assert facts["cudnn"] is None
    assert (facts["name"], facts["memory_bytes"], facts["multiprocessors"], facts["capability"]) == ("GPU 0", 2**37, 132, "9.0")


@pytest.mark.parametrize(("count", "expected"), [(1, "cuda"), (0, "cpu")])
def test_the_gpu_is_the_default_where_there_is_one(monkeypatch: pytest.MonkeyPatch, count: int, expected: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    assert default_device() == expected


def test_the_cpu_has_nothing_to_wait_for_no_clock_and_no_statistics() -> None:
    cpu = device_named("cpu")
    assert (cpu.unavailable(), cpu.work_seconds(lambda: None, 0.1), cpu.memory()) == (None, None, None)
    assert cpu.facts()["threads_of_all_cores"] == psutil.cpu_count()
    assert [accelerated(name) for name in ("cpu", "cuda", "cuda:3")] == [False, True, True]
    assert cpu.min_block_seconds < device_named("cuda").min_block_seconds


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU; the tests above play one")
def test_on_a_gpu_too_requested_bytes_are_exact() -> None:
    kept = [torch.empty(int(mebibytes * MIB), dtype=torch.uint8, device="cuda") for mebibytes in (6, 6, 6)]
    asked = 3 * MIB // 2 + 4
    found = device_bytes(lambda: torch.empty(asked, dtype=torch.uint8, device="cuda"), Cuda())
    assert (len(kept), found and found[:2]) == (3, (asked, asked))
