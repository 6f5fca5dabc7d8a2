"""Eleven architectures as people run them, from transformers, in three sizes. `base` is the published model, where there is one so small.

Default configurations are not real models, so every number is written out. Weights are random: time and memory do not depend on them.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from benchmarks.models import hub
from benchmarks.models.workload import Family

Sizes = Mapping[str, Mapping[str, Any]]


def _family(name: str, summary: str, model: str, configuration: str, sizes: Sizes) -> Family:
    module = f"transformers.models.{name}.modeling_{name}"
    return Family(name, summary, sizes, partial(hub.build, model, configuration), ("transformers", module))


def _bert(batch: int, length: int, width: int, layers: int) -> dict[str, Any]:
    """The sizes of Turc et al. 2019 (arXiv:1908.08962), of which base is Devlin et al.'s."""
    return {
        "batch": batch, "length": length, "hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": width // 64,
        "intermediate_size": 4 * width, "vocab_size": 30522, "max_position_embeddings": 512, "type_vocab_size": 2,
    }  # fmt: skip


def _modernbert(batch: int, length: int, width: int, layers: int, inner: int) -> dict[str, Any]:
    return {
        "batch": batch, "length": length, "hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": width // 64,
        "intermediate_size": inner, "vocab_size": 50368, "max_position_embeddings": 8192, "local_attention": 128,
    }  # fmt: skip


def _gpt2(batch: int, length: int, width: int, layers: int, vocabulary: int) -> dict[str, Any]:
    return {
        "batch": batch, "length": length, "n_embd": width, "n_layer": layers, "n_head": width // 64, "n_inner": 4 * width,
        "n_positions": 1024, "vocab_size": vocabulary, "bos_token_id": 0, "eos_token_id": 0,
    }  # fmt: skip


def _qwen3(
    batch: int, length: int, width: int, layers: int, heads: int, groups: int, head: int, inner: int, vocabulary: int
) -> dict[str, Any]:
    return {
        "batch": batch, "length": length, "hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads,
        "num_key_value_heads": groups, "head_dim": head, "intermediate_size": inner, "vocab_size": vocabulary,
        "max_position_embeddings": 40960, "tie_word_embeddings": True,
    }  # fmt: skip


def _experts(experts: int, chosen: int, inner: int) -> dict[str, Any]:
    return {"num_experts": experts, "num_experts_per_tok": chosen, "moe_intermediate_size": inner, "norm_topk_prob": True}


def _t5(batch: int, length: int, width: int, layers: int, heads: int, inner: int) -> dict[str, Any]:
    return {
        "batch": batch, "length": length, "d_model": width, "num_layers": layers, "num_decoder_layers": layers, "num_heads": heads,
        "d_kv": 64, "d_ff": inner, "vocab_size": 32128, "relative_attention_num_buckets": 32, "feed_forward_proj": "relu",
    }  # fmt: skip


def _vit(batch: int, image: int, width: int, layers: int) -> dict[str, Any]:
    """The widths of Touvron et al. 2021 (arXiv:2012.12877), of which base is Dosovitskiy et al.'s."""
    return {
        "batch": batch, "image_size": image, "patch_size": 16, "num_channels": 3, "hidden_size": width, "num_hidden_layers": layers,
        "num_attention_heads": width // 64, "intermediate_size": 4 * width, "num_labels": 1000,
    }  # fmt: skip


def _resnet(batch: int, stem: int, widths: list[int], depths: list[int], block: str, labels: int) -> dict[str, Any]:
    """Images are 224 pixels wide, which no number of the configuration says."""
    return {
        "batch": batch, "num_channels": 3, "embedding_size": stem, "hidden_sizes": widths, "depths": depths, "layer_type": block,
        "num_labels": labels,
    }  # fmt: skip


def _clip(batch: int, length: int, image: int, patch: int, text: tuple[int, int], vision: tuple[int, int]) -> dict[str, Any]:
    """`text` and `vision` are width and layers."""
    both = [
        {"hidden_size": w, "num_hidden_layers": n, "num_attention_heads": w // 64, "intermediate_size": 4 * w}
        for w, n in (text, vision)
    ]
    return {
        "batch": batch, "length": length, "projection_dim": text[0],
        "text_config": {**both[0], "vocab_size": 49408, "max_position_embeddings": 77, "projection_dim": text[0]},
        "vision_config": {**both[1], "image_size": image, "patch_size": patch, "num_channels": 3, "projection_dim": text[0]},
    }  # fmt: skip


def _whisper(batch: int, length: int, width: int, layers: int, positions: int) -> dict[str, Any]:
    """Audio of `positions` times 20 ms."""
    sides = {
        f"{side}_{key}": value
        for side in ("encoder", "decoder")
        for key, value in (("layers", layers), ("attention_heads", width // 64), ("ffn_dim", 4 * width))
    }
    return {
        "batch": batch, "length": length, "d_model": width, **sides, "num_mel_bins": 80, "max_source_positions": positions,
        "max_target_positions": 448, "vocab_size": 51865,
    }  # fmt: skip


def _mamba(batch: int, length: int, width: int, layers: int, vocabulary: int) -> dict[str, Any]:
    return {
        "batch": batch, "length": length, "hidden_size": width, "num_hidden_layers": layers, "state_size": 16, "conv_kernel": 4,
        "expand": 2, "time_step_rank": width // 16, "vocab_size": vocabulary,
    }  # fmt: skip


REAL = {
    family.name: family
    for family in (
        _family("bert", "an encoder of text", "BertModel", "BertConfig", {
            "tiny": _bert(1, 16, 128, 2), "small": _bert(1, 128, 256, 4), "base": _bert(1, 128, 768, 12),
        }),
        _family("modernbert", "an encoder of text with rotary positions and local attention", "ModernBertModel", "ModernBertConfig", {
            "tiny": _modernbert(1, 16, 128, 2, 192), "small": _modernbert(1, 128, 256, 6, 384),
            "base": _modernbert(1, 128, 768, 22, 1152),
        }),
        _family("gpt2", "a decoder of text", "GPT2LMHeadModel", "GPT2Config", {
            "tiny": _gpt2(1, 16, 128, 2, 1024), "small": _gpt2(1, 64, 256, 4, 8192), "base": _gpt2(1, 128, 768, 12, 50257),
        }),
        _family("qwen3", "a decoder with grouped queries and gated units", "Qwen3ForCausalLM", "Qwen3Config", {
            "tiny": _qwen3(1, 16, 128, 2, 2, 1, 64, 256, 1024), "small": _qwen3(1, 64, 256, 4, 4, 2, 64, 768, 8192),
            "base": _qwen3(1, 128, 1024, 28, 16, 8, 128, 3072, 151936),
        }),
        _family("qwen3_moe", "a decoder that sends each token to a few of many experts", "Qwen3MoeForCausalLM", "Qwen3MoeConfig", {
            "tiny": _qwen3(1, 16, 128, 2, 2, 1, 64, 256, 1024) | _experts(4, 2, 64),
            "small": _qwen3(1, 64, 256, 4, 4, 2, 64, 768, 8192) | _experts(8, 2, 192),
            "base": _qwen3(1, 128, 768, 12, 12, 4, 64, 2304, 50304) | _experts(16, 4, 576),
        }),
        _family("t5", "an encoder and a decoder of text", "T5ForConditionalGeneration", "T5Config", {
            "tiny": _t5(1, 16, 128, 1, 2, 256), "small": _t5(1, 32, 256, 3, 4, 1024), "base": _t5(1, 128, 768, 12, 12, 3072),
        }),
        _family("vit", "a transformer of image patches", "ViTForImageClassification", "ViTConfig", {
            "tiny": _vit(1, 32, 64, 2), "small": _vit(1, 96, 192, 6), "base": _vit(1, 224, 768, 12),
        }),
        _family("resnet", "a convolutional network", "ResNetForImageClassification", "ResNetConfig", {
            "tiny": _resnet(1, 8, [8, 16], [1, 1], "basic", 10),
            "small": _resnet(1, 32, [32, 64, 128, 256], [1, 1, 1, 1], "basic", 1000),
            "base": _resnet(1, 64, [256, 512, 1024, 2048], [3, 4, 6, 3], "bottleneck", 1000),
        }),
        _family("clip", "an encoder of images beside one of text", "CLIPModel", "CLIPConfig", {
            "tiny": _clip(1, 16, 32, 16, (64, 1), (64, 1)), "small": _clip(1, 32, 96, 16, (192, 4), (192, 4)),
            "base": _clip(1, 77, 224, 32, (512, 12), (768, 12)),
        }),
        _family("whisper", "an encoder of audio and a decoder of text", "WhisperForConditionalGeneration", "WhisperConfig", {
            "tiny": _whisper(1, 8, 64, 1, 32), "small": _whisper(1, 16, 128, 2, 150), "base": _whisper(1, 64, 512, 6, 1500),
        }),
        _family("mamba", "a state space model of text", "MambaForCausalLM", "MambaConfig", {
            "tiny": _mamba(1, 8, 64, 2, 1024), "small": _mamba(1, 32, 256, 4, 8192), "base": _mamba(1, 128, 768, 24, 50280),
        }),
    )
}  # fmt: skip

BY_DEFAULT = ("bert", "qwen3", "vit")
"""Those that a run has that nobody chose models for."""

REAL_SIZES = ("tiny", "small", "base")
