"""The tables of a run: forward passes, then what takes steps (loops, training), then single operators. Tidy rows in, Tables out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from analysis.allocators import GROUP
from analysis.figures import MISSING, bytes_text, difference_text, ratio_text, relative_noise, seconds_text
from analysis.footer import footer
from analysis.render import Column, Section, Table
from analysis.summary import heading, raw_rows, summary_table, timing_cells
from benchmarks.record import FORWARD, OPERATORS, Row, Unmeasured

_KEY = (*GROUP, "allocator")


def summary_tables(
    rows: Iterable[Row], unmeasured: Sequence[Unmeasured] = (), broken_invariants: Sequence[str] = ()
) -> list[Table]:
    """Only those that have rows; the first holds all figures, the last all notes."""
    rows = list(rows)
    operators = [row for row in rows if row["scenario"] == OPERATORS]
    steps = [row for row in rows if row["scenario"] not in (FORWARD, OPERATORS)]
    forward = [row for row in rows if row["scenario"] == FORWARD]
    tables = [make(part) for make, part in ((summary_table, forward), (step_table, steps), (operator_table, operators)) if part]
    tables = [replace(table, notes=[], raw=[]) for table in tables] or [summary_table([])]
    tables[0] = replace(tables[0], raw=raw_rows(rows, unmeasured))
    tables[-1] = replace(tables[-1], notes=footer(rows, unmeasured, broken_invariants))
    return tables


def step_table(rows: Sequence[Row]) -> Table:
    """A section per group, a row per mode: time per call and per step, speedup, and the memory that a call needs and holds."""
    columns = [
        Column("mode", text=True), Column("per call"), Column("per step"), Column("speedup"), Column("verdict", text=True),
        Column("peak"), Column("ratio", optional=2), Column("saved", optional=1), Column("held"), Column("held per step"),
    ]  # fmt: skip
    sections = [
        Section(heading(group, {group[0]["allocator"]: "speedup"}), key, [_cells(row) for row in group])
        for key, group in _groups(rows, _KEY).items()
    ]
    return Table(columns, _KEY, sections)


def operator_table(rows: Sequence[Row]) -> Table:
    """A row per operator, a column per mode with the time of one call; `tracking` is what tracked takes longer than no_grad."""
    modes = list(dict.fromkeys(row["mode"] for row in rows))
    where = ("scenario", "device", "dtype", "allocator")
    columns = [Column("operator", text=True), *(Column(mode) for mode in modes), Column("tracking")]
    sections = []
    for key, group in _groups(rows, where).items():
        lines = []
        for (operator, _), cases in _groups(group, ("model", "size")).items():
            by_mode = {row["mode"]: row for row in cases}
            times = [
                seconds_text(row["seconds_per_step"], _noise(row)) if (row := by_mode.get(mode)) else MISSING for mode in modes
            ]
            lines.append([operator, *times, _tracking(by_mode)])
        sections.append(Section(f"time per operator   {', '.join(key)}", key, lines))
    return Table(columns, where, sections)


def _tracking(by_mode: dict[str, Row]) -> str:
    """tracked - no_grad = tracked * (1 - 1 / speedup), at the ends of the speedup's interval too."""
    tracked, no_grad = by_mode.get("tracked"), by_mode.get("no_grad")
    if tracked is None or no_grad is None or no_grad["speedup"] is None:
        return MISSING
    ends = (tracked["seconds_per_step"] * (1 - 1 / no_grad[f"speedup{end}"]) for end in ("", "_low", "_high"))
    return difference_text(*ends)


def _cells(row: Row) -> list[str]:
    per_call, speedup, verdict = timing_cells(row)
    return [
        row["mode"] + ("*" if row["same_kernels"] is False else ""),
        per_call,
        seconds_text(row["seconds_per_step"], _noise(row)) if row["steps"] > 1 else MISSING,
        speedup,
        verdict,
        bytes_text(row["peak_tensor_bytes"]),
        ratio_text(row["peak_tensor_ratio"]),
        bytes_text(row["saved_bytes"]),
        bytes_text(row["held_tensor_bytes"]),
        bytes_text(row["held_bytes_per_step"]),
    ]


def _noise(row: Row) -> float | None:
    name = "placebo" if row["verdict"] == "baseline" else "speedup"
    return relative_noise(row[f"{name}_low"], row[f"{name}_high"])


def _groups(rows: Sequence[Row], names: Sequence[str]) -> dict[tuple[str, ...], list[Row]]:
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in names), []).append(row)
    return groups
