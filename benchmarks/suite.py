"""From options to groups, and from a group to its results. The door for notebooks and scripts is `measure_model`:

```python
from benchmarks.suite import measure_model

result = measure_model(module, inputs)
print(result)
```
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from torch import nn

from analysis.render import terminal
from analysis.summary import summary_table
from benchmarks import allocator
from benchmarks.failure import Failure
from benchmarks.measure.timing import Timings
from benchmarks.models import MODELS, OWN_SIZE, Source, Workload, own
from benchmarks.models.workload import Inputs
from benchmarks.modes import TRACKED
from benchmarks.options import BUDGET_SECONDS, PRECISION, THREADS, TIMEOUT_SECONDS, RunOptions, parse
from benchmarks.record import Case, Group, Interval, Result, Timed, Unmeasured, Verdict, tidy_rows
from benchmarks.room import CleanRooms, Listen, Rooms, ThisProcess, nobody
from benchmarks.statistics import paired_ratio, verdict
from benchmarks.tasks import PLACEBO, Examination, Job, examine, time_group, try_own


@dataclass(frozen=True, slots=True)
class Planned:
    """A group to be measured, and where its workload comes from."""

    group: Group
    source: Source
    modes: tuple[str, ...]

    @property
    def cases(self) -> list[Case]:
        return [self.group.case(mode) for mode in self.modes]

    def job(self, threads: int) -> Job:
        return Job(self.group, partial(self.source.workload, self.group.device, self.group.dtype), threads)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the modes of one group. `measured_seconds` were spent inside timed rounds and memory passes."""

    measured: list[Timed] = field(default_factory=list)
    unmeasured: list[Unmeasured] = field(default_factory=list)
    measured_seconds: float = 0.0


def rooms_for(options: RunOptions) -> Rooms:
    return ThisProcess() if options.in_process else CleanRooms(options.timeout)


def plan(options: RunOptions, rooms: Rooms) -> list[Planned]:
    """The groups in the order in which they are measured. The user's models are tried out in a room first.

    Raises own.ModelError for a user's model that does not suit.
    """
    sources = [Source(model, size) for model in options.models for size in options.sizes if size in MODELS[model].sizes]
    for spec in options.own:
        sources += _own_sources(spec, options.sizes, rooms)
    return [
        Planned(Group(scenario, source.model, source.size, device, dtype, alloc), source, options.modes)
        for scenario in options.scenarios
        for source in sources
        for device in options.devices
        for dtype in options.dtypes
        for alloc in options.allocators
    ]


def _own_sources(spec: str, sizes: Sequence[str], rooms: Rooms) -> Sequence[Source]:
    """Where the room is lost, the lanes will say so: then the sizes are what the function takes, as far as can be known."""
    try:
        found = rooms.run(try_own, spec, sizes, lanes=(*sizes, OWN_SIZE))
    except Failure as failure:
        if failure.lane is None:
            raise own.ModelError(f"{spec}: could not be imported: {failure.reason}") from failure
        found = tuple(Source(own.name_of(spec), size, spec) for size in (sizes if failure.lane in sizes else (OWN_SIZE,)))
    if isinstance(found, str):
        raise own.ModelError(found)
    return found


def measure(planned: Planned, options: RunOptions, rooms: Rooms, listen: Listen = nobody) -> Outcome:
    """Examines each mode in a room of its own, then times those that hold their contract together in another.

    A mode that fails is left out and reported as Unmeasured; the others go on, without a speedup if tracked is what failed.
    """
    return _measure(planned.job(options.threads), planned.modes, options, rooms, listen)


def check(planned: Planned, options: RunOptions, rooms: Rooms) -> Outcome:
    """Runs each mode and checks its contract; times nothing and measures nothing."""
    failures, _ = _examine(planned.job(options.threads), planned.modes, rooms, nobody)
    return Outcome(unmeasured=_unmeasured(planned.group, failures))


def _measure(job: Job, modes: Sequence[str], options: RunOptions, rooms: Rooms, listen: Listen) -> Outcome:
    group = job.group
    why = allocator.unavailable() if group.device == "cpu" else None
    if why is not None:
        return Outcome(unmeasured=[Unmeasured(group.case(mode), "unsupported", why) for mode in modes])
    failures, examined = _examine(job, modes, rooms, listen)
    measured_seconds = sum(one.memory_seconds for one in examined.values())
    timings = None
    while timings is None and any(mode in modes for mode in examined if mode not in failures):
        lanes = [mode for mode in examined if mode not in failures]
        named = (*lanes, PLACEBO)
        try:
            timings = rooms.run(
                time_group, job, lanes, budget=options.budget, precision=options.precision, timeout=options.timeout * 0.9,
                lanes=named, listen=partial(_prefixed, listen, f"timing {len(named)} lanes"),
            )  # fmt: skip
        except Failure as failure:
            lost = TRACKED.name if failure.lane == PLACEBO else failure.lane
            failures |= dict.fromkeys([lost] if lost in lanes else lanes, failure)
    if timings is None:
        return Outcome(unmeasured=_unmeasured(group, failures), measured_seconds=measured_seconds)
    measured = [
        Timed(_result(group.case(mode), examined[mode], timings), timings.seconds[mode], timings.calls)
        for mode in modes
        if mode in timings.seconds
    ]
    measured_seconds += timings.elapsed_seconds
    return Outcome(measured, _unmeasured(group, failures), measured_seconds)


def _examine(job: Job, modes: Sequence[str], rooms: Rooms, listen: Listen) -> tuple[dict[str, Failure], dict[str, Examination]]:
    """Tracked comes first, asked for or not: it is what the others are compared with."""
    failures: dict[str, Failure] = {}
    examined: dict[str, Examination] = {}
    for mode in dict.fromkeys((TRACKED.name, *modes)):
        listen(f"contract and memory of {mode}")
        try:
            found = rooms.run(
                examine, job, mode, with_tracked=TRACKED.name not in failures, own_process=rooms.fresh, lanes=(mode,)
            )  # fmt: skip
        except Failure as failure:
            failures[mode] = failure
            continue
        if found.contract.holds:
            examined[mode] = found
        else:
            failures[mode] = Failure("broken_contract", "; ".join(found.contract.broken))
    return failures, examined


def _result(case: Case, examined: Examination, timings: Timings) -> Result:
    assert examined.memory is not None
    baseline, blocks = timings.seconds.get(TRACKED.name), timings.seconds[case.mode]
    placebo = paired_ratio(baseline, timings.seconds[PLACEBO]) if baseline else None
    speedup: Interval | None
    word: Verdict
    if case.mode == TRACKED.name:
        speedup, word = Interval(1.0, 1.0, 1.0), "baseline"
    elif baseline is None:
        speedup, word = None, "unclear"
    else:
        speedup = paired_ratio(baseline, blocks)
        word = verdict(speedup)
    device_blocks = timings.device_seconds.get(case.mode)
    return Result(
        case=case,
        seconds=statistics.median(blocks) / timings.calls,
        speedup=speedup,
        verdict=word,
        placebo=placebo,
        trusted=placebo is not None and verdict(placebo) not in ("faster", "slower"),
        page_faults=timings.page_faults[case.mode],
        memory=examined.memory,
        contract=examined.contract,
        kernels=examined.kernels,
        model=examined.model,
        device_seconds=statistics.median(device_blocks) / timings.calls if device_blocks else None,
    )


def _unmeasured(group: Group, failures: dict[str, Failure]) -> list[Unmeasured]:
    """Tracked is listed even where it was not asked for: it is why the others have no speedup."""
    return [Unmeasured(group.case(mode), failure.status, failure.reason) for mode, failure in failures.items()]


def _prefixed(listen: Listen, prefix: str, text: str) -> None:
    listen(f"{prefix}, {text}")


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
        return terminal(summary_table(tidy_rows(self.results), self.unmeasured))


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
        outcomes = [measure(planned, options, rooms, listen) for planned in plan(options, rooms)]
    else:
        if inputs is None:
            raise TypeError("measure_model(module, inputs): inputs are missing; a tensor, a tuple or a dict")
        outcomes = [_measure(_live_job(model, inputs, name, threads), options.modes, options, ThisProcess(), listen)]
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
    group = Group("forward", name or type(module).__name__, OWN_SIZE, parameter.device.type, dtype, "resident")
    return Job(group, lambda: workload, threads)
