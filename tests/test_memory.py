"""Resident memory is measured or admitted unknown, a device's figures come from its allocator, and what is not seen is withheld."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from stand_ins import Arm, FakeCuda, launches, threaded
from torch import nn

from benchmarks import allocator
from benchmarks.device import Cpu, Cuda, Device
from benchmarks.measure import memory
from benchmarks.measure.memory import kept_rss_bytes, measure_memory, peak_rss_bytes, with_growth, withheld
from benchmarks.measure.profile import operators
from benchmarks.models import Workload
from benchmarks.modes import DETACH, INFERENCE_MODE, NO_GRAD, TRACKED, Mode, Step
from benchmarks.record import Memory, SavedBy

U = 64 * 256 * 4
"""Bytes of one activation: float32 (64, 256)."""
KIB, MIB = 2**10, 2**20


def chain(depth: int) -> Workload:
    return Workload.of(nn.Sequential(*[nn.Linear(256, 256) for _ in range(depth)]), torch.ones(64, 256))


CHAIN = chain(4)

needs_the_kernels_mark = pytest.mark.skipif(
    allocator.unavailable() is not None or not os.access("/proc/self/clear_refs", os.W_OK),
    reason="needs glibc, and a kernel whose high-water mark can be reset",
)


def measured(step: Step, device: Device | None = None, *, own_process: bool = False) -> Memory:
    step()
    return measure_memory(step, operators(step), device or Cpu(), CHAIN, own_process=own_process)


@pytest.mark.parametrize(
    ("mode", "peaks", "held"),
    [
        (TRACKED, [U, 4 * U, 16 * U], [U, 4 * U, 16 * U]),
        (DETACH, [U, 4 * U, 16 * U], [U, U, U]),
        (NO_GRAD, [U, 2 * U, 2 * U], [U, U, U]),
        (INFERENCE_MODE, [U, 2 * U, 2 * U], [U, U, U]),
    ],
    ids=lambda value: value.name if isinstance(value, Mode) else "",
)
def test_a_chain_of_linear_layers_is_exact_to_the_byte(mode: Mode, peaks: list[int], held: list[int]) -> None:
    found = [measured(mode.bind(of.module, of.run)) for of in map(chain, (1, 4, 16))]
    assert [one.peak_tensor_bytes for one in found] == peaks
    assert [one.held_tensor_bytes for one in found] == held


def test_all_figures_of_a_tracked_chain_are_exact_and_those_that_it_has_not_are_left_out() -> None:
    found = measured(TRACKED.bind(CHAIN.module, CHAIN.run))
    assert found == Memory(
        peak_tensor_bytes=4 * U,
        held_tensor_bytes=4 * U,
        saved_bytes=3 * U,
        opaque_saved_bytes=0,
        cast_saved_bytes=0,
        input_saved_bytes=U,
        graph_nodes=4 + 3 * 4,
        saved_by_module=[SavedBy(str(number), U) for number in (1, 2, 3)],
    )


def scripted_mark(monkeypatch: pytest.MonkeyPatch, folder: Path, rise_kib: int) -> Step:
    """The kernel's high-water mark as a file, which the step lets rise; it must have been reset by then."""
    reset, status = folder / "clear_refs", folder / "status"
    monkeypatch.setattr(memory, "_CLEAR_REFS", reset)
    monkeypatch.setattr(memory, "_STATUS", status)
    status.write_text("VmPeak:\t 9999 kB\nVmHWM:\t    1000 kB\nVmRSS:\t 1111 kB\n")

    def step() -> None:
        assert reset.read_text() == "5"
        status.write_text(f"VmPeak:\t 9999 kB\nVmHWM:\t    {1000 + rise_kib} kB\nVmRSS:\t 1111 kB\n")

    return step


@pytest.mark.parametrize(("rise_kib", "read_bytes"), [(5000, 5000 * KIB), (262, 262 * KIB), (261, None), (16, None), (0, None)])
def test_a_rise_below_what_the_meter_may_be_off_is_unknown_and_not_small(
    rise_kib: int, read_bytes: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be off by 256 KiB and 2 % of the rise."""
    assert peak_rss_bytes(scripted_mark(monkeypatch, tmp_path, rise_kib)) == read_bytes


def test_where_the_kernels_mark_cannot_be_reset_resident_memory_is_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_CLEAR_REFS", tmp_path / "not there" / "clear_refs")
    assert peak_rss_bytes(lambda: torch.ones(MIB)) is None


def test_an_error_of_the_model_is_not_the_meters() -> None:
    def step() -> None:
        raise FileNotFoundError

    with pytest.raises(FileNotFoundError):
        peak_rss_bytes(step)


def test_resident_memory_is_measured_only_in_a_process_of_its_own_and_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "peak_rss_bytes", lambda _: 55)
    step = TRACKED.bind(CHAIN.module, CHAIN.run)
    assert measured(step).peak_rss_bytes is None
    assert measured(step, own_process=True).peak_rss_bytes == 55
    assert measured(step, Cuda(cuda=FakeCuda()), own_process=True).peak_rss_bytes is None


def rises(blocks: int, values: int) -> list[int | None]:
    """In a worker: what several calls that allocate so many blocks each read, one after the other."""
    allocator.return_pages()

    def step() -> list[torch.Tensor]:
        return [torch.ones(values) for _ in range(blocks)]

    step()
    return [peak_rss_bytes(step) for _ in range(3)]


@needs_the_kernels_mark
@pytest.mark.parametrize(("blocks", "values"), [(64, MIB // 4), (4096, 4096)], ids=["blocks of 1 MiB", "blocks of 16 KiB"])
def test_64_mib_in_a_worker_that_returns_its_pages_read_as_64_mib_again_and_again(blocks: int, values: int) -> None:
    """glibc keeps the pages of small blocks that are freed: they count as well, although they were there before."""
    for size in launches().run(rises, blocks, values):
        assert size == pytest.approx(64 * MIB, abs=2 * MIB)


def kept(set_allocator: Callable[[], None]) -> int | None:
    set_allocator()
    ones = partial(torch.ones, 4 * MIB)
    ones()
    return kept_rss_bytes(ones)


@needs_the_kernels_mark
def test_what_stays_resident_after_a_call_is_what_the_allocator_keeps() -> None:
    run = launches().run
    assert run(kept, allocator.return_pages) is None
    assert run(kept, allocator.keep_pages) == pytest.approx(16 * MIB, abs=MIB)


@pytest.mark.parametrize(("tells_requests", "read"), [(True, (8000, 500, 0)), (False, (None, None, 2 * MIB))])
def test_on_a_gpu_what_tensors_asked_for_is_told_and_never_the_allocators_blocks(
    tells_requests: bool, read: tuple[int | None, ...]
) -> None:
    cuda = FakeCuda(resting_bytes=1500 * tells_requests, tells_requests=tells_requests)
    found = measured(Arm(cuda, peak_bytes=8000, held_bytes=500), Cuda(cuda=cuda))
    assert (found.peak_tensor_bytes, found.held_tensor_bytes, found.peak_reserved_bytes) == read
    withheld = () if tells_requests else ("peak_tensor_bytes", "held_tensor_bytes")
    assert {figure: "sizes of its blocks" in reason for figure, reason in found.unavailable.items()} == dict.fromkeys(
        withheld, True
    )


def test_figures_that_miss_what_another_thread_did_are_withheld_and_the_record_says_so() -> None:
    found = measured(threaded)
    assert (found.peak_tensor_bytes, found.held_tensor_bytes, found.saved_bytes) == (None, None, None)
    assert list(found.unavailable) == ["peak_tensor_bytes", "held_tensor_bytes", "saved_bytes"]
    assert "threads that this meter does not see (aten::empty, aten::fill_, aten::ones)" in found.unavailable["saved_bytes"]
    on_gpu = measured(threaded, Cuda(cuda=FakeCuda()))
    assert (on_gpu.peak_tensor_bytes, on_gpu.held_tensor_bytes, on_gpu.saved_bytes) == (0, 0, None), (
        "its allocator sees all threads"
    )


def test_saved_bytes_that_torch_does_not_let_be_watched_are_withheld_with_its_words() -> None:
    gradient = torch.func.grad(lambda y: (y**2).sum())
    found = measured(lambda: gradient(torch.ones(100)))
    assert (found.held_tensor_bytes, found.saved_bytes, found.saved_by_module) == (400, None, [])
    assert "don't yet support saved tensor hooks" in found.unavailable["saved_bytes"]


def test_the_collector_is_off_while_memory_is_read_because_it_would_free_what_earlier_calls_left() -> None:
    collecting: list[bool] = []

    def step() -> torch.Tensor:
        collecting.append(gc.isenabled())
        return torch.ones(10)

    measure_memory(step, operators(torch.Tensor), Cpu(), CHAIN, own_process=False)
    assert not any(collecting)
    assert gc.isenabled()


def test_growth_per_step_is_the_slope_over_steps_and_on_a_gpu_its_allocators() -> None:
    def loop(steps: int) -> Step:
        return lambda: [torch.ones(1000) for _ in range(steps)]

    grown = with_growth(Memory(held_tensor_bytes=1), loop, Cpu())
    assert grown.held_bytes_per_step == 4000
    assert grown.heap_bytes_per_step is None or abs(grown.heap_bytes_per_step) < 2000
    assert with_growth(Memory(), loop, Cpu()) == Memory()
    cuda = FakeCuda()
    grown = with_growth(Memory(held_tensor_bytes=1), lambda steps: Arm(cuda, 8000, 700 * steps), Cuda(cuda=cuda))
    assert (grown.held_bytes_per_step, grown.heap_bytes_per_step) == (700, None)


def test_a_figure_takes_what_rests_on_it_along_and_one_that_was_not_there_needs_no_reason() -> None:
    whole = Memory(
        peak_tensor_bytes=1, held_tensor_bytes=2, saved_bytes=3, peak_rss_bytes=4, opaque_saved_bytes=5, cast_saved_bytes=6,
        input_saved_bytes=9, held_bytes_per_step=7, heap_bytes_per_step=8, saved_by_module=[SavedBy("x", 3)],
    )  # fmt: skip
    assert withheld(whole, {}) == whole
    assert withheld(whole, {"saved_bytes": "why", "peak_reserved_bytes": "no GPU"}) == replace(
        whole, saved_bytes=None, opaque_saved_bytes=None, cast_saved_bytes=None, input_saved_bytes=None, saved_by_module=[],
        unavailable={"saved_bytes": "why"},
    )  # fmt: skip
    assert withheld(whole, {"held_tensor_bytes": "off", "peak_rss_bytes": "off"}) == replace(
        whole, held_tensor_bytes=None, held_bytes_per_step=None, heap_bytes_per_step=None, peak_rss_bytes=None,
        unavailable={"held_tensor_bytes": "off", "peak_rss_bytes": "off"},
    )  # fmt: skip
