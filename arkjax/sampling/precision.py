"""In what an engine keeps the weights that it reads: as the model has them, or in int8.

A decode step reads every matrix once and does little else, so it takes as long as their bytes take
to arrive. In int8 by qwix each output has a scale of its own, which multiplies the sums (see
`arkjax.models.linear`): the matrices are read as they are kept, those of experts dequantised layer
by layer. Embeddings, head, router, norms, biases and adapters stay as they are, as in
`arkjax.models.lora.quantize_model`.
"""

import dataclasses

import jax
from jax.sharding import NamedSharding, PartitionSpec

from arkjax.errors import ConfigError
from arkjax.models.cache import Precision
from arkjax.models.config import PROJECTIONS, ModelConfig
from arkjax.models.quantized import SCALE, Quantized, check_quantization, quantize
from arkjax.models.transformer import Transformer, Weight, unstacked
from arkjax.models.weights import LAYERS, weight_specs
from arkjax.sampling.engine_config import EngineConfig


def check_precision(config: EngineConfig) -> None:
    """Raise ConfigError if the engine shall keep something in int8 and qwix is not installed."""
    for name in ("cache", "weights"):
        if getattr(config, name) == "int8":
            check_quantization("int8", f"engine.{name}")


def weights_for(model: Transformer, precision: Precision) -> tuple[ModelConfig, dict[str, Weight]]:
    """The weights of a model as an engine reads them: one array for each layer.

    Args:
      model: it is left as it is; what is not quantised is shared, or sliced by layer.
      precision: of the layers' matrices. Each lies where the matrix would lie.

    Returns:
      The model's config, which says how they are kept, and the weights.

    Raises:
      ConfigError: if they shall be in int8 and are in four bits already, or qwix is missing.
    """
    config, weights = model.config, model.arrays()
    if precision == "model" or config.base_quantization == "int8":
        return config, unstacked(weights)
    if config.base_quantization != "none":
        raise ConfigError(
            f"engine.weights is 'int8' and the model's are in {config.base_quantization!r}: leave "
            "engine.weights at 'model', or merge the model with `arkjax.models.lora.merge_lora`"
        )
    specs, made = weight_specs(config), {}
    for name in (LAYERS + projection for projection in PROJECTIONS):
        # Layer by layer, so that beside the model only one of them exists unquantised.
        matrices, inputs = weights.pop(name), specs[name].inputs
        layers = [_in_int8(matrices[i], inputs) for i in range(len(matrices))]
        made[name], made[name + SCALE] = map(tuple, zip(*layers, strict=True))
    return dataclasses.replace(config, base_quantization="int8"), unstacked(weights) | made


def _in_int8(matrix: jax.Array, inputs: int) -> Quantized:
    """A matrix [*out, *in] in int8, where it lies."""
    places = None
    if isinstance(matrix.sharding, NamedSharding):
        mesh, axes = matrix.sharding.mesh, tuple(matrix.sharding.spec)
        # The scale has every axis, but along inputs a single entry.
        scale = PartitionSpec(*axes[: matrix.ndim - inputs])
        places = Quantized(matrix.sharding, NamedSharding(mesh, scale))
    return jax.jit(quantize, static_argnums=(1, 2), out_shardings=places)(matrix, inputs, "int8")
