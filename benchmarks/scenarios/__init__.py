"""How models are run, a file each. A new scenario is a file beside this one and its name in SCENARIOS; `forward` comes first."""

from __future__ import annotations

from importlib import import_module

from benchmarks.scenarios.scenario import Scenario

__all__ = ["SCENARIOS", "Scenario"]

SCENARIOS: dict[str, Scenario] = {
    name: import_module(f"{__name__}.{name}").SCENARIO
    for name in (
        "forward",
        "adapters",
        "checkpointing",
        "evaluation",
        "frozen_backbone",
        "frozen_input",
        "generation",
        "loss_logging",
        "operators",
        "rollout",
        "switches",
        "target_network",
        "training_step",
    )
}
