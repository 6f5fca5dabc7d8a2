"""One run: which groups are left, what was found so far, and what it cost. Knows no pytest."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from typing import Any, Protocol

from benchmarks import suite
from benchmarks.conditions import Conditions
from benchmarks.failure import Failure
from benchmarks.measure.calibration import METERS, Reading, distrusted
from benchmarks.measure.invariants import broken_invariants
from benchmarks.measure.memory import withheld
from benchmarks.options import RunOptions
from benchmarks.plan import Planned, plan
from benchmarks.record import SCHEMA, Case, Group, Result, Timed, Unmeasured, to_json
from benchmarks.scenarios import SCENARIOS
from benchmarks.sensors import Place, started_nvml
from benchmarks.suite import Bench, Outcome
from benchmarks.tasks import calibrate, describe_machine


class Progress(Protocol):
    """Shown what is measured now."""

    def begins(self, number: int, total: int, group: Group, seconds_left: float) -> None: ...

    def says(self, text: str) -> None: ...

    def ends(self, outcome: Outcome) -> None: ...


class Session:
    """A run of planned groups: measures a group when its first case is asked for, and remembers the rest."""

    def __init__(self, options: RunOptions) -> None:
        self.options = options
        self.conditions = Conditions(Place(options.threads, nvml=started_nvml() if "cuda" in options.devices else None))
        self.rooms = suite.rooms_for(options)
        self._bench = Bench(options, self.rooms)
        self.planned: Sequence[Planned] = plan(options, self.rooms)
        self._outcomes: dict[Group, Outcome] = {}
        self._readings: list[Reading] = []
        self._distrusted: dict[str, dict[str, str]] = {}
        self._started = time.monotonic()

    def select(self, cases: Iterable[Case]) -> None:
        """Leaves only these cases to be measured (`pytest -k`)."""
        wanted = set(cases)
        chosen = (replace(one, modes=tuple(m for m in one.modes if one.group.case(m) in wanted)) for one in self.planned)
        self.planned = [planned for planned in chosen if planned.modes]

    def find(self, case: Case, progress: Progress, *, contract_only: bool = False) -> Timed | Unmeasured | None:
        """What became of `case`; measures its group if that was not done yet.

        With `contract_only` nothing is timed, and None means that the contract holds.
        """
        outcome = self._outcomes.get(case.group)
        if outcome is None:
            outcome = self._outcomes[case.group] = self._measure(case.group, progress, contract_only=contract_only)
        found: list[Timed | Unmeasured] = [timed for timed in outcome.measured if timed.result.case == case]
        found += [one for one in outcome.unmeasured if one.case == case]
        return found[0] if found else None

    def _measure(self, group: Group, progress: Progress, *, contract_only: bool) -> Outcome:
        planned = next(one for one in self.planned if one.group == group)
        done, total = len(self._outcomes), len(self.planned)
        progress.begins(done + 1, total, group, self._seconds_left())
        if contract_only:
            outcome = self._bench.check(planned)
        else:
            if group.device not in self._distrusted:
                progress.says("known blocks through the memory meters")
                self._distrusted[group.device] = self._calibrate(group.device)
            outcome = self._trusted(self._bench.measure(planned, progress.says), group.device)
        progress.ends(outcome)
        return outcome

    def _seconds_left(self) -> float:
        """As long for each group as those before took, weighed by its share of the budget and what examining takes."""
        weights = {one.group: 0.1 + SCENARIOS[one.group.scenario].budget_share for one in self.planned}
        done = sum(weights[group] for group in self._outcomes)
        per_weight = (time.monotonic() - self._started) / done if done else self.options.budget + 1
        return per_weight * (sum(weights.values()) - done)

    def _trusted(self, outcome: Outcome, device: str) -> Outcome:
        """`outcome` without the figures whose meters failed on known blocks."""
        reasons = self._distrusted[device]
        results = (replace(timed.result, memory=withheld(timed.result.memory, reasons)) for timed in outcome.measured)
        measured = [replace(timed, result=result) for timed, result in zip(outcome.measured, results, strict=True)]
        return replace(outcome, measured=measured)

    def _calibrate(self, device: str) -> dict[str, str]:
        """The figures not to be trusted on `device` in this run, each with the reason."""
        try:
            found = self.rooms.run(calibrate, device, self.options.threads, own_process=self.rooms.fresh)
        except Failure as failure:
            return dict.fromkeys(METERS, f"its meter could not be tried: {failure.status}: {failure.reason}")
        self._readings += found
        return distrusted(found)

    @property
    def results(self) -> list[Result]:
        return [timed.result for outcome in self._outcomes.values() for timed in outcome.measured]

    @property
    def unmeasured(self) -> list[Unmeasured]:
        return [one for outcome in self._outcomes.values() for one in outcome.unmeasured]

    @property
    def broken_invariants(self) -> list[str]:
        return broken_invariants(self.results)

    def top_level(self) -> dict[str, Any]:
        """The saved run's top-level key `gradtax`: what was not measured, and what varies from run to run."""
        return {
            "schema": SCHEMA,
            "unmeasured": [to_json(one) for one in self.unmeasured],
            "broken_invariants": self.broken_invariants,
            "conditions": {
                "command": ["pytest", *sys.argv[1:]],
                "in_process": self.options.in_process,
                "budget_seconds": self.options.budget,
                "precision": self.options.precision,
                **self.conditions.record(),
                "wall_seconds": time.monotonic() - self._started,
                "meters": [asdict(one) for one in self._readings],
                "measured_seconds": sum(outcome.measured_seconds for outcome in self._outcomes.values()),
            },
        }

    def machine_facts(self) -> dict[str, Any]:
        """What identifies the machine and the build, for pytest-benchmark's `machine_info`."""
        return self.rooms.run(describe_machine, self.options.devices, self.options.threads)
