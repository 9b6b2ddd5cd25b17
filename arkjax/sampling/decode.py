"""The compiled steps of the engine: extend prefixes, prefill calls, decode a block.

A call is prefilled into a row where it waits, and enters a slot of the lane by itself, in the midst
of a block, as soon as one falls free. All arrays live on the device and are donated from step to
step; the host says which rows wait in what order, and sees only the few numbers that come back.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from arkjax.errors import ConfigError
from arkjax.models.cache import KVCache, Precision, init_cache, move_row, precision_of
from arkjax.models.config import ModelConfig
from arkjax.models.grouped import Pool, Prefixes, entries_of
from arkjax.models.transformer import Transformer, Weight
from arkjax.sampling.layout import kept_in_place, whole_rows
from arkjax.sampling.sampler import RowSampling, sample, top_logprobs
from arkjax.sharding import BATCH_AXES

NO_CALL = -1
"""Tag of a row that holds no call, and of a step that drew no token."""


class Spec(NamedTuple):
    """What the steps are compiled for: the model's shape, and the mesh that it lies on."""

    config: ModelConfig
    mesh: Mesh | None


def check_grouped(spec: Spec) -> None:
    """Raise ConfigError if slots of the mesh's devices would need each other's prefixes."""
    spread = {axis: spec.mesh.shape[axis] for axis in BATCH_AXES} if spec.mesh else {}
    if math.prod(spread.values()) > 1:
        axes = ", ".join(f"{axis}={size}" for axis, size in spread.items())
        raise ConfigError(
            f"engine.grouped_prefixes is True and the mesh has {axes}: expected 1 of each, since "
            "slots on one device would read prefixes on others; use mesh.tensor, or `Replicas`, "
            "which has an engine for each of them"
        )


class Rows(NamedTuple):
    """N rows that hold a call each: the slots of a lane, or those where calls wait.

    Attributes:
      cache: keys and values, M positions a row.
      tag: [N] int32, the call's number, given by the host.
      token: [N] int32, the last token drawn, not yet in the cache.
      position: [N] int32, the position of that token.
      remaining: [N] int32, tokens that the call may still generate; 0 marks a free row.
      stop_ids: [N, E] int32, tokens that end the call, padded with -1.
      sampling: how each row is sampled.
      prefixes: where the prefixes of the calls are, if the cache has only what follows them; None
        if it has all.
    """

    cache: KVCache
    tag: jax.Array
    token: jax.Array
    position: jax.Array
    remaining: jax.Array
    stop_ids: jax.Array
    sampling: RowSampling
    prefixes: Prefixes | None = None


class Prefill(NamedTuple):
    """R calls that are prefilled together; unused rows go to row N, which is written nowhere.

    Attributes:
      row: [R] int32, where each call is going to wait.
      prefix_row: [R] int32, row of the prefix pool that holds the call's prefix.
      prefix_len: [R] int32.
      suffix: [R, T] int32, the prompt after the prefix, padded at the end.
      suffix_len: [R] int32, at least 1.
      tag: [R] int32.
      max_tokens: [R] int32.
      stop_ids: [R, E] int32.
      sampling: how each row is sampled.
    """

    row: jax.Array
    prefix_row: jax.Array
    prefix_len: jax.Array
    suffix: jax.Array
    suffix_len: jax.Array
    tag: jax.Array
    max_tokens: jax.Array
    stop_ids: jax.Array
    sampling: RowSampling


class Drawn(NamedTuple):
    """Tokens of up to n steps in N rows: each array is [n, N, ...].

    Attributes:
      tag: the call that a token is of; NO_CALL where none was drawn.
      token: its id.
      logprob: in the unmodified distribution.
      sampling_logprob: in the distribution that it was drawn from.
      top_ids, top_logprobs: [n, N, k] the most probable tokens of the unmodified distribution.
    """

    tag: jax.Array
    token: jax.Array
    logprob: jax.Array
    sampling_logprob: jax.Array
    top_ids: jax.Array
    top_logprobs: jax.Array


def empty_rows(
    config: ModelConfig,
    rows: int,
    max_len: int,
    num_stop_ids: int,
    grouped: bool = False,
    cache: Precision = "model",
) -> Rows:
    """Rows that are all free; if `grouped`, prefixes are left in the pool."""
    zeros = functools.partial(jnp.zeros, (rows,))
    sampling = RowSampling(
        zeros(jnp.float32),
        zeros(jnp.int32),
        jnp.ones(rows),
        zeros(jnp.float32),
        jnp.zeros((rows, 2), jnp.uint32),
    )
    return Rows(
        cache=init_cache(config, rows, max_len, cache),
        tag=jnp.full(rows, NO_CALL, jnp.int32),
        token=zeros(jnp.int32),
        position=zeros(jnp.int32),
        remaining=zeros(jnp.int32),
        stop_ids=jnp.full((rows, num_stop_ids), -1, jnp.int32),
        sampling=sampling,
        prefixes=Prefixes(zeros(jnp.int32), zeros(jnp.int32)) if grouped else None,
    )


@functools.partial(jax.jit, static_argnums=(0, 7), donate_argnums=2)
def extend_prefixes(
    spec: Spec,
    weights: dict[str, Weight],
    pool: KVCache,
    parents: jax.Array,
    rows: jax.Array,
    starts: jax.Array,
    tokens: jax.Array,
    live: int,
) -> KVCache:
    """Fork R prefixes of the pool, prefill what follows in each, and keep the longer ones.

    Args:
      spec, weights: the model.
      pool: P rows.
      parents: [R] int32, the row that holds the start of each prefix; any row where `starts` is 0.
      rows: [R] int32, where each goes, which may be its parent's row; P means nowhere.
      starts: [R] int32, tokens that the parent holds.
      tokens: [R, T] int32, what follows, padded at the end; what padding leaves behind is never
        looked at.
      live: positions that the longest of these prefixes needs.

    Returns:
      The pool with the prefixes in it.
    """
    model = Transformer(spec.config, weights, spec.mesh)
    _, fresh = model.extend(tokens, positions_of(starts, tokens), forked(pool, parents, live))
    return kept_in_place(_keep(pool, fresh, rows), spec.mesh)


@functools.partial(jax.jit, static_argnums=(0, 5, 6), donate_argnums=3)
def prefill(
    spec: Spec,
    weights: dict[str, Weight],
    pool: KVCache,
    waiting: Rows,
    new: Prefill,
    live: int,
    top: int,
) -> tuple[Rows, Drawn]:
    """Prefill what follows the prefix of each prompt, and draw each first token.

    Prefixes are forked, or attended to where they are if rows have only what follows them.

    Args:
      spec, weights: the model.
      pool: prefixes.
      waiting: where the calls go.
      new: the calls.
      live: positions that the longest of the prompts needs; of no meaning where prefixes are left
        in the pool.
      top: k, most probable tokens to report.

    Returns:
      The rows where calls wait, and what was drawn, as one step over the R calls.
    """
    model = Transformer(spec.config, weights, spec.mesh)
    used = new.row < waiting.tag.shape[0]
    at, prefixes, shared = positions_of(new.prefix_len, new.suffix), None, None
    if waiting.prefixes is None:
        cache = forked(pool, new.prefix_row, live)
    else:
        prefixes = Prefixes(new.prefix_row, new.prefix_len)
        shared = Pool(pool, prefixes, entries_of(prefixes, used))
        cache = init_cache(spec.config, *new.suffix.shape, precision_of(pool))
    hidden, cache = model.extend(new.suffix, at, cache, shared)
    # Logits of the last position of each prompt only.
    last = jnp.take_along_axis(hidden, (new.suffix_len - 1)[:, None, None], axis=1)[:, 0]
    position = new.prefix_len + new.suffix_len
    drawn = _draw(model, last, new.sampling, position, jnp.where(used, new.tag, NO_CALL), top)
    remaining = _remaining(drawn.token, new.stop_ids, new.max_tokens)
    fresh = Rows(
        _keep(waiting.cache, cache, new.row),
        new.tag,
        drawn.token,
        position,
        remaining,
        new.stop_ids,
        new.sampling,
        prefixes,
    )

    def put(old: jax.Array, new_rows: jax.Array) -> jax.Array:
        return old.at[new.row].set(new_rows, mode="drop")

    kept = jax.tree.map(put, waiting._replace(cache=None), fresh._replace(cache=None))
    kept = kept_in_place(kept._replace(cache=fresh.cache), spec.mesh)
    return kept, jax.tree.map(lambda x: x[None], drawn)


@functools.partial(jax.jit, static_argnums=(0, 6, 7), donate_argnums=(2, 3))
def decode_block(
    spec: Spec,
    weights: dict[str, Weight],
    slots: Rows,
    waiting: Rows,
    order: jax.Array,
    cancelled: jax.Array,
    steps: int,
    top: int,
    leave_at: jax.Array,
    pool: KVCache | None = None,
) -> tuple[Rows, Rows, Drawn]:
    """Draw up to `steps` tokens in every slot, and let calls that wait enter those that fall free.

    Args:
      spec, weights: the model.
      slots: S slots.
      waiting: N calls that wait.
      order: [N] int32, the rows of `waiting` in the order in which they enter; N marks the end.
      cancelled: [C] int32, tags of calls that end now, padded with NO_CALL.
      steps: n, most steps of the block.
      top: k, most probable tokens to report.
      leave_at: [] int32; the block ends early once no call waits and no more slots than this are
        busy.
      pool: prefixes, if rows have only what follows them.

    Returns:
      The slots, the rows where calls wait, and the tokens drawn.
    """
    model = Transformer(spec.config, weights, spec.mesh)
    S, M = slots.tag.shape[0], slots.cache.max_len
    slots, waiting = _cancel(slots, cancelled), _cancel(waiting, cancelled)

    def step(carry: tuple) -> tuple:
        i, slots, waiting, drawn = carry
        slots, waiting = _enter(slots, waiting, order, spec.mesh)
        busy = slots.remaining > 0
        # A slot that is not busy writes beyond its end, that is nowhere.
        at, shared = jnp.where(busy, slots.position, M), None
        if slots.prefixes is not None:
            at = jnp.where(busy, at, slots.prefixes.length + M)
            shared = Pool(pool, slots.prefixes, entries_of(slots.prefixes, busy))
        hidden, cache = model.extend(slots.token[:, None], at[:, None], slots.cache, shared)
        tag = jnp.where(busy, slots.tag, NO_CALL)
        new = _draw(model, hidden[:, 0], slots.sampling, slots.position + 1, tag, top)
        drawn = jax.tree.map(lambda all_, one: all_.at[i].set(one), drawn, new)
        left = _remaining(new.token, slots.stop_ids, slots.remaining)
        slots = slots._replace(
            cache=cache,
            token=jnp.where(busy, new.token, slots.token),
            position=jnp.where(busy, slots.position + 1, slots.position),
            remaining=jnp.where(busy, left, 0),
        )
        return i + 1, slots, waiting, drawn

    def going_on(carry: tuple) -> jax.Array:
        i, slots, waiting, _ = carry
        busy = (slots.remaining > 0).sum()
        return (i < steps) & ((busy > leave_at) | _ready(waiting, order).any())

    drawn = Drawn(
        tag=jnp.full((steps, S), NO_CALL, jnp.int32),
        token=jnp.zeros((steps, S), jnp.int32),
        logprob=jnp.zeros((steps, S), jnp.float32),
        sampling_logprob=jnp.zeros((steps, S), jnp.float32),
        top_ids=jnp.zeros((steps, S, top), jnp.int32),
        top_logprobs=jnp.zeros((steps, S, top), jnp.float32),
    )
    _, slots, waiting, drawn = jax.lax.while_loop(going_on, step, (0, slots, waiting, drawn))
    return *kept_in_place((slots, waiting), spec.mesh), drawn


@functools.partial(jax.jit, static_argnums=(1, 2))
def resize(slots: Rows, size: int, live: int) -> Rows:
    """The same calls in `size` slots of `live` positions; both must be enough for them."""
    S, M = slots.tag.shape[0], slots.cache.max_len

    def fit(x: jax.Array) -> jax.Array:
        # Free slots are given up first.
        x = x[order] if size < S else jnp.pad(x, [(0, size - S)] + [(0, 0)] * (x.ndim - 1))
        if x.ndim < 3 or live == M:
            return x
        end = [(0, 0)] * (x.ndim - 3)
        return x[:, :, :live] if live < M else jnp.pad(x, [(0, 0)] * 2 + [(0, live - M), *end])

    order = jnp.argsort(slots.remaining == 0, stable=True)[:size]
    return jax.tree.map(fit, slots)


def positions_of(starts: jax.Array, tokens: jax.Array) -> jax.Array:
    """[R, T] int32, where `tokens` [R, T] stand that follow `starts` [R] others."""
    return starts[:, None] + jnp.arange(tokens.shape[1])[None]


def forked(pool: KVCache, rows: jax.Array, live: int) -> KVCache:
    """Copies of these rows of a pool, as far as their first `live` positions."""
    return jax.tree.map(lambda x: x[:, :, :live].at[rows].get(mode="clip"), pool)


def _keep(cache: KVCache, fresh: KVCache, rows: jax.Array) -> KVCache:
    """Put rows with fewer positions than the cache has where they belong."""

    def put(old: jax.Array, new: jax.Array) -> jax.Array:
        return old.at[rows, :, : new.shape[2]].set(new, mode="drop")

    return jax.tree.map(put, cache, fresh)


def _draw(
    model: Transformer,
    hidden: jax.Array,
    sampling: RowSampling,
    position: jax.Array,
    tag: jax.Array,
    top: int,
) -> Drawn:
    """Draw the token at `position` [N] of each row from its hidden state [N, D]."""
    logits = whole_rows(model.logits(hidden), model.mesh)
    token, logprob, sampling_logprob = sample(logits, sampling, position)
    ids, logprobs = top_logprobs(logits, top)
    return Drawn(tag, token, logprob, sampling_logprob, ids, logprobs)


def _remaining(token: jax.Array, stop_ids: jax.Array, before: jax.Array) -> jax.Array:
    """Tokens a row may still draw after `token`: none once it is a stop id."""
    stopped = (token[:, None] == stop_ids).any(axis=-1)
    return jnp.where(stopped, 0, before - 1)


def _cancel(rows: Rows, cancelled: jax.Array) -> Rows:
    hit = (rows.tag[:, None] == cancelled[None]).any(axis=-1)
    return rows._replace(remaining=jnp.where(hit, 0, rows.remaining))


def _ready(waiting: Rows, order: jax.Array) -> jax.Array:
    """[N] bool, for each row of `order` whether a call waits there that has not ended."""
    return waiting.remaining.at[order].get(mode="fill", fill_value=0) > 0


def _enter(slots: Rows, waiting: Rows, order: jax.Array, mesh: Mesh | None) -> tuple[Rows, Rows]:
    """Move calls that wait, the first first, into free slots, as far as there are any."""
    busy, ready = slots.remaining > 0, _ready(waiting, order)
    free = jnp.argsort(busy, stable=True)
    rows = order[jnp.argsort(~ready, stable=True)]
    count = jnp.minimum((~busy).sum(), ready.sum())

    def move(j: jax.Array, carry: tuple[Rows, Rows]) -> tuple[Rows, Rows]:
        slots, waiting = carry
        slot, row = free[j], rows[j]

        def put(to: jax.Array, of: jax.Array) -> jax.Array:
            if to.ndim < 3:
                return to.at[slot].set(of[row])
            # Slots may have fewer positions than the rows where calls wait, or more, but enough.
            return move_row(to, of, slot, row, mesh)

        slots = jax.tree.map(put, slots, waiting)
        return slots, waiting._replace(remaining=waiting.remaining.at[row].set(0))

    # No turn of the loop at most steps, where nothing fell free.
    return jax.lax.fori_loop(0, count, move, (slots, waiting))
