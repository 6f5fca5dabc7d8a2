"""What does tracking cost when a decoder writes one token after the other: many small operators, where switching off pays most?"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.models import Workload
from benchmarks.models.transformer import Attention, Block, Decoder
from benchmarks.models.workload import Family
from benchmarks.modes import DETACH, INFERENCE_MODE, NO_GRAD, TRACKED, Mode, Step
from benchmarks.scenarios.scenario import Scenario

TOKENS = 32

Cache = dict[Attention, tuple[torch.Tensor, torch.Tensor]]


class Writer(nn.Module):
    """A decoder that continues a prompt greedily, keeping the keys and values of earlier tokens."""

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, token_ids: torch.Tensor, steps: int = TOKENS) -> torch.Tensor:
        """Prompt (batch, 1) to the logits of each token written, (batch, steps, vocabulary)."""
        cache: Cache = {}
        logits = []
        for position in range(steps):
            logits.append(self._next(token_ids, position, cache))
            token_ids = logits[-1].argmax(-1)
        return torch.cat(logits, dim=1)

    def _next(self, token_ids: torch.Tensor, position: int, cache: Cache) -> torch.Tensor:
        decoder = self.decoder
        x = decoder.token_embedding(token_ids) + decoder.position_embedding[position]
        for block in decoder.blocks:
            assert isinstance(block, Block)
            x = x + _attend(block.attention, block.norm1(x), cache)
            x = x + block.mlp(block.norm2(x))
        logits: torch.Tensor = decoder.head(decoder.norm(x))
        return logits


def _attend(attention: Attention, x: torch.Tensor, cache: Cache) -> torch.Tensor:
    """One token against all so far: `attention` over (batch, 1, width), whose key and value are put into the cache."""
    batch, _, width = x.shape
    q, k, v = attention.qkv(x).view(batch, 1, 3, attention.heads, width // attention.heads).permute(2, 0, 3, 1, 4).unbind()
    if attention in cache:
        k, v = (torch.cat(pair, dim=2) for pair in zip(cache[attention], (k, v), strict=True))
    cache[attention] = (k, v)
    y = F.scaled_dot_product_attention(q, k, v)
    out: torch.Tensor = attention.out(y.transpose(1, 2).reshape(batch, 1, width))
    return out


def generation(workload: Workload, mode: Mode, steps: int = TOKENS) -> Step:
    """`steps` tokens, one after the other."""
    return mode.bind(workload.module, lambda model: model(*workload.args, steps=steps))


def _build(vocabulary: int, width: int, heads: int, depth: int) -> tuple[nn.Module, torch.Tensor]:
    return Writer(Decoder(vocabulary, TOKENS, width, heads, depth)), torch.zeros((1, 1), dtype=torch.int64)


SCENARIO = Scenario(
    generation,
    modes=(TRACKED, NO_GRAD, INFERENCE_MODE, DETACH),
    families=(
        Family(
            "decoder",
            "a transformer with a key-value cache",
            {"tiny": {"vocabulary": 64, "width": 32, "heads": 2, "depth": 1}},
            _build,
        ),
    ),
    steps=TOKENS,
    budget_share=0.5,
)
