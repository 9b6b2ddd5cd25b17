"""Self-attention, in every implementation, against its formula and gradient written in float64."""

import dataclasses
import functools
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params
from jax.sharding import NamedSharding, PartitionSpec

from arkjax.errors import ConfigError
from arkjax.models.attention import attend, packed_mask
from arkjax.models.blockwise import blockwise_attention
from arkjax.models.cudnn import cudnn_attention
from arkjax.models.self_attention import (
    BLOCKWISE_FROM,
    choice_for,
    on_each_device,
    self_attention,
)
from arkjax.models.splash import splash_attention
from arkjax.sharding import BATCH_AXES, MeshConfig, make_mesh

# fp32: sums of a few hundred products of numbers around one, in another order than in float64.
TOLERANCE = 3e-5


@dataclasses.dataclass(frozen=True)
class Case:
    """Lengths of the segments of each row, what is left is padding; and the shape of heads."""

    rows: tuple[tuple[int, ...], ...]
    length: int
    heads: int
    kv_heads: int
    head_dim: int
    window: int = 0
    soft_cap: float = 0.0

    @property
    def segments(self) -> np.ndarray:
        ids = np.zeros((len(self.rows), self.length), np.int32)
        for row, lengths in zip(ids, self.rows, strict=True):
            ends = np.cumsum(lengths)
            for number, (size, end) in enumerate(zip(lengths, ends, strict=True), start=1):
                row[end - size : end] = number
        return ids

    @property
    def settings(self) -> dict[str, float]:
        return {
            "scale": 1.3 * self.head_dim**-0.5,
            "window": self.window,
            "soft_cap": self.soft_cap,
        }

    def arrays(self, dtype=np.float32) -> tuple[np.ndarray, ...]:
        """q, k, v and a cotangent that is zero at padding."""
        rng = np.random.default_rng(0)
        B, T, h = len(self.rows), self.length, self.head_dim
        shapes = [(B, T, heads, h) for heads in (self.heads, self.kv_heads, self.kv_heads)]
        arrays = [rng.normal(size=shape).astype(dtype) for shape in (*shapes, shapes[0])]
        arrays[3] *= (self.segments > 0)[:, :, None, None]
        return tuple(arrays)


CASES = {
    "whole rows": Case(((200,), (200,)), 200, heads=3, kv_heads=3, head_dim=8),
    "packed": Case(((60, 200), (1, 128, 130)), 300, heads=4, kv_heads=2, head_dim=16),
    "all padding": Case(((140,), ()), 140, heads=4, kv_heads=1, head_dim=64),
    "padded, window within a block": Case(
        ((300,), (129,)), 300, heads=2, kv_heads=1, head_dim=16, window=33
    ),
    "packed, window over segments and blocks, soft cap": Case(
        ((100, 250, 10), (360,)), 400, heads=4, kv_heads=2, head_dim=16, window=150, soft_cap=2.0
    ),
    "wide heads, soft cap": Case(
        ((250,), (256,)), 256, heads=2, kv_heads=1, head_dim=256, window=129, soft_cap=5.0
    ),
    "heads of 128, large blocks": Case(((400, 350),), 760, heads=2, kv_heads=2, head_dim=128),
    "a window of one": Case(((70, 30),), 128, heads=2, kv_heads=2, head_dim=8, window=1),
}


def dense_attention(q, k, v, segment_ids, *, scale, window=0, soft_cap=0.0):
    mask = packed_mask(segment_ids, window)
    return attend(q, k.swapaxes(1, 2), v.swapaxes(1, 2), mask, scale=scale, soft_cap=soft_cap)


# Blocks of 64 divide none of the lengths that are not multiples of them; the choice of Splash's own
# blocks is part of it. cuDNN's part is played by JAX's plain form, which takes the same arguments.
FORMS = {
    "dense": dense_attention,
    "blockwise": functools.partial(blockwise_attention, block=64),
    "splash": functools.partial(splash_attention, interpret=True),
    "cudnn": functools.partial(cudnn_attention, kernel="xla"),
}


def reference(case: Case, q, k, v, cotangent) -> tuple[np.ndarray, ...]:
    """Output and gradients in float64; what padding gets is left zero."""
    q, k, v, cotangent = (x.astype(np.float64) for x in (q, k, v, cotangent))
    scale, window, cap = case.settings.values()
    out, dq, dk, dv = (np.zeros(x.shape) for x in (q, q, k, v))
    for b, head in itertools.product(range(len(case.rows)), range(case.heads)):
        shared, end = head // (case.heads // case.kv_heads), 0
        for size in case.rows[b]:
            at, end = slice(end, end + size), end + size
            queries, dout = q[b, at, head], cotangent[b, at, head]
            keys, values = k[b, at, shared], v[b, at, shared]
            scores, slope = scale * queries @ keys.T, 1.0
            if cap:
                scores = cap * np.tanh(scores / cap)
                slope = 1 - (scores / cap) ** 2
            distance = np.arange(size)[:, None] - np.arange(size)[None, :]
            seen = (distance >= 0) & ((distance < window) | (window == 0))
            weights = np.where(seen, np.exp(scores), 0)
            weights /= weights.sum(axis=1, keepdims=True)
            out[b, at, head] = weights @ values
            dweights = dout @ values.T
            mean = (weights * dweights).sum(axis=1, keepdims=True)
            dscores = weights * (dweights - mean) * slope * scale
            dq[b, at, head] = dscores @ keys
            dk[b, at, shared] += dscores.T @ queries
            dv[b, at, shared] += weights.T @ dout
    return out, dq, dk, dv


@functools.partial(jax.jit, static_argnums=(0, 1))
def with_gradients(form, settings, q, k, v, segments, cotangent):
    """Output and gradients with respect to q, k and v."""
    out, pull = jax.vjp(lambda q, k, v: form(q, k, v, segments, **dict(settings)), q, k, v)
    return out, *pull(cotangent)


def computed(form, settings: dict[str, float], *arrays) -> list[np.ndarray]:
    return [np.asarray(x) for x in with_gradients(form, tuple(settings.items()), *arrays)]


# One of packed rows, which go blockwise, and two of rows in one piece, which go to the kernel.
FOR_CUDNN = ("packed", "all padding", "padded, window within a block")


@pytest.mark.parametrize(
    "form, name", [(f, n) for f in FORMS for n in CASES if f != "cudnn" or n in FOR_CUDNN]
)
def test_equals_the_formula_and_its_gradient(form, name):
    case = CASES[name]
    settings = case.settings
    if form == "cudnn":
        del settings["soft_cap"]
    q, k, v, cotangent = case.arrays()
    out, *gradients = computed(FORMS[form], settings, q, k, v, case.segments, cotangent)
    expected, *expected_gradients = reference(case, q, k, v, cotangent)
    real = case.segments > 0
    np.testing.assert_allclose(out[real], expected[real], atol=TOLERANCE)
    assert np.isfinite(out).all()
    for gradient, right in zip(gradients, expected_gradients, strict=True):
        np.testing.assert_allclose(gradient, right, atol=TOLERANCE)
        assert not gradient[~real].any()


@pytest.mark.parametrize("form", FORMS)
def test_padding_reaches_no_token(form):
    """Bit by bit: whatever stands at padding."""
    case = CASES["padded, window within a block"]
    settings = case.settings
    if form == "cudnn":
        del settings["soft_cap"]
    q, k, v, cotangent = case.arrays()
    real = case.segments > 0
    junk = [np.where(real[:, :, None, None], x, np.float32(40)) for x in (q, k, v)]
    first = computed(FORMS[form], settings, q, k, v, case.segments, cotangent)
    second = computed(FORMS[form], settings, *junk, case.segments, cotangent)
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a[real], b[real])


@pytest.mark.fast
def test_short_rows_are_computed_as_they_were_in_one_piece():
    case = CASES["packed"]
    q, k, v, _ = case.arrays()
    settings = case.settings
    ours = self_attention(q, k, v, case.segments, **settings)
    np.testing.assert_array_equal(ours, dense_attention(q, k, v, case.segments, **settings))
    assert case.length < BLOCKWISE_FROM


# --- numbers of 16 bits ---------------------------------------------------------------------------


def test_gradients_summed_over_many_blocks_stay_as_exact_in_bfloat16():
    """Against fp32 on the same rounded numbers: no worse than in one piece, within a tenth."""
    case = Case(((1024,),), 1024, heads=4, kv_heads=1, head_dim=16)
    arrays = [x.astype(jnp.bfloat16) for x in case.arrays()]
    segments, settings = case.segments, case.settings
    exact = reference(case, *arrays)
    errors = {}
    for form in ("dense", "blockwise"):
        q, k, v, cotangent = arrays
        found = computed(FORMS[form], settings, q, k, v, segments, cotangent)
        errors[form] = [
            np.sqrt(((a.astype(np.float64) - b) ** 2).mean() / (b**2).mean())
            for a, b in zip(found, exact, strict=True)
        ]
    # Half a unit in the last place of eight bits is 2e-3; two or three roundings meet.
    assert max(errors["dense"]) < 8e-3
    for blockwise, dense in zip(errors["blockwise"], errors["dense"], strict=True):
        assert blockwise < 1.1 * dense


# --- memory ---------------------------------------------------------------------------------------


def shapes_in(jaxpr) -> set[tuple[int, ...]]:
    """Shapes of all arrays in a program and in the programs that it calls."""
    shapes = set()
    for equation in jaxpr.eqns:
        shapes |= {getattr(x.aval, "shape", ()) for x in (*equation.invars, *equation.outvars)}
        for inner in jaxprs_in_params(equation.params):
            shapes |= shapes_in(inner)
    return shapes


def gradient_program(form, length: int, window: int):
    """A traced gradient, with two query heads of 16 on one key head."""
    q = jax.ShapeDtypeStruct((1, length, 2, 16), jnp.float32)
    k = jax.ShapeDtypeStruct((1, length, 1, 16), jnp.float32)
    segments = jax.ShapeDtypeStruct((1, length), jnp.int32)

    def loss(q, k, v, segments):
        return form(q, k, v, segments, scale=0.25, window=window).sum()

    return jax.jit(jax.grad(loss, argnums=(0, 1, 2))).trace(q, k, k, segments)


LONG = 4096


@pytest.mark.parametrize("window", [0, 300])
def test_long_rows_keep_nothing_of_their_square(window):
    form = functools.partial(self_attention, implementation="xla")
    traced = gradient_program(form, LONG, window)
    shapes = shapes_in(traced.jaxpr.jaxpr)
    # A quarter of the keys meets the first quarter of the queries at once, but never all of them.
    assert max(sum(size >= LONG // 4 for size in shape) for shape in shapes) == 1
    temporary = traced.lower().compile().memory_analysis().temp_size_in_bytes
    square = 2 * LONG * LONG * 4
    assert temporary < square / 3
    # The measure itself: the dense form holds the square, in the program and in memory.
    dense = gradient_program(dense_attention, LONG, window)
    assert any(shape[-2:] == (LONG, LONG) for shape in shapes_in(dense.jaxpr.jaxpr))


@pytest.mark.parametrize("window, reads", [(64, 1), (65, 1), (66, 2), (1, 0)])
def test_a_block_reads_only_the_blocks_in_reach_of_its_window(window, reads):
    """A value that is not a number spoils every block that reads it, though no query sees it."""
    case = Case(((320,),), 320, heads=1, kv_heads=1, head_dim=8, window=window)
    q, k, v, _ = case.arrays()
    v[:, :64] = np.nan
    out = np.asarray(FORMS["blockwise"](q, k, v, case.segments, **case.settings))
    spoilt = np.isnan(out[0, :, 0, 0]).reshape(5, 64).any(axis=1)
    np.testing.assert_array_equal(spoilt, np.arange(5) <= reads)


# --- on a mesh ------------------------------------------------------------------------------------


def on(mesh, arrays):
    """Rows over the batch axes, heads over "tensor"; segment ids have no heads."""
    specs = {2: PartitionSpec(BATCH_AXES), 4: PartitionSpec(BATCH_AXES, None, "tensor")}
    return [jax.device_put(x, NamedSharding(mesh, specs[x.ndim])) for x in arrays]


SPREAD = Case(((60, 60), (100,), (120,), (1, 110)), 120, heads=4, kv_heads=2, head_dim=8, window=40)


@pytest.mark.parametrize("implementation", ["splash", "xla", "blockwise"])
def test_eight_devices_compute_what_one_does(implementation):
    mesh = make_mesh(MeshConfig(2, 2, 2))
    q, k, v, cotangent = SPREAD.arrays()
    if implementation == "blockwise":
        form = spread = FORMS["blockwise"]
    else:
        form = functools.partial(self_attention, implementation=implementation)
        spread = functools.partial(form, mesh=mesh)
    alone = computed(form, SPREAD.settings, q, k, v, SPREAD.segments, cotangent)
    arrays = on(mesh, (q, k, v, SPREAD.segments, cotangent))
    together = computed(spread, SPREAD.settings, *arrays)
    for a, b in zip(together, alone, strict=True):
        # fp32; a device's products have other shapes than those of all heads at once.
        np.testing.assert_allclose(a, b, atol=2e-6)


def test_devices_need_nothing_of_each_other():
    mesh = make_mesh(MeshConfig(2, 2, 2))
    q, k, v, cotangent = SPREAD.arrays()
    arrays = on(mesh, (q, k, v, SPREAD.segments, cotangent))
    settings = tuple(SPREAD.settings.items())
    splash = functools.partial(self_attention, implementation="splash", mesh=mesh)
    for form in (FORMS["blockwise"], splash):
        text = with_gradients.lower(form, settings, *arrays).compile().as_text()
        assert not [word for word in ("all-gather(", "all-reduce(", "all-to-all(") if word in text]


def test_rows_or_heads_that_do_not_spread_are_refused_and_auto_goes_on():
    mesh = make_mesh(MeshConfig(1, 4, 2))
    q, k, v, _ = SPREAD.arrays()
    asked = functools.partial(self_attention, implementation="splash", scale=1.0, mesh=mesh)
    with pytest.raises(ConfigError, match="model.attention.*3 rows.*4 devices"):
        asked(q[:3], k[:3], v[:3], SPREAD.segments[:3])
    with pytest.raises(ConfigError, match="model.num_kv_heads is 1.*2 devices of mesh.tensor"):
        asked(q, k[:, :, :1], v[:, :, :1], SPREAD.segments)
    found = self_attention(q[:3], k[:3], v[:3], SPREAD.segments[:3], **SPREAD.settings, mesh=mesh)
    assert np.isfinite(found).all()


# --- cuDNN, as far as it can be followed without a GPU --------------------------------------------


@pytest.fixture
def cudnn(monkeypatch):
    """No cuDNN is here to be asked for its version."""
    from jax._src.cudnn import fused_attention_stablehlo

    monkeypatch.setattr(fused_attention_stablehlo, "check_cudnn_version", lambda: 91000)


@pytest.mark.parametrize("window", [0, 1024])
@pytest.mark.parametrize("sizes", [None, (2, 2, 2)])
def test_cudnn_is_called_for_both_directions_and_no_square_is_kept(cudnn, sizes, window):
    mesh = sizes and make_mesh(MeshConfig(*sizes))
    kernel = functools.partial(cudnn_attention, scale=0.125, window=window)
    q = jax.ShapeDtypeStruct((4, LONG, 4, 64), jnp.bfloat16)
    k = jax.ShapeDtypeStruct((4, LONG, 2, 64), jnp.bfloat16)
    segments = jax.ShapeDtypeStruct((4, LONG), jnp.int32)

    def loss(*arrays):
        return on_each_device(kernel, mesh)(*arrays).astype(jnp.float32).sum()

    traced = jax.jit(jax.grad(loss, argnums=(0, 1, 2))).trace(q, k, k, segments)
    text = traced.lower(lowering_platforms=("cuda",)).as_text()
    targets = set(re.findall(r"__cudnn\$\w+", text))
    assert targets == {"__cudnn$fmhaSoftmax", "__cudnn$fmhaSoftmaxBackward"}
    # As cuDNN counts: the token itself and those before it.
    assert f"sliding_window_length\\22: {window}" in text
    assert "PADDING_CAUSAL" in text
    shapes = shapes_in(traced.jaxpr.jaxpr)
    assert max(sum(size >= LONG // 4 for size in shape) for shape in shapes) == 1


def test_the_backward_pass_is_handed_one_copy_of_everything(cudnn):
    """A branch not taken makes room all the same for what it would keep."""
    q, k = np.zeros((2, 512, 4, 64), jnp.bfloat16), np.zeros((2, 512, 2, 64), jnp.bfloat16)
    segments = np.ones((2, 512), np.int32)

    def kept(form):
        form = functools.partial(form, segment_ids=segments, scale=0.125)
        pull = jax.eval_shape(lambda *arrays: jax.vjp(form, *arrays)[1], q, k, k)
        return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(pull))

    arguments, log_sums, few = q.nbytes + 2 * k.nbytes, 2 * 512 * 4 * 4, 16 * segments.nbytes
    assert kept(blockwise_attention) < arguments + few
    assert kept(cudnn_attention) < arguments + q.nbytes + log_sums + few


@pytest.mark.fast
def test_auto_takes_the_plain_form_on_cpu():
    q, k, _, _ = SPREAD.arrays()
    choice = choice_for(q, k, soft_cap=0.0, implementation="auto", mesh=None)
    assert choice.implementation == "xla" and "cpu" in choice.reason
