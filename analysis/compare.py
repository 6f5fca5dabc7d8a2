"""Two or more runs side by side: the answer in a line, what differs between the machines, then the cases, the worst change first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass
from statistics import median
from types import MappingProxyType
from typing import Any

from analysis.differences import cut
from analysis.figures import MISSING, percent_text, ratio_text, seconds_text, speedup_text
from analysis.footer import merged
from analysis.load import Run
from analysis.pairing import (
    CASE,
    MEMORY,
    NEW,
    NEWLY_MEASURED,
    NEWLY_UNMEASURED,
    VANISHED,
    Absent,
    Against,
    against,
    parse_across,
    word,
    worse_by,
)
from analysis.render import FORMATS, Column, Section, Table
from benchmarks.record import Row

TITLES: Mapping[str, str] = MappingProxyType(dict(zip(MEMORY, ("peak", "held", "saved", "RSS", "reserved"), strict=True)))

_VERDICTS = ("slower", "faster", "same", "unclear")

_FIELD_WIDTH = 30
"""Names are a user's own, and can be long."""


@dataclass(frozen=True, slots=True)
class Comparison:
    base: Run
    parts: list[Against]


def compare(base: Run, heads: Sequence[Run], across: str = "") -> Comparison:
    """Each of `heads` against `base`. `across` is a field of the case, `device`, or with values, `device=cpu:cuda`. Raises CompareError."""
    return Comparison(base, [against(base, head, parse_across(across, base, head) if across else None) for head in heads])


def lead(part: Against) -> list[str]:
    """What stands above the table: the answer, then a line for each difference between the runs' machines and settings."""
    seconds = f"not compared, the machines differ or are unknown: {part.other_machine}"
    said = "an indication only, for the two runs are not from the same rounds" if part.other_machine is None else seconds
    changed = dict.fromkeys((row["model"], row["size"]) for row in part.rows if not row["same_work"])
    work = [f"not the same work, for parameters or inputs differ  {'; '.join(merged(changed))}"] if changed else []
    return [f"{_names(part)}: {summary(part)}", *part.differences, *work, f"seconds  {said}"]


def lead_table(part: Against) -> Table:
    """`lead` in the form that every format renders."""
    return Table(columns=[], key_titles=(), sections=[], notes=lead(part))


def summary(part: Against) -> str:
    """The answer in one line: how many speedups changed and which way, what became of memory, which cases came and went."""
    judged = Counter(row["verdict"] for row in part.rows if row["change"] is not None)
    number = judged["slower"] + judged["faster"]
    texts = [f"speedup: {number} of {judged.total()} cases changed{_counts(judged, _VERDICTS)}"]
    unchanged = []
    for name, title in TITLES.items():
        words = Counter(word(name, row) for row in part.rows)
        counted = _counts(words, ("more", "less", "no longer measured"))
        if counted:
            texts.append(f"{title} memory{counted}")
        elif words["same"]:
            unchanged.append(title)
    if unchanged:
        texts.append(f"{', '.join(unchanged)} memory: unchanged in all")
    absent = Counter(one.status for one in part.absent)
    return "; ".join(
        [*texts, *([f"cases{_counts(absent, (VANISHED, NEWLY_UNMEASURED, NEWLY_MEASURED, NEW))}"] if absent else [])]
    )


def comparison_table(comparison: Comparison, *, short: bool = False) -> Table:
    """For each head a section of changed and one of other cases; with `short` the latter are only counted. `raw` has a row per case and head."""
    rows = [row for part in comparison.parts for row in part.rows]
    memory = [name for name in MEMORY if any(row[f"{name}_base"] is not None for row in rows)]
    seconds = any(row["seconds_ratio"] is not None for row in rows)
    fields = fields_of(rows)
    sections = []
    for part in comparison.parts:
        changed, others = ([row for row in part.rows if bool(worse_by(row)) == wanted] for wanted in (True, False))
        for heading, key, found in (("changed, the worst first", "changed", changed), (_others(others), "others", others)):
            cells = [_cells(row, fields, memory, seconds=seconds) for row in found]
            lines = [] if short and key == "others" else cells
            sections += [Section(f"{_names(part)}: {heading}", (_names(part), key), lines)] if found else []
    return Table(
        columns=_columns(memory, seconds=seconds),
        key_titles=("runs", "cases"),
        sections=sections,
        notes=[*_definitions(rows, memory), *(note for part in comparison.parts for note in _notes(part))],
        raw=raw_rows(comparison),
    )


def shown(comparison: Comparison, format_: str) -> str:
    """The comparison in one of render's FORMATS: for people a lead and a table for each head, for machines the raw rows alone."""
    if format_ in ("csv", "json"):
        return FORMATS[format_](comparison_table(comparison))
    short = format_ == "terminal"
    single = (Comparison(comparison.base, [part]) for part in comparison.parts)
    tables = (table for one in single for table in (lead_table(one.parts[0]), comparison_table(one, short=short)))
    return "\n\n".join(FORMATS[format_](table).strip("\n") for table in tables)


def raw_rows(comparison: Comparison) -> list[Row]:
    """A flat row per case and head, for machines: those of `Against.rows` as `compared`, and the absent ones with what became of them."""
    found: list[Row] = []
    for part in comparison.parts:
        names = {"base": part.base.name, "head": part.head.name}
        found += [{**names, **row, "status": "compared", "reason": None} for row in part.rows]
        found += [{**names, **asdict(one.case), "status": one.status, "reason": one.reason or None} for one in part.absent]
    columns = dict.fromkeys(name for row in found for name in row)
    return [{name: row.get(name) for name in columns} for row in found]


def fields_of(rows: Iterable[Row]) -> list[str]:
    """The fields that tell cases apart in a text: model, size and mode, and those that differ."""
    values = {name: {row[name] for row in rows} for name in CASE}
    return [name for name in CASE if name in ("model", "size", "mode") or len(values[name]) > 1]


def case_text(row: Row, fields: Iterable[str]) -> str:
    return " ".join(cut(row[name], _FIELD_WIDTH) for name in fields)


def bytes_change_text(base: int | None, head: int | None) -> str:
    """`+2,048 B`: head minus base to the byte; 0 where nothing changed, `lost` where only head has no figure."""
    if base is None or head is None:
        return MISSING if base is None else "lost"
    return f"{head - base:+,} B" if head != base else "0"


def _names(part: Against) -> str:
    across = f", {part.across.field} {part.across.base} -> {part.across.head}" if part.across else ""
    return f"{part.base.name} -> {part.head.name}{across}"


def _columns(memory: Sequence[str], *, seconds: bool) -> list[Column]:
    return [
        Column("case", text=True),
        Column("speedup in base"),
        Column("in head"),
        Column("change"),
        Column("verdict", text=True),
        *(Column(TITLES[name], optional={"peak_tensor_bytes": 0, "held_tensor_bytes": 2}.get(name, 3)) for name in memory),
        *([Column("per call", optional=1)] if seconds else []),
    ]


def _cells(row: Row, fields: Sequence[str], memory: Sequence[str], *, seconds: bool) -> list[str]:
    per_call = " -> ".join(seconds_text(row[f"seconds_{side}"], None) for side in ("base", "head"))
    return [
        case_text(row, fields),
        *(speedup_side(row, side) for side in ("base", "head")),
        speedup_text(row["change"], row["change_low"], row["change_high"]),
        verdict_text(row),
        *(bytes_change_text(row[f"{name}_base"], row[f"{name}_head"]) for name in memory),
        *([per_call if row["seconds_ratio"] else MISSING] if seconds else []),
    ]


def speedup_side(row: Row, side: str) -> str:
    """The speedup in `base` or `head` to the digit that its interval leaves certain."""
    low, high = row[f"speedup_low_{side}"], row[f"speedup_high_{side}"]
    return "1" if low == high == 1 else ratio_text(row[f"speedup_{side}"], low, high)


def verdict_text(row: Row) -> str:
    doubtful = not row["trusted"] and row["change"] is not None
    return MISSING if row["verdict"] is None else f"{row['verdict']}{'?' * doubtful}"


def _others(rows: Sequence[Row]) -> str:
    judged = [row for row in rows if row["change"] is not None]
    verdicts = Counter(map(verdict_text, judged))
    text = f"{len(rows)} cases in which no change shows{_counts(verdicts, sorted(verdicts))}"
    widths = [1 - row["change_low"] / row["change"] for row in judged]
    return (
        f"{text}\n  known to ±{percent_text(median(widths))} in the median case, ±{percent_text(max(widths))} in the worst"
        if widths
        else text
    )


def _definitions(rows: Sequence[Row], memory: Sequence[str]) -> list[str]:
    notes = []
    if any(row["change"] is not None for row in rows):
        notes += [
            "change: head's speedup over base's; its ± holds for all cases together with 99 %, and on top what the placebos read",
            "slower: the mode gains less than it did, because it got slower or because tracked got faster",
        ]
    if any(not row["trusted"] for row in rows):
        notes.append("?: one of the two groups is untrusted, so its speedups are no evidence")
    if any(1 in (row["processes_base"], row["processes_head"]) for row in rows if row["change"] is not None):
        notes.append(
            "speedups from one process: another one can shift them by a few per cent, which no interval here knows of;"
            " `pytest --benchmark --processes 5` includes it"
        )
    inexact = [f"{TITLES[name]} beyond {MEMORY[name]}" for name in memory if MEMORY[name].bytes]
    if memory:
        notes.append(f"memory: bytes of head minus base; {'; '.join(['a byte counts as a change', *inexact])}")
    return notes


def _notes(part: Against) -> list[str]:
    """The cases that came and went, those that differ in one field only as one: `vanished: forward lstm tiny,small ... no_grad`."""
    found: dict[tuple[str, str], list[Absent]] = {}
    for one in part.absent:
        found.setdefault((one.status, one.reason), []).append(one)
    notes = []
    for (status, reason), group in found.items():
        cases = "; ".join(merged(astuple(one.case) for one in group))
        notes.append(" ".join(f"{_names(part)}: {status}: {cases}{f' ({reason})' if reason else ''}".split()))
    return notes


def _counts(counter: Mapping[Any, int], words: Sequence[str]) -> str:
    found = ", ".join(f"{counter[word]} {word}" for word in words if counter[word])
    return f": {found}" if found else ""
