"""What does tracking cost one forward pass?"""

from __future__ import annotations

from benchmarks.models import Workload
from benchmarks.modes import Mode, Step
from benchmarks.scenarios.scenario import Scenario


def forward(workload: Workload, mode: Mode) -> Step:
    """One forward pass of the workload's module on its inputs, under `mode`."""
    return mode.bind(workload.module, workload.run)


SCENARIO = Scenario(forward)
