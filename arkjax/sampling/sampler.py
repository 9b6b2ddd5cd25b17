"""From logits to one token per row, each row with its own rule and its own randomness.

A batch computes what one of its rows needs; but a row only looks at what its own rule needs, so
that its result is the same in any company. Rows at temperature 0 need the largest logit and the sum
of exp, others the sums of exp at their temperature, and only rows with a filter need more.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from arkjax.sampling.draws import Draw, choose_token, first_true, random_words, select
from arkjax.sampling.filters import Drawn, draw_filtered
from arkjax.sampling.groups import group, largest, members, sums_at

# Temperatures outside would make 1 / temperature infinite, or 0 where it meets an infinite logit.
_COLDEST, _HOTTEST = 1e-30, 1e30


class RowSampling(NamedTuple):
    """Sampling parameters of S rows; the fields mean what they mean in `SamplingParams`.

    Attributes:
      temperature: [S] f32.
      top_k: [S] int32.
      top_p: [S] f32.
      min_p: [S] f32.
      seed: [S, 2] uint32, the `seed_words` of each.
    """

    temperature: jax.Array
    top_k: jax.Array
    top_p: jax.Array
    min_p: jax.Array
    seed: jax.Array


def seed_words(seed: int) -> tuple[int, int]:
    """The lowest and the next 32 bits of a seed."""
    return seed % 2**32, (seed >> 32) % 2**32


def sample(
    logits: jax.Array, rows: RowSampling, positions: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Draw one token per row.

    The randomness of a row depends on its seed and position alone, so that a call gets the same
    tokens in any slot and in any company.

    Without filters a token is drawn in three steps, each with a random number of its own: a part of
    the vocabulary, a group in that part, a token in that group. Given the steps before it, each is
    right to about 2^-24. So a token far rarer than 2^-24 can be drawn, unless it is that rare among
    its neighbours too. Of the few tokens that filters usually keep one is drawn in one step, whose
    grain is 2^-32 for the rarest.

    A row without any finite logit, or with one that is not a number, gets some token, and
    a log-probability that is not a number.

    Args:
      logits: [S, V] f32; -inf for tokens that must not be drawn.
      rows: how each row is sampled.
      positions: [S] int32, from 0: the position that the drawn token will take.

    Returns:
      tokens [S] int32; their log-probabilities [S] in the unmodified distribution; and [S] in the
      distribution they were drawn from (0 at temperature 0, where the draw is certain).
    """
    drawn, logprob = _sample(logits, rows, positions)
    return drawn.token, logprob, drawn.logprob


def lowest_kept(logits: jax.Array, rows: RowSampling) -> jax.Array:
    """The number [S] that logits must reach to pass the filters of their row.

    It is -inf in rows without filters and in those at temperature 0.

    Args:
      logits: [S, V] f32.
      rows: how each row is sampled.
    """
    positions = jnp.zeros(logits.shape[0], jnp.int32)
    return _sample(logits, rows, positions)[0].lowest


def top_logprobs(logits: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
    """The k most probable tokens of each row, most probable first, the lower id among equals.

    Args:
      logits: [S, V] f32.
      k: how many; no more than V are returned.

    Returns:
      ids [S, k] int32, and their log-probabilities [S, k] in the unmodified distribution.
    """
    groups = group(logits)
    values, ids = largest(groups, min(k, logits.shape[1]))
    return ids, values - groups.shift[:, None] - groups.log_sum[:, None]


def tail_mass(logits: jax.Array, ids: jax.Array) -> jax.Array:
    """Log of the probability [S] of all tokens but some, however small it is.

    Args:
      logits: [S, V] f32.
      ids: [S, k] int32, tokens that are left out, as from `top_logprobs`.
    """
    groups = group(logits)
    hit = ids // groups.width
    # Groups without such a token count as they are, the others token by token, each once.
    sums = jnp.put_along_axis(groups.sums, hit, 0.0, axis=1, inplace=False)
    weights = jnp.exp(members(groups.logits, hit) - groups.shift[:, None, None])
    tokens = hit[:, :, None] * groups.width + jnp.arange(groups.width)[None, None]
    left_out = (tokens[:, :, :, None] == ids[:, None, None, :]).any(axis=3)
    earlier = jnp.tri(ids.shape[1], k=-1, dtype=bool)[None]
    again = ((hit[:, :, None] == hit[:, None, :]) & earlier).any(axis=2)
    weights = jnp.where(left_out | again[:, :, None], 0.0, weights)
    return jnp.log(sums.sum(axis=1) + weights.sum(axis=(1, 2))) - groups.log_sum


def _sample(logits: jax.Array, rows: RowSampling, positions: jax.Array) -> tuple[Drawn, jax.Array]:
    """What is drawn, and its log-probability in the unmodified distribution."""
    S, V = logits.shape
    groups = group(logits)
    greedy = rows.temperature == 0
    temperature = jnp.where(greedy, 1.0, jnp.clip(rows.temperature, _COLDEST, _HOTTEST))

    def its(group: jax.Array) -> jax.Array:
        return members(groups.logits, group[:, None])[:, 0]

    best_group = first_true(groups.maxima == groups.top[:, None])
    best = best_group * groups.width + first_true(its(best_group) == groups.top[:, None])
    certain = Drawn(best, jnp.zeros(S), jnp.full(S, -jnp.inf))

    def tempered() -> jax.Array:
        return jnp.where((temperature == 1)[:, None], groups.sums, sums_at(groups, temperature))

    def at_random() -> Drawn:
        mass = jax.lax.cond((temperature != 1).any(), tempered, lambda: groups.sums)
        words = random_words(rows.seed, positions)
        filters = rows.top_k, rows.top_p, rows.min_p
        draw = Draw(*filters, words, temperature, groups.shift, mass.sum(axis=1))
        token, log_weight = choose_token(words, mass, lambda group: draw.log_weights(its(group)))
        plain = Drawn(token, log_weight - jnp.log(draw.total), jnp.full(S, -jnp.inf))
        filtered = ~greedy & ((rows.top_k > 0) | (rows.top_p < 1) | (rows.min_p > 0))
        return jax.lax.cond(
            filtered.any(),
            lambda: Drawn(*select(filtered, draw_filtered(groups, draw, filtered), plain)),
            lambda: plain,
        )

    drawn = jax.lax.cond(greedy.all(), lambda: certain, at_random)
    drawn = Drawn(*select(greedy, certain, drawn))
    # Behind the vocabulary there is no mass: only a row without any ends there.
    drawn = drawn._replace(token=jnp.minimum(drawn.token, V - 1))
    logit = jnp.take_along_axis(logits, drawn.token[:, None], axis=1)[:, 0]
    return drawn, logit - groups.shift - groups.log_sum
