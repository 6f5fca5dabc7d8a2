"""How a model is run. A scenario is a file with a function from a workload and a mode to a step, and an entry here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from benchmarks.models import Workload
from benchmarks.modes import Mode, Step
from benchmarks.scenarios.forward import forward

SCENARIOS: Mapping[str, Callable[[Workload, Mode], Step]] = MappingProxyType({"forward": forward})
