"""What does tracking cost when a decoder writes one token after the other: many small operators, where switching off pays most?"""

from __future__ import annotations

from inspect import signature
from typing import Any, NamedTuple

import torch
from torch import nn

from benchmarks.failure import Failure, describe, is_out_of_memory
from benchmarks.models import Workload
from benchmarks.models.transformer import Block, Cache, Decoder
from benchmarks.models.workload import Family
from benchmarks.modes import DETACH, INFERENCE_MODE, NO_GRAD, TRACKED, Mode, Step
from benchmarks.scenarios.scenario import Scenario

TOKENS = 32


class Written(NamedTuple):
    """What transformers' decoders return, too. Logits are (batch, tokens, vocabulary)."""

    logits: torch.Tensor
    cache: Cache


class Writer(nn.Module):
    """A decoder that is called as those of transformers are, one token at a time; it keeps keys and values of earlier ones in a cache."""

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, input_ids: torch.Tensor, cache: Cache | None = None, use_cache: bool = True) -> Written:  # noqa: ARG002
        """Token ids are (batch, 1)."""
        cache = cache or {}
        decoder, position = self.decoder, next((key.shape[2] for key, _ in cache.values()), 0)
        x = decoder.token_embedding(input_ids) + decoder.position_embedding[position]
        for block in decoder.blocks:
            assert isinstance(block, Block)
            x = x + block.attention.forward(block.norm1(x), cache)
            x = x + block.mlp(block.norm2(x))
        return Written(decoder.head(decoder.norm(x)), cache)


def generation(workload: Workload, mode: Mode, steps: int = TOKENS) -> Step:
    """`steps` tokens, one after the other and greedily, behind the model's token ids; the output holds the logits of each that is written.

    Needs a decoder that is called as transformers' are; raises Failure else.
    """
    prompt = workload.kwargs.get("input_ids", next(iter(workload.args), None))
    cache_name = _cache_name(workload.module, prompt)

    def run(model: Any) -> torch.Tensor:
        token_ids, cache, logits = prompt, None, []
        for _ in range(steps):
            output = model(input_ids=token_ids, **{cache_name: cache}, use_cache=True)
            cache = getattr(output, cache_name)
            logits.append(output.logits[:, -1:])
            token_ids = logits[-1].argmax(-1)
        return torch.cat(logits, dim=1)

    return mode.bind(workload.module, run)


def _cache_name(module: nn.Module, prompt: Any) -> str:
    """`cache`, or `past_key_values` as transformers called it before. Raises Failure for a model that does not continue `prompt` with one."""
    needed = "generation needs a model that takes input_ids and cache (or past_key_values), and returns logits and the same"
    try:
        name = "cache" if "cache" in signature(module.forward).parameters else "past_key_values"
        with torch.no_grad():
            output = module(input_ids=prompt, **{name: None}, use_cache=True)
    except (TypeError, ValueError, AttributeError, RuntimeError) as error:  # the last is what TorchScript says of arguments
        if is_out_of_memory(error):
            raise
        raise Failure("unsupported", f"{needed}: {describe(error)}") from error
    missing = [part for part in ("logits", name) if getattr(output, part, None) is None]
    if missing:
        raise Failure("unsupported", f"{needed}; {type(output).__name__} holds no {', '.join(missing)}")
    return name


def _build(vocabulary: int, width: int, heads: int, depth: int) -> tuple[nn.Module, torch.Tensor]:
    return Writer(Decoder(vocabulary, TOKENS, width, heads, depth)), torch.zeros((1, 1), dtype=torch.int64)


SCENARIO = Scenario(
    generation,
    modes=(TRACKED, NO_GRAD, INFERENCE_MODE, DETACH),
    families=(Family("decoder", {"tiny": {"vocabulary": 64, "width": 32, "heads": 2, "depth": 1}}, _build),),
    models={"decoder": ("tiny",)},
    when_named={"decoder": ("tiny",), "gpt2": ("small",), "qwen3": ("small",)},
    any_model=True,
    steps=TOKENS,
    budget_share=0.5,
)
