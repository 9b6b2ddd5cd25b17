"""Per-token losses between student and teacher, dense over the last axis, always in float32.

One convention: q is the student, p the teacher, z_s and z_t logits `[..., V]`; a loss is summed
over V and returned as `[...]`. Logits are normalised here, so log-probabilities are as good as
logits: so the same forms serve a teacher's tape, where V becomes k + 1 buckets (`coarsen`). Where
both sides are -inf (a padded vocabulary) nothing is added and no gradient flows.

Every divergence D is a sum over V of a summand f, and its gradient on the student's log-weights is
u - q sum(u) with the flow u = q dD/dq (up to a multiple of q, which cancels). A sum of divergences
is the sum of summands and of flows, which is why any number of them costs one pass.
"""

import jax
import jax.numpy as jnp

from arkjax.distillation.objective import Objective, Term
from arkjax.distillation.vocabulary import LOG_ZERO, Vocabulary


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
    return _alone(Objective(divergence="forward_kl"), z_s, z_t, kd_temperature)


def reverse_kl(z_s: jax.Array, z_t: jax.Array, kd_temperature: float = 1.0) -> jax.Array:
    """KL(q || p) = sum q (log q - log p) (MiniLLM 2306.08543)."""
    return _alone(Objective(divergence="reverse_kl"), z_s, z_t, kd_temperature)


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
    objective = Objective(divergence="jsd", beta=beta, normalize=normalize)
    return _alone(objective, z_s, z_t, kd_temperature)


def skew_kl(
    z_s: jax.Array, z_t: jax.Array, kd_temperature: float = 1.0, *, alpha: float = 0.1
) -> jax.Array:
    """KL(p || alpha p + (1 - alpha) q) (DistiLLM 2402.03898, eq. 5)."""
    return _alone(Objective(divergence="skew_kl", alpha=alpha), z_s, z_t, kd_temperature)


def skew_rkl(
    z_s: jax.Array, z_t: jax.Array, kd_temperature: float = 1.0, *, alpha: float = 0.1
) -> jax.Array:
    """KL(q || (1 - alpha) p + alpha q) (DistiLLM 2402.03898)."""
    return _alone(Objective(divergence="skew_rkl", alpha=alpha), z_s, z_t, kd_temperature)


def adaptive_kl(z_s: jax.Array, z_t: jax.Array, kd_temperature: float = 1.0) -> jax.Array:
    """Forward and reverse KL, weighted by where the student is off (2404.02657, section 4).

    The head is the smallest set of the teacher's most probable tokens that holds half of its mass;
    the forward KL is weighted by the share of |p - q| that lies in the head, the reverse KL by the
    rest. The weights are detached.
    """
    return _alone(Objective(divergence="adaptive_kl"), z_s, z_t, kd_temperature)


def tvd(z_s: jax.Array, z_t: jax.Array, kd_temperature: float = 1.0) -> jax.Array:
    """Total variation, half the sum of |p - q| (f-distillation 2307.15190)."""
    return _alone(Objective(divergence="tvd"), z_s, z_t, kd_temperature)


def divergence(
    objective: Objective, z_s: jax.Array, z_t: jax.Array, top_ids: jax.Array | None = None
) -> jax.Array:
    """The objective's divergence of each token, `[...]`, scaled and clipped, not weighted.

    JAX differentiates it; the chunked loss has the gradients in closed form and must agree.

    With `top_ids` `[..., k]`, z_t holds log-probabilities `[..., k + 1]` of those tokens and of the
    rest, already at the objective's temperature; the student's are coarsened alike.
    """
    kappa = objective.kd_temperature
    if top_ids is None:
        z_s, z_t = z_s / kappa, z_t / kappa
    else:
        z_s = coarsen(z_s / kappa, top_ids)
    f, _ = summands(objective, log_distribution(z_t), log_distribution(z_s))
    loss = jnp.sum(f, axis=-1) * scale(objective)
    return loss if objective.token_clip is None else jnp.minimum(loss, objective.token_clip)


def scale(objective: Objective) -> float:
    """kd_temperature^2 where the objective asks for it, else 1."""
    return objective.kd_temperature**2 if objective.scale_by_temperature_squared else 1.0


def summands(
    objective: Objective,
    log_p: jax.Array,
    log_q: jax.Array,
    vocabulary: Vocabulary = Vocabulary(),  # noqa: B008  a constant
) -> tuple[jax.Array, jax.Array]:
    """Summand f and flow u `[..., V]` of the sum of the objective's terms.

    Args:
      objective: its terms, beta, alpha and normalize.
      log_p, log_q: `[..., V]` log-probabilities of teacher and student, float32.
      vocabulary: which of the columns are here.
    """
    p, q = jnp.exp(log_p), jnp.exp(log_q)
    f = u = jnp.zeros((), jnp.float32)
    for term in objective.terms:
        summand, flow = _term(objective, term, log_p, log_q, p, q, vocabulary)
        f, u = f + _times(term.weight, summand), u + _times(term.weight, flow)
    return f, u


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


def _alone(objective: Objective, z_s, z_t, kd_temperature: float) -> jax.Array:
    log_p, log_q = log_distribution(z_t, kd_temperature), log_distribution(z_s, kd_temperature)
    return jnp.sum(summands(objective, log_p, log_q)[0], axis=-1)


def _term(
    objective: Objective, term: Term, log_p, log_q, p, q, vocabulary: Vocabulary
) -> tuple[jax.Array, jax.Array]:
    """Summand and flow of one divergence, of weight 1.

    Summands of KL(a || b) carry -a + b, which adds up to nothing, but takes with it the rounding
    of both log-sum-exps, to first order; what is left is good to about 1e-7 whatever the logits.
    """
    match term.name:
        case "forward_kl":
            return p * (log_p - log_q) - p + q, -p
        case "reverse_kl":
            return q * (log_q - log_p) - q + p, q * (log_q - log_p)
        case "jsd":
            beta = objective.beta
            log_m = _log(beta * p + (1.0 - beta) * q)
            flow = (1.0 - beta) * q * (log_q - log_m)
            whole = 1.0 / (beta * (1.0 - beta)) if objective.normalize else 1.0
            return _times(whole, beta * p * (log_p - log_m) + flow), _times(whole, flow)
        case "skew_kl":
            alpha = objective.alpha
            m = alpha * p + (1.0 - alpha) * q
            log_m = _log(m)
            summand = p * (log_p - log_m) - p + m
            return summand, (alpha - 1.0) * p * _ratio(log_q - log_m, 1.0 - alpha)
        case "skew_rkl":
            alpha = objective.alpha
            m = (1.0 - alpha) * p + alpha * q
            log_r = log_q - _log(m)
            return q * log_r - q + m, q * (log_r - alpha * _ratio(log_r, alpha))
        case "tvd":
            return 0.5 * jnp.abs(p - q), 0.5 * q * jnp.sign(q - p)
        case "adaptive_kl":
            share = _head_share(p, q, vocabulary)[..., None]
            r = log_p - log_q
            summand = share * (p * r - p + q) - (1.0 - share) * (q * r + q - p)
            return summand, -share * p - (1.0 - share) * q * r
    raise AssertionError(term.name)


# The least that is told from 0: below it float32 has no full digits, and devices flush to 0.
_TINY = 1.2e-38


def _log(m: jax.Array) -> jax.Array:
    """log of a mixture; where it vanishes, what is multiplied with it vanishes too."""
    return jnp.log(jnp.maximum(m, _TINY))


def _ratio(log_ratio: jax.Array, share: float) -> jax.Array:
    """q / m from its logarithm, where m holds this share of q: at most 1 / share."""
    return jnp.minimum(jnp.exp(log_ratio), 1.0 / share)


def _times(factor: float, x: jax.Array) -> jax.Array:
    return x if factor == 1.0 else factor * x


def _head_share(p: jax.Array, q: jax.Array, vocabulary: Vocabulary) -> jax.Array:
    """`[...]`: the part of sum |p - q| at the teacher's most probable tokens of half its mass.

    The least probability among those is found by bisection on the bits of float32, whose order is
    that of the numbers: 31 sums, where a sort of 150,000 columns would cost many more passes.
    """
    p, q = jax.lax.stop_gradient((p, q))

    def halve(_, bounds):
        # The mass of p >= low is one half or more; that of p >= high is less.
        low, high = bounds
        middle = low + (high - low) // 2
        least = jax.lax.bitcast_convert_type(middle, jnp.float32)[..., None]
        (mass,) = vocabulary.sums(jnp.where(p >= least, p, 0.0))
        enough = mass >= 0.5
        return jnp.where(enough, middle, low), jnp.where(enough, high, middle)

    (top,) = vocabulary.tops(p)
    high = jax.lax.bitcast_convert_type(top, jnp.int32) + 1
    low, _ = jax.lax.fori_loop(0, 31, halve, (0 * high, high))
    head = p >= jax.lax.bitcast_convert_type(low, jnp.float32)[..., None]
    gap = jnp.abs(p - q)
    in_head, whole = vocabulary.sums(jnp.where(head, gap, 0.0), gap)
    return jnp.where(whole > 0, in_head / jnp.where(whole > 0, whole, 1.0), 0.5)
