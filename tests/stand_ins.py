"""What tests share: workers, and what stands in for a model, for a step with threads, and for a GPU: an object of the shape of torch.cuda
whose work, clock and memory a test sets in numbers.

It is as unkind as a real one: waiting costs time, the queue ends, errors come late and stay, and memory comes in blocks.
"""

from __future__ import annotations

import gc
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cache, partial
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from benchmarks.failure import Failure
from benchmarks.measure import timing
from benchmarks.measure.alternating import KEPT_PAGES, PLACEBO, arms_of, serve_arm, time_together
from benchmarks.measure.examine import Examination, examine, examine_together
from benchmarks.measure.timing import Limits, Timings
from benchmarks.models import Source
from benchmarks.models.workload import Family
from benchmarks.modes import DEFAULT_MODES
from benchmarks.plan import Job
from benchmarks.record import EAGER, Contract, Kernels, Memory, ModelFacts
from benchmarks.workers import InProcess, Launches

gc.freeze()  # collections leave out what was imported by now, torch above all: it would take most of the time of many tests

MIB = 2**20
WAIT_SECONDS = 2.0**-16
"""What a synchronisation costs beyond the work that it waits for: 15 us."""
QUEUE = 1024
"""Pieces of work that may wait; whoever sends another waits for the first."""


@cache
def launches() -> Launches:
    """One for all tests of this process, which import torch once."""
    return Launches(timeout_seconds=60)


class Net(nn.Module):
    """A linear layer and what the test does with it; `calls` and `cache` are the test's."""

    def __init__(self, forward: Callable[[Net, torch.Tensor], Any]) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)
        self.calls = 0
        self.cache: Any = None
        self._forward = forward

    def forward(self, x: torch.Tensor) -> Any:
        return self._forward(self, x)


def linear(net: Net, x: torch.Tensor) -> Any:
    return net.linear(x)


def tracking(net: Net, x: torch.Tensor) -> Any:
    """Whatever the mode."""
    with torch.enable_grad():
        return net.linear(x)


MLP_JOB = Job(scenario="forward", source=Source("mlp", "tiny"), device="cpu", dtype="float32", modes=DEFAULT_MODES)
EXAMINED = Examination(Contract(holds=True), Kernels(same_as_tracked=True), Memory(1, 2, 3, 4), ModelFacts(1, 4), None)
"""A mode that may be timed."""

SECONDS = {"tracked": 3.0, PLACEBO: 3.0, KEPT_PAGES: 2.5, "no_grad": 2.0, "inference_mode": 3.003}
"""Of an arm's call."""


@dataclass
class Scripted(InProcess):
    """Workers that answer from a script: what a mode's examination finds, and the seconds of each arm's blocks of two calls.

    `later` are arms whose seconds differ in the second process, the third and so on. `lost` are failures of as many timings.
    `together` are the modes that one worker on a GPU comes to; None where it is lost.
    """

    found: Mapping[str, Examination | Failure] = field(default_factory=dict)
    later: Sequence[dict[str, float]] = ()
    lost: list[Failure] = field(default_factory=list)
    together: Sequence[str] | None = ()
    seconds: dict[str, float] = field(default_factory=lambda: SECONDS)
    elapsed_seconds: float = 1.0
    fresh = True
    with_tracked: dict[str, bool] = field(default_factory=dict)
    """Of the modes that were examined in a worker each."""
    calls_only: set[bool] = field(default_factory=set)
    timed: list[tuple[str, ...]] = field(default_factory=list)
    """The modes of each timing with pages kept."""
    limits: list[Limits] = field(default_factory=list)
    launches: list[int] = field(default_factory=list)
    served: list[str] = field(default_factory=list)

    def run(self, task: Callable[..., Any], *args: Any, launch: int = 0) -> Any:
        if task is examine:
            return self._examined(*args[1:])
        if task is examine_together:
            if self.together is None:
                raise Failure("crashed", "the process was killed")
            return dict.fromkeys(self.together, EXAMINED)
        assert task is time_together
        _, modes, limits, process, own_process = args
        assert own_process
        self.timed.append(tuple(modes))
        self.limits.append(limits)
        self.launches.append(launch)
        if self.lost:
            raise self.lost.pop(0)
        changed = self.later[len(self.timed) - 2] if 0 < len(self.timed) - 1 <= len(self.later) else {}
        arms = arms_of(modes)
        seconds = {arm: [(self.seconds | changed)[arm]] * 20 for arm in arms}
        return Timings(2, 4, seconds, dict.fromkeys(arms, 1.8), dict.fromkeys(arms, process), self.elapsed_seconds)

    def _examined(self, mode: str, with_tracked: bool, own_process: bool, calls_only: bool) -> Examination:
        assert mode not in self.with_tracked, "examined twice"
        self.with_tracked[mode] = with_tracked
        self.calls_only.add(calls_only)
        found = self.found.get(mode, EXAMINED)
        if isinstance(found, Failure):
            raise found
        return found

    @contextmanager
    def serve(self, task: Callable[..., Any], *args: Any, launch: int = 0) -> Iterator[Any]:
        assert task is serve_arm
        name = args[1]
        self.served.append(name)

        def ask(question: tuple[int, int]) -> timing.Block:
            if self.lost and self.lost[0].arm == name:
                raise Failure(self.lost[0].status, self.lost.pop(0).reason)
            washout, calls = question
            return timing.Block(1.5 if washout else None, self.seconds[name] * calls, 3 * calls)

        yield ask


def job_of(forward: Callable[[Net, torch.Tensor], Any], execution: str = EAGER, dtype: str = "float32") -> Job:
    """Forward passes of a Net with four samples."""
    family = Family("net", {"tiny": {}}, lambda: (Net(forward), torch.ones(4, 8)))
    return replace(MLP_JOB, source=Source("net", "tiny", family=family), dtype=dtype, execution=execution)


def threaded() -> torch.Tensor:
    """A step that allocates in a thread of its own; `sum` runs where all is seen."""
    made: list[torch.Tensor] = []
    thread = threading.Thread(target=lambda: made.append(torch.ones(1000)))
    thread.start()
    thread.join()
    return made[0].sum()


class FakeCuda:
    """Launched work waits in a queue: the host's time meets the device's only where the host synchronises.

    `resting_bytes` are allocated from the start, as a model's weights are. `events` are how many were made, `indices` the devices asked.
    """

    def __init__(self, *, devices: int = 1, resting_bytes: int = 0, tells_requests: bool = True) -> None:
        self.devices, self.tells_requests = devices, tells_requests
        self.events = 0
        self.indices: set[int] = set()
        self.host_seconds = self._idle_from_seconds = 0.0
        self._ends: deque[float] = deque()
        self._error: str | None = None
        self._blocks: list[Block] = []
        self._peaks = {"requested": 0, "allocated": 0, "reserved": 0}
        self._driver = {"num_device_alloc": 0, "num_device_free": 0, "num_alloc_retries": 0}
        self.Event = partial(FakeEvent, self)
        if resting_bytes:
            self.allocate(resting_bytes)

    def clock(self) -> float:
        return self.host_seconds

    def launch(self, seconds: float, host_seconds: float = 0.0, error: str | None = None) -> None:
        """Queues work of so many seconds; the host is busy with it for `host_seconds` only. An `error` shows when it is waited for."""
        self.host_seconds += host_seconds
        while self._ends and self._ends[0] <= self.host_seconds:
            self._ends.popleft()
        if len(self._ends) == QUEUE:
            self.host_seconds = self._ends.popleft()
        self._idle_from_seconds = self.reached_seconds() + seconds
        self._ends.append(self._idle_from_seconds)
        self._error = self._error or error

    def reached_seconds(self) -> float:
        """When the device will have done all that was launched."""
        return max(self._idle_from_seconds, self.host_seconds)

    def allocate(self, size_bytes: int) -> Block:
        """As the caching allocator does: rounded to 512 bytes, from the smallest block that suffices, whose rest is split off if it is worth it:
        at least 512 bytes of a small one, more than 1 MiB of a large one. Blocks that are free again are not joined."""
        size = max(-(-size_bytes // 512) * 512, 512)
        small = size <= MIB
        fitting = [block for block in self._blocks if block.requested is None and block.small == small and block.size >= size]
        if not fitting:
            total = 2 * MIB if small else 20 * MIB if size < 10 * MIB else -(-size // (2 * MIB)) * 2 * MIB
            fitting = [Block(self._driver["num_device_alloc"], total, small)]
            self._blocks += fitting
            self._driver["num_device_alloc"] += 1
        block = min(fitting, key=lambda fit: fit.size)
        rest = block.size - size
        if rest >= 512 if small else rest > MIB:
            block.size = size
            self._blocks.append(Block(block.segment, rest, small))
        block.requested = size_bytes
        self._peaks = {kind: max(self._peaks[kind], now) for kind, now in self._now().items()}
        return block

    def free(self, block: Block) -> None:
        block.requested = None

    def _now(self) -> dict[str, int]:
        return {
            "requested": sum(block.requested or 0 for block in self._blocks),
            "allocated": sum(block.size for block in self._blocks if block.requested is not None),
            "reserved": sum(block.size for block in self._blocks),
        }

    # From here on: torch.cuda's own names.

    def is_available(self) -> bool:
        return self.devices > 0

    def device_count(self) -> int:
        return self.devices

    def device(self, index: int) -> AbstractContextManager[None]:
        self.indices.add(index)
        return nullcontext()

    def current_stream(self, index: int) -> str:
        self.indices.add(index)
        return f"stream {index}"

    def synchronize(self, index: int) -> None:
        self.indices.add(index)
        self.host_seconds = self.reached_seconds() + WAIT_SECONDS
        self._ends.clear()
        if self._error:
            raise RuntimeError(self._error)

    def _sleep(self, cycles: int) -> None:
        self.launch(cycles / 2e9)

    def memory_stats(self, index: int) -> dict[str, int]:
        self.indices.add(index)
        told = {kind: self.tells_requests or kind != "requested" for kind in self._peaks}
        current = {f"{kind}_bytes.all.current": now * told[kind] for kind, now in self._now().items()}
        return self._driver | current | {f"{kind}_bytes.all.peak": peak * told[kind] for kind, peak in self._peaks.items()}

    def empty_cache(self) -> None:
        used = {block.segment for block in self._blocks if block.requested is not None}
        self._driver["num_device_free"] += len({block.segment for block in self._blocks} - used)
        self._blocks = [block for block in self._blocks if block.segment in used]

    def reset_peak_memory_stats(self, index: int) -> None:
        self.indices.add(index)
        self._peaks = self._now()

    def get_device_properties(self, index: int) -> Any:
        return SimpleNamespace(name=f"GPU {index}", total_memory=2**37, multi_processor_count=132, major=9, minor=0)


@dataclass
class Block:
    """A stretch of a segment, which is memory as it came from the driver; free while nothing is `requested` of it."""

    segment: int
    size: int
    small: bool
    requested: int | None = None


class FakeEvent:
    """A mark in the device's queue. As torch's, it tells times only if asked to, and only once the host has waited for it."""

    def __init__(self, cuda: FakeCuda, *, enable_timing: bool = False) -> None:
        cuda.events += 1
        self._cuda, self._timing = cuda, enable_timing
        self.seconds: float | None = None

    def record(self, stream: str) -> None:
        self.seconds = self._cuda.reached_seconds()

    def query(self) -> bool:
        return self.seconds is not None and self.seconds <= self._cuda.host_seconds

    def elapsed_time(self, end: FakeEvent) -> float:
        """Milliseconds, as torch.cuda.Event.elapsed_time returns them."""
        if not (self._timing and end._timing):
            raise ValueError("both events must be made with enable_timing=True")
        if self.seconds is None or end.seconds is None or not end.query():
            raise RuntimeError("CUDA error: device not ready")
        return (end.seconds - self.seconds) * 1000


@dataclass
class Work:
    """A step of so many kernels, each sent in `host_seconds` and done in `device_seconds`. With `waits` it asks for its result, as `.item()`."""

    cuda: FakeCuda
    kernels: int
    host_seconds: float
    device_seconds: float
    waits: bool = False

    def __call__(self) -> None:
        for _ in range(self.kernels):
            self.cuda.launch(self.device_seconds, self.host_seconds)
        if self.waits:
            self.cuda.synchronize(0)


@dataclass
class Arm:
    """A step that needs `peak_bytes` in passing and holds `held_bytes` for as long as its output lives."""

    cuda: FakeCuda
    peak_bytes: int
    held_bytes: int

    def __call__(self) -> torch.Tensor:
        self.cuda.free(self.cuda.allocate(self.peak_bytes))
        output = torch.empty(0)
        weakref.finalize(output, self.cuda.free, self.cuda.allocate(self.held_bytes))
        return output


class FakeSystem(SimpleNamespace):
    """An object of the shape of psutil: a machine of 4 cores and 16 GiB at rest, but for what is changed."""

    def __init__(self, load: float = 0.3, available: int = 12 * 2**30, affinity: tuple[int, ...] = (0, 1, 2, 3)) -> None:
        super().__init__(
            getloadavg=lambda: (load, 9.0, 9.0),
            cpu_count=lambda logical=True: 8 if logical else 4,
            virtual_memory=lambda: SimpleNamespace(available=available, total=16 * 2**30),
            Process=lambda: SimpleNamespace(cpu_affinity=lambda: list(affinity)),
        )


class FakeNvml(SimpleNamespace):
    """An object of the shape of NVML's binding: an idle GPU, but for what is changed. A handle is what it was asked for by."""

    def __init__(self, pids: tuple[int, ...] = (), power_limit: int = 700, reasons: int = 0x1) -> None:
        bits = {"GpuIdle": 0x1, "SwPowerCap": 0x4, "HwSlowdown": 0x8, "SwThermalSlowdown": 0x20, "HwThermalSlowdown": 0x40,
                "HwPowerBrakeSlowdown": 0x80}  # fmt: skip
        super().__init__(
            NVML_CLOCK_SM="sm",
            nvmlInit=lambda: None,
            nvmlDeviceGetHandleByIndex=lambda index: index,
            nvmlDeviceGetHandleByUUID=lambda uuid: uuid,
            nvmlDeviceGetComputeRunningProcesses=lambda _: [SimpleNamespace(pid=pid) for pid in (*pids, os.getpid())],
            nvmlDeviceGetClockInfo=lambda _, clock: {"sm": 345}[clock],
            nvmlDeviceGetMaxClockInfo=lambda _, clock: {"sm": 1980}[clock],
            nvmlDeviceGetEnforcedPowerLimit=lambda _: power_limit * 1000,
            nvmlDeviceGetPowerManagementDefaultLimit=lambda _: 700_000,
            nvmlDeviceGetCurrentClocksEventReasons=lambda _: reasons,
            **{f"nvmlClocksEventReason{name}": bit for name, bit in bits.items()},
        )  # fmt: skip
