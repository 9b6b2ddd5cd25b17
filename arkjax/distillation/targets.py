"""What the student's distribution is held against: a live teacher's hidden states, or its tape."""

import dataclasses
from collections.abc import Callable

import jax


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class HiddenTarget:
    """A teacher given by its last hidden states; its logits are made chunk by chunk.

    The mean hidden state of several role contexts is the geometric mixture of their distributions
    (see `teacher.gather_hidden`). No gradient reaches a teacher.

    Attributes:
      hidden: `[..., Dt]`, aligned with the student's hidden states: same leading axes, each
        predicting the same token. Its width may differ from the student's.
      head: `[Dt, Vt]`.
      soft_cap: the teacher's final-logit soft cap, None without.
      gate: `[...]` float32, factor of each token's divergence; None: 1.
    """

    hidden: jax.Array
    head: jax.Array
    soft_cap: float | None = dataclasses.field(default=None, metadata={"static": True})
    gate: jax.Array | None = None

    def map_tokens(self, f: Callable[[jax.Array], jax.Array]) -> "HiddenTarget":
        """Applies f to what is stored token by token, and leaves the head alone."""
        gate = None if self.gate is None else f(self.gate)
        return dataclasses.replace(self, hidden=f(self.hidden), gate=gate)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TapeTarget:
    """A teacher given by its k most probable tokens and the mass of all others.

    Attributes:
      top_ids: `[..., k]` int, distinct.
      top_logprobs: `[..., k]`, log-probabilities at `kd_temperature`.
      log_tail: `[...]`, log of the probability outside the top k.
      kd_temperature: the temperature of these probabilities. Bucket masses cannot be reheated, so
        an objective must use the same one.
      gate: `[...]` float32, factor of each token's divergence; None: 1.
    """

    top_ids: jax.Array
    top_logprobs: jax.Array
    log_tail: jax.Array
    kd_temperature: float = dataclasses.field(default=1.0, metadata={"static": True})
    gate: jax.Array | None = None

    def map_tokens(self, f: Callable[[jax.Array], jax.Array]) -> "TapeTarget":
        """Applies f to every array."""
        return jax.tree.map(f, self)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SampledTarget:
    """A teacher given by tokens drawn from its distribution (RS-KD 2503.16870).

    Attributes:
      ids: `[..., n]` int32, distinct where the weight is not 0.
      weights: `[..., n]` float32, how often each was drawn over N; 0 where unused.
      kd_temperature: the temperature of the distribution that was drawn from.
      gate: `[...]` float32, factor of each token's divergence; None: 1.
    """

    ids: jax.Array
    weights: jax.Array
    kd_temperature: float = dataclasses.field(default=1.0, metadata={"static": True})
    gate: jax.Array | None = None

    def map_tokens(self, f: Callable[[jax.Array], jax.Array]) -> "SampledTarget":
        """Applies f to every array."""
        return jax.tree.map(f, self)


Target = HiddenTarget | TapeTarget | SampledTarget | None
