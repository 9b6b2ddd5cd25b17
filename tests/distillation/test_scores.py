"""What is recorded of a target: its top tokens, and draws that are draws from it."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from arkjax.distillation.chunked import linear_divergence, linear_logprobs
from arkjax.distillation.objective import Objective
from arkjax.distillation.scores import (
    count_tokens,
    draw_tokens,
    draw_words,
    linear_draws,
    linear_hidden,
    linear_top_k,
)
from arkjax.distillation.targets import HiddenTarget, MixtureTarget, SampledTarget
from arkjax.errors import ConfigError

B, T, D, V = 3, 7, 5, 23


@pytest.fixture(scope="module")
def target():
    rng = np.random.default_rng(0)
    hidden, head, gate = (
        rng.normal(size=shape).astype(np.float32) for shape in ((B, T, D), (D, V), (B, T))
    )
    return HiddenTarget(jnp.asarray(hidden), jnp.asarray(head), gate=jnp.asarray(gate))


@pytest.fixture(scope="module")
def mask():
    return jnp.asarray(np.random.default_rng(1).integers(0, 2, (B, T)), jnp.float32)


def probabilities(target, kappa=1.0, vocab_size=V):
    z = np.asarray(target.hidden, np.float64) @ np.asarray(target.head, np.float64)
    z = z[..., :vocab_size]
    if target.soft_cap is not None:
        z = target.soft_cap * np.tanh(z / target.soft_cap)
    p = np.exp(z / kappa)
    return p / p.sum(-1, keepdims=True)


def test_top_tokens_are_those_of_the_logits(target, mask):
    target = dataclasses.replace(target, soft_cap=2.0)
    kept = linear_top_k(target, mask, k=4, kd_temperature=1.7, chunk_size=3, vocab_size=V - 2)
    p = probabilities(target, 1.7, V - 2)
    valid = np.asarray(mask) != 0
    order = np.argsort(-p, axis=-1)[..., :4]
    top = np.take_along_axis(p, order, -1)
    np.testing.assert_array_equal(np.asarray(kept.top_ids)[valid], order[valid])
    np.testing.assert_allclose(np.exp(kept.top_logprobs)[valid], top[valid], rtol=1e-5)
    np.testing.assert_allclose(np.exp(kept.log_tail)[valid], 1 - top.sum(-1)[valid], rtol=1e-4)
    assert kept.kd_temperature == 1.7 and kept.gate is target.gate
    assert not np.asarray(kept.top_logprobs)[~valid].any()
    labels = jnp.zeros((B, T), jnp.int32)
    plain = linear_logprobs(
        target.hidden, target.head, labels, top_k=4, kd_temperature=1.7, soft_cap=2.0
    )
    whole = linear_top_k(target, jnp.ones((B, T)), k=4, kd_temperature=1.7)
    np.testing.assert_allclose(whole.top_logprobs, plain.top_logprobs, atol=1e-6)
    with pytest.raises(ConfigError, match="k is 22, but the vocabulary has only 21"):
        linear_top_k(target, mask, k=22, vocab_size=V - 2)
    with pytest.raises(ConfigError, match="vocab_size is 24"):
        linear_top_k(target, mask, k=2, vocab_size=V + 1)


def test_draws_are_distributed_as_the_teacher(target):
    """Chi-squared over all positions: 20,000 draws each, padded tokens and soft cap included."""
    target = dataclasses.replace(target, soft_cap=3.0)
    draws, real = 20_000, V - 2
    drawn = linear_draws(
        target,
        jnp.ones((B, T)),
        jnp.arange(B),
        draws=draws,
        seed=1,
        kd_temperature=1.5,
        vocab_size=real,
    )
    ids, counts = np.asarray(drawn.ids), np.rint(np.asarray(drawn.weights) * draws)
    observed = np.zeros((B, T, V))
    for b, t in np.ndindex(B, T):
        np.add.at(observed[b, t], ids[b, t], counts[b, t])
    assert (observed.sum(-1) == draws).all() and not observed[..., real:].any()
    expected = probabilities(target, 1.5, real) * draws
    squares = ((observed[..., :real] - expected) ** 2 / expected).sum()
    # Of 21 positions with 20 degrees of freedom each; a bias of 1% of one token would show.
    assert 1e-3 < stats.chi2.sf(squares, B * T * (real - 1)) < 1 - 1e-3
    biased = probabilities(target, 1.45, real) * draws
    squares = ((observed[..., :real] - biased) ** 2 / biased).sum()
    assert stats.chi2.sf(squares, B * T * (real - 1)) < 1e-3


@pytest.mark.parametrize("vocab_size", [2, 16, 50, 1001])
def test_evenly_spread_numbers_hit_each_token_as_often_as_it_is_probable(vocab_size):
    """No statistics: over a grid of both numbers each token's share is its probability."""
    p = np.random.default_rng(2).dirichlet(np.ones(vocab_size), 1).astype(np.float32)
    # Some tokens that cannot be, at both ends too.
    p[:, [0, -1]] = 0 if vocab_size > 2 else p[:, [0, -1]]
    p /= p.sum()
    n = 512
    grid = (np.arange(n) + 0.5) / n
    words = np.stack(np.meshgrid(grid, grid, indexing="ij"), -1).reshape(1, -1, 2)
    tokens = np.asarray(draw_tokens(jnp.asarray(p), jnp.asarray(words, jnp.float32)))[0]
    share = np.bincount(tokens, minlength=vocab_size) / n**2
    # A step of the grid in each of the two choices: of the whole, and of the token's group.
    np.testing.assert_allclose(share, p[0], atol=1.5 / n)
    assert not share[p[0] == 0].any() and abs(share - p[0]).mean() < 0.3 / n


def test_the_largest_numbers_do_not_fall_off_the_end():
    p = jnp.asarray([[0.25, 0.75, 0.0, 0.0, 0.0]])
    words = jnp.full((1, 1, 2), 1 - 2**-24)
    assert draw_tokens(p, words).tolist() == [[1]]
    assert draw_tokens(p, jnp.zeros((1, 1, 2))).tolist() == [[0]]


def test_counts_of_drawn_tokens():
    ids, counts = count_tokens(jnp.asarray([[4, 2, 4, 0], [7, 7, 7, 7], [3, 2, 1, 0]]))
    assert ids.tolist() == [[0, 2, 4, 0], [7, 0, 0, 0], [0, 1, 2, 3]]
    assert counts.tolist() == [[1, 1, 2, 0], [4, 0, 0, 0], [1, 1, 1, 1]]


def test_random_numbers_are_uniform_and_of_their_own():
    rows, positions = (x.ravel() for x in np.meshgrid(np.arange(20), np.arange(50)))
    words = np.asarray(draw_words(9, jnp.asarray(rows), jnp.asarray(positions), 10))
    assert words.shape == (1000, 10, 2) and words.min() >= 0 and words.max() < 1
    # Numbers of 24 bits: among 20,000 about 12 pairs fall together.
    assert len(np.unique(words)) > 19_900
    assert stats.kstest(words.ravel(), "uniform").pvalue > 1e-3
    pairs = np.histogram2d(words[..., 0].ravel(), words[..., 1].ravel(), bins=5)[0]
    assert stats.chisquare(pairs.ravel()).pvalue > 1e-3
    other = draw_words(10, jnp.asarray(rows), jnp.asarray(positions), 10)
    assert not (np.asarray(other) == words).any(axis=(1, 2)).any()
    more = draw_words(9, jnp.asarray(rows[:2]), jnp.asarray(positions[:2]), 12)
    np.testing.assert_array_equal(more[:, :10], words[:2])


def test_neither_batch_nor_chunk_nor_mask_matters(target, mask):
    options = {"draws": 8, "seed": 3}
    rows = jnp.asarray([40, 2, 1_000_000])
    drawn = linear_draws(target, mask, rows, **options)
    valid = np.asarray(mask) != 0
    for chosen, chunk_size in (([0], 1), ([2, 0], 4), ([1, 2, 0, 1], 100)):
        chosen = np.array(chosen)
        part = linear_draws(
            target.map_tokens(lambda x, chosen=chosen: x[chosen]),
            jnp.ones((len(chosen), T)),
            rows[chosen],
            chunk_size=chunk_size,
            **options,
        )
        here = valid[chosen]
        np.testing.assert_array_equal(part.ids[here], np.asarray(drawn.ids)[chosen][here])
        np.testing.assert_array_equal(part.weights[here], np.asarray(drawn.weights)[chosen][here])
    assert not np.asarray(drawn.ids)[~valid].any() and not np.asarray(drawn.weights)[~valid].any()


def test_a_teacher_that_is_none_gives_no_token(target, mask):
    broken = dataclasses.replace(target, hidden=target.hidden.at[0].set(jnp.nan))
    drawn = linear_draws(broken, jnp.ones((B, T)), jnp.arange(B), draws=2, seed=0)
    assert (np.asarray(drawn.ids)[0, :, 0] == -1).all() and (np.asarray(drawn.ids)[1:] >= 0).all()


@pytest.mark.parametrize("kappa", [1.0, 2.0])
def test_the_expected_gradient_is_that_of_the_forward_kl(kappa):
    """Every outcome of N = 3 draws from 4 tokens, weighted by its probability."""
    rng = np.random.default_rng(4)
    tokens, draws, width = 4, 3, 3
    hidden, head = (
        jnp.asarray(rng.normal(size=s), jnp.float32) for s in ((2, width), (width, tokens))
    )
    teacher = HiddenTarget(
        *(jnp.asarray(rng.normal(size=s), jnp.float32) for s in ((2, 5), (5, tokens)))
    )
    objective = Objective(0.0, "forward_kl", weight=1.0, kd_temperature=kappa)
    labels, mask = jnp.zeros(2, jnp.int32), jnp.asarray([1.0, 0.5])

    @jax.jit
    def gradients(target, mask):
        def loss(hidden, head):
            options = {"objective": objective, "target": target}
            return linear_divergence(hidden, head, labels, mask, **options)[0]

        return jax.grad(loss, (0, 1))(hidden, head)

    p = probabilities(teacher, kappa, tokens)
    total = [np.zeros(x.shape) for x in (hidden, head)]
    mass = 0.0
    for outcome in itertools.product(range(tokens), repeat=draws):
        # The two tokens' draws are independent, so that one outcome each at a time is enough.
        for at in range(2):
            chance = np.prod(p[at, list(outcome)])
            ids, counts = count_tokens(jnp.asarray([outcome] * 2))
            made = SampledTarget(ids, counts / draws, kappa)
            found = gradients(made, jnp.zeros(2).at[at].set(mask[at]))
            total = [a + chance * np.asarray(b) for a, b in zip(total, found, strict=True)]
            mass += chance
    assert abs(mass - 2) < 1e-6
    for found, expected in zip(total, gradients(teacher, mask), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6, rtol=1e-6)
    assert max(abs(x).max() for x in total) > 0.1


def mixture(target, kind, soft_cap=None):
    """Three contexts of target's shape; the third has no share and holds no number."""
    rng = np.random.default_rng(6)
    hidden = rng.normal(size=(B, T, 3, D)).astype(np.float32)
    hidden[:, :, 2] = np.nan
    shares = rng.dirichlet([1, 1], (B, T)).astype(np.float32)
    shares = np.concatenate([shares, np.zeros((B, T, 1), np.float32)], axis=-1)
    return MixtureTarget(
        jnp.asarray(hidden), jnp.asarray(shares), target.head, soft_cap, kind, target.gate
    )


@pytest.mark.parametrize("kind, soft_cap", [("geometric", None), ("arithmetic", 2.0)])
def test_mixtures_are_recorded_as_they_are(target, mask, kind, soft_cap):
    mixed = mixture(target, kind, soft_cap)
    shares = np.asarray(mixed.weights, np.float64)[..., :2, None]
    each = HiddenTarget(mixed.hidden[..., :2, :], target.head, soft_cap)
    p = probabilities(each, 1.5)
    p = np.exp((shares * np.log(p)).sum(-2)) if kind == "geometric" else (shares * p).sum(-2)
    p /= p.sum(-1, keepdims=True)
    kept = linear_top_k(mixed, mask, k=V, kd_temperature=1.5)
    valid = np.asarray(mask) != 0
    found = np.take_along_axis(p, np.asarray(kept.top_ids), -1)
    np.testing.assert_allclose(np.exp(kept.top_logprobs)[valid], found[valid], rtol=1e-4)
    drawn = linear_draws(
        mixed, mask, jnp.arange(B), draws=5000, seed=2, kd_temperature=1.5, chunk_size=8
    )
    share = np.zeros((B, T, V))
    for b, t in np.ndindex(B, T):
        np.add.at(share[b, t], np.asarray(drawn.ids)[b, t], np.asarray(drawn.weights)[b, t])
    np.testing.assert_allclose(share[valid], p[valid], atol=0.03)


def test_a_geometric_mixture_is_one_hidden_state(target, mask):
    mixed = mixture(target, "geometric")
    one = linear_hidden(mixed)
    assert one.hidden.shape == (B, T, D) and one.gate is mixed.gate
    a, b = (linear_top_k(x, mask, k=5) for x in (mixed, one))
    np.testing.assert_array_equal(a.top_ids, b.top_ids)
    np.testing.assert_allclose(a.top_logprobs, b.top_logprobs, atol=1e-5)
    assert linear_hidden(target) is target
    single = dataclasses.replace(
        mixture(target, "arithmetic", 2.0), hidden=mixed.hidden[..., :1, :]
    )
    assert linear_hidden(single).soft_cap == 2.0
    for kind, soft_cap in (("arithmetic", None), ("geometric", 2.0)):
        with pytest.raises(ConfigError, match="kind 'top_k' or 'sampled', or one context"):
            linear_hidden(mixture(target, kind, soft_cap))
