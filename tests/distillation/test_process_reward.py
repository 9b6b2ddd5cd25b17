"""Losses of process reward models, against float64 references written from the papers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arkjax.distillation.process_reward import (
    RewardBatch,
    binary_loss,
    contrastive_loss,
    implicit_loss,
    implicit_rewards,
    step_rewards,
)

R, T, D, V, E, A = 3, 10, 6, 11, 4, 2


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


# --- contrastive ----------------------------------------------------------------------------------

SETS = np.array([[0, 5, 7, 0], [3, 1, 0, 0], [9, 2, 4, 11], [0, 0, 0, 0]], np.int32)
SET_MASK = np.array([[1, 1, 1, 0], [1, 1, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]], bool)


def contrastive_reference(rewards, tau):
    """Eq. 7 of arXiv 2602.03955 and its derivative by hand, set by set."""
    rewards = rewards.astype(np.float64).ravel()
    total, gradient, count = 0.0, np.zeros_like(rewards), SET_MASK[:, 0].sum()
    for members, mask in zip(SETS, SET_MASK, strict=True):
        members = members[mask]
        if not members.size:
            continue
        s = sigmoid(rewards[members])
        p = np.exp(s / tau) / np.exp(s / tau).sum()
        total -= np.log(p[0])
        slope = (p - (np.arange(len(members)) == 0)) / tau * s * (1 - s)
        np.add.at(gradient, members, slope)
    return total / count, gradient / count


@pytest.mark.parametrize("tau", [1.0, 0.1, 0.01])
def test_the_contrastive_loss_is_that_of_the_paper(rng, tau):
    rewards = rng.normal(0, 2, (R, E)).astype(np.float32)
    (loss, metrics), gradient = jax.value_and_grad(contrastive_loss, has_aux=True)(
        jnp.asarray(rewards), SETS, SET_MASK, tau
    )
    expected, slopes = contrastive_reference(rewards, tau)
    # fp32 of terms up to 1 / tau.
    np.testing.assert_allclose(loss, expected, rtol=1e-5, atol=1e-6 / tau)
    np.testing.assert_allclose(gradient.ravel(), slopes, rtol=1e-4, atol=1e-6 / tau)
    flat = rewards.ravel()
    best = [flat[m[k]].argmax() == 0 for m, k in zip(SETS[:3], SET_MASK[:3], strict=True)]
    assert metrics["set_accuracy"] == pytest.approx(np.mean(best))
    unused = np.setdiff1d(np.arange(R * E), SETS[SET_MASK])
    assert (gradient.ravel()[unused] == 0).all() and len(unused)


def test_what_is_in_no_set_may_be_anything(rng):
    rewards = rng.normal(0, 2, R * E).astype(np.float32)
    unused = np.setdiff1d(np.arange(R * E), SETS[SET_MASK])
    spoilt = rewards.copy()
    spoilt[unused] = np.nan
    loss = jax.value_and_grad(lambda r: contrastive_loss(r, SETS, SET_MASK, 0.1)[0])
    a, b = loss(jnp.asarray(rewards)), loss(jnp.asarray(spoilt))
    np.testing.assert_array_equal(a[0], b[0])
    np.testing.assert_array_equal(a[1], b[1])


def test_a_perfect_model_is_told_so_and_one_without_sets_nothing():
    rewards = jnp.asarray([50.0, -50.0, -50.0])
    sets, mask = np.array([[0, 1, 2]]), np.ones((1, 3), bool)
    loss, metrics = contrastive_loss(rewards, sets, mask, 0.1)
    assert loss == pytest.approx(np.log1p(2 * np.exp(-10)), abs=1e-6)
    assert metrics["set_accuracy"] == 1
    # Equal rewards are no success.
    assert contrastive_loss(0 * rewards, sets, mask, 0.1)[1]["set_accuracy"] == 0
    empty = jax.value_and_grad(lambda r: contrastive_loss(r, sets, ~mask, 0.1)[0])(rewards)
    assert empty[0] == 0 and (empty[1] == 0).all()


# --- labels ---------------------------------------------------------------------------------------


def test_the_binary_loss_is_cross_entropy_with_soft_labels(rng):
    rewards = rng.normal(0, 3, (R, E)).astype(np.float32)
    labels = rng.choice([0, 0.25, 0.5, 1], (R, E)).astype(np.float32)
    weights = rng.choice([0, 1], (R, E)).astype(np.float32)
    (loss, metrics), gradient = jax.value_and_grad(binary_loss, has_aux=True)(
        jnp.asarray(rewards), labels, weights
    )
    s, y, w = (x.astype(np.float64) for x in (sigmoid(rewards.astype(np.float64)), labels, weights))
    expected = -(w * (y * np.log(s) + (1 - y) * np.log(1 - s))).sum() / w.sum()
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_allclose(gradient, w * (s - y) / w.sum(), atol=1e-6)
    assert (gradient[weights == 0] == 0).all()
    right = ((rewards >= 0) == (labels >= 0.5))[weights > 0].mean()
    assert metrics["label_accuracy"] == pytest.approx(right)


def test_the_binary_loss_is_finite_for_sure_models_and_blind_to_what_weighs_nothing():
    rewards = jnp.asarray([200.0, -200.0, jnp.nan])
    labels, weights = jnp.asarray([0.0, 1.0, 1.0]), jnp.asarray([1.0, 1.0, 0.0])
    loss, _ = binary_loss(rewards, labels, weights)
    assert loss == 200.0
    assert binary_loss(rewards, labels, 0 * weights)[0] == 0


# --- rewards of steps -----------------------------------------------------------------------------


def test_rewards_are_read_at_the_steps_last_tokens_alone(rng):
    hidden = jnp.asarray(rng.normal(size=(R, T, D)), jnp.float32)
    head = jnp.asarray(rng.normal(size=D), jnp.float32)
    columns = rng.integers(0, T, (R, E)).astype(np.int32)
    got = step_rewards(hidden, head, columns)
    for r in range(R):
        for e in range(E):
            expected = np.float64(hidden[r, columns[r, e]]) @ np.float64(head)
            assert got[r, e] == pytest.approx(expected, rel=1e-5, abs=1e-5)
    weights = jnp.asarray(rng.normal(size=(R, E)), jnp.float32)
    gradient = jax.grad(lambda h: (step_rewards(h, head, columns) * weights).sum())(hidden)
    elsewhere = np.ones((R, T), bool)
    np.put_along_axis(elsewhere, columns, False, axis=1)
    assert (np.asarray(gradient)[elsewhere] == 0).all()
    assert (np.abs(gradient).sum(-1)[~elsewhere] > 0).all()


def test_rewards_of_16_bit_states_are_summed_in_fp32(rng):
    hidden = jnp.asarray(rng.normal(size=(1, 1, 4096)), jnp.bfloat16)
    head = jnp.asarray(rng.normal(size=4096), jnp.float32)
    exact = np.float64(np.asarray(hidden, np.float32)[0, 0]) @ np.float64(head)
    got = step_rewards(hidden, head, np.zeros((1, 1), np.int32))
    assert got.dtype == jnp.float32
    assert got[0, 0] == pytest.approx(exact, abs=1e-3)  # bf16 sums miss it by more than 1


# --- implicit -------------------------------------------------------------------------------------


@pytest.fixture
def batch(rng):
    """Rows of a prompt and an answer, twice; the second row's last answer has no known outcome."""
    segments = np.array([[1] * 5 + [2] * 4 + [0], [1] * 4 + [2] * 6, [1] * 3 + [0] * 7], np.int32)
    mask = np.zeros((R, T), np.float32)
    mask[0, [2, 3, 6, 7]] = mask[1, [1, 2, 5, 6, 7, 8]] = mask[2, [0, 1]] = 1
    outcomes = np.array([[1, 0], [0, 0], [1, 0]], np.float32)
    known = np.array([[1, 1], [1, 0], [1, 0]], np.float32)
    zeros = np.zeros((R, T), np.int32)
    made = RewardBatch(
        tokens=zeros,
        segment_ids=segments,
        positions=zeros,
        targets=rng.integers(0, V, (R, T)).astype(np.int32),
        answer_mask=mask,
        step_columns=np.zeros((R, E), np.int32),
        labels=np.zeros((R, E), np.float32),
        label_weights=np.zeros((R, E), np.float32),
        outcomes=outcomes,
        outcome_weights=known,
        sets=np.zeros((1, 2), np.int32),
        set_mask=np.zeros((1, 2), bool),
        reference=np.where(mask > 0, rng.normal(-2, 1, (R, T)), 0).astype(np.float32),
    )
    return RewardBatch(*map(jnp.asarray, made))


def implicit_reference(hidden, head, batch, beta):
    """Eqs. 3 and 5 of arXiv 2502.01456 with dense logits, answer by answer."""
    log_q = jax.nn.log_softmax(hidden @ head)
    chosen = jnp.take_along_axis(log_q, batch.targets[..., None], -1)[..., 0]
    losses = []
    for r in range(R):
        for a in range(A):
            if batch.outcome_weights[r, a]:
                own = (batch.segment_ids[r] == a + 1) & (batch.answer_mask[r] > 0)
                total = beta * jnp.where(own, chosen[r] - batch.reference[r], 0.0).sum()
                y = batch.outcomes[r, a]
                losses.append(
                    -y * jnp.log(jax.nn.sigmoid(total))
                    - (1 - y) * jnp.log(1 - jax.nn.sigmoid(total))
                )
    return sum(losses) / len(losses)


@pytest.mark.parametrize("beta", [0.05, 1.0])
@pytest.mark.parametrize("chunk", [3, 64])
def test_the_implicit_loss_and_its_gradients_are_those_of_dense_logits(rng, batch, beta, chunk):
    hidden = rng.normal(size=(R, T, D)).astype(np.float32)
    head = rng.normal(size=(D, V)).astype(np.float32)
    options = {"chunk_size": chunk, "train_head": True}
    (loss, _), gradients = jax.value_and_grad(implicit_loss, (0, 1), has_aux=True)(
        jnp.asarray(hidden), jnp.asarray(head), batch, beta, **options
    )
    with jax.enable_x64(True):
        wide = jnp.asarray(hidden, jnp.float64), jnp.asarray(head, jnp.float64)
        expected, slopes = jax.value_and_grad(implicit_reference, (0, 1))(*wide, batch, beta)
        expected, slopes = float(expected), [np.asarray(slope) for slope in slopes]
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    for got, slope in zip(gradients, slopes, strict=True):
        np.testing.assert_allclose(got, slope, atol=2e-6)  # fp32
        assert np.abs(slope).max() > 1e-3
    counted = (batch.answer_mask > 0) & ~((np.arange(R) == 1)[:, None] & (batch.segment_ids == 2))
    assert (np.asarray(gradients[0])[~counted] == 0).all()
    frozen = jax.grad(
        lambda h: implicit_loss(
            jnp.asarray(hidden), h, batch, beta, chunk_size=chunk, train_head=False
        )[0]
    )(jnp.asarray(head))
    assert (frozen == 0).all()


def test_implicit_rewards_are_zero_for_the_reference_itself(rng):
    logprobs = rng.normal(-1, 1, (2, 3)).astype(np.float32)
    mask = np.array([[0, 1, 1], [1, 0, 1]], np.float32)
    assert (implicit_rewards(logprobs, logprobs, mask, 0.1) == 0).all()
    ratio = implicit_rewards(logprobs + 2, logprobs, mask, 0.5)
    np.testing.assert_allclose(ratio, mask, rtol=1e-6)
