"""From logits to one token per row, each row with its own rule and its own randomness."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

# Halving an interval of logits this often leaves less than one unit in the last place of fp32.
_BISECTIONS = 40


class RowSampling(NamedTuple):
    """Sampling parameters of S rows; the fields mean what they mean in `SamplingParams`.

    Attributes:
      temperature: [S] f32.
      top_k: [S] int32.
      top_p: [S] f32.
      min_p: [S] f32.
      seed: [S] uint32.
    """

    temperature: jax.Array
    top_k: jax.Array
    top_p: jax.Array
    min_p: jax.Array
    seed: jax.Array


def sample(
    logits: jax.Array, rows: RowSampling, positions: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Draw one token per row by the Gumbel-max trick.

    The noise of a row depends on its seed and position alone, so that a call gets the same tokens
    in any slot and in any company.

    Args:
      logits: [S, V] f32.
      rows: how each row is sampled.
      positions: [S] int32, the position that the drawn token will take.

    Returns:
      tokens [S] int32; their log-probabilities [S] in the unmodified distribution; and [S] in the
      distribution they were drawn from (0 at temperature 0, where the draw is certain).
    """
    greedy = rows.temperature == 0
    scaled = logits / jnp.where(greedy, 1.0, rows.temperature)[:, None]
    filtered = (rows.top_k > 0) | (rows.top_p < 1) | (rows.min_p > 0)
    scaled = jax.lax.cond(jnp.any(filtered), filter_logits, lambda z, _: z, scaled, rows)

    def noise(seed: jax.Array, position: jax.Array) -> jax.Array:
        key = jax.random.fold_in(jax.random.key(seed), position)
        return jax.random.gumbel(key, logits.shape[1:])

    def draw(z: jax.Array) -> jax.Array:
        gumbel = jax.vmap(noise)(rows.seed, positions)
        return jnp.argmax(jnp.where(greedy[:, None], logits, z + gumbel), axis=-1)

    tokens = jax.lax.cond(jnp.all(greedy), lambda _: jnp.argmax(logits, axis=-1), draw, scaled)
    tokens = tokens.astype(jnp.int32)

    def logprob(z: jax.Array) -> jax.Array:
        chosen = jnp.take_along_axis(z, tokens[:, None], axis=-1)[:, 0]
        return chosen - jax.nn.logsumexp(z, axis=-1)

    return tokens, logprob(logits), jnp.where(greedy, 0.0, logprob(scaled))


def filter_logits(z: jax.Array, rows: RowSampling) -> jax.Array:
    """Set to -inf the logits that top-k, top-p or min-p drop: each keeps z >= its threshold.

    Thresholds are found by bisection on the logits, without sorting the vocabulary. Ties at a
    threshold are kept together, so no token is preferred for its id.
    """
    V = z.shape[-1]
    top = z.max(axis=-1, keepdims=True)
    probabilities = jax.nn.softmax(z, axis=-1)
    k = jnp.where(rows.top_k > 0, jnp.minimum(rows.top_k, V), V)[:, None]

    def highest_that_keeps(enough) -> jax.Array:
        def halve(_, bounds):
            low, high = bounds
            middle = (low + high) / 2
            ok = enough(z >= middle)
            return jnp.where(ok, middle, low), jnp.where(ok, high, middle)

        floor = jnp.maximum(z.min(axis=-1, keepdims=True), top - 1e4)
        low, _ = jax.lax.fori_loop(0, _BISECTIONS, halve, (floor, top + 1e-3))
        return low

    def enough_tokens(kept: jax.Array) -> jax.Array:
        return kept.sum(axis=-1, keepdims=True) >= k

    def enough_mass(kept: jax.Array) -> jax.Array:
        mass = jnp.where(kept, probabilities, 0.0).sum(axis=-1, keepdims=True)
        return mass >= rows.top_p[:, None]

    keep = z >= top + jnp.log(rows.min_p)[:, None]
    keep &= jnp.where(k < V, z >= highest_that_keeps(enough_tokens), True)
    keep &= jnp.where(rows.top_p[:, None] < 1, z >= highest_that_keeps(enough_mass), True)
    return jnp.where(keep, z, -jnp.inf)
