"""The families of published models, and to which of them a model belongs."""

import dataclasses
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

from arkjax.errors import DataError
from arkjax.models.config import ModelConfig


@dataclasses.dataclass(frozen=True)
class Family:
    """One architecture of `transformers`.

    Attributes:
      architecture: its class, as config.json names it.
      model_type: its short name there.
      defaults: fields that config.json may leave out, with what they then are.
      features: fields of `ModelConfig` that are not as in the plainest model, a Llama; "?" marks
        one that may be anything.
      windows: which layers may be windowed.
    """

    architecture: str
    model_type: str
    defaults: Mapping[str, Any]
    features: Mapping[str, Any]
    windows: Literal["none", "none or all", "any"] = "none"


# What a Llama is, in the fields by which families differ.
_PLAIN: Mapping[str, Any] = MappingProxyType(
    {
        "experts": None,
        "zero_centered_norm": False,
        "post_norms": False,
        "qk_norm": False,
        "qkv_bias": False,
        "scale_embeddings": False,
        "local_rope_theta": 0.0,
        "attention_scale": 0.0,
        "attention_soft_cap": 0.0,
        "logit_soft_cap": 0.0,
    }
)
_ALL: Mapping[str, Any] = MappingProxyType(
    {
        "num_key_value_heads": None,
        "head_dim": None,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False,
        "rope_theta": 1e4,
    }
)
_QWEN: Mapping[str, Any] = MappingProxyType(
    {
        **_ALL,
        "vocab_size": 151_936,
        "max_position_embeddings": 32_768,
        "use_sliding_window": False,
        "sliding_window": 4096,
        "max_window_layers": 28,
    }
)
_QWEN_DENSE: Mapping[str, Any] = MappingProxyType(
    {
        **_QWEN,
        "hidden_size": 4096,
        "intermediate_size": 22_016,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
    }
)
_GEMMA: Mapping[str, Any] = MappingProxyType(
    {
        **_ALL,
        "head_dim": 256,
        "hidden_activation": "gelu_pytorch_tanh",
        "tie_word_embeddings": True,
        "max_position_embeddings": 8192,
    }
)
_GEMMA2: Mapping[str, Any] = MappingProxyType(
    {
        **_GEMMA,
        "vocab_size": 256_000,
        "hidden_size": 2304,
        "intermediate_size": 9216,
        "num_hidden_layers": 26,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "query_pre_attn_scalar": 256,
        "sliding_window": 4096,
        "sliding_window_pattern": 2,
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
    }
)
_GEMMA_FEATURES = {"zero_centered_norm": True, "scale_embeddings": True}
_GEMMA2_FEATURES = _GEMMA_FEATURES | {
    "post_norms": True,
    "attention_scale": "?",
    "attention_soft_cap": "?",
    "logit_soft_cap": "?",
}

# The defaults are those of the config classes of transformers 5.23; released files lean on them.
_FAMILIES = (
    Family(
        "LlamaForCausalLM",
        "llama",
        {
            **_ALL,
            "vocab_size": 32_000,
            "hidden_size": 4096,
            "intermediate_size": 11_008,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "max_position_embeddings": 2048,
        },
        {},
    ),
    Family(
        "MistralForCausalLM",
        "mistral",
        {
            **_ALL,
            "vocab_size": 32_000,
            "hidden_size": 4096,
            "intermediate_size": 14_336,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "max_position_embeddings": 131_072,
            "sliding_window": 4096,
        },
        {},
        "none or all",
    ),
    Family("Qwen2ForCausalLM", "qwen2", _QWEN_DENSE, {"qkv_bias": True}, "any"),
    Family("Qwen3ForCausalLM", "qwen3", {**_QWEN_DENSE, "head_dim": 128}, {"qk_norm": True}, "any"),
    Family(
        "Qwen3MoeForCausalLM",
        "qwen3_moe",
        {
            **_QWEN,
            "hidden_size": 2048,
            "moe_intermediate_size": 768,
            "num_hidden_layers": 24,
            "num_attention_heads": 32,
            "num_key_value_heads": 4,
            "max_window_layers": 0,
            "num_experts": 128,
            "num_experts_per_tok": 8,
            "norm_topk_prob": False,
        },
        {"qk_norm": True, "experts": "?"},
        "none or all",
    ),
    Family(
        "GemmaForCausalLM",
        "gemma",
        {
            **_GEMMA,
            "vocab_size": 256_000,
            "hidden_size": 3072,
            "intermediate_size": 24_576,
            "num_hidden_layers": 28,
            "num_attention_heads": 16,
            "num_key_value_heads": 16,
        },
        _GEMMA_FEATURES,
    ),
    Family("Gemma2ForCausalLM", "gemma2", _GEMMA2, _GEMMA2_FEATURES, "any"),
    Family(
        "Gemma3ForCausalLM",
        "gemma3_text",
        {
            **_GEMMA2,
            "vocab_size": 262_208,
            "max_position_embeddings": 131_072,
            "rope_theta": 1e6,
            "rope_local_base_freq": 1e4,
            "sliding_window_pattern": 6,
            "attn_logit_softcapping": None,
            "final_logit_softcapping": None,
        },
        _GEMMA2_FEATURES | {"qk_norm": True, "local_rope_theta": "?"},
        "any",
    ),
)
FAMILIES: Mapping[str, Family] = MappingProxyType({f.architecture: f for f in _FAMILIES})
# Gemma 3 with a vision tower; of it only the language model is read.
VISION = "Gemma3ForConditionalGeneration"


def mismatches(config: ModelConfig, family: Family) -> list[str]:
    """What keeps a model from being one of `family`; empty if nothing does."""
    found = []
    for name, plain in _PLAIN.items():
        expected, value = family.features.get(name, plain), getattr(config, name)
        if name == "attention_scale" and math.isclose(config.query_scale, config.head_dim**-0.5):
            continue
        if expected == "?":
            if name == "experts" and value is None:
                found.append("it has no experts")
            square = config.query_scale**-2
            if name == "attention_scale" and not math.isclose(square, round(square)):
                found.append(f"attention_scale is {value}, not one over the root of an integer")
        elif value != expected:
            found.append(f"{name} is {value}, not {expected}")
    local = {config.is_local(layer) for layer in range(config.num_layers)}
    if True in local and (
        family.windows == "none" or (len(local) == 2 and family.windows != "any")
    ):
        found.append(f"attention_pattern is {config.attention_pattern}, not {family.windows}")
    elif "local" in config.attention_pattern and local == {False}:
        found.append("attention_pattern is longer than the model is deep, and no layer is windowed")
    if config.local_rope_theta == 0 and family.model_type == "gemma3_text":
        if config.rope_scaling is not None and True in local:
            found.append(
                "local_rope_theta is 0 with rope_scaling: windowed layers are never scaled"
            )
    if config.activation == "gelu" and family.model_type == "gemma":
        found.append("activation is gelu, not gelu_tanh")
    if config.d_model % config.num_heads and family.model_type in (
        "llama",
        "gemma2",
        "gemma3_text",
    ):
        found.append(f"d_model {config.d_model} is no multiple of num_heads {config.num_heads}")
    return found


def family_of(config: ModelConfig, preferred: str = "") -> Family:
    """The family that a model belongs to, by its config alone.

    Args:
      config: of the model.
      preferred: an architecture that is taken if the model can be one of its kind.

    Raises:
      DataError: if no family can express the model; with the reasons.
    """
    if preferred in FAMILIES and not mismatches(config, FAMILIES[preferred]):
        return FAMILIES[preferred]
    if config.zero_centered_norm or config.post_norms:
        name = "Gemma3" if config.qk_norm else "Gemma2" if config.post_norms else "Gemma"
    elif config.experts is not None:
        name = "Qwen3Moe"
    elif config.qk_norm:
        name = "Qwen3"
    elif config.qkv_bias:
        name = "Qwen2"
    else:
        name = "Mistral" if config.sliding_window else "Llama"
    family = FAMILIES[f"{name}ForCausalLM"]
    if reasons := mismatches(config, family):
        raise DataError(
            "no family of transformers can express this model; the nearest, "
            f"{family.architecture}, cannot because {'; '.join(reasons)}. Supported: "
            f"{', '.join(FAMILIES)}"
        )
    return family


def unscaled(config: ModelConfig) -> ModelConfig:
    """The config of the same model with its embeddings already multiplied by sqrt(D).

    Outside the Gemma family, no published model multiplies them as it reads them. An unchanged head
    then needs a tensor of its own.
    """
    if config.zero_centered_norm or not config.scale_embeddings:
        return config
    return dataclasses.replace(config, scale_embeddings=False, tie_embeddings=False)
