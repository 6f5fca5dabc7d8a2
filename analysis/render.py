"""One table, every format: terminal text, Markdown, CSV, LaTeX and JSON. Texts in, text out; needs no pandas."""

from __future__ import annotations

import csv
import io
import json
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, field
from types import MappingProxyType

from analysis.figures import (
    bytes_text,
    interval_text,
    ratio_text,
    relative_noise,
    seconds_text,
)
from benchmarks.record import Row, Unmeasured

WIDTH = 100
"""Columns that the terminal text keeps to."""


@dataclass(frozen=True, slots=True)
class Column:
    title: str
    text: bool = False


@dataclass(frozen=True, slots=True)
class Section:
    """Rows under one heading. `key` names the section in formats that have no headings, one value per Table.key_titles."""

    heading: str
    key: tuple[str, ...]
    rows: list[list[str]]


@dataclass(frozen=True, slots=True)
class Table:
    """Sections of rows of texts, and notes that stand below. `raw` are the same rows as figures, for machines."""

    columns: list[Column]
    key_titles: tuple[str, ...]
    sections: list[Section]
    notes: list[str] = field(default_factory=list)
    raw: list[Row] = field(default_factory=list)


def summary_table(rows: Iterable[Row], unmeasured: Sequence[Unmeasured] = ()) -> Table:
    """The main table: a section per group, a row per mode. `rows` are tidy rows (record.tidy_rows)."""
    rows = list(rows)
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in _GROUP), []).append(row)
    sections = [Section(_heading(group), key, [_cells(row) for row in group]) for key, group in groups.items()]
    return Table(
        columns=[
            Column("mode", text=True), Column("per call"), Column("speedup"), Column("99 % interval"),
            Column("verdict", text=True), Column("peak"), Column("ratio"), Column("saved"), Column("RSS"),
        ],
        key_titles=_GROUP,
        sections=sections,
        notes=_notes(rows, unmeasured),
        raw=[{**row, "status": MEASURED, "reason": None} for row in rows] + [_raw_unmeasured(one, rows) for one in unmeasured],
    )  # fmt: skip


MEASURED = "measured"
_ALWAYS_SHOWN = ("model", "size")
_GROUP = ("scenario", "model", "size", "device", "dtype", "allocator")


def _raw_unmeasured(one: Unmeasured, rows: Sequence[Row]) -> Row:
    empty = dict.fromkeys(rows[0]) if rows else {}
    return {**empty, **asdict(one.case), "status": one.status, "reason": one.reason}


def _heading(group: Sequence[Row]) -> str:
    first = group[0]
    where = ", ".join(first[name] for name in ("scenario", "device", "dtype", "allocator"))
    text = f"{first['model']} {first['size']}   {where}   {first['parameters']:,} parameters, {first['inputs']}"
    return text if first["trusted"] else f"{text}\n  UNTRUSTED: {_why_untrusted(first)}"


def _why_untrusted(row: Row) -> str:
    if row["placebo"] is None:
        return "tracked could not be measured, so there is nothing to compare with"
    reading = ratio_text(row["placebo"], row["placebo_low"], row["placebo_high"])
    return f"identical code read {reading} {interval_text(row['placebo_low'], row['placebo_high'])} instead of 1"


def _cells(row: Row) -> list[str]:
    baseline = row["verdict"] == "baseline"
    noise = relative_noise(
        *((row["placebo_low"], row["placebo_high"]) if baseline else (row["speedup_low"], row["speedup_high"]))
    )
    return [
        row["mode"],
        seconds_text(row["seconds"], noise),
        "1" if baseline else ratio_text(row["speedup"], row["speedup_low"], row["speedup_high"]),
        "" if baseline else interval_text(row["speedup_low"], row["speedup_high"]),
        row["verdict"] if row["trusted"] or baseline else f"{row['verdict']}?",
        bytes_text(row["peak_tensor_bytes"]),
        ratio_text(row["peak_tensor_ratio"]),
        bytes_text(row["saved_bytes"]),
        bytes_text(row["peak_rss_bytes"] if row["peak_reserved_bytes"] is None else row["peak_reserved_bytes"]),
    ]


def _notes(rows: Sequence[Row], unmeasured: Sequence[Unmeasured]) -> list[str]:
    shared = [", ".join(sorted({row[name] for row in rows})) for name in ("scenario", "device", "dtype", "allocator")]
    notes = [f"measured: {'; '.join(shared)}"] if rows else []
    notes.append("speedup: time of tracked over time of the mode, from pairs; above 1 the mode is faster than tracking")
    notes.append("ratio: peak tensor memory over tracked's; saved: kept for backward; RSS: what the process grew by")
    if any(row["device"] == "cuda" for row in rows):
        notes.append("RSS on cuda: what the caching allocator reserved")
    if not all(row["trusted"] for row in rows):
        notes.append("verdict?: the group is untrusted, its speedups are no evidence")
    changed = dict.fromkeys(f"{row['model']} {row['size']} {row['mode']}" for row in rows if row["same_kernels"] is False)
    if changed:
        notes.append(f"other kernels than tracked, so not tracking alone: {', '.join(changed)}")
    return notes + [
        f"not measured: {' '.join(astuple(one.case))}: {one.status}: {' '.join(one.reason.split())}" for one in unmeasured
    ]


def terminal(table: Table) -> str:
    """Plain text in at most 100 columns; no colours, no cursor movement."""
    rows = [[column.title for column in table.columns], *(row for section in table.sections for row in section.rows)]
    widths = [max(len(row[number]) for row in rows) for number in range(len(table.columns))]
    needed = sum(widths) + len(widths) - 1
    gap = "  " if needed + len(widths) + 1 <= WIDTH else " "
    indent = "  " if needed + 2 <= WIDTH else ""
    lines = []
    if table.sections:
        lines += [_line(rows[0], widths, table.columns, gap, indent)]
    for section in table.sections:
        lines += ["", *(_shortened(line) for line in section.heading.splitlines())]
        lines += [_line(row, widths, table.columns, gap, indent) for row in section.rows]
    notes = [line for note in table.notes for line in textwrap.wrap(note, WIDTH, subsequent_indent="  ")]
    return "\n".join([*lines, "", *notes])


def _line(cells: Sequence[str], widths: Sequence[int], columns: Sequence[Column], gap: str, indent: str = "") -> str:
    padded = [
        cell.ljust(width) if column.text else cell.rjust(width)
        for cell, width, column in zip(cells, widths, columns, strict=True)
    ]
    return (indent + gap.join(padded)).rstrip()


def _shortened(line: str) -> str:
    return line if len(line) <= WIDTH else f"{line[: WIDTH - 3]}..."


def markdown(table: Table) -> str:
    """A GitHub table with figures aligned right."""
    columns, flat = _flat(table)
    rows = [[_markdown_escaped(cell) for cell in row] for row in flat]
    titles = [column.title for column in columns]
    widths = [max(len(row[number]) for row in [titles, *rows]) for number in range(len(columns))]
    rule = ["-" * width if column.text else "-" * (width - 1) + ":" for width, column in zip(widths, columns, strict=True)]
    body = [_line(row, widths, columns, " | ").strip() for row in [titles, rule, *rows]]
    lines = [f"| {line.ljust(sum(widths) + 3 * (len(widths) - 1))} |" for line in body]
    return "\n".join([*lines, "", *(f"- {_markdown_escaped(note)}" for note in table.notes)])


def latex(table: Table) -> str:
    """A booktabs tabular; needs `\\usepackage{booktabs}`."""
    columns, flat = _flat(table)
    alignment = "".join("l" if column.text else "r" for column in columns)
    rows = [[column.title for column in columns], *flat]
    lines = [" & ".join(_latex_escaped(cell) for cell in row) + r" \\" for row in rows]
    notes = [f"% {note}" for note in table.notes]
    return "\n".join(
        [
            rf"\begin{{tabular}}{{{alignment}}}",
            r"\toprule",
            lines[0],
            r"\midrule",
            *lines[1:],
            r"\bottomrule",
            r"\end{tabular}",
            *notes,
        ]
    )


def comma_separated(table: Table) -> str:
    """The figures themselves: seconds and bytes, unrounded, a column per field."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(table.raw[0]) if table.raw else list(table.key_titles), lineterminator="\n")
    writer.writeheader()
    writer.writerows(table.raw)
    return text.getvalue().rstrip("\n")


def json_list(table: Table) -> str:
    """A JSON list of the figures themselves: seconds and bytes, unrounded."""
    return json.dumps(table.raw, indent=2)


FORMATS: Mapping[str, Callable[[Table], str]] = MappingProxyType(
    {"terminal": terminal, "markdown": markdown, "csv": comma_separated, "latex": latex, "json": json_list}
)


def _flat(table: Table) -> tuple[list[Column], list[list[str]]]:
    """The table without headings: the keys that tell sections apart become columns."""
    differing = [
        number
        for number, title in enumerate(table.key_titles)
        if title in _ALWAYS_SHOWN or len({section.key[number] for section in table.sections}) > 1
    ]
    columns = [*(Column(table.key_titles[number], text=True) for number in differing), *table.columns]
    rows = [[*(section.key[number] for number in differing), *row] for section in table.sections for row in section.rows]
    return columns, rows


def _markdown_escaped(text: str) -> str:
    """Only what would be read as markup: underscores inside a word and brackets without a link are left as they are."""
    text = re.sub(r"([\\|*`<~]|&(?=#?\w+;)|\](?=\())", r"\\\1", text)
    return re.sub(r"(?<![^\W_])_+|_+(?![^\W_])", lambda found: r"\_" * len(found[0]), text)


def _latex_escaped(text: str) -> str:
    special = {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
    }
    return "".join(special.get(character, f"\\{character}" if character in "&%$#_{}" else character) for character in text)
