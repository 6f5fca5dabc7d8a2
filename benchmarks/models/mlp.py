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


def saved_bytes(batch: int, width: int, depth: int, element_bytes: int) -> int:
    """depth * batch * width * element_bytes: each ReLU keeps its result, which is also what the next Linear keeps as its input.

    The first Linear keeps the model's input, and a Linear's own result is kept by nobody.
    """
    return depth * batch * width * element_bytes


MLP = Family(
    name="mlp",
    summary="Linear and ReLU in turn",
    sizes={
        "tiny": {"batch": 8, "width": 64, "depth": 4},
        "small": {"batch": 64, "width": 256, "depth": 4},
        "medium": {"batch": 256, "width": 512, "depth": 10},
        "large": {"batch": 1024, "width": 1024, "depth": 10},
    },
    build=build,
    saved_bytes=saved_bytes,
)
