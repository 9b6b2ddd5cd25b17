"""Head products, and the logits of a teacher that is given by hidden states."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from arkjax.distillation.targets import HiddenTarget, MixtureTarget, Target
from arkjax.distillation.vocabulary import LOG_ZERO, Softmax, Vocabulary


def head_product(x: jax.Array, head: jax.Array) -> jax.Array:
    """`[C, D] @ [D, V]` in the dtype of x, accumulated and returned in float32."""
    return jnp.matmul(x, head.astype(x.dtype), preferred_element_type=jnp.float32)


def cap(z: jax.Array, soft_cap: float | None) -> jax.Array:
    """soft_cap * tanh(z / soft_cap), or z where there is no cap."""
    return z if soft_cap is None else soft_cap * jnp.tanh(z / soft_cap)


def shut_out(z: jax.Array, vocabulary: Vocabulary, vocab_size: int) -> jax.Array:
    """z `[C, V]` with `LOG_ZERO` in columns that hold no token.

    They are masked, not cut: an uneven cut of a sharded axis would move it between devices.
    """
    return jnp.where(vocabulary.ids(z) < vocab_size, z, LOG_ZERO)


def teacher_logits(
    target: Target,
    kd_temperature: float,
    vocabulary: Vocabulary,
    finish: Callable[[jax.Array], jax.Array],
) -> jax.Array | None:
    """The teacher's logits `[C, V]` over the temperature; None of a target without hidden states.

    Args:
      target: of C tokens.
      kd_temperature: divides logits. An arithmetic mixture mixes distributions that are tempered.
      vocabulary: which columns are here.
      finish: cuts capped logits `[C, Vt]` to the student's columns and shuts out padded ones.
    """

    def logits(hidden: jax.Array) -> jax.Array:
        z = finish(cap(head_product(hidden, target.head), target.soft_cap))
        return z if kd_temperature == 1.0 else z / kd_temperature

    if isinstance(target, HiddenTarget):
        return logits(target.hidden)
    if not isinstance(target, MixtureTarget):
        return None
    weights = target.weights.astype(jnp.float32)
    # A context without a share may hold anything.
    hidden = jnp.where(weights[..., None] != 0, target.hidden, jnp.zeros((), target.hidden.dtype))
    if target.mixture == "geometric" and target.soft_cap is None:
        # Logits are linear in hidden states, and what normalises each context cancels.
        mean = jnp.einsum("ckd,ck->cd", hidden.astype(jnp.float32), weights)
        return logits(mean.astype(hidden.dtype))

    def add(k: jax.Array, mixed: jax.Array) -> jax.Array:
        z = logits(jax.lax.dynamic_index_in_dim(hidden, k, axis=1, keepdims=False))
        weight = jax.lax.dynamic_index_in_dim(weights, k, axis=1)
        if target.mixture == "geometric":
            return mixed + weight * z
        log_p = Softmax.of(vocabulary, z).log_distribution(z)
        log_share = jnp.where(weight > 0, jnp.log(jnp.where(weight > 0, weight, 1.0)), LOG_ZERO)
        return jnp.maximum(jnp.logaddexp(mixed, log_share + log_p), LOG_ZERO)

    columns = jax.eval_shape(logits, hidden[:, 0]).shape
    empty = 0.0 if target.mixture == "geometric" else LOG_ZERO
    start = jnp.full(columns, empty, jnp.float32)
    mixed = jax.lax.fori_loop(0, hidden.shape[1], add, vary_like(start, hidden, target.head))
    # Padded columns again: nothing shuts them out where no context has a share.
    return finish(mixed)


def vary_like(x: jax.Array, *others: jax.Array) -> jax.Array:
    """x, typed as varying over every mesh axis that any of others varies over (in a shard_map).

    What a loop carries must be typed from the start as it will be in the end. The sum of no numbers
    has the type of what it sums up, and compiles to nothing.
    """
    zero = sum(jnp.sum(other[:0], dtype=jnp.float32) for other in others)
    return x + zero.astype(x.dtype)
