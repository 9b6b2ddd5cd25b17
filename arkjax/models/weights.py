"""Every weight of a model, described before it exists; and fresh ones."""

import dataclasses
import math
import zlib
from collections.abc import Collection

import jax
import jax.numpy as jnp

from arkjax.errors import ConfigError
from arkjax.models.config import PROJECTIONS, Lora, ModelConfig
from arkjax.models.quantized import SCALE, quantized_layout

# The weights of the layers are stacked along a leading axis; their names begin with this.
LAYERS = "layers_"
# End the names of the two factors of a matrix's adapter: A [L, r, *in] and B [L, *out, r].
LORA_A, LORA_B = "_lora_a", "_lora_b"


@dataclasses.dataclass(frozen=True)
class WeightSpec:
    """One weight.

    A weight that multiplies has its output axes before its input axes, as checkpoints in
    safetensors do: reading and writing them then moves bytes and transposes nothing.

    Attributes:
      shape: its shape.
      axes: the logical axis of each dimension, None where it is never sharded.
      inputs: number of its last axes that are summed over; 0 for norm scales and biases.
      fan_in: values are drawn with variance 1 / fan_in; 0 for those that start constant.
      constant: the value that those start with.
      dtype: that it is kept in; of those that `weight_specs` gives, never empty.
    """

    shape: tuple[int, ...]
    axes: tuple[str | None, ...]
    inputs: int = 0
    fan_in: int = 0
    constant: float = 0.0
    dtype: str = ""


def weight_specs(config: ModelConfig) -> dict[str, WeightSpec]:
    """Every weight of the model by name; initial values, shardings and checkpoints derive from it.

    Projections back into the residual stream start smaller by sqrt(2 L), as in GPT-2.
    """
    D, V, L = config.d_model, config.vocab_size, config.num_layers
    specs = {"embedding": WeightSpec((V, D), ("vocab", "embed"), 1, D)}
    for name, spec in (_attention(config) | _feed_forward(config)).items():
        stacked = {"shape": (L, *spec.shape), "axes": ("layers", *spec.axes)}
        specs[LAYERS + name] = dataclasses.replace(spec, **stacked)
    specs["final_norm"] = _norm(config, D)
    if not config.tie_embeddings:
        specs["head"] = WeightSpec((V, D), ("vocab", "embed"), 1, D)
    adapters = _adapters(config.lora, specs) if config.lora else {}
    specs = _quantized(config, specs) | adapters
    return {
        name: dataclasses.replace(spec, dtype=spec.dtype or config.param_dtype)
        for name, spec in specs.items()
    }


def _quantized(config: ModelConfig, specs: dict[str, WeightSpec]) -> dict[str, WeightSpec]:
    """The same weights, with each matrix of a layer in the form that the config says."""
    if config.base_quantization == "none":
        return specs
    made = dict(specs)
    for name in (LAYERS + projection for projection in PROJECTIONS):
        spec = specs[name]
        layout = quantized_layout(spec.shape, spec.inputs, config.base_quantization)
        for key, array in ((name, layout.values), (name + SCALE, layout.scale)):
            made[key] = WeightSpec(array.shape, spec.axes, spec.inputs, dtype=array.dtype.name)
    return made


def _adapters(lora: Lora, specs: dict[str, WeightSpec]) -> dict[str, WeightSpec]:
    """A drawn, B zero: a fresh adapter adds nothing (arXiv 2106.09685, section 4.1).

    Both in fp32, whatever the base is kept in: they are few, and steps would be lost in fewer bits.
    """
    made = {}
    for name in (LAYERS + projection for projection in lora.targets):
        spec = specs[name]
        outputs = slice(1, len(spec.shape) - spec.inputs)
        inputs = slice(len(spec.shape) - spec.inputs, None)
        layers, axis = spec.shape[:1], spec.axes[:1]
        made[name + LORA_A] = WeightSpec(
            (*layers, lora.rank, *spec.shape[inputs]),
            (*axis, None, *spec.axes[inputs]),
            spec.inputs,
            math.prod(spec.shape[inputs]),
            dtype="float32",
        )
        made[name + LORA_B] = WeightSpec(
            (*layers, *spec.shape[outputs], lora.rank),
            (*axis, *spec.axes[outputs], None),
            1,
            dtype="float32",
        )
    return made


def num_parameters(config: ModelConfig) -> int:
    """Number of parameters; a tied head counts once, quantised ones as what they stand for."""
    config = dataclasses.replace(config, base_quantization="none")
    return sum(math.prod(spec.shape) for spec in weight_specs(config).values())


def _norm(config: ModelConfig, width: int) -> WeightSpec:
    return WeightSpec((width,), (None,), constant=0.0 if config.zero_centered_norm else 1.0)


def _attention(config: ModelConfig) -> dict[str, WeightSpec]:
    D, H, K, h = config.d_model, config.num_heads, config.num_kv_heads, config.head_dim
    specs = {
        "attn_norm": _norm(config, D),
        "q": WeightSpec((H, h, D), ("heads", None, "embed"), 1, D),
        "k": WeightSpec((K, h, D), ("kv_heads", None, "embed"), 1, D),
        "v": WeightSpec((K, h, D), ("kv_heads", None, "embed"), 1, D),
        "o": WeightSpec((D, H, h), ("embed", "heads", None), 2, H * h * 2 * config.num_layers),
    }
    if config.qkv_bias:
        specs["q_bias"] = WeightSpec((H, h), ("heads", None))
        specs["k_bias"] = WeightSpec((K, h), ("kv_heads", None))
        specs["v_bias"] = WeightSpec((K, h), ("kv_heads", None))
    if config.qk_norm:
        specs |= {"q_norm": _norm(config, h), "k_norm": _norm(config, h)}
    if config.post_norms:
        specs["attn_post_norm"] = _norm(config, D)
    return specs


def _feed_forward(config: ModelConfig) -> dict[str, WeightSpec]:
    D, F, depth = config.d_model, config.d_ff, 2 * config.num_layers
    specs = {"mlp_norm": _norm(config, D)}
    if config.experts is None:
        specs["gate"] = WeightSpec((F, D), ("mlp", "embed"), 1, D)
        specs["up"] = WeightSpec((F, D), ("mlp", "embed"), 1, D)
        specs["down"] = WeightSpec((D, F), ("embed", "mlp"), 1, F * depth)
    else:
        E = config.experts.number
        specs["router"] = WeightSpec((E, D), (None, "embed"), 1, D)
        specs["gate"] = WeightSpec((E, F, D), ("experts", "mlp", "embed"), 1, D)
        specs["up"] = WeightSpec((E, F, D), ("experts", "mlp", "embed"), 1, D)
        specs["down"] = WeightSpec((E, D, F), ("experts", "embed", "mlp"), 1, F * depth)
    if config.post_norms:
        specs["mlp_post_norm"] = _norm(config, D)
    return specs


def init_weights(
    config: ModelConfig, seed: int | jax.Array, names: Collection[str] | None = None
) -> dict[str, jax.Array]:
    """Fresh weights: each drawn with its own key, so that adding one changes no other.

    Args:
      config: the model's shape.
      seed: of the keys.
      names: make these only; None makes all.

    Raises:
      ConfigError: if one of them is quantised: there is nothing yet that it could stand for.
    """
    key = jax.random.key(seed)
    weights = {}
    for name, spec in weight_specs(config).items():
        if names is not None and name not in names:
            continue
        if not jnp.issubdtype(spec.dtype, jnp.floating):
            raise ConfigError(
                f"model.base_quantization is {config.base_quantization!r}: make the model without "
                "it, then quantise it with `arkjax.models.lora.quantize_model`"
            )
        if spec.fan_in == 0:
            weights[name] = jnp.full(spec.shape, spec.constant, spec.dtype)
            continue
        own = jax.random.fold_in(key, zlib.crc32(name.encode()))
        values = jax.random.truncated_normal(own, -3.0, 3.0, spec.shape, jnp.float32)
        weights[name] = (values * spec.fan_in**-0.5).astype(spec.dtype)
    return weights
