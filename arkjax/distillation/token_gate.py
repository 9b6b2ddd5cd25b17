"""Which tokens the teacher's contexts agree on: a gate that needs no distribution to be kept."""

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from arkjax.distillation.chunks import Chunk, for_each_chunk
from arkjax.distillation.logits import head_product
from arkjax.distillation.teacher import TeacherBatch
from arkjax.sharding import BATCH_AXES

# A share is a sum of few weights in fp32: the tolerance is for its rounding alone.
_ROUNDING = 1e-5


def linear_argmax(
    hidden: jax.Array,
    head: jax.Array,
    mask: jax.Array,
    *,
    chunk_size: int = 512,
    vocab_size: int | None = None,
    mesh: Mesh | None = None,
) -> jax.Array:
    """The most probable token at each position, C positions' logits at a time.

    A soft cap is monotonous and needs no mention.

    Args:
      hidden: `[..., D]`.
      head: `[D, V]`.
      mask: `[...]` bool, positions that are asked for; others get 0 and cost next to nothing.
      chunk_size: C.
      vocab_size: number of real tokens where the head is padded beyond it; None: the whole head.
      mesh: with it leading axis 0 is split over its batch axes, and each device takes its share.

    Returns:
      `[...]` int32; of equals the smallest id.
    """
    vocab_size = head.shape[1] if vocab_size is None else vocab_size

    def share(hidden: jax.Array, head: jax.Array, mask: jax.Array, axes=()) -> jax.Array:
        flat = hidden.reshape(-1, hidden.shape[-1])

        def step(chunk: Chunk, best: jax.Array) -> jax.Array:
            z = head_product(chunk.read(flat), head)
            # Masked, not cut: an uneven cut of a sharded axis would move it between devices.
            z = jnp.where(jax.lax.broadcasted_iota(jnp.int32, z.shape, 1) < vocab_size, z, -jnp.inf)
            return chunk.write(best, jnp.argmax(z, axis=-1))

        none = jnp.zeros(flat.shape[0], jnp.int32)
        best = for_each_chunk(step, mask.reshape(-1), none, chunk_size=chunk_size, axes=axes)
        return best.reshape(mask.shape)

    if mesh is None or mesh.size == 1:
        return share(hidden, head, mask)
    split = PartitionSpec(BATCH_AXES)
    sharded = jax.shard_map(
        lambda *args: share(*args, axes=BATCH_AXES),
        mesh=mesh,
        in_specs=(split, PartitionSpec(), split),
        out_specs=split,
        axis_names=set(BATCH_AXES),
        check_vma=False,
    )
    # A shard_map that leaves axes to the compiler needs one: jit, also when called without.
    return jax.jit(sharded)(hidden, head, mask)


def agreement_gate(
    teacher_hidden: jax.Array,
    contexts: TeacherBatch,
    head: jax.Array,
    agreement: float,
    *,
    chunk_size: int = 512,
    vocab_size: int | None = None,
    mesh: Mesh | None = None,
) -> jax.Array:
    """1 where contexts of enough weight name the same token as the most probable, else 0.

    A teacher position that several student positions look at is looked at once.

    Args:
      teacher_hidden: `[Bt, Tt, D]`.
      contexts: what the teacher has read.
      head: `[D, V]`, the teacher's.
      agreement: the share of the weight that one token must gather.
      chunk_size, vocab_size, mesh: as of `linear_argmax`.

    Returns:
      `[B, T]` float32; 0 where there is nothing to predict.
    """
    sources, weights = jnp.asarray(contexts.sources), jnp.asarray(contexts.weights)
    shape = teacher_hidden.shape[:-1]
    asked = jnp.zeros(shape[0] * shape[1], bool).at[sources].max(weights > 0).reshape(shape)
    best = linear_argmax(
        teacher_hidden, head, asked, chunk_size=chunk_size, vocab_size=vocab_size, mesh=mesh
    )
    named = best.reshape(-1)[sources]
    gathered = jnp.zeros(weights.shape[1:], jnp.float32)
    for token in named:
        same = jnp.where(named == token[None], weights, 0.0).sum(axis=0)
        gathered = jnp.maximum(gathered, same)
    # Nothing is gathered where there is nothing to predict.
    return (gathered >= agreement - _ROUNDING).astype(jnp.float32)
