"""Self-attention on NVIDIA GPUs by cuDNN, through `jax.nn.dot_product_attention`."""

import functools

import jax
import jax.numpy as jnp

from arkjax.models.blockwise import blockwise_attention


def cudnn_attention(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    segment_ids: jax.Array,
    *,
    scale: float,
    window: int = 0,
    kernel: str = "cudnn",
) -> jax.Array:
    """Attention on one device, as `self_attention` says; nothing of size T x T is kept.

    JAX hands cuDNN the length of each row, but no segments: a mask of them would hold B T T
    entries. Rows of one segment, padded at the end, go to the kernel. If any row of this call is
    packed otherwise, which is known only when it runs, all of them are computed blockwise.

    Lowered for CUDA in tests, and computed there with `kernel="xla"`, which takes the same
    arguments; the kernel itself has not been run by them.

    Args:
      q: [B, T, H, h] bf16 or fp16.
      k, v: [B, T, K, h]; K divides H.
      segment_ids: [B, T] int32.
      scale, window: as `self_attention` says.
      kernel: implementation of `jax.nn.dot_product_attention`.

    Returns:
      [B, T, H, h]; zero at padding.
    """
    real = segment_ids > 0
    lengths = real.sum(axis=1, dtype=jnp.int32)
    inside = jnp.arange(q.shape[1])[None, :] < lengths[:, None]
    whole = jnp.where(inside, (segment_ids == segment_ids[:, :1]) & real, True).all()

    @jax.checkpoint
    def blank(x: jax.Array) -> jax.Array:
        """Zero at padding; of the condition only [B, T] is kept for the backward pass."""
        return jnp.where(real[:, :, None, None], x, 0)

    def rows(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        # One key at least, so that a row of padding divides by no empty sum.
        keys = jnp.maximum(lengths, 1)
        return jax.nn.dot_product_attention(
            q,
            k,
            v,
            scale=scale,
            is_causal=True,
            query_seq_lengths=keys,
            key_value_seq_lengths=keys,
            # Keys to the left beside the token itself, and none to the right.
            local_window_size=(window - 1, 0) if window else None,
            implementation=kernel,
        )

    packed = functools.partial(
        blockwise_attention, segment_ids=segment_ids, scale=scale, window=window
    )
    # What the kernel leaves beyond a row's length, in its result and in its gradients, is not said:
    # selecting, rather than multiplying, lets nothing of it through. Outside of the branches, which
    # then keep the same three arrays for the backward pass.
    return blank(jax.lax.cond(whole, rows, packed, blank(q), blank(k), blank(v)))
