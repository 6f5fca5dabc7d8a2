"""Eleven architectures as people run them, from transformers, in three sizes. `base` is the published model, where there is one so small.

Default configurations are not real models, so every number is written out. Weights are random: time and memory do not depend on them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks.models import hub
from benchmarks.models.workload import Family

Numbers = dict[str, Any]


def _family(name: str, model: str, numbers: Callable[..., Numbers], **sizes: tuple[Any, ...]) -> Family:
    """`numbers` makes of a size's arguments what hub.build takes beside the batch."""
    module = f"transformers.models.{name}.modeling_{name}"
    written_out = {size: {"batch": 1, **numbers(*arguments)} for size, arguments in sizes.items()}
    return Family(name, written_out, partial(hub.build, model), ("transformers", module))


def _encoder(width: int, layers: int, inner: int | None = None) -> Numbers:
    heads, inner = width // 64, inner or 4 * width
    return {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads, "intermediate_size": inner}


def _bert(length: int, width: int, layers: int) -> Numbers:
    """The sizes of Turc et al. 2019 (arXiv:1908.08962), of which base is Devlin et al.'s."""
    positions = {"max_position_embeddings": 512, "type_vocab_size": 2}
    return {"length": length, **_encoder(width, layers), "vocab_size": 30522, **positions}


def _modernbert(length: int, width: int, layers: int, inner: int) -> Numbers:
    positions = {"max_position_embeddings": 8192, "local_attention": 128}
    return {"length": length, **_encoder(width, layers, inner), "vocab_size": 50368, **positions}


def _gpt2(length: int, width: int, layers: int, vocabulary: int) -> Numbers:
    return {
        "length": length, "n_embd": width, "n_layer": layers, "n_head": width // 64, "n_inner": 4 * width, "n_positions": 1024,
        "vocab_size": vocabulary, "bos_token_id": 0, "eos_token_id": 0,
    }  # fmt: skip


def _qwen3(length: int, width: int, layers: int, heads: int, groups: int, head: int, inner: int, vocabulary: int) -> Numbers:
    return {
        "length": length, "hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads, "head_dim": head,
        "num_key_value_heads": groups, "intermediate_size": inner, "vocab_size": vocabulary, "max_position_embeddings": 40960,
        "tie_word_embeddings": True,
    }  # fmt: skip


def _qwen3_moe(experts: int, chosen: int, inner: int, *dense: int) -> Numbers:
    share = {"num_experts": experts, "num_experts_per_tok": chosen, "moe_intermediate_size": inner, "norm_topk_prob": True}
    return _qwen3(*dense) | share


def _t5(length: int, width: int, layers: int, heads: int, inner: int) -> Numbers:
    return {
        "length": length, "d_model": width, "num_layers": layers, "num_decoder_layers": layers, "num_heads": heads, "d_kv": 64,
        "d_ff": inner, "vocab_size": 32128, "relative_attention_num_buckets": 32, "feed_forward_proj": "relu",
    }  # fmt: skip


def _vit(image: int, width: int, layers: int) -> Numbers:
    """The widths of Touvron et al. 2021 (arXiv:2012.12877), of which base is Dosovitskiy et al.'s."""
    return {"image_size": image, "patch_size": 16, "num_channels": 3, **_encoder(width, layers), "num_labels": 1000}


def _resnet(stem: int, widths: list[int], depths: list[int], block: str, labels: int) -> Numbers:
    """Images are 224 pixels wide, which no number of the configuration says."""
    layers = {"embedding_size": stem, "hidden_sizes": widths, "depths": depths, "layer_type": block}
    return {"num_channels": 3, **layers, "num_labels": labels}


def _clip(length: int, image: int, patch: int, text: tuple[int, int], vision: tuple[int, int]) -> Numbers:
    """`text` and `vision` are width and layers."""
    shared = {"projection_dim": text[0]}
    images = {"image_size": image, "patch_size": patch, "num_channels": 3}
    return {
        "length": length, **shared, "vision_config": {**_encoder(*vision), **images, **shared},
        "text_config": {**_encoder(*text), "vocab_size": 49408, "max_position_embeddings": 77, **shared},
    }  # fmt: skip


def _whisper(length: int, width: int, layers: int, positions: int) -> Numbers:
    """Audio of `positions` times 20 ms."""
    side = {"layers": layers, "attention_heads": width // 64, "ffn_dim": 4 * width}
    sides = {f"{name}_{key}": value for name in ("encoder", "decoder") for key, value in side.items()}
    most = {"max_source_positions": positions, "max_target_positions": 448}
    return {"length": length, "d_model": width, **sides, "num_mel_bins": 80, **most, "vocab_size": 51865}


def _mamba(length: int, width: int, layers: int, vocabulary: int) -> Numbers:
    return {
        "length": length, "hidden_size": width, "num_hidden_layers": layers, "state_size": 16, "conv_kernel": 4, "expand": 2,
        "time_step_rank": width // 16, "vocab_size": vocabulary,
    }  # fmt: skip


REAL = {
    family.name: family
    for family in (
        _family("bert", "BertModel", _bert, tiny=(16, 128, 2), small=(64, 256, 4), base=(128, 768, 12)),
        _family("modernbert", "ModernBertModel", _modernbert,
                tiny=(16, 128, 2, 192), small=(64, 256, 6, 384), base=(128, 768, 22, 1152)),
        _family("gpt2", "GPT2LMHeadModel", _gpt2,
                tiny=(16, 128, 2, 1024), small=(64, 256, 4, 8192), base=(128, 768, 12, 50257)),
        _family("qwen3", "Qwen3ForCausalLM", _qwen3,
                tiny=(16, 128, 2, 2, 1, 64, 256, 1024), small=(64, 256, 4, 4, 2, 64, 768, 8192),
                base=(128, 1024, 28, 16, 8, 128, 3072, 151936)),
        _family("qwen3_moe", "Qwen3MoeForCausalLM", _qwen3_moe,
                tiny=(4, 2, 64, 16, 128, 2, 2, 1, 64, 256, 1024), small=(8, 2, 192, 64, 256, 4, 4, 2, 64, 768, 8192),
                base=(16, 4, 576, 128, 768, 12, 12, 4, 64, 2304, 50304)),
        _family("t5", "T5ForConditionalGeneration", _t5,
                tiny=(16, 128, 1, 2, 256), small=(32, 256, 3, 4, 1024), base=(128, 768, 12, 12, 3072)),
        _family("vit", "ViTForImageClassification", _vit, tiny=(32, 64, 2), small=(96, 192, 6), base=(224, 768, 12)),
        _family("resnet", "ResNetForImageClassification", _resnet,
                tiny=(8, [8, 16], [1, 1], "basic", 10), small=(32, [32, 64, 128, 256], [1, 1, 1, 1], "basic", 1000),
                base=(64, [256, 512, 1024, 2048], [3, 4, 6, 3], "bottleneck", 1000)),
        _family("clip", "CLIPModel", _clip, tiny=(16, 32, 16, (64, 1), (64, 1)), small=(32, 96, 16, (192, 4), (192, 4)),
                base=(77, 224, 32, (512, 12), (768, 12))),
        _family("whisper", "WhisperForConditionalGeneration", _whisper,
                tiny=(8, 64, 1, 32), small=(16, 128, 2, 150), base=(64, 512, 6, 1500)),
        _family("mamba", "MambaForCausalLM", _mamba,
                tiny=(8, 64, 2, 1024), small=(32, 256, 4, 8192), base=(128, 768, 24, 50280)),
    )
}  # fmt: skip

BY_DEFAULT = ("bert", "qwen3", "vit")
"""Those that a run has that nobody chose models for."""

REAL_SIZES = ("tiny", "small", "base")
