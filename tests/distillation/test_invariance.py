"""What must not change the loss: how its tokens are padded, packed, split, or spread."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

from arkjax.distillation.chunked import linear_divergence
from arkjax.distillation.objective import Objective
from arkjax.distillation.rows import batch, pack
from arkjax.distillation.targets import HiddenTarget, MixtureTarget
from arkjax.synthesis.examples import Example

D, V, K = 6, 24, 2
OBJECTIVE = Objective(0.3, "0.5*jsd + 0.5*reverse_kl", 0.7)
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

rng = np.random.default_rng(0)
EXAMPLES = [
    Example(
        tuple(rng.integers(1, V, rng.integers(1, 4)).tolist()),
        tuple(rng.integers(1, V, rng.integers(2, 6)).tolist()),
        float(rng.uniform(0.5, 2.0)),
        {},
    )
    for _ in range(8)
]
TABLE = np.asarray(rng.standard_normal((3, V, 8, D)), np.float32)
HEADS = [jnp.asarray(rng.standard_normal((D, V)), jnp.float32) for _ in range(2)]


def states(side, inputs):
    """A stand-in for a model whose hidden state depends on a token and its position alone."""
    return jnp.asarray(TABLE[side][inputs.tokens, np.minimum(inputs.positions, 7)])


def losses(row_length, mesh=None, kind="live", chunk_size=4):
    """Loss, d head, and d hidden summed over all tokens of the examples in rows of this length."""
    rows = pack(EXAMPLES, row_length)
    count = -(-rows.num_rows // 8) * 8 if mesh is not None else rows.num_rows
    inputs = batch(rows, np.minimum(np.arange(count), rows.num_rows - 1))
    weights = jnp.asarray(inputs.weights).at[rows.num_rows :].set(0.0)
    teacher = states(1, inputs)
    target = HiddenTarget(teacher, HEADS[1])
    if kind != "live":
        both = jnp.stack([teacher, states(2, inputs)], axis=-2)
        share = jnp.broadcast_to(jnp.array([0.3, 0.7]), both.shape[:-1])
        target = MixtureTarget(both, share, HEADS[1], 5.0, kind)
    options = {} if mesh is None else {"mesh": mesh, "token_axes": ("data",)}

    def loss(hidden, head):
        return linear_divergence(
            hidden, head, jnp.asarray(inputs.targets), weights, objective=OBJECTIVE,
            target=target, chunk_size=chunk_size, **options,
        )  # fmt: skip

    run = jit(jax.value_and_grad(loss, (0, 1), has_aux=True))
    (value, aux), (d_hidden, d_head) = run(states(0, inputs), HEADS[0])
    sums = {name: x for name, x in aux.items() if name != "token_losses"}
    return value, sums, d_head, d_hidden.sum((0, 1))


def assert_same(got, want):
    def close(x, y):
        np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-6 * max(1.0, np.abs(y).max()))

    jax.tree.map(close, got, want)


@pytest.mark.parametrize("kind", ["live", "geometric", "arithmetic"])
def test_packing_and_padding(kind):
    one_each = losses(9, kind=kind)
    assert_same(losses(40, kind=kind), one_each)
    assert_same(losses(128, kind=kind, chunk_size=7), one_each)


@pytest.mark.parametrize("devices", [1, 2, 8])
@pytest.mark.parametrize("kind", ["live", "arithmetic"])
def test_number_of_devices(devices, kind):
    mesh = jax.make_mesh((devices,), ("data",), axis_types=(AxisType.Auto,))
    assert_same(losses(16, mesh, kind), losses(16, kind=kind))


@pytest.mark.parametrize("valid", [0, 1])
def test_no_token_and_one_token(valid):
    n = 5
    mask = (jnp.arange(n) < valid).astype(jnp.float32)
    target = HiddenTarget(jnp.ones((n, D)), HEADS[1])

    def loss(hidden, head, mask, n):
        return linear_divergence(
            hidden, head, jnp.zeros(n, jnp.int32), mask, objective=OBJECTIVE,
            target=target.map_tokens(lambda x: x[:n]),
        )[0]  # fmt: skip

    run = jit(jax.value_and_grad(loss, (0, 1)), static_argnums=3)
    hidden = jnp.asarray(TABLE[0, :n, 0])
    value, (d_hidden, d_head) = run(hidden, HEADS[0], mask, n)
    if not valid:
        assert value == 0 and (d_hidden == 0).all() and (d_head == 0).all()
        return
    alone = run(hidden[:1], HEADS[0], jnp.ones(1), 1)
    assert_same((value, (d_hidden[:1], d_head)), alone)
    assert (d_hidden[1:] == 0).all()
