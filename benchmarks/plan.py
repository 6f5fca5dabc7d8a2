"""From options to the groups that are measured: which scenario runs what, in which modes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from benchmarks import allocator
from benchmarks.failure import Failure
from benchmarks.models import MODELS, OWN_SIZE, Source, own
from benchmarks.modes import MODES, is_freezing
from benchmarks.options import OptionError, RunOptions
from benchmarks.record import DEFAULT, FORWARD, RESIDENT, Case, Group
from benchmarks.room import Rooms
from benchmarks.scenarios import SCENARIOS
from benchmarks.scenarios.scenario import Scenario
from benchmarks.tasks import Job, try_own


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


def plan(options: RunOptions, rooms: Rooms) -> list[Planned]:
    """The groups in the order in which they are measured. The user's models are tried out in a room first.

    Raises own.ModelError for a user's model that does not suit, and OptionError where the options leave nothing.
    """
    own_sources = [source for spec in options.own for source in _own_sources(spec, options.sizes, rooms)]
    groups = [
        Planned(Group(name, source.model, source.size, device, dtype, alloc), source, modes)
        for name, scenario in ((name, SCENARIOS[name]) for name in options.scenarios)
        if (modes := modes_of(scenario, options))
        for source in _sources(scenario, options, own_sources)
        for device in options.devices
        for dtype in options.dtypes
        for alloc in _allocators(name, device, options)
    ]
    if not groups:
        raise OptionError(
            f"nothing to measure: --scenarios {','.join(options.scenarios)} has none of --sizes {','.join(options.sizes)} "
            f"in --modes {','.join(options.modes)}; leave one of them out"
        )
    return groups


def modes_of(scenario: Scenario, options: RunOptions) -> tuple[str, ...]:
    """Those of its own modes that were asked for, all where none were; else the registered ones."""
    if scenario.modes:
        return tuple(mode.name for mode in scenario.modes if "modes" not in options.given or mode.name in options.modes)
    return tuple(mode for mode in options.modes if mode in MODES or is_freezing(mode))


def _sources(scenario: Scenario, options: RunOptions, own_sources: Sequence[Source]) -> list[Source]:
    if scenario.families:
        return [
            Source(family.name, size, family=family)
            for family in scenario.families
            for size in family.sizes
            if "sizes" not in options.given or size in options.sizes
        ]
    brings = scenario.models if "models" not in options.given else {}
    sizes = dict.fromkeys(options.models, options.sizes)
    if brings:
        sizes = {model: options.sizes if "sizes" in options.given else own_sizes for model, own_sizes in brings.items()}
    built_in = [Source(model, size) for model, chosen in sizes.items() for size in chosen if size in MODELS[model].sizes]
    return [*built_in, *own_sources]


def _allocators(scenario: str, device: str, options: RunOptions) -> tuple[str, ...]:
    """As shipped takes a group six heaps: but for forward passes, only where it was asked for or is all there is."""
    if device != "cpu":
        return tuple(name for name in options.allocators if name == RESIDENT)
    if scenario == FORWARD or "allocators" in options.given:
        return options.allocators
    return (RESIDENT,) if allocator.unavailable() is None else (DEFAULT,)


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
