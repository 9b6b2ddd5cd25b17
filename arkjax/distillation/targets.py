"""What the student is held against: a live teacher's hidden states, or what was kept of them.

Every target may carry a `gate`, a float32 factor `[...]` of each token's divergence (not of its
cross-entropy): 0 where the teacher is not to be trusted. What a target holds at a token whose gate
is zero is never looked at. No gradient reaches a target.
"""

import dataclasses
from collections.abc import Callable
from typing import Literal

import jax

Mixture = Literal["geometric", "arithmetic"]


class _Tokens:
    """What all targets share: arrays that belong to tokens, beside those that do not."""

    def map_tokens(self, f: Callable[[jax.Array], jax.Array]):
        """Applies f to what is stored token by token, and leaves the head alone."""
        names = [field.name for field in dataclasses.fields(self) if field.name != "head"]
        arrays = {
            name: f(getattr(self, name))
            for name in names
            if not self.__dataclass_fields__[name].metadata.get("static")
            and getattr(self, name) is not None
        }
        return dataclasses.replace(self, **arrays)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class HiddenTarget(_Tokens):
    """A teacher given by its last hidden states; its logits are made chunk by chunk.

    The mean hidden state of several role contexts is the geometric mixture of their distributions
    (see `teacher.gather_hidden`).

    Attributes:
      hidden: `[..., Dt]`, aligned with the student's hidden states: same leading axes, each
        predicting the same token. Its width may differ from the student's.
      head: `[Dt, Vt]`; products are made in the dtype of hidden.
      soft_cap: the teacher's final-logit soft cap, None without.
      gate: `[...]` float32, or None.
    """

    hidden: jax.Array
    head: jax.Array
    soft_cap: float | None = dataclasses.field(default=None, metadata={"static": True})
    gate: jax.Array | None = None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class MixtureTarget(_Tokens):
    """One teacher under K prompts: the mixture of its distributions, from K hidden states a token.

    Geometric: log p = sum_k w_k log p_k + const. Arithmetic: p = sum_k w_k p_k, each p_k at the
    objective's temperature, so that KL(p || q) has the gradient of sum_k w_k KL(p_k || q). Heads
    are evaluated one after the other, so that `[C, K, V]` never exists, and a geometric mixture
    without soft cap costs one head whatever K is.

    Attributes:
      hidden: `[..., K, Dt]`, aligned with the student's as of `HiddenTarget`.
      weights: `[..., K]` float32, none negative, of sum one wherever there is something to predict.
        A context of weight 0 may hold anything.
      head: `[Dt, Vt]`.
      soft_cap: the teacher's final-logit soft cap, None without.
      mixture: which mean is taken.
      gate: `[...]` float32, or None.
    """

    hidden: jax.Array
    weights: jax.Array
    head: jax.Array
    soft_cap: float | None = dataclasses.field(default=None, metadata={"static": True})
    mixture: Mixture = dataclasses.field(default="geometric", metadata={"static": True})
    gate: jax.Array | None = None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TapeTarget(_Tokens):
    """A teacher given by its k most probable tokens and the mass of all others.

    Attributes:
      top_ids: `[..., k]` int, distinct.
      top_logprobs: `[..., k]`, log-probabilities at `kd_temperature`.
      log_tail: `[...]`, log of the probability outside the top k.
      kd_temperature: the temperature of these probabilities. Bucket masses cannot be reheated, so
        an objective must use the same one.
      gate: `[...]` float32, or None.
    """

    top_ids: jax.Array
    top_logprobs: jax.Array
    log_tail: jax.Array
    kd_temperature: float = dataclasses.field(default=1.0, metadata={"static": True})
    gate: jax.Array | None = None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SampledTarget(_Tokens):
    """A teacher given by N draws a token from its distribution (RS-KD 2503.16870).

    The forward KL from the drawn distribution has the gradient of that from the teacher's in the
    mean over draws, which no truncation to the most probable tokens has. Other divergences are not
    linear in the teacher and are refused. As a loss it is above the teacher's forward KL by what
    the drawn distribution's entropy is below the teacher's.

    Attributes:
      ids: `[..., n]` int32, the drawn tokens, distinct where weights are not 0.
      weights: `[..., n]` float32, how often each was drawn over N; 0 where unused.
      kd_temperature: the temperature of the distribution that was drawn from.
      gate: `[...]` float32, or None.
    """

    ids: jax.Array
    weights: jax.Array
    kd_temperature: float = dataclasses.field(default=1.0, metadata={"static": True})
    gate: jax.Array | None = None


Target = HiddenTarget | MixtureTarget | TapeTarget | SampledTarget | None
