"""Attention of many sequences over prefixes that they share, of which one copy is kept.

The keys of a prefix are read once for all who share it, and their queries become rows of one
product; what each sequence has for itself is attended to apart, and the two are merged exactly
(Hydragen, arXiv 2402.05099, section 3.1; the sums as in arXiv 1805.02867, section 3).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from arkjax.models.attention import Part, attend_part, attended, nothing_seen, visible
from arkjax.models.cache import KVCache

# Sequences whose queries are taken together. One number, not several from which the best is
# chosen: the shape of a product, and with it the last bit, shall not depend on who shares a prefix.
# On CPU 4 is slower where many share, 16 where few do.
WIDTH = 8
# Keys that are read at a time, so that a prefix costs what it has, and not what a row may hold.
_BLOCK = 256


class Prefixes(NamedTuple):
    """Where the beginnings of S sequences are.

    Attributes:
      row: [S] int32, the row of a pool.
      length: [S] int32, tokens; 0 is none.
    """

    row: jax.Array
    length: jax.Array


class Entries(NamedTuple):
    """Sequences by the row that they share, at most G in an entry; further ones have their own.

    Attributes:
      row: [S] int32.
      slots: [S, G] int32, the sequences; S where there is none.
      count: [] int32, how many entries there are; what is behind them has no meaning.
    """

    row: jax.Array
    slots: jax.Array
    count: jax.Array


class Pool(NamedTuple):
    """Prefixes that S sequences begin with.

    Attributes:
      cache: P rows.
      prefixes: of the sequences.
      entries: who shares what.
    """

    cache: KVCache
    prefixes: Prefixes
    entries: Entries


def entries_of(prefixes: Prefixes, busy: jax.Array, width: int = WIDTH) -> Entries:
    """Put sequences that share a row together.

    Args:
      prefixes: of S sequences.
      busy: [S] bool; others are left out.
      width: G, at most S.
    """
    (S,) = busy.shape
    width = min(width, S)
    none = jnp.iinfo(jnp.int32).max
    row = jnp.where(busy & (prefixes.length > 0), prefixes.row, none)
    order = jnp.argsort(row, stable=True)
    row, here = row[order], jnp.arange(S)
    new = jnp.concatenate([jnp.ones(1, bool), row[1:] != row[:-1]])
    place = (here - jax.lax.cummax(jnp.where(new, here, 0))) % width
    shares = row < none
    opens = (place == 0) & shares
    entry = jnp.where(shares, jnp.cumsum(opens) - 1, S)
    return Entries(
        row=jnp.zeros(S, jnp.int32).at[entry].set(row, mode="drop"),
        slots=jnp.full((S, width), S).at[entry, place].set(order, mode="drop"),
        count=opens.sum(),
    )


def attend_with_prefixes(
    q: jax.Array,
    own: tuple[Any, Any],
    mask: jax.Array,
    pool: Pool,
    layer: int,
    positions: jax.Array,
    *,
    scale: float,
    window: int = 0,
    soft_cap: float = 0.0,
) -> jax.Array:
    """As `attention.attend` over the prefix of each sequence and then what it has for itself.

    Args:
      q: [S, T, H, h].
      own: keys and values [S, K, M, h] of what follows the prefixes, quantised if the pool is.
      mask: [S, T, M] bool, which of those a query may look at: its own at least.
      pool: the prefixes.
      layer: which arrays of the pool.
      positions: [S, T] int32, where queries stand in their sequence, behind its prefix.
      scale, soft_cap: as for `attend`.
      window: tokens that a token sees, itself included; 0 sees all before it.

    Returns:
      [S, T, H, h].
    """
    keys, values = pool.cache.keys[layer], pool.cache.values[layer]
    shape = {"scale": scale, "soft_cap": soft_cap}
    part = _over_prefixes(q, (keys, values), pool, positions, window, **shape)
    return attended(merged(part, attend_part(q, *own, mask, **shape)), q)


def merged(a: Part, b: Part) -> Part:
    """Attention over the keys of both."""
    peak = jnp.maximum(a.peak, b.peak)
    of_a, of_b = jnp.exp(a.peak - peak), jnp.exp(b.peak - peak)
    return Part(a.out * of_a + b.out * of_b, a.total * of_a + b.total * of_b, peak)


def _over_prefixes(
    q: jax.Array,
    stored: tuple[Any, Any],
    pool: Pool,
    positions: jax.Array,
    window: int,
    *,
    scale: float,
    soft_cap: float,
) -> Part:
    S, T, H, h = q.shape
    (_, K, L, _), G = jax.tree.leaves(stored)[0].shape, pool.entries.slots.shape[1]
    N = min(_BLOCK, L)
    everyone = nothing_seen(S, K, H // K * T, h)

    def entry(e: jax.Array, parts: Part) -> Part:
        row, slots = pool.entries.row[e], pool.entries.slots[e]
        queries = q.at[slots].get(mode="clip").reshape(1, G * T, H, h)
        length = pool.prefixes.length.at[slots].get(mode="fill", fill_value=0)
        at = positions.at[slots].get(mode="fill", fill_value=2**30)

        def block(i: jax.Array, part: Part) -> Part:
            # The last one begins earlier, so that it ends where the row does.
            start = jnp.minimum(i * N, L - N)
            keys, values = jax.tree.map(
                lambda x: jax.lax.dynamic_slice(
                    x, (row, 0, start, 0)[: x.ndim], (1, K, N, *x.shape[3:])
                ),
                stored,
            )
            key = (start + jnp.arange(N))[None, None]
            seen = visible(at[:, :, None], key, window) & (key >= i * N)
            seen = (seen & (key < length[:, None, None])).reshape(1, G * T, N)
            new = attend_part(queries, keys, values, seen, scale=scale, soft_cap=soft_cap)
            return merged(part, new)

        first = jnp.maximum(at.min() - window + 1, 0) // N if window else 0
        found = jax.lax.fori_loop(
            first, -(-length.max() // N), block, nothing_seen(1, K, H // K * G * T, h)
        )

        def put(to: jax.Array, of: jax.Array) -> jax.Array:
            of = of.reshape(K, H // K, G, T, -1).transpose(2, 0, 1, 3, 4)
            return to.at[slots].set(of.reshape(G, *to.shape[1:]), mode="drop")

        return jax.tree.map(put, parts, found)

    return jax.lax.fori_loop(0, pool.entries.count, entry, everyone)
