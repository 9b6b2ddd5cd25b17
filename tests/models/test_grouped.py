"""Attention over shared prefixes against attention over each sequence written out whole."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arkjax.models.attention import attend_part, attended, nothing_seen
from arkjax.models.cache import KVCache
from arkjax.models.grouped import Pool, Prefixes, attend_with_prefixes, entries_of, merged

S, H, K, WIDTH, P, M = 5, 6, 2, 4, 3, 9
# More than two blocks of keys, the last of which is not whole.
LONG = 600
SCALE = 0.4

# Rows of the pool, tokens of it, and those that each sequence has behind them, the query's with it.
# A prefix that fills its row, one of a block to the token, one within the first; two have none.
ROWS = np.array([2, 1, 0, 2, 2], np.int32)
LENGTHS = np.array([LONG, 256, 0, LONG, 30], np.int32)
OWN = np.array([4, 1, 9, 7, 5], np.int32)


def _arrays(seed: int, queries: int):
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> jax.Array:
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    pool = normal(P, K, LONG, WIDTH), normal(P, K, LONG, WIDTH)
    own = normal(S, K, M, WIDTH), normal(S, K, M, WIDTH)
    return normal(S, queries, H, WIDTH), own, pool


def _naive(q, own, pool, lengths, positions, window, soft_cap) -> np.ndarray:
    """In float64: keys of prefix and rest in one row, one softmax over them."""
    q, own, pool = jax.tree.map(lambda x: np.asarray(x, np.float64), (q, own, pool))
    out = np.zeros(q.shape)
    for s, t, head in itertools.product(range(S), range(q.shape[1]), range(H)):
        n, at, key_head = lengths[s], positions[s, t], head // (H // K)
        keys, values = (
            np.concatenate([b[ROWS[s], key_head, :n], a[s, key_head]])
            for a, b in zip(own, pool, strict=True)
        )
        first = max(0, at - window + 1) if window else 0
        scores = SCALE * keys[first : at + 1] @ q[s, t, head]
        if soft_cap:
            scores = soft_cap * np.tanh(scores / soft_cap)
        weights = np.exp(scores - scores.max())
        out[s, t, head] = weights / weights.sum() @ values[first : at + 1]
    return out


def _grouped(q, own, pool, lengths, positions, window, soft_cap, width=2, busy=None):
    prefixes = Prefixes(jnp.asarray(ROWS), jnp.asarray(lengths))
    entries = entries_of(prefixes, jnp.ones(S, bool) if busy is None else busy, width)
    relative = positions - lengths[:, None]
    distance = jnp.asarray(relative)[:, :, None] - jnp.arange(M)[None, None]
    mask = (distance >= 0) & (distance < (window or 1000))
    positions = jnp.asarray(positions)
    shared = Pool(KVCache((None, pool[0]), (None, pool[1])), prefixes, entries)
    return attend_with_prefixes(
        q, own, mask, shared, 1, positions, scale=SCALE, window=window, soft_cap=soft_cap
    )


# Windows that end among the own tokens, in the first block before them, two blocks before.
@pytest.mark.fast
@pytest.mark.parametrize("window", [0, 3, 40, 400])
@pytest.mark.parametrize("soft_cap", [0.0, 0.7])
def test_equals_attention_over_prefix_and_rest_in_one_row(window, soft_cap):
    q, own, pool = _arrays(0, 1)
    positions = (LENGTHS + OWN - 1)[:, None]
    found = _grouped(q, own, pool, LENGTHS, positions, window, soft_cap)
    expected = _naive(q, own, pool, LENGTHS, positions, window, soft_cap)
    # fp32, sums of up to 600 terms.
    np.testing.assert_allclose(found, expected, atol=5e-6)


@pytest.mark.fast
def test_several_queries_of_each_sequence():
    q, own, pool = _arrays(1, 3)
    positions = (LENGTHS + np.maximum(OWN, 3) - 3)[:, None] + np.arange(3)[None]
    found = _grouped(q, own, pool, LENGTHS, positions, 5, 0.0)
    expected = _naive(q, own, pool, LENGTHS, positions, 5, 0.0)
    np.testing.assert_allclose(found, expected, atol=5e-6)


@pytest.mark.fast
def test_without_any_prefix_it_is_the_attention_over_what_is_there():
    q, own, pool = _arrays(2, 1)
    none, positions = np.zeros(S, np.int32), OWN[:, None] - 1
    found = _grouped(q, own, pool, none, positions, 0, 0.0)
    np.testing.assert_allclose(found, _naive(q, own, pool, none, positions, 0, 0.0), atol=2e-6)


@pytest.mark.fast
def test_large_scores_do_not_overflow():
    q, own, pool = _arrays(3, 1)
    positions = (LENGTHS + OWN - 1)[:, None]
    found = _grouped(q * 1e4, own, pool, LENGTHS, positions, 0, 0.0)
    expected = _naive(q * 1e4, own, pool, LENGTHS, positions, 0, 0.0)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_who_shares_an_entry_changes_no_bit():
    """Company moves the blocks that are gone through: all others are masked, and add exactly 0."""
    q, own, pool = _arrays(4, 1)
    positions = (LENGTHS + OWN - 1)[:, None]
    together = jax.jit(_grouped, static_argnums=(5, 6, 7))
    for window in (0, 40):
        arguments = (q, own, pool, LENGTHS, positions, window, 0.0, 4)
        whole = together(*arguments, jnp.ones(S, bool))
        for s in range(S):
            alone = together(*arguments, jnp.arange(S) == s)
            np.testing.assert_array_equal(alone[s], whole[s])


@pytest.mark.fast
def test_parts_merge_in_any_order_and_nothing_adds_nothing():
    q, own, _ = _arrays(5, 1)

    def part(mask):
        return attend_part(q, *own, np.broadcast_to(mask, (S, 1, M)), scale=SCALE)

    here = np.arange(M)[None, None]
    a, b, c = part(here < 2), part((here >= 2) & (here < 3)), part(here >= 3)
    whole = attended(part(here >= 0), q)
    for parts in itertools.permutations((a, b, c)):
        total = merged(merged(*parts[:2]), parts[2])
        np.testing.assert_allclose(attended(total, q), whole, atol=1e-6)
    for empty in (part(here < 0), nothing_seen(S, K, H // K, WIDTH)):
        for both in (merged(a, empty), merged(empty, a)):
            np.testing.assert_array_equal(attended(both, q), attended(a, q))


@pytest.mark.fast
def test_an_entry_holds_those_who_share_a_row_and_no_more_than_it_may():
    @settings(max_examples=50, deadline=None, derandomize=True)
    @given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), st.booleans()), min_size=6))
    def check(given):
        rows, lengths, busy = (np.array(column)[:6] for column in zip(*given, strict=True))
        prefixes = Prefixes(jnp.asarray(rows, jnp.int32), jnp.asarray(lengths, jnp.int32))
        for width in (1, 2, 4):
            entries = entries_of(prefixes, jnp.asarray(busy), width)
            count, seen = int(entries.count), []
            for row, slots in zip(entries.row[:count], np.asarray(entries.slots), strict=False):
                members = slots[slots < 6]
                assert 0 < len(members) <= width and set(rows[members]) == {int(row)}
                seen += members.tolist()
            wanted = (lengths > 0) & busy
            assert sorted(seen) == np.flatnonzero(wanted).tolist()
            # As few as can be: a row is read once for each that is begun.
            assert count == sum(-(-(wanted & (rows == row)).sum() // width) for row in range(4))

    check()
