"""Draws against the distribution they claim to come from; filters against NumPy in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arkjax.errors import ConfigError
from arkjax.sampling.params import SamplingParams
from arkjax.sampling.sampler import RowSampling, filter_logits, sample

V = 150


def _rows(size: int, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, seed=0) -> RowSampling:
    def column(value, dtype):
        return jnp.asarray(np.broadcast_to(np.asarray(value, dtype), (size,)))

    return RowSampling(
        column(temperature, np.float32),
        column(top_k, np.int32),
        column(top_p, np.float32),
        column(min_p, np.float32),
        column(seed, np.uint32),
    )


def _log_softmax(z: np.ndarray) -> np.ndarray:
    z = z - z.max(axis=-1, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=-1, keepdims=True))


def _kept(z: np.ndarray, top_k: int, top_p: float, min_p: float) -> np.ndarray:
    """Which of the logits [V] remain, by sorting; ties with the last one kept are kept."""
    z = z.astype(np.float64)
    falling = np.sort(z)[::-1]
    keep = np.ones(z.shape, bool)
    if 0 < top_k < len(z):
        keep &= z >= falling[top_k - 1]
    if top_p < 1:
        mass = np.cumsum(np.exp(_log_softmax(falling)))
        keep &= z >= falling[min(np.searchsorted(mass, np.float32(top_p)), len(z) - 1)]
    if min_p > 0:
        keep &= np.exp(z - falling[0]) >= min_p
    return keep


_sample = jax.jit(sample)
_filter = jax.jit(filter_logits)


@pytest.fixture(scope="module")
def logits() -> np.ndarray:
    """[64, V], from flat to steep."""
    rng = np.random.default_rng(0)
    spread = np.geomspace(0.1, 8, 64)[:, None]
    return (rng.normal(size=(64, V)) * spread).astype(np.float32)


def test_temperature_zero_takes_the_most_probable(logits):
    tokens, logprobs, drawn_from = _sample(
        logits, _rows(64, temperature=0.0, seed=np.arange(64)), jnp.arange(64)
    )
    np.testing.assert_array_equal(tokens, logits.argmax(axis=1))
    np.testing.assert_allclose(logprobs, _log_softmax(logits).max(axis=1), atol=1e-5)
    np.testing.assert_array_equal(drawn_from, 0.0)


def test_greedy_and_sampled_rows_do_not_disturb_each_other(logits):
    temperature = np.where(np.arange(64) % 2, 0.0, 0.7)
    mixed = _sample(logits, _rows(64, temperature=temperature, seed=3), jnp.arange(64))
    for value, kind in ((0.0, temperature == 0), (0.7, temperature > 0)):
        alone = _sample(logits, _rows(64, temperature=value, seed=3), jnp.arange(64))
        for ours, theirs in zip(mixed, alone, strict=True):
            np.testing.assert_array_equal(ours[kind], theirs[kind])


def test_filtered_and_plain_rows_do_not_disturb_each_other(logits):
    top_k = np.where(np.arange(64) % 2, 3, 0)
    mixed = _sample(logits, _rows(64, top_k=top_k, seed=3), jnp.arange(64))
    for value, kind in ((3, top_k == 3), (0, top_k == 0)):
        alone = _sample(logits, _rows(64, top_k=value, seed=3), jnp.arange(64))
        for ours, theirs in zip(mixed, alone, strict=True):
            np.testing.assert_array_equal(ours[kind], theirs[kind])


@pytest.mark.parametrize(
    "rule", [{}, {"temperature": 0.5}, {"temperature": 2.0, "top_k": 20}, {"top_p": 0.8}]
)
def test_draws_follow_the_distribution(rule):
    """Chi-square over 40,000 seeds."""
    n, size = 40_000, 30
    z = np.random.default_rng(1).normal(size=size).astype(np.float32)
    tokens, _, _ = _sample(
        jnp.broadcast_to(z, (n, size)), _rows(n, seed=np.arange(n), **rule), jnp.full(n, 5)
    )
    scaled = z / rule.get("temperature", 1.0)
    keep = _kept(scaled, rule.get("top_k", 0), rule.get("top_p", 1.0), 0.0)
    expected = n * np.exp(_log_softmax(np.where(keep, scaled, -np.inf)))
    counts = np.bincount(tokens, minlength=size)
    assert (counts[~keep] == 0).all()
    statistic = (((counts - expected) ** 2)[keep] / expected[keep]).sum()
    # 99.99% quantile at 29 degrees of freedom.
    assert statistic < 65.0


@pytest.mark.parametrize("size", [1, 2, 3, 17, 64, 100])
def test_draws_of_any_vocabulary_size_are_among_its_tokens(size):
    n = 2_000
    z = np.where(np.arange(size) % 3 == 1, -np.inf, 0.0).astype(np.float32)
    tokens = np.asarray(
        _sample(jnp.broadcast_to(z, (n, size)), _rows(n, seed=np.arange(n)), jnp.zeros(n, int))[0]
    )
    assert set(tokens.tolist()) == set(np.flatnonzero(z == 0).tolist())


def test_draws_at_different_positions_are_independent():
    n = 4_000
    z = np.zeros((n, 2), np.float32)
    a, b = (np.asarray(_sample(z, _rows(n, seed=np.arange(n)), jnp.full(n, p))[0]) for p in (4, 5))
    assert abs((a == b).mean() - 0.5) < 0.04
    # Neighbouring seeds one position apart are not the same stream shifted.
    assert abs((a[1:] == b[:-1]).mean() - 0.5) < 0.04


RULES = [
    {"top_k": 1},
    {"top_k": 5},
    {"top_k": 64},
    {"top_k": 65},
    {"top_k": V - 1},
    {"top_k": V},
    {"top_k": V + 100},
    {"top_p": 1e-6},
    {"top_p": 0.3},
    {"top_p": 0.9},
    {"top_p": 0.999},
    {"min_p": 1e-4},
    {"min_p": 0.3},
    {"min_p": 0.999},
    {"top_k": 6, "top_p": 0.7, "min_p": 0.05},
]


@pytest.mark.parametrize("ties", [False, True])
def test_filters_keep_exactly_the_right_tokens(logits, ties):
    z = np.round(logits) if ties else logits
    for rule in RULES:
        kept = np.isfinite(_filter(z, _rows(64, **rule)))
        full = {"top_k": 0, "top_p": 1.0, "min_p": 0.0} | rule
        expected = np.stack([_kept(row, **full) for row in z])
        np.testing.assert_array_equal(kept, expected, err_msg=str(rule))
        assert kept.any(axis=1).all()


def test_filters_hold_for_large_and_for_impossible_logits():
    z = np.array(
        [[3e3, 2.9e3, -3e3, 1e3], [5.0, 4.0, -1e30, 3.0], [0.0, 0.0, 0.0, 0.0]], np.float32
    )
    kept = np.isfinite(_filter(z, _rows(3, top_k=2)))
    np.testing.assert_array_equal(
        kept, [[True, True, False, False], [True, True, False, False], [True] * 4]
    )
    kept = np.isfinite(_filter(z, _rows(3, top_k=3)))
    np.testing.assert_array_equal(kept[:2], [[True, True, False, True]] * 2)
    # Four equal tokens: no set smaller than all of them treats them alike.
    np.testing.assert_array_equal(np.isfinite(_filter(z, _rows(3, top_p=0.3)))[2], [True] * 4)


def test_logprobs_are_those_of_both_distributions(logits):
    rule = {"temperature": 0.8, "top_k": 6, "top_p": 0.9, "min_p": 0.02}
    tokens, logprobs, drawn_from = _sample(
        logits, _rows(64, seed=np.arange(64), **rule), jnp.arange(64)
    )
    scaled = logits / np.float32(0.8)
    keep = np.stack([_kept(row, 6, 0.9, 0.02) for row in scaled])
    chosen = np.arange(64), np.asarray(tokens)
    assert keep[chosen].all()
    np.testing.assert_allclose(logprobs, _log_softmax(logits)[chosen], atol=1e-5)
    filtered = _log_softmax(np.where(keep, scaled, -np.inf))
    np.testing.assert_allclose(drawn_from, filtered[chosen], atol=1e-5)


def test_randomness_depends_on_seed_and_position_only():
    rng = np.random.default_rng(2)
    z = np.broadcast_to(rng.normal(size=V).astype(np.float32), (64, V))
    seeds, positions = rng.integers(0, 2**32, 64), rng.integers(0, 100, 64)
    order = rng.permutation(64)
    tokens = np.asarray(_sample(z, _rows(64, seed=seeds), jnp.asarray(positions))[0])
    shuffled = _sample(z, _rows(64, seed=seeds[order]), jnp.asarray(positions[order]))[0]
    np.testing.assert_array_equal(tokens[order], shuffled)
    alone = _sample(z[:1], _rows(1, seed=seeds[:1]), jnp.asarray(positions[:1]))[0]
    assert alone[0] == tokens[0]
    assert len(set(tokens.tolist())) > V // 4


@pytest.mark.fast
@pytest.mark.parametrize(
    "field, value",
    [
        ("temperature", -0.1),
        ("temperature", float("nan")),
        ("top_k", -1),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("min_p", 1.0),
        ("max_tokens", 0),
    ],
)
def test_impossible_rules_are_refused_by_name(field, value):
    with pytest.raises(ConfigError, match=f"sampling.{field}"):
        SamplingParams(**{field: value})
