"""Known blocks tell a good meter from its neighbour, and a meter that is off gives no figure in the whole run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from stand_ins import FakeCuda

from benchmarks.device import Cpu, Cuda
from benchmarks.failure import Failure
from benchmarks.measure import calibration
from benchmarks.measure.calibration import (
    BLOCKS_BYTES,
    METERS,
    MIB,
    Instrument,
    Reading,
    distrusted,
    instruments,
    known_step,
    readings,
)
from benchmarks.measure.graph import call_recording_saved
from benchmarks.modes import Step
from benchmarks.options import RunOptions
from benchmarks.record import Group, Timed
from benchmarks.room import CleanRooms, ThisProcess
from benchmarks.session import Session
from benchmarks.suite import Outcome
from benchmarks.tasks import calibrate

EXACT = ("peak_tensor_bytes", "held_tensor_bytes", "saved_bytes")
GROUP = Group("forward", "mlp", "tiny", "cpu", "float32", "resident")


def reading(meter: str, state: calibration.State, error_bytes: int | None, block_bytes: int = 16 * MIB) -> Reading:
    expected = METERS[meter].expected_bytes(block_bytes)
    measured = None if error_bytes is None else expected + error_bytes
    within = error_bytes is not None and METERS[meter].allows(error_bytes, block_bytes)
    return Reading(meter, "cpu", block_bytes, state, expected, measured, error_bytes, within)


def test_the_exact_meters_read_every_block_to_the_byte_cold_and_warm() -> None:
    found = readings(instruments(Cpu(), own_process=False), "cpu")
    assert [(one.meter, one.block_bytes, one.state) for one in found[-4:]] == [
        ("saved_bytes", 16 * MIB, "cold"), ("saved_bytes", 16 * MIB, "warm"),
        ("saved_bytes", 256 * MIB, "cold"), ("saved_bytes", 256 * MIB, "warm"),
    ]  # fmt: skip
    assert {one.meter for one in found} == set(EXACT)
    assert len(found) == len(EXACT) * len(BLOCKS_BYTES) * 2
    assert all(one.error_bytes == 0 and one.within_tolerance for one in found)


def test_in_a_room_of_its_own_resident_memory_and_the_heap_are_read_too() -> None:
    found = CleanRooms(60).run(calibrate, "cpu", 1, own_process=True)
    assert {one.meter for one in found} == {*EXACT, "peak_rss_bytes", "graph_heap_bytes"}
    assert all(one.error_bytes is None or one.error_bytes > 0 for one in found if one.meter == "graph_heap_bytes")


@pytest.mark.parametrize("meter", EXACT)
@pytest.mark.parametrize("neighbour", [*EXACT, "all that was allocated", "nothing"])
def test_a_meter_that_is_replaced_by_its_neighbour_is_found_out(meter: str, neighbour: str) -> None:
    def read_neighbour(step: Step) -> dict[str, int | None]:
        found = {"nothing": 0, "all that was allocated": MIB * 9 // 8}
        for instrument in instruments(Cpu(), own_process=False):
            found |= {name: value or 0 for name, value in instrument.read(step).items()}
        return {meter: found[neighbour]}

    found = [one for one in readings([Instrument(read_neighbour)], "cpu") if one.block_bytes == MIB]
    assert (meter in distrusted(found)) == (meter != neighbour)


def summed(tensors: list[torch.Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)


@pytest.mark.parametrize(
    ("wrong", "eighths"),
    [
        (summed, 3 / 4),
        (lambda tensors: summed(list({tensor.data_ptr(): tensor for tensor in tensors}.values())), 1 / 4),
        (lambda tensors: sum(tensor.untyped_storage().nbytes() for tensor in tensors), 3),
    ],
    ids=["naive sum", "unique by view size", "storages counted each time"],
)
def test_saved_bytes_counted_in_another_way_are_found_out(wrong: Callable[[list[torch.Tensor]], int], eighths: float) -> None:
    def read_wrong(step: Step) -> dict[str, int | None]:
        return {"saved_bytes": wrong(call_recording_saved(step)[1])}

    found = readings([Instrument(read_wrong)], "cpu")
    assert [one.measured_bytes for one in found] == [block * eighths / 8 for block in BLOCKS_BYTES for _ in range(2)]
    assert "saved_bytes" in distrusted(found)


def test_resident_memory_that_reads_the_final_level_or_half_is_found_out() -> None:
    for error_bytes in (-10 * MIB, -8 * MIB):
        assert "peak_rss_bytes" in distrusted([reading("peak_rss_bytes", "warm", error_bytes)])


def test_a_known_step_for_resident_memory_writes_what_it_allocates() -> None:
    output = known_step(MIB, "cpu", written=True)()
    assert output.nbytes == MIB // 4
    assert bool((output == 1).all())


def test_resident_memory_may_be_off_by_two_per_cent_and_256_kib() -> None:
    limit = int(16 * MIB * 0.02 + 256 * 1024)
    assert METERS["peak_rss_bytes"].allows(-limit, 16 * MIB)
    assert not METERS["peak_rss_bytes"].allows(limit + 1, 16 * MIB)


def test_the_reason_names_the_worst_error_its_block_and_the_tolerance() -> None:
    found = [
        reading("peak_rss_bytes", "warm", -MIB),
        reading("peak_rss_bytes", "warm", 3 * MIB),
        reading("saved_bytes", "warm", 0),
    ]
    assert distrusted(found) == {
        "peak_rss_bytes": "its meter was off by 3.00 MiB on a known call of 16.0 MiB (tolerance: 2% + 256 KiB)"
    }
    assert distrusted([reading("peak_rss_bytes", "warm", None)]) == {
        "peak_rss_bytes": "its meter read nothing of a known call of 16.0 MiB"
    }


def test_a_cold_reading_is_kept_but_held_against_no_meter() -> None:
    assert distrusted([reading("peak_rss_bytes", "cold", 9 * MIB)]) == {}


def test_on_a_gpu_its_allocators_statistics_are_the_meters() -> None:
    cuda = FakeCuda()
    tensors, saved = instruments(Cuda(cuda), own_process=True)

    def step() -> None:
        cuda.allocate(5000)
        cuda.free(2000)

    assert tensors.read(step) == {"peak_tensor_bytes": 5000, "held_tensor_bytes": 3000, "peak_reserved_bytes": 5120}
    assert saved.read(lambda: None) == {"saved_bytes": 0}


class Silent:
    """Shows nothing."""

    def begins(self, *_: Any) -> None: ...

    def says(self, text: str) -> None: ...

    def ends(self, outcome: Outcome) -> None: ...


class Calibrated(ThisProcess):
    """Does as ThisProcess does, but what the meters read is given; counts how often they were asked."""

    def __init__(self, found: list[Reading] | Failure) -> None:
        self.found, self.asked = found, 0

    def run(self, task: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if task is not calibrate:
            return super().run(task, *args, **kwargs)
        self.asked += 1
        if isinstance(self.found, Failure):
            raise self.found
        return self.found


def run_of(found: list[Reading] | Failure, *, sizes: tuple[str, ...] = ("tiny",), contract_only: bool = False) -> Session:
    session = Session(
        RunOptions(
            models=("mlp",),
            sizes=sizes,
            modes=("tracked",),
            scenarios=("forward",),
            devices=("cpu",),
            budget=0.05,
            in_process=True,
        )
    )
    session.rooms = Calibrated(found)
    for planned in session.planned:
        session.find(planned.cases[0], Silent(), contract_only=contract_only)
    return session


def test_a_run_stores_its_readings_and_withholds_what_a_meter_that_is_off_has_measured() -> None:
    found = [reading("saved_bytes", "warm", 4), reading("peak_tensor_bytes", "warm", 0)]
    session = run_of(found, sizes=("tiny", "small"))
    assert session.top_level()["conditions"]["meters"][0] == {
        "meter": "saved_bytes", "device": "cpu", "block_bytes": 16 * MIB, "state": "warm", "expected_bytes": 2 * MIB,
        "measured_bytes": 2 * MIB + 4, "error_bytes": 4, "within_tolerance": False,
    }  # fmt: skip
    assert len(session.results) == 2
    for result in session.results:
        assert result.memory.saved_bytes is None
        assert result.memory.peak_tensor_bytes is not None
        assert list(result.memory.unavailable) == ["saved_bytes"]
    assert isinstance(session.rooms, Calibrated)
    assert session.rooms.asked == 1


def test_where_the_meters_cannot_be_tried_no_memory_figure_is_told() -> None:
    session = run_of(Failure("out_of_memory", "no 256 MiB here"))
    memory = session.results[0].memory
    assert (memory.peak_tensor_bytes, memory.held_tensor_bytes, memory.saved_bytes) == (None, None, None)
    assert memory.unavailable["saved_bytes"] == "its meter could not be tried: out_of_memory: no 256 MiB here"
    assert session.top_level()["conditions"]["meters"] == []


def test_checking_contracts_alone_tries_no_meter() -> None:
    session = run_of([], contract_only=True)
    assert isinstance(session.rooms, Calibrated)
    assert session.rooms.asked == 0


def test_a_session_finds_each_case_of_its_groups() -> None:
    session = run_of([reading("saved_bytes", "warm", 0)])
    assert isinstance(session.find(GROUP.case("tracked"), Silent()), Timed)
    assert session.results[0].memory.unavailable == {}
