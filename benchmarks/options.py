"""What to measure and how hard to try. Choices derive from the registries; argparse's `type` functions parse them."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
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


class OptionError(Exception):
    """Options that cannot be had together, or here: names the option, the value and the next step."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How hard to try, the same for every job of a run."""

    threads: int = 1
    budget: float = 7.0
    """Seconds of timing per group at most, washouts included."""
    precision: float = 0.02
    """Processes are added while an interval is wider than this fraction of its estimate."""
    processes: int = 8
    retries: int = 1
    worker_timeout: float = 300.0
    """Seconds after which a worker is given up."""
    memory_limit: int | None = None
    """Bytes that a worker may have, what it shares with its launch included (Linux)."""

    def __post_init__(self) -> None:
        """Raises OptionError for a number out of range: in a notebook nothing has looked at it before."""
        for name, kind in NUMBERS.items():
            try:
                kind(getattr(self, name))
            except argparse.ArgumentTypeError as error:
                raise OptionError(f"{name} {error}") from error


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What to measure. None is what nobody chose: then a scenario may choose for itself."""

    models: tuple[str, ...] | None = None
    own_models: tuple[str, ...] = ()
    """SPECs of the user's models; the built-in ones then run only where `models` names them."""
    sizes: tuple[str, ...] | None = None
    batch: int | None = None
    length: int | None = None
    """Of the inputs of models by name, in samples and in tokens."""
    modes: tuple[str, ...] | None = None
    freeze: tuple[str, ...] = ()
    scenarios: tuple[str, ...] | None = None
    device: tuple[str, ...] | None = None
    dtype: tuple[str, ...] | None = None
    """None: float32, and a user's model as it is built."""
    execution: tuple[str, ...] = (EAGER,)
    allocator: tuple[str, ...] | None = None
    in_process: bool = False
    machines: tuple[str, ...] | None = None
    """The address of a scheduler of Dask's, and names of its workers; all where none is named."""
    split: bool = False
    processes: int | None = None
    """None: those of `effort`, or ACCELERATOR_PROCESSES."""
    effort: Effort = field(default_factory=Effort)


def add_options(add: Callable[..., Any]) -> None:
    """Defines the command line by calls of `add`, which takes what `ArgumentParser.add_argument` does."""
    effort = Effort()
    add(
        "--models",
        metavar="NAMES",
        type=names_of(MODELS, {REAL_MODELS: tuple(REAL), **{name: (name,) for name in REAL}}),
        help=f"built-in models, comma-separated: {', '.join(MODELS)}; with transformers also {', '.join(REAL)}, or {REAL_MODELS} for these "
        "(default: the former, and bert, qwen3 and vit where transformers is installed)",
    )
    add("--model", metavar="SPEC", action="append", default=[], dest="own_models",
        help="your own model, path/to/file.py:function or package.module:function; the function takes no arguments, or `size`, and "
        "returns (module, inputs). Or a library's by name, with random weights: hf:bert (a model type, a configuration class, a folder "
        "with config.json or a hub name), timm:NAME, torchvision:NAME. Repeatable. The built-in models then run only with --models")  # fmt: skip
    add("--sizes", metavar="NAMES", type=names_of(SIZES, {name: (name,) for name in REAL_SIZES}), help=f"{', '.join(SIZES)} (default: "
        f"{','.join(DEFAULT_SIZES)}, and {ACCELERATOR_SIZE} on accelerators); of transformers' models {', '.join(REAL_SIZES)} (default: {','.join(DEFAULT_REAL_SIZES)})")  # fmt: skip
    add(
        "--batch",
        metavar="N",
        type=whole_from(1),
        help="samples in the inputs of models by name (default: as registered, else 1)",
    )
    add(
        "--length",
        metavar="N",
        type=whole_from(1),
        help="tokens in the inputs of models by name (default: as registered, else 64)",
    )
    add("--modes", metavar="NAMES", type=names_of(ALL_MODES),
        help=f"{', '.join(MODES)}, or those of a scenario, or all (default: {','.join(DEFAULT_MODES)}; a scenario's own)")  # fmt: skip
    add("--freeze", metavar="PATTERN", action="append", default=[],
        help="one more mode: tracked, but parameters whose name matches, such as encoder.*, do not require grad. Repeatable")  # fmt: skip
    slow = ", ".join(name for name, scenario in SCENARIOS.items() if not scenario.by_default)
    add("--scenarios", metavar="NAMES", type=names_of(SCENARIOS), help=f"how models are run: {', '.join(SCENARIOS)} (default: all but {slow}, each with "
        "small models of its own, and more where it is named; forward alone where --models, --model or --sizes are given)")  # fmt: skip
    add(
        "--device", metavar="NAMES", type=names, help="cpu, cuda or cuda:N (default: the accelerator if there is one, else cpu)"
    )
    add("--dtype", metavar="NAMES", type=names_of(DTYPES),
        help=f"{', '.join(DTYPES)} (default: float32, your own models as they are built); amp_ is a float32 model under autocast")  # fmt: skip
    add(
        "--execution",
        metavar="NAMES",
        type=names_of(EXECUTIONS),
        default=(EAGER,),
        help=f"{', '.join(EXECUTIONS)}, by torch.compile (default: {EAGER})",
    )
    add("--allocator", metavar="NAMES", type=names_of(ALLOCATORS), help="how memory is kept while timing on a CPU: pages_kept (tracking "
        "itself) or as_shipped (page faults included) (default: both, as_shipped for forward passes that fault)")  # fmt: skip
    add(
        "--threads",
        metavar="N",
        type=NUMBERS["threads"],
        default=effort.threads,
        help="threads that torch computes with (default: %(default)s)",
    )
    add("--budget", metavar="SECONDS", type=NUMBERS["budget"],
        help=f"timing per group at most (default: {effort.budget:g}, {CHOSEN_BUDGET:g} with --models or --model)")  # fmt: skip
    add("--precision", metavar="FRACTION", type=NUMBERS["precision"], default=effort.precision,
        help="add processes while a 99 %% interval is wider than this fraction, within the budget (default: %(default)g)")  # fmt: skip
    add("--processes", metavar="N", type=NUMBERS["processes"],
        help="time each group in so many processes, from several launches; the intervals are across them "
        f"(default: {effort.processes}, {ACCELERATOR_PROCESSES} on accelerators)")  # fmt: skip
    add("--retries", metavar="N", type=NUMBERS["retries"], default=effort.retries,
        help="time a group again, so many times at most, if its placebo shows that it cannot be trusted (default: %(default)s)")  # fmt: skip
    add("--worker-timeout", metavar="SECONDS", type=NUMBERS["worker_timeout"], default=effort.worker_timeout,
        help="give a worker up after this long (default: %(default)g)")  # fmt: skip
    add("--memory-limit", metavar="BYTES", type=size_in_bytes, help="let no worker have more memory than this, such as 4GiB")
    add("--machines", metavar="ADDRESS[,NAMES]", type=names, help="measure on other machines, the whole plan on each: those of the workers "
        "at this scheduler of Dask's, or of the named ones (docs/machines.md)")  # fmt: skip
    add("--split", action="store_true", help="with --machines: one plan over all of them, which have to be equal")
    add("--in-process", action="store_true", help="no workers: everything in this process, for debuggers and profilers")


def parsed(values: Any) -> RunOptions:
    """The options from a namespace that `add_options` has filled."""
    chosen: dict[str, Any] = {name: getattr(values, name) for name in RunOptions.__slots__ if name != "effort"}
    chosen |= {name: tuple(value) for name, value in chosen.items() if isinstance(value, list)}
    effort = {name: getattr(values, name) for name in Effort.__slots__}
    usual = Effort(budget=CHOSEN_BUDGET) if chosen["models"] or chosen["own_models"] else Effort()
    effort |= {name: getattr(usual, name) for name in ("budget", "processes") if effort[name] is None}
    return RunOptions(**chosen, effort=Effort(**effort))


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


def number_above_0(below: float = float("inf")) -> Callable[[str | float], float]:
    limit = "" if below == float("inf") else f" and below {below:g}"

    def parse(text: str | float) -> float:
        try:
            value = float(text)
        except ValueError:
            value = 0.0
        if not 0 < value < below:
            raise argparse.ArgumentTypeError(f"{text}: expected a number above 0{limit}")
        return value

    return parse


def whole_from(least: int) -> Callable[[str | int], int]:
    def parse(text: str | int) -> int:
        if not (str(text).isdecimal() and int(text) >= least):
            raise argparse.ArgumentTypeError(f"{text}: expected a whole number from {least}")
        return int(text)

    return parse


NUMBERS: dict[str, Callable[[Any], float]] = {
    "threads": whole_from(1),
    "budget": number_above_0(),
    "precision": number_above_0(below=1),
    "processes": whole_from(1),
    "retries": whole_from(0),
    "worker_timeout": number_above_0(),
}
"""What each field of Effort takes, from a text or as a number."""

_UNITS = {"": 1, "B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}


def size_in_bytes(text: str) -> int:
    """`4GiB`, `1.5 GiB`, or a plain number of bytes; at least 1 MiB, below which no process starts."""
    found = re.fullmatch(r"(\d{1,15}(?:\.\d{1,9})?) ?([A-Za-z]*)", text)
    size = int(float(found[1]) * _UNITS[found[2]]) if found and found[2] in _UNITS else 0
    if size < 2**20:
        raise argparse.ArgumentTypeError(f"{text}: expected at least 1MiB, such as 4GiB")
    return size
