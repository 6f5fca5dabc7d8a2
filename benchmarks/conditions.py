"""What the machine was like before a run, what the run met, and which of it harms a measurement."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cached_property
from typing import Any

from benchmarks.sensors import AFTER, BEFORE, COUNTERS, Finding, Place, read

HARM = {
    "throttled_seconds": Finding("the CPU limit of the container stopped the run", "raise it"),
    "gpu_throttled_seconds": Finding("heat slowed the GPU", "let it cool, and measure again"),
}
"""What to say where a counter grew by more than 1 % of the run's time."""


class Conditions:
    """The conditions of a run in `place`, which begins now. `before` are the findings to tell before it."""

    def __init__(self, place: Place, clock: Callable[[], float] = time.monotonic) -> None:
        self._place, self._clock, self._started = place, clock, clock()
        self._facts, self.before = read(place, BEFORE)
        self._counted, _ = read(place, COUNTERS)

    @property
    def after(self) -> list[Finding]:
        """What harmed the run while it went on. It ends when this or the record is first asked for."""
        return self._end[1]

    def record(self) -> dict[str, Any]:
        """Facts by name, without what nothing tells here; and `warnings`, all findings as texts."""
        facts, after = self._end
        return {**self._facts, **facts, "warnings": [str(finding) for finding in (*self.before, *after)]}

    @cached_property
    def _end(self) -> tuple[dict[str, Any], list[Finding]]:
        """Read once, so that what is shown is what was saved."""
        facts, findings = read(self._place, AFTER)
        counted, _ = read(self._place, COUNTERS)
        wall_seconds = self._clock() - self._started
        for name in (one for one in counted if one in self._counted):
            seconds = facts[name] = counted[name] - self._counted[name]
            if seconds > 0.01 * wall_seconds:
                what = f"{HARM[name].what} for {seconds:.1f} of {wall_seconds:.0f} s"
                findings.append(Finding(what, HARM[name].advice))
        return facts, findings
