"""Small results, runs and saved files for tests of what reads them."""

from __future__ import annotations

import json
import os
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from analysis.read import Run
from benchmarks import intervals
from benchmarks.record import (
    CASE,
    SCHEMA,
    Case,
    Contract,
    Interval,
    Kernels,
    Memory,
    ModelFacts,
    ProcessReading,
    Result,
    Unmeasured,
    to_json,
)

REFERENCE = Path(__file__).parent.parent / "results" / "reference" / "cpu.json"
"""A default run that was shared."""

PLACEBO = Interval(1.001, 0.996, 1.006)
_CASE = Case(
    scenario="forward", model="mlp", size="tiny", device="cpu", dtype="float32", execution="eager", allocator="pages_kept",
    mode="tracked",
)  # fmt: skip
_TRACKED = Result(
    case=_CASE,
    seconds=125e-6,
    speedup=Interval(1.0, 1.0, 1.0),
    verdict="baseline",
    placebo=PLACEBO,
    trusted=True,
    resolution=0.006,
    washout_calls=2,
    after_switch_seconds=150e-6,
    page_faults=0.0,
    memory=Memory(peak_tensor_bytes=10240, held_tensor_bytes=8192, saved_bytes=8192, graph_nodes=20),
    contract=Contract(holds=True),
    kernels=Kernels(same_as_tracked=True),
    model=ModelFacts(16640, 66560, ["float32[8, 64]"]),
)
_UNTRACKED_MEMORY = Memory(peak_tensor_bytes=4096, held_tensor_bytes=4096, saved_bytes=0, graph_nodes=0)


def environment(**changes: str) -> dict[str, str]:
    """This process's, without what says that tests run side by side: pytest-benchmark would measure nothing then."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")} | changes


def case(mode: str = "tracked", **fields: str) -> Case:
    return replace(_CASE, mode=mode, **fields)


def result(
    mode: str = "no_grad",
    speedup: float | Interval | None = 1.25,
    *,
    tracked_seconds: float = 125e-6,
    memory: Memory | dict[str, Any] | None = None,
    **changes: Any,
) -> Result:
    """A result of `mode`; `changes` are fields of its case (`model="lstm"`) or of the result.

    `speedup` is an interval, or a number that is read to 1 %, or None where tracked gave no time; seconds and verdict follow from it.
    `memory` may hold changes only. `model` is a name, or the result's ModelFacts.
    """
    case_fields = {name: changes.pop(name) for name in CASE if isinstance(changes.get(name), str)}
    figures: dict[str, Any] = {"seconds": tracked_seconds}
    if mode != "tracked":
        ratio = Interval(speedup, speedup * 0.99, speedup * 1.01) if isinstance(speedup, float | int) else speedup
        figures = {
            "speedup": ratio,
            "seconds": tracked_seconds / ratio.estimate if ratio else tracked_seconds,
            "verdict": intervals.verdict(ratio, changes.get("resolution", 0.006)) if ratio else "unclear",
            "memory": _UNTRACKED_MEMORY,
        }
    made = replace(_TRACKED, case=case(mode, **case_fields), **{**figures, **changes})
    if memory is not None:
        made = replace(made, memory=memory if isinstance(memory, Memory) else replace(made.memory, **memory))
    return made if "processes" in changes else replace(made, processes=_processes(made))


def _processes(made: Result) -> list[ProcessReading]:
    """Four processes that read the same within half a per cent."""
    speedup = made.speedup.estimate if made.speedup else None
    placebo = made.placebo.estimate if made.placebo else None
    return [
        ProcessReading(number % 2, 60, made.seconds * spread, speedup and speedup * spread, placebo, made.page_faults)
        for number, spread in enumerate((0.998, 1.001, 1.002, 0.999))
    ]


def group(speedups: Mapping[str, float | Interval | None] | None = None, **changes: Any) -> list[Result]:
    """tracked, and a result for each of `speedups` (by default no_grad at 1.25)."""
    chosen = {"no_grad": 1.25} if speedups is None else speedups
    return [result("tracked", **changes), *(result(mode, speedup, **changes) for mode, speedup in chosen.items())]


def unmeasured(
    mode: str = "inference_mode", status: Any = "unsupported", reason: str = "it cannot", **fields: str
) -> Unmeasured:
    return Unmeasured(case(mode, **fields), status, reason)


def run(*results: Result, **changes: Any) -> Run:
    """A run as conftest makes one, of `results` or of one group."""
    machine = {
        "cpu": {"brand_raw": "Some CPU", "count": 2},
        "gradtax": {"torch": "2.13.0", "threads": 1, "devices": {"cpu": {"cores": 2}}},
    }
    facts = {"name": "0001", "saved_at": "2026-11-22T19:08:56+00:00", "commit": "abcdef12", "machine": machine}
    return Run(list(results) or group(), **{**facts, **changes})


def saved(path: Path, measured: Run | None = None) -> Path:
    """Writes a run as pytest-benchmark saves it, and returns `path`. A folder gets the file `0001_run.json`."""
    if path.is_dir():
        path /= "0001_run.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(saved_json(measured or run())), encoding="utf-8")
    return path


def saved_json(measured: Run) -> dict[str, Any]:
    """What `saved` writes, for tests that change something in it."""
    stats = {"min": 1e-4, "median": 1.2e-4, "rounds": 2, "data": [1e-4, 1.4e-4], "iterations": 3}
    names = [f"test_case[{one.case}]" for one in measured.results]
    return {
        "machine_info": {"node": "here", **measured.machine},
        "commit_info": {"id": measured.commit, "dirty": False},
        "benchmarks": [
            {"group": None, "name": name, "fullname": f"test_x.py::{name}", "extra_info": to_json(one), "stats": stats}
            for name, one in zip(names, measured.results, strict=True)
        ],
        "datetime": measured.saved_at,
        "version": "5.3.1",
        "gradtax": {
            "schema": SCHEMA,
            "unmeasured": [to_json(one) for one in measured.unmeasured],
            "conditions": measured.conditions,
        },
    }


def changed(content: Any, place: str, value: Any) -> Any:
    """`content` with another value at `place`, such as `benchmarks[0].extra_info.seconds`."""
    *way, last = (int(key) if key.isdigit() else key for key in re.findall(r"\w+", place))
    inner = content
    for key in way:
        inner = inner[key]
    inner[last] = value
    return content


class Page(HTMLParser):
    """What a browser would see: headings, the texts of elements by name, attributes, and what points somewhere."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.texts: defaultdict[str, list[str]] = defaultdict(list)
        self.attributes: defaultdict[str, list[str]] = defaultdict(list)
        self._open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            self.attributes[name].append(value or "")
        if tag != "meta":
            self._open.append(tag)
            self.texts[tag].append("")

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        for tag in set(self._open):
            self.texts[tag][-1] += data
