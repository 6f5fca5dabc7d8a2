"""`python -m analysis selfcheck`: how fast many runs are read and a report is written, in processes of their own, beside the goals."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise, product
from pathlib import Path

from analysis.goals import Goal, goals_table
from analysis.render import Table
from benchmarks.record import Case, Contract, Interval, Kernels, Memory, ModelFacts, Result, to_json

ROOT = Path(__file__).parent.parent
MODELS, SIZES, MODES = ("mlp", "convnet", "transformer", "lstm", "own"), ("tiny", "small", "medium"), ("tracked", "no_grad", "inference_mode", "detach")  # fmt: skip
DEFAULT_RUN = ROOT / "results" / "reference" / "cpu.json"
ROUNDS = 200
REPEATS = 3


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one process: seconds from start to end, those of them on a processor, and the most memory it ever held."""

    seconds: float
    busy_seconds: float
    peak_bytes: int

    def __str__(self) -> str:
        return f"{self.seconds:.1f} s, {self.peak_bytes / 2**20:.0f} MiB"


def selfcheck(*, full: bool = False) -> Table:
    """Takes a quarter of a minute, `full` one; 400 MB in a temporary folder."""
    cases = len(MODELS) * len(SIZES) * len(MODES)
    note = f"made-up runs of {cases} cases with {ROUNDS} rounds each; medians of {REPEATS}, but of 10,000 runs one reading; "
    note += "busy: seconds of them on a processor, from which growth is computed"
    return goals_table([goal for check in CHECKS for goal in check(full)], [note])


def _reading(full: bool) -> list[Goal]:
    costs: dict[int, Cost] = {}
    with tempfile.TemporaryDirectory() as folder:
        for number in (250, 1000, *([10_000] if full else [])):
            write_runs(Path(folder), number)
            costs[number] = _median([cost_of("summarise", folder) for _ in range(REPEATS if number <= 1000 else 1)])
    found = costs[1000]
    others = (f"{number:,}: {cost}" for number, cost in costs.items() if number != 1000)
    figures = "; ".join([f"busy {found.busy_seconds:.1f} s", *others])
    goals = [
        Goal("summarise 1,000 runs", str(found), "at most 4 s, 300 MiB", found.seconds <= 4 and found.peak_bytes <= 300 * 2**20, figures)
    ]  # fmt: skip
    return [*goals, *([_linear(costs)] if full else [])]


def _linear(costs: dict[int, Cost]) -> Goal:
    """What each further run costs from 1,000 to 10,000 runs over what it costs from 250 to 1,000, on a processor; 1 is linear."""
    slopes = [
        ((after.busy_seconds - before.busy_seconds) / (many - few), (after.peak_bytes - before.peak_bytes) / (many - few))
        for (few, before), (many, after) in pairwise(costs.items())
    ]
    (seconds, memory), (more_seconds, more_memory) = slopes
    time_ratio, memory_ratio = more_seconds / seconds, more_memory / memory
    figures = f"{seconds * 1000:.1f}, {more_seconds * 1000:.1f} ms a run; {memory / 1024:.0f}, {more_memory / 1024:.0f} KiB"
    return Goal(
        "growth to 10,000 runs", f"{time_ratio:.2f}, {memory_ratio:.2f} times", "at most 1.25 times",
        max(time_ratio, memory_ratio) <= 1.25, figures,
    )  # fmt: skip


def _report(_full: bool) -> list[Goal]:
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "report.html"
        found = _median([cost_of("report", str(DEFAULT_RUN), "-o", str(page)) for _ in range(REPEATS)])
        size = page.stat().st_size
    reached = found.seconds <= 4 and size <= 2 * 10**6
    return [
        Goal(
            "report of a default run",
            f"{found.seconds:.1f} s, {size / 10**6:.1f} MB",
            "at most 4 s, 2 MB",
            reached,
            f"busy {found.busy_seconds:.1f} s",
        )
    ]


CHECKS: list[Callable[[bool], list[Goal]]] = [_reading, _report]
"""Each returns its goals with what was found; told whether to take the time for everything."""


def _median(costs: list[Cost]) -> Cost:
    return sorted(costs, key=lambda one: one.seconds)[len(costs) // 2]


def cost_of(*arguments: str) -> Cost:
    """Runs `python -m analysis ARGUMENTS`. Raises RuntimeError if it fails."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "analysis", *arguments]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:  # noqa: S603 - ourselves
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            told = process.stderr.read() if process.stderr else ""
            raise RuntimeError(f"{' '.join(command)}: exit status {process.returncode}: {told.strip()}")
    return Cost(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024))


def write_runs(folder: Path, number: int) -> None:
    """Made-up runs up to `number` of them; from the 1,001st on other names of those, which take no room."""
    text = json.dumps(_run())
    for run in range(number):
        path = folder / f"{run:05}.json"
        if path.exists():
            continue
        if run < 1000:
            path.write_text(text.replace("1.2345", f"1.{2000 + run}"))
        else:
            os.link(folder / f"{run % 1000:05}.json", path)


def _run() -> dict[str, object]:
    results = [_result(*names) for names in product(MODELS, SIZES, MODES)]
    seconds = [1e-4 * (1 + number % 17 / 1000) + 1e-19 for number in range(ROUNDS)]
    stats = {"min": 1e-4, "median": 1.008e-4, "rounds": ROUNDS, "data": seconds, "iterations": 3}
    return {
        "machine_info": {"cpu": {"brand_raw": "made up", "count": 2}, "gradtax": {"torch": "2.13.0", "threads": 1}},
        "commit_info": {"id": "0" * 40, "dirty": False},
        "benchmarks": [
            {"group": str(one.case.group), "name": f"test_case[{one.case}]", "extra_info": to_json(one), "stats": stats}
            for one in results
        ],
        "datetime": "2026-11-22T19:08:56+00:00",
        "gradtax": {"schema": 1, "unmeasured": [], "conditions": {"command": ["pytest", "--benchmark"]}},
    }


def _result(model: str, size: str, mode: str) -> Result:
    tracked = mode == "tracked"
    return Result(
        case=Case("forward", model, size, "cpu", "float32", "resident", mode),
        seconds=1e-4,
        speedup=Interval(1.0, 1.0, 1.0) if tracked else Interval(1.2345, 1.15, 1.35),
        verdict="baseline" if tracked else "faster",
        placebo=Interval(1.001, 0.996, 1.006),
        trusted=True,
        page_faults=0.0,
        memory=Memory(10240, 8192, 8192 if tracked else 0, 4096, None, "kernel", graph_nodes=9),
        contract=Contract(holds=True),
        kernels=Kernels(same_as_tracked=True),
        model=ModelFacts(16640, 66560, ["float32[8, 64]"]),
    )
