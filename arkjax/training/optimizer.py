"""The optimizer: AdamW, or Muon for the layers' matrices, under warm-up and cosine decay."""

import dataclasses
import functools
from collections.abc import Mapping

import jax
import optax
from optax import contrib

from arkjax.errors import ConfigError
from arkjax.models.weights import LAYERS, WeightSpec


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


def make_optimizer(
    config: OptimizerConfig, steps: int, specs: Mapping[str, WeightSpec]
) -> optax.GradientTransformation:
    """The transformation for a run of `steps` steps of the weights that `specs` describes."""

    def schedule(peak: float) -> optax.Schedule:
        return optax.warmup_cosine_decay_schedule(
            init_value=0.0,
            peak_value=peak,
            warmup_steps=min(config.warmup_steps, steps - 1),
            decay_steps=steps,
            end_value=peak * config.final_fraction,
        )

    def decayed(weights: dict[str, jax.Array]) -> dict[str, bool]:
        return {name: specs[name].inputs > 0 for name in weights}

    if config.muon_learning_rate:
        optimizer = contrib.muon(
            schedule(config.muon_learning_rate),
            beta=_MUON_MOMENTUM,
            weight_decay=config.weight_decay,
            consistent_rms=_MUON_RMS,
            adam_learning_rate=schedule(config.learning_rate),
            adam_b1=config.beta1,
            adam_b2=config.beta2,
            muon_weight_dimension_numbers=functools.partial(_matrices, specs),
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
    specs: Mapping[str, WeightSpec], weights: dict[str, jax.Array]
) -> dict[str, contrib.MuonDimensionNumbers | None]:
    """How each weight is a matrix from inputs to outputs, layer by layer and expert by expert.

    None for what is none. Muon asks again with placeholders for those: names alone must tell.
    """
    numbers = {}
    for name in weights:
        spec, numbers[name] = specs[name], None
        if name.startswith(LAYERS) and spec.inputs:
            outputs = range(len(spec.shape) - spec.inputs)
            numbers[name] = contrib.MuonDimensionNumbers(
                tuple(range(len(outputs), len(spec.shape))),
                tuple(i for i in outputs if spec.axes[i] not in ("layers", "experts")),
            )
    return numbers
