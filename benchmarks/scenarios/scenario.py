"""What a scenario file defines: how a model is run, in which modes, and on what when nobody says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from benchmarks.models.workload import Family
from benchmarks.modes import MODES, Mode, Step, mode_named


@dataclass(frozen=True, slots=True)
class Scenario:
    """How a model is run, to answer the question in its file's docstring.

    `bind(workload, mode)` returns a step: one call, which leaves nothing behind. Where it makes several `steps` (batches, tokens), it
    also takes their number as `steps`.
    - `modes`: its own, `tracked` first, where the registered ones do not suit.
    - `models`: what it runs when nobody says, a model's name to its sizes; empty for all of them.
    - `families`: models of its own, in all their sizes; then it runs nothing else.
    - `same_work` is False where the modes by design do not run the same operators, so that comparing kernels says nothing.
    - `updates` is True where a call changes parameters.
    - `budget_share` is what it needs of `--budget`.
    """

    bind: Callable[..., Step]
    modes: tuple[Mode, ...] = ()
    models: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    families: tuple[Family, ...] = ()
    steps: int = 1
    same_work: bool = True
    updates: bool = False
    budget_share: float = 1.0

    def mode(self, name: str) -> Mode:
        """Raises KeyError for a mode that it does not have."""
        return {mode.name: mode for mode in self.modes}[name] if self.modes else mode_named(name)

    def mode_names(self) -> list[str]:
        return [mode.name for mode in self.modes] or list(MODES)
