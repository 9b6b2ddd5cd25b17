"""Attention with a mask against its formula, written out in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arkjax.models.attention import attend, cache_mask, packed_mask

B, T, H, K, M, WIDTH = 2, 5, 6, 2, 7, 4
SCALE = 0.4


def _arrays(seed: int = 0):
    rng = np.random.default_rng(seed)
    q = rng.normal(size=(B, T, H, WIDTH)).astype(np.float32)
    k, v = (rng.normal(size=(B, K, M, WIDTH)).astype(np.float32) for _ in range(2))
    mask = rng.random((B, T, M)) < 0.6
    mask[..., 0] = True
    return q, k, v, mask


def _naive(q, k, v, mask, soft_cap=np.inf) -> np.ndarray:
    q, k, v = (x.astype(np.float64) for x in (q, k, v))
    out = np.zeros(q.shape)
    for b in range(B):
        for head in range(H):
            key_head = head // (H // K)
            scores = SCALE * q[b, :, head] @ k[b, key_head].T
            if soft_cap < np.inf:
                scores = soft_cap * np.tanh(scores / soft_cap)
            scores = np.where(mask[b], scores, -np.inf)
            weights = np.exp(scores - scores.max(axis=1, keepdims=True))
            weights /= weights.sum(axis=1, keepdims=True)
            out[b, :, head] = weights @ v[b, key_head]
    return out


@pytest.mark.fast
def test_equals_the_formula_in_float64():
    q, k, v, mask = _arrays()
    np.testing.assert_allclose(attend(q, k, v, mask, scale=SCALE), _naive(q, k, v, mask), atol=2e-6)


@pytest.mark.fast
def test_the_soft_cap_bends_scores_before_the_mask():
    q, k, v, mask = _arrays()
    capped = attend(q, k, v, mask, scale=SCALE, soft_cap=0.7)
    np.testing.assert_allclose(capped, _naive(q, k, v, mask, soft_cap=0.7), atol=2e-6)


@pytest.mark.fast
def test_large_scores_do_not_overflow():
    q, k, v, mask = _arrays()
    np.testing.assert_allclose(
        attend(q * 1e4, k, v, mask, scale=SCALE), _naive(q * 1e4, k, v, mask), rtol=1e-4, atol=1e-4
    )


@pytest.mark.fast
def test_shared_heads_equal_repeated_heads():
    q, k, v, mask = _arrays()
    repeated = attend(
        q, np.repeat(k, H // K, axis=1), np.repeat(v, H // K, axis=1), mask, scale=SCALE
    )
    np.testing.assert_allclose(attend(q, k, v, mask, scale=SCALE), repeated, atol=2e-6)


def test_gradients_equal_those_of_the_plain_form():
    q, k, v, mask = _arrays()
    weight = np.random.default_rng(1).normal(size=q.shape).astype(np.float32)

    def plain(q, k, v):
        k, v = (jnp.repeat(x, H // K, axis=1) for x in (k, v))
        scores = jnp.einsum("bthd,bhmd->bhtm", q, k) * SCALE
        weights = jax.nn.softmax(jnp.where(mask[:, None], scores, -jnp.inf), axis=-1)
        return jnp.einsum("bhtm,bhmd->bthd", weights, v)

    def gradients(form):
        return jax.grad(lambda *x: (form(*x) * weight).sum(), argnums=(0, 1, 2))(q, k, v)

    found = gradients(lambda *x: attend(*x, mask, scale=SCALE))
    for ours, theirs in zip(found, gradients(plain), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.fast
def test_a_query_that_may_look_nowhere_is_finite_with_its_gradient():
    q, k, v, mask = _arrays()
    mask[0, 2] = False
    out, gradient = jax.value_and_grad(lambda q: attend(q, k, v, mask, scale=SCALE).sum())(q)
    assert np.isfinite(out) and np.isfinite(gradient).all()


@pytest.mark.fast
def test_many_large_values_stay_in_the_range_of_fp16():
    """2000 weights of one and values of 100 add up to 200,000; fp16 ends at 65,504."""
    q, k = np.zeros((1, 1, 2, WIDTH), np.float16), np.zeros((1, 1, 2000, WIDTH), np.float16)
    v = np.full_like(k, 100)
    out = attend(q, k, v, np.ones((1, 1, 2000), bool), scale=SCALE)
    np.testing.assert_allclose(out, 100, rtol=1e-3)


@pytest.mark.fast
def test_packed_mask_looks_back_within_the_segment_only():
    segments = np.array([[1, 1, 2, 2, 0]], np.int32)
    expected = np.zeros((5, 5), bool)
    for query, keys in {0: [0], 1: [0, 1], 2: [2], 3: [2, 3], 4: []}.items():
        expected[query, keys] = True
    np.testing.assert_array_equal(packed_mask(segments)[0], expected)
    np.testing.assert_array_equal(
        packed_mask(segments, window=1)[0], expected & np.eye(5, dtype=bool)
    )


@pytest.mark.fast
def test_cache_mask_ends_at_the_own_position():
    mask = np.asarray(cache_mask(np.array([[0, 3]], np.int32), 5))
    np.testing.assert_array_equal(mask[0].sum(axis=1), [1, 4])


@pytest.mark.fast
def test_cache_mask_with_a_window_holds_the_own_position_and_those_just_before():
    mask = np.asarray(cache_mask(np.array([[0, 3, 4]], np.int32), 6, window=2))
    seen = [np.flatnonzero(row).tolist() for row in mask[0]]
    assert seen == [[0], [2, 3], [3, 4]]
