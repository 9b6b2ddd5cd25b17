"""The objective in float64 NumPy, dense, from the definitions; gradients by differences."""

from types import SimpleNamespace

import numpy as np
import pytest

from arkjax.distillation.targets import HiddenTarget, MixtureTarget, TapeTarget


def log_softmax(z):
    top = z.max(-1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        return z - (top + np.log(np.exp(z - top).sum(-1, keepdims=True)))


def kl(log_a, log_b):
    """KL(a || b) over the last axis, 0 log 0 = 0."""
    with np.errstate(invalid="ignore"):
        return np.where(log_a > -np.inf, np.exp(log_a) * (log_a - log_b), 0.0).sum(-1)


def adaptive_share(log_p, log_q):
    """The part of |p - q| in the teacher's head, by walking down its most probable tokens."""
    shares = []
    for p, q in zip(np.exp(log_p), np.exp(log_q), strict=True):
        head, mass = np.zeros(p.shape, bool), 0.0
        for v in np.argsort(-p):
            head[v], mass = True, mass + p[v]
            if mass >= 0.5:
                break
        gap = np.abs(p - q)
        shares.append(gap[head].sum() / gap.sum())
    return np.array(shares)


def named_divergence(name, log_p, log_q, objective, share):
    """One divergence `[N]` of log-probabilities `[N, V]`; share: of adaptive_kl, detached."""

    def mixture(weight, log_a, log_b):
        return np.logaddexp(np.log(weight) + log_a, np.log1p(-weight) + log_b)

    alpha, beta = objective.alpha, objective.beta
    match name:
        case "forward_kl":
            return kl(log_p, log_q)
        case "reverse_kl":
            return kl(log_q, log_p)
        case "jsd":
            log_m = mixture(beta, log_p, log_q)
            value = beta * kl(log_p, log_m) + (1 - beta) * kl(log_q, log_m)
            return value / (beta * (1 - beta)) if objective.normalize else value
        case "skew_kl":
            return kl(log_p, mixture(alpha, log_p, log_q))
        case "skew_rkl":
            return kl(log_q, mixture(alpha, log_q, log_p))
        case "tvd":
            return 0.5 * np.abs(np.exp(log_p) - np.exp(log_q)).sum(-1)
        case "adaptive_kl":
            return share * kl(log_p, log_q) + (1 - share) * kl(log_q, log_p)


def capped_logits(hidden, head, soft_cap, real):
    z = np.asarray(hidden, np.float64) @ np.asarray(head, np.float64)
    z = z if soft_cap is None else soft_cap * np.tanh(z / soft_cap)
    return np.where(np.arange(z.shape[-1]) < real, z, -np.inf)


def buckets(log_q, ids):
    """Log-probabilities `[N, k + 1]` of ids `[N, k]` and of all others together."""
    top = np.take_along_axis(log_q, ids, -1)
    rest = log_q.copy()
    np.put_along_axis(rest, ids, -np.inf, -1)
    with np.errstate(divide="ignore"):
        return np.concatenate([top, np.log(np.exp(rest).sum(-1, keepdims=True))], -1)


def teacher_and_student(target, z, kappa, real):
    """Log-probabilities of both sides over whatever the target tells apart."""
    log_q = log_softmax(z / kappa)
    if isinstance(target, HiddenTarget):
        z_t = capped_logits(target.hidden, target.head, target.soft_cap, real)
        return log_softmax(z_t / kappa), log_q
    if isinstance(target, MixtureTarget):
        z_t = capped_logits(target.hidden, target.head, target.soft_cap, real)
        log_p = log_softmax(z_t / kappa)
        weights = np.asarray(target.weights, np.float64)[..., None]
        if target.mixture == "geometric":
            with np.errstate(invalid="ignore"):
                mean = np.where(weights > 0, weights * log_p, 0.0).sum(1)
            return log_softmax(mean), log_q
        with np.errstate(divide="ignore"):
            return np.log((weights * np.exp(log_p)).sum(1)), log_q
    if isinstance(target, TapeTarget):
        tail = np.asarray(target.log_tail, np.float64)[:, None]
        taped = np.concatenate([np.asarray(target.top_logprobs, np.float64), tail], -1)
        return log_softmax(taped), buckets(log_q, np.asarray(target.top_ids))
    with np.errstate(divide="ignore"):
        drawn = np.log(np.asarray(target.weights, np.float64))
    return drawn, np.take_along_axis(log_q, np.asarray(target.ids), -1)


def token_values(objective, z, labels, target, label_weights, real, share=None):
    """Losses `[N]` of logits `[N, V]`, and the shares of adaptive_kl that they were made with."""
    ce = -np.take_along_axis(log_softmax(z), labels[:, None], -1)[:, 0]
    losses = objective.cross_entropy * label_weights * ce
    if objective.needs_teacher:
        log_p, log_q = teacher_and_student(target, z, objective.kd_temperature, real)
        share = adaptive_share(log_p, log_q) if share is None else share
        total = sum(
            term.weight * named_divergence(term.name, log_p, log_q, objective, share)
            for term in objective.terms
        )
        if objective.scale_by_temperature_squared:
            total = total * objective.kd_temperature**2
        if objective.token_clip is not None:
            total = np.minimum(total, objective.token_clip)
        gate = 1.0 if target.gate is None else np.asarray(target.gate, np.float64)
        losses = losses + objective.weight * gate * total
    return losses, share


def reference_loss(
    hidden,
    head,
    labels,
    mask,
    *,
    objective,
    target=None,
    label_weights=None,
    vocab_size=None,
    soft_cap=None,
):
    """(loss, token losses, d hidden, d head) in float64; gradients by central differences."""
    hidden, head = np.asarray(hidden, np.float64), np.asarray(head, np.float64)
    labels, mask = np.asarray(labels), np.asarray(mask, np.float64)
    real = head.shape[1] if vocab_size is None else vocab_size
    factors = np.ones(mask.shape) if label_weights is None else np.asarray(label_weights, float)
    raw = hidden @ head

    def values(raw, share=None):
        z = raw if soft_cap is None else soft_cap * np.tanh(raw / soft_cap)
        z = np.where(np.arange(z.shape[-1]) < real, z, -np.inf)
        return token_values(objective, z, labels, target, factors, real, share)

    losses, share = values(raw)
    d = np.zeros_like(raw)
    step = 1e-4 * min(1.0, objective.kd_temperature)
    for v in range(real):
        ahead, back, far, far_back = (raw.copy() for _ in range(4))
        for z, by in ((ahead, 1), (back, -1), (far, 2), (far_back, -2)):
            z[:, v] += by * step
        one = values(ahead, share)[0] - values(back, share)[0]
        two = values(far, share)[0] - values(far_back, share)[0]
        d[:, v] = (8 * one - two) / (12 * step)
    valid = mask != 0
    d = np.where(valid[:, None], mask[:, None] * d, 0.0)
    token = np.where(valid, losses, 0.0)
    return SimpleNamespace(
        loss=np.sum(np.where(valid, mask * losses, 0.0)),
        token_losses=token,
        d_hidden=d @ head.T,
        d_head=hidden.T @ d,
    )


@pytest.fixture(scope="session")
def reference():
    """`reference_loss`, to compare the chunked loss with."""
    return reference_loss
