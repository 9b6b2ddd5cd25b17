"""The training loop: whatever is trained goes through it, the base model and every student.

A step asks a *feed* for its inputs and a *loss* for what to minimise; the feed may read the model
as it is now, which is how a student learns from its own answers. Both are functions of the step and
the weights alone, so that a run that was killed goes on and ends with the same weights.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from arkjax.errors import ArkJAXError, ConfigError
from arkjax.models.lora import trainable
from arkjax.models.placement import shardings
from arkjax.models.transformer import Transformer
from arkjax.models.weights import WeightSpec, weight_specs
from arkjax.progress import Progress, Task
from arkjax.sharding import ShardingRules
from arkjax.storage import added
from arkjax.training.checkpoints import Checkpoints
from arkjax.training.held_out import HeldOut, HeldOutLog
from arkjax.training.metrics import MetricsLog
from arkjax.training.optimizer import OptimizerConfig, make_optimizer

Weights = dict[str, jax.Array]
# All weights by name, a step's inputs -> the loss [], and further scalars to log.
Loss = Callable[[Weights, Any], tuple[jax.Array, dict[str, jax.Array]]]
# A step's number, the model as it is before it -> the step's inputs, a pytree placed on the mesh.
Feed = Callable[[int, Callable[[], Transformer]], Any]


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How long and how a model is trained.

    Attributes:
      steps: optimizer steps.
      batch_rows: rows of a step, over all devices.
      chunk_tokens: tokens whose logits exist at once.
      log_every: steps between two lines of the metrics log.
      checkpoint_every: steps between two checkpoints, and between two looks at held-out problems.
      optimizer: the optimizer.
      router_loss_weight: of the loss that spreads tokens evenly over routed experts.
      patience: training stops after so many looks at held-out problems without a new best; 0 goes
        on to the last step.
      micro_rows: rows whose activations exist at once, over all devices; the gradient is that of
        all of them, at the price of one more forward pass. 0: all rows of the step.
    """

    steps: int
    batch_rows: int
    chunk_tokens: int
    log_every: int
    checkpoint_every: int
    optimizer: OptimizerConfig
    router_loss_weight: float = 1e-3
    patience: int = added(0)
    micro_rows: int = added(0)

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            least = 0 if field.name in ("patience", "micro_rows") else 1
            if field.type is int and value < least:
                raise ConfigError(f"{field.name} is {value}: it must be at least {least}")
        if self.micro_rows and self.batch_rows % self.micro_rows:
            raise ConfigError(
                f"micro_rows is {self.micro_rows}: batch_rows, {self.batch_rows}, must be a "
                "multiple of it"
            )


class TrainState(NamedTuple):
    """Everything that a step changes. The position in the data is `step`, an integer.

    `weights` are those that are trained, in fp32 whatever the model keeps; frozen ones are no part
    of it.
    """

    step: jax.Array
    weights: Weights
    optimizer: optax.OptState


class Trained(NamedTuple):
    """What training gives.

    Attributes:
      model: after the last step, or at the best look at held-out problems.
      extra: the further arrays that were trained beside it, at the same step.
      step: that step.
    """

    model: Transformer
    extra: Weights
    step: int


def run_training(
    model: Transformer,
    loss: Loss,
    feed: Feed,
    config: TrainConfig,
    directory: Path,
    *,
    mesh: Mesh,
    rules: ShardingRules,
    progress: Progress,
    name: str,
    extra: Mapping[str, jax.Array] | None = None,
    only: Mapping[str, jax.Array] | None = None,
    held_out: HeldOut | None = None,
) -> Trained:
    """Train a model, from its last checkpoint if there is one.

    Killed at any moment and called again, it ends with the same weights: a step's inputs are a
    function of its number and the weights, and the state is restored bit by bit. Of a model with
    adapters those alone are trained, and kept in checkpoints: going on needs the same model again.

    Args:
      model: the weights to start from; they are left as they are.
      loss: what is minimised.
      feed: gives a step's inputs. The model that it may ask for is good until it returns.
      config: steps, batch and optimizer.
      directory: for `checkpoints/`, `metrics.jsonl` and `held_out.jsonl`.
      mesh: where to train.
      rules: how weights are sharded over it.
      progress: shows rate and remaining time.
      name: what is trained, for the progress line.
      extra: further arrays that are trained, such as the head of a reward model, by names that no
        weight of the model has; `loss` finds them among the weights.
      only: factors, by the names of trained weights and broadcast to them: where one is 0 nothing
        changes, and weights that are not named change as usual.
      held_out: measures the model on held-out problems at every checkpoint, before the first step
        and after the last: the weights of the best look are what is returned, of equal ones the
        earliest that were trained at all.

    Raises:
      ConfigError: if the batch cannot be spread over the mesh, or the model's weights are quantised
        and it has no adapters.
      ArkJAXError: if the loss is not finite; the message names the step.
    """
    check_batch(config, mesh)
    extra = dict(extra or {})
    specs = weight_specs(model.config) | {
        name: WeightSpec(array.shape, (None,) * array.ndim) for name, array in extra.items()
    }
    optimizer = make_optimizer(config.optimizer, config.steps, specs)
    if only is not None:
        optimizer = optax.chain(_times(only), optimizer, _times(only))
    whole = NamedSharding(mesh, PartitionSpec())
    frozen = jax.device_put(model.arrays(), shardings(model.config, mesh, rules))
    trained = {name: frozen.pop(name) for name in sorted(trainable(model.config))}
    trained |= jax.device_put(extra, whole)
    frozen_places = jax.tree.map(lambda x: x.sharding, frozen)
    state_places = _state_places(optimizer, trained, mesh)
    state = jax.jit(functools.partial(_start, optimizer), out_shardings=state_places)(trained)
    del trained  # The state holds copies: steps take them apart, and the given model stays.
    step_fn = jax.jit(
        functools.partial(training_step, loss, optimizer),
        donate_argnums=0,
        in_shardings=(state_places, frozen_places, None),
        out_shardings=(state_places, whole),
    )
    dtypes = {name: array.dtype for name, array in (model.arrays() | extra).items()}

    def now(state: TrainState) -> Trained:
        arrays = {name: w.astype(dtypes[name]) for name, w in state.weights.items()}
        beside = {name: arrays.pop(name) for name in extra}
        return Trained(Transformer(model.config, frozen | arrays, mesh), beside, int(state.step))

    # Closed after an error too, so that the last checkpoint is whole when the error is seen.
    with contextlib.closing(Checkpoints(directory / "checkpoints")) as checkpoints:
        log = MetricsLog(directory / "metrics.jsonl")
        looks = HeldOutLog(directory / "held_out.jsonl", config.patience) if held_out else None
        restored = checkpoints.restore_latest(state)
        if restored is not None:
            _, state = restored
        start = int(state.step)
        log.rewind(start)
        if looks:
            looks.rewind(-1 if restored is None else start)

        def keep(state: TrainState) -> None:
            step = int(state.step)
            score = None
            if looks:
                score = looks.look(step, held_out, now(state).model)
                progress.say(f"{name}: step {step}, held-out accuracy {score:.1%}")
            checkpoints.save(step, state, score)

        if looks and restored is None:
            keep(state)
        waiting: tuple[int, dict[str, jax.Array]] | None = None
        with progress.task(name, total=config.steps, unit="steps", done=start) as task:
            for step in range(start, config.steps):
                if looks and looks.exhausted:
                    break
                inputs = feed(step, lambda state=state: now(state).model)
                state, metrics = step_fn(state, frozen, inputs)
                # Reading the step before this one never makes the device wait.
                if waiting is not None:
                    _check_and_log(log, config, name, *waiting, task)
                waiting = (step + 1, metrics)
                last = step + 1 == config.steps
                if (step + 1) % config.checkpoint_every == 0 or last:
                    _check_and_log(log, config, name, *waiting, task)
                    waiting = None
                    if looks or not last:
                        keep(state)
        if looks:
            progress.say(f"{name}: {looks.found}")
            if looks.best != int(state.step):
                _, state = checkpoints.restore(looks.best, state)
    return now(state)


def check_batch(config: TrainConfig, mesh: Mesh, field: str = "batch_rows") -> None:
    """Raise ConfigError, naming `field`, unless a batch can be spread over the mesh."""
    spread = mesh.shape["data"] * mesh.shape["fsdp"]
    if config.batch_rows % spread:
        raise ConfigError(
            f"{field} is {config.batch_rows}: it must be a multiple of the {spread} devices "
            "along data and fsdp"
        )
    micro_rows = getattr(config, "micro_rows", 0)
    if micro_rows % spread:
        field = field.replace("batch_rows", "micro_rows")
        raise ConfigError(
            f"{field} is {micro_rows}: it must be a multiple of the {spread} devices along data "
            "and fsdp, or 0"
        )


def _start(optimizer: optax.GradientTransformation, weights: Weights) -> TrainState:
    # In 16 bits most steps would round to nothing (arXiv 1710.03740, section 3.1).
    weights = {name: weight.astype(jnp.float32) for name, weight in weights.items()}
    return TrainState(jnp.zeros((), jnp.int32), weights, optimizer.init(weights))


def _state_places(
    optimizer: optax.GradientTransformation, weights: Weights, mesh: Mesh
) -> TrainState:
    """Where the state of these weights lies: what the optimizer keeps of a weight, beside it.

    Left to itself the compiler keeps the optimizer's zeros whole on every device: nothing in them
    comes from weights that are spread.
    """
    whole = NamedSharding(mesh, PartitionSpec())

    def place(path: tuple, leaf: jax.ShapeDtypeStruct) -> NamedSharding:
        names = [key.key for key in path if isinstance(key, jax.tree_util.DictKey)]
        weight = weights.get(names[-1]) if names else None
        beside = weight is not None and weight.shape == leaf.shape
        return weight.sharding if beside else whole

    state = jax.eval_shape(functools.partial(_start, optimizer), weights)
    return jax.tree_util.tree_map_with_path(place, state)


def training_step(
    loss: Loss,
    optimizer: optax.GradientTransformation,
    state: TrainState,
    frozen: Weights,
    inputs: Any,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """One optimizer step.

    Args:
      loss, optimizer: as of `run_training`.
      state: before the step; its weights alone are differentiated.
      frozen: the model's other weights.
      inputs: what the feed gave.

    Returns:
      The state after the step, and its metrics.
    """

    def of_trained(weights: Weights) -> tuple[jax.Array, dict[str, jax.Array]]:
        return loss(frozen | weights, inputs)

    (value, metrics), gradients = jax.value_and_grad(of_trained, has_aux=True)(state.weights)
    updates, optimizer_state = optimizer.update(gradients, state.optimizer, state.weights)
    weights = optax.apply_updates(state.weights, updates)
    metrics = metrics | {"loss": value, "gradient_norm": optax.tree.norm(gradients)}
    return TrainState(state.step + 1, weights, optimizer_state), metrics


def _times(factors: Mapping[str, jax.Array]) -> optax.GradientTransformation:
    """Multiplies what is named, gradients before the optimizer and updates after it."""

    def scaled(updates: Weights, params: Any = None) -> Weights:
        del params
        return {name: u * factors[name] if name in factors else u for name, u in updates.items()}

    return optax.stateless(scaled)


def _check_and_log(
    log: MetricsLog, config: TrainConfig, name: str, step: int, metrics: dict, task: Task
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
