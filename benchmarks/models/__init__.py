"""What is run: the built-in families in their sizes, models by name from libraries, and the user's own.

A new family is a file beside this one and an entry in MODELS.
"""

from __future__ import annotations

import sys
import sysconfig
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any

from benchmarks.failure import Failure
from benchmarks.models import hub, own
from benchmarks.models.convnet import CONVNET
from benchmarks.models.lstm import LSTM
from benchmarks.models.mlp import MLP
from benchmarks.models.real import REAL, REAL_SIZES
from benchmarks.models.transformer import TRANSFORMER
from benchmarks.models.workload import AS_BUILT, AUTOCAST, DTYPES, SIZES, Family, Workload

__all__ = [
    "AS_BUILT", "AUTOCAST", "DTYPES", "MODELS", "OWN_SIZE", "REAL", "REAL_SIZES", "SIZES", "Probe", "Source", "Workload", "families", "load", "misfit",
    "probe",
]  # fmt: skip

MODELS = {family.name: family for family in (MLP, CONVNET, TRANSFORMER, LSTM)}

OWN_SIZE = "own"
"""The size of a user's model whose function does not take one, and of a library's as its configuration has it."""


def families() -> dict[str, Family]:
    """All that have a name: the built-in ones and those that need transformers."""
    return MODELS | REAL


def load(spec: str) -> own.OwnModel | hub.HubModel:
    """What `spec` names. Raises own.ModelError where it is not there."""
    return hub.load(spec) if hub.is_hub(spec) else own.load(spec)


@dataclass(frozen=True, slots=True)
class Source:
    """Where a workload comes from; can be sent to another process. `spec` is set for a user's model, `family` for a scenario's own.

    `built_in` names the dtype that a user's model is built in, if that is known: where it is asked for, nothing is cast, were it a mixture.
    `fault` is why it cannot be built, where that was found beforehand.
    """

    model: str
    size: str
    spec: str | None = None
    family: Family | None = None
    batch: int | None = None
    length: int | None = None
    built_in: str = AS_BUILT
    fault: Failure | None = field(default=None, compare=False)

    def shaped(self, batch: int | None, length: int | None) -> Source:
        """With inputs of a model by name in the shape that was chosen, which is then part of the size's name."""
        chosen = {"b": batch, "l": length}
        suffix = "".join(f"_{letter}{number}" for letter, number in chosen.items() if number is not None)
        return replace(self, size=f"{self.size}{suffix}", batch=batch, length=length)

    def workload(self, device: str = "cpu", dtype: str = "float32") -> Workload:
        """Builds it on `device`, its floating point values as `dtype`.

        Raises KeyError for an unknown name, own.ModelError for a user's function that does not suit, and `fault`.
        """
        if self.fault is not None:
            raise self.fault
        chosen = {"batch": self.batch, "length": self.length}
        instead: dict[str, Any] = {name: number for name, number in chosen.items() if number is not None}
        size = self.size.partition("_")[0] if instead else self.size
        if self.spec is not None:
            built = load(self.spec).workload(size, device, **instead)
        else:
            built = (self.family or families()[self.model]).workload(size, **instead)
        return built.to(device, None if dtype == self.built_in else DTYPES[dtype])


@dataclass(frozen=True, slots=True)
class Probe:
    """What a worker found of a model before anything is planned.

    `imports` are modules of installed packages that building the model imported, in that order, so that a launch of workers can import them
    once: the user's own files are not among them, each worker reads those anew. `dtype` is what the model is built in, as Workload.dtype.
    `fault` says what is wrong, None where nothing is; `there` whether at least the model is where it was said to be.
    """

    sized: bool = False
    imports: tuple[str, ...] = ()
    dtype: str = AS_BUILT
    fault: Failure | None = None
    there: bool = True


def misfit(source: Source) -> str | None:
    """What is wrong with a registered model on inputs whose batch or length was chosen, None where nothing is."""
    try:
        hub.require_forward(source.model, source.workload())
    except own.ModelError as error:
        return str(error)
    return None


def probe(spec: str, size: str, batch: int | None = None, length: int | None = None) -> Probe:
    """Imports and builds the model once, in `size` if it takes one; a library's is called too, because its inputs are made here."""
    before = set(sys.modules)
    try:
        model = load(spec)
        fault = model.fault() if isinstance(model, hub.HubModel) else None
    except own.ModelError as error:
        return Probe(fault=Failure("crashed", str(error)), there=False)
    if fault is not None:
        return Probe(fault=Failure("crashed", fault))
    try:
        if isinstance(model, hub.HubModel):
            workload = model.workload(size, batch=batch, length=length)
            hub.require_forward(spec, workload)
        else:
            workload = model.workload(size)
    except (own.ModelError, Failure) as error:
        return Probe(model.sized, fault=error if isinstance(error, Failure) else Failure("crashed", str(error)))
    installed = (sysconfig.get_path("purelib"), sysconfig.get_path("platlib"))
    imported = {name: module for name, module in sys.modules.items() if name not in before and isinstance(module, ModuleType)}
    files = {name: str(vars(module).get("__file__")) for name, module in imported.items()}
    return Probe(model.sized, tuple(name for name, file in files.items() if file.startswith(installed)), workload.dtype)
