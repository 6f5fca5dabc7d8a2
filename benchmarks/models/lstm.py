"""A recurrent classifier: nn.LSTM over a sequence, and a linear layer on its last step."""

from __future__ import annotations

import torch
from torch import nn

from benchmarks.models.workload import Family


class LSTMClassifier(nn.Module):
    """Scores of `classes` classes, (batch, classes), for sequences of (batch, steps, features)."""

    def __init__(self, features: int, width: int, depth: int, classes: int = 10) -> None:
        super().__init__()
        self.lstm = nn.LSTM(features, width, depth, batch_first=True)
        self.head = nn.Linear(width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        steps, _ = self.lstm(x)
        scores: torch.Tensor = self.head(steps[:, -1])
        return scores


def build(batch: int, steps: int, features: int, width: int, depth: int) -> tuple[nn.Module, torch.Tensor]:
    return LSTMClassifier(features, width, depth), torch.randn(batch, steps, features)


LSTM = Family(
    name="lstm",
    sizes={
        "tiny": {"batch": 1, "steps": 4, "features": 16, "width": 16, "depth": 1},
        "small": {"batch": 8, "steps": 24, "features": 64, "width": 96, "depth": 1},
        "medium": {"batch": 16, "steps": 32, "features": 64, "width": 256, "depth": 2},
        "large": {"batch": 64, "steps": 48, "features": 256, "width": 512, "depth": 2},
        "huge": {"batch": 256, "steps": 128, "features": 512, "width": 1024, "depth": 2},
    },
    build=build,
)
