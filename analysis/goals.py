"""Goals that the suite sets itself, beside what was found: the table that every check ends with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from analysis.render import Column, Section, Table


@dataclass(frozen=True, slots=True)
class Goal:
    """`found` and `goal` are texts with their units, `figures` is what `found` was computed from."""

    what: str
    found: str
    goal: str
    reached: bool
    figures: str = ""


def goals_table(goals: Iterable[Goal], notes: Sequence[str] = ()) -> Table:
    rows = [[one.what, one.found, one.goal, "reached" if one.reached else "MISSED", one.figures] for one in goals]
    columns = [Column("goal", text=True), Column("found"), Column("asked"), Column("", text=True), Column("from", text=True)]
    return Table(columns, (), [Section("", (), rows)], list(notes))
