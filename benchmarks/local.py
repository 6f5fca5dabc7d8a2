"""This machine as the site of a run. benchmarks/remote.py has others."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property, partial
from typing import Any

from benchmarks import plan
from benchmarks.environment import Conditions, Finding, Place, machine_facts
from benchmarks.execution import COMPILER
from benchmarks.executors import Here
from benchmarks.options import RunOptions
from benchmarks.record import COMPILED
from benchmarks.workers import InProcess, Launches

Met = dict[str | None, tuple[dict[str, Any], list[Finding]]]
"""By a machine's name, None for this one: the conditions of a run that ends now, and the findings to tell after it."""


class Local(Here):
    """`jobs` is the plan, `before` are findings to tell before it is measured. Raises OptionError and own.ModelError."""

    machine_infos: Mapping[str, dict[str, Any]] = {}
    """What a saved run says of other machines, by their names: none measures."""

    def __init__(self, chosen: RunOptions) -> None:
        launches = partial(Launches, chosen.effort.worker_timeout, memory_limit=chosen.effort.memory_limit)
        workers = InProcess() if chosen.in_process else launches()
        sources, imports = plan.own_sources(chosen, workers)
        imports += COMPILER if COMPILED in chosen.execution else ()
        if imports and not chosen.in_process:
            workers = launches(imports)
        super().__init__(workers)
        self._processes = chosen.effort.processes
        self.jobs = plan.plan(chosen, sources)
        self._devices = list(dict.fromkeys(job.device for job in self.jobs))
        self._conditions = Conditions(Place.of(chosen.effort.threads, self._devices))
        self.before = self._conditions.before

    @cached_property
    def facts(self) -> dict[str, Any]:
        """What identifies the machine and the build: a journal is gone on with only where they are the same.

        Asked once: before the first job, or earlier where pytest-benchmark compares the machine with a saved run's. All launches then begin to
        import. Raises Failure for a device that does not open.
        """
        if isinstance(self.workers, Launches):
            self.workers.prepare(self._processes)
        return self.workers.run(machine_facts, self._devices)

    def met(self) -> Met:
        return {None: self._conditions.end()}

    def close(self) -> None:
        """Workers end with this process."""
