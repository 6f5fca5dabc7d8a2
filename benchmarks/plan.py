"""From options to jobs: which scenario runs what, in which modes."""

from __future__ import annotations

import multiprocessing
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch

from benchmarks import allocator
from benchmarks.device import DeviceError, accelerated, default_device, device_named
from benchmarks.execution import autocast, compiled
from benchmarks.failure import Failure
from benchmarks.models import (
    AS_BUILT,
    AUTOCAST,
    MODELS,
    OWN_SIZE,
    REAL,
    Probe,
    Source,
    Workload,
    families,
    hub,
    misfit,
    own,
    probe,
)
from benchmarks.models.real import BY_DEFAULT
from benchmarks.modes import DEFAULT_MODES, MODES, Mode, Step, freezing, is_freezing
from benchmarks.options import (
    ACCELERATOR_PROCESSES,
    ACCELERATOR_SIZE,
    ALLOCATORS,
    DEFAULT_REAL_SIZES,
    DEFAULT_SIZES,
    Effort,
    OptionError,
    RunOptions,
)
from benchmarks.record import AS_SHIPPED, COMPILED, EAGER, FORWARD, PAGES_KEPT, Case, Group, GroupResult, Unmeasured
from benchmarks.scenarios import SCENARIOS, Scenario
from benchmarks.workers import Workers


class Builds(Protocol):
    """Where a workload comes from; can be sent to another process, unless it is a module that is there already."""

    @property
    def model(self) -> str: ...

    @property
    def size(self) -> str: ...

    def workload(self, device: str, dtype: str) -> Workload: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A group without its allocator: all that a process anywhere needs. Examined once, timed once per allocator."""

    scenario: str
    source: Builds
    device: str
    dtype: str
    execution: str = EAGER
    modes: tuple[str, ...]
    allocators: tuple[str, ...] = (PAGES_KEPT,)
    effort: Effort = field(default_factory=Effort)

    def __str__(self) -> str:
        execution = "" if self.execution == EAGER else f" {self.execution}"
        return f"{self.scenario} {self.source.model} {self.source.size} {self.device} {self.dtype}{execution}"

    def group(self, allocator_: str) -> Group:
        return Group(
            scenario=self.scenario, model=self.source.model, size=self.source.size, device=self.device,
            dtype=self.dtype, execution=self.execution, allocator=allocator_,
        )  # fmt: skip

    def failed(self, allocator_: str, failure: Failure) -> GroupResult:
        """No mode of the group gave figures."""
        group = self.group(allocator_)
        lost = [Unmeasured(group.case(mode), failure.status, failure.reason) for mode in self.modes]
        return GroupResult(group, unmeasured=lost)

    @property
    def share(self) -> float:
        """Roughly of a run's time: its timing, and a quarter of a group's budget to examine it."""
        return 0.25 + SCENARIOS[self.scenario].budget_share * len(self.allocators)

    @property
    def cases(self) -> list[Case]:
        return [self.group(name).case(mode) for name in self.allocators for mode in self.modes]

    def only(self, cases: Collection[Case]) -> Job:
        """With the modes and allocators that some of `cases` have; there may be none left."""
        chosen = [case for case in self.cases if case in cases]
        modes, allocators = {case.mode for case in chosen}, {case.allocator for case in chosen}
        return replace(
            self,
            modes=tuple(mode for mode in self.modes if mode in modes),
            allocators=tuple(name for name in self.allocators if name in allocators),
        )

    def build(self) -> Workload:
        """The model with its inputs, on the job's device and in its dtype."""
        return self.source.workload(self.device, self.dtype)

    def mode(self, name: str) -> Mode:
        """The scenario's, around the compiled model where that is asked for. Raises KeyError."""
        mode = SCENARIOS[self.scenario].mode(name)
        return compiled(mode) if self.execution == COMPILED else mode

    def step(self, workload: Workload, mode: str, **steps: int) -> Step:
        step = SCENARIOS[self.scenario].bind(workload, self.mode(mode), **steps)
        return autocast(step, self.device, AUTOCAST[self.dtype]) if self.dtype in AUTOCAST else step

    def changing(self, workload: Workload) -> list[torch.Tensor]:
        """What a call may change, beside buffers: inputs, and parameters where the scenario updates them."""
        return [*workload.input_tensors(), *(workload.module.parameters() if SCENARIOS[self.scenario].updates else ())]


def plan(options: RunOptions, own_sources: Sequence[Source] = ()) -> list[Job]:
    """The jobs in the order in which they are measured. Raises OptionError where the options leave nothing, or cannot be had here."""
    devices = options.device or (default_device(),)
    for name in devices:
        try:
            why = device_named(name).unavailable()
        except DeviceError as error:
            raise OptionError(f"--device {error}") from error
        if why is not None:
            raise OptionError(f"--device {name}: {why}; --device cpu works everywhere")
    _check(options, devices)
    jobs = [
        Job(
            scenario=name, source=source, device=device, dtype=dtype, execution=execution, modes=modes,
            allocators=_allocators(name, source, device, options), effort=_effort(device, options),
        )
        for name, scenario in ((name, SCENARIOS[name]) for name in _scenarios(options))
        if (modes := modes_of(scenario, options))
        for source in _sources(scenario, options, own_sources)
        for device in devices
        if source.size != ACCELERATOR_SIZE or options.sizes or accelerated(device)
        for dtype in _dtypes(source, options)
        for execution in options.execution
        if execution == EAGER or scenario.runs_model
    ]  # fmt: skip
    if not jobs:
        chosen = [
            f"--{name} {','.join(value)}"
            for name in ("scenarios", "sizes", "modes", "execution")
            if (value := getattr(options, name)) and value != (EAGER,)
        ]
        raise OptionError(f"nothing to measure: {' '.join(chosen)} have nothing in common; leave one of them out")
    return jobs


def modes_of(scenario: Scenario, options: RunOptions) -> tuple[str, ...]:
    """Those of its own modes that were asked for, all where none were; else the registered ones."""
    if scenario.modes:
        return tuple(mode.name for mode in scenario.modes if not options.modes or mode.name in options.modes)
    chosen = (*(options.modes or DEFAULT_MODES), *(freezing(pattern) for pattern in options.freeze))
    return tuple(dict.fromkeys(mode for mode in chosen if mode in MODES or is_freezing(mode)))


def own_sources(options: RunOptions, workers: Workers) -> tuple[list[Source], list[str]]:
    """What the user's models and those by name come in, each tried in a worker, and the modules that launches may import beforehand.

    Raises OptionError for names that cannot be had together, and own.ModelError for a SPEC that is none or whose model does not suit;
    one of several that is there and cannot be built is told when it is its turn, and not tried again.
    """
    named = [name for name in options.models or () if name in REAL]
    if named and not hub.is_installed("hf"):
        raise OptionError(f"--models {','.join(named)}: transformers is not installed; {hub.INSTALL} installs it")
    taken = dict.fromkeys(options.models or (), "--models")
    found: list[Source] = []
    preload: list[str] = []
    faults = []
    for spec in options.own_models:
        name = hub.name_of(spec) if hub.is_hub(spec) else own.name_of(spec)
        if name in taken:
            raise OptionError(f"--model {spec}: {taken[name]} already names a model {name}; rename one of the functions")
        taken[name] = f"--model {spec}"
        if registered := _registered([name] if spec == f"hf:{name}" and name in REAL else [], options):
            found += registered
            continue
        chosen = options.sizes or DEFAULT_SIZES
        try:
            tried = workers.run(probe, spec, chosen[0], options.batch, options.length)
        except Failure as failure:  # it hangs, crashes or has no memory: the arms will say so, by name
            tried = Probe(sized=failure.status == "out_of_memory")
        if tried.fault is not None and not tried.there:
            raise own.ModelError(tried.fault.reason)
        faults += [] if tried.fault is None else [tried.fault.reason]
        sizes = chosen if tried.sized else (OWN_SIZE,)
        of_spec = [Source(name, size, spec, built_in=tried.dtype) for size in sizes]
        of_spec[0] = replace(of_spec[0], fault=tried.fault)  # the size that was tried
        found += [source.shaped(options.batch, options.length) for source in of_spec] if hub.is_hub(spec) else of_spec
        preload += tried.imports
    if faults and len(faults) == len(options.own_models) and not options.models:
        raise own.ModelError(faults[0])
    registered = [*_registered(named, options), *(source for source in found if source.spec is None)]
    _require_fit(registered, options, workers, others=any(hub.is_hub(source.spec or "") for source in found))
    usual: list[str] = []
    if not (options.models or options.own_models) and hub.is_installed("hf"):
        brought = (name for scenario in options.scenarios or () for name in SCENARIOS[scenario].when_named if name in REAL)
        usual = [*BY_DEFAULT, *brought]
    for name in dict.fromkeys((*(source.model for source in registered), *usual)):
        preload += REAL[name].imports
    return found, list(dict.fromkeys(preload))


def _registered(names: Iterable[str], options: RunOptions) -> list[Source]:
    """Models of transformers in the sizes that were chosen and that they have."""
    return [
        Source(name, size).shaped(options.batch, options.length)
        for name in names
        for size in options.sizes or DEFAULT_REAL_SIZES
        if size in REAL[name].sizes
    ]


def _require_fit(registered: Sequence[Source], options: RunOptions, workers: Workers, *, others: bool) -> None:
    """Inputs that were chosen are tried before anything is measured."""
    if options.batch is None and options.length is None:
        return
    if not (registered or others):
        raise OptionError(
            "--batch and --length are for models by name: --model hf:NAME, timm:NAME, torchvision:NAME, or --models real"
        )
    for source in registered:
        with suppress(Failure):  # as above
            fault = workers.run(misfit, source)
            if fault is not None:
                raise own.ModelError(fault)


def _check(options: RunOptions, devices: Sequence[str]) -> None:
    if not options.in_process and "forkserver" not in multiprocessing.get_all_start_methods():
        raise OptionError("workers need a fork server, which this system lacks; --in-process measures without them")
    if options.split and not options.machines:
        raise OptionError("--split: spreads a plan over the machines of --machines; name their scheduler, or leave it out")
    if options.in_process and AS_SHIPPED in (options.allocator or ()):
        raise OptionError(f"--allocator {AS_SHIPPED}: needs a process per arm; leave out --in-process, or choose {PAGES_KEPT}")
    if options.allocator == (AS_SHIPPED,) and any(name != "cpu" for name in devices):
        raise OptionError(
            f"--allocator {AS_SHIPPED}: an accelerator's caching allocator is {PAGES_KEPT}; choose that, or --device cpu"
        )


def _scenarios(options: RunOptions) -> tuple[str, ...]:
    """All that are run by default; but a choice of models or sizes is meant for forward passes where no scenario is named."""
    chosen_models = options.models or options.own_models
    if options.scenarios is None:
        usual = tuple(name for name, scenario in SCENARIOS.items() if scenario.by_default)
        return (FORWARD,) if chosen_models or options.sizes else usual
    closed = [name for name in options.scenarios if SCENARIOS[name].families and not SCENARIOS[name].any_model]
    if closed and chosen_models:
        raise OptionError(f"--scenarios {','.join(closed)}: runs models of its own; leave out --models and --model")
    return options.scenarios


def _sources(scenario: Scenario, options: RunOptions, own_sources: Sequence[Source]) -> list[Source]:
    if not (options.models or options.own_models) and (scenario.families or scenario.models):
        own_families = {family.name: family for family in scenario.families}
        usual = scenario.models or {family.name: tuple(family.sizes) for family in scenario.families}
        return [
            Source(name, size, family=own_families.get(name))
            for name, sizes in ((scenario.when_named if options.scenarios else None) or usual).items()
            for size in options.sizes or sizes
            if size in (families() | own_families)[name].sizes and (name not in REAL or hub.is_installed("hf"))
        ]
    by_default = (*MODELS, *(BY_DEFAULT if hub.is_installed("hf") else ()))
    built_in = options.models or (() if options.own_models else by_default)
    sizes = options.sizes or (*DEFAULT_SIZES, ACCELERATOR_SIZE)
    return [
        *(Source(name, size) for name in built_in if name in MODELS for size in sizes if size in MODELS[name].sizes),
        *_registered((name for name in built_in if name in REAL), options),
        *own_sources,
    ]


def _dtypes(source: Source, options: RunOptions) -> list[str]:
    """As asked for, or as the source is built, by that dtype's own name."""
    built_in = "float32" if source.spec is None else source.built_in
    return list(dict.fromkeys(built_in if dtype == AS_BUILT else dtype for dtype in options.dtype or (AS_BUILT,)))


def _effort(device: str, options: RunOptions) -> Effort:
    if options.processes is None and accelerated(device):
        return replace(options.effort, processes=min(options.effort.processes, ACCELERATOR_PROCESSES))
    return options.effort


def _allocators(scenario: str, source: Source, device: str, options: RunOptions) -> tuple[str, ...]:
    """Timing as shipped takes a process per arm, so scenarios other than forward, and real models that nobody chose, get it only on request."""
    if device != "cpu":
        return (PAGES_KEPT,)
    if options.allocator:
        return options.allocator
    if allocator.unavailable() is not None:
        return (AS_SHIPPED,)
    unasked = source.model in REAL and not (options.models or options.own_models)
    return ALLOCATORS if scenario == FORWARD and not options.in_process and not unasked else (PAGES_KEPT,)
