"""`python -m benchmarks.guide`: what switching gradients off does, shown by running walkthrough.txt.

The exit status is 1 if anything that the text states does not hold with the torch that is installed. `--modes` prints a table in
Markdown instead.
"""

from __future__ import annotations

import argparse
import doctest
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from rich.console import Console

from analysis.render import Table, markdown
from benchmarks.guide.properties import PROPERTIES, has
from benchmarks.modes import MODES

WALKTHROUGH = Path(__file__).with_name("walkthrough.txt")
WIDTH = 90


class Reader(doctest.DocTestRunner):
    """Runs a doctest and prints it as it goes: headings, code without prompts, and what came out.

    `broken` names the statements that did not do what the text says.
    """

    def __init__(self, console: Console) -> None:
        super().__init__(verbose=False, optionflags=doctest.ELLIPSIS)
        self.broken: list[str] = []
        self._console = console
        self._lines_shown = 0

    def report_start(self, _out: Any, test: doctest.DocTest, example: doctest.Example) -> None:
        for heading in (test.docstring or "").splitlines()[self._lines_shown : example.lineno]:
            self._console.print(heading, style="bold")
        self._lines_shown = example.lineno + example.source.count("\n") + example.want.count("\n")
        self._console.print(textwrap.indent(example.source.rstrip(), "    "))

    def report_success(self, _out: Any, _test: doctest.DocTest, _example: doctest.Example, got: str) -> None:
        for number, line in enumerate(_outcome(got)):
            self._console.print(f"{'    -> ' if number == 0 else '       '}{line}", style="green")

    def report_failure(self, _out: Any, test: doctest.DocTest, example: doctest.Example, got: str) -> None:
        self.broken.append(f"{test.name}, line {example.lineno + 1}: {example.source.splitlines()[0]}")
        for word, text in (("expected", example.want), ("came", got)):
            for line in _outcome(text) or ["nothing"]:
                self._console.print(f"  ! {word}: {line}", style="bold red")

    def report_unexpected_exception(self, out: Any, test: doctest.DocTest, example: doctest.Example, exc_info: Any) -> None:
        self.report_failure(out, test, example, f"{exc_info[0].__name__}: {exc_info[1]}")


def _outcome(text: str) -> list[str]:
    """What was printed, or an exception without its traceback, in lines that fit."""
    lines = text.splitlines()
    if lines and lines[0].startswith("Traceback"):
        lines = [line for line in lines[1:] if not line.startswith(" ")]
    return [piece for line in lines for piece in textwrap.wrap(line, WIDTH, max_lines=3, placeholder=" ...")]


def read_out(text: str, name: str, console: Console) -> bool:
    """Runs a doctest, prints it, and tells whether all that it states holds."""
    reader = Reader(console)
    reader.run(doctest.DocTestParser().get_doctest(text, {}, name, name, 0))
    if not reader.broken:
        console.print(f"\nAll of this holds with torch {torch.__version__}.")
        return True
    console.print(f"\nWith torch {torch.__version__} this does not hold, marked ! above:", style="bold red")
    for statement in reader.broken:
        console.print(f"  {statement}")
    return False


def modes_table() -> Table:
    """Properties x modes. A mode whose answers are all those of an earlier one, where it has any, is named below instead."""
    words = {True: "yes", False: "no", None: "-"}
    columns: dict[str, list[str]] = {}
    notes = ["a dash: the question makes no sense for the mode"]
    for mode in MODES.values():
        answers = [words[has(mode, name)] for name in PROPERTIES]
        alike = [
            name
            for name, others in columns.items()
            if all(answer in ("-", other) for answer, other in zip(answers, others, strict=True))
        ]
        if alike:
            notes.append(f"{mode.name} is like {alike[0]}")
        else:
            columns[mode.name] = answers
    return Table(pd.DataFrame({"property": list(PROPERTIES), **columns}), notes)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.guide", description="What switching gradients off does.")
    parser.add_argument("--modes", action="store_true", help="print instead what each mode does, found by running it")
    chosen = parser.parse_args(arguments)
    # while a doctest runs, stdout is its own
    console = Console(file=sys.stdout, markup=False, emoji=False, highlight=False, soft_wrap=True)
    if chosen.modes:
        console.print(markdown(modes_table()))
        return 0
    return 0 if read_out(WALKTHROUGH.read_text(encoding="utf-8"), WALKTHROUGH.name, console) else 1


if __name__ == "__main__":
    sys.exit(main())
