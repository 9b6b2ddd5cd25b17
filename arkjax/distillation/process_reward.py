"""Losses of a process reward model: what its rewards of an answer's steps are held to.

The reward R of a step is a linear function of the hidden state of the step's last token, sigma(R)
lies in (0, 1). Three losses: the contrastive one of AgentArk (arXiv 2602.03955, eq. 7), binary
cross-entropy with soft labels (Math-Shepherd, arXiv 2312.08935, eq. 2), and that of an implicit
reward model (PRIME, arXiv 2502.01456, eqs. 3 and 5), which has no head: there the reward of a token
is r_t = beta log pi(y_t) / pi_ref(y_t), and its sum over the answer is held to the outcome.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from arkjax.distillation.chunked import linear_divergence
from arkjax.distillation.objective import Objective

Array = jax.Array | np.ndarray


class RewardBatch(NamedTuple):
    """Answers as a step of training or scoring takes them, packed into R rows of T tokens.

    E steps and A answers are what a row has room for, S sets of 1 + N steps what the batch has;
    what is left empty weighs nothing.

    Attributes:
      tokens, segment_ids, positions: `[R, T]` int32; segments are prompts with their answers, from
        1 in each row.
      targets: `[R, T]` int32, the tokens shifted left by one.
      answer_mask: `[R, T]` float32, 1 where the target is a token of an answer.
      step_columns: `[R, E]` int32, the column of each step's last token.
      labels, label_weights: `[R, E]` float32; a step without a label weighs nothing.
      outcomes, outcome_weights: `[R, A]` float32, of the answers by segment.
      sets: `[S, 1 + N]` int32, indices into the flattened `[R * E]` steps, the positive first.
      set_mask: `[S, 1 + N]` bool; False where a set has fewer steps, and in empty sets throughout.
      reference: `[R, T]` float32, log-probabilities of the targets by the reference model; zero
        where they do not count, and throughout if the loss needs none.
    """

    tokens: Array
    segment_ids: Array
    positions: Array
    targets: Array
    answer_mask: Array
    step_columns: Array
    labels: Array
    label_weights: Array
    outcomes: Array
    outcome_weights: Array
    sets: Array
    set_mask: Array
    reference: Array


def step_rewards(hidden: jax.Array, head: jax.Array, step_columns: jax.Array) -> jax.Array:
    """R of each step, `[R, E]` float32.

    Args:
      hidden: `[R, T, D]`, after the final norm.
      head: `[D]` float32.
      step_columns: `[R, E]` int32. Hidden states elsewhere get exactly zero gradient.
    """
    # Row by row: rows lie on different devices, and nothing of them has to be moved.
    last = jnp.take_along_axis(hidden, step_columns[:, :, None], axis=1).astype(jnp.float32)
    return jnp.einsum("red,d->re", last, head, precision=jax.lax.Precision.HIGHEST)


def contrastive_loss(
    rewards: jax.Array, sets: jax.Array, set_mask: jax.Array, temperature: float
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Mean over sets of -log [ e^{sigma(R+)/tau} / sum_r e^{sigma(R_r)/tau} ] (AgentArk eq. 7).

    The paper sums over the points of an answer; the mean has the same gradient up to its scale,
    and batches with more points weigh no more.

    Args:
      rewards: R of all steps, of any shape; flattened, `sets` are indices into it.
      sets, set_mask: see `RewardBatch`.
      temperature: tau. Sigma lies in (0, 1): at tau = 1 even a perfect model keeps
        log(1 + N / e) of the loss, and its gradient hardly tells steps apart.

    Returns:
      The loss, zero without sets, and `set_accuracy`: the share of sets whose positive has the
      highest reward.
    """
    real = set_mask[:, 0].astype(jnp.float32)
    count = jnp.maximum(real.sum(), 1.0)
    scores = jax.nn.sigmoid(rewards.reshape(-1)[sets])
    # Before the division: what is left out must not reach the gradient as inf * 0.
    z = jnp.where(set_mask, scores, 0.0) / temperature
    low = jnp.finfo(jnp.float32).min
    log_sum = jax.nn.logsumexp(jnp.where(set_mask, z, low), axis=-1)
    losses = jnp.where(set_mask[:, 0], log_sum - z[:, 0], 0.0)
    others = jnp.where(set_mask[:, 1:], scores[:, 1:], -1.0).max(axis=-1)
    best = (scores[:, 0] > others).astype(jnp.float32)
    return losses.sum() / count, {"set_accuracy": (best * real).sum() / count}


def binary_loss(
    rewards: jax.Array, labels: jax.Array, weights: jax.Array
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Weighted mean of -y log sigma(R) - (1 - y) log(1 - sigma(R)), y in [0, 1].

    Math-Shepherd eq. 2. For an implicit reward model R is an answer's sum of rewards and y its
    outcome (PRIME eq. 5).

    Args:
      rewards, labels, weights: of one shape.

    Returns:
      The loss, zero without weights, and `label_accuracy`: the weighted share of labels on whose
      side of one half sigma(R) is.
    """
    count = jnp.maximum(weights.sum(), 1e-6)
    # softplus(R) - y R is the same without a logarithm of something that rounds to zero.
    losses = jax.nn.softplus(rewards) - labels * rewards
    right = ((rewards >= 0) == (labels >= 0.5)).astype(jnp.float32)
    loss = (jnp.where(weights > 0, losses, 0.0) * weights).sum() / count
    return loss, {"label_accuracy": (right * weights).sum() / count}


def implicit_rewards(
    logprobs: jax.Array, reference: jax.Array, mask: jax.Array, beta: float
) -> jax.Array:
    """r_t = beta log pi(y_t) / pi_ref(y_t), `[R, T]` float32; zero where mask is (PRIME eq. 3)."""
    return beta * (logprobs - reference) * mask


def implicit_loss(
    hidden: jax.Array,
    head: jax.Array,
    batch: RewardBatch,
    beta: float,
    *,
    chunk_size: int,
    train_head: bool,
    soft_cap: float | None = None,
    mesh: jax.sharding.Mesh | None = None,
    token_axes: tuple[str, ...] = (),
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Mean over answers of the cross-entropy of sigma(sum_t r_t) and the outcome (PRIME eq. 5).

    Logits exist chunk by chunk. The loss depends on a token through its answer's sum alone, so that
    its gradient is that of a cross-entropy whose tokens weigh -beta dL / d(sum): one pass finds the
    sums, a second one, which stands for the loss in the backward pass, the gradient.

    Args:
      hidden: `[R, T, D]`.
      head: `[D, V]` of the language model.
      batch: with `reference`.
      beta: of the rewards.
      chunk_size, train_head, soft_cap, mesh, token_axes: as of `linear_divergence`.

    Returns:
      The loss, and `label_accuracy`.
    """
    options = {
        "objective": Objective(),
        "chunk_size": chunk_size,
        "soft_cap": soft_cap,
        "mesh": mesh,
        "token_axes": token_axes,
    }
    counted = _of_counted_answers(batch)
    _, aux = linear_divergence(
        jax.lax.stop_gradient(hidden),
        jax.lax.stop_gradient(head),
        batch.targets,
        counted,
        train_head=False,
        **options,
    )
    rewards = implicit_rewards(-aux["token_losses"], batch.reference, counted, beta)
    answers = batch.outcomes.shape[1]
    # The last token of a segment predicts nothing: segments of positions are those of targets.
    add_up = jax.vmap(lambda r, s: jax.ops.segment_sum(r, s, num_segments=answers + 1))
    sums = add_up(rewards, batch.segment_ids)[:, 1:]
    weights = batch.outcome_weights
    (loss, metrics), slopes = jax.value_and_grad(binary_loss, has_aux=True)(
        sums, batch.outcomes, weights
    )
    zeros = jnp.zeros_like(slopes[:, :1])
    by_segment = jnp.concatenate([zeros, slopes], axis=1)
    slope = jnp.take_along_axis(by_segment, batch.segment_ids, axis=1)
    stand_in, _ = linear_divergence(
        hidden, head, batch.targets, -beta * slope * counted, train_head=train_head, **options
    )
    return loss + stand_in - jax.lax.stop_gradient(stand_in), metrics


def _of_counted_answers(batch: RewardBatch) -> jax.Array:
    """`answer_mask` of the answers whose outcome is known."""
    zeros = jnp.zeros_like(batch.outcome_weights[:, :1])
    known = jnp.concatenate([zeros, batch.outcome_weights], axis=1) > 0
    return batch.answer_mask * jnp.take_along_axis(known, batch.segment_ids, axis=1)
