"""A multilayer perceptron: Linear and ReLU in turn."""

from __future__ import annotations

import torch
from torch import nn

from benchmarks.models.workload import Family


def build(batch: int, width: int, depth: int) -> tuple[nn.Module, torch.Tensor]:
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [nn.Linear(width, width), nn.ReLU()]
    return nn.Sequential(*layers), torch.randn(batch, width)


MLP = Family(
    name="mlp",
    sizes={
        "tiny": {"batch": 8, "width": 64, "depth": 4},
        "small": {"batch": 64, "width": 256, "depth": 4},
        "medium": {"batch": 256, "width": 512, "depth": 10},
        "large": {"batch": 1024, "width": 1024, "depth": 10},
        "huge": {"batch": 8192, "width": 4096, "depth": 10},
    },
    build=build,
)
