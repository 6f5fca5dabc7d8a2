"""`python -m benchmarks.selfcheck COMMAND`: how far the suite can be believed, and what it costs."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from analysis.render import Table, terminal
from benchmarks.selfcheck.cost import cost
from benchmarks.selfcheck.coverage import coverage
from benchmarks.selfcheck.meters import meters

COMMANDS: Mapping[str, tuple[Callable[[], list[Table]], str]] = MappingProxyType(
    {
        "cost": (cost, "start-up times and the share of a run that measures (two to three minutes)"),
        "meters": (meters, "known blocks through every memory meter (a quarter of a minute)"),
        "coverage": (coverage, "how often the intervals hold the truth, beside rejected methods (about two minutes)"),
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
