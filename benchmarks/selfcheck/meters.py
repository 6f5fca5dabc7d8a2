"""`selfcheck meters`: known blocks through every memory meter, and resident memory against the tensor peak of real models."""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from analysis.figures import bytes_text
from analysis.goals import Goal, goals_table
from analysis.render import Column, Section, Table
from benchmarks import allocator
from benchmarks.device import DEVICES
from benchmarks.measure.calibration import METERS, Instrument, Reading, readings
from benchmarks.measure.graph import call_recording_saved
from benchmarks.measure.memory import sampled_rss_bytes
from benchmarks.models import MODELS, Source
from benchmarks.modes import NO_GRAD, TRACKED, Step
from benchmarks.options import THREADS, TIMEOUT_SECONDS
from benchmarks.plan import Planned
from benchmarks.record import Group
from benchmarks.room import CleanRooms
from benchmarks.tasks import Job, calibrate, examine

RSS = METERS["peak_rss_bytes"]
Found = tuple[int, int, int]
"""Tensor peak, resident peak, and bytes that are saved for backward in pages that were never written."""


def meters() -> list[Table]:
    """Every meter on every device here, the sampler that no run may need, and the built-in medium models (some ten seconds)."""
    rooms = CleanRooms(TIMEOUT_SECONDS)
    present = [name for name, device in DEVICES.items() if device().unavailable() is None]
    found = [one for name in present for one in rooms.run(calibrate, name, THREADS, own_process=True)]
    found += rooms.run(sample)
    models = {(name, mode): rooms.run(resident, _job(name), mode) for name in MODELS for mode in (TRACKED.name, NO_GRAD.name)}
    return [_readings_table(found), _models_table(models), goals_table(_goals(found, models))]


def sample(*, announce: Any) -> list[Reading]:
    """The fallback sampler, forced: in a room, also where the kernel's mark can be reset."""
    del announce
    allocator.return_pages()
    process = psutil.Process()

    def read(step: Step) -> Mapping[str, int | None]:
        return {"peak_rss_bytes": sampled_rss_bytes(step, lambda: process.memory_info().rss)}

    return [replace(one, device="cpu, sampler") for one in readings([Instrument(read, written=True)], "cpu")]


def resident(job: Job, mode: str, *, announce: Any) -> Found:
    memory = examine(job, mode, with_tracked=False, own_process=True, announce=announce).memory
    assert memory is not None
    allocator.release_free_pages()
    _, saved = call_recording_saved(job.step(job.build(), mode))
    storages = {storage.data_ptr(): storage.nbytes() for storage in (tensor.untyped_storage() for tensor in saved)}
    unwritten = sum(unwritten_bytes(address, size) for address, size in storages.items())
    return memory.peak_tensor_bytes or 0, memory.peak_rss_bytes or 0, unwritten


def unwritten_bytes(address: int, size: int) -> int:
    """How many of these bytes lie in pages without memory behind them (bit 63 of Linux's /proc/self/pagemap; 0 elsewhere)."""
    pagemap, first, last = Path("/proc/self/pagemap"), address // mmap.PAGESIZE, (address + size - 1) // mmap.PAGESIZE
    if size == 0 or not pagemap.exists():
        return 0
    with pagemap.open("rb") as file:
        file.seek(first * 8)
        entries = memoryview(file.read((last - first + 1) * 8)).cast("Q")
    return sum(1 for entry in entries if not entry >> 63) * mmap.PAGESIZE


def _job(model: str) -> Job:
    group = Group("forward", model, "medium", "cpu", "float32", "resident")
    return Planned(group, Source(model, "medium"), ()).job(THREADS)


def _readings_table(found: Iterable[Reading]) -> Table:
    rows = [
        [one.meter, one.device, one.state, bytes_text(one.block_bytes), *_bytes(one.expected_bytes, one.measured_bytes),
         METERS[one.meter].tolerance, "yes" if one.within_tolerance else "NO"]
        for one in found
    ]  # fmt: skip
    columns = [Column("meter", text=True), Column("on", text=True), Column("state", text=True), Column("block"), Column("expected"),
               Column("measured"), Column("error"), Column("may be off"), Column("within", text=True)]  # fmt: skip
    notes = ["cold: the first call with a meter and block; the very first in a process makes torch's code resident as well"]
    return Table(columns, (), [Section("", (), rows)], notes)


def _models_table(models: Mapping[tuple[str, str], Found]) -> Table:
    rows = [
        [name, mode, *_bytes(peak, rss), bytes_text(unwritten), "yes" if RSS.allows(rss - peak, peak) else "NO"]
        for (name, mode), (peak, rss, unwritten) in models.items()
    ]
    columns = [Column("medium", text=True), Column("mode", text=True), Column("tensor peak"), Column("resident"),
               Column("difference"), Column("saved, never written"), Column("within", text=True)]  # fmt: skip
    return Table(columns, (), [Section("", (), rows)], ["never written: oneDNN's LSTM asks for more workspace than it uses"])


def _bytes(expected: int, measured: int | None) -> list[str]:
    error = None if measured is None else measured - expected
    return [bytes_text(expected), bytes_text(measured), bytes_text(error)]


def _goals(found: Iterable[Reading], models: Mapping[tuple[str, str], Found]) -> list[Goal]:
    warm = [one for one in found if one.state == "warm"]
    good = sum(one.within_tolerance for one in warm)
    close = sum(RSS.allows(rss - peak, peak) for peak, rss, _ in models.values())
    explained = sum(RSS.allows(rss + unwritten - peak, peak) for peak, rss, unwritten in models.values())
    return [
        Goal("warm readings of known blocks within tolerance", f"{good} of {len(warm)}", "all", good == len(warm)),
        Goal("resident peak of medium models at the tensor peak", f"{close} of {len(models)}", f"all within {RSS.tolerance}",
             close == len(models), f"{explained} with the pages that were never written"),
    ]  # fmt: skip
