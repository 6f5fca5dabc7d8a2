"""Known blocks tell a good meter from its neighbour."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from stand_ins import MIB, FakeCuda, launches

from benchmarks import allocator
from benchmarks.device import Cuda
from benchmarks.measure import known_blocks
from benchmarks.measure.known_blocks import KnownBlock, try_meters
from benchmarks.measure.memory import measure_memory
from benchmarks.record import Memory

EXACT = ("peak_tensor_bytes", "held_tensor_bytes", "saved_bytes")


def test_the_exact_meters_read_every_block_to_the_byte() -> None:
    assert try_meters("cpu", 1, False) == {}
    assert set(launches().run(try_meters, "cpu", 1, True)) <= {"peak_rss_bytes"}


def wrong(
    monkeypatch: pytest.MonkeyPatch, change: Callable[[Memory], dict[str, Any]], *, own_process: bool = False
) -> dict[str, str]:
    """What is found where measured figures are changed, on two blocks."""

    def confused(*args: Any, **kwargs: Any) -> Memory:
        found = measure_memory(*args, **kwargs)
        return replace(found, **change(found))

    monkeypatch.setattr(known_blocks, "measure_memory", confused)
    monkeypatch.setattr(known_blocks, "BLOCKS_BYTES", (16 * MIB, MIB))
    monkeypatch.setattr(allocator, "return_pages", lambda: None)
    return try_meters("cpu", 1, own_process)


@pytest.mark.parametrize("neighbour", EXACT)
def test_a_meter_that_reads_its_neighbour_is_found_out(neighbour: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = wrong(monkeypatch, lambda memory: dict.fromkeys(EXACT, getattr(memory, neighbour)))
    assert set(found) == {*EXACT} - {neighbour}


def test_the_reason_names_the_worst_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    off = {"held_tensor_bytes": None, "saved_bytes": 0, "peak_rss_bytes": 15 * MIB}
    found = wrong(
        monkeypatch, lambda memory: {"peak_tensor_bytes": (memory.peak_tensor_bytes or 0) + 1, **off}, own_process=True
    )
    assert found == {
        "peak_tensor_bytes": "its meter read 16,777,217 B of a known 16,777,216 B",
        "held_tensor_bytes": "its meter read nothing of a known 6,291,456 B",
        "saved_bytes": "its meter read 0 B of a known 2,097,152 B",
        "peak_rss_bytes": "its meter read 15,728,640 B of a known 1,048,576 B",
    }


def test_a_known_block_writes_what_it_allocates() -> None:
    output = KnownBlock(MIB, "cpu")()
    assert output.nbytes == MIB // 4
    assert bool((output == 1).all())


def test_on_a_gpu_its_allocators_statistics_are_the_meters(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stand-in sees nothing of blocks that are on the CPU, so none of its meters is right, and resident memory is not asked for."""
    monkeypatch.setattr(known_blocks, "device_named", lambda _: Cuda(cuda=FakeCuda()))
    found = wrong(monkeypatch, lambda _: {"saved_bytes": 0, "peak_reserved_bytes": 256 * MIB}, own_process=True)
    assert set(found) == {*EXACT, "peak_reserved_bytes"}
    assert found["peak_tensor_bytes"] == "its meter read 0 B of a known 16,777,216 B"
