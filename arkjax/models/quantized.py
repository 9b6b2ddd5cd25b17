"""Frozen matrices in eight or four bits, and cached vectors in eight: quantised by qwix.

qwix could also rewrite a model: it intercepts the products inside a module and puts quantised
arrays in the place of its parameters. This model scans over stacked weights held in one flat dict,
and placement, storage and optimizer derive from the description of that dict, so only the arrays'
own functions are used here, `qwix.quantize` and `qwix.dequantize` (calibration, rounding, the nf4
table), and a quantised matrix is two plain entries of the dict that a scan can slice:

- "layers_q": the values, int8, or uint8 that holds two values of nf4 (Orbax stores no uint4);
- "layers_q_scale": what they are multiplied by.

Both keep the leading axis of layers and all others, so each lies where the matrix would lie. In
a cache they are one `Quantized` in the place of an array.

- int8: one fp32 scale for each output, as the sums over inputs want (arXiv 2208.07339).
- nf4: sixteen quantiles of a normal distribution, one scale for each block of 64 inputs (QLoRA,
  arXiv 2305.14314, section 3 and appendix E). The scales are bfloat16: 4.25 bits a weight, where
  the paper quantises its scales a second time and reaches 4.127.
- vectors in int8: one fp32 scale for each, so that one that is stored changes no other.
"""

import math
from types import ModuleType
from typing import NamedTuple

import jax
import jax.numpy as jnp

from arkjax.errors import ConfigError
from arkjax.extras import install
from arkjax.models.config import Quantization

# Ends the name of the scales of a quantised matrix.
SCALE = "_scale"
_BLOCK = 64


class Quantized(NamedTuple):
    """Values and scales of a matrix or of vectors: arrays, or their shapes and dtypes."""

    values: jax.Array | jax.ShapeDtypeStruct
    scale: jax.Array | jax.ShapeDtypeStruct


def quantized_layout(shape: tuple[int, ...], inputs: int, kind: Quantization) -> Quantized:
    """Shapes and dtypes in which a weight [*out, *in] is kept.

    Args:
      shape: of the weight, with or without axes in front.
      inputs: number of input axes.
      kind: "int8" or "nf4".

    Raises:
      ConfigError: if the last axis is odd: nf4 has two values a byte.
    """
    *rest, width = shape
    if kind == "int8":
        scale = (*shape[: len(shape) - inputs], *(1,) * inputs)
        return Quantized(
            jax.ShapeDtypeStruct(shape, jnp.int8), jax.ShapeDtypeStruct(scale, jnp.float32)
        )
    if width % 2:
        raise ConfigError(
            f"model.base_quantization is 'nf4', which keeps two values a byte: a weight {shape} "
            "has an odd number of inputs; use 'int8'"
        )
    return Quantized(
        jax.ShapeDtypeStruct((*rest, width // 2), jnp.uint8),
        jax.ShapeDtypeStruct((*rest, width // math.gcd(width, _BLOCK)), jnp.bfloat16),
    )


def quantize(weight: jax.Array, inputs: int, kind: Quantization) -> Quantized:
    """A weight [*out, *in] in few bits, laid out as `quantized_layout` says.

    Raises:
      ConfigError: if qwix is not installed.
    """
    qwix, weight = _qwix(kind), weight.astype(jnp.float32)
    if kind == "int8":
        outputs = tuple(range(weight.ndim - inputs))
        made = qwix.quantize(weight, jnp.int8, channelwise_axes=outputs)
        return Quantized(made.qvalue, made.scale)
    block = math.gcd(weight.shape[-1], _BLOCK)

    def row(values: jax.Array) -> Quantized:
        made = qwix.quantize(values, "nf4", tiled_axes={0: block}, scale_dtype=jnp.bfloat16)
        low, high = made.qvalue.astype(jnp.uint8).reshape(-1, 2).T
        return Quantized(low | (high << 4), made.scale)

    return _each_row(row, weight.ndim - 1)(weight)


def dequantize(values: jax.Array, scale: jax.Array, kind: Quantization) -> jax.Array:
    """The weight [*out, *in] in fp32 that the two arrays stand for.

    Raises:
      ConfigError: if qwix is not installed.
    """
    qwix, scale = _qwix(kind), scale.astype(jnp.float32)
    if kind == "int8":
        return qwix.dequantize(qwix.QArray(values, scale))

    def row(values: jax.Array, scale: jax.Array) -> jax.Array:
        pairs = jnp.stack([values & 15, values >> 4], axis=-1)
        return qwix.dequantize(qwix.QArray(pairs.reshape(-1).astype(jnp.uint4), scale, qtype="nf4"))

    return _each_row(row, values.ndim - 1)(values, scale)


def quantize_vectors(x: jax.Array) -> Quantized:
    """Vectors [..., h] in int8, each with a scale of its own.

    A vector v becomes round(v / s) with s = max |v| / 127.5; what it stands for is s times that.

    Returns:
      Values [..., h] int8 and scales [...] fp32.

    Raises:
      ConfigError: if qwix is not installed.
    """
    qwix = _qwix("int8", "a cache")
    made = qwix.quantize(x.astype(jnp.float32), jnp.int8, channelwise_axes=tuple(range(x.ndim - 1)))
    return Quantized(made.qvalue, made.scale[..., 0])


def check_quantization(kind: Quantization, what: str = "weights") -> None:
    """Raise ConfigError if `what` cannot be kept in this form because qwix is not installed."""
    if kind != "none":
        _qwix(kind, what)


def _each_row(function, axes: int):
    """`function` of vectors, mapped over the axes before the last.

    qwix flattens arrays to look up the values of nf4. A whole matrix that is sharded would be
    gathered for that on every device; a vector is flat.
    """
    for _ in range(axes):
        function = jax.vmap(function)
    return function


def _qwix(kind: Quantization, what: str = "weights") -> ModuleType:
    try:
        import qwix
    except ImportError as error:
        raise ConfigError(
            f"{what} in {kind!r} takes the package qwix, which cannot be imported ({error}): "
            f"{install('lora')}"
        ) from error
    return qwix
