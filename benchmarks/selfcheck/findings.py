"""What every check ends with: a table, goals with what was found, and a file of readings."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from typing import Any

import msgspec

from benchmarks.environment import machine_facts
from benchmarks.machines import ROOT
from benchmarks.saving import write_whole

FOLDER = ROOT / "results" / "selfcheck"


@dataclass(frozen=True, slots=True)
class Goal:
    """A figure that was found beside the one to reach. A figure that is not a number is missed."""

    what: str
    found: float
    limit: float
    at_least: bool = False
    form: str = ".2%"

    @property
    def reached(self) -> bool:
        return self.found >= self.limit if self.at_least else self.found <= self.limit

    def __str__(self) -> str:
        word, goal = "ok" if self.reached else "MISSED", "at least" if self.at_least else "at most"
        return f"{word:<6}  {self.what}: {self.found:{self.form}} ({goal} {self.limit:{self.form}})"


@dataclass(frozen=True, slots=True)
class Findings:
    """What a check found: goals, below a table with notes where it has one. `readings` are only saved."""

    goals: Iterable[Goal]
    table: str = ""
    notes: Sequence[str] = ()
    readings: dict[str, Any] = field(default_factory=dict)

    def tell(self, name: str) -> bool:
        """Prints all, each goal as soon as it is known, saves it in FOLDER, in the place of earlier ones, and returns whether every goal is reached.

        `name`.txt is what was printed, `name`.json has the readings. Raises OSError.
        """
        above = [text for text in (self.table, "\n".join(f"- {note}" for note in self.notes)) if text]
        for text in above:
            print(text, end="\n\n")  # noqa: T201 - a command's
        goals = []
        for goal in self.goals:
            print(goal, flush=True)  # noqa: T201
            goals.append(goal)
        machine, told = machine_facts(("cpu",)), list(map(str, goals))
        FOLDER.mkdir(parents=True, exist_ok=True)
        path = FOLDER / f"{name}.json"
        whole = {"machine": machine, "goals": told, **self.readings}
        write_whole(path, msgspec.json.format(msgspec.json.encode(whole, enc_hook=str)))
        where = f"selfcheck {name}: {machine['devices']['cpu']['cores']} cores, torch {machine['torch']}, {datetime.now(UTC):%Y-%m-%d}"
        write_whole(path.with_suffix(".txt"), "\n\n".join([where, *above, "\n".join(told) + "\n"]).encode())
        print(f"\nsaved as {path}")  # noqa: T201
        return all(goal.reached for goal in goals)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The first column is text and the others are figures."""
    first, *widths = [max(map(len, texts)) for texts in zip(columns, *rows, strict=True)]
    lines = ["  ".join((name.ljust(first), *map(str.rjust, cells, widths))) for name, *cells in (columns, *rows)]
    return "\n".join([title, *lines])


def progress(steps: int, seconds: float) -> Callable[[str], None]:
    """Tells on stderr how long so many steps will take. What is returned tells of each when it begins."""
    numbers = count(1)
    print(f"{steps} measurements, about {max(seconds / 60, 0.1):.1f} minutes", file=sys.stderr)  # noqa: T201 - a command's
    return lambda step: print(f"{next(numbers)} of {steps}: {step}", file=sys.stderr)  # noqa: T201
