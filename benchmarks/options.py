"""What to measure and how hard to try, parsed once from texts. Choices derive from the registries."""

from __future__ import annotations

import math
import multiprocessing
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from benchmarks.device import ALLOCATORS, DEVICES, default_device
from benchmarks.models import DTYPES, MODELS, SIZES, own
from benchmarks.modes import DEFAULT_MODES, MODES, freezing
from benchmarks.record import FORWARD, RESIDENT
from benchmarks.scenarios import SCENARIOS

DEFAULT_SIZES = ("tiny", "small", "medium")
ALL = "all"
ALL_MODES = tuple(dict.fromkeys([*MODES, *(mode for scenario in SCENARIOS.values() for mode in scenario.mode_names())]))
"""The registered ones, then those that only a scenario has."""
THREADS, BUDGET_SECONDS, PRECISION, TIMEOUT_SECONDS = 1, 4.0, 0.01, 300.0
PROCESSES, RETRIES = 1, 1


class OptionError(Exception):
    """A value that an option cannot take: names the option, the value and what it takes."""


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What to measure (names from the registries) and how. `own` are specs of the user's models, `given` the fields among models, sizes, modes
    and allocators that somebody chose: the others a scenario may choose for itself.

    `budget` is seconds of timing per group, `precision` the fraction within which every speedup's interval is to lie,
    `timeout` the seconds after which a room is given up.
    """

    models: tuple[str, ...] = tuple(MODELS)
    own: tuple[str, ...] = ()
    sizes: tuple[str, ...] = DEFAULT_SIZES
    modes: tuple[str, ...] = DEFAULT_MODES
    scenarios: tuple[str, ...] = tuple(SCENARIOS)
    devices: tuple[str, ...] = field(default_factory=lambda: (default_device(),))
    dtypes: tuple[str, ...] = ("float32",)
    allocators: tuple[str, ...] = ALLOCATORS
    threads: int = THREADS
    budget: float = BUDGET_SECONDS
    precision: float = PRECISION
    timeout: float = TIMEOUT_SECONDS
    processes: int = PROCESSES
    retries: int = RETRIES
    in_process: bool = False
    given: frozenset[str] = frozenset()


def parse(
    *,
    models: str | None = None,
    own_models: Sequence[str] = (),
    sizes: str | None = None,
    modes: str | None = None,
    freeze: Sequence[str] = (),
    scenarios: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    allocator: str | None = None,
    threads: str = f"{THREADS}",
    budget: str = f"{BUDGET_SECONDS:g}",
    precision: str = f"{PRECISION:g}",
    timeout: str = f"{TIMEOUT_SECONDS:g}",
    processes: str = f"{PROCESSES}",
    retries: str = f"{RETRIES}",
    in_process: bool = False,
) -> RunOptions:
    """The options as they stand on the command line; None is the default. Raises OptionError."""
    devices = _devices(device)
    if not in_process and "forkserver" not in multiprocessing.get_all_start_methods():
        raise OptionError("clean rooms need a fork server, which this system lacks; --in-process measures without them")
    chosen = {"models": models or own_models, "sizes": sizes, "modes": modes, "allocators": allocator}
    given = frozenset(name for name, value in chosen.items() if value)
    return RunOptions(
        models=_names("--models", models, MODELS, () if own_models else tuple(MODELS)),
        own=_own(own_models, models),
        sizes=_names("--sizes", sizes, SIZES, DEFAULT_SIZES),
        modes=(*_names("--modes", modes, ALL_MODES, DEFAULT_MODES), *_freezing(freeze)),
        scenarios=_scenarios(scenarios, given),
        devices=devices,
        dtypes=_names("--dtype", dtype, DTYPES, ("float32",)),
        allocators=_allocators(allocator, devices, in_process=in_process),
        threads=_whole("--threads", threads, 1),
        budget=_number("--budget", budget, "seconds of timing per group, above 0"),
        precision=_number("--precision", precision, "a fraction between 0 and 1, such as 0.01", below=1.0),
        timeout=_number("--timeout", timeout, "seconds per room, above 0"),
        processes=_whole("--processes", processes, 1),
        retries=_whole("--retries", retries, 0),
        in_process=in_process,
        given=given,
    )


def _names(option: str, text: str | None, choices: Iterable[str], default: tuple[str, ...]) -> tuple[str, ...]:
    if text is None:
        return default
    choices = list(choices)
    names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if names == [ALL]:
        return tuple(choices)
    unknown = [name for name in names if name not in choices]
    if unknown or not names:
        what = f"unknown {', '.join(unknown)}" if unknown else "no name given"
        raise OptionError(f"{option} {text}: {what}; choose from {', '.join(choices)} (comma-separated, or {ALL})")
    return tuple(names)


def _scenarios(text: str | None, given: AbstractSet[str]) -> tuple[str, ...]:
    """All; but a choice of models or sizes is meant for forward passes where no scenario is named."""
    names = _names("--scenarios", text, SCENARIOS, (FORWARD,) if given & {"models", "sizes"} else tuple(SCENARIOS))
    closed = [name for name in names if SCENARIOS[name].families] if "models" in given else []
    if closed:
        raise OptionError(f"--scenarios {text}: {', '.join(closed)} runs models of its own; leave out --models and --model")
    return names


def _devices(text: str | None) -> tuple[str, ...]:
    names = _names("--device", text, DEVICES, ()) or (default_device(),)
    for name in names:
        why = DEVICES[name]().unavailable()
        if why is not None:
            raise OptionError(f"--device {text}: there is no {name} device here: {why}; --device cpu works everywhere")
    return names


def _freezing(patterns: Sequence[str]) -> tuple[str, ...]:
    if not all(patterns):
        raise OptionError("--freeze: an empty pattern matches nothing; name parameters, such as encoder.*")
    return tuple(dict.fromkeys(freezing(pattern) for pattern in patterns))


def _allocators(text: str | None, devices: Sequence[str], *, in_process: bool) -> tuple[str, ...]:
    names = _names("--allocator", text, ALLOCATORS, (RESIDENT,) if in_process else ALLOCATORS)
    if in_process and names != (RESIDENT,):
        raise OptionError(f"--allocator {text}: needs a process per lane; leave out --in-process, or choose {RESIDENT}")
    if RESIDENT not in names and "cuda" in devices:
        raise OptionError(f"--allocator {text}: CUDA's caching allocator is {RESIDENT}; choose that, or --device cpu")
    return names


def _own(specs: Sequence[str], models: str | None) -> tuple[str, ...]:
    taken = dict.fromkeys(_names("--models", models, MODELS, ()), "--models")
    for spec in specs:
        try:
            name = own.name_of(spec)
        except own.ModelError as error:
            raise OptionError(str(error)) from error
        if name in taken:
            raise OptionError(f"--model {spec}: {taken[name]} already names a model {name}; rename one of the functions")
        taken[name] = f"--model {spec}"
    return tuple(specs)


def _number(option: str, text: str, expected: str, below: float = math.inf) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < below:
        raise OptionError(f"{option} {text}: expected {expected}")
    return value


def _whole(option: str, text: str, at_least: int) -> int:
    if not (text.isdecimal() and int(text) >= at_least):
        raise OptionError(f"{option} {text}: expected a whole number from {at_least}")
    return int(text)
