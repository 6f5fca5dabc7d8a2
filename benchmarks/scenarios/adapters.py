"""What does fine-tuning through low-rank adapters keep and take beside full fine-tuning, and what does freezing their first half save?"""

from __future__ import annotations

from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.models.transformer import TRANSFORMER, build
from benchmarks.models.workload import Family
from benchmarks.modes import TRACKED, Mode, freezing, mode_named
from benchmarks.scenarios.scenario import Scenario
from benchmarks.scenarios.training_step import training_step

RANKS = (16, 64, 256)


class LowRank(nn.Module):
    """A linear layer with an adapter beside it, which runs where it is trained: x W' + (x A') B', B zero at first (Hu et al. 2021, LoRA)."""

    def __init__(self, layer: nn.Linear, rank: int) -> None:
        super().__init__()
        self.layer = layer
        self.a = nn.Parameter(torch.randn(rank, layer.in_features) / layer.in_features**0.5)
        self.b = nn.Parameter(torch.zeros(layer.out_features, rank))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.layer(x)
        return y + F.linear(F.linear(x, self.a), self.b) if self.b.requires_grad else y


def _linear(rank: int, batch: int, inputs: int, outputs: int) -> tuple[nn.Module, torch.Tensor]:
    return LowRank(nn.Linear(inputs, outputs), rank), torch.randn(batch, inputs)


def _decoder(rank: int, **size: int) -> tuple[nn.Module, torch.Tensor]:
    """With an adapter at each linear layer of its blocks."""
    decoder, token_ids = build(**size)
    blocks = decoder.get_submodule("blocks")
    for name, part in list(blocks.named_modules()):
        if isinstance(part, nn.Linear):
            blocks.set_submodule(name, LowRank(part, rank))
    return decoder, token_ids


_SIZES = {"tiny": {"batch": 64, "inputs": 512, "outputs": 512}, "large": {"batch": 512, "inputs": 4096, "outputs": 1024}}
"""`large` is a key's projection in Llama 3 8B."""

SCENARIO = Scenario(
    partial(training_step, loss=torch.mean),  # whose graph keeps nothing
    modes=tuple(
        Mode(name, summary, mode_named(freezing(frozen)).bind, records=True)
        for name, summary, frozen in (  # names of parameters end in a and b in adapters only
            (TRACKED.name, "full fine-tuning, without adapters", "*[ab]"),
            ("adapters", "both halves of the adapters trained, all else frozen", "*[!ab]"),
            ("adapters_frozen_a", "the second half of the adapters trained, all else frozen", "*[!b]"),
        )
    ),
    families=(
        *(Family(f"linear_rank{rank}", _SIZES, partial(_linear, rank)) for rank in RANKS),
        Family("decoder", {name: {**TRANSFORMER.sizes[name], "rank": 8} for name in ("tiny", "small")}, _decoder),
    ),
    models={"linear_rank16": ("tiny",)},
    when_named={**{f"linear_rank{rank}": ("large",) for rank in RANKS}, "decoder": ("small",)},
    same_work=False,
    updates=True,
    budget_share=0.1,
)
