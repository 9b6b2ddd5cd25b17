"""On-policy distillation: the student's own answers take the place of some recorded traces.

Generalised knowledge distillation (GKD, arXiv 2306.13649, algorithm 1): with probability lambda an
example's recorded trace is replaced by a sample of the student, and the loss there is the
divergence from the teacher on the student's own tokens. Sampling is not differentiated.
"""

import dataclasses
import hashlib
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from arkjax.distillation.chunked import linear_divergence
from arkjax.distillation.objective import Objective
from arkjax.distillation.policy_loss import (
    LossShape,
    at_temperature,
    importance_weights,
    token_logprobs,
)
from arkjax.distillation.rows import Batch
from arkjax.distillation.targets import Target
from arkjax.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class OnPolicyConfig:
    """How often a student learns from its own answers.

    Attributes:
      own_share: GKD's lambda at the first step: the probability that an example's trace is replaced
        by the student's own answer. 0 is training on recorded traces, 1 is on-policy throughout.
      own_share_end: lambda at the last step, reached linearly; None: as at the first.
      importance_cap: own tokens are weighed by the ratio of their probability now to that when they
        were drawn, truncated to this; for samplers of other precision, or of weights that lag
        behind. None: all alike.

    Raises:
      ConfigError: if a value is outside its range.
    """

    own_share: float = 0.5
    own_share_end: float | None = None
    importance_cap: float | None = None

    def __post_init__(self) -> None:
        for name in ("own_share", "own_share_end"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise ConfigError(f"on_policy.{name} is {value}: expected a probability")
        if self.importance_cap is not None and not 1 <= self.importance_cap < math.inf:
            raise ConfigError(
                f"on_policy.importance_cap is {self.importance_cap}: expected 1 or more, or None"
            )

    def check_objective(self, objective: Objective) -> None:
        """Raise ConfigError if the student's own answers would be held against nothing."""
        if max(self.own_share, self.own_share_end or 0.0) > 0 and not objective.needs_teacher:
            raise ConfigError(
                "objective.divergence is 'none', but on_policy.own_share is above 0: the student's "
                "own answers need a teacher's distribution; choose a divergence"
            )

    def share(self, step: int, steps: int) -> float:
        """lambda at a step of a run of so many steps."""
        if self.own_share_end is None or steps < 2:
            return self.own_share
        done = step / (steps - 1)
        return self.own_share + done * (self.own_share_end - self.own_share)


def takes_own(share: float, seed: int, step: int, place: int) -> bool:
    """Whether the example at one place of a step is replaced: with probability `share`."""
    bits = hashlib.sha256(f"own/{seed}/{step}/{place}".encode()).digest()[:8]
    return int.from_bytes(bits, "big") < share * 2**64


class OnPolicyBatch(NamedTuple):
    """Recorded traces and own answers in rows, `[B, T]`, position t predicting `batch.targets[t]`.

    Attributes:
      batch: the rows.
      target: the teacher's distributions on them.
      own: bool, where the token is the student's own. Its cross-entropy does not count: the student
        is not to learn its own words by heart.
      logprobs: float32, of own tokens in the distribution that they were drawn from; 0 elsewhere.
    """

    batch: Batch
    target: Target
    own: jax.Array
    logprobs: jax.Array


def on_policy_loss(
    hidden: jax.Array,
    head: jax.Array,
    inputs: OnPolicyBatch,
    objective: Objective,
    config: OnPolicyConfig,
    shape: LossShape,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The objective's sum over tokens; on own tokens the divergence alone, truncatedly weighed.

    Args:
      hidden: [B, T, D], the student's.
      head: [D, V].
      inputs: the batch.
      objective: the cross-entropy and the divergence.
      config: whether own tokens are weighed.
      shape: what is static; of its temperature are the probabilities of own tokens, not the loss.

    Returns:
      The loss, to be divided by the sum of the batch's weights, and sums weighted by these:
      `divergence`, `weight` and, of own tokens alone, `own_loss`, `own_weight` and `importance`,
      that of their ratios. They carry no gradient.
    """
    batch, own = inputs.batch, inputs.own
    weights, ratio = batch.weights, 1.0
    if config.importance_cap is not None:
        then, _ = at_temperature(hidden, None, shape)
        drawn = own & (weights != 0)
        logprobs, _ = token_logprobs(then, head, batch.targets, drawn, shape)
        ratio = importance_weights(logprobs, inputs.logprobs, drawn, config.importance_cap)
    recorded = jnp.where(own, 0.0, 1.0)
    loss, aux = linear_divergence(
        hidden,
        head,
        batch.targets,
        weights * ratio,
        objective=objective,
        target=inputs.target,
        label_weights=recorded,
        chunk_size=shape.chunk_size,
        train_head=shape.train_head,
        soft_cap=shape.soft_cap,
        mesh=shape.mesh,
        token_axes=shape.token_axes,
    )
    own_weights = jnp.where(own, weights, 0.0)
    sums = {
        "divergence": aux["divergence"],
        "weight": jnp.sum(weights),
        "own_loss": jnp.sum(own_weights * aux["token_losses"]),
        "own_weight": jnp.sum(own_weights),
        "importance": jnp.sum(own_weights * ratio),
    }
    return loss, jax.lax.stop_gradient(sums)
