"""The table of all cases in the page: each figure as it reads, as it sorts, and as it goes to CSV. Rows in, values out."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from analysis.figures import bytes_text, count_text, ratio_text, relative_noise, seconds_text, speedup_text
from benchmarks.record import Row


@dataclass(frozen=True, slots=True)
class Column:
    """`field` is the row's that it sorts by; `text` makes of the row what is read there."""

    title: str
    field: str
    text: Callable[[Row], str]
    figure: bool = True


@dataclass(frozen=True, slots=True)
class Cases:
    """`lines` has for every row its cells, as text and as value, "" where there is none, and the row's line of CSV."""

    columns: list[Column]
    csv_header: str
    lines: list[tuple[Row, list[tuple[str, Any]], str]]

    def values(self, field: str) -> list[str]:
        """What a filter offers: each value of `field` once, in the order in which they come."""
        return list(dict.fromkeys(row[field] for row, _, _ in self.lines))


def cases(rows: Sequence[Row]) -> Cases:
    """Columns that hold nothing are left out, as are those of the case that are the same in all rows."""
    columns = [
        *(_name(field) for field in _IDENTITY if field in ("model", "size") or _differs(rows, field)),
        Column("mode", "mode", lambda row: row["mode"] + ("*" if row["same_kernels"] is False else ""), figure=False),
        *(column for column in _FIGURES if any(row[column.field] is not None for row in rows)),
    ]
    names = list(rows[0]) if rows else []
    lines = [
        (row, [(one.text(row), "" if row[one.field] is None else row[one.field]) for one in columns], _csv(row.values()))
        for row in rows
    ]
    return Cases(columns, _csv(names), lines)


_IDENTITY = ("run", "scenario", "model", "size", "device", "dtype", "allocator")


def _name(field: str) -> Column:
    return Column(field, field, lambda row: str(row[field]), figure=False)


def _differs(rows: Iterable[Row], field: str) -> bool:
    return len({row.get(field) for row in rows}) > 1


def _seconds(row: Row) -> str:
    ends = ("placebo_low", "placebo_high") if row["verdict"] == "baseline" else ("speedup_low", "speedup_high")
    return seconds_text(row["seconds"], relative_noise(*(row[end] for end in ends)))


def _speedup(row: Row) -> str:
    if row["verdict"] == "baseline":
        return "1"
    return speedup_text(row["speedup"], row["speedup_low"], row["speedup_high"])


_FIGURES = (
    Column("per call", "seconds", _seconds),
    Column("speedup", "speedup", _speedup),
    Column("verdict", "verdict", lambda row: row["verdict"] + ("" if row["trusted"] else "?"), figure=False),
    Column("placebo", "placebo", lambda row: ratio_text(row["placebo"], row["placebo_low"], row["placebo_high"])),
    Column("faults", "page_faults", lambda row: count_text(row["page_faults"])),
    Column("peak", "peak_tensor_bytes", lambda row: bytes_text(row["peak_tensor_bytes"])),
    Column("ratio", "peak_tensor_ratio", lambda row: ratio_text(row["peak_tensor_ratio"])),
    Column("held", "held_tensor_bytes", lambda row: bytes_text(row["held_tensor_bytes"])),
    Column("saved", "saved_bytes", lambda row: bytes_text(row["saved_bytes"])),
    Column("RSS", "peak_rss_bytes", lambda row: bytes_text(row["peak_rss_bytes"])),
    Column("reserved", "peak_reserved_bytes", lambda row: bytes_text(row["peak_reserved_bytes"])),
)


def _csv(values: Iterable[Any]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(values)
    return text.getvalue()
