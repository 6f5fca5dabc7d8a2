"""Known blocks tell a good meter from its neighbour, and figures that contradict each other are told where nothing known explains it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from builders import result
from stand_ins import FakeCuda

from benchmarks.device import Cpu, Cuda
from benchmarks.measure import known_blocks
from benchmarks.measure.known_blocks import BLOCKS_BYTES, KnownBlock, Reading, disagreements, distrusted, readings, try_meters
from benchmarks.measure.memory import METERS, measure_memory
from benchmarks.record import Kernels, Memory, Result
from benchmarks.workers import Launches

MIB = 2**20
EXACT = ("peak_tensor_bytes", "held_tensor_bytes", "saved_bytes")


def test_the_exact_meters_read_every_block_to_the_byte() -> None:
    found = readings(Cpu(), "cpu", own_process=False)
    assert [(reading.meter, reading.block_bytes) for reading in found] == [(m, block) for block in BLOCKS_BYTES for m in EXACT]
    assert all(reading.measured_bytes == reading.expected_bytes for reading in found)
    assert distrusted(found) == {}


def test_in_a_worker_of_its_own_resident_memory_is_read_too() -> None:
    assert {reading.meter for reading in Launches(60).run(try_meters, "cpu", 1, True)} == {*EXACT, "peak_rss_bytes"}


@pytest.mark.parametrize("meter", EXACT)
@pytest.mark.parametrize("neighbour", [*EXACT, "nothing"])
def test_a_meter_that_reads_its_neighbour_is_found_out(meter: str, neighbour: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def confused(*args: Any, **kwargs: Any) -> Memory:
        found = measure_memory(*args, **kwargs)
        changes: dict[str, Any] = {meter: 0 if neighbour == "nothing" else getattr(found, neighbour)}
        return replace(found, **changes)

    monkeypatch.setattr(known_blocks, "measure_memory", confused)
    monkeypatch.setattr(known_blocks, "BLOCKS_BYTES", (MIB,))
    assert (meter in distrusted(readings(Cpu(), "cpu", own_process=False))) == (meter != neighbour)


def test_a_known_block_writes_what_it_allocates() -> None:
    output = KnownBlock(MIB, "cpu")()
    assert output.nbytes == MIB // 4
    assert bool((output == 1).all())


def test_on_a_gpu_its_allocators_statistics_are_the_meters(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stand-in sees nothing of blocks that are on the CPU, so none of its meters is trusted."""
    monkeypatch.setattr(known_blocks, "BLOCKS_BYTES", (MIB,))
    found = readings(Cuda(cuda=FakeCuda()), "cpu", own_process=True)
    assert {reading.meter for reading in found} == {*EXACT, "peak_reserved_bytes"}
    assert distrusted(found)["peak_tensor_bytes"] == "its meter read 0 B of a known 1,048,576 B"


def test_the_reason_names_the_worst_reading() -> None:
    def reading(measured_bytes: int | None, *, within: bool) -> Reading:
        return Reading("peak_rss_bytes", "cpu", 16 * MIB, 16 * MIB, measured_bytes, within)

    found = [reading(15 * MIB, within=False), reading(2, within=False), reading(0, within=True)]
    assert distrusted(found) == {"peak_rss_bytes": "its meter read 2 B of a known 16,777,216 B"}
    assert distrusted([reading(None, within=False)]) == {"peak_rss_bytes": "its meter read nothing of a known 16,777,216 B"}


def test_resident_memory_may_be_off_by_two_per_cent_and_256_kib() -> None:
    limit = int(16 * MIB * 0.02 + 256 * 1024)
    assert METERS["peak_rss_bytes"].allows(-limit, 16 * MIB)
    assert not METERS["peak_rss_bytes"].allows(limit + 1, 16 * MIB)


def memory(peak: int, held: int, saved: int, rss: int) -> Memory:
    return Memory(peak_tensor_bytes=peak * MIB, held_tensor_bytes=held * MIB, saved_bytes=saved * MIB, peak_rss_bytes=rss * MIB)


SOUND = {
    "tracked": memory(10, 8, 7, 10), "no_grad": memory(4, 2, 0, 4), "inference_mode": memory(4, 2, 0, 4),
    "detach": memory(10, 2, 7, 10),
}  # fmt: skip
OTHER = Kernels(same_as_tracked=False, added=["aten::baddbmm"])


def group(mode: str = "", kernels: Kernels | None = None, **changes: Any) -> list[Result]:
    """Results whose figures agree, but for `changes` in the memory of `mode`."""
    return [
        result(
            name,
            memory=replace(figures, **(changes if name == mode else {})),
            kernels=kernels if kernels and name == mode else Kernels(same_as_tracked=True),
        )
        for name, figures in SOUND.items()
    ]


@pytest.mark.parametrize(
    ("mode", "changes", "said"),
    [
        ("inference_mode", {"peak_tensor_bytes": 4 * MIB - 64}, "peak of inference_mode is 4,194,240 B, of no_grad 4,194,304 B"),
        ("detach", {"peak_tensor_bytes": 9 * MIB}, "peak of detach is 9,437,184 B, of tracked 10,485,760 B"),
        ("detach", {"held_tensor_bytes": MIB}, "held of detach is 1,048,576 B, of no_grad 2,097,152 B"),
        ("no_grad", {"peak_rss_bytes": 3 * MIB}, "no_grad peaks at 4,194,304 B in tensors but at 3,145,728 B in resident memory"),
    ],
)  # fmt: skip
def test_a_disagreement_is_said_with_its_group_and_its_figures(mode: str, changes: dict[str, int], said: str) -> None:
    (found,) = disagreements(group(mode, None, **changes))
    assert found.startswith("forward mlp tiny cpu float32: ")
    assert said in found


@pytest.mark.parametrize(
    ("mode", "kernels", "changes"),
    [
        ("", None, {}),
        ("inference_mode", OTHER, {"peak_tensor_bytes": 3 * MIB}),
        ("tracked", None, {"saved_bytes": 9 * MIB}),
        ("detach", None, {"held_tensor_bytes": 3 * MIB}),
        ("no_grad", None, {"peak_rss_bytes": 4 * MIB - int(4 * MIB * 0.02) - 256 * 1024}),
    ],
    ids=["all agrees", "other kernels", "a loop frees what it saved", "an object in the output holds on", "within the meter's error"],
)  # fmt: skip
def test_what_something_known_explains_is_no_disagreement(mode: str, kernels: Kernels | None, changes: dict[str, int]) -> None:
    assert disagreements(group(mode, kernels, **changes)) == []


def test_autocast_keeps_its_copies_under_no_grad_only() -> None:
    results = group("inference_mode", None, peak_tensor_bytes=MIB)
    assert len(disagreements(results)) == 1
    tracked = replace(results[0], memory=replace(results[0].memory, cast_saved_bytes=3 * MIB))
    assert disagreements([tracked, *results[1:]]) == []


def test_workspaces_that_a_library_need_not_write_explain_resident_memory_of_every_mode() -> None:
    short = Memory(peak_tensor_bytes=10 * MIB, held_tensor_bytes=2 * MIB, peak_rss_bytes=3 * MIB)
    for opaque, told in ((7 * MIB, []), (2 * MIB, ["tracked", "no_grad"])):
        results = [result(mode, memory=short) for mode in ("tracked", "no_grad")]
        tracked = replace(results[0], memory=replace(results[0].memory, opaque_saved_bytes=opaque))
        assert [words.split(": ")[1].split()[0] for words in disagreements([tracked, results[1]])] == told


@pytest.mark.parametrize("figure", [*EXACT, "peak_rss_bytes"])
@pytest.mark.parametrize("mode", SOUND)
def test_a_figure_or_a_mode_that_is_missing_breaks_nothing(mode: str, figure: str) -> None:
    assert disagreements(group(mode, **{figure: None})) == []
    assert disagreements([one for one in group() if one.case.mode != mode]) == []


def test_both_allocators_have_one_memory_and_what_breaks_is_told_once() -> None:
    short = Memory(peak_tensor_bytes=9 * MIB, peak_rss_bytes=MIB)
    both = [result("tracked", memory=short, allocator=name) for name in ("pages_kept", "as_shipped")]
    assert len(disagreements(both)) == 1
