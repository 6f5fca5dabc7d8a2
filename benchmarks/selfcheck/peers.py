"""The other harnesses, as a user would run them: one lane after the other, each for the same seconds, allocator as shipped.

All of them compute with one thread and are read by their median.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import IO

import torch
from torch.utils.benchmark import Timer

from benchmarks.measure.timing import Announce
from benchmarks.room import CleanRooms
from benchmarks.selfcheck.lanes import LANES, Reading, build_lanes, of_medians

ROOT = Path(__file__).parent.parent.parent
Measure = Callable[[int, float, Callable[[], None]], list[Reading]]
"""`measure(repeats, seconds per lane, advance)`; calls `advance` after each repeat."""

_PYPERF_VALUE_SECONDS = 0.1
"""What one value of pyperf takes at least, by its default."""

_TEST_FILE = f"""
import pytest, torch
from benchmarks.selfcheck.lanes import build_lanes

torch.set_num_threads(1)
LANES = build_lanes()

@pytest.mark.parametrize("lane", {LANES!r})
@pytest.mark.parametrize("repeat", range(REPEATS))
def test_lane(benchmark, repeat, lane):
    benchmark(LANES[lane])
"""


def pytest_benchmark(repeats: int, seconds: float, advance: Callable[[], None]) -> list[Reading]:
    """One pytest for all repeats, in an empty folder, so that neither our options nor our conftest have a say."""
    with tempfile.TemporaryDirectory(prefix="gradtax-") as name:
        folder = Path(name)
        (folder / "pytest.ini").write_text("[pytest]\n")
        (folder / "test_lanes.py").write_text(_TEST_FILE.replace("REPEATS", str(repeats)))
        command = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", "test_lanes.py",
                   f"--benchmark-max-time={seconds}", "--benchmark-json=run.json"]  # fmt: skip
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST", "PY_COLORS"))}
        environment |= {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
        with subprocess.Popen(  # noqa: S603 - our own
            command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            said = _follow(process.stdout, advance)
        if process.returncode:
            raise RuntimeError(f"pytest-benchmark ended with exit status {process.returncode}:\n{said}")
        benchmarks = json.loads((folder / "run.json").read_text())["benchmarks"]
    medians: dict[int, dict[str, float]] = {}
    for one in benchmarks:
        medians.setdefault(one["params"]["repeat"], {})[one["params"]["lane"]] = one["stats"]["median"]
    return [of_medians(lanes) for lanes in medians.values()]


def _follow(lines: IO[str] | None, advance: Callable[[], None]) -> str:
    """Advances when all lanes of a repeat have passed; returns what was said."""
    said, passed = [], 0
    for line in lines or ():
        said.append(line)
        if " PASSED" in line:
            passed += 1
            if passed % len(LANES) == 0:
                advance()
    return "".join(said)


def blocked_autorange(seconds: float, *, announce: Announce) -> dict[str, float]:
    """Median seconds by lane. To be run in a room."""
    medians = {}
    for name, lane in build_lanes().items():
        announce.lane(name)
        medians[name] = Timer("lane()", globals={"lane": lane}).blocked_autorange(min_run_time=seconds).median
    return medians


def pyperf_worker(seconds: float, *, announce: Announce) -> dict[str, float]:
    """Median seconds by lane, from pyperf's worker without the manager that would start 20 of them. To be run in a room."""
    torch.set_num_threads(1)
    lanes = build_lanes()
    call_seconds = statistics.median(_seconds_of(lanes[LANES[0]]) for _ in range(100))
    loops = 2 ** math.ceil(math.log2(_PYPERF_VALUE_SECONDS / call_seconds))  # as pyperf's own calibration doubles them
    values = max(1, round(seconds / (loops * call_seconds)))
    runner = import_module("pyperf").Runner()
    runner.parse_args(["--worker", "--quiet", "--warmups=1", f"--loops={loops}", f"--values={values}"])
    medians = {}
    for name, lane in lanes.items():
        announce.lane(name)
        medians[name] = runner.bench_func(name, lane).median()
    return medians


def _seconds_of(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _in_rooms(
    task: Callable[..., dict[str, float]], repeats: int, seconds: float, advance: Callable[[], None]
) -> list[Reading]:
    readings = []
    for _ in range(repeats):
        readings.append(of_medians(CleanRooms(60 + seconds * 10 * len(LANES)).run(task, seconds, lanes=LANES)))
        advance()
    return readings


torch_timer: Measure = partial(_in_rooms, blocked_autorange)
pyperf: Measure | None = partial(_in_rooms, pyperf_worker) if find_spec("pyperf") else None
