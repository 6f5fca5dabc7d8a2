"""`selfcheck meters` shows every reading, forces the sampler, and finds pages that were asked for and never written."""

from __future__ import annotations

import mmap
from pathlib import Path

import pytest
import torch

from analysis.render import terminal
from benchmarks.measure.calibration import BLOCKS_BYTES, METERS, MIB, Reading
from benchmarks.room import CleanRooms
from benchmarks.selfcheck import meters
from benchmarks.selfcheck.meters import sample, unwritten_bytes

WELL = Reading("peak_rss_bytes", "cpu", MIB, "warm", MIB, MIB - 4096, -4096, within_tolerance=True)
COLD = Reading("peak_rss_bytes", "cpu", MIB, "cold", MIB, 4 * MIB, 3 * MIB, within_tolerance=False)
SILENT = Reading("peak_rss_bytes", "cpu", MIB, "warm", MIB, None, None, within_tolerance=False)


@pytest.mark.skipif(not Path("/proc/self/pagemap").exists(), reason="needs Linux's pagemap")
def test_pages_that_were_asked_for_and_never_written_are_counted() -> None:
    block = torch.frombuffer(mmap.mmap(-1, 64 * mmap.PAGESIZE), dtype=torch.uint8)
    assert unwritten_bytes(block.data_ptr(), block.nbytes) == 64 * mmap.PAGESIZE
    block[5 * mmap.PAGESIZE - 1 : 6 * mmap.PAGESIZE] = 1
    assert unwritten_bytes(block.data_ptr(), block.nbytes) == 62 * mmap.PAGESIZE
    assert unwritten_bytes(block.data_ptr(), 0) == 0


def test_the_sampler_reads_known_blocks_where_it_is_forced() -> None:
    """A machine in distress may wake it too seldom: then it reads nothing, but nothing wrong."""
    found = CleanRooms(60).run(sample)
    assert [one.block_bytes for one in found] == [block for block in BLOCKS_BYTES for _ in range(2)]
    warm = [one.error_bytes for one in found if one.state == "warm" and one.block_bytes > MIB]
    assert all(error is None or METERS["peak_rss_bytes"].allows(error, 16 * MIB) for error in warm)


def test_every_reading_is_shown_with_its_error_and_what_it_may_be() -> None:
    shown = terminal(meters._readings_table([WELL, COLD, SILENT])).splitlines()
    assert "1.00 MiB 1020 KiB -4.00 KiB 2% + 256 KiB yes" in " ".join(shown[2].split())
    assert shown[3].endswith("NO")
    assert shown[4].split()[-6:] == ["-", "2%", "+", "256", "KiB", "NO"]


def test_goals_hold_warm_readings_and_real_models_against_the_tolerance() -> None:
    blocks, models = meters._goals([WELL, COLD], {("mlp", "tracked"): (MIB, MIB, 0)})
    assert (blocks.found, blocks.reached, models.reached) == ("1 of 1", True, True)
    blocks, models = meters._goals(
        [WELL, SILENT], {("mlp", "tracked"): (MIB, MIB, 0), ("lstm", "tracked"): (20 * MIB, 10 * MIB, 10 * MIB)}
    )
    assert (blocks.found, blocks.reached) == ("1 of 2", False)
    assert (models.found, models.reached, models.figures) == ("1 of 2", False, "2 with the pages that were never written")
