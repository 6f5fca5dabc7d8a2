"""From options to jobs: which scenario runs what, in which modes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from benchmarks.device import accelerated
from benchmarks.models import MODELS, Source, Workload
from benchmarks.modes import MODES, Step, is_freezing
from benchmarks.options import OptionError, RunOptions
from benchmarks.record import AS_SHIPPED, EAGER, FORWARD, PAGES_KEPT, Case, Group
from benchmarks.scenarios import SCENARIOS, Scenario


@dataclass(frozen=True, slots=True)
class Effort:
    """How hard to try. `budget` is seconds of timing per group at most, `precision` the fraction within which every speedup's interval
    is to lie, `worker_timeout` the seconds after which a worker is given up."""

    threads: int = 1
    budget: float = 12.0
    precision: float = 0.02
    processes: int = 8
    retries: int = 1
    worker_timeout: float = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A group without its allocator: all that a process anywhere needs. Examined once, timed once per allocator."""

    scenario: str
    source: Source
    device: str
    dtype: str
    execution: str = EAGER
    modes: tuple[str, ...]
    allocators: tuple[str, ...] = (PAGES_KEPT,)
    effort: Effort = Effort()

    def group(self, allocator: str) -> Group:
        return Group(
            scenario=self.scenario, model=self.source.model, size=self.source.size, device=self.device,
            dtype=self.dtype, execution=self.execution, allocator=allocator,
        )  # fmt: skip

    @property
    def groups(self) -> list[Group]:
        return [self.group(allocator) for allocator in self.allocators]

    @property
    def cases(self) -> list[Case]:
        return [group.case(mode) for group in self.groups for mode in self.modes]

    def build(self) -> Workload:
        """The model with its inputs, on the job's device and in its dtype."""
        return self.source.workload(self.device, self.dtype)

    def step(self, workload: Workload, mode: str) -> Step:
        scenario = SCENARIOS[self.scenario]
        return scenario.bind(workload, scenario.mode(mode))

    def changing(self, workload: Workload) -> list[torch.Tensor]:
        """What a call may change, beside buffers: inputs, and parameters where the scenario updates them."""
        return [*workload.input_tensors(), *(workload.module.parameters() if SCENARIOS[self.scenario].updates else ())]
