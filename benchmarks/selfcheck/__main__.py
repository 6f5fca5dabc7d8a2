"""`python -m benchmarks.selfcheck CHECK`: how far the suite can be believed.

Exit status 1 where a goal is missed, 2 for options that cannot be had.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from benchmarks.device import DeviceError, default_device
from benchmarks.failure import Failure
from benchmarks.models import MODELS, SIZES
from benchmarks.models.own import ModelError
from benchmarks.options import Effort, OptionError, RunOptions, names_of
from benchmarks.plan import own_sources, plan
from benchmarks.record import FORWARD, PAGES_KEPT
from benchmarks.selfcheck import accuracy, coverage, device, faults, trueness
from benchmarks.selfcheck.findings import Findings
from benchmarks.workers import Launches

CHECKS = {
    "trueness": "the default measurement against long loops, and planted ratios (about half an hour)",
    "accuracy": "identical code and planted effects, by the suite and by other harnesses (about 20 minutes)",
    "faults": "kills, full disks, misbehaving models and mutated files (about 40 minutes)",
    "coverage": "how often the intervals hold the truth on a simulated machine (about two minutes)",
    "device": "an accelerator's bytes and clocks against what is known (a few minutes)",
}

QUICK: dict[str, dict[str, Any]] = {
    "trueness": {"repeats": 1, "processes": 2, "seconds": 0.02},
    "accuracy": {"repeats": 1, "seconds": 0.01, "null_turns": 1, "twins": 2},
    "faults": {"quick": True},
    "coverage": {"draws": 2},
}
"""What a check is given so that it takes seconds; a check that is not here cannot be quick."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.selfcheck", description="How far the suite can be believed.")
    parser.set_defaults(quick=False)
    subparsers = parser.add_subparsers(dest="check", required=True, metavar="CHECK")
    checks = {name: subparsers.add_parser(name, help=summary, description=summary) for name, summary in CHECKS.items()}
    for name in QUICK:
        checks[name].add_argument(
            "--quick", action="store_true", help="seconds, to see that it runs; what it finds says nothing"
        )
    add = checks["trueness"].add_argument
    add("--models", metavar="NAMES", type=names_of(MODELS), help=f"{', '.join(MODELS)} (default: all)")
    add("--sizes", metavar="NAMES", type=names_of(SIZES), help="(default: tiny,small)")
    add("--model", metavar="SPEC", action="append", default=[], help="your own, as for a run. Repeatable")
    checks["device"].add_argument("--device", metavar="NAME", default=default_device(), help="cuda or cuda:N (default: cuda)")
    chosen = parser.parse_args(arguments)
    try:
        findings = _findings(chosen)
    except (OptionError, ModelError, DeviceError) as error:
        parser.error(str(error))
    except Failure as failure:
        print(f"error: {failure}", file=sys.stderr)  # noqa: T201 - a command's
        return 1
    goals = findings.show()
    path = findings.save(f"{chosen.check}-quick" if chosen.quick else chosen.check, goals)
    print(f"\nsaved as {path}")  # noqa: T201
    return 0 if all(goal.reached for goal in goals) else 1


def _findings(chosen: argparse.Namespace) -> Findings:
    effort = Effort(processes=2, budget=0.1) if chosen.quick else Effort()
    extent = QUICK[chosen.check] if chosen.quick else {}
    if chosen.check == "device":
        return device.check(chosen.device)
    if chosen.check == "accuracy":
        return accuracy.accuracy(effort, **extent)
    if chosen.check == "faults":
        return faults.faults(**extent)
    if chosen.check == "coverage":
        return coverage.coverage(**extent)
    options = RunOptions(
        models=chosen.models or (("mlp",) if chosen.quick and not chosen.model else None),
        own_models=tuple(chosen.model),
        sizes=chosen.sizes or (("tiny",) if chosen.quick else ("tiny", "small")),
        scenarios=(FORWARD,),
        device=("cpu",),
        allocator=(PAGES_KEPT,),
        effort=effort,
    )
    sources, preload = own_sources(options, Launches(effort.worker_timeout)) if chosen.model else ([], [])
    return trueness.trueness(plan(options, sources), preload, **extent)


if __name__ == "__main__":
    sys.exit(main())
