"""Self-attention in memory that grows with the sequence, not with its square, on any device."""

import functools

import jax
import jax.numpy as jnp

from arkjax.models.attention import attend, visible
from arkjax.models.prefix_tree import PrefixTree, tree_mask

_BLOCK = 256
# Without a window, queries in the first quarter of a row are scored against keys in that quarter,
# and so on. So 5/8 of all pairs are scored, where the causal half would do: 1.6 times faster on CPU
# than to score all, and only four programs to compile.
_SPANS = 4


def blockwise_attention(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    segment_ids: jax.Array,
    tree: PrefixTree | None = None,
    *,
    scale: float,
    window: int = 0,
    soft_cap: float = 0.0,
    block: int = _BLOCK,
) -> jax.Array:
    """Attention of one block of queries after another, as `self_attention` says.

    The scores of a block exist while it is computed, and again in the backward pass, which is
    handed the arguments and nothing else: memory is O(T block). With a window, a block reads only
    the keys in its reach; in a tree these may be anywhere before it.

    Args:
      q: [B, T, H, h].
      k, v: [B, T, K, h]; K divides H.
      segment_ids: [B, T] int32.
      tree, scale, window, soft_cap: as `self_attention` says.
      block: queries in a block.

    Returns:
      [B, T, H, h].
    """
    whole = functools.partial(_blocks, scale=scale, window=window, soft_cap=soft_cap, block=block)
    return jax.checkpoint(whole)(q, k, v, segment_ids, tree)


def _blocks(q, k, v, segment_ids, tree, *, scale: float, window: int, soft_cap: float, block: int):
    B, T, H, h = q.shape
    pad = -T % block
    if pad:
        q, k, v = (jnp.pad(x, ((0, 0), (0, pad), (0, 0), (0, 0))) for x in (q, k, v))
        segment_ids, tree = (
            jax.tree.map(lambda x: jnp.pad(x, ((0, 0), (0, pad))), x) for x in (segment_ids, tree)
        )
    blocks = (T + pad) // block
    # A block's keys: its own block, and those before it that the window of its first query meets.
    reach = blocks
    if window and tree is None:
        reach = min(blocks, 1 + -(-(window - 1) // block))
    # Gradients of keys and values are summed over blocks of queries: in fp32, whatever their type.
    keys, values = (x.swapaxes(1, 2).astype(jnp.float32) for x in (k, v))

    def span(first: int, last: int) -> jax.Array:
        """Blocks from `first` to before `last`: [B, last - first blocks, H, h]."""
        read = block * min(reach, last)

        @jax.checkpoint
        def one(q: jax.Array, start: jax.Array) -> jax.Array:
            """Queries q [B, block, H, h] from position `start` on."""
            begin = jnp.maximum(start + block - read, 0)

            def cut(x: jax.Array, axis: int) -> jax.Array:
                if reach >= last:
                    return jax.lax.slice_in_dim(x, 0, read, axis=axis)
                return jax.lax.dynamic_slice_in_dim(x, begin, read, axis)

            def here(x: jax.Array) -> jax.Array:
                return jax.lax.dynamic_slice_in_dim(x, start, block, 1)

            query, key = start + jnp.arange(block), begin + jnp.arange(read)
            if tree is None:
                own, others = here(segment_ids)[:, :, None], cut(segment_ids, 1)[:, None, :]
                mask = visible(query[None, :, None], key[None, None, :], window)
                mask = mask & (own == others) & (others > 0)
            else:
                keys_tree = jax.tree.map(lambda x: cut(x, 1), tree)
                mask = tree_mask(jax.tree.map(here, tree), keys_tree, query, key, window)
            seen = (cut(x, 2).astype(q.dtype) for x in (keys, values))
            return attend(q, *seen, mask, scale=scale, soft_cap=soft_cap)

        queries = q[:, first * block : last * block].reshape(B, -1, block, H, h).swapaxes(0, 1)
        starts = jnp.arange(first, last) * block
        out = jax.lax.map(lambda x: one(*x), (queries, starts))
        return out.swapaxes(0, 1).reshape(B, -1, H, h)

    edges = [blocks * i // _SPANS for i in range(_SPANS + 1)] if reach == blocks else [0, blocks]
    spans = [span(a, b) for a, b in zip(edges[:-1], edges[1:], strict=True) if a < b]
    return jnp.concatenate(spans, axis=1)[:, :T]
