"""Per-token losses between student and teacher, dense over the last axis, always in float32.

One convention: q is the student, p the teacher, z_s and z_t logits `[..., V]`; a loss is summed
over V and returned as `[...]`. Logits are normalised here, so log-probabilities are as good as
logits: so the same forms serve a teacher's tape, where V becomes k + 1 buckets (`coarsen`). Where
both sides are -inf (a padded vocabulary) nothing is added and no gradient flows.
"""

import jax
import jax.numpy as jnp

from arkjax.distillation.objective import Objective

# Stands for log 0: finite, so that 0 * (log 0 - log 0) is 0 and not NaN.
LOG_ZERO = -1e30


def log_distribution(z: jax.Array, kd_temperature: float = 1.0) -> jax.Array:
    """Log-probabilities of logits `[..., V]` at a temperature: float32, -inf becomes `LOG_ZERO`."""
    z = jnp.maximum(z.astype(jnp.float32), LOG_ZERO) / kd_temperature
    return jnp.maximum(jax.nn.log_softmax(z, axis=-1), LOG_ZERO)


def cross_entropy(z_s: jax.Array, labels: jax.Array) -> jax.Array:
    """-log q(label): logits `[..., V]`, labels `[...]` int, result `[...]`."""
    z = jnp.maximum(z_s.astype(jnp.float32), LOG_ZERO)
    return jax.nn.logsumexp(z, axis=-1) - jnp.sum(jnp.where(one_hot(labels, z), z, 0.0), axis=-1)


def forward_kl(z_s: jax.Array, z_t: jax.Array, kd_temperature: float = 1.0) -> jax.Array:
    """KL(p || q) = sum p (log p - log q) (Hinton et al. 1503.02531)."""
    return _kl(log_distribution(z_t, kd_temperature), log_distribution(z_s, kd_temperature))


def reverse_kl(z_s: jax.Array, z_t: jax.Array, kd_temperature: float = 1.0) -> jax.Array:
    """KL(q || p) = sum q (log q - log p) (MiniLLM 2306.08543)."""
    return _kl(log_distribution(z_s, kd_temperature), log_distribution(z_t, kd_temperature))


def jsd(
    z_s: jax.Array,
    z_t: jax.Array,
    kd_temperature: float = 1.0,
    *,
    beta: float = 0.5,
    normalize: bool = False,
) -> jax.Array:
    """beta KL(p || M) + (1 - beta) KL(q || M), M = beta p + (1 - beta) q (GKD 2306.13649, eq. 1).

    `normalize` divides by beta (1 - beta); the limits are then KL(p || q) at beta -> 0 and
    KL(q || p) at beta -> 1.
    """
    log_q = log_distribution(z_s, kd_temperature)
    log_p = log_distribution(z_t, kd_temperature)
    log_m = _log_mixture(beta, log_p, log_q)
    loss = beta * _kl(log_p, log_m) + (1.0 - beta) * _kl(log_q, log_m)
    return loss / (beta * (1.0 - beta)) if normalize else loss


def skew_kl(
    z_s: jax.Array, z_t: jax.Array, kd_temperature: float = 1.0, *, alpha: float = 0.1
) -> jax.Array:
    """KL(p || alpha p + (1 - alpha) q) (DistiLLM 2402.03898, eq. 5)."""
    log_q = log_distribution(z_s, kd_temperature)
    log_p = log_distribution(z_t, kd_temperature)
    return _kl(log_p, _log_mixture(alpha, log_p, log_q))


def skew_rkl(
    z_s: jax.Array, z_t: jax.Array, kd_temperature: float = 1.0, *, alpha: float = 0.1
) -> jax.Array:
    """KL(q || (1 - alpha) p + alpha q) (DistiLLM 2402.03898)."""
    log_q = log_distribution(z_s, kd_temperature)
    log_p = log_distribution(z_t, kd_temperature)
    return _kl(log_q, _log_mixture(alpha, log_q, log_p))


def adaptive_kl(
    z_s: jax.Array, z_t: jax.Array, kd_temperature: float = 1.0, *, head_mass: float = 0.5
) -> jax.Array:
    """Forward and reverse KL, weighted by where the student is off (2404.02657, section 4).

    The head is the smallest set of the teacher's most probable tokens that holds `head_mass`; the
    forward KL is weighted by the share of |p - q| that lies in the head, the reverse KL by the
    rest. The weights are detached.
    """
    log_q = log_distribution(z_s, kd_temperature)
    log_p = log_distribution(z_t, kd_temperature)
    p = jax.lax.stop_gradient(jnp.exp(log_p))
    gap = jnp.abs(p - jax.lax.stop_gradient(jnp.exp(log_q)))
    descending = jnp.sort(p, axis=-1, descending=True)
    complete = jnp.cumsum(descending, axis=-1) >= head_mass
    last_of_head = jnp.argmax(complete, axis=-1, keepdims=True)
    head = p >= jnp.take_along_axis(descending, last_of_head, axis=-1)
    head_gap = jnp.sum(jnp.where(head, gap, 0.0), axis=-1)
    whole_gap = jnp.sum(gap, axis=-1)
    share = jnp.where(whole_gap > 0, head_gap / jnp.where(whole_gap > 0, whole_gap, 1.0), 0.5)
    return share * _kl(log_p, log_q) + (1.0 - share) * _kl(log_q, log_p)


def tvd(z_s: jax.Array, z_t: jax.Array, kd_temperature: float = 1.0) -> jax.Array:
    """Total variation, half the sum of |p - q| (f-distillation 2307.15190)."""
    log_q = log_distribution(z_s, kd_temperature)
    log_p = log_distribution(z_t, kd_temperature)
    return 0.5 * jnp.sum(jnp.abs(jnp.exp(log_p) - jnp.exp(log_q)), axis=-1)


def divergence(
    objective: Objective, z_s: jax.Array, z_t: jax.Array, top_ids: jax.Array | None = None
) -> jax.Array:
    """The objective's divergence, scaled and clipped as it says but not weighted: `[...]`.

    With `top_ids [..., k]`, z_t `[..., k + 1]` is a tape: log-probabilities of these tokens and of
    all others, at the objective's temperature already. Heating does not commute with adding up the
    tail, so the student is heated first and coarsened then.
    """
    kappa = objective.kd_temperature
    if top_ids is None:
        z_s, z_t = z_s / kappa, z_t / kappa
    else:
        z_s = coarsen(z_s / kappa, top_ids)
    match objective.divergence:
        case "jsd":
            loss = jsd(z_s, z_t, beta=objective.beta, normalize=objective.normalize)
        case "skew_kl":
            loss = skew_kl(z_s, z_t, alpha=objective.alpha)
        case "skew_rkl":
            loss = skew_rkl(z_s, z_t, alpha=objective.alpha)
        case name:
            loss = _PLAIN[name](z_s, z_t)
    if objective.scale_by_temperature_squared:
        loss = loss * kappa**2
    return loss if objective.token_clip is None else jnp.minimum(loss, objective.token_clip)


def coarsen(z: jax.Array, top_ids: jax.Array) -> jax.Array:
    """Logits `[..., V]` summed up into k + 1 buckets: `top_ids [..., k]` (distinct) and all others.

    The last bucket is the log-sum-exp of all other logits. Subtracting the top k from one,
    log(-expm1(log P)), is the same number, but in float32 it has lost its digits, and its gradient
    all of them, once the student puts nearly everything on the top k.
    """
    z = jnp.maximum(z.astype(jnp.float32), LOG_ZERO)
    top = jnp.take_along_axis(z, top_ids, axis=-1)
    rest = jnp.put_along_axis(z, top_ids, LOG_ZERO, axis=-1, inplace=False)
    return jnp.concatenate([top, jax.nn.logsumexp(rest, axis=-1, keepdims=True)], axis=-1)


def one_hot(ids: jax.Array, z: jax.Array) -> jax.Array:
    """Where the last axis of z `[..., V]` is ids `[...]`: bool; a sharded axis needs no gather."""
    return jax.lax.broadcasted_iota(jnp.int32, z.shape, z.ndim - 1) == ids[..., None]


_PLAIN = {
    "forward_kl": forward_kl,
    "reverse_kl": reverse_kl,
    "adaptive_kl": adaptive_kl,
    "tvd": tvd,
}


def _kl(log_a: jax.Array, log_b: jax.Array) -> jax.Array:
    return jnp.sum(jnp.exp(log_a) * (log_a - log_b), axis=-1)


def _log_mixture(weight: float, log_a: jax.Array, log_b: jax.Array) -> jax.Array:
    """log(weight a + (1 - weight) b)."""
    return jnp.logaddexp(jnp.log(weight) + log_a, jnp.log1p(-weight) + log_b)
