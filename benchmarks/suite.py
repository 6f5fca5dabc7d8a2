"""From a group to its results. The door for notebooks and scripts is `measure_model`:

```python
from benchmarks.suite import measure_model

result = measure_model(module, inputs)
print(result)
```
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from torch import nn

from analysis.render import rendered
from analysis.tables import summary_tables
from benchmarks import allocator
from benchmarks.failure import Failure
from benchmarks.lockstep import BLOCK_SECONDS, FEWEST_ROUNDS, LAYOUTS, time_in_lock_step
from benchmarks.measure.timing import Limits, Timings
from benchmarks.models import OWN_SIZE, Workload
from benchmarks.models.workload import Inputs
from benchmarks.modes import TRACKED
from benchmarks.options import BUDGET_SECONDS, PRECISION, THREADS, TIMEOUT_SECONDS, RunOptions, parse
from benchmarks.plan import Planned, modes_of, plan
from benchmarks.record import FORWARD, RESIDENT, Case, Group, Interval, Result, Timed, Unmeasured, tidy_rows
from benchmarks.results import settled_group, speedup_of, timed, trusted
from benchmarks.room import CleanRooms, Listen, Rooms, ThisProcess, nobody
from benchmarks.scenarios import SCENARIOS
from benchmarks.tasks import KEPT_PAGES, PLACEBO, Examination, Job, examine, time_group


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the modes of one group. `measured_seconds` were spent inside timed rounds and memory passes."""

    measured: list[Timed] = field(default_factory=list)
    unmeasured: list[Unmeasured] = field(default_factory=list)
    measured_seconds: float = 0.0


def rooms_for(options: RunOptions) -> Rooms:
    return ThisProcess() if options.in_process else CleanRooms(options.timeout)


class Bench:
    """Measures groups. What a lane does and needs is the same whichever way its memory is kept while timing, so it is examined once."""

    def __init__(self, options: RunOptions, rooms: Rooms) -> None:
        self._options, self._rooms = options, rooms
        self._examined: dict[Case, Examination | Failure] = {}
        self._memory_seconds = 0.0

    def measure(self, planned: Planned, listen: Listen = nobody) -> Outcome:
        """Examines each mode in a room of its own, then times those that hold their contract together.

        A mode that fails is left out and reported as Unmeasured; the others go on, without a speedup if tracked is what failed.
        """
        return self.measure_job(planned.job(self._options.threads), planned.modes, listen)

    def check(self, planned: Planned) -> Outcome:
        """Runs each mode and checks its contract; times nothing and measures nothing."""
        failures, _ = self._examine(planned.job(self._options.threads), planned.modes, nobody)
        return Outcome(unmeasured=_unmeasured(planned.group, failures))

    def measure_job(self, job: Job, modes: Sequence[str], listen: Listen) -> Outcome:
        group = job.group
        why = allocator.unavailable() if group.device == "cpu" and group.allocator == RESIDENT else None
        if why is not None:
            return Outcome(unmeasured=[Unmeasured(group.case(mode), "unsupported", why) for mode in modes])
        self._memory_seconds = 0.0
        failures, examined = self._examine(job, modes, listen)
        timings: list[Timings] = []
        discarded: list[Interval] = []
        while not timings and any(mode in modes for mode in examined if mode not in failures):
            lanes = [mode for mode in examined if mode not in failures]
            try:
                timings, discarded = self._time_until_trusted(job, lanes, listen)
            except Failure as failure:
                lost = TRACKED.name if failure.lane in (PLACEBO, KEPT_PAGES) else failure.lane
                failures |= dict.fromkeys([lost] if lost in lanes else lanes, failure)
        measured = [
            timed(group.case(mode), examined[mode], timings, discarded, job.scenario.steps)
            for mode in modes
            if timings and mode in timings[0].seconds
        ]
        seconds = self._memory_seconds + sum(one.elapsed_seconds for one in timings)
        return Outcome(measured, _unmeasured(group, failures), seconds)

    def _examine(self, job: Job, modes: Sequence[str], listen: Listen) -> tuple[dict[str, Failure], dict[str, Examination]]:
        """Tracked comes first, asked for or not: it is what the others are compared with."""
        failures: dict[str, Failure] = {}
        examined: dict[str, Examination] = {}
        for mode in dict.fromkeys((TRACKED.name, *modes)):
            key = replace(job.group, allocator="").case(mode)
            if key not in self._examined:
                listen(f"contract and memory of {mode}")
                self._examined[key] = self._examine_lane(job, mode, with_tracked=TRACKED.name not in failures)
            found = self._examined[key]
            if isinstance(found, Failure):
                failures[mode] = found
            else:
                examined[mode] = found
        return failures, examined

    def _examine_lane(self, job: Job, mode: str, *, with_tracked: bool) -> Examination | Failure:
        rooms = self._rooms
        try:
            found = rooms.run(examine, job, mode, with_tracked=with_tracked, own_process=rooms.fresh, lanes=(mode,))
        except Failure as failure:
            return failure
        if not found.contract.holds:
            return Failure("broken_contract", "; ".join(found.contract.broken))
        self._memory_seconds += found.memory_seconds
        return found

    def _time_until_trusted(self, job: Job, lanes: Sequence[str], listen: Listen) -> tuple[list[Timings], list[Interval]]:
        """Times again, up to `--retries` times, while the placebo reads anything but 1; returns with the placebos of what was discarded."""
        discarded: list[Interval] = []
        for retries_left in range(self._options.retries, -1, -1):
            timings = self._time(job, lanes, listen)
            placebo = speedup_of(timings, PLACEBO)
            if placebo is None or trusted(placebo) or not retries_left:
                break
            listen(f"identical code read {placebo.estimate:.3f} instead of 1: timing again")
            discarded.append(placebo)
        return timings, discarded

    def _time(self, job: Job, lanes: Sequence[str], listen: Listen) -> list[Timings]:
        """One Timings for each of `--processes`, as shipped for each heap; all with the calls per block that the first one chose."""
        options, rooms, named = self._options, self._rooms, (*lanes, PLACEBO)
        shipped = job.group.allocator != RESIDENT
        number = options.processes * (LAYOUTS if shipped else 1)
        budget = options.budget * job.scenario.budget_share
        timings: list[Timings] = []
        for one in range(number):
            where = f"{'heap' if shipped else 'process'} {one + 1} of {number}, " if number > 1 else ""
            say = partial(_prefixed, listen, f"timing {len(named)} lanes, {where}")
            calls, timeout = timings[0].calls if timings else None, options.timeout * 0.9
            if shipped:
                # Within one heap there is nothing to be sure of.
                limits = Limits(budget / LAYOUTS, timeout, None, calls, FEWEST_ROUNDS, BLOCK_SECONDS)
                timings.append(time_in_lock_step(rooms, job, lanes, limits, one, say))
            else:
                limits = Limits(budget, timeout, partial(settled_group, precision=options.precision), calls)
                timings.append(rooms.run(time_group, job, lanes, limits, one, lanes=named, listen=say))
        return timings


def _unmeasured(group: Group, failures: dict[str, Failure]) -> list[Unmeasured]:
    """Tracked is listed even where it was not asked for: it is why the others have no speedup."""
    return [Unmeasured(group.case(mode), failure.status, failure.reason) for mode, failure in failures.items()]


def _prefixed(listen: Listen, prefix: str, text: str) -> None:
    listen(f"{prefix}{text}")


@dataclass(frozen=True, slots=True)
class Measurement:
    """What `measure_model` found. Printing it shows the table; `results` are the records that a saved run holds."""

    results: list[Result]
    unmeasured: list[Unmeasured]

    def __getitem__(self, mode: str) -> Result:
        """The first result of `mode`. Raises KeyError if it was not measured."""
        for result in self.results:
            if result.case.mode == mode:
                return result
        raise KeyError(mode)

    def __repr__(self) -> str:
        return rendered(summary_tables(tidy_rows(self.results), self.unmeasured), "terminal")


def measure_model(
    model: nn.Module | str,
    inputs: Inputs | None = None,
    *,
    name: str | None = None,
    modes: str | None = None,
    sizes: str | None = None,
    threads: int = THREADS,
    budget: float = BUDGET_SECONDS,
    precision: float = PRECISION,
    timeout: float = TIMEOUT_SECONDS,
    listen: Listen = nobody,
) -> Measurement:
    """What tracking costs `model`, measured as `pytest --benchmark` does.

    A module with its `inputs` (a tensor, a tuple of positional arguments or a dict of keyword arguments) is measured as it is, where it is,
    in this process: `peak_rss_bytes` needs a process of its own and is None, and from then on this process keeps
    freed pages (glibc). A SPEC (`path.py:function` or `package.module:function`) is measured in clean rooms, with all figures.
    `modes` and `sizes` are comma-separated names, `budget` is seconds of timing per group, `precision` a fraction.

    Raises options.OptionError for a value out of range, own.ModelError for a SPEC that does not suit, and TypeError
    for inputs of another kind.
    """
    own_models = [model] if isinstance(model, str) else []
    options = parse(
        own_models=own_models, modes=modes, sizes=sizes,
        threads=str(threads), budget=str(budget), precision=str(precision), timeout=str(timeout),
    )  # fmt: skip
    if isinstance(model, str):
        rooms = rooms_for(options)
        bench = Bench(options, rooms)
        outcomes = [bench.measure(planned, listen) for planned in plan(options, rooms)]
    else:
        if inputs is None:
            raise TypeError("measure_model(module, inputs): inputs are missing; a tensor, a tuple or a dict")
        bench = Bench(options, ThisProcess())
        outcomes = [bench.measure_job(_live_job(model, inputs, name, threads), modes_of(SCENARIOS[FORWARD], options), listen)]
    return Measurement(
        [timed.result for outcome in outcomes for timed in outcome.measured],
        [one for outcome in outcomes for one in outcome.unmeasured],
    )


def _live_job(module: nn.Module, inputs: Inputs, name: str | None, threads: int) -> Job:
    workload = Workload.of(module, inputs)
    parameter = next(module.parameters(), None)
    if parameter is None:
        raise TypeError(f"{type(module).__name__} has no parameters, so there is nothing to track")
    dtype = str(parameter.dtype).removeprefix("torch.")
    group = Group(FORWARD, name or type(module).__name__, OWN_SIZE, parameter.device.type, dtype, RESIDENT)
    return Job(group, lambda: workload, threads)
