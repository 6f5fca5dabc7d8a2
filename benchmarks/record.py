"""The shape of a result: what the suite measures, saves and reads back. Standard library only.

Bytes are integers, times are seconds, ratios are plain numbers; what could not be measured is None (JSON null).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from operator import attrgetter
from types import MappingProxyType
from typing import Any, Literal

SCHEMA = 1

RESIDENT, DEFAULT = "resident", "default"
"""How memory is kept while timing: freed pages are kept (CUDA's caching allocator always does), or as shipped (CPU only)."""

FORWARD, TRAINING_STEP, OPERATORS = "forward", "training_step", "operators"
"""Scenarios that reports tell apart from the others."""

CONTEXT = "context"
"""What OPERATORS calls entering and leaving a mode around nothing. Its tracked lane is an empty loop, so its speedup is none."""

Verdict = Literal["baseline", "faster", "slower", "same", "unclear"]
Status = Literal["unsupported", "out_of_memory", "timed_out", "crashed", "broken_contract"]
SKIPPED_STATUSES: frozenset[Status] = frozenset({"unsupported", "out_of_memory"})
"""Statuses that say something about the mode or the machine rather than about a defect: their tests are skipped, not failed."""


@dataclass(frozen=True, slots=True)
class Group:
    """All modes of one scenario, model, size, device, dtype and allocator: the atom of measurement."""

    scenario: str
    model: str
    size: str
    device: str
    dtype: str
    allocator: str

    def __str__(self) -> str:
        return f"{self.scenario}-{self.model}-{self.size}-{self.device}-{self.dtype}-{self.allocator}"

    def case(self, mode: str) -> Case:
        return Case(self.scenario, self.model, self.size, self.device, self.dtype, self.allocator, mode)


@dataclass(frozen=True, slots=True)
class Case:
    """One row of the grid; results are comparable where cases are equal."""

    scenario: str
    model: str
    size: str
    device: str
    dtype: str
    allocator: str
    mode: str

    @property
    def group(self) -> Group:
        return Group(self.scenario, self.model, self.size, self.device, self.dtype, self.allocator)

    def __str__(self) -> str:
        return f"{self.group}-{self.mode}"


@dataclass(frozen=True, slots=True)
class Interval:
    """A ratio of times (1 is "no difference") and its 99 % interval."""

    estimate: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class SavedBy:
    """Bytes that one module (a dotted path) or one torch function saved for backward."""

    name: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of one call above the level at its start; None where a meter does not exist or was not trusted.

    `expected_saved_bytes` is the closed form of a built-in model's `saved_bytes`, `opaque_saved_bytes` the part of them that lies in
    library workspaces, `cast_saved_bytes` what is kept beside them in copies of parameters in another dtype (autocast). `graph_nodes` hang on the output, and `graph_heap_bytes` are what the heap holds beyond tensors with the output
    alive: nodes, Python objects, the allocator's rounding. The two `per_step` are by how much tensors, and the heap beyond them, grow with each further
    step of a scenario that loops. `saved_by_module` and `saved_by_operator` each sum to `saved_bytes`, the largest first.
    `unavailable` says of a figure that was withheld why: its meter was off, or did not see all.
    """

    peak_tensor_bytes: int | None = None
    held_tensor_bytes: int | None = None
    saved_bytes: int | None = None
    peak_rss_bytes: int | None = None
    peak_reserved_bytes: int | None = None
    rss_method: str | None = None
    expected_saved_bytes: int | None = None
    opaque_saved_bytes: int | None = None
    cast_saved_bytes: int | None = None
    graph_nodes: int | None = None
    graph_heap_bytes: int | None = None
    held_bytes_per_step: int | None = None
    heap_bytes_per_step: int | None = None
    saved_by_module: list[SavedBy] = field(default_factory=list)
    saved_by_operator: list[SavedBy] = field(default_factory=list)
    unavailable: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Contract:
    """Whether the mode did what it promises, each broken promise in words, and the names of the buffers that a call changes."""

    holds: bool
    broken: list[str] = field(default_factory=list)
    changed_buffers: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Kernels:
    """The `aten::` operators that ran, against those of the tracked mode; None where tracked could not be run."""

    same_as_tracked: bool | None
    added: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """`inputs` holds one text per input tensor, such as `float32[8, 16]`."""

    parameters: int
    parameter_bytes: int
    inputs: list[str]


@dataclass(frozen=True, slots=True)
class ProcessReading:
    """What one of several processes (as shipped: one of each lane's) read of a case: medians of its rounds, seconds and faults per call."""

    rounds: int
    seconds: float
    speedup: float | None
    placebo: float | None
    page_faults: float | None


@dataclass(frozen=True, slots=True)
class Result:
    """What one case measured: a benchmark's `extra_info` in the saved run.

    `speedup` is seconds(tracked) / seconds(mode) from pairs, None where tracked itself could not be measured.
    `device_seconds` is the median time per call between two CUDA events, None on a CPU. `page_faults` is per call, the mean over processes.
    `over_no_grad` is seconds(no_grad) / seconds(mode), from pairs, None for tracked and where no_grad was not timed.
    `kept_pages` is seconds(tracked) / seconds(tracked with pages kept), from pairs, as shipped only. `cold_seconds` is the first call in a fresh process, None where the process was not fresh. `warmup_calls` were made until the lane
    was stationary. `discarded_placebos` are the readings of timings that were done again because they were untrusted. `processes`
    holds one reading per process where there were several. One call of a scenario that loops (batches, tokens) makes `steps` steps.
    """

    case: Case
    seconds: float
    speedup: Interval | None
    verdict: Verdict
    placebo: Interval | None
    trusted: bool
    page_faults: float | None
    memory: Memory
    contract: Contract
    kernels: Kernels
    model: ModelFacts
    device_seconds: float | None = None
    over_no_grad: Interval | None = None
    kept_pages: Interval | None = None
    cold_seconds: float | None = None
    warmup_calls: int | None = None
    discarded_placebos: list[Interval] = field(default_factory=list)
    processes: list[ProcessReading] = field(default_factory=list)
    steps: int = 1
    schema: int = SCHEMA


@dataclass(frozen=True, slots=True)
class Unmeasured:
    """A case that gave no figures, and why."""

    case: Case
    status: Status
    reason: str


@dataclass(frozen=True, slots=True)
class Timed:
    """A result with its rounds: seconds of a block of `calls` calls, in the order they were run."""

    result: Result
    blocks: list[float]
    calls: int


def to_json(record: Result | Unmeasured) -> dict[str, Any]:
    return asdict(record)


Row = dict[str, Any]


def _end(ratio: str, end: str) -> Callable[[Result], float | None]:
    def of(result: Result) -> float | None:
        interval = getattr(result, ratio)
        return None if interval is None else getattr(interval, end)

    return of


def _ends(ratio: str) -> dict[str, Callable[[Result], float | None]]:
    return {ratio: _end(ratio, "estimate"), f"{ratio}_low": _end(ratio, "low"), f"{ratio}_high": _end(ratio, "high")}


def _peak_ratios(results: Sequence[Result]) -> list[float | None]:
    """The peak over the tracked peak of the same group, None where either is missing or tracked's is 0."""
    tracked = {result.case.group: result.memory.peak_tensor_bytes for result in results if result.case.mode == "tracked"}
    pairs = ((result.memory.peak_tensor_bytes, tracked.get(result.case.group)) for result in results)
    return [None if peak is None or not baseline else peak / baseline for peak, baseline in pairs]


_COLUMNS: Mapping[str, Callable[[Result], Any] | None] = MappingProxyType({
    **{one.name: attrgetter(f"case.{one.name}") for one in fields(Case)},
    "seconds": attrgetter("seconds"),
    "steps": attrgetter("steps"),
    "seconds_per_step": lambda result: result.seconds / result.steps,
    **_ends("speedup"),
    "verdict": attrgetter("verdict"),
    **_ends("placebo"),
    "trusted": attrgetter("trusted"),
    "page_faults": attrgetter("page_faults"),
    "device_seconds": attrgetter("device_seconds"),
    **_ends("over_no_grad"),
    **_ends("kept_pages"),
    "cold_seconds": attrgetter("cold_seconds"),
    "warmup_calls": attrgetter("warmup_calls"),
    "discarded": lambda result: len(result.discarded_placebos),
    "processes": lambda result: max(1, len(result.processes)),
    **{one.name: attrgetter(f"memory.{one.name}") for one in fields(Memory) if one.default_factory is MISSING},
    "unavailable": lambda result: "; ".join(f"{name}: {reason}" for name, reason in result.memory.unavailable.items()),
    "peak_tensor_ratio": None,  # of all results together
    "contract_holds": attrgetter("contract.holds"),
    "changed_buffers": lambda result: " ".join(result.contract.changed_buffers),
    "same_kernels": attrgetter("kernels.same_as_tracked"),
    "parameters": attrgetter("model.parameters"),
    "parameter_bytes": attrgetter("model.parameter_bytes"),
    "inputs": lambda result: " ".join(result.model.inputs),
})  # fmt: skip


def tidy_columns(results: Sequence[Result], names: Iterable[str] = ()) -> dict[str, list[Any]]:
    """A value per result for each of the columns `names` (none named: all), those that there are."""
    wanted = {name: _COLUMNS[name] for name in names or _COLUMNS if name in _COLUMNS}
    return {name: [get(result) for result in results] if get else _peak_ratios(results) for name, get in wanted.items()}


def tidy_rows(results: Iterable[Result]) -> list[Row]:
    """One flat row per result: the case's fields, the figures with their unit in the name, and `peak_tensor_ratio`.

    `peak_tensor_ratio` is the peak over the tracked peak of the same group, None where either is missing or tracked's is 0.
    """
    columns = tidy_columns(list(results))
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
