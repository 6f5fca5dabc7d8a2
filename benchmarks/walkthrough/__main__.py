"""`python -m benchmarks.walkthrough`: what switching gradients off does, shown by doing it; `--modes` compares the modes.

The exit status is 1 if anything that the walkthrough states does not hold with the torch that is installed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from analysis.render import FORMATS


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.walkthrough", description="What switching gradients off does.")
    parser.add_argument("--modes", action="store_true", help="a table instead: every mode, every property, found by running")
    parser.add_argument("--format", choices=FORMATS, help="of that table (default: terminal)")
    chosen = parser.parse_args(arguments)
    if chosen.format and not chosen.modes:
        parser.error("--format: the walkthrough is plain text; add --modes for the table")
    # torch takes seconds to import, which neither --help nor a wrong option needs
    if chosen.modes:
        from benchmarks.modes import MODES
        from benchmarks.walkthrough.table import modes_table

        wanted = chosen.format or "terminal"
        print(FORMATS[wanted](modes_table(list(MODES.values()), words=wanted == "terminal")))  # noqa: T201 - asked for
        return 0
    from benchmarks.walkthrough.walk import told, walk

    taken = walk()
    print(told(taken))  # noqa: T201 - what this command is for
    return 0 if all(seen.holds for one in taken for seen in one.seen) else 1


if __name__ == "__main__":
    sys.exit(main())
