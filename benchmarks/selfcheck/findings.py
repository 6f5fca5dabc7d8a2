"""What every check ends with: tables, goals with what was found, and a file of readings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from io import StringIO
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from benchmarks.environment import machine_facts
from benchmarks.saving import write_whole

FOLDER = Path(__file__).parents[2] / "results" / "selfcheck"
WIDTH = 120
"""Columns where the output goes to a file."""


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

    tables: Sequence[Table]
    notes: Sequence[str]
    goals: Sequence[Goal]
    readings: dict[str, Any]

    @property
    def reached(self) -> bool:
        return all(goal.reached for goal in self.goals)

    def show(self, console: Console | None = None) -> None:
        console = console or Console(highlight=False)
        if not console.is_terminal:
            console.width = WIDTH
        for made in self.tables:
            console.print(made)
            console.print()
        texts = [*(f"- {note}" for note in self.notes), "", *map(str, self.goals)]
        console.print(Text("\n".join(texts)))

    def save(self, name: str) -> Path:
        """Writes readings and goals to FOLDER as `name`.json, and what is shown as `name`.txt, in the place of earlier ones. Raises OSError."""
        machine = machine_facts(("cpu",))
        whole = {"machine": machine, "goals": list(map(str, self.goals)), **self.readings}
        FOLDER.mkdir(parents=True, exist_ok=True)
        path = FOLDER / f"{name}.json"
        write_whole(path, msgspec.json.format(msgspec.json.encode(whole, enc_hook=str)))
        shown = StringIO()
        self.show(Console(file=shown, highlight=False))
        where = f"{machine['devices']['cpu']['cores']} cores, torch {machine['torch']}, {datetime.now(UTC):%Y-%m-%d}"
        write_whole(path.with_suffix(".txt"), f"selfcheck {name}: {where}\n\n{shown.getvalue()}".encode())
        return path


def table(title: str, columns: Iterable[str], rows: Iterable[Sequence[str]]) -> Table:
    """The first column is text and the others are figures. Cells are no markup, whatever a model is called."""
    made = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for number, name in enumerate(columns):
        made.add_column(name, justify="right" if number else "left")
    for row in rows:
        made.add_row(*map(Text, row))
    return made


@contextmanager
def progress(steps: int, seconds: float) -> Iterator[Callable[[str], None]]:
    """A bar on stderr, after a line of how long so many steps will take. What is yielded is told of each step when it begins."""
    console = Console(stderr=True)
    console.print(f"{steps} measurements, about {max(seconds / 60, 0.1):.1f} minutes", highlight=False)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("", total=steps)
        begun = count()
        yield lambda step: bar.update(task, description=step, completed=next(begun))
        bar.update(task, completed=steps)
