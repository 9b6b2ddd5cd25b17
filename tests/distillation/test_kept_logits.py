"""Logits of 16-bit hidden states, which are kept in 16 bits, against those that never are."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arkjax.distillation.chunked import linear_divergence, linear_logprobs
from arkjax.distillation.objective import DIVERGENCES, Objective
from arkjax.distillation.targets import HiddenTarget, MixtureTarget, SampledTarget, TapeTarget

N, D, V, REAL, K = 48, 64, 160, 150, 3
# The others jump: where both sides are equal, and where a token comes into half of the mass.
SMOOTH = [name for name in DIVERGENCES if name not in ("tvd", "adaptive_kl")]

jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def normal(seed, *shape, scale=1.0, dtype=jnp.bfloat16):
    values = scale * np.random.default_rng(seed).standard_normal(shape)
    return jnp.asarray(values, jnp.float32).astype(dtype)


def tokens(dtype=jnp.bfloat16, scale=0.6):
    """Logits of a standard deviation of 5 and more: the greatest are about 15."""
    return {
        "hidden": normal(1, N, D, dtype=dtype),
        "head": normal(2, D, V, scale=scale, dtype=dtype),
        "labels": jnp.asarray(np.random.default_rng(3).integers(0, REAL, N), jnp.int32),
        "mask": jnp.ones(N).at[::5].set(0.0),
    }


def make_target(kind, dtype=jnp.bfloat16):
    head = normal(4, D, V, scale=0.6, dtype=dtype)
    hidden = normal(5, N, D, dtype=dtype)
    match kind:
        case "none":
            return None
        case "live":
            return HiddenTarget(hidden, head)
        case "near":
            student = tokens(dtype)
            near = student["hidden"] + normal(6, N, D, scale=0.02, dtype=dtype)
            return HiddenTarget(near, student["head"])
        case "tape":
            scores = jit(functools.partial(linear_logprobs, top_k=4, vocab_size=REAL))(
                hidden.astype(jnp.float32), head.astype(jnp.float32), jnp.zeros(N, jnp.int32)
            )
            return TapeTarget(scores.top_ids, scores.top_logprobs, scores.log_tail)
        case "sampled":
            ids = np.stack([np.random.default_rng(i).permutation(REAL)[:4] for i in range(N)])
            ids[:, 3] = ids[:, 0]  # of an unused slot, whose id may be another's
            weights = jnp.tile(jnp.asarray([0.5, 0.25, 0.25, 0.0]), (N, 1))
            return SampledTarget(jnp.asarray(ids, jnp.int32), weights)
    weights = jnp.asarray(np.random.default_rng(7).dirichlet(np.ones(K), N), jnp.float32)
    return MixtureTarget(normal(8, N, K, D, dtype=dtype), weights, head, mixture=kind)


@functools.partial(jit, static_argnames=("objective", "soft_cap"))
def grads(hidden, head, labels, mask, target=None, **options):
    def loss(hidden, head):
        return linear_divergence(
            hidden, head, labels, mask, target=target, vocab_size=REAL, chunk_size=16, **options
        )

    return jax.value_and_grad(loss, (0, 1), has_aux=True)(hidden, head)


def wide(tree):
    """The same numbers in float32, where nothing is rounded on the way."""

    def widen(x):
        return x.astype(jnp.float32) if jnp.issubdtype(x.dtype, jnp.floating) else x

    return jax.tree.map(widen, tree)


def assert_close(inputs, target, objective, loss_error, **options):
    (loss, aux), found = grads(**inputs, target=target, objective=objective, **options)
    (want, want_aux), wanted = grads(
        **wide(inputs), target=wide(target), objective=objective, **options
    )
    np.testing.assert_allclose(loss, want, rtol=loss_error)
    scale = np.abs(want_aux["token_losses"]).max()
    np.testing.assert_allclose(
        aux["token_losses"], want_aux["token_losses"], atol=5 * loss_error * scale
    )
    for got, expected in zip(found, wanted, strict=True):
        # A token's gradient is rounded to hidden's dtype before the products, which is 8 bits here.
        np.testing.assert_allclose(
            got.astype(jnp.float32), expected, atol=0.012 * np.abs(expected).max()
        )


@pytest.mark.parametrize("name", SMOOTH)
@pytest.mark.parametrize("kind", ["live", "near", "geometric", "arithmetic"])
def test_losses_and_gradients_are_those_of_unrounded_logits(name, kind):
    objective = Objective(0.3, name, 0.7, kd_temperature=2.0 if kind == "arithmetic" else 1.0)
    assert_close(tokens(), make_target(kind), objective, 1e-3)


@pytest.mark.parametrize("name", ["tvd", "adaptive_kl"])
def test_divergences_that_jump_are_right_at_nearly_all_tokens(name):
    inputs, target, objective = tokens(), make_target("live"), Objective(0.0, name)
    (loss, aux), (d_hidden, _) = grads(**inputs, target=target, objective=objective)
    (want, want_aux), (wanted, _) = grads(**wide(inputs), target=wide(target), objective=objective)
    np.testing.assert_allclose(loss, want, rtol=1e-3)
    assert np.abs(aux["token_losses"] - want_aux["token_losses"]).max() < 0.01 * want / N * 5
    wrong = np.abs(d_hidden.astype(jnp.float32) - wanted).max(-1) > 0.02 * np.abs(wanted).max()
    assert wrong.sum() <= 2


@pytest.mark.parametrize("kind", ["none", "tape", "sampled"])
def test_labels_tapes_and_draws_as_well(kind):
    objective = Objective(0.3, "none" if kind == "none" else "forward_kl", 0.7)
    assert_close(tokens(), make_target(kind), objective, 1e-3)


@pytest.mark.parametrize("kind", ["live", "tape", "sampled"])
def test_under_a_soft_cap(kind):
    inputs, target = tokens(scale=2.0), make_target(kind)
    assert_close(inputs, target, Objective(0.3, "forward_kl", 0.7), 1e-3, soft_cap=30.0)


def test_a_small_divergence_keeps_its_digits():
    # Rounded without a base, or to bfloat16, the logits would move these by several percent.
    inputs, target = tokens(), make_target("near")
    inputs = {**inputs, "hidden": inputs["hidden"] * 4}
    target = dataclasses.replace(
        target, hidden=inputs["hidden"] + normal(9, N, D, scale=0.005).astype(jnp.bfloat16)
    )
    objective = Objective(0.0, "forward_kl")
    (_, aux), _ = grads(**inputs, target=target, objective=objective)
    (_, want), _ = grads(**wide(inputs), target=wide(target), objective=objective)
    found, wanted = (np.asarray(a["token_losses"]) for a in (aux, want))
    valid = np.asarray(inputs["mask"]) > 0
    assert np.median(wanted[valid]) < 0.05
    np.testing.assert_allclose(found, wanted, rtol=0.02, atol=1e-5)


def test_equal_distributions_have_no_divergence():
    inputs = tokens()
    target = HiddenTarget(inputs["hidden"], inputs["head"])
    for name in SMOOTH:
        (loss, _), found = grads(**inputs, target=target, objective=Objective(0.0, name))
        assert abs(loss) < 1e-6 * N
        # Products of another shape may differ in their last bit, and round to a neighbour.
        assert all(np.abs(g.astype(jnp.float32)).max() < 1e-3 for g in found)


@pytest.mark.parametrize("kind", ["live", "tape", "arithmetic"])
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_logits_beyond_float16_saturate(kind, dtype):
    inputs, target = tokens(dtype), make_target(kind, dtype)
    inputs["hidden"] = inputs["hidden"].at[0].set(3e4)
    if kind == "live":
        target = dataclasses.replace(target, hidden=target.hidden.at[1].set(-3e4))
    objective = Objective(0.5, "jsd", 0.5)
    (loss, aux), found = grads(**inputs, target=target, objective=objective)
    assert np.isfinite(loss) and np.isfinite(aux["token_losses"]).all()
    # The gradient of the head may overflow in float16 itself: its sum has 3e4 in it.
    assert np.isfinite(found[0].astype(jnp.float32)).all()
    # Tokens beside them are what they were.
    (_, want), _ = grads(**wide(inputs), target=wide(target), objective=objective)
    np.testing.assert_allclose(aux["token_losses"][2:], want["token_losses"][2:], atol=0.02)


def test_a_context_mixture_of_nothing_leaves_the_labels_alone():
    # A token whose gate is shut: no context has a share, and its cross-entropy is exact still.
    inputs, target = tokens(), make_target("arithmetic")
    shut = jnp.zeros(N)
    target = dataclasses.replace(target, weights=jnp.zeros((N, K)), gate=shut)
    assert_close(inputs, target, Objective(0.5, "forward_kl", 0.5), 1e-3)
