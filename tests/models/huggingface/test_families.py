"""config.json of published models: read as it is meant, and written so that it reads the same."""

import dataclasses
import json

import pytest

from arkjax.errors import DataError
from arkjax.models.config import Experts, ModelConfig, RopeScaling
from arkjax.models.huggingface.config_json import config_from_hf, config_to_hf, kept_fields
from arkjax.models.huggingface.families import FAMILIES, family_of, unscaled
from arkjax.models.huggingface.tensors import tensors
from arkjax.models.presets import PRESETS

from .checkpoints import FAMILIES as GOLDEN_NAMES
from .checkpoints import GOLDEN, read_folder

pytestmark = pytest.mark.fast


def _read(fields: dict) -> ModelConfig:
    return config_from_hf(json.loads(json.dumps(fields)), "config.json")


_LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 4096,
    "intermediate_size": 14_336,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-5,
    "torch_dtype": "bfloat16",
}
_LLAMA_STRETCH = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
_QWEN3 = {
    "architectures": ["Qwen3ForCausalLM"],
    "hidden_size": 4096,
    "intermediate_size": 12_288,
    "num_attention_heads": 32,
    "num_hidden_layers": 36,
    "num_key_value_heads": 8,
    "max_position_embeddings": 40_960,
    "rope_theta": 1_000_000,
    "rope_scaling": None,
    "torch_dtype": "bfloat16",
}
# What the released files say, defaults that they leave out included.
RELEASED = {
    "llama2_7b": {
        "architectures": ["LlamaForCausalLM"],
        "hidden_act": "silu",
        "hidden_size": 4096,
        "intermediate_size": 11_008,
        "max_position_embeddings": 4096,
        "num_attention_heads": 32,
        "num_hidden_layers": 32,
        "rms_norm_eps": 1e-5,
        "rope_scaling": None,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "vocab_size": 32_000,
    },
    "llama3_1_8b": {
        **_LLAMA,
        "attention_bias": False,
        "mlp_bias": False,
        "pretraining_tp": 1,
        "max_position_embeddings": 131_072,
        "rope_theta": 500_000.0,
        "rope_scaling": {**_LLAMA_STRETCH, "rope_type": "llama3"},
        "vocab_size": 128_256,
    },
    "mistral_7b": {
        **_LLAMA,
        "architectures": ["MistralForCausalLM"],
        "max_position_embeddings": 32_768,
        "rope_theta": 10_000.0,
        "sliding_window": 4096,
        "vocab_size": 32_000,
    },
    "mistral_7b_v0_3": {
        **_LLAMA,
        "architectures": ["MistralForCausalLM"],
        "max_position_embeddings": 32_768,
        "rope_theta": 1_000_000.0,
        "sliding_window": None,
        "vocab_size": 32_768,
    },
    "qwen2_5_0_5b": {
        "architectures": ["Qwen2ForCausalLM"],
        "hidden_size": 896,
        "intermediate_size": 4864,
        "max_position_embeddings": 32_768,
        "max_window_layers": 24,
        "num_attention_heads": 14,
        "num_hidden_layers": 24,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1_000_000.0,
        "sliding_window": 32_768,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "use_sliding_window": False,
        "vocab_size": 151_936,
    },
    "qwen3_8b": {**_QWEN3, "head_dim": 128, "attention_bias": False, "sliding_window": None},
    "qwen3_30b_a3b": {
        **_QWEN3,
        "architectures": ["Qwen3MoeForCausalLM"],
        "decoder_sparse_step": 1,
        "head_dim": 128,
        "hidden_size": 2048,
        "intermediate_size": 6144,
        "mlp_only_layers": [],
        "moe_intermediate_size": 768,
        "norm_topk_prob": True,
        "num_experts": 128,
        "num_experts_per_tok": 8,
        "num_hidden_layers": 48,
        "num_key_value_heads": 4,
    },
    "gemma_2b": {
        "architectures": ["GemmaForCausalLM"],
        "head_dim": 256,
        "hidden_act": "gelu",  # means the approximation
        "hidden_size": 2048,
        "intermediate_size": 16_384,
        "max_position_embeddings": 8192,
        "num_attention_heads": 8,
        "num_hidden_layers": 18,
        "num_key_value_heads": 1,
        "torch_dtype": "bfloat16",
        "vocab_size": 256_000,
    },
    "gemma2_27b": {
        "architectures": ["Gemma2ForCausalLM"],
        "attn_logit_softcapping": 50.0,
        "cache_implementation": "hybrid",
        "final_logit_softcapping": 30.0,
        "head_dim": 128,
        "hidden_act": "gelu_pytorch_tanh",
        "hidden_activation": "gelu_pytorch_tanh",
        "hidden_size": 4608,
        "intermediate_size": 36_864,
        "num_attention_heads": 32,
        "num_hidden_layers": 46,
        "num_key_value_heads": 16,
        "query_pre_attn_scalar": 144,
        "sliding_window": 4096,
        "torch_dtype": "bfloat16",
    },
    "gemma3_1b": {
        "architectures": ["Gemma3ForCausalLM"],
        "attn_logit_softcapping": None,
        "head_dim": 256,
        "hidden_size": 1152,
        "intermediate_size": 6912,
        "max_position_embeddings": 32_768,
        "num_attention_heads": 4,
        "num_hidden_layers": 26,
        "num_key_value_heads": 1,
        "query_pre_attn_scalar": 256,
        "rope_local_base_freq": 10_000,
        "rope_scaling": None,
        "rope_theta": 1_000_000,
        "sliding_window": 512,
        "sliding_window_pattern": 6,
        "torch_dtype": "bfloat16",
        "vocab_size": 262_144,
    },
    "gemma3_4b": {
        "architectures": ["Gemma3ForConditionalGeneration"],
        "eos_token_id": [1, 106],
        "mm_tokens_per_image": 256,
        "text_config": {
            "hidden_size": 2560,
            "intermediate_size": 10_240,
            "model_type": "gemma3_text",
            "num_hidden_layers": 34,
            "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
            "sliding_window": 1024,
        },
        "torch_dtype": "bfloat16",
        "vision_config": {"hidden_size": 1152},
    },
}


@pytest.mark.parametrize("name", RELEASED)
def test_released_files_give_the_published_models(name):
    assert _read(RELEASED[name]) == PRESETS[name]()


@pytest.mark.parametrize("name", PRESETS)
def test_every_published_model_survives_its_config_json(name):
    config = PRESETS[name]()
    assert _read(config_to_hf(config)) == config


@pytest.mark.parametrize("name", GOLDEN_NAMES)
def test_names_and_shapes_are_those_that_transformers_writes(name):
    folder = GOLDEN / name / "checkpoint"
    config = config_from_hf(json.loads((folder / "config.json").read_text()), folder)
    found = {key: values.shape for key, values in read_folder(folder).items()}
    assert {key: place.shape for key, place in tensors(config)} == found


@pytest.mark.parametrize("name", GOLDEN_NAMES)
def test_configs_that_transformers_wrote_are_given_back(name):
    """The words may be older ones; what they say, and all other fields, stay."""
    raw = json.loads((GOLDEN / name / "checkpoint" / "config.json").read_text())
    config, kept = config_from_hf(raw, "a"), kept_fields(raw, "a")
    written = json.loads(json.dumps(config_to_hf(config, raw["architectures"][0], kept)))
    assert config_from_hf(written, "b") == config
    assert kept_fields(written, "b") == kept
    said_otherwise = {"rope_parameters", "dtype", "transformers_version", "num_local_experts"}
    if not config.sliding_window:
        said_otherwise.add("layer_types")
    for field, value in raw.items():
        if field not in said_otherwise and value is not None and field[0] != "_":
            assert written[field] == value, field


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"rope_theta": 5e5}, {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}),
        (
            {"rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 4}},
            {"rope_parameters": {"rope_type": "linear", "rope_theta": 5e5, "factor": 4.0}},
        ),
        (
            {"rope_theta": 5e5, "rope_scaling": {"rope_type": "llama3", **_LLAMA_STRETCH}},
            {"rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5, **_LLAMA_STRETCH}},
        ),
        (
            {"rope_theta": 1e6, "rope_scaling": {"type": "yarn", "factor": 4.0}},
            {
                "rope_parameters": {
                    "rope_type": "yarn",
                    "rope_theta": 1e6,
                    "factor": 4.0,
                    "original_max_position_embeddings": 2048,  # as max_position_embeddings
                }
            },
        ),
    ],
)
def test_old_and_new_words_for_rotary_embeddings_mean_the_same(old, new):
    config = _read(_LLAMA | old)
    assert config == _read(_LLAMA | new)
    assert config.rope_theta == old["rope_theta"]
    assert _read(config_to_hf(config)) == config


def test_gemma_3_says_its_bases_by_kind_of_layer():
    nested = {
        "full_attention": {"rope_type": "linear", "rope_theta": 2e6, "factor": 8.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 2e4},
    }
    old = {"rope_theta": 2e6, "rope_local_base_freq": 2e4}
    old["rope_scaling"] = {"rope_type": "linear", "factor": 8.0}
    gemma = {"architectures": ["Gemma3ForCausalLM"]}
    config = _read(gemma | {"rope_parameters": nested})
    assert config == _read(gemma | old)
    assert (config.rope_theta, config.local_rope_theta) == (2e6, 2e4)
    assert config.rope_scaling == RopeScaling("linear", 8.0)
    nested["sliding_attention"] = {"rope_type": "linear", "factor": 8.0}
    with pytest.raises(DataError, match="windowed"):
        _read(gemma | {"rope_parameters": nested})


def test_yarn_takes_its_factor_from_mscale():
    scaling = {"type": "yarn", "factor": 40.0, "mscale": 1.0, "mscale_all_dim": 0.5}
    config = _read(_LLAMA | {"rope_scaling": scaling})
    # (0.1 ln 40 + 1) / (0.05 ln 40 + 1)
    assert config.rope_scaling.attention_factor == pytest.approx(1.155722, rel=1e-6)
    assert _read(config_to_hf(config)) == config


def test_windows_are_read_in_all_their_words():
    qwen = {"architectures": ["Qwen2ForCausalLM"], "num_hidden_layers": 4, "sliding_window": 7}
    assert _read(qwen).sliding_window == 0
    on = qwen | {"use_sliding_window": True}
    assert _read(on | {"max_window_layers": 1}).attention_pattern == ("global", *["local"] * 3)
    assert _read(on | {"max_window_layers": 4}).sliding_window == 0
    kinds = ["full_attention", "sliding_attention"] * 2
    mixed = _read(on | {"layer_types": kinds})
    assert (mixed.sliding_window, mixed.attention_pattern) == (7, ("global", "local"))
    written = config_to_hf(mixed)
    assert written["layer_types"] == kinds and written["use_sliding_window"] is True
    assert _read(written) == mixed


def test_preferred_architectures_hold_while_they_fit():
    plain = PRESETS["mistral_7b_v0_3"]()
    assert family_of(plain).architecture == "LlamaForCausalLM"
    assert family_of(plain, "MistralForCausalLM").architecture == "MistralForCausalLM"
    biased = dataclasses.replace(plain, qkv_bias=True)
    assert family_of(biased, "MistralForCausalLM").architecture == "Qwen2ForCausalLM"


def test_scaled_embeddings_become_tensors_of_their_own():
    made_here = ModelConfig(48, 32, 2, 4, 2, 8, 64, qk_norm=True)
    fields = config_to_hf(made_here)
    assert fields["architectures"] == ["Qwen3ForCausalLM"]
    assert fields["tie_word_embeddings"] is False
    assert _read(fields) == dataclasses.replace(
        unscaled(made_here), rope_theta=made_here.rope_theta
    )
    assert fields["eos_token_id"] is None  # not the default of some family
    assert unscaled(PRESETS["gemma_2b"]()) == PRESETS["gemma_2b"]()


TINY = ModelConfig(48, 32, 2, 4, 2, 8, 64)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"qk_norm": True, "qkv_bias": True}, "qkv_bias is True, not False"),
        ({"experts": Experts(4, 2)}, "qk_norm is False, not True"),
        ({"logit_soft_cap": 30.0}, "logit_soft_cap"),
        ({"attention_scale": 0.3}, "attention_scale"),
        ({"local_rope_theta": 1e4}, "local_rope_theta"),
        ({"post_norms": True, "scale_embeddings": True}, "zero_centered_norm"),
        ({"zero_centered_norm": True, "scale_embeddings": False}, "scale_embeddings"),
        ({"zero_centered_norm": True, "activation": "gelu"}, "gelu"),
        ({"zero_centered_norm": True, "post_norms": True, "attention_scale": 0.3}, "the root of"),
        ({"sliding_window": 4, "attention_pattern": ("local", "global")}, "attention_pattern"),
        ({"num_heads": 3, "num_kv_heads": 3}, "no multiple of num_heads"),
    ],
)
def test_what_no_family_can_express_is_refused_with_the_reason(changes, reason):
    with pytest.raises(DataError, match=reason) as error:
        config_to_hf(dataclasses.replace(TINY, **changes))
    assert "LlamaForCausalLM" in str(error.value) and "\n" not in str(error.value)


def test_what_is_written_is_what_some_family_can_be():
    """Over many mixtures: refused, or read back as the same model."""
    kept = 0
    for bits in range(2**7):
        names = "zero_centered_norm post_norms qk_norm qkv_bias scale_embeddings".split()
        changes = {name: bool(bits >> i & 1) for i, name in enumerate(names)}
        if bits >> 5 & 1:
            changes |= {"sliding_window": 4, "attention_pattern": ("local", "global")}
        if bits >> 6 & 1:
            changes["attention_soft_cap"] = 20.0
        config = dataclasses.replace(TINY, **changes)
        try:
            fields = config_to_hf(config)
        except DataError:
            continue
        read = _read(fields)
        # Some fields have a form in which they are left out.
        same = {"attention_scale": config.attention_scale, "local_rope_theta": 0.0}
        assert read.query_scale == pytest.approx(config.query_scale, rel=1e-12)
        assert dataclasses.replace(read, **same) == unscaled(config)
        kept += 1
    assert kept > 10


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"architectures": ["GPT2LMHeadModel"]}, "GPT2LMHeadModel.*supported are LlamaForCausalLM"),
        ({"architectures": None, "model_type": "t5"}, "'t5'"),
        ({"architectures": {"a": 1}}, "not supported"),
        ({"attention_bias": True}, "attention_bias"),
        ({"mlp_bias": True}, "mlp_bias"),
        ({"quantization_config": {"quant_method": "awq"}}, "quantization_config.*not quantized"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "'dynamic'.*linear, llama3, yarn"),
        ({"rope_scaling": {"rope_type": ["yarn"]}}, "rope type"),
        ({"rope_scaling": {"type": "linear"}}, "factor.*nothing"),
        ({"rope_scaling": {"type": "linear", "factor": 0.5}}, "factor"),
        ({"rope_scaling": {"type": "yarn", "factor": 2.0, "truncate": False}}, "truncate"),
        ({"rope_scaling": "linear"}, "rope_scaling.*an object"),
        ({"rope_parameters": {"full_attention": {"rope_theta": 1e4}}}, "same for all layers"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ({"hidden_act": "relu"}, "hidden_act.*silu"),
        ({"hidden_act": ["silu"]}, "hidden_act"),
        ({"hidden_size": -4}, "hidden_size.*-4"),
        ({"hidden_size": 1e30}, "hidden_size"),
        ({"hidden_size": "4096"}, "hidden_size"),
        ({"hidden_size": True}, "hidden_size"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers"),
        ({"num_key_value_heads": 5}, "num_kv_heads"),
        ({"head_dim": 7}, "head_dim"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps"),
        ({"rope_theta": float("inf")}, "rope_theta"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings"),
        ({"text_config": [1]}, "text_config"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(changes, said):
    with pytest.raises(DataError, match=said) as error:
        config_from_hf(_LLAMA | changes, "folder/config.json")
    assert "folder/config.json" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("architecture", "changes", "said"),
    [
        ("Qwen3MoeForCausalLM", {"mlp_only_layers": [0]}, "mlp_only_layers"),
        ("Qwen3MoeForCausalLM", {"decoder_sparse_step": 2}, "decoder_sparse_step"),
        ("Qwen3MoeForCausalLM", {"num_experts_per_tok": 200}, "per_token"),
        ("Gemma3ForCausalLM", {"use_bidirectional_attention": True}, "causal"),
        ("Gemma3ForCausalLM", {"layer_types": ["full_attention"]}, "26 times"),
        ("Gemma3ForCausalLM", {"layer_types": 3}, "26 times"),
        ("MistralForCausalLM", {"layer_types": ["full_attention"] * 32}, "everywhere"),
        ("Qwen2ForCausalLM", {"use_sliding_window": True, "max_window_layers": "x"}, "max_window"),
    ],
)
def test_what_a_family_cannot_be_is_refused_by_name(architecture, changes, said):
    with pytest.raises(DataError, match=said):
        _read({"architectures": [architecture], **changes})


def test_every_family_has_a_golden_checkpoint():
    kinds = set()
    for name in GOLDEN_NAMES:
        raw = json.loads((GOLDEN / name / "checkpoint" / "config.json").read_text())
        kinds |= set(raw["architectures"])
    assert kinds == set(FAMILIES)
