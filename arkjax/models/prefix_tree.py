"""Packed rows in which segments go on from others: what several share is read once."""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class PrefixTree(NamedTuple):
    """Who sees whom in rows whose segments form trees, laid out depth first.

    Behind a segment stand all that go on from it, before anything else does, so the tokens that
    may see a token are those from itself up to the end of this stretch.

    Attributes:
      ends: [B, T] int32, the column behind the last token that may see this one; 0 at padding.
      positions: [B, T] int32, counted from the start of the root: windows are measured by them.
    """

    ends: jax.Array
    positions: jax.Array


def prefix_tree(segment_ids: jax.Array, parents: jax.Array, positions: jax.Array) -> PrefixTree:
    """The trees of packed rows.

    Args:
      segment_ids: [B, T] int32, from 0, which is padding, up to T.
      parents: [B, T] int32, the segment that each token's segment goes on from, 0 where there is
        none. Parents may have parents. All that goes on from a segment stands directly behind it.
      positions: [B, T] int32, going on from the parent's.
    """
    T = segment_ids.shape[1]

    def of_row(segments: jax.Array, parents: jax.Array) -> jax.Array:
        nothing = jnp.zeros(T + 1, jnp.int32)
        ends = nothing.at[segments].max(jnp.arange(1, T + 1, dtype=jnp.int32))
        parent = nothing.at[segments].max(parents)

        def raised(ends: jax.Array) -> jax.Array:
            return ends.at[parent].max(ends).at[0].set(0)

        # One level a pass; ends only rise, so that it stops whatever `parents` says.
        ends, _ = jax.lax.while_loop(
            lambda both: (both[0] != both[1]).any(),
            lambda both: (raised(both[0]), both[0]),
            (raised(ends), ends.at[0].set(0)),
        )
        return ends[segments]

    return PrefixTree(jax.vmap(of_row)(segment_ids, parents), positions)


def tree_mask(query: PrefixTree, key: PrefixTree, at: jax.Array, of: jax.Array, window: int = 0):
    """Whether queries may look at keys.

    Args:
      query: [B, M] of the queries.
      key: [B, N] of the keys.
      at: [M] int32, the queries' columns.
      of: [N] int32, the keys' columns.
      window: tokens that a token sees on the path to it, itself included; 0 sees all before it.

    Returns:
      [B, M, N] bool.
    """
    at, of = at[None, :, None], of[None, None, :]
    seen = (of <= at) & (at < key.ends[:, None, :])
    if not window:
        return seen
    return seen & (query.positions[:, :, None] - key.positions[:, None, :] < window)
