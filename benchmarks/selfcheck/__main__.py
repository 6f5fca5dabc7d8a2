"""`python -m benchmarks.selfcheck COMMAND`: how far the suite can be believed, and what it costs."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType

from analysis.render import Table, terminal
from benchmarks.selfcheck.accuracy import accuracy
from benchmarks.selfcheck.cost import cost
from benchmarks.selfcheck.coverage import coverage
from benchmarks.selfcheck.meters import meters
from benchmarks.selfcheck.verdicts import verdicts

COMMANDS: Mapping[str, tuple[Callable[[], list[Table]], str]] = MappingProxyType(
    {
        "accuracy": (accuracy, "errors and effects found, here and by other harnesses (under five minutes)"),
        "verdicts": (verdicts, "verdicts on identical code and on planted effects (two to six minutes)"),
        "verdicts-busy": (partial(verdicts, os.cpu_count() or 1), "the same beside as many busy processes as cores"),
        "coverage": (coverage, "how often the intervals hold the truth, beside rejected methods (about two minutes)"),
        "meters": (meters, "known blocks through every memory meter (a quarter of a minute)"),
        "cost": (cost, "start-up times and the share of a run that measures (four to five minutes)"),
    }
)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.selfcheck", description="How far the suite can be believed.")
    chosen = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (_, help_text) in COMMANDS.items():
        chosen.add_parser(name, help=help_text, description=help_text)
    check, _ = COMMANDS[parser.parse_args(arguments).command]
    print("\n\n".join(terminal(table) for table in check()))  # noqa: T201 - the tables are what this command is for


if __name__ == "__main__":
    main()
