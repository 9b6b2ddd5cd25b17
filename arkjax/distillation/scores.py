"""What a tape records of a target, one chunk of tokens at a time: top tokens, or drawn ones.

Logits exist as `[chunk, V]`, for a target of any kind that has them; `[N, V]` never does.
"""

import math

import jax
import jax.numpy as jnp

from arkjax.distillation.chunks import Chunk, for_each_chunk
from arkjax.distillation.divergences import coarsen, log_distribution
from arkjax.distillation.logits import shut_out, teacher_logits
from arkjax.distillation.targets import HiddenTarget, MixtureTarget, SampledTarget, TapeTarget
from arkjax.distillation.vocabulary import Vocabulary
from arkjax.errors import ConfigError
from arkjax.sampling.draws import choose

Dense = HiddenTarget | MixtureTarget


def linear_top_k(
    target: Dense,
    mask: jax.Array,
    *,
    k: int,
    kd_temperature: float = 1.0,
    chunk_size: int = 512,
    vocab_size: int | None = None,
) -> TapeTarget:
    """The k most probable tokens of a target and the mass of all others; not differentiable.

    Args:
      target: with leading axes `[...]`.
      mask: `[...]`; positions where it is 0 hold 0 and cost nothing.
      k: how many tokens.
      kd_temperature: of the probabilities.
      chunk_size: tokens whose logits exist at once.
      vocab_size: number of real tokens where the head is padded beyond it; None: the whole head.

    Raises:
      ConfigError: k exceeds the vocabulary.
    """
    vocab_size = _vocabulary(target, vocab_size)
    if k > vocab_size:
        raise ConfigError(f"tape k is {k}, but the vocabulary has only {vocab_size} tokens")
    flat, flat_mask = _flatten(target, mask)

    def step(chunk: Chunk, out: TapeTarget) -> TapeTarget:
        log_p = _log_distribution(flat.map_tokens(chunk.read), kd_temperature, vocab_size)
        top_logprobs, top_ids = jax.lax.top_k(log_p, k)
        tail = coarsen(log_p, top_ids)[:, -1]
        return jax.tree.map(chunk.write, out, TapeTarget(top_ids, top_logprobs, tail))

    n = flat_mask.shape[0]
    zeros = TapeTarget(
        jnp.zeros((n, k), jnp.int32), jnp.zeros((n, k), jnp.float32), jnp.zeros((n,), jnp.float32)
    )
    made = for_each_chunk(step, flat_mask, zeros, chunk_size=chunk_size)
    shaped = made.map_tokens(lambda x: x.reshape(mask.shape + x.shape[1:]))
    return TapeTarget(
        shaped.top_ids, shaped.top_logprobs, shaped.log_tail, kd_temperature, target.gate
    )


def linear_draws(
    target: Dense,
    mask: jax.Array,
    rows: jax.Array,
    *,
    draws: int,
    seed: int,
    kd_temperature: float = 1.0,
    chunk_size: int = 256,
    vocab_size: int | None = None,
) -> SampledTarget:
    """Tokens drawn from a target's distribution, with repetition (RS-KD 2503.16870).

    Random numbers are a function of seed, row, position and draw, so that neither the batch nor the
    chunk in which a position comes makes a difference.

    Args:
      target, mask, kd_temperature, chunk_size, vocab_size: as of `linear_top_k`, leading axes
        `[B, T]`.
      rows: `[B]` int, which rows these are.
      draws: N, of each position.
      seed: of all draws.

    Returns:
      `ids [B, T, N]` in rising order and their weights, counts over N; unused ones at the end.
    """
    vocab_size = _vocabulary(target, vocab_size)
    flat, flat_mask = _flatten(target, mask)
    row_of = jnp.broadcast_to(rows.astype(jnp.uint32)[:, None], mask.shape).ravel()
    position = jnp.broadcast_to(jnp.arange(mask.shape[1], dtype=jnp.uint32), mask.shape).ravel()

    def step(chunk: Chunk, out: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        p = jnp.exp(_log_distribution(flat.map_tokens(chunk.read), kd_temperature, vocab_size))
        words = draw_words(seed, chunk.read(row_of), chunk.read(position), draws)
        # What is no distribution gives -1, which is no token: a tape refuses it.
        tokens = jnp.where(jnp.isfinite(p.sum(axis=-1))[:, None], draw_tokens(p, words), -1)
        return jax.tree.map(chunk.write, out, count_tokens(tokens))

    n = flat_mask.shape[0]
    zeros = (jnp.zeros((n, draws), jnp.int32), jnp.zeros((n, draws), jnp.int32))
    ids, counts = for_each_chunk(step, flat_mask, zeros, chunk_size=chunk_size)
    shape = (*mask.shape, draws)
    weights = counts.astype(jnp.float32) / draws
    return SampledTarget(ids.reshape(shape), weights.reshape(shape), kd_temperature, target.gate)


def linear_hidden(target: Dense) -> HiddenTarget:
    """A target as one hidden state a token, which exists where logits are linear in hidden states.

    Raises:
      ConfigError: the target is an arithmetic mixture, or its logits are soft-capped: no mean of
        hidden states is then its mixture.
    """
    if isinstance(target, HiddenTarget):
        return target
    if target.hidden.shape[-2] == 1:
        return HiddenTarget(target.hidden[..., 0, :], target.head, target.soft_cap, target.gate)
    if target.mixture != "geometric" or target.soft_cap is not None:
        raise ConfigError(
            "the mean hidden state of several contexts is neither an arithmetic mixture nor one "
            "of soft-capped logits: take a tape of kind 'top_k' or 'sampled', or one context"
        )
    weights = target.weights.astype(jnp.float32)[..., None]
    # A context without a share may hold anything.
    shares = jnp.where(weights != 0, weights * target.hidden.astype(jnp.float32), 0.0)
    mean = shares.sum(axis=-2).astype(target.hidden.dtype)
    return HiddenTarget(mean, target.head, None, target.gate)


def draw_words(seed: int, rows: jax.Array, positions: jax.Array, draws: int) -> jax.Array:
    """Two random numbers in [0, 1) for each draw: threefry of row, position and draw.

    Args:
      seed: the key.
      rows, positions: `[C]` uint32.
      draws: N.

    Returns:
      `[C, N, 2]` float32, multiples of 2^-24.
    """
    key = jax.random.key(seed, impl="threefry2x32")

    def words(row: jax.Array, position: jax.Array) -> jax.Array:
        place = jax.random.fold_in(jax.random.fold_in(key, row), position)
        # A folded key is two random words, whatever shapes JAX draws them in.
        each = jax.vmap(lambda n: jax.random.key_data(jax.random.fold_in(place, n)))
        return each(jnp.arange(draws, dtype=jnp.uint32))

    return (jax.vmap(words)(rows, positions) >> 8).astype(jnp.float32) * 2.0**-24


def draw_tokens(weights: jax.Array, words: jax.Array) -> jax.Array:
    """Tokens `[C, N]` by inverting the cumulative distribution in two steps.

    The first chooses one of about sqrt(V) groups of tokens, the second one of its tokens, each by a
    number of its own: the rounding of the sums is then relative to a group. A token's probability
    is off by at most about 2^-24 of its group's and of the whole.

    Args:
      weights: `[C, V]`, probabilities up to a factor.
      words: `[C, N, 2]` in [0, 1).
    """
    tokens, vocab_size = weights.shape
    size = math.ceil(math.sqrt(vocab_size))
    groups = -(-vocab_size // size)
    weights = jnp.pad(weights, ((0, 0), (0, groups * size - vocab_size)))
    weights = weights.reshape(tokens, groups, size)
    # The weights have no axis of draws: their sums are made once for all of them.
    every = jax.vmap(choose, in_axes=(None, 1), out_axes=1)
    group = every(weights.sum(axis=-1), words[..., 0])
    within = jnp.take_along_axis(weights, group[..., None], axis=1).reshape(-1, size)
    token = choose(within, words[..., 1].ravel()).reshape(group.shape)
    return group * size + token


def count_tokens(tokens: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The different ones of `[C, N]` tokens and how often each is there, `[C, N]` int32 both.

    Tokens rise; what is left over at the end is 0.
    """
    tokens = jnp.sort(tokens.astype(jnp.int32), axis=-1)
    new = jnp.concatenate([jnp.ones_like(tokens[:, :1]), jnp.diff(tokens) != 0], axis=-1)
    slot = jnp.cumsum(new, axis=-1) - 1
    line = jnp.arange(tokens.shape[0])[:, None]
    zeros = jnp.zeros_like(tokens)
    return zeros.at[line, slot].set(tokens), zeros.at[line, slot].add(1)


def _log_distribution(target: Dense, kd_temperature: float, vocab_size: int) -> jax.Array:
    """Log-probabilities `[C, V]` of C tokens."""
    vocabulary = Vocabulary()

    def finish(z: jax.Array) -> jax.Array:
        return shut_out(z, vocabulary, vocab_size)

    # The logits are over the temperature already.
    return log_distribution(teacher_logits(target, kd_temperature, vocabulary, finish))


def _flatten(target: Dense, mask: jax.Array) -> tuple[Dense, jax.Array]:
    def flat(x: jax.Array) -> jax.Array:
        return x.reshape((-1, *x.shape[mask.ndim :]))

    return target.map_tokens(flat), mask.ravel()


def _vocabulary(target: Dense, vocab_size: int | None) -> int:
    width = target.head.shape[1]
    if vocab_size is None:
        return width
    if not 0 < vocab_size <= width:
        raise ConfigError(f"vocab_size is {vocab_size}; expected 1 to {width}, the head's columns")
    return vocab_size
