"""Adapters beside a frozen base: added, trained alone, and merged into it.

LoRA (arXiv 2106.09685) and, over a base in four bits, QLoRA (arXiv 2305.14314). Adapters are
weights like all others: `weight_specs` describes them, and placement, initial values, optimizer
state and checkpoints derive from that. The base is kept as it is or quantised by qwix; see
`quantized`.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, Sharding

from arkjax.errors import ConfigError
from arkjax.models.config import PROJECTIONS, Lora, ModelConfig, Quantization
from arkjax.models.linear import dense
from arkjax.models.placement import shardings
from arkjax.models.quantized import SCALE, Quantized, check_quantization, quantize
from arkjax.models.transformer import Transformer
from arkjax.models.weights import LAYERS, LORA_A, LORA_B, init_weights, weight_specs
from arkjax.sharding import ShardingRules

# End the names of what a matrix is kept in.
_PARTS = ("", SCALE, LORA_A, LORA_B)


def trainable(config: ModelConfig) -> frozenset[str]:
    """Names of the weights that training changes: the adapters if there are any, else all.

    Raises:
      ConfigError: if there are none and the base is quantised.
    """
    if config.lora is not None:
        return frozenset(adapter_names(config))
    if config.base_quantization != "none":
        raise ConfigError(
            f"model.base_quantization is {config.base_quantization!r}: quantised weights cannot be "
            "trained; add adapters (model.lora), or keep the base unquantised"
        )
    return frozenset(weight_specs(config))


def add_lora(
    model: Transformer,
    lora: Lora,
    quantization: Quantization = "none",
    seed: int = 0,
    rules: ShardingRules | None = None,
) -> Transformer:
    """The model with fresh adapters, which change nothing yet, over its weights, now frozen.

    Args:
      model: a full model; it is left as it is, and shares what is not quantised.
      lora: rank, scale and targets of the adapters.
      quantization: how the matrices of the layers are kept from now on.
      seed: of the adapters.
      rules: how weights are sharded, where the model lies on a mesh; None takes the default.

    Raises:
      ConfigError: if the model has adapters, or the choices do not fit it, or qwix is missing.
    """
    if model.config.lora is not None:
        raise ConfigError("the model has adapters: merge them with `merge_lora` first")
    dataclasses.replace(model.config, lora=lora)  # Says before any work if they do not fit.
    base = quantize_model(model, quantization, rules)
    config = dataclasses.replace(base.config, lora=lora)
    names, places = adapter_names(config), adapter_places(base, lora, rules)
    make = jax.jit(init_weights, static_argnums=(0, 2), out_shardings=places)
    return Transformer(config, base.arrays() | make(config, seed, names), _mesh(model))


def adapter_names(config: ModelConfig) -> tuple[str, ...]:
    """Names of the two factors of every adapter; none if the config has no adapters."""
    targets = config.lora.targets if config.lora else ()
    return tuple(LAYERS + target + factor for target in targets for factor in (LORA_A, LORA_B))


def adapter_places(
    model: Transformer, lora: Lora, rules: ShardingRules | None = None
) -> dict[str, Sharding]:
    """Where adapters lie that are added to a model; arguments as of `add_lora`."""
    config = dataclasses.replace(model.config, lora=lora)
    places = _places(model, config, rules)
    return {name: places[name] for name in adapter_names(config)}


def quantize_model(
    model: Transformer, kind: Quantization, rules: ShardingRules | None = None
) -> Transformer:
    """The model with the matrices of its layers in few bits; all else is shared with the given one.

    Embeddings, head, router, norms and biases stay as they are, as in QLoRA.

    Args:
      model: an unquantised model without adapters.
      kind: "int8" or "nf4"; "none" gives the model back.
      rules: as in `add_lora`.

    Raises:
      ConfigError: if the model is quantised or has adapters, or qwix is missing.
    """
    if kind == "none":
        return model
    if model.config.base_quantization != "none" or model.config.lora is not None:
        raise ConfigError("the model is quantised or has adapters: undo that with `merge_lora`")
    check_quantization(kind)
    config = dataclasses.replace(model.config, base_quantization=kind)
    places, specs = _places(model, config, rules), weight_specs(model.config)
    weights = model.arrays()
    for name in (LAYERS + projection for projection in PROJECTIONS):
        out = Quantized(places[name], places[name + SCALE])
        convert = jax.jit(_quantize_layers, static_argnums=(1, 2), out_shardings=out)
        weights[name], weights[name + SCALE] = convert(weights[name], specs[name].inputs, kind)
    return Transformer(config, weights, _mesh(model))


def merge_lora(model: Transformer, rules: ShardingRules | None = None) -> Transformer:
    """The full model that a model with adapters, or over a quantised base, acts as.

    Each matrix becomes W + (alpha / r) B A, summed in fp32 and rounded once to the dtype of W. Over
    a quantised base W is what the quantised matrix stands for, which the adapters learned beside,
    and its dtype the config's `param_dtype`.

    Args:
      model: it is left as it is; weights that do not change are shared.
      rules: as in `add_lora`.
    """
    config = dataclasses.replace(model.config, lora=None, base_quantization="none")
    places, weights = _places(model, config, rules), model.arrays()
    merged = {}
    for name in weight_specs(config):
        # Under one name, so that matrices of one shape share one program.
        kept = {part: weights[name + part] for part in _PARTS if name + part in weights}
        merged[name] = weights[name]
        if len(kept) > 1:
            merge = jax.jit(_merge_layers, static_argnums=0, out_shardings=places[name])
            merged[name] = merge(model.config, kept)
    return Transformer(config, merged, _mesh(model))


# Both work layer by layer, so that fp32 copies exist of one layer only.
def _quantize_layers(weight: jax.Array, inputs: int, kind: Quantization) -> Quantized:
    return jax.lax.map(lambda layer: quantize(layer, inputs, kind), weight)


def _merge_layers(config: ModelConfig, kept: dict[str, jax.Array]) -> jax.Array:
    def merge(layer: dict[str, jax.Array]) -> jax.Array:
        dtype = config.param_dtype if SCALE in layer else layer[""].dtype
        weight = dense(layer, "", config).astype(jnp.float32)
        if LORA_A in layer:
            change = jnp.tensordot(
                layer[LORA_B], layer[LORA_A], 1, precision=jax.lax.Precision.HIGHEST
            )
            weight = weight + config.lora.scale * change
        return weight.astype(dtype)

    return jax.lax.map(merge, kept)


def _mesh(model: Transformer) -> Mesh | None:
    place = model.arrays()["embedding"].sharding
    return place.mesh if isinstance(place, NamedSharding) else None


def _places(
    model: Transformer, config: ModelConfig, rules: ShardingRules | None
) -> dict[str, Sharding]:
    """Where the weights of `config` lie, beside those of the model."""
    mesh = _mesh(model)
    if mesh is None:
        return dict.fromkeys(weight_specs(config), model.arrays()["embedding"].sharding)
    return shardings(config, mesh, rules or ShardingRules())
