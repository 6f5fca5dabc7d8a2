"""The main table: a section per model and size, a row per mode, what tracking costs by each allocator. Tidy rows in, Table out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict

from analysis.allocators import GROUP, group_of, titles_of
from analysis.figures import (
    MISSING,
    bytes_text,
    count_text,
    interval_text,
    ratio_text,
    relative_noise,
    seconds_text,
    speedup_text,
)
from analysis.footer import footer
from analysis.render import Column, Section, Table
from benchmarks.record import DEFAULT, Row, Unmeasured

MEASURED = "measured"


def summary_table(rows: Iterable[Row], unmeasured: Sequence[Unmeasured] = (), broken_invariants: Sequence[str] = ()) -> Table:
    """`rows` are tidy rows (record.tidy_rows); those of a case's two allocators, wherever they stand, become one line."""
    rows = list(rows)
    titles = titles_of(rows)
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(group_of(row), []).append(row)
    return Table(
        columns=_columns(titles),
        key_titles=GROUP,
        sections=[Section(heading(group, titles), key, _lines(group, titles)) for key, group in groups.items()],
        notes=footer(rows, unmeasured, broken_invariants),
        raw=raw_rows(rows, unmeasured),
    )


def _columns(titles: Mapping[str, str]) -> list[Column]:
    """Three columns per allocator, whose speedup carries its title; `faults` where page faults are part of the time."""
    columns = [Column("mode", text=True)]
    for number, title in enumerate(titles.values()):
        per_call = Column(f"{title} per call", optional=1) if number else Column("per call")
        columns += [per_call, Column(title), Column("verdict", text=True)]
    faults = [Column("faults")] if DEFAULT in titles else []
    return [
        *columns,
        *faults,
        Column("peak"),
        Column("ratio", optional=3),
        Column("saved", optional=2),
        Column("RSS", optional=4),
    ]


def _lines(group: Sequence[Row], titles: Mapping[str, str]) -> list[list[str]]:
    modes: dict[str, dict[str, Row]] = {}
    for row in group:
        modes.setdefault(row["mode"], {})[row["allocator"]] = row
    return [_cells(found, titles) for found in modes.values()]


def _cells(found: Mapping[str, Row], titles: Mapping[str, str]) -> list[str]:
    """One mode's cells, from its row by each allocator. Memory does not depend on the allocator while timing."""
    row = next(iter(found.values()))
    shipped = found.get(DEFAULT)
    return [
        row["mode"] + ("*" if row["same_kernels"] is False else ""),
        *(cell for allocator in titles for cell in timing_cells(found.get(allocator))),
        *([count_text(shipped["page_faults"] if shipped else None)] if DEFAULT in titles else []),
        bytes_text(row["peak_tensor_bytes"]),
        ratio_text(row["peak_tensor_ratio"]),
        bytes_text(row["saved_bytes"]),
        bytes_text(row["peak_rss_bytes"] if row["peak_reserved_bytes"] is None else row["peak_reserved_bytes"]),
    ]


def timing_cells(row: Row | None) -> tuple[str, str, str]:
    if row is None:
        return MISSING, MISSING, MISSING
    if row["verdict"] == "baseline":
        return seconds_text(row["seconds"], relative_noise(row["placebo_low"], row["placebo_high"])), "1", "baseline"
    ends = row["speedup_low"], row["speedup_high"]
    verdict = row["verdict"] if row["trusted"] else f"{row['verdict']}?"
    return seconds_text(row["seconds"], relative_noise(*ends)), speedup_text(row["speedup"], *ends), verdict


def heading(group: Sequence[Row], titles: Mapping[str, str]) -> str:
    first = group[0]
    named = ("scenario", "device", "dtype", *(["allocator"] if len(titles) == 1 else []))
    where = ", ".join([*(first[name] for name in named), *([f"{first['steps']} steps a call"] if first["steps"] > 1 else [])])
    inputs = f", {first['inputs']}" if first["inputs"] else ""
    text = f"{first['model']} {first['size']}   {where}   {first['parameters']:,} parameters{inputs}"
    untrusted = {row["allocator"]: row for row in group if not row["trusted"]}
    marks = [f"\n  UNTRUSTED{' ' + titles[name] if len(titles) > 1 else ''}: {_why(row)}" for name, row in untrusted.items()]
    return text + "".join(marks)


def _why(untrusted: Row) -> str:
    if untrusted["placebo"] is None:
        return "tracked could not be measured, so there is nothing to compare with"
    ends = untrusted["placebo_low"], untrusted["placebo_high"]
    return f"identical code read {ratio_text(untrusted['placebo'], *ends)} {interval_text(*ends)} instead of 1"


def raw_rows(rows: Sequence[Row], unmeasured: Iterable[Unmeasured]) -> list[Row]:
    """The figures themselves; a case that was not measured has its case, status and reason."""
    empty = dict.fromkeys(rows[0]) if rows else {}
    measured = [{**row, "status": MEASURED, "reason": None} for row in rows]
    return measured + [{**empty, **asdict(one.case), "status": one.status, "reason": one.reason} for one in unmeasured]
