"""On a GPU times are read only when its work is done and memory is read above the resting level: shown with torch.cuda played."""

from __future__ import annotations

import random
from itertools import permutations
from typing import Any

import psutil
import pytest
import torch
from stand_ins import FakeCuda, Lane

from benchmarks.device import DEVICES, Cpu, Cuda, Device, DeviceBytes, default_device, machine_facts
from benchmarks.measure.memory import device_bytes
from benchmarks.measure.timing import Limits, Stopwatch, time_lanes
from benchmarks.models import Source
from benchmarks.modes import DEFAULT_MODES, MODES
from benchmarks.scenarios.forward import forward


def test_the_device_is_waited_for_before_the_clock_is_read_either_time() -> None:
    cuda = FakeCuda()
    Stopwatch(Cuda(cuda), cuda.clock, lambda: 0).block(lambda: cuda.launch(1.0), 3)
    assert cuda.log == ["synchronize", "record", "clock", "launch", "launch", "launch", "record", "synchronize", "clock"]


def test_a_block_lasts_as_long_as_its_own_work_on_the_device() -> None:
    """What another lane has queued before is not counted, what this one has queued is, though the host is long done."""
    cuda = FakeCuda()
    cuda.launch(100.0)
    block = Stopwatch(Cuda(cuda), cuda.clock, lambda: 0).block(lambda: cuda.launch(0.25, host_seconds=2.0**-6), 4)
    assert block.seconds == block.device_seconds == 1.0 + 2.0**-6


def test_seconds_between_events_are_their_milliseconds_over_a_thousand() -> None:
    cuda = FakeCuda()
    device = Cuda(cuda)
    start = device.mark()
    cuda.launch(0.5)
    end = device.mark()
    device.synchronise()
    assert start.elapsed_time(end) == 500
    assert device.seconds_between(start, end) == 0.5


def test_lanes_timed_on_a_gpu_give_device_seconds_beside_wall_time() -> None:
    class Quiet:
        def lane(self, name: str) -> None: ...

        def rounds(self, done: int, elapsed_seconds: float) -> None: ...

    cuda = FakeCuda()
    lanes = {"tracked": lambda: cuda.launch(2.0**-4), "no_grad": lambda: cuda.launch(2.0**-5)}
    limits = Limits(budget_seconds=4, timeout_seconds=60, settled=lambda _: False)
    timings = time_lanes(lanes, Stopwatch(Cuda(cuda), cuda.clock, lambda: 0), limits, random.Random(0), Quiet())
    assert timings.seconds == timings.device_seconds
    assert set(timings.device_seconds["tracked"]) == {2.0**-4}
    assert set(timings.device_seconds["no_grad"]) == {2.0**-5}


LANES = {"tracked": (8000, 7000), "no_grad": (3000, 500), "detach": (8000, 500)}
"""Bytes in passing and bytes held by the output. A lane that holds 500 fits into what the resting 1500 have reserved of 2048."""


@pytest.mark.parametrize("order", list(permutations(LANES)), ids=" ".join)
def test_memory_is_above_the_resting_level_and_independent_of_the_order_of_lanes(order: tuple[str, ...]) -> None:
    cuda = FakeCuda(resting_bytes=1500)
    device = Cuda(cuda)
    found = {name: device_bytes(Lane(cuda, *LANES[name]), device) for name in order}
    assert found == {"tracked": (8000, 7000, 8192), "no_grad": (3000, 500, 3072), "detach": (8000, 500, 8192)}
    assert cuda.memory_allocated() == 1500


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU; the test above plays one")
@pytest.mark.parametrize("order", list(permutations(DEFAULT_MODES)), ids=" ".join)
def test_on_a_gpu_too_memory_is_independent_of_the_order_of_lanes(order: tuple[str, ...]) -> None:
    workload = Source("mlp", "small").workload("cuda", "float32")
    steps = {name: forward(workload, MODES[name]) for name in order}
    for step in steps.values():
        device_bytes(step, Cuda())  # cuBLAS takes its workspace
    found = {name: device_bytes(step, Cuda()) for name, step in steps.items()}
    assert found["no_grad"] == found["inference_mode"]
    tracked, no_grad = found["tracked"], found["no_grad"]
    assert tracked is not None and no_grad is not None and tracked > no_grad  # noqa: PT018 - tells mypy
    assert found == {name: device_bytes(steps[name], Cuda()) for name in reversed(order)}


def test_memory_is_read_once_the_devices_work_is_done() -> None:
    cuda = FakeCuda()
    device_bytes(lambda: cuda.launch(1.0), Cuda(cuda))
    assert cuda.log[-3:] == ["launch", "synchronize", "memory"]


def test_a_devices_memory_is_told_now_and_at_its_highest() -> None:
    cuda = FakeCuda(resting_bytes=100)
    cuda.allocate(2000)
    cuda.free(2000)
    cuda.empty_cache()
    assert Cuda(cuda).memory() == DeviceBytes(allocated=100, peak_allocated=2100, reserved=1024, peak_reserved=3072)
    Cuda(cuda).start_memory()
    assert Cuda(cuda).memory() == DeviceBytes(allocated=100, peak_allocated=100, reserved=1024, peak_reserved=1024)


@pytest.mark.parametrize(("built", "said"), [(None, "built without CUDA"), ("13.0", "no GPU answers")])
def test_a_gpu_that_is_not_there_says_why(monkeypatch: pytest.MonkeyPatch, built: str | None, said: str) -> None:
    monkeypatch.setattr(torch.version, "cuda", built)
    why = Cuda(FakeCuda(available=False)).unavailable()
    assert why is not None
    assert said in why
    assert torch.__version__ in why
    assert Cuda(FakeCuda()).unavailable() is None


@pytest.mark.parametrize(("available", "expected"), [(True, "cuda"), (False, "cpu")])
def test_the_accelerator_is_the_default_where_there_is_one(
    monkeypatch: pytest.MonkeyPatch, available: bool, expected: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    assert default_device() == expected


def test_a_gpus_facts_are_those_of_the_current_one() -> None:
    facts = Cuda(FakeCuda()).facts()
    assert (facts["name"], facts["memory_bytes"], facts["multiprocessors"], facts["capability"]) == ("GPU 1", 2**37, 132, "9.0")


def test_the_cpu_has_nothing_to_wait_for_no_events_and_no_statistics() -> None:
    cpu = Cpu()
    assert cpu.unavailable() is None
    assert cpu.seconds_between(cpu.mark(), cpu.mark()) is None  # type: ignore[func-returns-value]
    assert device_bytes(lambda: torch.ones(9), cpu) is None
    assert cpu.facts()["threads_of_all_cores"] == psutil.cpu_count()


def test_every_device_is_registered_under_its_own_name() -> None:
    devices: dict[str, Device] = {name: make() for name, make in DEVICES.items()}
    assert {name: device.name for name, device in devices.items()} == {"cpu": "cpu", "cuda": "cuda"}


def test_the_machines_facts_are_the_same_each_time_and_follow_the_devices_asked_for() -> None:
    facts: dict[str, Any] = machine_facts(["cpu"])
    assert facts == machine_facts(["cpu"])
    assert list(facts["devices"]) == ["cpu"]
    assert facts["torch"] == torch.__version__
