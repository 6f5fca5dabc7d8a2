"""What to measure and how hard to try. A field is an option, with its help; choices derive from the registries, argparse's `type` functions parse."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any

from benchmarks.models import DTYPES, MODELS, REAL, REAL_SIZES, SIZES
from benchmarks.modes import DEFAULT_MODES, MODES
from benchmarks.record import AS_SHIPPED, COMPILED, EAGER, PAGES_KEPT
from benchmarks.scenarios import SCENARIOS

ALL = "all"
ALLOCATORS = (PAGES_KEPT, AS_SHIPPED)
EXECUTIONS = (EAGER, COMPILED)
DEFAULT_SIZES = ("tiny", "small", "medium")
DEFAULT_REAL_SIZES = ("small",)
REAL_MODELS = "real"
"""The name of all models of transformers that are registered."""
ACCELERATOR_SIZE = "huge"
"""The size that accelerators get by default beside these: they decide how long a call takes only where there is enough to do."""

ACCELERATOR_PROCESSES = 4
"""Fewer than on a CPU: a process on an accelerator has to open and warm it, which takes as long as its rounds."""

CHOSEN_BUDGET = 20.0
"""The budget where models were chosen: these are few, and there is time to be precise."""

ALL_MODES = tuple(dict.fromkeys([*MODES, *(mode for scenario in SCENARIOS.values() for mode in scenario.mode_names())]))
"""The registered ones, then those that only a scenario has."""

_UNUSUAL = ", ".join(name for name, scenario in SCENARIOS.items() if not scenario.by_default)
_UNITS = {"": 1, "B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}


class OptionError(Exception):
    """Options that cannot be had together, or here: names the option, the value and the next step."""


def names(text: str) -> tuple[str, ...]:
    """Comma-separated names, each once. Raises ArgumentTypeError if there is none."""
    found = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r}: no name given")
    return found


def names_of(choices: Iterable[str], beside: Mapping[str, tuple[str, ...]] | None = None) -> Callable[[str], tuple[str, ...]]:
    """Comma-separated names out of `choices`, or `all` of them. `beside` are more that are not in `all`, and groups, each with its names."""
    offered = tuple(choices)
    meant = dict(beside or {}) | {name: (name,) for name in offered}

    def parse(text: str) -> tuple[str, ...]:
        chosen = names(text)
        if chosen == (ALL,):
            return offered
        unknown = [name for name in chosen if name not in meant]
        if unknown:
            listed = dict.fromkeys((*offered, *meant))
            what = f"unknown {', '.join(unknown)}; choose from {', '.join(listed)} (comma-separated, or {ALL})"
            raise argparse.ArgumentTypeError(what)
        return tuple(dict.fromkeys(real for name in chosen for real in meant[name]))

    return parse


def number_above_0(text: str | float, below: float = math.inf) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < below:
        limit = "" if below == math.inf else f" and below {below:g}"
        raise argparse.ArgumentTypeError(f"{text}: expected a number above 0{limit}")
    return value


def whole_number(text: str | int, least: int = 1) -> int:
    if not (str(text).isdecimal() and int(text) >= least):
        raise argparse.ArgumentTypeError(f"{text}: expected a whole number from {least}")
    return int(text)


def pattern(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("an empty pattern matches nothing; name parameters, such as encoder.*")
    return text


def size_in_bytes(text: str | int) -> int:
    """`4GiB`, `1.5 GiB`, or a plain number of bytes; at least 1 MiB, below which no process starts."""
    found = re.fullmatch(r"(\d{1,15}(?:\.\d{1,9})?) ?([A-Za-z]*)", str(text))
    size = int(float(found[1]) * _UNITS[found[2]]) if found and found[2] in _UNITS else 0
    if size < 2**20:
        raise argparse.ArgumentTypeError(f"{text}: expected at least 1MiB, such as 4GiB")
    return size


def _option(told: str, default: Any = None, **settings: Any) -> Any:
    """A field whose option has `told` as its help, with the default for {}, and `settings` as ArgumentParser.add_argument takes them."""
    return field(default=default, metadata={"help": told.format(default), **settings})


@dataclass(frozen=True, slots=True)
class Effort:
    """How hard to try, the same for every job of a run."""

    threads: int = _option("threads that torch computes with (default: {})", 1, metavar="N", type=whole_number)
    budget: float = _option(
        f"seconds of timing per group at most, washouts included (default: {{:g}}, {CHOSEN_BUDGET:g} with --models or --model)",
        7.0, metavar="SECONDS", type=number_above_0,
    )  # fmt: skip
    precision: float = _option(
        "add processes while a 99 %% interval is wider than this fraction of its estimate, within the budget (default: {})",
        0.02, metavar="FRACTION", type=partial(number_above_0, below=1),
    )  # fmt: skip
    processes: int = _option(
        "time each group in so many processes, from several launches; the intervals are across them "
        f"(default: {{}}, {ACCELERATOR_PROCESSES} on accelerators)", 8, metavar="N", type=whole_number,
    )  # fmt: skip
    retries: int = _option(
        "time a group again, so many times at most, if its placebo shows that it cannot be trusted (default: {})",
        1, metavar="N", type=partial(whole_number, least=0),
    )  # fmt: skip
    worker_timeout: float = _option(
        "give a worker up after this long (default: {:g})", 300.0, metavar="SECONDS", type=number_above_0
    )
    memory_limit: int | None = _option(
        "let no worker have more memory than this, such as 4GiB, what it shares with its launch included (Linux)",
        metavar="BYTES", type=size_in_bytes,
    )  # fmt: skip

    def __post_init__(self) -> None:
        """Raises OptionError for a number out of range: in a notebook nothing has looked at it before."""
        for each in fields(self):
            value = getattr(self, each.name)
            try:
                if value is not None:
                    each.metadata["type"](value)
            except argparse.ArgumentTypeError as error:
                raise OptionError(f"{each.name} {error}") from error


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What to measure. None is what nobody chose: then a scenario may choose for itself."""

    models: tuple[str, ...] | None = _option(
        f"built-in models, comma-separated: {', '.join(MODELS)}; with transformers also {', '.join(REAL)}, or {REAL_MODELS} for these "
        "(default: the former, and bert, qwen3 and vit where transformers is installed)",
        metavar="NAMES", type=names_of(MODELS, {REAL_MODELS: tuple(REAL), **{name: (name,) for name in REAL}}),
    )  # fmt: skip
    own_models: tuple[str, ...] = _option(
        "your own model, path/to/file.py:function or package.module:function; the function takes no arguments, or `size`, and "
        "returns (module, inputs). Or a library's by name, with random weights: hf:bert (a model type, a configuration class, a folder "
        "with config.json or a hub name), timm:NAME, torchvision:NAME. Repeatable. The built-in models then run only with --models",
        (), flag="--model", metavar="SPEC", action="append",
    )  # fmt: skip
    sizes: tuple[str, ...] | None = _option(
        f"{', '.join(SIZES)} (default: {','.join(DEFAULT_SIZES)}, and {ACCELERATOR_SIZE} on accelerators); of transformers' models "
        f"{', '.join(REAL_SIZES)} (default: {','.join(DEFAULT_REAL_SIZES)})",
        metavar="NAMES", type=names_of(SIZES, {name: (name,) for name in REAL_SIZES}),
    )  # fmt: skip
    batch: int | None = _option(
        "samples in the inputs of models by name (default: as registered, else 1)", metavar="N", type=whole_number
    )
    length: int | None = _option(
        "tokens in the inputs of models by name (default: as registered, else 64)", metavar="N", type=whole_number
    )
    modes: tuple[str, ...] | None = _option(
        f"{', '.join(MODES)}, or those of a scenario, or all (default: {','.join(DEFAULT_MODES)}; a scenario's own)",
        metavar="NAMES", type=names_of(ALL_MODES),
    )  # fmt: skip
    freeze: tuple[str, ...] = _option(
        "one more mode: tracked, but parameters whose name matches, such as encoder.*, do not require grad. Repeatable",
        (), metavar="PATTERN", action="append", type=pattern,
    )  # fmt: skip
    scenarios: tuple[str, ...] | None = _option(
        f"how models are run: {', '.join(SCENARIOS)} (default: all but {_UNUSUAL}, each with small models of its own, and more where it is "
        "named; forward alone where --models, --model or --sizes are given)",
        metavar="NAMES", type=names_of(SCENARIOS),
    )  # fmt: skip
    device: tuple[str, ...] | None = _option(
        "cpu, cuda or cuda:N (default: the accelerator if there is one, else cpu)", metavar="NAMES", type=names
    )
    dtype: tuple[str, ...] | None = _option(
        f"{', '.join(DTYPES)} (default: float32, your own models as they are built); amp_ is a float32 model under autocast",
        metavar="NAMES", type=names_of(DTYPES),
    )  # fmt: skip
    execution: tuple[str, ...] = _option(
        f"{', '.join(EXECUTIONS)}, by torch.compile (default: {EAGER})", (EAGER,), metavar="NAMES", type=names_of(EXECUTIONS)
    )
    allocator: tuple[str, ...] | None = _option(
        "how memory is kept while timing on a CPU: pages_kept (tracking itself) or as_shipped (page faults included) "
        "(default: both, as_shipped for forward passes that fault)",
        metavar="NAMES", type=names_of(ALLOCATORS),
    )  # fmt: skip
    in_process: bool = _option(
        "no workers: everything in this process, for debuggers and profilers", default=False, action="store_true"
    )
    machines: tuple[str, ...] | None = _option(
        "measure on other machines, the whole plan on each: those of the workers at this scheduler of Dask's, or of the named ones "
        "(docs/machines.md)", metavar="ADDRESS[,NAMES]", type=names,
    )  # fmt: skip
    split: bool = _option(
        "with --machines: one plan over all of them, which have to be equal", default=False, action="store_true"
    )
    processes: int | None = None
    """None: those of `effort`, or ACCELERATOR_PROCESSES."""
    effort: Effort = field(default_factory=Effort)


def add_options(add: Callable[..., Any]) -> None:
    """Defines the command line by calls of `add`, which takes what `ArgumentParser.add_argument` does."""
    for each in (*fields(RunOptions), *fields(Effort)):
        if each.metadata:
            settings = {"flag": f"--{each.name.replace('_', '-')}", "default": None, **each.metadata}
            add(settings.pop("flag"), dest=each.name, **settings)


def parsed(values: Any) -> RunOptions:
    """The options from a namespace that `add_options` has filled."""
    given: dict[str, Any] = {name: value for name, value in vars(values).items() if value is not None}
    given |= {name: tuple(value) for name, value in given.items() if isinstance(value, list)}
    chosen = {name: given[name] for name in RunOptions.__slots__ if name in given}
    effort = {name: given[name] for name in Effort.__slots__ if name in given}
    if "models" in chosen or "own_models" in chosen:
        effort = {"budget": CHOSEN_BUDGET, **effort}
    return RunOptions(**chosen, effort=Effort(**effort))
