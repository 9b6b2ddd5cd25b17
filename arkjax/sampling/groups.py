"""Rows of logits in groups of tokens, read as few times as can be.

A row is read once for the largest logit of each group and once for the sum of exp in each. All else
happens on groups: the largest logit is in the group with the largest maximum, a draw takes
a group and then one of its tokens, and the k largest logits are in k groups.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

# Tokens of a group, more or less: as many as a register of a TPU has lanes. Half and twice as many
# make no difference on CPU.
_WIDTH = 128


class Groups(NamedTuple):
    """Logits of S rows in C groups of R tokens; token i is in group i // R.

    Attributes:
      logits: [S, C, R]; -inf behind the end of the vocabulary.
      maxima: [S, C] the largest logit of each group.
      top: [S] the largest logit.
      shift: [S] what is subtracted from logits before exp: the largest, or 0 if that is -inf.
      sums: [S, C] of exp(logits - shift) in each group.
      log_sum: [S] log of the sum of all of them.
    """

    logits: jax.Array
    maxima: jax.Array
    top: jax.Array
    shift: jax.Array
    sums: jax.Array
    log_sum: jax.Array

    @property
    def width(self) -> int:
        return self.logits.shape[2]


def group(logits: jax.Array) -> Groups:
    """Read logits [S, V] twice, for the maxima and for the sums."""
    S, V = logits.shape
    R = _width(V)
    C = -(-V // R)
    if C * R != V:
        logits = jnp.pad(logits, ((0, 0), (0, C * R - V)), constant_values=-jnp.inf)
    logits = logits.reshape(S, C, R)
    # The barriers here and below: without them the compiler reads the whole vocabulary again for
    # what is made of groups.
    maxima = jax.lax.optimization_barrier(logits.max(axis=2))
    top = maxima.max(axis=1)
    shift = jnp.where(top == -jnp.inf, 0.0, top)
    sums = _sum(jnp.exp(logits - shift[:, None, None]))
    return Groups(logits, maxima, top, shift, sums, jnp.log(sums.sum(axis=1)))


def sums_at(groups: Groups, temperature: jax.Array) -> jax.Array:
    """[S, C] sums of exp((logits - shift) / temperature [S]) in each group: one more reading."""
    shifted = groups.logits - groups.shift[:, None, None]
    return _sum(jnp.exp(shifted / temperature[:, None, None]))


def sums_of(weights: jax.Array, width: int) -> jax.Array:
    """[S, C] sums of weights [S, V] over groups of `width` tokens, which divides V."""
    return _sum(weights.reshape(weights.shape[0], -1, width))


def members(logits: jax.Array, ids: jax.Array) -> jax.Array:
    """The logits [S, n, R] of the groups with the ids [S, n], out of [S, C, R]."""
    return jnp.take_along_axis(logits, ids[:, :, None], axis=1, mode="clip")


def largest(groups: Groups, k: int) -> tuple[jax.Array, jax.Array]:
    """The k largest logits [S, k] of each row, falling, the lower id first among equals, and ids.

    They are in the k groups with the largest maxima, among equals the first: a token of another
    group has a token of each of these above it, or equal and with a lower id.
    """
    S, C, R = groups.logits.shape
    if C <= k:
        ids = jnp.broadcast_to(jnp.arange(C, dtype=jnp.int32)[None], (S, C))
    else:
        ids = jnp.sort(_top_k(groups.maxima, k)[1], axis=1)
    values, at = _top_k(members(groups.logits, ids).reshape(S, -1), k)
    return values, jnp.take_along_axis(ids, at // R, axis=1, mode="clip") * R + at % R


def _top_k(x: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
    """A `top_k` that stays by itself: merged with what uses it, it is compiled to a full sort."""
    barrier = jax.lax.optimization_barrier
    values, at = jax.lax.top_k(barrier(x), k)
    # One for each: the compiler fails where one barrier takes both.
    return barrier(values), barrier(at)


def _width(V: int) -> int:
    """A width of groups that divides V, and so needs no copy of the logits, if there is one."""
    divisors = [r for r in range(_WIDTH // 2, 2 * _WIDTH + 1) if V % r == 0]
    return min(divisors, key=lambda r: abs(math.log(r / _WIDTH)), default=_WIDTH)


def _sum(values: jax.Array) -> jax.Array:
    return jax.lax.optimization_barrier(values.sum(axis=2))
