"""A decoder-only transformer: pre-norm blocks with causal attention and GELU (Radford et al. 2019, GPT-2's block)."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.models.workload import Family


class Attention(nn.Module):
    """Causal self-attention over (batch, tokens, width); with a cache, of one token over all whose keys and values are there, and its own."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: torch.Tensor, cache: Cache | None = None) -> torch.Tensor:
        batch, tokens, width = x.shape
        q, k, v = self.qkv(x).view(batch, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4).unbind()
        if cache is not None:
            if self in cache:
                k, v = (torch.cat(pair, dim=2) for pair in zip(cache[self], (k, v), strict=True))
            cache[self] = (k, v)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=cache is None)
        out: torch.Tensor = self.out(y.transpose(1, 2).reshape(batch, tokens, width))
        return out


Cache = dict[Attention, tuple[torch.Tensor, torch.Tensor]]
"""Keys and values so far."""


class Block(nn.Module):
    """Attention, then a multilayer perceptron, each behind a layer norm and beside a shortcut."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(self.norm1(x))
        y: torch.Tensor = x + self.mlp(self.norm2(x))
        return y


class Decoder(nn.Module):
    """Token and position embeddings, `depth` blocks, a layer norm and the logits of the next token."""

    def __init__(self, vocabulary: int, tokens: int, width: int, heads: int, depth: int) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(vocabulary, width)
        self.position_embedding = nn.Parameter(torch.randn(tokens, width) * 0.02)
        self.blocks = nn.Sequential(*[Block(width, heads) for _ in range(depth)])
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)

    def forward(self, token_ids: torch.Tensor) -> torch.Tensor:
        x = self.token_embedding(token_ids) + self.position_embedding[: token_ids.shape[1]]
        logits: torch.Tensor = self.head(self.norm(self.blocks(x)))
        return logits


def build(batch: int, tokens: int, width: int, heads: int, depth: int, vocabulary: int) -> tuple[nn.Module, torch.Tensor]:
    return Decoder(vocabulary, tokens, width, heads, depth), torch.randint(vocabulary, (batch, tokens))


TRANSFORMER = Family(
    name="transformer",
    sizes={
        "tiny": {"batch": 1, "tokens": 8, "width": 32, "heads": 2, "depth": 1, "vocabulary": 64},
        "small": {"batch": 1, "tokens": 32, "width": 64, "heads": 4, "depth": 3, "vocabulary": 256},
        "medium": {"batch": 4, "tokens": 64, "width": 192, "heads": 6, "depth": 4, "vocabulary": 1024},
        "large": {"batch": 8, "tokens": 128, "width": 384, "heads": 6, "depth": 6, "vocabulary": 4096},
        "huge": {"batch": 8, "tokens": 1024, "width": 1024, "heads": 16, "depth": 12, "vocabulary": 4096},
    },
    build=build,
)
