"""What is run: the built-in families in their sizes, and the user's own models.

A new family is a file beside this one and an entry in MODELS.
"""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.models import own
from benchmarks.models.convnet import CONVNET
from benchmarks.models.lstm import LSTM
from benchmarks.models.mlp import MLP
from benchmarks.models.transformer import TRANSFORMER
from benchmarks.models.workload import AS_BUILT, DTYPES, SIZES, Family, Workload

__all__ = ["AS_BUILT", "DTYPES", "MODELS", "OWN_SIZE", "SIZES", "Source", "Workload"]

MODELS = {family.name: family for family in (MLP, CONVNET, TRANSFORMER, LSTM)}

OWN_SIZE = "own"
"""The size of a user's model whose function does not take one."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where a workload comes from; can be sent to another process. `spec` is set for a user's model, `family` for a scenario's own.

    `built_in` names the dtype that a user's model is built in, if that is known: where it is asked for, nothing is cast, were it a mixture.
    """

    model: str
    size: str
    spec: str | None = None
    family: Family | None = None
    built_in: str = AS_BUILT

    def workload(self, device: str = "cpu", dtype: str = "float32") -> Workload:
        """Builds it on `device`, its floating point values as `dtype`.

        Raises KeyError for an unknown name and own.ModelError for a user's function that does not suit.
        """
        if self.spec is not None:
            built = own.load(self.spec).workload(self.size, device)
        else:
            built = (self.family or MODELS[self.model]).workload(self.size)
        return built.to(device, None if dtype == self.built_in else DTYPES[dtype])
