"""The objective on a few tokens whose logits are at hand: what every chunk computes."""

import jax
import jax.numpy as jnp

from arkjax.distillation.divergences import (
    LOG_ZERO,
    cross_entropy,
    divergence,
    log_distribution,
    one_hot,
)
from arkjax.distillation.objective import Objective
from arkjax.distillation.targets import HiddenTarget, TapeTarget, Target

# What is measured on every token beside its loss; `chunked.linear_divergence` explains each.
MEASURES = (
    "cross_entropy",
    "divergence",
    "student_entropy",
    "label_top1",
    "teacher_top1",
    "teacher_tail_mass",
)


def head_product(x: jax.Array, head: jax.Array) -> jax.Array:
    """`[C, D] @ [D, V]`, accumulated and returned in float32."""
    return jnp.matmul(x, head, preferred_element_type=jnp.float32)


def finish_logits(
    z: jax.Array, vocab_size: int, soft_cap: float | None = None, width: int | None = None
) -> jax.Array:
    """Raw head outputs `[C, V]` float32 to logits: soft-capped, padded vocabulary shut out.

    `width` cuts the last axis, for a teacher and a student padded differently. Beyond `vocab_size`
    logits are masked, not cut: an uneven cut of a sharded axis would move it between devices.
    """
    if width is not None:
        z = z[:, :width]
    if soft_cap is not None:
        z = soft_cap * jnp.tanh(z / soft_cap)
    if vocab_size < z.shape[-1]:
        real = jax.lax.broadcasted_iota(jnp.int32, z.shape, 1) < vocab_size
        z = jnp.where(real, z, LOG_ZERO)
    return z


def teacher_logits(target: Target, vocab_size: int, width: int | None = None) -> jax.Array | None:
    """The teacher's logits `[C, V]`, or its tape's log-probabilities over buckets `[C, k + 1]`."""
    match target:
        case HiddenTarget():
            z = head_product(target.hidden, target.head)
            return finish_logits(z, vocab_size, target.soft_cap, width)
        case TapeTarget():
            parts = [target.top_logprobs, target.log_tail[:, None]]
            return jnp.concatenate([part.astype(jnp.float32) for part in parts], axis=-1)
        case _:
            return None


def token_losses(
    objective: Objective,
    z_s: jax.Array,
    labels: jax.Array,
    z_t: jax.Array | None = None,
    top_ids: jax.Array | None = None,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Each token's loss `[C]`, differentiable in z_s, and its `MEASURES` `[C]`, which are not.

    Args:
      objective: what is minimised.
      z_s: `[C, V]` the student's logits.
      labels: `[C]` int.
      z_t: `[C, V]` the teacher's logits, or with `top_ids [C, k]` its bucket log-probabilities
        `[C, k + 1]`, which hold the objective's temperature already; None without a teacher.
      top_ids: `[C, k]` int; None for a dense teacher.
    """
    zero = jnp.zeros(labels.shape, jnp.float32)
    measures = dict.fromkeys(MEASURES, zero)
    measures["cross_entropy"] = cross_entropy(z_s, labels)
    losses = objective.cross_entropy * measures["cross_entropy"]
    if objective.needs_teacher:
        measures["divergence"] = divergence(objective, z_s, z_t, top_ids)
        losses += objective.weight * measures["divergence"]

    z = jax.lax.stop_gradient(z_s)
    log_q = log_distribution(z)
    measures["student_entropy"] = -jnp.sum(jnp.exp(log_q) * log_q, axis=-1)
    measures["label_top1"] = _is_top(z, z, one_hot(labels, z))
    if z_t is not None and top_ids is None:
        measures["teacher_top1"] = _is_top(z, z, z_t == jnp.max(z_t, axis=-1, keepdims=True))
    elif z_t is not None:
        z_top, p_top = jnp.take_along_axis(z, top_ids, axis=-1), z_t[:, :-1]
        favourite = p_top == jnp.max(p_top, axis=-1, keepdims=True)
        measures["teacher_top1"] = _is_top(z, z_top, favourite)
        measures["teacher_tail_mass"] = jnp.exp(z_t[:, -1])
    return losses, jax.lax.stop_gradient(measures)


def _is_top(z: jax.Array, candidates: jax.Array, chosen: jax.Array) -> jax.Array:
    """1.0 where the greatest of the chosen candidates is the greatest of z, else 0.0: `[C]`."""
    best_chosen = jnp.max(jnp.where(chosen, candidates, LOG_ZERO), axis=-1)
    return (best_chosen >= jnp.max(z, axis=-1)).astype(jnp.float32)
