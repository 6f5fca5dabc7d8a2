"""How models are run, a file each. A new scenario is a file beside this one and an entry in SCENARIOS; `forward` comes first."""

from __future__ import annotations

from benchmarks.scenarios import (
    adapters,
    checkpointing,
    evaluation,
    forward,
    frozen_backbone,
    frozen_input,
    generation,
    loss_logging,
    operators,
    rollout,
    switches,
    target_network,
    training_step,
)
from benchmarks.scenarios.scenario import Scenario

__all__ = ["SCENARIOS", "Scenario"]

SCENARIOS: dict[str, Scenario] = {
    "forward": forward.SCENARIO,
    "adapters": adapters.SCENARIO,
    "checkpointing": checkpointing.SCENARIO,
    "evaluation": evaluation.SCENARIO,
    "frozen_backbone": frozen_backbone.SCENARIO,
    "frozen_input": frozen_input.SCENARIO,
    "generation": generation.SCENARIO,
    "loss_logging": loss_logging.SCENARIO,
    "operators": operators.SCENARIO,
    "rollout": rollout.SCENARIO,
    "switches": switches.SCENARIO,
    "target_network": target_network.SCENARIO,
    "training_step": training_step.SCENARIO,
}
