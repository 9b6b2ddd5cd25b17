"""Self-attention on TPU by Splash attention, a Pallas kernel that comes with JAX."""

import functools
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

if TYPE_CHECKING:
    from jax.experimental.pallas.ops.tpu.splash_attention import BlockSizes


def splash_attention(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    segment_ids: jax.Array,
    *,
    scale: float,
    window: int = 0,
    soft_cap: float = 0.0,
    interpret: bool = False,
) -> jax.Array:
    """Attention on one device, as `self_attention` says; nothing of size T x T is kept.

    Each key head is read once for all query heads that share it. The kernel has no scale, so the
    queries are multiplied by it first, in their own type. Padding is a segment of its own here:
    its outputs are finite.

    Args:
      q: [B, T, H, h].
      k, v: [B, T, K, h]; K divides H.
      segment_ids: [B, T] int32.
      scale, window, soft_cap: as `self_attention` says.
      interpret: run the kernel's Python on any device, for tests.

    Returns:
      [B, T, H, h].
    """
    from jax.experimental.pallas.ops.tpu.splash_attention import SegmentIds

    T, H = q.shape[1:3]
    block = _block(T)
    pad = -T % block
    q, k, v = (
        jnp.pad(x.swapaxes(1, 2), ((0, 0), (0, 0), (0, pad), (0, 0))) for x in (q * scale, k, v)
    )
    segment_ids = jnp.pad(segment_ids, ((0, 0), (0, pad)))
    kernel = _kernel(H, T + pad, block, window, soft_cap, interpret)
    out = jax.vmap(kernel)(q, k, v, SegmentIds(segment_ids, segment_ids))
    return out.swapaxes(1, 2)[:, :T]


def _block(length: int) -> int:
    """Tokens in a block: large ones are fast, but not where they pad by more than an eighth."""
    return next((b for b in (512, 256) if -length % b <= length // 8), 128)


def _block_sizes(block: int) -> "BlockSizes":
    from jax.experimental.pallas.ops.tpu.splash_attention import BlockSizes

    return BlockSizes(
        block_q=block,
        block_kv=block,
        block_kv_compute=block,
        block_q_dkv=block,
        block_kv_dkv=block,
        block_kv_dkv_compute=block,
        block_q_dq=block,
        block_kv_dq=block,
    )


@functools.lru_cache(maxsize=32)
def _kernel(heads: int, length: int, block: int, window: int, soft_cap: float, interpret: bool):
    """The kernel for all heads of one row; which blocks it visits is found out once, in NumPy."""
    from jax.experimental.pallas.ops.tpu import splash_attention as splash

    shape = (length, length)
    mask = splash.LocalMask(shape, (window - 1, 0), 0) if window else splash.CausalMask(shape)
    # Outside of any trace, so that the kernel may be kept for the next one.
    with jax.ensure_compile_time_eval():
        kernel = splash.make_splash_mha(
            splash.MultiHeadMask([mask] * heads),
            block_sizes=_block_sizes(block),
            head_shards=1,
            q_seq_shards=1,
            attn_logits_soft_cap=soft_cap or None,
            interpret=interpret,
        )
    # On no device: the program that uses it may be for others than are here.
    return jax.tree.map(np.asarray, kernel)
