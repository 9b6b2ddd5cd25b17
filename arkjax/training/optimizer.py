"""The optimizer: AdamW under warm-up and cosine decay, with clipped gradients."""

import dataclasses

import jax
import optax

from arkjax.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """AdamW (arXiv 1711.05101) and its schedule.

    Attributes:
      learning_rate: at the peak.
      warmup_steps: steps of linear warm-up from zero.
      final_fraction: of the peak learning rate, at the last step.
      beta1, beta2: decay of the gradient's first and second moments.
      weight_decay: of weights with two or more axes beyond the layers' own; norm scales have none.
      clip_norm: largest global norm of the gradient.
    """

    learning_rate: float
    warmup_steps: int
    final_fraction: float
    beta1: float
    beta2: float
    weight_decay: float
    clip_norm: float

    def __post_init__(self) -> None:
        if self.learning_rate <= 0 or self.clip_norm <= 0:
            raise ConfigError("optimizer: learning_rate and clip_norm must be positive")
        for name in ("final_fraction", "beta1", "beta2"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"optimizer.{name} is {getattr(self, name)}: expected in [0, 1]")


def make_optimizer(config: OptimizerConfig, steps: int) -> optax.GradientTransformation:
    """The transformation for a run of `steps` steps."""
    schedule = optax.warmup_cosine_decay_schedule(
        init_value=0.0,
        peak_value=config.learning_rate,
        warmup_steps=min(config.warmup_steps, steps - 1),
        decay_steps=steps,
        end_value=config.learning_rate * config.final_fraction,
    )

    def decayed(weights: dict[str, jax.Array]) -> dict[str, bool]:
        return {name: not name.endswith("norm") for name in weights}

    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.adamw(
            schedule,
            b1=config.beta1,
            b2=config.beta2,
            weight_decay=config.weight_decay,
            mask=decayed,
        ),
    )
