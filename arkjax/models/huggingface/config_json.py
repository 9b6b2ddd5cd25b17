"""`config.json` of a published checkpoint, and `ModelConfig`: each from the other."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from arkjax.errors import ConfigError, DataError
from arkjax.models.config import Dtype, Experts, ModelConfig
from arkjax.models.huggingface.families import FAMILIES, VISION, Family, family_of, unscaled
from arkjax.models.huggingface.fields import GLOBAL, LOCAL, Fields
from arkjax.models.huggingface.rope_fields import rope_from_hf, rope_scaling_to_hf

_ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
}
_ACTIVATION_NAMES = {"silu": "silu", "gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh"}
# What config.json says in other words, of its file alone, or of what is left out.
_NOT_KEPT = frozenset(
    "transformers_version dtype auto_map rope_parameters layer_types sliding_window_pattern "
    "cache_implementation quantization_config num_local_experts text_config vision_config "
    "mm_tokens_per_image boi_token_index eoi_token_index image_token_index".split()
)
_MOST_LAYERS = 4096


def language_fields(config: Mapping[str, Any], source: str) -> dict[str, Any]:
    """The fields of config.json that describe the language model.

    Raises:
      DataError: if there is a vision model and the language model is not described.
    """
    if "text_config" not in config:
        return dict(config)
    text = config["text_config"]
    if not isinstance(text, dict):
        raise DataError(f"{source}: text_config is not an object; download it again")
    ids = {name: value for name, value in config.items() if name.endswith("_token_id")}
    return {**config, **text, **ids}


def architecture_of(config: Mapping[str, Any], source: str) -> str:
    """The one architecture that config.json names.

    Raises:
      DataError: if it is none that is supported.
    """
    named = config.get("architectures")
    if not named:
        kinds = {family.model_type: name for name, family in FAMILIES.items()} | {"gemma3": VISION}
        named = [kinds.get(str(config.get("model_type")), config.get("model_type"))]
    found = named[0] if isinstance(named, list) and len(named) == 1 else named
    if found not in (*FAMILIES, VISION):
        raise DataError(
            f"{source}: architecture {str(found)[:100]!r} is not supported; supported are "
            f"{', '.join((*FAMILIES, VISION))}"
        )
    return found


def config_from_hf(config: Mapping[str, Any], source: str | Path) -> ModelConfig:
    """The model that a config.json describes; a model of 16 bits computes in bfloat16.

    Args:
      config: the parsed file, old or new: `rope_theta` and `rope_scaling`, or `rope_parameters`.
      source: its path, for messages.

    Raises:
      DataError: if the architecture, or something that the file asks for, is not supported, or a
        field is not what it should be.
    """
    source = str(source)
    architecture = architecture_of(config, source)
    family = FAMILIES["Gemma3ForCausalLM" if architecture == VISION else architecture]
    fields = Fields(source, language_fields(config, source), family)
    _refuse_unsupported(fields)
    heads = fields.integer("num_attention_heads")
    width = fields.integer("hidden_size")
    layers = fields.integer("num_hidden_layers", _MOST_LAYERS)
    theta, scaling, local_theta = rope_from_hf(fields)
    window, pattern = _windows(fields, layers)
    param_dtype = _dtype(fields.values)
    more: dict[str, Any] = {name: value for name, value in family.features.items() if value != "?"}
    more.setdefault("scale_embeddings", False)
    if "num_experts" in family.defaults:
        more["experts"] = _experts(fields)
    if "attention_scale" in family.features:
        more["attention_scale"] = fields.number("query_pre_attn_scalar") ** -0.5
        for name in ("attn_logit_softcapping", "final_logit_softcapping"):
            ours = "attention_soft_cap" if name.startswith("attn") else "logit_soft_cap"
            more[ours] = 0.0 if fields.get(name) is None else fields.number(name)
    try:
        return ModelConfig(
            vocab_size=fields.integer("vocab_size"),
            d_model=width,
            num_layers=layers,
            num_heads=heads,
            num_kv_heads=heads
            if fields.get("num_key_value_heads") is None
            else fields.integer("num_key_value_heads"),
            head_dim=width // heads
            if fields.get("head_dim") is None
            else fields.integer("head_dim"),
            d_ff=fields.integer(
                "moe_intermediate_size" if "experts" in more else "intermediate_size"
            ),
            rope_theta=theta,
            rope_scaling=scaling,
            local_rope_theta=local_theta,
            sliding_window=window,
            attention_pattern=pattern,
            norm_eps=fields.number("rms_norm_eps"),
            activation=_activation(fields),
            tie_embeddings=fields.flag("tie_word_embeddings"),
            max_context=fields.integer("max_position_embeddings"),
            dtype="float32" if param_dtype == "float32" else "bfloat16",
            param_dtype=param_dtype,
            **more,
        )
    except ConfigError as error:
        raise DataError(f"{source}: {error}") from error


def _refuse_unsupported(fields: Fields) -> None:
    remedies = {
        "quantization_config": "take the checkpoint that is not quantized",
        "attention_bias": "biases are supported in Qwen2ForCausalLM alone",
        "mlp_bias": "feed-forward layers have no biases here",
        "use_bidirectional_attention": "only causal attention is supported",
        "mlp_only_layers": "layers with and without experts cannot be mixed",
    }
    for name, remedy in remedies.items():
        if fields.values.get(name):
            value = str(fields.values[name])[:100]
            raise DataError(f"{fields.source}: {name} {value} is not supported: {remedy}")
    if fields.values.get("decoder_sparse_step", 1) != 1:
        step = str(fields.values["decoder_sparse_step"])[:100]
        raise DataError(
            f"{fields.source}: decoder_sparse_step {step} is not supported: layers with and "
            "without experts cannot be mixed"
        )


def _dtype(values: Mapping[str, Any]) -> Dtype:
    """What the file says of its tensors' dtype; they themselves know better."""
    name = str(values.get("dtype") or values.get("torch_dtype")).removeprefix("torch.")
    return name if name in get_args(Dtype) else "float32"


def _experts(fields: Fields) -> Experts:
    try:
        return Experts(
            number=fields.integer(
                "num_local_experts" if "num_local_experts" in fields.values else "num_experts",
                100_000,
            ),
            per_token=fields.integer("num_experts_per_tok"),
            normalize=fields.flag("norm_topk_prob"),
        )
    except ConfigError as error:
        raise DataError(f"{fields.source}: {error}") from error


def _activation(fields: Fields) -> str:
    name = "hidden_act"
    if "hidden_activation" in fields.family.defaults:
        # Gemma 1 was released with "gelu" in hidden_act, which means its approximation.
        legacy = fields.family.model_type == "gemma" and "hidden_activation" not in fields.values
        name = "hidden_act" if legacy and "hidden_act" in fields.values else "hidden_activation"
        if fields.get(name) in (None, "gelu") and fields.family.model_type == "gemma":
            return "gelu_tanh"
    if str(fields.get(name)) not in _ACTIVATIONS:
        raise fields.wrong(name, f"one of {', '.join(_ACTIVATIONS)}")
    return _ACTIVATIONS[fields.get(name)]


def _windows(fields: Fields, layers: int) -> tuple[int, tuple[str, ...]]:
    """The window and the repeating pattern of windowed layers."""
    off = "use_sliding_window" in fields.family.defaults and not fields.flag("use_sliding_window")
    if off or fields.family.windows == "none" or fields.get("sliding_window") is None:
        return 0, ("global",)
    window = fields.integer("sliding_window")
    kinds = fields.values.get("layer_types")
    named = {LOCAL: "local", GLOBAL: "global"}
    if kinds is not None:
        if not isinstance(kinds, list) or len(kinds) != layers or set(map(str, kinds)) - set(named):
            raise fields.wrong("layer_types", f"{layers} times {GLOBAL} or {LOCAL}")
        if fields.family.windows == "none or all" and set(kinds) != {LOCAL}:
            raise fields.wrong("layer_types", f"{LOCAL} everywhere, as there is a sliding_window")
        pattern = _shortest([named[kind] for kind in kinds])
    elif fields.family.windows == "none or all":
        pattern = ("local",)
    elif "sliding_window_pattern" in fields.family.defaults:
        period = fields.integer("sliding_window_pattern")
        pattern = _shortest(["global" if (i + 1) % period == 0 else "local" for i in range(layers)])
    else:
        first = fields.get("max_window_layers")
        if type(first) is not int or first < 0:
            raise fields.wrong("max_window_layers", "the number of layers without a window")
        pattern = _shortest(["local" if i >= first else "global" for i in range(layers)])
    return (window, pattern) if "local" in pattern else (0, ("global",))


def _shortest(kinds: Sequence[str]) -> tuple[str, ...]:
    """The shortest pattern whose repetition begins with `kinds`."""
    period = 1
    while any(kind != kinds[i % period] for i, kind in enumerate(kinds)):
        period += 1
    return tuple(kinds[:period])


def kept_fields(config: Mapping[str, Any], source: str | Path) -> dict[str, Any]:
    """The fields of a config.json that say nothing about the model's shape, such as token ids.

    `config_to_hf` gives them back.
    """
    source = str(source)
    model = config_from_hf(config, source)
    fields = language_fields(config, source)
    written = _shape_fields(model, family_of(model, architecture_of(config, source)))
    known = _NOT_KEPT | written.keys()
    return {n: value for n, value in fields.items() if n not in known and not n.startswith("_")}


def config_to_hf(
    config: ModelConfig, preferred: str = "", kept: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The config.json of a model, in the fields that every version of transformers reads.

    Args:
      config: of the model.
      preferred: an architecture that is taken if the model can be one of its kind.
      kept: further fields, of `kept_fields`; None if the model comes from no published one, whose
        token ids are then left open.

    Raises:
      DataError: if no family can express the model.
    """
    config = unscaled(config)
    family = family_of(config, preferred)
    if kept is None:
        kept = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    if config.experts is not None:
        # Of layers without experts, which there are none of; transformers wants a number.
        kept = {"intermediate_size": config.d_ff * config.experts.per_token, **kept}
    return {**kept, **_shape_fields(config, family)}


def _shape_fields(config: ModelConfig, family: Family) -> dict[str, Any]:
    """The fields that a `ModelConfig` decides."""
    written: dict[str, Any] = {
        "architectures": [family.architecture],
        "model_type": family.model_type,
        "torch_dtype": config.param_dtype,
        "vocab_size": config.vocab_size,
        "hidden_size": config.d_model,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "hidden_act": _ACTIVATION_NAMES[config.activation],
        "max_position_embeddings": config.max_context,
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,
        "rope_scaling": rope_scaling_to_hf(config.rope_scaling),
        "tie_word_embeddings": config.tie_embeddings,
    }
    if "hidden_activation" in family.defaults:
        written["hidden_activation"] = written["hidden_act"]
    if config.experts is None:
        written["intermediate_size"] = config.d_ff
    else:
        written |= {
            "moe_intermediate_size": config.d_ff,
            "num_experts": config.experts.number,
            "num_experts_per_tok": config.experts.per_token,
            "norm_topk_prob": config.experts.normalize,
            "decoder_sparse_step": 1,
            "mlp_only_layers": [],
        }
    if "attention_scale" in family.features:
        written |= {
            "query_pre_attn_scalar": round(config.query_scale**-2),
            "attn_logit_softcapping": config.attention_soft_cap or None,
            "final_logit_softcapping": config.logit_soft_cap or None,
        }
    if "local_rope_theta" in family.features:
        written["rope_local_base_freq"] = config.local_rope_theta or config.rope_theta
    return written | _window_fields(config, family)


def _window_fields(config: ModelConfig, family: Family) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if "use_sliding_window" in family.defaults:
        fields["use_sliding_window"] = config.sliding_window > 0
    if config.sliding_window:
        fields["sliding_window"] = config.sliding_window
    elif family.model_type == "mistral":
        fields["sliding_window"] = None
    elif "sliding_window_pattern" in family.defaults:
        # transformers wants a number even where no layer is windowed.
        fields["sliding_window"] = config.max_context
    if family.windows != "any" or not fields.get("sliding_window"):
        return fields
    kinds = [config.is_local(i) for i in range(config.num_layers)]
    fields["layer_types"] = [LOCAL if local else GLOBAL for local in kinds]
    # Older versions read these instead.
    if "max_window_layers" in family.defaults:
        if kinds == sorted(kinds):
            fields["max_window_layers"] = kinds.count(False)
    elif kinds == [bool((i + 1) % len(config.attention_pattern)) for i in range(len(kinds))]:
        fields["sliding_window_pattern"] = len(config.attention_pattern)
    return fields
