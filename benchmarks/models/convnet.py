"""A residual convolutional network: basic blocks with batch normalisation (He et al. 2016, arXiv:1512.03385)."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.models.workload import Family


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut; where the channels change, the image is halved, and a 1x1 convolution fits the shortcut."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        stride = 1 if channels_in == channels else 2
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1:
            self.shortcut = nn.Sequential(nn.Conv2d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        return F.relu(y + self.shortcut(x))


class ConvNet(nn.Module):
    """A stem, `stages` stages of `blocks` basic blocks (each stage but the first halves the image), pooling, a classifier."""

    def __init__(self, channels: int, stages: int, blocks: int, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, channels, 3, 1, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU())
        widths = [channels, *(channels * 2**stage for stage in range(stages) for _ in range(blocks))]
        self.blocks = nn.Sequential(*(BasicBlock(width, following) for width, following in pairwise(widths)))
        self.head = nn.Linear(widths[-1], classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.blocks(self.stem(x))
        logits: torch.Tensor = self.head(y.mean((2, 3)))
        return logits


def build(batch: int, image: int, channels: int, stages: int, blocks: int) -> tuple[nn.Module, torch.Tensor]:
    return ConvNet(channels, stages, blocks), torch.randn(batch, 3, image, image)


CONVNET = Family(
    name="convnet",
    sizes={
        "tiny": {"batch": 1, "image": 8, "channels": 4, "stages": 1, "blocks": 1},
        "small": {"batch": 2, "image": 16, "channels": 8, "stages": 2, "blocks": 1},
        "medium": {"batch": 16, "image": 32, "channels": 16, "stages": 3, "blocks": 2},
        "large": {"batch": 48, "image": 32, "channels": 32, "stages": 3, "blocks": 3},
        "huge": {"batch": 256, "image": 64, "channels": 64, "stages": 3, "blocks": 3},
    },
    build=build,
)
