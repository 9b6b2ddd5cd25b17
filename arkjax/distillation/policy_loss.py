"""The policy gradient of a batch of answers, with the KL to a reference, in one pass of the head.

The gradient of a policy objective is that of a weighted cross-entropy: d(rho A) = rho A d log pi.
So the probabilities of the tokens are read first, without gradient, and make each token's
coefficient; a single `linear_divergence` then has the gradient of everything, logits a chunk at a
time.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from arkjax.distillation.chunked import linear_divergence
from arkjax.distillation.grpo import GRPOConfig
from arkjax.distillation.objective import Objective
from arkjax.distillation.rows import Batch
from arkjax.distillation.targets import HiddenTarget
from arkjax.errors import ConfigError

# Of a log-ratio: e^20 is far beyond every clip and cap, and finite.
_LARGEST = 20.0


class PolicyBatch(NamedTuple):
    """Answers in rows, `[B, T]`, position t predicting `batch.targets[t]`.

    Attributes:
      batch: the rows; its weights are the shares of the tokens in the loss
        (`grpo.token_shares`): 0 in prompts, in padding and in answers that are left out.
      advantages: float32.
      logprobs: float32, of the tokens in the distribution that they were drawn from.
      answers: int32, which of n answers a token is of; n elsewhere.
      reference: what the student is held to, aligned with the rows; None if the KL has no weight.
    """

    batch: Batch
    advantages: jax.Array
    logprobs: jax.Array
    answers: jax.Array
    reference: HiddenTarget | None = None


class LossShape(NamedTuple):
    """What the compiler must know of a loss over hidden states.

    Attributes:
      num_answers: n.
      chunk_size: tokens whose logits exist at once.
      train_head: whether the head is trained.
      soft_cap: of the student's logits.
      temperature: that the answers were drawn at; probabilities are those at this temperature.
      mesh, token_axes: as of `linear_divergence`.
    """

    num_answers: int
    chunk_size: int = 896
    train_head: bool = True
    soft_cap: float | None = None
    temperature: float = 1.0
    mesh: jax.sharding.Mesh | None = None
    token_axes: tuple[str, ...] = ()


def policy_loss(
    hidden: jax.Array, head: jax.Array, inputs: PolicyBatch, config: GRPOConfig, shape: LossShape
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """-sum share min(rho A, clip(rho) A) + beta sum share KL, over the tokens of all answers.

    With rho the ratio of new to old probability, of the token or, as geometric mean, of its answer
    (PPO, arXiv 1707.06347, eq. 7; GRPO, arXiv 2402.03300, eq. 3; GSPO, arXiv 2507.18071, eq. 5).
    Its gradient is that of each token's share * c * log pi, where c is rho A, and 0 where the
    ratio is clipped. Advantages that differ within an answer, under the ratio of the answer, are
    taken as GSPO-token takes them (eqs. 13 and 14 there). Both terms have a live gradient.

    Args:
      hidden: [B, T, D], the student's.
      head: [D, V].
      inputs: the answers.
      config: which ratio, clip and KL.
      shape: what is static.

    Returns:
      The loss, and sums over tokens, each to be divided by `share` or `tokens`: weighted by share
      `objective` (the surrogate without KL), `kl` and `share` itself; plain `clipped`, `ratio`,
      `entropy` and `tokens`. They carry no gradient.

    Raises:
      ConfigError: the KL has weight and there is no reference; or soft-capped logits at another
        temperature than 1, which hidden states cannot express.
    """
    if config.kl_coefficient and inputs.reference is None:
        raise ConfigError(
            f"grpo.kl_coefficient is {config.kl_coefficient}, but there is no reference: give one, "
            "or set it to 0"
        )
    hidden, reference = at_temperature(hidden, inputs.reference, shape)
    batch, share = inputs.batch, inputs.batch.weights
    valid = share != 0
    logprobs, entropy = token_logprobs(hidden, head, batch.targets, valid, shape)
    ratio = _ratio(logprobs - inputs.logprobs, valid, inputs.answers, config, shape.num_answers)
    # Whatever stands elsewhere, a zero share would not keep NaN out of the sums.
    gain = jnp.where(valid, inputs.advantages, 0.0)
    low, high = 1.0 - config.clip_low, 1.0 + config.clip_high
    clipped = valid & (((gain > 0) & (ratio > high)) | ((gain < 0) & (ratio < low)))
    counted = ratio if config.importance_cap is None else jnp.minimum(ratio, config.importance_cap)
    surrogate = jnp.where(clipped, jnp.clip(ratio, low, high), counted) * gain
    label_weights = jnp.where(clipped, 0.0, counted * gain)

    beta, kl = config.kl_coefficient, jnp.zeros_like(share)
    exact = beta > 0 and config.kl == "exact"
    if beta > 0 and not exact:
        theirs, _ = token_logprobs(reference.hidden, reference.head, batch.targets, valid, shape)
        kl, slope = kl_estimate(config.kl, logprobs, theirs)
        label_weights -= beta * slope
    objective = Objective(cross_entropy=1.0)
    if exact:
        objective = Objective(cross_entropy=1.0, divergence="reverse_kl", weight=beta)
    live, aux = linear_divergence(
        hidden,
        head,
        batch.targets,
        share,
        objective=objective,
        target=reference if exact else None,
        label_weights=label_weights,
        chunk_size=shape.chunk_size,
        train_head=shape.train_head,
        soft_cap=shape.soft_cap,
        mesh=shape.mesh,
        token_axes=shape.token_axes,
    )
    gained = jnp.sum(share * surrogate)
    spent = aux["divergence"] if exact else jnp.sum(share * kl)
    # The value of the objective, with the gradient of the weighted cross-entropy.
    loss = beta * spent - gained + live - jax.lax.stop_gradient(live)
    sums = {
        "objective": gained,
        "kl": spent,
        "share": jnp.sum(share),
        "clipped": jnp.sum(clipped, dtype=jnp.float32),
        "ratio": jnp.sum(jnp.where(valid, ratio, 0.0)),
        "entropy": entropy,
        "tokens": jnp.sum(valid, dtype=jnp.float32),
    }
    return loss, jax.lax.stop_gradient(sums)


def token_logprobs(
    hidden: jax.Array, head: jax.Array, labels: jax.Array, valid: jax.Array, shape: LossShape
) -> tuple[jax.Array, jax.Array]:
    """log q(label) where valid, else 0: `[...]`; and the sum of the entropies. No gradient."""
    _, aux = linear_divergence(
        jax.lax.stop_gradient(hidden),
        jax.lax.stop_gradient(head),
        labels,
        valid.astype(jnp.float32),
        objective=Objective(cross_entropy=1.0),
        chunk_size=shape.chunk_size,
        soft_cap=shape.soft_cap,
        mesh=shape.mesh,
        token_axes=shape.token_axes,
    )
    return -aux["token_losses"], aux["student_entropy"]


def kl_estimate(
    name: str, logprobs: jax.Array, reference: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """An estimate of KL(q || p) from tokens drawn from q, and its derivative by log q.

    With r = log q - log p of the token: "k2" is r^2 / 2 and, as a loss, has the gradient of
    KL(q || p) in expectation; "k3" is e^-r - 1 + r, unbiased as a value, with the gradient of
    KL(p || q). r itself ("k1") has none: the expectation of d log q is zero.
    """
    r = jnp.clip(logprobs - reference, -_LARGEST, _LARGEST)
    if name == "k2":
        return 0.5 * r**2, r
    return jnp.exp(-r) - 1.0 + r, 1.0 - jnp.exp(-r)


def importance_weights(
    logprobs: jax.Array, sampled: jax.Array, own: jax.Array, cap: float
) -> jax.Array:
    """min(q / q_sampler, cap) of tokens that were sampled, 1 elsewhere; no gradient.

    Truncated importance sampling, for tokens drawn by slightly other weights or in another
    precision than those that are trained: the cap bounds the variance.

    Args:
      logprobs, sampled: `[...]`, of the tokens now and when they were drawn.
      own: `[...]` bool, where tokens were sampled.
      cap: most that a token counts.
    """
    ratio = jnp.exp(jnp.clip(logprobs - sampled, -_LARGEST, _LARGEST))
    return jax.lax.stop_gradient(jnp.where(own, jnp.minimum(ratio, cap), 1.0))


def _ratio(
    log_ratio: jax.Array, valid: jax.Array, answers: jax.Array, config: GRPOConfig, number: int
) -> jax.Array:
    log_ratio = jnp.where(valid, log_ratio, 0.0)
    if config.ratio == "sequence":
        flat = answers.reshape(-1)
        sums, counts = (
            jax.ops.segment_sum(x.reshape(-1), flat, num_segments=number + 1)
            for x in (log_ratio, valid.astype(jnp.float32))
        )
        log_ratio = jnp.where(valid, (sums / jnp.maximum(counts, 1.0))[answers], 0.0)
    return jnp.exp(jnp.clip(log_ratio, -_LARGEST, _LARGEST))


def at_temperature(
    hidden: jax.Array, reference: HiddenTarget | None, shape: LossShape
) -> tuple[jax.Array, HiddenTarget | None]:
    """Hidden states whose logits are divided by the temperature."""
    if shape.temperature == 1.0:
        return hidden, reference
    if shape.soft_cap is not None:
        raise ConfigError(
            f"rollouts.temperature is {shape.temperature}, but the student soft-caps its logits: "
            "expected 1"
        )
    if reference is not None:
        reference = dataclasses.replace(reference, hidden=reference.hidden / shape.temperature)
    return hidden / shape.temperature, reference
