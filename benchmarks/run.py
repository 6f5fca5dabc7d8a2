"""One run: takes groups from an executor until the case that is asked for is there. Knows no pytest."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.record import Case, Group, GroupResult, Result, Timed, Unmeasured


class Run:
    """What became of the cases of a run. `results` yields groups in the order in which they are measured."""

    def __init__(self, results: Iterator[GroupResult]) -> None:
        self._coming = results
        self.groups: dict[Group, GroupResult] = {}

    def result_of(self, case: Case) -> Timed | Unmeasured | None:
        """What became of `case`. None where nothing was timed for it: only checked, or the same figure as with pages kept.

        Raises KeyError for a case that no group has.
        """
        self.take(case.group)
        group = self.groups[case.group]
        outcomes = {one.case: one for one in group.unmeasured} | {one.result.case: one for one in group.timed}
        return outcomes.get(case)

    def take(self, until: Group | None = None) -> None:
        """Has everything measured that is left, or what is left up to that group."""
        while until not in self.groups and (group := next(self._coming, None)):
            self.groups[group.group] = group

    @property
    def results(self) -> list[Result]:
        return [timed.result for group in self.groups.values() for timed in group.timed]

    @property
    def unmeasured(self) -> list[Unmeasured]:
        return [one for group in self.groups.values() for one in group.unmeasured]
