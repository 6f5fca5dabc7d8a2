"""The table of modes and properties: where torch changes, it changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import torch

from analysis.render import Column, Section, Table
from benchmarks.modes import Mode
from benchmarks.walkthrough.contexts import AS_BLOCK, AS_DECORATOR
from benchmarks.walkthrough.properties import CALL, OUTPUT, Finding, Property
from benchmarks.walkthrough.walk import known_state

PROPERTIES: Mapping[str, Mapping[str, Property]] = MappingProxyType(
    {"the output": OUTPUT, "the call": CALL, "as decorator of": AS_DECORATOR, "as block inside": AS_BLOCK}
)

LONGEST_UNBROKEN = 8
"""Characters of a mode's name that the terminal's column may be wide for its sake."""


def find(look: Property, mode: Mode) -> Finding:
    """What `look` finds in a known state. A mode that cannot be tried is a finding too."""
    try:
        with known_state():
            return look(mode)
    except Exception as error:  # noqa: BLE001 - shown in the cell's footnote
        return Finding("fails", f"{type(error).__name__}: {error}")


def modes_table(modes: Sequence[Mode], *, words: bool = False) -> Table:
    """A row per property, a column per mode; reasons, torch's own messages among them, are footnotes.

    With `words`, long names of modes are written with spaces, at which a narrow column can break them.
    """
    found = {
        (about, name): [find(look, mode) for mode in modes]
        for about, looks in PROPERTIES.items()
        for name, look in looks.items()
    }
    reasons = dict.fromkeys(one.why for findings in found.values() for one in findings if one.why)
    numbers = {reason: number for number, reason in enumerate(reasons, start=1)}

    def cell(one: Finding) -> str:
        return f"{one.answer} ({numbers[one.why]})" if one.why else one.answer

    sections = [
        Section(about, (about,), [[name, *map(cell, found[about, name])] for name in looks])
        for about, looks in PROPERTIES.items()
    ]
    titles = [mode.name.replace("_", " ") if words and len(mode.name) > LONGEST_UNBROKEN else mode.name for mode in modes]
    columns = [Column(title, text=True, optional=len(titles) - number) for number, title in enumerate(titles)]
    notes = [
        f"found by running torch {torch.__version__.partition('+')[0]}; -: makes no sense for the mode",
        "a view: of an input that requires grad; usable: times a weight, then backward; a new thread: started in the call",
        *(f"{number}: {' '.join(reason.split())}" for reason, number in numbers.items()),
    ]
    raw = [
        {"about": about, "property": name, "mode": mode.name, "answer": one.answer, "why": one.why}
        for (about, name), findings in found.items()
        for mode, one in zip(modes, findings, strict=True)
    ]
    return Table([Column("property", text=True), *columns], ("about",), sections, notes, raw)
