"""How models are run. A scenario is a file here that defines SCENARIO and goes by the file's name; `forward` comes first."""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType

from benchmarks.record import FORWARD
from benchmarks.scenarios.scenario import Scenario



def _found() -> Mapping[str, Scenario]:
    names = sorted((found.name for found in pkgutil.iter_modules(__path__)), key=lambda name: (name != FORWARD, name))
    modules = {name: import_module(f"{__name__}.{name}") for name in names if name != "scenario"}
    return MappingProxyType({name: module.SCENARIO for name, module in modules.items()})


SCENARIOS = _found()
