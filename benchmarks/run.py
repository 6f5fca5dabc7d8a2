"""One run: takes groups from an executor until the case that is asked for is there. Knows no pytest."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks.record import SCHEMA, Case, Group, GroupResult, Result, Timed, Unmeasured, to_json


class Run:
    """What became of the cases of a run. `results` yields groups in the order in which they are measured."""

    def __init__(self, results: Iterator[GroupResult]) -> None:
        self._coming = results
        self.groups: dict[Group, GroupResult] = {}

    def result_of(self, case: Case) -> Timed | Unmeasured | None:
        """What became of `case`. None where nothing was timed for it: only checked, or the same figure as with pages kept.

        Raises KeyError for a case that no group has.
        """
        while case.group not in self.groups:
            if not self._take():
                raise KeyError(str(case))
        group = self.groups[case.group]
        timed = {one.result.case: one for one in group.timed}
        unmeasured = {one.case: one for one in group.unmeasured}
        return timed.get(case) or unmeasured.get(case)

    def take_all(self) -> None:
        """Has everything measured that is left."""
        while self._take():
            pass

    def _take(self) -> bool:
        group = next(self._coming, None)
        if group is not None:
            self.groups[group.group] = group
        return group is not None

    @property
    def results(self) -> list[Result]:
        return [timed.result for group in self.groups.values() for timed in group.timed]

    @property
    def unmeasured(self) -> list[Unmeasured]:
        return [one for group in self.groups.values() for one in group.unmeasured]

    def top_level(self, conditions: dict[str, Any]) -> dict[str, Any]:
        """The saved run's top-level key `gradtax`: what was not measured, and what varies from run to run."""
        return {
            "schema": SCHEMA,
            "unmeasured": [to_json(one) for one in self.unmeasured],
            "conditions": conditions,
        }
