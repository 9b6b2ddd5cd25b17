"""Training of a process reward model: first its head and the last layer, then everything.

The two stages are those of AgentArk (arXiv 2602.03955, section on PAD). There, under the flags that
are documented, the contrastive term reaches no trained weight; here it is the loss of both stages.
"""

import dataclasses
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from arkjax.distillation.process_reward import (
    RewardBatch,
    binary_loss,
    contrastive_loss,
    implicit_loss,
    step_rewards,
)
from arkjax.distillation.reward_rows import (
    RewardBatches,
    RewardLoss,
    fill,
    plan_batches,
    scoring_batches,
)
from arkjax.errors import ConfigError
from arkjax.evaluation.step_rewards import Aggregation
from arkjax.models.config import ModelConfig
from arkjax.models.lora import trainable
from arkjax.models.transformer import Transformer
from arkjax.models.weights import LAYERS, weight_specs
from arkjax.progress import Progress
from arkjax.sharding import ShardingRules
from arkjax.synthesis.judged_answers import Judged
from arkjax.synthesis.step_labels import StepLabelConfig
from arkjax.training.head import head_for, over
from arkjax.training.loop import Feed, Loss, TrainConfig, Weights, check_batch, run_training
from arkjax.training.optimizer import OptimizerConfig
from arkjax.training.reward_model import (
    HEAD,
    RewardModel,
    load_reward_model,
    placed,
    save_reward_model,
    token_logprobs,
)

_OPTIMIZER = OptimizerConfig(
    learning_rate=1e-4,
    warmup_steps=10,
    final_fraction=0.1,
    beta1=0.9,
    beta2=0.95,
    weight_decay=0.01,
    clip_norm=1.0,
)


@dataclasses.dataclass(frozen=True)
class ProcessRewardConfig:
    """A process reward model: its labels, its loss, its training and its use.

    AgentArk publishes a learning rate of 1e-4, 3 epochs and batches of 64; it is silent about the
    rest. Here the three epochs are one of the head and last layer and two of everything, and a
    batch is 64 rows, each with as many answers as fit.

    Attributes:
      labels: how steps are labelled.
      loss: "contrastive" tells the consensus's step from others at that point (AgentArk eq. 7);
        "bce" predicts labels (arXiv 2312.08935, eq. 2); "implicit" needs no labels, only outcomes
        (PRIME, arXiv 2502.01456).
      temperature: tau of the contrastive loss.
      beta: of the implicit rewards (PRIME's 0.05).
      head_epochs: epochs in which the last layer and the reward head alone are trained.
      epochs: epochs in which everything is, after these.
      batch_rows: rows of a step, over all devices.
      row_length: T of a row: at least the longest prompt with its answer.
      chunk_tokens: tokens whose logits exist at once, in the implicit loss.
      log_every: steps between two lines of the metrics log.
      checkpoint_every: steps between two checkpoints.
      optimizer: of both stages; each has its own schedule.
      router_loss_weight: see `TrainConfig`.
      aggregation: how the rewards of steps become that of an answer.
    """

    labels: StepLabelConfig = StepLabelConfig()
    loss: RewardLoss = "contrastive"
    temperature: float = 0.1
    beta: float = 0.05
    head_epochs: int = 1
    epochs: int = 2
    batch_rows: int = 64
    row_length: int = 1024
    chunk_tokens: int = 4096
    log_every: int = 10
    checkpoint_every: int = 100
    optimizer: OptimizerConfig = _OPTIMIZER
    router_loss_weight: float = 1e-3
    aggregation: Aggregation = "min"

    def __post_init__(self) -> None:
        for name, choices in (("loss", RewardLoss), ("aggregation", Aggregation)):
            if getattr(self, name) not in get_args(choices):
                raise ConfigError(
                    f"process_reward.{name} is {getattr(self, name)!r}: expected one of "
                    f"{', '.join(get_args(choices))}"
                )
        for name in ("temperature", "beta"):
            if not getattr(self, name) > 0:
                raise ConfigError(
                    f"process_reward.{name} is {getattr(self, name)}: it must be positive"
                )
        for name in ("batch_rows", "row_length", "chunk_tokens", "log_every", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ConfigError(
                    f"process_reward.{name} is {getattr(self, name)}: it must be at least 1"
                )
        if min(self.head_epochs, self.epochs) < 0 or not self.head_epochs + self.epochs:
            raise ConfigError(
                f"process_reward: {self.head_epochs} head_epochs and {self.epochs} epochs: neither "
                "may be negative, and there must be at least one"
            )

    def train(self, steps: int) -> TrainConfig:
        """How a stage of so many steps is trained."""
        return TrainConfig(
            steps=steps,
            batch_rows=self.batch_rows,
            chunk_tokens=self.chunk_tokens,
            log_every=self.log_every,
            checkpoint_every=self.checkpoint_every,
            optimizer=self.optimizer,
            router_loss_weight=self.router_loss_weight,
        )


def train_reward_model(
    model: Transformer,
    judged: Judged,
    config: ProcessRewardConfig,
    directory: Path,
    *,
    seed: int,
    mesh: Mesh,
    rules: ShardingRules,
    progress: Progress,
    name: str = "reward model",
    info: Mapping[str, Any] = {},
    files: Mapping[str, Path] | None = None,
) -> RewardModel:
    """Train a reward model and keep it in `directory/model`; what is there already is read.

    Killed at any moment and called again, it ends with the same weights. Metrics of the stages stay
    in `head/metrics.jsonl` and `all/metrics.jsonl`. Of a model with adapters those alone are
    trained, in the first stage those of the last layer.

    Args:
      model: where the training starts, and what an implicit reward model is compared with; it is
        left as it is.
      judged: labels, sets or outcomes, as the loss needs them.
      config: loss and training.
      directory: of this reward model alone.
      seed: of the reward head and the order of the data.
      mesh, rules: where to train.
      progress: shows rate and remaining time.
      name: for the progress lines.
      info, files: kept beside the model; see `save_reward_model`.

    Raises:
      ConfigError: if the batch cannot be spread over the mesh, or quantised weights have no
        adapters.
      DataError: if nothing is labelled, or an answer is longer than a row.
      ArkJAXError: if the loss is not finite.
    """
    implicit = config.loss == "implicit"
    reference = model if implicit else None
    if (directory / "model").exists():
        return load_reward_model(directory / "model", mesh, rules, reference)
    check_batch(config.train(1), mesh, "process_reward.batch_rows")
    epochs = config.head_epochs + config.epochs
    batches = plan_batches(judged, config.loss, config.batch_rows, config.row_length, epochs, seed)
    head = None if implicit else _fresh_head(model.config.d_model, seed)
    reward = RewardModel(model, config.loss, head, reference, config.beta if implicit else 0.0)
    logprobs = _reference_logprobs(reward, batches, config, progress, name) if implicit else None
    first = 0 if not config.head_epochs else batches.epochs[config.head_epochs - 1]
    stages = (
        ("head", 0, first, last_layer(model.config)),
        ("all", first, len(batches.groups), None),
    )
    for stage, start, end, only in stages:
        if start == end:
            continue
        path = directory / stage
        # What the first stage ended with is kept until the second one is done.
        if not (path / "model").exists():
            trained = run_training(
                reward.model,
                reward_loss(model.config, config, mesh),
                _feed(batches, start, logprobs, mesh),
                config.train(end - start),
                path,
                mesh=mesh,
                rules=rules,
                progress=progress,
                name=f"{name}, {'head and last layer' if stage == 'head' else 'all weights'}",
                extra={} if implicit else {HEAD: reward.head},
                only=only,
            )
            reward = dataclasses.replace(reward, model=trained.model, head=trained.extra.get(HEAD))
            if end < len(batches.groups):
                save_reward_model(path / "model", reward)
        else:
            reward = load_reward_model(path / "model", mesh, rules, reference)
    save_reward_model(directory / "model", reward, info, files)
    for stage, *_ in stages:
        for done in ("model", "checkpoints"):
            shutil.rmtree(directory / stage / done, ignore_errors=True)
    return reward


def last_layer(config: ModelConfig) -> dict[str, jax.Array]:
    """Factors by which `run_training` changes the last layer alone, and what the model has not.

    The layers' weights are stacked: `[L, 1, ...]`, 1 for the last layer; of all others 0.
    """
    specs = weight_specs(config)
    factors = {}
    for name in trainable(config):
        shape = specs[name].shape
        factors[name] = jnp.zeros(())
        if name.startswith(LAYERS):
            of_layer = jnp.arange(shape[0]) == shape[0] - 1
            factors[name] = of_layer.astype(jnp.float32).reshape((-1,) + (1,) * (len(shape) - 1))
    return factors


def reward_loss(model_config: ModelConfig, config: ProcessRewardConfig, mesh: Mesh) -> Loss:
    """The loss of a batch, for `run_training`.

    Args:
      model_config: the model's shape.
      config: which loss.
      mesh: that the batch is spread over.
    """

    def loss(weights: Weights, batch: RewardBatch) -> tuple[jax.Array, dict[str, jax.Array]]:
        model = Transformer(model_config, weights, mesh)
        hidden, router_loss = model.forward(batch.tokens, batch.positions, batch.segment_ids)
        if config.loss == "implicit":
            value, metrics = implicit_loss(
                hidden,
                head_for(model, hidden),
                batch,
                config.beta,
                chunk_size=config.chunk_tokens,
                train_head=model_config.lora is None,
                soft_cap=model_config.logit_soft_cap or None,
                **over(mesh),
            )
        else:
            rewards = step_rewards(hidden, weights[HEAD], batch.step_columns)
            if config.loss == "bce":
                value, metrics = binary_loss(rewards, batch.labels, batch.label_weights)
            else:
                value, metrics = contrastive_loss(
                    rewards, batch.sets, batch.set_mask, config.temperature
                )
        if model_config.experts is not None:
            metrics = metrics | {"router_loss": router_loss}
            value += config.router_loss_weight * router_loss
        return value, metrics

    return loss


def _fresh_head(width: int, seed: int) -> jax.Array:
    """Drawn, not zero: with a head of zeros no gradient reaches the layers in the first step."""
    key = jax.random.fold_in(jax.random.key(seed), 0x5EED)
    return jax.random.normal(key, (width,), jnp.float32) * width**-0.5


def _feed(
    batches: RewardBatches,
    start: int,
    logprobs: Callable[[int], np.ndarray] | None,
    mesh: Mesh,
) -> Feed:
    def feed(step: int, _: Callable[[], Transformer]) -> RewardBatch:
        return placed(batches.batch(start + step, logprobs), mesh)

    return feed


def _reference_logprobs(
    reward: RewardModel,
    batches: RewardBatches,
    config: ProcessRewardConfig,
    progress: Progress,
    name: str,
) -> Callable[[int], np.ndarray]:
    """What the reference says of every answer that is trained on, by index: 4 bytes a token."""
    answers = batches.judged.answers
    needed = sorted({i for group in batches.groups for unit in group for i in unit.answers})
    some = [answers[i] for i in needed]
    found: dict[int, np.ndarray] = {}
    label = f"{name}, reference"
    with progress.task(label, total=len(some), unit="answers") as task:
        for places, shape in scoring_batches(some, config.batch_rows, config.row_length):
            batch = placed(fill(places, some, shape), reward.reference.mesh)
            scores = np.asarray(token_logprobs(reward.reference, batch, config.chunk_tokens))
            for index, place in places.items():
                first = place.start + len(some[index].prompt_ids) - 1
                own = scores[place.row, first : first + len(some[index].answer_ids)]
                found[needed[index]] = own.copy()
            task.advance(len(places))
    return found.__getitem__
