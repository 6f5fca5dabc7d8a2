"""How models are run, a file each. A new scenario is a file beside this one and an entry in SCENARIOS; `forward` comes first."""

from __future__ import annotations

from benchmarks.scenarios import (
    evaluation,
    forward,
    frozen_backbone,
    generation,
    loss_logging,
    operators,
    target_network,
    training_step,
)
from benchmarks.scenarios.scenario import Scenario

__all__ = ["SCENARIOS", "Scenario"]

SCENARIOS: dict[str, Scenario] = {
    "forward": forward.SCENARIO,
    "evaluation": evaluation.SCENARIO,
    "frozen_backbone": frozen_backbone.SCENARIO,
    "generation": generation.SCENARIO,
    "loss_logging": loss_logging.SCENARIO,
    "operators": operators.SCENARIO,
    "target_network": target_network.SCENARIO,
    "training_step": training_step.SCENARIO,
}
