"""What every check ends with: tables, goals with what was found, and a file of readings."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.environment import machine_facts
from benchmarks.saving import write_whole

FOLDER = Path(__file__).parents[2] / "results" / "selfcheck"


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
    """What a check found. Notes stand below the tables, and goals last; `readings` are only saved."""

    tables: Sequence[str]
    notes: Sequence[str]
    goals: Iterable[Goal]
    readings: dict[str, Any]

    def show(self) -> list[Goal]:
        """Prints everything, each goal as soon as it is known, and returns the goals."""
        goals = []
        for text in self._above:
            print(text, end="\n\n")  # noqa: T201 - a command's
        for goal in self.goals:
            print(goal, flush=True)  # noqa: T201
            goals.append(goal)
        return goals

    @property
    def _above(self) -> list[str]:
        return [*self.tables, *(["\n".join(f"- {note}" for note in self.notes)] if self.notes else [])]

    def save(self, name: str, goals: Sequence[Goal]) -> Path:
        """Writes readings and goals to FOLDER as `name`.json, and what was shown as `name`.txt, in the place of earlier ones. Raises OSError."""
        machine, told = machine_facts(("cpu",)), list(map(str, goals))
        FOLDER.mkdir(parents=True, exist_ok=True)
        path = FOLDER / f"{name}.json"
        whole = {"machine": machine, "goals": told, **self.readings}
        write_whole(path, msgspec.json.format(msgspec.json.encode(whole, enc_hook=str)))
        where = f"selfcheck {name}: {machine['devices']['cpu']['cores']} cores, torch {machine['torch']}, {datetime.now(UTC):%Y-%m-%d}"
        write_whole(path.with_suffix(".txt"), "\n\n".join([where, *self._above, "\n".join(told) + "\n"]).encode())
        return path


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The first column is text and the others are figures."""
    first, *widths = [max(map(len, texts)) for texts in zip(columns, *rows, strict=True)]
    lines = ["  ".join((name.ljust(first), *map(str.rjust, cells, widths))) for name, *cells in (columns, *rows)]
    return "\n".join([title, *lines])


@contextmanager
def progress(steps: int, seconds: float) -> Iterator[Callable[[str], None]]:
    """Tells on stderr how long so many steps will take. What is yielded tells of each when it begins, on a terminal in one line."""
    begin, end = ("\r\x1b[K", "") if sys.stderr.isatty() else ("", "\n")
    numbers = count(1)
    print(f"{steps} measurements, about {max(seconds / 60, 0.1):.1f} minutes", file=sys.stderr)  # noqa: T201 - a command's
    yield lambda step: print(f"{begin}{next(numbers)} of {steps}: {step}", end=end, file=sys.stderr, flush=True)  # noqa: T201
    print(begin, end="", file=sys.stderr, flush=True)  # noqa: T201
