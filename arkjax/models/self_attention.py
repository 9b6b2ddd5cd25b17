"""Attention over whole sequences, for training and scoring: one meaning, three implementations."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from arkjax.models.attention import attend, packed_mask
from arkjax.models.attention_choice import Choice, Situation, choose
from arkjax.models.blockwise import blockwise_attention
from arkjax.models.cudnn import cudnn_attention
from arkjax.models.prefix_tree import PrefixTree, tree_mask
from arkjax.models.splash import splash_attention
from arkjax.sharding import BATCH_AXES

# Tokens of a row from which on "xla" computes blockwise. There it takes about half the time of the
# dense form on CPU (forward and backward, H 8, K 2, h 64), and at 2,048 a quarter of its memory.
BLOCKWISE_FROM = 1024


def self_attention(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    segment_ids: jax.Array,
    *,
    scale: float,
    window: int = 0,
    soft_cap: float = 0.0,
    implementation: str = "auto",
    mesh: Mesh | None = None,
    tree: PrefixTree | None = None,
) -> jax.Array:
    """Causal attention within packed segments, with fewer key than query heads (GQA).

    Query i sees key j if both are of one segment, j <= i, and i - j < window. Its weights are the
    softmax, in fp32, of c tanh(s / c) with s = scale q k (Gemma 2, arXiv 2408.00118, section 2).

    "xla" runs everywhere: dense below `BLOCKWISE_FROM` tokens, blockwise from there on. "splash"
    is a kernel for TPUs; on CPU it is interpreted, slowly. "cudnn" is for NVIDIA GPUs; batches with
    packed rows are computed blockwise there. "auto" takes the platform's kernel if it can, which is
    never so with a `tree`. Beyond the dense form nothing of size T x T is kept, forward or
    backward.

    Args:
      q: [B, T, H, h].
      k, v: [B, T, K, h]; K divides H.
      segment_ids: [B, T] int32; 0 is padding, which nobody looks at. What padding itself gets is
        finite and unspecified: where it carries no loss, it gives no gradient.
      scale: multiplies queries times keys.
      window: tokens that a token sees, itself included; 0 sees all before it.
      soft_cap: c; 0 has none.
      implementation: "auto", "xla", "cudnn" or "splash": `model.attention`.
      mesh: the devices that the arrays lie on, rows over its batch axes, heads over "tensor"; None
        is one device of the default kind.
      tree: of segments that go on from others: their tokens see those of all segments before them
        on the path from the root, and windows reach back along this path.

    Returns:
      [B, T, H, h].

    Raises:
      ConfigError: if an implementation is asked for by name that cannot run here.
    """
    choice = choice_for(
        q, k, soft_cap=soft_cap, implementation=implementation, mesh=mesh, shared=tree is not None
    )
    # A window that reaches everywhere is none: the kernels then skip less and check less.
    window = 0 if window >= q.shape[1] else window
    if choice.implementation == "xla":
        return _xla(q, k, v, segment_ids, tree, scale=scale, window=window, soft_cap=soft_cap)
    if choice.implementation == "cudnn":
        kernel = functools.partial(cudnn_attention, scale=scale, window=window)
    else:
        kernel = functools.partial(
            splash_attention,
            scale=scale,
            window=window,
            soft_cap=soft_cap,
            interpret=_device(mesh).platform == "cpu",
        )
    return on_each_device(kernel, mesh)(q, k, v, segment_ids)


def choice_for(
    q: jax.Array,
    k: jax.Array,
    *,
    soft_cap: float,
    implementation: str,
    mesh: Mesh | None,
    shared: bool = False,
) -> Choice:
    """What `self_attention` runs for these arguments, and why.

    Raises:
      ConfigError: as `self_attention`.
    """
    device = _device(mesh)
    shards = dict(mesh.shape) if mesh is not None else {}
    batch_shards = 1
    for axis in BATCH_AXES:
        batch_shards *= shards.get(axis, 1)
    situation = Situation(
        platform=device.platform,
        capability=str(getattr(device, "compute_capability", "")),
        dtype=q.dtype.name,
        batch=q.shape[0],
        heads=q.shape[2],
        kv_heads=k.shape[2],
        head_dim=q.shape[3],
        soft_cap=soft_cap,
        batch_shards=batch_shards,
        head_shards=shards.get("tensor", 1),
        shared_prefixes=shared,
    )
    return choose(implementation, situation)


def _device(mesh: Mesh | None) -> jax.Device:
    # The mesh, not the process, says what is compiled for: it may hold devices that are not here.
    return jax.devices()[0] if mesh is None else mesh.devices.flat[0]


def _xla(q, k, v, segment_ids, tree, *, scale: float, window: int, soft_cap: float) -> jax.Array:
    if q.shape[1] >= BLOCKWISE_FROM:
        return blockwise_attention(
            q, k, v, segment_ids, tree, scale=scale, window=window, soft_cap=soft_cap
        )
    if tree is None:
        mask = packed_mask(segment_ids, window)
    else:
        columns = jnp.arange(q.shape[1])
        mask = tree_mask(tree, tree, columns, columns, window)
    return attend(q, k.swapaxes(1, 2), v.swapaxes(1, 2), mask, scale=scale, soft_cap=soft_cap)


def on_each_device(kernel: Callable[..., jax.Array], mesh: Mesh | None) -> Callable[..., jax.Array]:
    """The compiler cannot split a kernel: every device runs it on its own rows and heads."""
    if mesh is None or mesh.size == 1:
        return kernel
    rows = PartitionSpec(BATCH_AXES, None, "tensor", None)
    segments = PartitionSpec(BATCH_AXES, None)
    # Kernels do not say which axes their results vary over, so that cannot be checked.
    return jax.shard_map(
        kernel, mesh=mesh, in_specs=(rows, rows, rows, segments), out_specs=rows, check_vma=False
    )
