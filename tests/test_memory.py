"""Tensor bytes are exact to the byte, saved bytes count each storage once, and resident memory is measured or admitted unknown."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from stand_ins import FakeCuda, Lane
from torch import nn

from benchmarks import allocator
from benchmarks.device import Cpu, Cuda
from benchmarks.measure import memory
from benchmarks.measure.graph import call_recording_saved, graph_nodes, histories, saved_for_backward
from benchmarks.measure.memory import measure_memory, peak_rss_bytes, sampled_rss_bytes, withheld
from benchmarks.measure.profile import profile_call
from benchmarks.measure.timing import Announce
from benchmarks.models import Workload
from benchmarks.modes import DETACH, INFERENCE_MODE, NO_GRAD, TRACKED, Mode, Step
from benchmarks.record import Memory, SavedBy
from benchmarks.room import CleanRooms

U = 64 * 256 * 4
"""Bytes of one activation: float32 (64, 256)."""
MIB = 2**20


def chain(depth: int, mode: Mode) -> Step:
    module = nn.Sequential(*[nn.Linear(256, 256) for _ in range(depth)])
    x = torch.ones(64, 256)
    return mode.bind(module, lambda model: model(x))


def saved_bytes(step: Step, apart: Iterable[torch.Tensor]) -> int:
    return saved_for_backward(step, apart).total_bytes


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
    for depth, peak_bytes, held_bytes in zip((1, 4, 16), peaks, held, strict=True):
        step = chain(depth, mode)
        found = {(call.peak_bytes, call.held_bytes) for call in (profile_call(step) for _ in range(10))}
        assert found == {(peak_bytes, held_bytes)}


def test_temporaries_inside_an_operator_count() -> None:
    x = torch.ones(64, 256)
    call = profile_call(lambda: torch.logsumexp(x, dim=1))
    assert call.held_bytes == 64 * 4
    assert call.peak_bytes > x.nbytes + 64 * 4


def test_a_tensor_freed_before_the_next_is_allocated_does_not_add_up() -> None:
    def step() -> torch.Tensor:
        for _ in range(5):
            torch.empty(1000, dtype=torch.uint8)
        return torch.empty(300, dtype=torch.uint8)

    call = profile_call(step)
    assert (call.peak_bytes, call.held_bytes) == (1000, 300)


def test_the_operators_that_ran_are_named() -> None:
    x = torch.ones(4, 4)
    operators = profile_call(lambda: torch.relu(x @ x)).operators
    assert {"aten::mm", "aten::relu"} <= operators
    assert all(name.startswith("aten::") for name in operators)


def test_profiling_writes_nothing_to_standard_error_and_leaves_it_open(capfd: pytest.CaptureFixture[str]) -> None:
    def fails() -> None:
        raise ValueError("inside")

    profile_call(lambda: torch.ones(4))
    with pytest.raises(ValueError, match="inside"):
        profile_call(fails)
    os.write(2, b"heard")
    assert capfd.readouterr() == ("", "heard")


class Keeps(torch.autograd.Function):
    """Saves for backward what the test wants saved."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, *kept: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(*kept)
        return x.sum()

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:
        raise NotImplementedError


W = torch.ones(2, requires_grad=True)


def keeping(*kept: torch.Tensor) -> Step:
    def step() -> Any:
        return Keeps.apply(W, *kept)  # type: ignore[no-untyped-call]

    return step


def test_a_storage_saved_under_several_views_counts_once() -> None:
    big = torch.ones(100, 10)
    assert saved_bytes(keeping(big, big.T, big.view(-1), big[:50], big[50:]), []) == 4000


def test_a_slice_counts_as_the_whole_storage_that_it_keeps_alive() -> None:
    assert saved_bytes(keeping(torch.ones(1000)[:1]), []) == 4000


def test_an_expanded_tensor_counts_as_what_is_stored_and_not_as_its_shape() -> None:
    assert saved_bytes(keeping(torch.ones(1).expand(1000, 1000)), []) == 4


def test_a_sparse_tensor_counts_with_its_indices() -> None:
    sparse = torch.sparse_coo_tensor(torch.tensor([[1, 5]]), torch.ones(2), (1000,), check_invariants=True).coalesce()
    assert saved_bytes(keeping(sparse), []) == 2 * 8 + 2 * 4


def test_an_empty_tensor_counts_nothing() -> None:
    assert saved_bytes(keeping(torch.ones(0)), []) == 0


def test_parameters_buffers_and_inputs_are_left_apart_also_through_views() -> None:
    parameter, buffer, x, kept = nn.Parameter(torch.ones(10)), torch.ones(20), torch.ones(30), torch.ones(40)
    step = keeping(parameter, buffer[5:], x.view(3, 10), kept)
    assert saved_bytes(step, [parameter, buffer, x]) == 160
    assert saved_bytes(step, [x[:1]]) == 40 + 80 + 160
    assert saved_bytes(step, []) == 40 + 80 + 120 + 160


def test_tensors_of_one_size_saved_one_after_the_other_count_each() -> None:
    """They are dropped by the model at once: only what is kept alive for counting keeps their addresses apart."""

    def step() -> None:
        for _ in range(8):
            keeping(torch.ones(MIB // 4))()

    assert saved_bytes(step, []) == 8 * MIB


@pytest.mark.parametrize("mode", [TRACKED, DETACH], ids=lambda mode: mode.name)
def test_a_chain_keeps_the_inputs_of_its_layers(mode: Mode) -> None:
    module = nn.Sequential(*[nn.Linear(256, 256) for _ in range(4)])
    x = torch.ones(64, 256)
    step = mode.bind(module, lambda model: model(x))
    assert saved_bytes(step, [*module.parameters(), x]) == 3 * U
    assert saved_bytes(step, module.parameters()) == 4 * U


@pytest.mark.parametrize("mode", [NO_GRAD, INFERENCE_MODE], ids=lambda mode: mode.name)
def test_nothing_is_saved_without_tracking(mode: Mode) -> None:
    output, saved = call_recording_saved(chain(4, mode))
    assert saved == []
    assert histories(output) == []


def test_histories_name_the_nodes_that_an_output_hangs_on() -> None:
    tracked = W * 2
    assert histories([tracked, {"detached": tracked.detach(), "leaf": W, "sum": tracked.sum()}]) == [
        "MulBackward0",
        "SumBackward0",
    ]
    with torch.no_grad():
        view = W.view(1, 2)
    assert view.requires_grad
    assert histories(view) == []


class Meter:
    """A process's resident memory as a script, called from the sampler's thread; `seen` is set after so many samples."""

    def __init__(self, sizes: list[int], then: int) -> None:
        self._sizes, self._then = iter(sizes), then
        self._left = len(sizes)
        self.seen = threading.Event()

    def __call__(self) -> int:
        self._left -= 1
        if self._left == 0:
            self.seen.set()
        return next(self._sizes, self._then)


def test_a_rise_during_the_call_is_found_by_sampling() -> None:
    """The first value is the level before the call; the highest is in the middle of it."""
    meter = Meter([1000, *[1000] * 20, 1700, *[1200] * 20], then=1200)
    assert sampled_rss_bytes(lambda: meter.seen.wait(60), meter, sample_seconds=0) == 700


def test_a_call_too_short_for_the_sampler_is_unknown_and_not_zero() -> None:
    assert sampled_rss_bytes(lambda: None, Meter([1000], then=1000), sample_seconds=0.2) is None


def test_the_sampler_takes_over_where_the_kernels_mark_cannot_be_reset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_CLEAR_REFS", tmp_path / "not there" / "clear_refs")
    calls: list[Step] = []

    def sampled(step: Step, rss: Any) -> int:
        assert rss() > MIB
        calls.append(step)
        return 77

    monkeypatch.setattr(memory, "sampled_rss_bytes", sampled)
    step = chain(1, TRACKED)
    assert peak_rss_bytes(step) == (77, "sampler")
    assert calls == [step]


def test_the_kernels_mark_is_reset_before_the_call_and_read_after_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reset, status = tmp_path / "clear_refs", tmp_path / "status"
    monkeypatch.setattr(memory, "_CLEAR_REFS", reset)
    monkeypatch.setattr(memory, "_STATUS", status)
    status.write_text("VmPeak:\t 9999 kB\nVmHWM:\t    1000 kB\nVmRSS:\t 1111 kB\n")

    def step() -> None:
        assert reset.read_text() == "5"
        status.write_text("VmPeak:\t 9999 kB\nVmHWM:\t    1234 kB\nVmRSS:\t 1111 kB\n")

    assert peak_rss_bytes(step) == (234 * 1024, "kernel")


@pytest.mark.parametrize(("preload", "method"), [("/usr/lib/libjemalloc.so.2", "kernel, jemalloc preloaded"), ("", "kernel")])
def test_the_record_says_that_another_allocator_was_preloaded(
    preload: str, method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LD_PRELOAD", preload)
    monkeypatch.setattr(memory, "_CLEAR_REFS", tmp_path / "clear_refs")
    assert peak_rss_bytes(lambda: None)[1] == method
    monkeypatch.setattr(memory, "_CLEAR_REFS", tmp_path / "not there" / "clear_refs")
    assert peak_rss_bytes(lambda: None)[1] == method.replace("kernel", "sampler")


def rises(blocks: int, *, announce: Announce) -> list[tuple[int | None, str]]:
    """In a room: what several calls that allocate so many MiB each read one after the other."""
    allocator.return_pages()

    def step() -> list[torch.Tensor]:
        return [torch.ones(MIB // 4) for _ in range(blocks)]

    step()
    return [peak_rss_bytes(step) for _ in range(3)]


def test_64_mib_in_a_room_that_returns_its_pages_read_as_64_mib_again_and_again() -> None:
    if allocator.unavailable() is not None or not os.access("/proc/self/clear_refs", os.W_OK):
        pytest.skip("needs glibc, and a kernel whose high-water mark can be reset")
    for size, method in CleanRooms(60).run(rises, 64):
        assert method == "kernel"
        assert size == pytest.approx(64 * MIB, abs=2 * MIB)


def small_rises(blocks: int, *, announce: Announce) -> int | None:
    """In a room: the same in blocks of 16 KiB, whose pages glibc keeps when they are freed."""
    allocator.return_pages()

    def step() -> list[torch.Tensor]:
        return [torch.ones(4096) for _ in range(blocks)]

    step()
    return peak_rss_bytes(step)[0]


def test_small_tensors_count_as_resident_although_their_pages_were_there_before() -> None:
    if allocator.unavailable() is not None or not os.access("/proc/self/clear_refs", os.W_OK):
        pytest.skip("needs glibc, and a kernel whose high-water mark can be reset")
    found = CleanRooms(60).run(small_rises, 1024)
    assert found == pytest.approx(16 * MIB, abs=2 * MIB)


def test_resident_memory_and_the_heap_are_measured_only_in_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "peak_rss_bytes", lambda _: (55, "kernel"))
    monkeypatch.setattr(memory, "_heap_bytes", partial(next, iter((1000, 1000 + 4 * U + 77) * 2)))
    workload = Workload.of(nn.Sequential(*[nn.Linear(256, 256) for _ in range(4)]), torch.randn(64, 256))
    step = TRACKED.bind(workload.module, workload.run)
    step()
    profiled = profile_call(step)
    shared = measure_memory(step, profiled, Cpu(), workload, expected_saved_bytes=5, own_process=False)
    assert (shared.peak_tensor_bytes, shared.held_tensor_bytes, shared.saved_bytes) == (4 * U, 4 * U, 3 * U)
    assert (shared.peak_rss_bytes, shared.rss_method, shared.graph_heap_bytes) == (None, None, None)
    assert (shared.expected_saved_bytes, shared.opaque_saved_bytes, shared.graph_nodes) == (5, 0, 4 + 3 * 4 - 0)
    alone = measure_memory(step, profiled, Cpu(), workload, expected_saved_bytes=5, own_process=True)
    assert alone == replace(shared, peak_rss_bytes=55, rss_method="kernel", graph_heap_bytes=77)


def test_on_a_gpu_the_allocators_statistics_take_the_place_of_the_profile_and_resident_memory_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory, "graph_size", lambda _: (0, None))  # the stand-in's output holds no tensors
    cuda = FakeCuda(resting_bytes=1500)
    lane = Lane(cuda, peak_bytes=8000, held_bytes=500)
    workload = Workload.of(nn.Linear(2, 2), torch.ones(1, 2))
    profiled = profile_call(lambda: torch.ones(9))
    found = measure_memory(lane, profiled, Cuda(cuda), workload, expected_saved_bytes=None, own_process=True)
    assert (found.peak_tensor_bytes, found.held_tensor_bytes, found.peak_reserved_bytes) == (8000, 500, 8192)
    assert (found.peak_rss_bytes, found.graph_heap_bytes) == (None, None)


def test_what_is_saved_is_told_by_module_and_by_operator_and_sums_to_the_total() -> None:
    module = nn.Sequential(nn.Linear(4, 8), nn.Sequential(nn.ReLU(), nn.Linear(8, 2)))
    x = torch.ones(3, 4)
    saved = saved_for_backward(lambda: module(x).exp(), [*module.parameters(), x], module)
    assert saved.total_bytes == 3 * 8 * 4 + 3 * 2 * 4
    assert saved.by_module == [SavedBy("1.0", 96), SavedBy("(model)", 24)]
    assert saved.by_operator == [SavedBy("relu", 96), SavedBy("exp", 24)]


def test_the_smallest_savers_are_summed_as_the_rest() -> None:
    module = nn.Sequential(*[nn.Sequential(nn.Linear(4, 4), nn.Sigmoid()) for _ in range(25)])
    x = torch.ones(2, 4)
    saved = saved_for_backward(lambda: module(x), [*module.parameters(), x], module)
    assert len(saved.by_module) == 21
    assert saved.by_module[-1] == SavedBy("(smaller ones, anywhere)", 5 * 32)
    assert sum(part.bytes for part in saved.by_module) == saved.total_bytes == 25 * 32


def test_finding_the_savers_leaves_no_hook_behind_even_after_an_exception() -> None:
    module = nn.Linear(2, 2)
    with pytest.raises(RuntimeError):
        saved_for_backward(lambda: module(torch.ones(1, 3)), [], module)
    saved = saved_for_backward(lambda: module(torch.ones(1, 2)).exp(), [], module)
    assert [part.name for part in saved.by_module] == ["(model)"]
    assert not torch.nn.modules.module._global_forward_hooks
    assert not torch.nn.modules.module._global_forward_pre_hooks


def test_the_nodes_of_a_graph_are_counted_once_each() -> None:
    x = torch.ones(2, requires_grad=True)
    assert graph_nodes(x) == 0
    assert graph_nodes(x * 2) == 2
    assert graph_nodes((x * 2, x * 3)) == 3


def test_the_sampler_ends_with_the_step_even_if_it_raises_and_never_reads_below_zero() -> None:
    def fails() -> None:
        raise ValueError("no such layer")

    before = threading.active_count()
    with pytest.raises(ValueError, match="no such layer"):
        sampled_rss_bytes(fails, lambda: 5)
    assert threading.active_count() == before
    seen = threading.Event()
    readings = iter([1000, *[500] * 20])

    def rss() -> int:
        value = next(readings, None)
        if value is None:
            seen.set()
        return value or 500

    assert sampled_rss_bytes(lambda: seen.wait(10), rss) == 0


def test_where_the_savers_cannot_be_found_all_is_the_models() -> None:
    calls = iter(range(2))

    class Shy(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if next(calls) > 0:
                raise AssertionError("watched")
            return super().forward(x).exp()

    module, x = Shy(2, 2), torch.ones(3, 2)
    saved = saved_for_backward(lambda: module(x), [*module.parameters(), x], module)
    assert saved.total_bytes == 24
    assert saved.by_module == saved.by_operator == [SavedBy("(model)", 24)]


def test_a_module_without_length_is_no_absent_module() -> None:
    class Unmeasurable(nn.Linear):
        def __len__(self) -> int:
            raise TypeError("does not support len()")

    module = Unmeasurable(2, 2)
    saved = saved_for_backward(lambda: module(torch.ones(1, 2)).exp(), [], module)
    assert sorted(part.name for part in saved.by_operator) == ["exp", "linear"]


class Autocast(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))

    def forward(self, x: torch.Tensor) -> Any:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.layers(x)


def test_the_copies_of_weights_that_autocast_keeps_are_told_apart() -> None:
    """Kept in bfloat16 are the input's copy, the activation, and the second layer's weight; the first one's is not needed again."""
    model, x = Autocast(), torch.randn(3, 8)
    saved = saved_for_backward(lambda: model(x), [*model.parameters(), x], model)
    assert (saved.total_bytes, saved.cast_bytes) == (2 * (3 * 8 + 3 * 16), 2 * 4 * 16)
    assert sum(one.bytes for one in saved.by_module) == sum(one.bytes for one in saved.by_operator) == saved.total_bytes


def threaded() -> torch.Tensor:
    """A step that allocates in a thread of its own; `sum` runs where all is seen."""
    made: list[torch.Tensor] = []
    thread = threading.Thread(target=lambda: made.append(torch.ones(MIB // 4)))
    thread.start()
    thread.join()
    return made[0].sum()


def test_figures_that_miss_what_another_thread_did_are_withheld_and_the_record_says_so() -> None:
    profiled = profile_call(threaded)
    assert profiled.unseen == {"aten::ones", "aten::empty", "aten::fill_"}
    assert {"aten::sum", "aten::ones"} <= profiled.operators
    workload = Workload.of(nn.Linear(2, 2), torch.ones(1, 2))
    found = measure_memory(threaded, profiled, Cpu(), workload, expected_saved_bytes=None, own_process=False)
    assert (found.peak_tensor_bytes, found.held_tensor_bytes, found.saved_bytes) == (None, None, None)
    assert list(found.unavailable) == ["peak_tensor_bytes", "held_tensor_bytes", "saved_bytes"]
    assert "threads that this meter does not see (aten::empty, aten::fill_, aten::ones)" in found.unavailable["saved_bytes"]


def test_on_a_gpu_the_allocator_sees_every_thread_and_only_saved_bytes_are_withheld(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "graph_size", lambda _: (0, None))  # the stand-in's output holds no tensors
    cuda = FakeCuda()
    workload = Workload.of(nn.Linear(2, 2), torch.ones(1, 2))
    lane = Lane(cuda, peak_bytes=8000, held_bytes=500)
    found = measure_memory(
        lane, profile_call(threaded), Cuda(cuda), workload, expected_saved_bytes=None, own_process=True
    )  # fmt: skip
    assert (found.peak_tensor_bytes, found.held_tensor_bytes, found.saved_bytes) == (8000, 500, None)


def test_a_step_whose_operators_vary_from_call_to_call_is_not_taken_for_one_with_threads() -> None:
    calls = iter(range(4))

    def step() -> list[torch.Tensor]:
        return [torch.ones(4) for _ in range(next(calls))]

    assert profile_call(step).unseen == set()


jit: Any = torch.jit  # TorchScript takes comments for mypy as its own


def summed_exp(x: torch.Tensor) -> torch.Tensor:
    return x.exp().sum()


def forked_sum(x: torch.Tensor) -> torch.Tensor:
    joined: torch.Tensor = jit.wait(jit.fork(summed_exp, x))
    return joined


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")
def test_what_torch_itself_forks_is_seen_to_the_byte() -> None:
    x, forked = torch.ones(64, 256), jit.script(forked_sum)
    forked(x)
    found = {(call.peak_bytes, call.unseen) for call in (profile_call(partial(forked, x)) for _ in range(10))}
    assert found == {(x.nbytes + 4, frozenset())}


def test_a_figure_takes_what_rests_on_it_along_and_one_that_was_not_there_needs_no_reason() -> None:
    whole = Memory(1, 2, 3, 4, rss_method="kernel", opaque_saved_bytes=5, graph_heap_bytes=6, saved_by_module=[SavedBy("x", 3)])
    assert withheld(whole, {}) == whole
    assert withheld(whole, {"saved_bytes": "why", "peak_reserved_bytes": "no GPU"}) == replace(
        whole, saved_bytes=None, opaque_saved_bytes=None, saved_by_module=[], unavailable={"saved_bytes": "why"}
    )
    assert withheld(whole, {"held_tensor_bytes": "off", "peak_rss_bytes": "off"}) == replace(
        whole, held_tensor_bytes=None, graph_heap_bytes=None, peak_rss_bytes=None, rss_method=None,
        unavailable={"held_tensor_bytes": "off", "peak_rss_bytes": "off"},
    )  # fmt: skip
