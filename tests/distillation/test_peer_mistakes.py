"""Mistakes that published distillation code has made, each as a test of what is right."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arkjax.distillation.chunked import linear_divergence, linear_logprobs
from arkjax.distillation.objective import DIVERGENCES, Objective
from arkjax.distillation.rows import batch, pack
from arkjax.distillation.targets import HiddenTarget, TapeTarget
from arkjax.synthesis.examples import Example

N, D, V = 12, 6, 20
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def of_distributions(q, p, objective, labels=None, dtype=jnp.float32):
    """Loss and d logits `[N, V]` of these distributions: logits are hidden states of a unit head."""
    head = jnp.eye(q.shape[-1], dtype=dtype)
    target = HiddenTarget(jnp.log(p).astype(dtype), head)
    labels = jnp.zeros(q.shape[0], jnp.int32) if labels is None else labels

    def loss(hidden):
        return linear_divergence(
            hidden, head, labels, jnp.ones(q.shape[0]), objective=objective, target=target
        )[0]

    return jit(jax.value_and_grad(loss))(jnp.log(q).astype(dtype))


def probabilities(seed, scale=1.0, n=N, v=V):
    return jax.nn.softmax(scale * normal(seed, n, v))


def test_a_small_divergence_is_not_lost_in_a_bfloat16_accumulator():
    # Summed up in bfloat16 over this vocabulary, a KL of 0.0071 was reported as 0.0.
    v = 32_768
    z = normal(1, 1, v).astype(jnp.bfloat16).astype(jnp.float32)
    near = (z + 0.12 * normal(2, 1, v)).astype(jnp.bfloat16).astype(jnp.float32)
    q, p = jax.nn.softmax(z), jax.nn.softmax(near)
    log_q, log_p = (np.log(np.asarray(x, np.float64)) for x in (q, p))
    want = np.sum(np.exp(log_p) * (log_p - log_q))
    assert 0.006 < want < 0.009
    # Hidden states [1, 1] of which the heads make these logits, all in bfloat16.
    one = jnp.ones((1, 1), jnp.bfloat16)
    target = HiddenTarget(one, near.astype(jnp.bfloat16))
    loss, aux = jit(
        lambda head: linear_divergence(
            one, head, jnp.zeros(1, jnp.int32), jnp.ones(1),
            objective=Objective(0.0, "forward_kl"), target=target,
        )
    )(z.astype(jnp.bfloat16))  # fmt: skip
    np.testing.assert_allclose(loss, want, rtol=1e-4)
    assert loss.dtype == aux["divergence"].dtype == jnp.float32


def test_beta_of_the_jsd_belongs_to_the_teacher():
    # Where beta stood with the student instead, 0.579 came out for a JSD of 0.077.
    q, p = jnp.array([[0.9, 0.1]]), jnp.array([[0.2, 0.8]])

    def by_hand(beta, p, q):
        m = beta * p + (1 - beta) * q
        return float(beta * np.sum(p * np.log(p / m)) + (1 - beta) * np.sum(q * np.log(q / m)))

    for beta in (0.1, 0.5, 0.9):
        loss, _ = of_distributions(q, p, Objective(0.0, "jsd", beta=beta))
        want = by_hand(beta, np.asarray(p[0], np.float64), np.asarray(q[0], np.float64))
        np.testing.assert_allclose(loss, want, rtol=1e-6)
    # The ends tell which side is which: JSD(beta) / beta -> KL(p || q) as beta -> 0.
    loss, _ = of_distributions(q, p, Objective(0.0, "jsd", beta=1e-4))
    kl = float(jnp.sum(p * jnp.log(p / q)))
    np.testing.assert_allclose(loss / 1e-4, kl, rtol=1e-3)
    swapped = float(jnp.sum(q * jnp.log(q / p)))
    assert abs(kl - swapped) > 0.05


def test_labels_are_the_next_tokens():
    rows = pack([Example((5, 6, 7), (8, 9), 1.0, {}), Example((3,), (4, 2, 1), 1.0, {})], 9)
    inputs = batch(rows, np.arange(rows.num_rows))
    row = inputs.tokens[0].tolist()
    valid = inputs.weights[0] > 0
    assert inputs.targets[0, :-1].tolist() == row[1:]
    # A student that puts everything on the next token has no loss, one on its own token a large
    # one.
    for shift, low in ((1, True), (0, False)):
        expected = np.roll(inputs.tokens, -shift, axis=1)
        hidden = 30.0 * jax.nn.one_hot(expected, 10)
        loss, aux = linear_divergence(
            hidden, jnp.eye(10), inputs.targets, inputs.weights, objective=Objective()
        )
        assert aux["tokens"] == valid.sum() == 5
        assert (loss < 1e-6) == low and (low or loss > 100)


@pytest.mark.parametrize("name", DIVERGENCES)
@pytest.mark.parametrize("kind", ["live", "tape"])
def test_the_divergence_has_a_gradient_that_lowers_it(name, kind):
    # A KL that was computed without gradient and added to the loss trained nothing.
    live = HiddenTarget(normal(3, N, D), normal(4, D, V))
    target = live
    labels, mask = jnp.zeros(N, jnp.int32), jnp.ones(N)
    if kind == "tape":
        scores = linear_logprobs(live.hidden, live.head, labels, top_k=4)
        target = TapeTarget(scores.top_ids, scores.top_logprobs, scores.log_tail)

    @jit
    def run(hidden, head):
        def loss(hidden, head):
            return linear_divergence(
                hidden, head, labels, mask, objective=Objective(0.0, name), target=target
            )[0]

        return jax.value_and_grad(loss, (0, 1))(hidden, head)

    hidden, head = normal(1, N, D), normal(2, D, V)
    before, (d_hidden, d_head) = run(hidden, head)
    assert (jnp.abs(d_hidden).max(-1) > 0).all() and jnp.abs(d_head).max() > 0
    after, _ = run(hidden - 1e-3 * d_hidden, head - 1e-3 * d_head)
    slope = 1e-3 * float(jnp.sum(d_hidden**2) + jnp.sum(d_head**2))
    np.testing.assert_allclose(before - after, slope, rtol=0.1)


def test_a_tape_pushes_the_student_off_the_tail():
    # The teacher is sure of its top 2; half of the student lies elsewhere. Renormalised over the
    # top 2 both sides agree, and no gradient would move the student.
    p = jnp.array([[0.6, 0.4, 0.0, 0.0, 0.0]])
    q = jnp.array([[0.3, 0.2, 0.2, 0.2, 0.1]])
    tape = TapeTarget(
        jnp.array([[0, 1]]), jnp.log(p[:, :2]), jnp.array([-jnp.inf]), kd_temperature=1.0
    )

    def loss(z):
        return linear_divergence(
            z, jnp.eye(5), jnp.zeros(1, jnp.int32), jnp.ones(1),
            objective=Objective(0.0, "forward_kl"), target=tape,
        )[0]  # fmt: skip

    value, gradient = jax.value_and_grad(loss)(jnp.log(q))
    np.testing.assert_allclose(value, np.log(2.0), rtol=1e-6)
    np.testing.assert_allclose(gradient, q - p, atol=1e-6)
    renormalised = q[:, :2] / q[:, :2].sum() - p[:, :2]
    np.testing.assert_allclose(renormalised, 0.0, atol=1e-6)


def test_the_kl_to_a_reference_has_its_own_gradient_and_not_an_estimators():
    # On samples y ~ q, k1 = log q/p as a loss has no gradient in the mean, and k3 = p/q - 1 -
    # log p/q the forward KL's. What is offered is the exact sum over the vocabulary.
    q, p = probabilities(5, n=1), probabilities(6, n=1)
    _, gradient = of_distributions(q, p, Objective(0.0, "reverse_kl"))
    z = jnp.log(q[0])

    def estimator(k):
        def expected(z):
            log_q = jax.nn.log_softmax(z)
            r = log_q - jnp.log(p[0])
            each = {"k1": r, "k2": 0.5 * r**2, "k3": jnp.exp(-r) - 1 + r}[k]
            # Sampled from q, not differentiated through the sampling.
            return jnp.sum(jax.lax.stop_gradient(jnp.exp(log_q)) * each)

        return jax.grad(expected)(z)

    np.testing.assert_allclose(estimator("k1"), 0.0, atol=1e-6)
    np.testing.assert_allclose(estimator("k2"), gradient[0], atol=1e-6)
    _, forward = of_distributions(q, p, Objective(0.0, "forward_kl"))
    np.testing.assert_allclose(estimator("k3"), forward[0], atol=1e-6)
    assert np.abs(gradient - forward).max() > 0.01


def parts(slices, head, inputs, target, count):
    """Sums of losses and head gradients over micro-batches, each divided by the whole's tokens."""
    objective = Objective(0.5, "jsd", 0.5)

    def loss(head, here):
        hidden, labels, mask = (x[here] for x in inputs)
        of_these = target.map_tokens(lambda x: x[here])
        total, _ = linear_divergence(
            hidden, head, labels, mask, objective=objective, target=of_these, chunk_size=4
        )
        return total / count

    run = jit(jax.value_and_grad(loss))
    found = [run(head, np.arange(N)[here]) for here in slices]
    return sum(value for value, _ in found), sum(gradient for _, gradient in found)


def test_accumulation_weighs_tokens_and_not_micro_batches():
    mask = jnp.asarray(np.arange(N) < 9, jnp.float32)  # 6 valid tokens, then 3
    inputs = normal(1, N, D), jnp.arange(N) % V, mask
    target = HiddenTarget(normal(3, N, D), normal(4, D, V))
    head, count = normal(2, D, V), mask.sum()
    want = parts([slice(0, N)], head, inputs, target, count)
    got = parts([slice(0, 6), slice(6, N)], head, inputs, target, count)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-6), got, want)
    # Means of micro-batches, averaged, are another loss.
    means = [
        parts([here], head, inputs, target, mask[here].sum())[0]
        for here in (slice(0, 6), slice(6, N))
    ]
    assert abs(sum(means) / 2 - want[0]) > 1e-3


def test_pads_and_prompts_have_no_part_in_the_divergence():
    # 39% of a peer's gradient mass fell on pads: there the mask was on the cross-entropy alone.
    target = HiddenTarget(normal(3, N, D), normal(4, D, V))
    mask = jnp.asarray(np.arange(N) % 3 == 0, jnp.float32)

    def loss(hidden, teacher):
        return linear_divergence(
            hidden, normal(2, D, V), jnp.zeros(N, jnp.int32), mask,
            objective=Objective(0.0, "forward_kl"),
            target=HiddenTarget(teacher, target.head),
        )[0]  # fmt: skip

    run = jit(jax.value_and_grad(loss))
    value, gradient = run(normal(1, N, D), target.hidden)
    assert (gradient[mask == 0] == 0).all() and (jnp.abs(gradient[mask == 1]).max(-1) > 0).all()
    moved = jnp.where(mask[:, None] == 0, 50.0, target.hidden)
    other, other_gradient = run(normal(1, N, D), moved)
    assert value == other
    np.testing.assert_array_equal(gradient, other_gradient)
