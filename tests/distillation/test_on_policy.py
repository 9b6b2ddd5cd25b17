"""On-policy distillation: which examples are the student's own, and what their tokens weigh."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arkjax.distillation.objective import Objective
from arkjax.distillation.on_policy import (
    OnPolicyBatch,
    OnPolicyConfig,
    on_policy_loss,
    takes_own,
)
from arkjax.distillation.policy_loss import LossShape
from arkjax.distillation.rows import Batch
from arkjax.distillation.targets import HiddenTarget
from arkjax.errors import ConfigError

B, T, D, V = 3, 6, 8, 20
SHAPE = LossShape(num_answers=3, chunk_size=4)
OBJECTIVE = Objective(cross_entropy=0.4, divergence="reverse_kl", weight=0.6)


@pytest.fixture(scope="module")
def case():
    rng = np.random.default_rng(0)
    hidden, head, theirs, their_head = (
        jnp.asarray(rng.normal(size=size), jnp.float32)
        for size in ((B, T, D), (D, V), (B, T, D), (D, V))
    )
    weights = rng.choice([0.0, 1.0, 2.0], (B, T)).astype(np.float32)
    own = np.broadcast_to(np.array([[True], [False], [True]]), (B, T)) & (weights > 0)
    targets = rng.integers(0, V, (B, T)).astype(np.int32)
    log_q = jax.nn.log_softmax(hidden @ head)
    now = np.asarray(jnp.take_along_axis(log_q, targets[..., None], -1)[..., 0])
    drawn = np.where(own, now - rng.normal(size=(B, T)), 0.0).astype(np.float32)
    zeros = np.zeros((B, T), np.int32)
    target = HiddenTarget(theirs, their_head)
    inputs = OnPolicyBatch(Batch(zeros, zeros, zeros, targets, weights), target, own, drawn)
    return hidden, head, inputs


def dense(hidden, head, inputs, ratio):
    """Cross-entropy where recorded and reverse KL everywhere, of all tokens at once."""
    log_q = jax.nn.log_softmax(hidden @ head)
    log_p = jax.nn.log_softmax(inputs.target.hidden @ inputs.target.head)
    ce = -jnp.take_along_axis(log_q, inputs.batch.targets[..., None], -1)[..., 0]
    kl = jnp.sum(jnp.exp(log_q) * (log_q - log_p), axis=-1)
    each = 0.4 * jnp.where(inputs.own, 0.0, ce) + 0.6 * kl
    return jnp.sum(inputs.batch.weights * ratio * each)


def ours(hidden, head, inputs, config):
    run = jax.value_and_grad(on_policy_loss, argnums=(0, 1), has_aux=True)
    run = jax.jit(run, static_argnums=(3, 4, 5))
    return run(hidden, head, inputs, OBJECTIVE, config, SHAPE)


@pytest.mark.parametrize("cap", [None, 2.0])
def test_own_tokens_have_the_divergence_alone_and_their_truncated_weight(case, cap):
    hidden, head, inputs = case
    ratio = jnp.ones((B, T))
    if cap:
        log_q = jax.nn.log_softmax(hidden @ head)
        now = jnp.take_along_axis(log_q, inputs.batch.targets[..., None], -1)[..., 0]
        ratio = jnp.where(inputs.own, jnp.minimum(jnp.exp(now - inputs.logprobs), cap), 1.0)
        assert (ratio == cap).any() and ((ratio < 1) & inputs.own).any()
    (loss, sums), gradients = ours(hidden, head, inputs, OnPolicyConfig(importance_cap=cap))
    run = jax.value_and_grad(dense, argnums=(0, 1))
    expected, wanted = run(hidden, head, inputs, ratio)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    # No gradient through the weights, which depend on the student as well.
    for a, b in zip(gradients, wanted, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)
    own = np.where(inputs.own, inputs.batch.weights, 0.0)
    np.testing.assert_allclose(sums["own_weight"], own.sum())
    np.testing.assert_allclose(sums["importance"], (own * ratio).sum(), rtol=1e-5)


def test_words_of_own_answers_are_not_learned_by_heart(case):
    """Another word at an own token changes nothing; at a recorded one it does."""
    hidden, head, inputs = case
    (loss, _), _ = ours(hidden, head, inputs, OnPolicyConfig())
    for where, changes in ((inputs.own, False), (~inputs.own & (inputs.batch.weights > 0), True)):
        other = np.where(where, (inputs.batch.targets + 1) % V, inputs.batch.targets)
        moved = inputs._replace(batch=inputs.batch._replace(targets=other.astype(np.int32)))
        (again, _), _ = ours(hidden, head, moved, OnPolicyConfig())
        assert (loss != again) == changes


# --- which examples -----------------------------------------------------------------------------


@pytest.mark.fast
def test_the_share_of_own_answers_is_constant_or_linear():
    assert {OnPolicyConfig(own_share=0.3).share(step, 10) for step in range(10)} == {0.3}
    linear = OnPolicyConfig(own_share=0.2, own_share_end=1.0)
    np.testing.assert_allclose([linear.share(s, 5) for s in range(5)], [0.2, 0.4, 0.6, 0.8, 1.0])
    assert linear.share(0, 1) == 0.2


@pytest.mark.fast
def test_own_examples_are_drawn_with_that_probability():
    drawn = [takes_own(0.3, 0, step, place) for step in range(100) for place in range(20)]
    # Three standard errors of 2,000 draws.
    assert abs(np.mean(drawn) - 0.3) < 3 * (0.21 / 2000) ** 0.5
    assert drawn == [takes_own(0.3, 0, step, place) for step in range(100) for place in range(20)]
    assert drawn != [takes_own(0.3, 1, step, place) for step in range(100) for place in range(20)]
    assert all(takes_own(1.0, 0, 0, i) for i in range(99))
    assert not any(takes_own(0.0, 0, 0, i) for i in range(99))


@pytest.mark.fast
@pytest.mark.parametrize(
    "changes", [{"own_share": 1.5}, {"own_share_end": -0.1}, {"importance_cap": 0.5}]
)
def test_impossible_configs_are_refused_by_name(changes):
    with pytest.raises(ConfigError, match=f"on_policy.{next(iter(changes))} is"):
        OnPolicyConfig(**changes)


@pytest.mark.fast
def test_own_answers_need_a_teacher():
    with pytest.raises(ConfigError, match=r"objective.divergence is 'none'"):
        OnPolicyConfig().check_objective(Objective())
    with pytest.raises(ConfigError, match=r"objective.divergence is 'none'"):
        OnPolicyConfig(own_share=0.0, own_share_end=0.5).check_objective(Objective())
    OnPolicyConfig(own_share=0.0).check_objective(Objective())
    OnPolicyConfig().check_objective(dataclasses.replace(OBJECTIVE, cross_entropy=0.0))
