"""A run for other programs: the JSON lists that benchmark-tracking actions read, or all its rounds. A run in, values out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from types import MappingProxyType
from typing import Any

from analysis import load
from analysis.load import Run, rows_of
from analysis.pairing import CASE, MEMORY
from benchmarks.record import Row

Entry = dict[str, Any]


def smaller_is_better(run: Run) -> list[Entry]:
    """Of each case the time per call, the time over tracked's, and every figure of memory that it has. Units are the same in every run."""
    return [entry for row in rows_of(run.frame) for entry in _costs(row, _extra(row, run))]


def bigger_is_better(run: Run) -> list[Entry]:
    """The speedup of each case but the baselines, which are 1 by definition."""
    return [
        _entry(row, "speedup", "x", row["speedup"], _extra(row, run), (row["speedup_low"], row["speedup_high"]))
        for row in rows_of(run.frame)
        if row["verdict"] != "baseline" and row["speedup"] is not None
    ]


def rounds(run: Run) -> list[Entry]:
    """Every round of every case, seconds per call: those of one group with the same number were measured together."""
    return [{**asdict(case), "seconds": seconds} for case, seconds in load.rounds(run).items()]


FORMATS: Mapping[str, Callable[[Run], list[Entry]]] = MappingProxyType(
    {"customSmallerIsBetter": smaller_is_better, "customBiggerIsBetter": bigger_is_better, "rounds": rounds}
)


def _costs(row: Row, extra: str) -> Iterator[Entry]:
    yield _entry(row, "time per call", "us", row["seconds"] * 1e6, extra)
    if row["verdict"] != "baseline" and row["speedup"]:
        ends = [1 / row[name] for name in ("speedup_high", "speedup_low")]
        yield _entry(row, "time over tracked's", "x", 1 / row["speedup"], extra, (ends[0], ends[1]))
    for name in MEMORY:
        if row[name] is not None:
            yield _entry(row, name.removesuffix("_bytes").replace("_", " "), "bytes", row[name], extra)


def _entry(row: Row, what: str, unit: str, value: float, extra: str, ends: tuple[float, float] | None = None) -> Entry:
    """`range` is the wider half of the 99 % interval, in the unit of `value`."""
    interval = {"range": f"± {max(ends[1] - value, value - ends[0]):.2g}"} if ends else {}
    return {"name": f"{' '.join(row[name] for name in CASE)}: {what}", "unit": unit, "value": value, **interval, "extra": extra}


def _extra(row: Row, run: Run) -> str:
    machine = run.machine_info.get("gradtax") or {}
    told = [f"verdict: {row['verdict']}", *([] if row["trusted"] else ["untrusted: identical code read differently"])]
    return "\n".join([*told, *(f"{name}: {machine[name]}" for name in ("torch", "threads") if name in machine)])
