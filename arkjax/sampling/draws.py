"""One token of each row by inverting its cumulative distribution, in as many steps as it has parts.

Every step has a random number of its own and chooses among parts of what the step before chose: its
rounding is relative to that, not to the whole.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp


class Draw(NamedTuple):
    """What the draws of S rows start from; the fields are [S] but for `words`.

    Attributes:
      top_k, top_p, min_p: the filters.
      words: [S, 3] random numbers in [0, 1).
      temperature: above 0.
      shift: the largest logit.
      total: sum of exp((logits - shift) / temperature).
    """

    top_k: jax.Array
    top_p: jax.Array
    min_p: jax.Array
    words: jax.Array
    temperature: jax.Array
    shift: jax.Array
    total: jax.Array

    def log_weights(self, logits: jax.Array) -> jax.Array:
        """(logits [S, n] - shift) / temperature."""
        return (logits - self.shift[:, None]) / self.temperature[:, None]


def random_words(seed: jax.Array, positions: jax.Array) -> jax.Array:
    """Three random numbers in [0, 1) for each row: threefry of the position, keyed by the seed.

    Args:
      seed: [S, 2] uint32, low and high word.
      positions: [S] int32, from 0.

    Returns:
      [S, 3] f32, multiples of 2^-32 rounded to fp32.
    """

    def words(high: jax.Array, low: jax.Array, position: jax.Array) -> jax.Array:
        key = jax.random.wrap_key_data(jnp.stack([high, low]), impl="threefry2x32")
        # A folded key is two random words. No position has the highest bit.
        at = jnp.stack([position, position | jnp.uint32(2**31)])
        return jax.vmap(lambda at: jax.random.key_data(jax.random.fold_in(key, at)))(at).ravel()

    bits = jax.vmap(words)(seed[:, 1], seed[:, 0], positions.astype(jnp.uint32))[:, :3]
    # The largest of them would be rounded to 1.
    return jnp.minimum(bits.astype(jnp.float32) * 2.0**-32, 1 - 2.0**-24)


def choose(weights: jax.Array, word: jax.Array) -> jax.Array:
    """The index [S] at which the cumulative sum of weights [S, n] passes `word` [S] of it all."""
    cumulative = jnp.cumsum(weights, axis=1)
    target = word * cumulative[:, -1]
    # Sums in another order may rise, by their rounding, where there is no weight.
    return first_true((cumulative > target[:, None]) & (weights > 0))


def choose_token(
    words: jax.Array, mass: jax.Array, log_weights: Callable[[jax.Array], jax.Array]
) -> tuple[jax.Array, jax.Array]:
    """Draw a group of groups of tokens, then one of its groups, then one of its tokens.

    Args:
      words: [S, 3] random numbers.
      mass: [S, C] of each group.
      log_weights: from groups [S] to the log-weights [S, R] of their tokens.

    Returns:
      tokens [S] and their log-weights [S].
    """
    S, C = mass.shape
    inner = 2 ** math.ceil(math.log2(C) / 2)
    outer = -(-C // inner)
    mass = jnp.pad(mass, ((0, 0), (0, outer * inner - C))).reshape(S, outer, inner)
    first = choose(mass.sum(axis=2), words[:, 0])
    within = jnp.take_along_axis(mass, first[:, None, None], axis=1, mode="clip")[:, 0]
    group = jnp.minimum(first * inner + choose(within, words[:, 1]), C - 1)
    logs = log_weights(group)
    token = choose(jnp.exp(logs), words[:, 2])
    return group * logs.shape[1] + token, pick(logs, token)


def first_true(where: jax.Array) -> jax.Array:
    """The first index [S] at which `where` [S, n] is true; the last index if it nowhere is."""
    n = where.shape[1]
    return jnp.where(where, jnp.arange(n, dtype=jnp.int32)[None], n - 1).min(axis=1)


def pick(x: jax.Array, index: jax.Array) -> jax.Array:
    """The number at `index` [S] of each row of x [S, n]."""
    return jnp.take_along_axis(x, index[:, None], axis=1, mode="clip")[:, 0]


def select(which: jax.Array, these: tuple, others: tuple) -> tuple:
    """For each row of arrays [S] one of two, by `which` [S]."""
    return tuple(jnp.where(which, a, b) for a, b in zip(these, others, strict=True))
