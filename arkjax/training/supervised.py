"""Training on packed rows: words to say, and with a teacher its distributions over them."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from arkjax.distillation.chunked import linear_divergence
from arkjax.distillation.objective import Objective
from arkjax.distillation.rows import Batch, Rows, batch, order
from arkjax.distillation.targets import Target
from arkjax.models.config import ModelConfig
from arkjax.models.transformer import Transformer
from arkjax.progress import Progress
from arkjax.sharding import ShardingRules, batch_sharding
from arkjax.training.head import head_for, over
from arkjax.training.held_out import HeldOut
from arkjax.training.loop import Feed, Loss, TrainConfig, Weights, run_training
from arkjax.training.micro_batches import micro_batch, num_micro_batches, summed

# Maps row indices [B] to the teacher of those rows, aligned with their batch.
Teacher = Callable[[np.ndarray], Target]


class Lesson(NamedTuple):
    """What a step learns from.

    Attributes:
      batch: rows, over all devices.
      target: the teacher of these rows, aligned with them; None without one.
    """

    batch: Batch
    target: Target = None


def train(
    model: Transformer,
    rows: Rows,
    objective: Objective,
    config: TrainConfig,
    directory: Path,
    *,
    seed: int,
    mesh: Mesh,
    rules: ShardingRules,
    progress: Progress,
    name: str,
    teacher: Teacher | None = None,
    held_out: HeldOut | None = None,
) -> Transformer:
    """Train a model on rows, from its last checkpoint if there is one.

    Args:
      model, config, directory, mesh, rules, progress, name, held_out: as of `run_training`.
      rows: packed examples.
      objective: what to minimise.
      seed: of the order of the rows, which is a function of it and the step.
      teacher: gives the target of a batch, when the objective needs one.

    Raises:
      ConfigError, ArkJAXError: as `run_training`.
    """
    trained = run_training(
        model,
        distillation_loss(model.config, objective, config, mesh),
        rows_feed(rows, config.batch_rows, seed, mesh, teacher),
        config,
        directory,
        mesh=mesh,
        rules=rules,
        progress=progress,
        name=name,
        held_out=held_out,
    )
    return trained.model


def rows_feed(
    rows: Rows, batch_rows: int, seed: int, mesh: Mesh, teacher: Teacher | None = None
) -> Feed:
    """Rows in the order of `rows.order`, whatever the model is."""

    def feed(step: int, _: Callable[[], Transformer]) -> Lesson:
        indices = order(rows.num_rows, batch_rows, seed, step)
        target = teacher(indices) if teacher else None
        return Lesson(jax.device_put(batch(rows, indices), batch_sharding(mesh)), target)

    return feed


def distillation_loss(
    model_config: ModelConfig, objective: Objective, config: TrainConfig, mesh: Mesh
) -> Loss:
    """The objective's mean over the valid tokens of the whole batch: a loss of `Lesson`s.

    Args:
      model_config: the student's shape.
      objective: what to minimise.
      config: `micro_rows`, `chunk_tokens` and `router_loss_weight`.
      mesh: that the batch is spread over.
    """

    def loss(weights: Weights, lesson: Lesson) -> tuple[jax.Array, dict[str, jax.Array]]:
        model = Transformer(model_config, weights, mesh)
        # Before the product: dividing afterwards would be one more pass over d head.
        weight = jnp.maximum(lesson.batch.weights.sum(), 1e-6)
        number = num_micro_batches(len(lesson.batch.tokens), config.micro_rows)

        def part(index: jax.Array) -> tuple[jax.Array, dict[str, jax.Array], jax.Array]:
            inputs, target = micro_batch(lesson, index, number)
            hidden, router_loss = model.forward(inputs.tokens, inputs.positions, inputs.segment_ids)
            value, aux = linear_divergence(
                hidden,
                head_for(model, hidden),
                inputs.targets,
                inputs.weights / weight,
                objective=objective,
                target=target,
                chunk_size=config.chunk_tokens,
                train_head=model_config.lora is None,
                soft_cap=model_config.logit_soft_cap or None,
                **over(mesh),
            )
            metrics = {name: aux[name] for name in ("cross_entropy", "divergence")}
            return value, metrics, router_loss / number

        value, metrics, router_loss = summed(part, number)
        if model_config.experts is not None:
            metrics["router_loss"] = router_loss
            value += config.router_loss_weight * router_loss
        return value, metrics

    return loss
