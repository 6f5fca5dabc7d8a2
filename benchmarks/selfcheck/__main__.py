"""`python -m benchmarks.selfcheck trueness|accuracy|coverage`: how far the suite can be believed.

Exit status 1 where a goal is missed, 2 for options that cannot be had.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from benchmarks.failure import Failure
from benchmarks.models import MODELS, SIZES
from benchmarks.models.own import ModelError
from benchmarks.options import OptionError, RunOptions, names_of
from benchmarks.plan import own_sources, plan
from benchmarks.record import FORWARD, PAGES_KEPT
from benchmarks.selfcheck import accuracy, coverage, device, faults, trueness
from benchmarks.selfcheck.findings import Findings
from benchmarks.workers import Launches

DEFAULT_SIZES = ("tiny", "small")
CHECKS = {
    "trueness": "the default measurement against long loops, and planted ratios (about twenty minutes)",
    "accuracy": "identical code and planted effects, by the suite and by other harnesses (about eight minutes)",
    "faults": "kills, full disks, misbehaving models and mutated files (about an hour)",
    "coverage": "how often the intervals hold the truth on a simulated machine (about a minute)",
    "device": "an accelerator's bytes and clocks against what is known (a few minutes)",
}


def main(arguments: Sequence[str] | None = None) -> int:
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["device"]:  # prints as it goes, because a device that fails late must not take what was found with it
        return device.main(given[1:])
    parser = argparse.ArgumentParser(prog="python -m benchmarks.selfcheck", description="How far the suite can be believed.")
    checks = parser.add_subparsers(dest="check", required=True, metavar="CHECK")
    for name, summary in CHECKS.items():
        check = checks.add_parser(name, help=summary, description=summary)
        check.add_argument("--quick", action="store_true", help="seconds, to see that it runs; what it finds says nothing")
        if name == "trueness":
            check.add_argument("--models", metavar="NAMES", type=names_of(MODELS), help=f"{', '.join(MODELS)} (default: all)")
            check.add_argument("--sizes", metavar="NAMES", type=names_of(SIZES), help="(default: tiny,small)")
            check.add_argument(
                "--model", metavar="SPEC", action="append", default=[], help="your own, as for a run. Repeatable"
            )
    chosen = parser.parse_args(given)
    try:
        findings = _findings(chosen)
    except (OptionError, ModelError) as error:
        parser.error(str(error))
    except Failure as failure:
        print(f"error: {failure}", file=sys.stderr)  # noqa: T201 - a command's
        return 1
    findings.show()
    path = findings.save(f"{chosen.check}-quick" if chosen.quick else chosen.check)
    print(f"\nsaved as {path}")  # noqa: T201
    return 0 if findings.reached else 1


def _findings(chosen: argparse.Namespace) -> Findings:
    if chosen.check == "accuracy":
        return accuracy.accuracy(accuracy.QUICK if chosen.quick else accuracy.Extent())
    if chosen.check == "faults":
        return faults.faults(quick=chosen.quick)
    if chosen.check == "coverage":
        return coverage.coverage(coverage.QUICK_DRAWS if chosen.quick else coverage.DRAWS)
    options = RunOptions(
        models=chosen.models or (("mlp",) if chosen.quick and not chosen.model else None),
        own_models=tuple(chosen.model),
        sizes=chosen.sizes or (DEFAULT_SIZES[:1] if chosen.quick else DEFAULT_SIZES),
        scenarios=(FORWARD,),
        device=("cpu",),
        allocator=(PAGES_KEPT,),
    )
    sources, preload = own_sources(options, Launches(options.effort.worker_timeout)) if chosen.model else ([], [])
    return trueness.trueness(plan(options, sources), trueness.QUICK if chosen.quick else trueness.Extent(), preload)


if __name__ == "__main__":
    sys.exit(main())
