"""The policy loss against its formulas, dense and in float64, differentiated as they stand."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arkjax.distillation.grpo import VARIANTS, GRPOConfig, token_shares
from arkjax.distillation.policy_loss import (
    LossShape,
    PolicyBatch,
    importance_weights,
    kl_estimate,
    policy_loss,
    token_logprobs,
)
from arkjax.distillation.rows import Batch
from arkjax.distillation.targets import HiddenTarget
from arkjax.errors import ConfigError

B, T, D, V, N = 4, 10, 8, 24, 7
MAX_TOKENS = 6
SHAPE = LossShape(num_answers=N, chunk_size=8)
PLAIN = GRPOConfig(process_weight=0.0)


def _case(aggregation="token", kept=(True,) * N, seed=0, spread=0.4):
    """Answers of 1 to 6 tokens, one or two a row, whose ratios lie on both sides of every clip."""
    rng = np.random.default_rng(seed)
    hidden, head = rng.normal(size=(B, T, D)), rng.normal(size=(D, V))
    theirs = HiddenTarget(
        jnp.asarray(hidden + 0.3 * rng.normal(size=hidden.shape), jnp.float32),
        jnp.asarray(head + 0.1 * rng.normal(size=head.shape), jnp.float32),
    )
    targets = rng.integers(0, V, (B, T)).astype(np.int32)
    lengths = [6, 1, 2, 4, 3, 5, 2]
    answers = np.full((B, T), N, np.int32)
    places = iter([(row, column) for row in range(B) for column in (1, 8 - row)])
    for i, length in enumerate(lengths):
        row, column = next(places)
        answers[row, column : column + min(length, T - column)] = i
    lengths = [int((answers == i).sum()) for i in range(N)]
    assert min(lengths) >= 1 and len(set(lengths)) > 3
    shares = np.array([*token_shares(aggregation, lengths, kept, MAX_TOKENS), 0.0])[answers]
    log_q = hidden @ head
    log_q -= np.log(np.exp(log_q).sum(-1, keepdims=True))
    now = np.take_along_axis(log_q, targets[..., None], -1)[..., 0]
    zeros = np.zeros((B, T), np.int32)
    inputs = PolicyBatch(
        Batch(zeros, zeros, zeros, targets, shares.astype(np.float32)),
        rng.normal(size=(B, T)).astype(np.float32),
        (now - spread * rng.normal(size=(B, T))).astype(np.float32),
        answers,
        theirs,
    )
    return jnp.asarray(hidden, jnp.float32), jnp.asarray(head, jnp.float32), inputs


def _textbook(
    hidden, head, inputs: PolicyBatch, config: GRPOConfig, temperature=1.0, per_token=True
):
    """-sum share min(rho A, clip(rho) A) + beta sum share KL, dense."""
    share, answers = inputs.batch.weights, inputs.answers
    log_q = jax.nn.log_softmax(hidden @ head / temperature)
    labels = inputs.batch.targets[..., None]
    logprobs = jnp.take_along_axis(log_q, labels, -1)[..., 0]
    log_ratio = jnp.where(share > 0, logprobs - inputs.logprobs, 0.0)
    if config.ratio == "sequence":
        of = [jnp.where(answers == i, 1.0, 0.0) for i in range(N)]
        means = [jnp.sum(log_ratio * one) / one.sum() for one in of]
        log_ratio = sum(mean * one for mean, one in zip(means, of, strict=True))
    rho, gain = jnp.exp(log_ratio), inputs.advantages
    if config.ratio == "sequence" and per_token:
        # GSPO-token: advantages that differ within an answer move their own tokens.
        fixed = jax.lax.stop_gradient(logprobs)
        rho = jax.lax.stop_gradient(rho) * jnp.exp(logprobs - fixed)
    clipped = jnp.clip(rho, 1 - config.clip_low, 1 + config.clip_high)
    loss = -jnp.sum(share * jnp.minimum(rho * gain, clipped * gain))
    if config.kl_coefficient:
        theirs = inputs.reference
        log_p = jax.nn.log_softmax(theirs.hidden @ theirs.head / temperature)
        p_label = jnp.take_along_axis(log_p, labels, -1)[..., 0]
        kl = {
            "exact": jnp.sum(jnp.exp(log_q) * (log_q - log_p), axis=-1),
            "k2": 0.5 * (logprobs - p_label) ** 2,
            "k3": jnp.exp(p_label - logprobs) - (p_label - logprobs) - 1,
        }[config.kl]
        loss += config.kl_coefficient * jnp.sum(share * kl)
    return loss


def _dense(hidden, head, inputs, config, *more):
    """Value and gradients of the textbook formula in float64."""
    with jax.enable_x64(True):
        wide = jax.tree.map(
            lambda x: jnp.asarray(np.asarray(x), jnp.float64 if x.dtype == jnp.float32 else None),
            (hidden, head, inputs),
        )
        run = jax.value_and_grad(_textbook, argnums=(0, 1))
        return jax.tree.map(np.asarray, run(*wide, config, *more))


_gradients = jax.jit(
    jax.value_and_grad(policy_loss, argnums=(0, 1), has_aux=True), static_argnums=(3, 4)
)


def _now(hidden, head, inputs):
    """Log-probabilities of the answers' tokens."""
    valid = jnp.asarray(inputs.batch.weights > 0)
    return np.asarray(
        token_logprobs(hidden, head, jnp.asarray(inputs.batch.targets), valid, SHAPE)[0]
    )


def _ours(hidden, head, inputs, config, shape=SHAPE):
    (loss, sums), gradients = _gradients(hidden, head, inputs, config, shape)
    return loss, gradients, sums


CONFIGS = {
    **VARIANTS,
    "exact": dataclasses.replace(PLAIN, kl_coefficient=0.3),
    "k2": dataclasses.replace(PLAIN, kl_coefficient=0.3, kl="k2", aggregation="constant"),
    "wide": dataclasses.replace(PLAIN, clip_low=1.0, clip_high=1e6),
    "gspo_wide": dataclasses.replace(VARIANTS["gspo"], clip_low=0.1, clip_high=0.1),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_value_and_gradient_are_those_of_the_formula(name):
    config = CONFIGS[name]
    hidden, head, inputs = _case(config.aggregation)
    loss, gradients, sums = _ours(hidden, head, inputs, config)
    expected, dense = _dense(hidden, head, inputs, config)
    # fp32 against fp64; the ratios' exponentials amplify the rounding of the log-probabilities.
    np.testing.assert_allclose(loss, expected, rtol=2e-5, atol=2e-6)
    for got, wanted in zip(gradients, dense, strict=True):
        assert np.abs(wanted).max() > 1e-3
        np.testing.assert_allclose(got, wanted, rtol=0, atol=2e-5 * max(1, np.abs(wanted).max()))
    clipped = float(sums["clipped"])
    assert clipped == 0 if name == "wide" else 0 < clipped < float(sums["tokens"])


@pytest.mark.parametrize("name", ["gspo", "gspo_wide"])
def test_one_advantage_an_answer_is_plain_gspo(name):
    """Differentiated through the geometric mean, as its eq. 5 stands."""
    hidden, head, inputs = _case("sequence")
    of_answer = np.random.default_rng(4).normal(size=N + 1).astype(np.float32)
    inputs = inputs._replace(advantages=of_answer[inputs.answers])
    _, gradients, _ = _ours(hidden, head, inputs, CONFIGS[name])
    _, dense = _dense(hidden, head, inputs, CONFIGS[name], 1.0, False)
    for got, wanted in zip(gradients, dense, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=0, atol=2e-5)


def test_finite_differences_agree():
    """The reference is differentiated by hand as well, where no clip changes sides."""
    hidden, head, inputs = _case()
    config = dataclasses.replace(PLAIN, kl_coefficient=0.5)
    direction = np.random.default_rng(1).normal(size=hidden.shape)
    _, (d_hidden, _), _ = _ours(hidden, head, inputs, config)
    with jax.enable_x64(True):
        wide = [jnp.asarray(np.asarray(x), jnp.float64) for x in (hidden, head)]
        up, down = (
            _textbook(wide[0] + s * direction, wide[1], inputs, config) for s in (1e-6, -1e-6)
        )
        slope = float(up - down) / 2e-6
    np.testing.assert_allclose(float((d_hidden * direction).sum()), slope, rtol=1e-4)


def test_the_kl_has_a_live_gradient():
    """A KL that is stored and added up without one changes the loss and trains nothing."""
    for kl in ("exact", "k2", "k3"):
        hidden, head, inputs = _case()
        still = inputs._replace(advantages=np.zeros_like(inputs.advantages))
        none, one, two = (
            _ours(hidden, head, still, dataclasses.replace(PLAIN, kl=kl, kl_coefficient=beta))[1]
            for beta in (0.0, 0.1, 0.2)
        )
        for zero, a, b in zip(none, one, two, strict=True):
            assert not np.asarray(zero).any()
            assert np.abs(a).max() > 1e-3
            np.testing.assert_allclose(2 * np.asarray(a), b, atol=1e-6)


def test_another_temperature_is_that_of_the_sampler():
    hidden, head, inputs = _case()
    config = dataclasses.replace(PLAIN, kl_coefficient=0.2)
    shape = SHAPE._replace(temperature=0.7)
    now = _now(hidden / 0.7, head, inputs)
    inputs = inputs._replace(logprobs=now + 0.05)
    loss, gradients, _ = _ours(hidden, head, inputs, config, shape)
    expected, dense = _dense(hidden, head, inputs, config, 0.7)
    np.testing.assert_allclose(loss, expected, rtol=1e-4)
    for got, wanted in zip(gradients, dense, strict=True):
        np.testing.assert_allclose(got, wanted, atol=1e-4)
    with pytest.raises(ConfigError, match=r"temperature is 0.7, .* soft-caps"):
        policy_loss(hidden, head, inputs, config, shape._replace(soft_cap=30.0))


def test_an_importance_cap_bounds_what_becomes_rarer():
    hidden, head, inputs = _case(spread=2.0)
    inputs = inputs._replace(advantages=-np.abs(inputs.advantages))
    free, capped = (
        _ours(hidden, head, inputs, dataclasses.replace(PLAIN, importance_cap=cap))
        for cap in (None, 2.0)
    )
    assert float(capped[2]["objective"]) > float(free[2]["objective"])
    # As if those tokens had been drawn at half their probability, and no clip were there.
    now = _now(hidden, head, inputs)
    ratio = np.exp(now - inputs.logprobs)
    counts = np.where(ratio < 0.8, 0.0, np.minimum(ratio, 2.0)) * inputs.advantages

    def weighted(hidden):
        log_q = jax.nn.log_softmax(hidden @ head)
        chosen = jnp.take_along_axis(log_q, inputs.batch.targets[..., None], -1)[..., 0]
        return -jnp.sum(inputs.batch.weights * counts * chosen)

    np.testing.assert_allclose(capped[1][0], jax.grad(weighted)(hidden), atol=1e-5)


def test_nothing_outside_the_answers_counts():
    """Prompts, padding and answers that are left out: any word, any advantage, even NaN."""
    config = dataclasses.replace(PLAIN, kl_coefficient=0.2)
    hidden, head, inputs = _case(kept=[True, False, True, True, False, True, True])
    loss, gradients, _ = _ours(hidden, head, inputs, config)
    out = inputs.batch.weights == 0
    rng = np.random.default_rng(3)
    reference = dataclasses.replace(
        inputs.reference,
        hidden=jnp.where(out[..., None], jnp.nan, inputs.reference.hidden),
    )
    noisy = inputs._replace(
        batch=inputs.batch._replace(
            targets=np.where(out, rng.integers(0, V, (B, T)), inputs.batch.targets).astype(np.int32)
        ),
        advantages=np.where(out, np.nan, inputs.advantages).astype(np.float32),
        logprobs=np.where(out, np.nan, inputs.logprobs).astype(np.float32),
        reference=reference,
    )
    changed = jnp.where(out[..., None], jnp.nan, hidden)
    again, others, _ = _ours(changed, head, noisy, config)
    assert loss == again
    for a, b in zip(gradients, others, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.asarray(gradients[0])[out].any()


def test_more_padding_changes_nothing():
    hidden, head, inputs = _case("sequence")
    config = VARIANTS["gspo"]

    def padded(x, fill=0):
        wide = ((0, 3), (0, 5), *[(0, 0)] * (np.ndim(x) - 2))
        return np.pad(np.asarray(x), wide, constant_values=fill)

    wider = PolicyBatch(
        Batch(*map(padded, inputs.batch)),
        padded(inputs.advantages),
        padded(inputs.logprobs),
        padded(inputs.answers, N),
    )
    loss, (d_hidden, d_head), _ = _ours(hidden, head, inputs, config)
    again, (d_wider, d_head_too), _ = _ours(jnp.asarray(padded(hidden)), head, wider, config)
    np.testing.assert_allclose(loss, again, rtol=1e-6)
    np.testing.assert_allclose(d_hidden, d_wider[:B, :T], atol=1e-7)
    np.testing.assert_allclose(d_head, d_head_too, atol=1e-6)


@pytest.mark.parametrize("name", ["dapo", "grpo", "gspo"])
def test_micro_batches_add_up_to_the_batch(name):
    """Shares have the denominators of the whole step; micro-batches differ in their tokens."""
    config = VARIANTS[name]
    hidden, head, inputs = _case(config.aggregation)
    loss, (d_hidden, d_head), _ = _ours(hidden, head, inputs, config)
    parts = []
    for rows in (slice(0, 1), slice(1, 4)):
        some = jax.tree.map(
            lambda x, rows=rows: x[rows] if x.ndim > 2 or x.shape[0] == B else x, inputs
        )
        some = some._replace(
            reference=dataclasses.replace(some.reference, head=inputs.reference.head)
        )
        parts.append(_ours(hidden[rows], head, some, config))
    np.testing.assert_allclose(sum(part[0] for part in parts), loss, rtol=1e-5)
    np.testing.assert_allclose(np.concatenate([p[1][0] for p in parts]), d_hidden, atol=1e-7)
    np.testing.assert_allclose(sum(p[1][1] for p in parts), d_head, atol=1e-6)


@pytest.mark.parametrize("drop", [True, False])
def test_groups_without_variance_have_exactly_no_gradient(drop):
    hidden, head, inputs = _case(kept=[i > 2 or not drop for i in range(N)])
    flat = inputs.answers <= 2
    inputs = inputs._replace(advantages=np.where(flat, 0.0, inputs.advantages).astype(np.float32))
    config = dataclasses.replace(PLAIN, kl_coefficient=0.1 if drop else 0.0)
    _, (d_hidden, _), _ = _ours(hidden, head, inputs, config)
    assert not np.asarray(d_hidden)[flat].any()
    assert np.asarray(d_hidden)[(inputs.answers < N) & ~flat].any()
    nothing = inputs._replace(batch=inputs.batch._replace(weights=0 * inputs.batch.weights))
    loss, gradients, _ = _ours(hidden, head, nothing, config)
    assert loss == 0 and not any(np.asarray(g).any() for g in gradients)


def test_a_kl_without_a_reference_is_refused():
    hidden, head, inputs = _case()
    config = dataclasses.replace(PLAIN, kl_coefficient=0.1)
    with pytest.raises(ConfigError, match=r"kl_coefficient is 0.1, but there is no reference"):
        policy_loss(hidden, head, inputs._replace(reference=None), config, SHAPE)


# --- estimators, by enumerating every token -----------------------------------------------------


def _expected_gradient(slope, log_q):
    """Of the logits: sum over tokens of q * slope * d log q."""
    q = np.exp(log_q)
    return q * slope - q * (q * slope).sum()


def test_estimators_of_the_kl_have_the_gradients_that_they_are_said_to_have():
    rng = np.random.default_rng(0)
    z, z_ref = rng.normal(size=(2, 9)) * 2

    def kl(a, b):
        log_a, log_b = jax.nn.log_softmax(a), jax.nn.log_softmax(b)
        return jnp.sum(jnp.exp(log_a) * (log_a - log_b))

    with jax.enable_x64(True):
        log_q, log_p = (np.asarray(jax.nn.log_softmax(jnp.asarray(x))) for x in (z, z_ref))
        reverse = np.asarray(jax.grad(kl)(jnp.asarray(z), jnp.asarray(z_ref)))
        forward = np.asarray(jax.grad(kl, argnums=1)(jnp.asarray(z_ref), jnp.asarray(z)))
        value = float(kl(jnp.asarray(z), jnp.asarray(z_ref)))
        k2 = [np.asarray(x) for x in kl_estimate("k2", jnp.asarray(log_q), jnp.asarray(log_p))]
        k3 = [np.asarray(x) for x in kl_estimate("k3", jnp.asarray(log_q), jnp.asarray(log_p))]
    np.testing.assert_allclose(_expected_gradient(k2[1], log_q), reverse, atol=1e-12)
    np.testing.assert_allclose(_expected_gradient(k3[1], log_q), forward, atol=1e-12)
    # The log-ratio itself, k1, would train nothing.
    np.testing.assert_allclose(_expected_gradient(np.ones(9), log_q), 0, atol=1e-12)
    np.testing.assert_allclose((np.exp(log_q) * k3[0]).sum(), value, atol=1e-12)
    assert np.abs(forward - reverse).max() > 0.05


def test_importance_weights_are_truncated_and_of_own_tokens_alone():
    now = jnp.log(jnp.array([0.5, 0.5, 0.5, 0.5]))
    then = jnp.log(jnp.array([0.5, 0.1, 1.0, 0.1]))
    own = jnp.array([True, True, True, False])
    weights = importance_weights(now, then, own, 2.0)
    np.testing.assert_allclose(weights, [1, 2, 0.5, 1], rtol=1e-6)
    slope = jax.grad(lambda x: importance_weights(x, then, own, 2.0).sum())(now)
    assert not np.asarray(slope).any()
