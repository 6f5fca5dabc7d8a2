"""The shape of a result: what the suite measures, saves and reads back.

Bytes are integers, times are seconds per call, ratios are plain numbers; what could not be measured is None (JSON null).

The estimand: `seconds` is the steady state of a loop that calls the step again and again in one mode, and the 99 % interval of a `speedup`,
the ratio of two such loops, is for what the next launch on this machine will read.
"""

from __future__ import annotations

from dataclasses import asdict, astuple, dataclass, field, fields
from typing import Annotated, Any, Literal, TypeVar

import msgspec

SCHEMA = 2

PAGES_KEPT, AS_SHIPPED = "pages_kept", "as_shipped"
"""How memory is kept while timing: freed pages are kept, so that what is left is tracking itself (CUDA's caching allocator always does),
or the allocator as a user gets it, page faults included (CPU only)."""

PAGE_FAULT_SECONDS = 5e-6
"""What a page fault costs at most, in a virtual machine."""

EAGER, COMPILED = "eager", "compiled"
FORWARD, OPERATORS, SWITCHES = "forward", "operators", "switches"
"""Scenarios that reports tell apart from the others."""

NO_COMMIT = ("unversioned", "unknown")
"""What pytest-benchmark calls the commit where there is none."""

CONTEXT = "context"
"""What SWITCHES, and OPERATORS in runs of 0.2, call entering and leaving a mode around nothing. Tracked is an empty loop, so its speedup is none."""

ALONE = "_alone"
"""How a mode's name ends that runs a part of the step alone, under no_grad: its ratio of times is a share of the step, and no speedup."""

Verdict = Literal["baseline", "faster", "slower", "same", "unclear"]
Status = Literal["unsupported", "out_of_memory", "timed_out", "crashed", "broken_contract"]
Promise = Literal["history", "records", "same_output", "grad_mode", "tracked_after"]
"""What a mode promises: whether its output has a history, whether it keeps tensors for backward, that the output is tracked's, that the
gradient mode is as before, and that a tracked call after it works."""

SKIPPED_STATUSES: frozenset[Status] = frozenset({"unsupported", "out_of_memory"})
"""Statuses that say something about the mode or the machine rather than about a defect: their tests are skipped, not failed."""

Bytes = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Count = Bytes
Change = Annotated[int, msgspec.Meta(ge=1 - 2**63, le=2**63 - 1)]
Seconds = Annotated[float, msgspec.Meta(gt=1e-15, lt=1e9)]
Amount = Annotated[float, msgspec.Meta(ge=0, lt=1e18)]
Ratio = Annotated[float, msgspec.Meta(gt=1e-100, lt=1e100)]
"""Numbers as they are when read back: whatever else a file holds is refused with its field."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """All modes of one combination: what is timed together, and pytest-benchmark's `group`."""

    scenario: str
    model: str
    size: str
    device: str
    dtype: str
    execution: str = EAGER
    allocator: Annotated[str, msgspec.Meta(pattern=f"^({PAGES_KEPT}|{AS_SHIPPED})$")]

    def __str__(self) -> str:
        return "-".join(astuple(self))

    def case(self, mode: str) -> Case:
        return Case(**asdict(self), mode=mode)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case(Group):
    """One row of the grid; results are comparable where cases are equal."""

    mode: str

    @property
    def group(self) -> Group:
        return Group(**{name: getattr(self, name) for name in GROUP})


GROUP = tuple(each.name for each in fields(Group))
"""The fields of a group, in the order of its name."""

CASE = (*GROUP, "mode")


@dataclass(frozen=True, slots=True)
class Interval:
    """A ratio of times (1 is "no difference") and its 99 % interval. Raises ValueError unless 0 < low <= estimate <= high < infinity."""

    estimate: Ratio
    low: Ratio
    high: Ratio

    def __post_init__(self) -> None:
        if not 0 < self.low <= self.estimate <= self.high < float("inf"):
            raise ValueError(f"0 < low <= estimate <= high is needed, got {self.low:g}, {self.estimate:g}, {self.high:g}")


@dataclass(frozen=True, slots=True)
class SavedBy:
    """Bytes that one module (a dotted path) saved for backward."""

    name: str
    bytes: Bytes


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of one call above the level at its start; None where a meter does not exist or was not trusted."""

    peak_tensor_bytes: Bytes | None = None
    """The highest sum of tensors during the call, from the allocator's events (CPU) or requests (CUDA): exact."""
    held_tensor_bytes: Bytes | None = None
    """What its output keeps alive: exact."""
    saved_bytes: Bytes | None = None
    """What autograd keeps for backward: unique storages, without parameters, buffers and inputs."""
    peak_rss_bytes: Bytes | None = None
    """What the process's resident memory rose by, in a fresh process; None below the meter's own noise."""
    kept_rss_bytes: Bytes | None = None
    """What stays resident of that when the output is gone too: freed pages that the allocator as shipped keeps."""
    peak_reserved_bytes: Bytes | None = None
    """What a device's caching allocator reserved more (CUDA)."""
    opaque_saved_bytes: Bytes | None = None
    """The part of `saved_bytes` in library workspaces, which need not be written."""
    cast_saved_bytes: Bytes | None = None
    """Beside `saved_bytes`: copies of parameters in another dtype, as autocast makes them."""
    input_saved_bytes: Bytes | None = None
    """Beside `saved_bytes`: of the inputs, which are there before the call and that the graph keeps alive after it."""
    graph_nodes: Count | None = None
    """Autograd nodes that hang on the output."""
    held_bytes_per_step: Change | None = None
    """By how much tensors grow with each further step of a scenario that loops."""
    heap_bytes_per_step: Change | None = None
    """The same of the heap beyond tensors: nodes, Python objects, the allocator's rounding."""
    saved_by_module: list[SavedBy] = field(default_factory=list)
    """The largest first; they sum to `saved_bytes`."""
    unavailable: dict[str, str] = field(default_factory=dict)
    """Figures that were withheld, each with the reason."""


@dataclass(frozen=True, slots=True)
class Broken:
    """A promise that a mode broke, and how."""

    promise: Promise
    reason: str


@dataclass(frozen=True, slots=True)
class Contract:
    """Whether the mode did what it promises, the names of the buffers that a call changes, and what else it changes that the next call meets."""

    holds: bool
    broken: list[Broken] = field(default_factory=list)
    changed_buffers: list[str] = field(default_factory=list)
    changes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Kernels:
    """The `aten::` operators that ran, with their number, against those of tracked.

    `same_as_tracked` is also False where the same operators gave other bits. It is None where tracked could not be run, and where models
    are compiled, because kernels that torch.compile writes have no names by which they could be compared.
    """

    same_as_tracked: bool | None
    added: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """`inputs` holds one text per input tensor, such as `float32[8, 16]`."""

    parameters: Count
    parameter_bytes: Bytes
    inputs: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class ProcessReading:
    """What one process read of a case (as shipped: the processes of its arms): medians of its rounds, per call."""

    launch: int
    rounds: int
    seconds: Seconds
    speedup: Ratio | None
    placebo: float | None
    page_faults: Amount | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """What one case measured: a benchmark's `extra_info` in the saved run."""

    case: Case
    seconds: Seconds
    """Of a call in the steady state of a loop in this mode: the geometric mean over processes of the medians of their rounds."""
    speedup: Interval | None
    """seconds(tracked) / seconds(mode), from pairs, across processes; None where tracked itself could not be measured."""
    verdict: Verdict
    placebo: Interval | None
    """The speedup of the second tracked arm, 1 by construction."""
    trusted: bool
    """False where the placebo's interval lies beyond the margin, or there is none. True is no proof: see `resolution`."""
    resolution: Amount | None
    """How far the placebo's interval reaches from 1, as a fraction: no verdict of the group is finer."""
    washout_calls: Count
    """Untimed calls at the start of each block, the same for all arms of the group."""
    after_switch_seconds: Amount | None
    """The first call after another arm's: what a single call between other work costs."""
    page_faults: Amount | None
    """Per call, the mean over processes."""
    memory: Memory
    contract: Contract
    kernels: Kernels
    model: ModelFacts
    processes: list[ProcessReading] = field(default_factory=list)
    over_no_grad: Interval | None = None
    """seconds(no_grad) / seconds(mode), from pairs; None for tracked and where no_grad was not timed."""
    also_as_shipped: bool = False
    """As shipped the job's page faults are too few to tell, so that these figures hold for that allocator too."""
    kept_pages: Interval | None = None
    """seconds(tracked) / seconds(tracked with pages kept), from pairs; as shipped only."""
    discarded_placebos: list[Interval] = field(default_factory=list)
    """Of timings that were done again because they could not be trusted."""
    host_seconds: Amount | None = None
    """Until the call is queued (accelerators)."""
    busy_seconds: Amount | None = None
    """The device's own work (accelerators)."""
    bound_by: Literal["host", "device", "both"] | None = None
    """Which of the two decides `seconds` (accelerators)."""
    driver_allocations: Amount | None = None
    """How often per timed call the device's allocator went to the driver, 0 in a steady state (accelerators)."""
    compile_seconds: Amount | None = None
    """What the first call took in a process with empty caches, which compiles the model for this mode; in no other figure (compiled)."""
    recompilations: Count | None = None
    """Graphs compiled while modes took turns, after the first call of each: of all modes and processes together, 0 in a steady state
    (compiled; None as shipped, where each mode has a process of its own)."""
    steps: Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)] = 1
    """Steps that one call of a scenario that loops makes (batches, tokens)."""
    schema: int = SCHEMA


@dataclass(frozen=True, slots=True)
class Unmeasured:
    """A case that gave no figures, and why. `promises` are those that it broke."""

    case: Case
    status: Status
    reason: str
    promises: list[Promise] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Timed:
    """A result with its rounds: seconds of blocks of `calls` calls, process after process, in the order they were run."""

    result: Result
    blocks: list[float]
    calls: int


@dataclass(frozen=True, slots=True)
class GroupResult:
    """What became of the modes of one group."""

    group: Group
    timed: list[Timed] = field(default_factory=list)
    unmeasured: list[Unmeasured] = field(default_factory=list)
    machine: str | None = None
    """Where it was measured, by the name of the worker there; None for the machine that keeps the run."""


def clean(value: Any) -> Any:
    """The value without characters that would steer a terminal, hide text or break a line; names can hold any."""
    if isinstance(value, str) and not value.isprintable():
        shown = (c if c.isprintable() else " " if c.isspace() else "\N{REPLACEMENT CHARACTER}" for c in value)
        return "".join(shown)
    if isinstance(value, dict):
        return {clean(key): clean(inner) for key, inner in value.items()}
    return [clean(inner) for inner in value] if isinstance(value, list) else value


def to_json(record: Any) -> Any:
    """A record as what the `json` module writes."""
    return msgspec.to_builtins(record)


def from_json(value: Any, kind: type[T]) -> T:
    """The record of `kind` in what the `json` module read. Raises msgspec.ValidationError, which names the field."""
    return msgspec.convert(value, kind)
