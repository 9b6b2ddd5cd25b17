"""Products with the matrices of a layer, however those are kept and whatever is added to them."""

import math
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from arkjax.models.config import ModelConfig
from arkjax.models.quantized import SCALE, dequantize
from arkjax.models.weights import LORA_A, LORA_B

# With no more rows than this the weight is the larger operand, and comes first: 1.2 times faster
# for the 32 rows of a decode step on CPU. Elsewhere the compiler orders operands itself.
_FEW_ROWS = 64


def linear(
    x: jax.Array, layer: Mapping[str, jax.Array], name: str, config: ModelConfig, inputs: int = 1
) -> jax.Array:
    """x [..., *in] times the weight `name` [*out, *in], plus what its adapter and bias add.

    An adapter adds (alpha / r) B A x (arXiv 2106.09685, eq. 3).

    Args:
      x: its last `inputs` axes are summed over.
      layer: weights of one layer by name.
      name: of the weight.
      config: says how the weight is kept and how adapters are scaled.
      inputs: number of input axes.

    Returns:
      [..., *out] in the dtype of x.
    """

    def times_weight(x: jax.Array, kept: dict[str, jax.Array]) -> jax.Array:
        if config.base_quantization == "int8":
            # One scale an output: it multiplies the sums, and no matrix is dequantised.
            outputs = kept[name + SCALE].shape[:-inputs]
            scale = kept[name + SCALE].reshape((1,) * (x.ndim - inputs) + outputs)
            return (product(x, kept[name], inputs, jnp.float32) * scale).astype(x.dtype)
        return product(x, dense(kept, name, config), inputs)

    y = frozen(times_weight, config)(x, kept(layer, name))
    if name + LORA_A in layer:
        low = product(x, layer[name + LORA_A], inputs) * config.lora.scale
        y = y + product(low, layer[name + LORA_B], 1)
    bias = layer.get(f"{name}_bias")
    if bias is None:
        return y
    return y + bias.astype(x.dtype).reshape((1,) * (x.ndim - inputs) + bias.shape)


def kept(layer: Mapping[str, jax.Array], *names: str) -> dict[str, jax.Array]:
    """The arrays that weights of a layer are kept in: themselves, or values and scales."""
    arrays = (array for name in names for array in (name, name + SCALE))
    return {array: layer[array] for array in arrays if array in layer}


def dense(layer: Mapping[str, jax.Array], name: str, config: ModelConfig) -> jax.Array:
    """The weight `name` of a layer as a floating-point matrix."""
    if name + SCALE not in layer:
        return layer[name]
    return dequantize(layer[name], layer[name + SCALE], config.base_quantization)


def frozen(function: Callable, config: ModelConfig) -> Callable:
    """`function` of activations and frozen weights, for training beside adapters.

    Its gradient needs the weights once more, cast or dequantised. The scan over layers would keep
    them so from the forward pass on, a second copy of all layers; they are made again instead.
    """
    return function if config.lora is None else jax.checkpoint(function)


def product(
    x: jax.Array, weight: jax.Array, inputs: int, dtype: DTypeLike | None = None
) -> jax.Array:
    """x [..., *in] times a weight [*out, *in], computed in the dtype of x, as [..., *out]."""
    rows, outputs = x.shape[: x.ndim - inputs], weight.shape[: weight.ndim - inputs]
    # As two matrices: with more axes XLA for CPU transposes the weight first, each time it is used.
    matrix = weight.astype(x.dtype).reshape(math.prod(outputs), -1)
    x = x.reshape(*rows, matrix.shape[1])
    summed = (x.ndim - 1,), (1,)
    if math.prod(rows) > _FEW_ROWS:
        y = jax.lax.dot_general(x, matrix, (summed, ((), ())), preferred_element_type=dtype)
    else:
        y = jax.lax.dot_general(matrix, x, (summed[::-1], ((), ())), preferred_element_type=dtype)
        y = jnp.moveaxis(y, 0, -1)
    return y.reshape(*rows, *outputs)
