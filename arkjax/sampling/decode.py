"""The compiled steps of the engine: prefill prefixes, admit calls into slots, decode a block.

A lane is a pool of slots of one length. Its arrays live on the device and are donated from step to
step; the host sees only the few numbers that come back from each.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from arkjax.models.transformer import KVCache, Transformer, init_cache
from arkjax.sampling.sampler import RowSampling, sample
from arkjax.sharding import BATCH_AXES


class Slots(NamedTuple):
    """The S slots of a lane.

    Attributes:
      cache: keys and values, M positions a slot.
      token: [S] int32, the last token drawn, not yet in the cache.
      position: [S] int32, the position of that token.
      remaining: [S] int32, tokens that the call may still generate; 0 marks a free slot.
      stop_ids: [S, E] int32, tokens that end the call, padded with -1.
      sampling: how each slot is sampled.
    """

    cache: KVCache
    token: jax.Array
    position: jax.Array
    remaining: jax.Array
    stop_ids: jax.Array
    sampling: RowSampling


class Admission(NamedTuple):
    """R calls that enter slots together; unused rows have slot S, which is written nowhere.

    Attributes:
      slot: [R] int32.
      prefix_row: [R] int32, row of the prefix pool that holds the call's prefix.
      prefix_len: [R] int32.
      suffix: [R, T] int32, the prompt after the prefix, padded at the end.
      suffix_len: [R] int32, at least 1.
      max_tokens: [R] int32.
      stop_ids: [R, E] int32.
      sampling: how each row is sampled.
    """

    slot: jax.Array
    prefix_row: jax.Array
    prefix_len: jax.Array
    suffix: jax.Array
    suffix_len: jax.Array
    max_tokens: jax.Array
    stop_ids: jax.Array
    sampling: RowSampling


class Drawn(NamedTuple):
    """Tokens of a block of n steps: each array is [n, S]; `valid` marks the steps that count."""

    token: jax.Array
    logprob: jax.Array
    sampling_logprob: jax.Array
    valid: jax.Array


def place(tree, mesh: Mesh | None):
    """Lay slots, or rows to be prefilled, over the data axes of a mesh, and key heads over tensor.

    The steps below keep what they are given where it lies. Axes that do not divide stay whole.

    Args:
      tree: arrays with slots or rows in front; those of a cache have key heads behind them.
      mesh: None leaves the arrays as they are.
    """
    if mesh is None:
        return tree
    spread = math.prod(mesh.shape[axis] for axis in BATCH_AXES)

    def lay(x: jax.Array) -> jax.Array:
        axes = [BATCH_AXES if x.shape[0] % spread == 0 else None]
        if x.ndim == 4 and x.shape[1] % mesh.shape["tensor"] == 0:
            axes.append("tensor")
        return jax.device_put(x, NamedSharding(mesh, PartitionSpec(*axes)))

    return jax.tree.map(lay, tree)


def empty_slots(config, slots: int, max_len: int, num_stop_ids: int) -> Slots:
    """A lane in which every slot is free."""
    zeros = functools.partial(jnp.zeros, (slots,))
    sampling = RowSampling(
        zeros(jnp.float32), zeros(jnp.int32), jnp.ones(slots), zeros(jnp.float32), zeros(jnp.uint32)
    )
    return Slots(
        cache=init_cache(config, slots, max_len),
        token=zeros(jnp.int32),
        position=zeros(jnp.int32),
        remaining=zeros(jnp.int32),
        stop_ids=jnp.full((slots, num_stop_ids), -1, jnp.int32),
        sampling=sampling,
    )


@functools.partial(jax.jit, static_argnums=0, donate_argnums=2)
def extend_prefixes(
    graph: nnx.GraphDef,
    weights: nnx.State,
    pool: KVCache,
    pool_rows: jax.Array,
    tokens: jax.Array,
) -> KVCache:
    """Prefill R prefixes and keep them in the pool.

    Args:
      graph, weights: the model, split.
      pool: [P, K, M, h] keys and values of a layer.
      pool_rows: [R] int32, where each prefix goes; P means nowhere.
      tokens: [R, T] int32, padded at the end; what padding leaves behind is never looked at.

    Returns:
      The pool with the prefixes in it.
    """
    model: Transformer = nnx.merge(graph, weights)
    R, T = tokens.shape
    positions = jnp.broadcast_to(jnp.arange(T)[None], (R, T))
    _, fresh = model.extend(tokens, positions, init_cache(model.config, R, pool.max_len))

    def put(old: jax.Array, new: jax.Array) -> jax.Array:
        return old.at[pool_rows].set(new, mode="drop")

    return jax.tree.map(put, pool, fresh)


@functools.partial(jax.jit, static_argnums=0, donate_argnums=3)
def admit(
    graph: nnx.GraphDef, weights: nnx.State, pool: KVCache, slots: Slots, new: Admission
) -> tuple[Slots, Drawn]:
    """Fork prefixes into slots, prefill the rest of each prompt, and draw each first token.

    Returns:
      The slots and what was drawn, as a block of one step over the R rows.
    """
    model: Transformer = nnx.merge(graph, weights)
    T = new.suffix.shape[1]
    forked = jax.tree.map(lambda x: x.at[new.prefix_row].get(mode="clip"), pool)
    positions = new.prefix_len[:, None] + jnp.arange(T)[None]
    hidden, cache = model.extend(new.suffix, positions, forked)
    last = jnp.take_along_axis(hidden, (new.suffix_len - 1)[:, None, None], axis=1)[:, 0]
    position = new.prefix_len + new.suffix_len
    token, logprob, sampling_logprob = sample(model.logits(last), new.sampling, position)
    remaining = _remaining(token, new.stop_ids, new.max_tokens)

    def put(old: jax.Array, fresh: jax.Array) -> jax.Array:
        return old.at[new.slot].set(fresh, mode="drop")

    fresh = Slots(cache, token, position, remaining, new.stop_ids, new.sampling)
    valid = new.slot < slots.token.shape[0]
    drawn = Drawn(token[None], logprob[None], sampling_logprob[None], valid[None])
    return jax.tree.map(put, slots, fresh), drawn


@functools.partial(jax.jit, static_argnums=(0, 3), donate_argnums=2)
def decode_block(
    graph: nnx.GraphDef, weights: nnx.State, slots: Slots, steps: int, leave_at: jax.Array
) -> tuple[Slots, Drawn]:
    """Draw up to `steps` tokens in every busy slot.

    Args:
      graph, weights: the model, split.
      slots: the lane.
      steps: n, most steps of the block.
      leave_at: [] int32; the block ends early once no more slots than this are busy.

    Returns:
      The slots and the tokens drawn.
    """
    model: Transformer = nnx.merge(graph, weights)
    S, M = slots.token.shape[0], slots.cache.max_len

    def step(carry: tuple) -> tuple:
        i, slots, drawn = carry
        busy = slots.remaining > 0
        # A slot that is not busy writes beyond its end, that is nowhere.
        at = jnp.where(busy, slots.position, M)
        hidden, cache = model.extend(slots.token[:, None], at[:, None], slots.cache)
        token, logprob, sampling_logprob = sample(
            model.logits(hidden[:, 0]), slots.sampling, slots.position + 1
        )
        remaining = jnp.where(busy, _remaining(token, slots.stop_ids, slots.remaining), 0)
        row = Drawn(token, logprob, sampling_logprob, busy)
        drawn = jax.tree.map(lambda all_, one: all_.at[i].set(one), drawn, row)
        slots = slots._replace(
            cache=cache,
            token=jnp.where(busy, token, slots.token),
            position=jnp.where(busy, slots.position + 1, slots.position),
            remaining=remaining,
        )
        return i + 1, slots, drawn

    def going_on(carry: tuple) -> jax.Array:
        i, slots, _ = carry
        return (i < steps) & ((slots.remaining > 0).sum() > leave_at)

    zeros = functools.partial(jnp.zeros, (steps, S))
    drawn = Drawn(zeros(jnp.int32), zeros(jnp.float32), zeros(jnp.float32), zeros(bool))
    _, slots, drawn = jax.lax.while_loop(going_on, step, (0, slots, drawn))
    return slots, drawn


def _remaining(token: jax.Array, stop_ids: jax.Array, before: jax.Array) -> jax.Array:
    """Tokens a slot may still draw after `token`: none once it is a stop id."""
    stopped = (token[:, None] == stop_ids).any(axis=-1)
    return jnp.where(stopped, 0, before - 1)
