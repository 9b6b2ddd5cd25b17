"""The optimizer: AdamW, or Muon for the layers' matrices, under warm-up and cosine decay."""

import dataclasses

import jax
import optax
from optax import contrib

from arkjax.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """AdamW (arXiv 1711.05101), or Muon (arXiv 2502.16982) beside it, and their schedule.

    Attributes:
      learning_rate: at the peak.
      warmup_steps: steps of linear warm-up from zero.
      final_fraction: of the peak learning rate, at the last step.
      beta1, beta2: decay of the gradient's first and second moments.
      weight_decay: of weights with two or more axes beyond the layers' own; norm scales have none.
      clip_norm: largest global norm of the gradient.
      muon_learning_rate: of the layers' matrices under Muon, at the peak, scaled so that an update
        is about as large as one of AdamW's (eq. 4 there); embeddings, head and norm scales then
        stay with AdamW, undecayed. 0 leaves everything to AdamW. Meant for training from scratch.
    """

    learning_rate: float
    warmup_steps: int
    final_fraction: float
    beta1: float
    beta2: float
    weight_decay: float
    clip_norm: float
    muon_learning_rate: float = 0.0

    def __post_init__(self) -> None:
        if self.learning_rate <= 0 or self.clip_norm <= 0:
            raise ConfigError("optimizer: learning_rate and clip_norm must be positive")
        if self.muon_learning_rate < 0:
            raise ConfigError("optimizer: muon_learning_rate must not be negative")
        for name in ("final_fraction", "beta1", "beta2"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"optimizer.{name} is {getattr(self, name)}: expected in [0, 1]")


# Muon's update relative to AdamW's of the same learning rate (arXiv 2502.16982, eq. 4).
_MUON_RMS = 0.2
_MUON_MOMENTUM = 0.95


def make_optimizer(config: OptimizerConfig, steps: int) -> optax.GradientTransformation:
    """The transformation for a run of `steps` steps."""

    def schedule(peak: float) -> optax.Schedule:
        return optax.warmup_cosine_decay_schedule(
            init_value=0.0,
            peak_value=peak,
            warmup_steps=min(config.warmup_steps, steps - 1),
            decay_steps=steps,
            end_value=peak * config.final_fraction,
        )

    def decayed(weights: dict[str, jax.Array]) -> dict[str, bool]:
        return {name: not name.endswith("norm") for name in weights}

    if config.muon_learning_rate:
        optimizer = contrib.muon(
            schedule(config.muon_learning_rate),
            beta=_MUON_MOMENTUM,
            weight_decay=config.weight_decay,
            consistent_rms=_MUON_RMS,
            adam_learning_rate=schedule(config.learning_rate),
            adam_b1=config.beta1,
            adam_b2=config.beta2,
            muon_weight_dimension_numbers=_matrices,
        )
    else:
        optimizer = optax.adamw(
            schedule(config.learning_rate),
            b1=config.beta1,
            b2=config.beta2,
            weight_decay=config.weight_decay,
            mask=decayed,
        )
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), optimizer)


def _matrices(
    weights: dict[str, jax.Array],
) -> dict[str, contrib.MuonDimensionNumbers | None]:
    """How each weight is a matrix from inputs to outputs, layer by layer; None: it is none."""

    # Muon asks again with placeholders for what is none: the name alone must tell.
    numbers = {}
    for name, weight in weights.items():
        numbers[name] = None
        if name.startswith("layers_") and not name.endswith("norm"):
            # [L, D, ...] maps the residual stream to heads or mlp; "o" [L, H, h, D] heads back.
            split = weight.ndim - 1 if name == "layers_o" else 2
            numbers[name] = contrib.MuonDimensionNumbers(
                tuple(range(1, split)), tuple(range(split, weight.ndim))
            )
    return numbers
