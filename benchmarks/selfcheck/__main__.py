"""`python -m benchmarks.selfcheck CHECK`: how far the suite can be believed.

Exit status 1 where a goal is missed, 2 for options that cannot be had.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.device import DeviceError, default_device
from benchmarks.failure import Failure
from benchmarks.models import MODELS, SIZES
from benchmarks.models.own import ModelError
from benchmarks.options import Effort, OptionError, names_of
from benchmarks.selfcheck import accuracy, coverage, device, faults, trueness
from benchmarks.selfcheck.findings import Findings

CHECKS: dict[str, tuple[Callable[..., Findings], str]] = {
    "trueness": (trueness.trueness, "the default measurement against long loops, and planted ratios (about half an hour)"),
    "accuracy": (
        accuracy.accuracy,
        "identical code and planted effects, by the suite and by other harnesses (about 20 minutes)",
    ),
    "faults": (faults.faults, "kills, full disks, misbehaving models and mutated files (about half an hour)"),
    "coverage": (coverage.coverage, "how often the intervals hold the truth on a simulated machine (about two minutes)"),
    "device": (device.check, "an accelerator's bytes and clocks against what is known (a few minutes)"),
}
_EFFORT = Effort(processes=2, budget=0.1)
QUICK: dict[str, dict[str, Any]] = {
    "trueness": {"models": ("mlp",), "sizes": ("tiny",), "effort": _EFFORT, "repeats": 1, "processes": 2, "seconds": 0.02},
    "accuracy": {"effort": _EFFORT, "repeats": 1, "seconds": 0.01, "null_turns": 1, "twins": 2},
    "coverage": {"draws": 2},
}
"""What a check is given so that it takes seconds; a check that is not here cannot be quick."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.selfcheck", description="How far the suite can be believed.")
    subparsers = parser.add_subparsers(dest="check", required=True, metavar="CHECK")
    checks = {name: subparsers.add_parser(name, help=text, description=text) for name, (_, text) in CHECKS.items()}
    for name in QUICK:
        checks[name].add_argument(
            "--quick", action="store_true", help="seconds, to see that it runs; what it finds says nothing"
        )
    add = checks["trueness"].add_argument
    add("--models", metavar="NAMES", type=names_of(MODELS), help=f"{', '.join(MODELS)} (default: all)")
    add("--sizes", metavar="NAMES", type=names_of(SIZES), help="(default: tiny,small)")
    add("--model", metavar="SPEC", action="append", dest="own_models", help="your own, as for a run. Repeatable")
    checks["device"].add_argument("--device", metavar="NAME", default=default_device(), help="cuda or cuda:N (default: cuda)")
    chosen = {name: value for name, value in vars(parser.parse_args(arguments)).items() if value}
    name, quick = chosen.pop("check"), chosen.pop("quick", False)
    check, _ = CHECKS[name]
    try:
        findings = check(**(QUICK[name] | chosen if quick else chosen))
    except (OptionError, ModelError, DeviceError) as error:
        parser.error(str(error))
    except Failure as failure:
        print(f"error: {failure}", file=sys.stderr)  # noqa: T201 - a command's
        return 1
    return 0 if findings.tell(f"{name}-quick" if quick else name) else 1


if __name__ == "__main__":
    sys.exit(main())
