"""Known blocks tell a good meter from its neighbour."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from stand_ins import FakeCuda, launches

from benchmarks.device import Cpu, Cuda
from benchmarks.measure import known_blocks
from benchmarks.measure.known_blocks import BLOCKS_BYTES, KnownBlock, Reading, distrusted, readings, try_meters
from benchmarks.measure.memory import measure_memory
from benchmarks.record import Memory

MIB = 2**20
EXACT = ("peak_tensor_bytes", "held_tensor_bytes", "saved_bytes")


def test_the_exact_meters_read_every_block_to_the_byte() -> None:
    found = readings(Cpu(), "cpu", own_process=False)
    assert [(reading.meter, reading.block_bytes) for reading in found] == [(m, block) for block in BLOCKS_BYTES for m in EXACT]
    assert all(reading.measured_bytes == reading.expected_bytes for reading in found)
    assert distrusted(found) == {}


def test_in_a_worker_of_its_own_resident_memory_is_read_too() -> None:
    assert {reading.meter for reading in launches().run(try_meters, "cpu", 1, True)} == {*EXACT, "peak_rss_bytes"}


@pytest.mark.parametrize("neighbour", [*EXACT, "nothing"])
def test_a_meter_that_reads_its_neighbour_is_found_out(neighbour: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def confused(*args: Any, **kwargs: Any) -> Memory:
        found = measure_memory(*args, **kwargs)
        changes: dict[str, Any] = dict.fromkeys(EXACT, 0 if neighbour == "nothing" else getattr(found, neighbour))
        return replace(found, **changes)

    monkeypatch.setattr(known_blocks, "measure_memory", confused)
    monkeypatch.setattr(known_blocks, "BLOCKS_BYTES", (MIB,))
    assert set(distrusted(readings(Cpu(), "cpu", own_process=False))) == {*EXACT} - {neighbour}


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
