"""Matrices in eight and four bits, against the definitions of the two forms."""

import math
import os
import re
import sys
from statistics import NormalDist

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arkjax.errors import ConfigError
from arkjax.extras import install
from arkjax.models.quantized import (
    check_quantization,
    dequantize,
    quantize,
    quantize_vectors,
    quantized_layout,
)

# [*out, *in] of q, of o, and of one with blocks shorter than 64; number of input axes.
SHAPES = [((3, 2, 8, 128), 1), ((2, 16, 4, 32), 2), ((2, 4, 24), 1)]


@pytest.fixture(scope="module")
def needs_qwix() -> None:
    """With ARKJAX_PARITY=1 its absence is a failure."""
    if os.environ.get("ARKJAX_PARITY") != "1":
        pytest.importorskip("qwix")


def normal_quantiles() -> np.ndarray:
    """The 16 values of nf4 by their definition (arXiv 2305.14314, appendix E and eq. 4).

    Eight quantiles of the standard normal below zero and nine above, zero once, ends at one; the
    outermost probability is the mean of those that the two halves alone would have.
    """
    last = (2 - 1 / 30 - 1 / 32) / 2
    upper = [NormalDist().inv_cdf(p) for p in np.linspace(0.5, last, 9)]
    lower = [NormalDist().inv_cdf(p) for p in np.linspace(1 - last, 0.5, 8)]
    return np.concatenate([np.array(lower) / -lower[0], np.array(upper[1:]) / upper[-1]])


def weight(shape) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 0.3, shape).astype(np.float32)


@pytest.mark.parametrize(("shape", "inputs"), SHAPES)
def test_int8_is_within_half_a_step_of_each_output_row(needs_qwix, shape, inputs):
    w = weight(shape)
    made = quantize(jnp.asarray(w), inputs, "int8")
    back = np.asarray(dequantize(*made, "int8"))
    step = np.abs(w).max(axis=tuple(range(-inputs, 0)), keepdims=True) / 127.5
    assert (np.abs(back - w) <= 0.5 * step * (1 + 1e-4)).all()
    assert made.values.dtype == jnp.int8 and made.scale.shape == step.shape


def test_a_vector_in_int8_is_within_half_a_step_of_its_own(needs_qwix):
    x = weight((2, 3, 5, 16)) * 10.0 ** np.arange(-2, 3)[:, None].astype(np.float32)
    made = quantize_vectors(jnp.asarray(x))
    assert made.values.dtype == jnp.int8 and made.values.shape == x.shape
    assert made.scale.dtype == jnp.float32
    np.testing.assert_allclose(made.scale, np.abs(x).max(-1) / 127.5, rtol=1e-6)
    back = np.asarray(made.values, np.float32) * np.asarray(made.scale)[..., None]
    assert (np.abs(back - x) <= 0.5 * np.asarray(made.scale)[..., None] * (1 + 1e-4)).all()
    # In half precision too it is one scale in fp32.
    assert quantize_vectors(jnp.asarray(x, jnp.bfloat16)).scale.dtype == jnp.float32
    # Nothing is divided by the scale of a vector of zeros.
    assert not np.asarray(quantize_vectors(jnp.zeros((2, 8))).values).any()


@pytest.mark.parametrize(("shape", "inputs"), SHAPES)
def test_nf4_is_the_nearest_normal_quantile_of_each_block(needs_qwix, shape, inputs):
    w = weight(shape)
    made = quantize(jnp.asarray(w), inputs, "nf4")
    back = np.asarray(dequantize(*made, "nf4"))
    block = math.gcd(shape[-1], 64)
    blocks = w.reshape(*shape[:-1], -1, block)
    # Scales are kept in bfloat16.
    scale = np.asarray(jnp.asarray(np.abs(blocks).max(-1, keepdims=True)).astype(jnp.bfloat16))
    scale = scale.astype(np.float32)
    table = normal_quantiles()
    distances = np.abs((back.reshape(blocks.shape) / scale)[..., None] - table)
    assert distances.min(-1).max() < 1e-4
    exact = np.abs(blocks).max(-1, keepdims=True)
    nearest = table[np.abs((blocks / exact)[..., None] - table).argmin(-1)]
    # A value half-way between two quantiles may fall on either.
    assert (np.abs(nearest * scale - back.reshape(blocks.shape)) < 1e-4).mean() > 0.999
    assert made.values.nbytes * 2 == w.size


@pytest.mark.parametrize("kind", ["int8", "nf4"])
@pytest.mark.parametrize(("shape", "inputs"), SHAPES)
def test_arrays_have_the_described_layout_and_slice_along_any_leading_axis(
    needs_qwix, shape, inputs, kind
):
    made = quantize(jnp.asarray(weight(shape)), inputs, kind)
    layout = quantized_layout(shape, inputs, kind)
    for array, described in zip(made, layout, strict=True):
        assert (array.shape, array.dtype) == (described.shape, described.dtype)
    whole = dequantize(*made, kind)
    part = dequantize(made.values[1], made.scale[1], kind)
    np.testing.assert_array_equal(part, whole[1])


@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_zeros_stay_zero_and_the_largest_value_keeps_its_sign(needs_qwix, kind):
    w = np.zeros((4, 64), np.float32)
    w[1, 5], w[2, 7] = 3.0, -3.0
    back = np.asarray(dequantize(*quantize(jnp.asarray(w), 1, kind), kind))
    assert (back[w == 0] == 0).all()
    # The steps of int8 reach half a step beyond 127.
    np.testing.assert_allclose(back[w != 0], w[w != 0], rtol=4e-3)


def test_a_sharded_matrix_is_dequantised_where_it_lies(needs_qwix):
    """Looking up nf4 gathers nothing: each device makes its own part, and no more."""
    mesh = jax.make_mesh((2, 4), ("a", "b"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    place = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("a", "b"))
    made = quantize(jnp.asarray(weight((16, 512))), 1, "nf4")
    placed = jax.device_put(made, place)
    convert = jax.jit(dequantize, static_argnums=2, out_shardings=place)
    program = convert.lower(*placed, "nf4").compile().as_text()
    for collective in ("all-gather", "all-to-all", "collective-permute", "all-reduce"):
        assert collective not in program
    np.testing.assert_array_equal(convert(*placed, "nf4"), dequantize(*made, "nf4"))


@pytest.mark.fast
def test_an_odd_number_of_inputs_does_not_fit_into_nf4():
    with pytest.raises(ConfigError, match=r"\(4, 9\) has an odd number of inputs; use 'int8'"):
        quantized_layout((4, 9), 1, "nf4")


@pytest.mark.fast
def test_a_missing_qwix_is_named_with_its_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "qwix", None)
    check_quantization("none")
    for call in (
        lambda: check_quantization("nf4"),
        lambda: quantize(jnp.ones((2, 2)), 1, "int8"),
        lambda: dequantize(jnp.ones((2, 2), jnp.int8), jnp.ones((2, 1)), "int8"),
    ):
        with pytest.raises(ConfigError, match=re.escape(install("lora"))) as error:
            call()
        assert "\n" not in str(error.value)
