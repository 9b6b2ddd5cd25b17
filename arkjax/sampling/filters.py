"""Draws from what top-k, top-p and min-p keep of a row, without sorting the vocabulary.

What a filter keeps are the logits that reach some number, and so is what all three keep. The most
probable tokens tell this number if it lies above the last of them, and hold all that is kept. For
other rows it is found by bisection. A row gets the same in any company: others decide what else is
computed, not what it is given.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from arkjax.sampling.draws import Draw, choose, choose_token, first_true, pick, select
from arkjax.sampling.groups import Groups, largest, members, sums_of

# How many of the most probable tokens are looked at. More than 64, which is the top_k that some
# published models recommend: the last of them must not tie with others.
_CANDIDATES = 80


class Drawn(NamedTuple):
    """What was drawn in S rows.

    Attributes:
      token: [S] int32.
      logprob: [S], in the distribution that it was drawn from.
      lowest: [S], the number that logits must reach to be kept.
    """

    token: jax.Array
    logprob: jax.Array
    lowest: jax.Array


def draw_filtered(groups: Groups, draw: Draw, filtered: jax.Array) -> Drawn:
    """Draw from what the filters keep.

    Args:
      groups: the logits of S rows.
      draw: of each row.
      filtered: [S] bool, rows that have a filter; the others may get anything.
    """
    drawn, exact, high = _among_candidates(groups, draw)
    left = filtered & ~exact

    def row_by_row() -> Drawn:
        """The CPU takes as long for each row of many as for one by itself."""
        order = jnp.argsort(~left, stable=True)

        def one_more(i: jax.Array, drawn: Drawn) -> Drawn:
            row = order[i]
            logits, its, above = jax.tree.map(
                lambda x: jax.lax.dynamic_slice_in_dim(x, row, 1), (groups.logits, draw, high)
            )
            found = _search(logits.reshape(1, -1), groups.width, its, above)
            return jax.tree.map(
                lambda all_, new: jax.lax.dynamic_update_slice_in_dim(all_, new, row, 0),
                drawn,
                found,
            )

        return jax.lax.fori_loop(0, left.sum(), one_more, drawn)

    def all_rows() -> Drawn:
        """An accelerator takes little longer for all rows than for one."""

        def search() -> Drawn:
            logits = groups.logits.reshape(left.shape[0], -1)
            return Drawn(*select(left, _search(logits, groups.width, draw, high), drawn))

        return jax.lax.cond(left.any(), search, lambda: drawn)

    return jax.lax.platform_dependent(cpu=row_by_row, default=all_rows)


def _among_candidates(groups: Groups, draw: Draw) -> tuple[Drawn, jax.Array, jax.Array]:
    """Draw from what the filters keep of the most probable tokens.

    Returns:
      What was drawn; [S] bool, whether nothing else is kept; and the logit [S] of the last one.
    """
    everything = groups.maxima.shape[1] * groups.width
    count = min(_CANDIDATES, everything)
    values, ids = largest(groups, count)
    last = values[:, -1]
    logs = draw.log_weights(values)
    weights = jnp.exp(logs)
    reached = jnp.cumsum(weights, axis=1) >= (draw.top_p * draw.total)[:, None]
    by_mass = (draw.top_p < 1) & reached.any(axis=1)
    by_count = (draw.top_k > 0) & (draw.top_k <= count)
    lowest = _lowest_by_min_p(draw)
    lowest = jnp.maximum(lowest, jnp.where(by_mass, pick(values, first_true(reached)), last))
    lowest = jnp.maximum(lowest, jnp.where(by_count, pick(values, draw.top_k - 1), last))
    # They are all there is, or all that is not -inf, or end below what is kept and what ties.
    exact = ~(lowest <= last) | (last == -jnp.inf) | (count == everything)
    kept = jnp.where(values >= lowest[:, None], weights, 0.0)
    # From the least probable: near 0 sums and random numbers are finest.
    chosen = count - 1 - choose(kept[:, ::-1], draw.words[:, 0])
    logprob = pick(logs, chosen) - jnp.log(kept.sum(axis=1))
    return Drawn(pick(ids, chosen), logprob, lowest), exact, last


def _lowest_by_min_p(draw: Draw) -> jax.Array:
    """[S]; -inf where min_p is 0."""
    return draw.shift + draw.temperature * jnp.log(draw.min_p)


def _search(logits: jax.Array, width: int, draw: Draw, high: jax.Array) -> Drawn:
    """Draw from what the filters keep, whose lowest logit is found by bisection.

    Args:
      logits: [S, V] f32.
      width: of a group of tokens; divides V.
      draw: of each row.
      high: [S], at least as high as the lowest logit that is kept.
    """
    S, V = logits.shape
    weights = jnp.exp(draw.log_weights(logits))
    # Were all V tokens below this, they would weigh less than what top_p may leave out.
    spare = jnp.log((1 - draw.top_p) * draw.total / V) - 1e-3
    floor = draw.shift + draw.temperature * spare - 1e-4 * jnp.abs(draw.shift)
    floor = jnp.where(draw.top_p < 1, floor, jnp.finfo(jnp.float32).min)
    low = jnp.maximum(floor, _lowest_by_min_p(draw))
    high = jnp.maximum(jnp.nextafter(high, jnp.inf), low)

    def bisect(
        active: jax.Array,
        weights: jax.Array,
        total: jax.Array,
        enough: jax.Array,
        least: Callable[[jax.Array], jax.Array],
    ) -> jax.Array:
        """The highest number for which the logits that reach it weigh `enough` of the `total`.

        Done where one token is left between what is enough and what is not: two weigh more than
        1.5 times the `least` that one weighs there.
        """

        def unfinished(bounds: tuple) -> jax.Array:
            low, middle, _, above_low, above_high = bounds
            return (middle > low) & ~(above_low - above_high <= 1.5 * least(low))

        def halve(bounds: tuple) -> tuple:
            low, middle, high, above_low, above_high = bounds
            above = jnp.where(logits >= middle[:, None], weights, 0.0).sum(axis=1)
            raised = middle, _middle(middle, high), high, above, above_high
            lowered = low, _middle(low, middle), middle, above_low, above
            # A row that is done stays as it is while others go on.
            return select(unfinished(bounds), select(above >= enough, raised, lowered), bounds)

        # The middle is carried along: where it is made it would be made anew for each logit.
        end = jnp.where(active, high, low)
        bounds = low, _middle(low, end), end, total, jnp.zeros(S)
        return jax.lax.while_loop(lambda b: unfinished(b).any(), halve, bounds)[0]

    by_count = bisect(
        (draw.top_k > 0) & (draw.top_k < V),
        jnp.ones_like(logits),
        jnp.full(S, V, jnp.float32),
        draw.top_k.astype(jnp.float32),
        jnp.ones_like,
    )
    by_mass = bisect(
        draw.top_p < 1,
        weights,
        draw.total,
        draw.top_p * draw.total,
        lambda low: jnp.exp(draw.log_weights(low[:, None])[:, 0]),
    )
    lowest = jnp.maximum(by_count, by_mass)
    mass = sums_of(jnp.where(logits >= lowest[:, None], weights, 0.0), width)

    def log_weights(group: jax.Array) -> jax.Array:
        its = members(logits.reshape(S, -1, width), group[:, None])[:, 0]
        return jnp.where(its >= lowest[:, None], draw.log_weights(its), -jnp.inf)

    token, log_weight = choose_token(draw.words, mass, log_weights)
    return Drawn(token, log_weight - jnp.log(mass.sum(axis=1)), lowest)


def _middle(low: jax.Array, high: jax.Array) -> jax.Array:
    """The number with as many floating-point numbers above `low` as below `high`, rounded down.

    Halving what lies between in this way ends after 32 times, wherever it is.
    """

    def order(x: jax.Array) -> jax.Array:
        # Integers in the order of the floating-point numbers.
        bits = jax.lax.bitcast_convert_type(x, jnp.int32)
        return bits ^ ((bits >> 31) & 0x7FFFFFFF)

    a, b = order(low), order(high)
    middle = (a & b) + ((a ^ b) >> 1)  # (a + b) / 2 without overflow
    return jax.lax.bitcast_convert_type(middle ^ ((middle >> 31) & 0x7FFFFFFF), jnp.float32)
