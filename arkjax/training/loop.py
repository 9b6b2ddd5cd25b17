"""The training loop: the base model and every student go through it."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from arkjax.distillation.chunked import linear_divergence
from arkjax.distillation.objective import Objective
from arkjax.distillation.rows import Batch, Rows, batch, order
from arkjax.distillation.targets import Target
from arkjax.errors import ArkJAXError, ConfigError
from arkjax.models.config import ModelConfig
from arkjax.models.lora import trainable
from arkjax.models.placement import shardings
from arkjax.models.transformer import Transformer
from arkjax.models.weights import weight_specs
from arkjax.progress import Progress
from arkjax.sharding import BATCH_AXES, ShardingRules, batch_sharding
from arkjax.training.checkpoints import Checkpoints
from arkjax.training.metrics import MetricsLog
from arkjax.training.optimizer import OptimizerConfig, make_optimizer

# Maps row indices [B] to the teacher of those rows, aligned with their batch.
Teacher = Callable[[np.ndarray], Target]


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How long and how a model is trained.

    Attributes:
      steps: optimizer steps.
      batch_rows: rows of a step, over all devices.
      chunk_tokens: tokens whose logits exist at once.
      log_every: steps between two lines of the metrics log.
      checkpoint_every: steps between two checkpoints.
      optimizer: the optimizer.
      router_loss_weight: of the loss that spreads tokens evenly over routed experts.
    """

    steps: int
    batch_rows: int
    chunk_tokens: int
    log_every: int
    checkpoint_every: int
    optimizer: OptimizerConfig
    router_loss_weight: float = 1e-3

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type is int and value < 1:
                raise ConfigError(f"{field.name} is {value}: it must be at least 1")


class TrainState(NamedTuple):
    """Everything that a step changes. The position in the data is `step`, an integer.

    `weights` are those that are trained, in fp32 whatever the model keeps; frozen ones are no part
    of it.
    """

    step: jax.Array
    weights: dict[str, jax.Array]
    optimizer: optax.OptState


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
) -> Transformer:
    """Train a model on rows, from its last checkpoint if there is one.

    Killed at any moment and called again, it ends with the same weights: the order of the rows is a
    function of `seed` and the step, and the state is restored bit by bit. Of a model with adapters
    those alone are trained, and kept in checkpoints: going on needs the same model again.

    Args:
      model: the weights to start from; they are left as they are.
      rows: packed examples.
      objective: what to minimise.
      config: steps, batch and optimizer.
      directory: for `checkpoints/` and `metrics.jsonl`.
      seed: of the order of the rows.
      mesh: where to train.
      rules: how weights are sharded over it.
      progress: shows rate and remaining time.
      name: what is trained, for the progress line.
      teacher: gives the target of a batch, when the objective needs one.

    Raises:
      ConfigError: if the batch cannot be spread over the mesh, or the model's weights are quantised
        and it has no adapters.
      ArkJAXError: if the loss is not finite; the message names the step.
    """
    check_batch(config, mesh)
    optimizer = make_optimizer(config.optimizer, config.steps, weight_specs(model.config))
    frozen = jax.device_put(model.arrays(), shardings(model.config, mesh, rules))
    trained = {name: frozen.pop(name) for name in sorted(trainable(model.config))}
    state = jax.jit(functools.partial(_start, optimizer))(trained)
    del trained  # The state holds copies: steps take them apart, and the given model stays.
    state_places, frozen_places = jax.tree.map(lambda x: x.sharding, (state, frozen))
    step_fn = jax.jit(
        functools.partial(training_step, model.config, objective, optimizer, config, mesh),
        donate_argnums=0,
        in_shardings=(state_places, frozen_places, batch_sharding(mesh), None),
        out_shardings=(state_places, NamedSharding(mesh, PartitionSpec())),
    )

    # Closed after an error too, so that the last checkpoint is whole when the error is seen.
    with contextlib.closing(Checkpoints(directory / "checkpoints")) as checkpoints:
        log = MetricsLog(directory / "metrics.jsonl")
        restored = checkpoints.restore_latest(state)
        if restored is not None:
            _, state = restored
        start = int(state.step)
        log.rewind(start)

        waiting: tuple[int, dict[str, jax.Array]] | None = None
        with progress.task(name, total=config.steps, unit="steps", done=start) as task:
            for step in range(start, config.steps):
                indices = order(rows.num_rows, config.batch_rows, seed, step)
                target = teacher(indices) if teacher else None
                inputs = jax.device_put(batch(rows, indices), batch_sharding(mesh))
                state, metrics = step_fn(state, frozen, inputs, target)
                # Reading the step before this one never makes the device wait.
                if waiting is not None:
                    _check_and_log(log, config, name, *waiting, task)
                waiting = (step + 1, metrics)
                if (step + 1) % config.checkpoint_every == 0 and step + 1 < config.steps:
                    _check_and_log(log, config, name, *waiting, task)
                    waiting = None
                    checkpoints.save(step + 1, state)
            if waiting is not None:
                _check_and_log(log, config, name, *waiting, task)
    kept = model.arrays()
    trained = {name: w.astype(kept[name].dtype) for name, w in state.weights.items()}
    return Transformer(model.config, frozen | trained, mesh)


def check_batch(config: TrainConfig, mesh: Mesh, field: str = "batch_rows") -> None:
    """Raise ConfigError, naming `field`, unless a batch can be spread over the mesh."""
    spread = mesh.shape["data"] * mesh.shape["fsdp"]
    if config.batch_rows % spread:
        raise ConfigError(
            f"{field} is {config.batch_rows}: it must be a multiple of the {spread} devices "
            "along data and fsdp"
        )


def _start(optimizer: optax.GradientTransformation, weights: dict[str, jax.Array]) -> TrainState:
    # In 16 bits most steps would round to nothing (arXiv 1710.03740, section 3.1).
    weights = {name: weight.astype(jnp.float32) for name, weight in weights.items()}
    return TrainState(jnp.zeros((), jnp.int32), weights, optimizer.init(weights))


def training_step(
    model_config: ModelConfig,
    objective: Objective,
    optimizer: optax.GradientTransformation,
    config: TrainConfig,
    mesh: Mesh,
    state: TrainState,
    frozen: dict[str, jax.Array],
    inputs: Batch,
    target: Target,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """One optimizer step; the loss is a mean over the valid tokens of the whole batch.

    Args:
      model_config, objective, optimizer, config, mesh: as of `train`.
      state: before the step; its weights alone are differentiated.
      frozen: the model's other weights.
      inputs: the batch.
      target: the teacher of the batch.

    Returns:
      The state after the step, and its metrics.
    """

    def loss_fn(weights: dict[str, jax.Array]) -> tuple[jax.Array, dict[str, jax.Array]]:
        model = Transformer(model_config, frozen | weights, mesh)
        hidden, router_loss = model.forward(inputs.tokens, inputs.positions, inputs.segment_ids)
        total, aux = linear_divergence(
            hidden,
            model.head.astype(hidden.dtype),
            inputs.targets,
            inputs.weights,
            objective=objective,
            target=target,
            chunk_size=config.chunk_tokens,
            train_head=model_config.lora is None,
            soft_cap=model_config.logit_soft_cap or None,
            mesh=mesh if mesh.size > 1 else None,
            token_axes=BATCH_AXES if mesh.size > 1 else (),
        )
        weight = jnp.maximum(inputs.weights.sum(), 1e-6)
        metrics = {name: aux[name] / weight for name in ("cross_entropy", "divergence")}
        loss = total / weight
        if model_config.experts is not None:
            metrics["router_loss"] = router_loss
            loss += config.router_loss_weight * router_loss
        return loss, metrics

    (loss, metrics), gradients = jax.value_and_grad(loss_fn, has_aux=True)(state.weights)
    updates, optimizer_state = optimizer.update(gradients, state.optimizer, state.weights)
    weights = optax.apply_updates(state.weights, updates)
    metrics |= {"loss": loss, "gradient_norm": optax.global_norm(gradients)}
    return TrainState(state.step + 1, weights, optimizer_state), metrics


def _check_and_log(
    log: MetricsLog, config: TrainConfig, name: str, step: int, metrics: dict, task
) -> None:
    values = {key: float(value) for key, value in metrics.items()}
    if not all(np.isfinite(value) for value in values.values()):
        raise ArkJAXError(
            f"{name}: loss or gradient is not finite at step {step} ({values}). Lower "
            "optimizer.learning_rate, or look for damaged rows; the last checkpoint is kept"
        )
    if step % config.log_every == 0 or step == config.steps:
        log.append(step, **values)
    task.advance(1, note=f"loss {values['loss']:.3f}")
