"""`selfcheck faults`: what is lost when a run is killed, a disk is full, a model misbehaves or a file is hostile.

These are tests of the suite, tests/test_faults.py and tests/test_mutated.py, here with those that take long, and counted.
"""

from __future__ import annotations

import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from xml.etree import ElementTree as ET

from benchmarks.failure import Failure
from benchmarks.machines import ROOT
from benchmarks.selfcheck.findings import Findings, Goal, table

TESTS = ("tests/test_faults.py", "tests/test_mutated.py")
SIDE_BY_SIDE = ("-n", "2", "--dist", "loadfile")

_LIMIT = ", at most "
_RAN = (0, 1)
"""Exit statuses of pytest: all tests passed, or some failed."""


def faults(tests: Sequence[str] = TESTS, options: Sequence[str] = SIDE_BY_SIDE) -> Findings:
    """Counts by test how often something was tried, which is once or a test's property `times`, and what broke. Raises Failure.

    A test's property such as `MiB, at most 500` is a figure with its limit; the highest counts.
    """
    times: Counter[str] = Counter()
    broken: defaultdict[str, list[str]] = defaultdict(list)
    figures: dict[str, float] = {}
    for case in _run(tests, options):
        test, _, number = case.attrib["name"].partition("[")
        tried = test.removeprefix("test_").replace("_", " ")
        properties = {one.attrib["name"]: float(one.attrib["value"]) for one in case.iter("property")}
        times[tried] += int(properties.pop("times", 1))
        figures |= {what: max(found, figures.get(what, found)) for what, found in properties.items()}
        for fault in (*case.iter("failure"), *case.iter("error")):
            broken[tried].append(f"{tried}{f' [{number}' if number else ''}: {fault.attrib['message']}"[:300])
    rows = [[tried, str(number), str(number - len(broken[tried])), str(len(broken[tried]))] for tried, number in times.items()]
    limited = [(what.rpartition(_LIMIT), found) for what, found in figures.items()]
    return Findings(
        [
            Goal("promises broken", sum(map(len, broken.values())), 0, form="g"),
            *(Goal(what, found, float(limit), form=".3g") for (what, _, limit), found in limited),
        ],
        table("What was tried, and what became of it", ["tried", "times", "as promised", "not"], rows),
        [text for texts in broken.values() for text in texts[:5]],
        {"tried": times, "broken": broken},
    )


def _run(tests: Sequence[str], options: Sequence[str]) -> list[ET.Element]:
    """The cases in pytest's report that were not skipped; that they go on is told as pytest does. Raises Failure where it did not run them."""
    with TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-m", "", "-p", "no:cacheprovider", "--no-header", "--tb=no", *options]
        done = subprocess.run([*command, f"--junitxml={report}", *tests], cwd=ROOT, check=False)  # noqa: S603 - our own
        if done.returncode not in _RAN:
            raise Failure(
                "crashed", f"pytest ended with {done.returncode}, so nothing is known; `make setup` installs what it needs"
            )
        return [case for case in ET.parse(report).iter("testcase") if case.find("skipped") is None]  # noqa: S314 - pytest's
