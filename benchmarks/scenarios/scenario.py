"""What a scenario file defines: how a model is run, in which modes, and on what when nobody says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from benchmarks.models.workload import Family
from benchmarks.modes import MODES, Mode, Step, mode_named


@dataclass(frozen=True, slots=True)
class Scenario:
    """How a model is run, to answer the question in its file's docstring."""

    bind: Callable[..., Step]
    """`bind(workload, mode)` returns a step: one call, which leaves nothing behind. Where a call makes several `steps` (batches, tokens),
    it also takes their number as `steps`. It raises Failure for a model that it cannot run."""
    modes: tuple[Mode, ...] = ()
    """Its own, `tracked` first, where the registered ones do not suit."""
    models: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """What it runs when nobody says, a model's name to its sizes; empty for all of them."""
    when_named: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """What it runs instead of `models` where it is named itself, and time is the user's own; of transformers only what is installed."""
    families: tuple[Family, ...] = ()
    """Models of its own."""
    by_default: bool = True
    """False for what takes more than a few seconds, and is not run unless it is named."""
    any_model: bool = False
    """Whether it runs others beside `families` where they are chosen."""
    steps: int = 1
    """How many batches, tokens or the like one call makes."""
    same_work: bool = True
    """False where the modes by design do not run the same operators, so that comparing kernels says nothing."""
    runs_model: bool = True
    """False where a call goes around the model, which there is then no use in compiling."""
    updates: bool = False
    """True where a call changes parameters."""
    budget_share: float = 1.0
    """What it needs of `--budget`."""

    def mode(self, name: str) -> Mode:
        """Raises KeyError for a mode that it does not have."""
        return {mode.name: mode for mode in self.modes}[name] if self.modes else mode_named(name)

    def mode_names(self) -> list[str]:
        return [mode.name for mode in self.modes] or list(MODES)


def in_training(module: nn.Module, step: Step, *, training: bool) -> Step:
    """`step` with the module in train or eval mode, which is put back after each call.

    What `train` changes is found out beforehand: a call sets those attributes and does not walk through the module twice.
    """
    before = {part: part.training for part in module.modules()}
    module.train(training)
    changed = [part for part, was_training in before.items() if part.training != was_training]
    module.train(before[module])
    for part, was_training in before.items():  # parts may differ from the whole
        part.training = was_training

    def switched() -> Any:
        _set_training(changed, training)
        try:
            return step()
        finally:
            _set_training(changed, not training)

    return switched


def _set_training(parts: list[nn.Module], training: bool) -> None:
    for part in parts:
        object.__setattr__(part, "training", training)  # nn.Module's own looks through parameters, buffers and modules first
