"""A process reward model: what it is, how it scores answers, and how it is kept on the disk."""

import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from arkjax.distillation.arrays import load_arrays, save_arrays
from arkjax.distillation.chunked import linear_divergence
from arkjax.distillation.objective import Objective
from arkjax.distillation.process_reward import RewardBatch, implicit_rewards, step_rewards
from arkjax.distillation.reward_rows import Answer, RewardLoss, fill, scoring_batches
from arkjax.errors import ConfigError, DataError
from arkjax.models.config import ModelConfig
from arkjax.models.placement import INFO, load_model, save_model
from arkjax.models.transformer import Transformer
from arkjax.progress import Task
from arkjax.sharding import ShardingRules, batch_sharding
from arkjax.storage import sha256_file, write_directory_atomic
from arkjax.training.head import head_for, over

HEAD = "reward_head"
"""Name of the reward head among the weights that are trained."""

_MODEL, _PARTS = "model", "head"
_KIND = "reward model"
_REMEDY = "train the reward model again"

ImplicitReward = Literal["prefix", "step"]


@dataclasses.dataclass(frozen=True, eq=False)
class RewardModel:
    """A transformer that says of each step of an answer how good it is.

    Attributes:
      model: the transformer.
      loss: what it was trained with.
      head: `[D]` float32, from the hidden state of a step's last token to its reward R; None for an
        implicit reward model.
      reference: what an implicit reward model is compared with, else None.
      beta: of an implicit reward model.
    """

    model: Transformer
    loss: RewardLoss
    head: jax.Array | None = None
    reference: Transformer | None = None
    beta: float = 0.0

    def __post_init__(self) -> None:
        if self.loss not in get_args(RewardLoss):
            raise ConfigError(
                f"a reward model's loss is {self.loss!r}: expected one of "
                f"{', '.join(get_args(RewardLoss))}"
            )
        implicit = self.loss == "implicit"
        if (self.reference is None) is implicit or (self.head is None) is not implicit:
            raise ConfigError(
                "an implicit reward model has a reference and no head, every other one a head and "
                "no reference"
            )

    def logits(
        self,
        answers: Sequence[Answer],
        batch_rows: int,
        row_length: int,
        task: Task | None = None,
        *,
        chunk_tokens: int = 4096,
        implicit: ImplicitReward = "prefix",
    ) -> list[np.ndarray]:
        """R of every step of every answer: `[steps]` float32 for each.

        Answers share rows, so that short ones cost little; what a step gets depends on its prompt
        and answer alone, up to rounding.

        Args:
          answers: with prompts and ends of steps; an answer without steps gets an empty array.
          batch_rows: rows that are read at once; over a mesh, a multiple of its data devices.
          row_length: T, enough for the longest prompt with its answer.
          task: told how many answers are done.
          chunk_tokens: tokens whose logits exist at once, in an implicit reward model.
          implicit: what R is there: "prefix" sums r_t from the answer's start to the step's end,
            beta times the log-odds with which the answer so far is right (PRIME, arXiv 2502.01456,
            section 3: a Q value); "step" sums the step's own r_t, its advantage over the step
            before.

        Raises:
          DataError: if an answer does not fit into a row.
        """
        found: list[np.ndarray] = [np.zeros(0, np.float32)] * len(answers)
        read = [i for i, answer in enumerate(answers) if len(answer.step_ends)]
        if task and len(read) < len(answers):
            task.advance(len(answers) - len(read))
        some = [answers[i] for i in read]
        for places, shape in scoring_batches(some, batch_rows, row_length):
            batch = placed(fill(places, some, shape), self.model.mesh)
            if self.head is not None:
                rewards = np.asarray(_rewards(self.model, self.head, batch))
                used = np.zeros(shape.rows, int)
            else:
                rewards = np.asarray(
                    implicit_rewards(
                        token_logprobs(self.model, batch, chunk_tokens),
                        token_logprobs(self.reference, batch, chunk_tokens),
                        batch.answer_mask,
                        self.beta,
                    )
                )
            for index, place in sorted(places.items(), key=lambda item: item[1]):
                ends = np.asarray(some[index].step_ends)
                if self.head is not None:
                    start = used[place.row]
                    used[place.row] += len(ends)
                    own = rewards[place.row, start : start + len(ends)].copy()
                else:
                    first = place.start + len(some[index].prompt_ids) - 1
                    sums = np.cumsum(rewards[place.row, first : first + ends[-1]], dtype=np.float64)
                    own = sums[ends - 1]
                    if implicit == "step":
                        own = np.diff(own, prepend=0.0)
                found[read[index]] = own.astype(np.float32)
            if task:
                task.advance(len(places))
        return found

    def rewards(self, *arguments: Any, **options: Any) -> list[np.ndarray]:
        """sigma(R), in (0, 1), of every step of every answer; arguments as of `logits`."""
        return [_sigmoid(own) for own in self.logits(*arguments, **options)]


def _sigmoid(x: np.ndarray) -> np.ndarray:
    # Of -|x|, whose exponential cannot overflow.
    e = np.exp(-np.abs(x))
    return (np.where(x >= 0, 1.0, e) / (1.0 + e)).astype(np.float32)


def placed(batch: RewardBatch, mesh: Mesh | None) -> RewardBatch:
    """A batch on its mesh: rows spread over the devices, sets on all of them."""
    if mesh is None:
        return RewardBatch(*map(jnp.asarray, batch))
    rows, whole = batch_sharding(mesh), NamedSharding(mesh, PartitionSpec())
    places = RewardBatch(*[rows] * len(batch))._replace(sets=whole, set_mask=whole)
    return jax.device_put(batch, places)


def _rewards(model: Transformer, head: jax.Array, batch: RewardBatch) -> jax.Array:
    inputs = batch.tokens, batch.positions, batch.segment_ids
    return _head_rewards(model.config, model.mesh, model.arrays(), head, inputs, batch.step_columns)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _head_rewards(config: ModelConfig, mesh: Mesh | None, weights, head, inputs, step_columns):
    return step_rewards(Transformer(config, weights, mesh)(*inputs), head, step_columns)


def token_logprobs(model: Transformer, batch: RewardBatch, chunk_tokens: int) -> jax.Array:
    """Log-probability of each target that counts, `[R, T]` float32; elsewhere 0."""
    inputs = batch.tokens, batch.positions, batch.segment_ids
    options = model.config, model.mesh, chunk_tokens
    return _logprobs(*options, model.arrays(), inputs, batch.targets, batch.answer_mask)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _logprobs(config: ModelConfig, mesh: Mesh | None, chunk_size, weights, inputs, targets, mask):
    model = Transformer(config, weights, mesh)
    hidden = model(*inputs)
    _, aux = linear_divergence(
        hidden,
        head_for(model, hidden),
        targets,
        mask,
        objective=Objective(),
        chunk_size=chunk_size,
        train_head=False,
        soft_cap=config.logit_soft_cap or None,
        **over(mesh),
    )
    return -aux["token_losses"]


# --- on the disk ----------------------------------------------------------------------------------


def save_reward_model(
    path: Path,
    reward: RewardModel,
    info: Mapping[str, Any] = {},
    files: Mapping[str, Path] | None = None,
) -> None:
    """Write a reward model, all of it or nothing; a reference is named by its fingerprint alone.

    Args:
      path: directory to be made; what stands there is replaced.
      reward: the reward model.
      info: further facts to keep beside it, such as the tokenizer's hash and the kind of steps.
      files: of the tokenizer; see `arkjax.models.placement.save_model`.

    Raises:
      StorageError: if the directory cannot be written.
    """
    with write_directory_atomic(path) as aside:
        save_model(aside / _MODEL, reward.model, info, files)
        head = np.zeros(0, np.float32) if reward.head is None else np.asarray(reward.head)
        meta = {
            "kind": _KIND,
            "loss": reward.loss,
            "beta": reward.beta,
            "info": dict(info),
            "model": sha256_file(aside / _MODEL / INFO),
            "reference": fingerprint(reward.reference) if reward.reference else None,
        }
        (aside / _PARTS).mkdir()
        save_arrays(aside / _PARTS, {"head": head}, meta)


def load_reward_model(
    path: Path, mesh: Mesh, rules: ShardingRules, reference: Transformer | None = None
) -> RewardModel:
    """Read what `save_reward_model` wrote onto a mesh.

    Args:
      path: the directory.
      mesh, rules: where the weights shall lie.
      reference: of an implicit reward model: the very model that it was trained beside.

    Raises:
      DataError: if it is missing, damaged or something else, or the reference is another.
    """
    parts = path / _PARTS
    arrays, meta = load_arrays(parts, _KIND, _REMEDY)
    described = path / _MODEL / INFO
    if not described.is_file() or sha256_file(described) != meta.get("model"):
        raise DataError(f"{described} is missing or not what was written; {_REMEDY}")
    model = load_model(path / _MODEL, mesh, rules)
    loss, head = meta.get("loss"), None
    if loss == "implicit":
        if reference is None or fingerprint(reference) != meta.get("reference"):
            what = "needs" if reference is None else "was trained beside another model than"
            raise DataError(
                f"the implicit reward model {path} {what} its reference: give the model from which "
                "its training started"
            )
    else:
        reference = None
        if arrays["head"].shape != (model.config.d_model,):
            raise DataError(
                f"{parts}: the reward head is {arrays['head'].shape}, the model has "
                f"{model.config.d_model} hidden units; {_REMEDY}"
            )
        whole = NamedSharding(mesh, PartitionSpec())
        head = jax.device_put(np.array(arrays["head"]), whole)
    return RewardModel(model, loss, head, reference, float(meta.get("beta", 0.0)))


def reward_model_info(path: Path) -> dict[str, Any]:
    """The facts that `save_reward_model` was given. Raises DataError as `load_reward_model`."""
    _, meta = load_arrays(path / _PARTS, _KIND, _REMEDY)
    return meta["info"]


def fingerprint(model: Transformer) -> str:
    """What tells the weights of models apart, the same on every mesh: integer sums of their bits.

    Against mix-ups, not against somebody who makes another model with the same sums.
    """
    sums = _bit_sums(model.arrays())
    return json.dumps({name: int(value) for name, value in sorted(sums.items())})


@jax.jit
def _bit_sums(weights: dict[str, jax.Array]) -> dict[str, jax.Array]:
    def bits(weight: jax.Array) -> jax.Array:
        wide = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}.get(weight.dtype.itemsize, jnp.uint32)
        if not jnp.issubdtype(weight.dtype, jnp.inexact) or weight.dtype.itemsize not in (1, 2, 4):
            words = weight.astype(jnp.int32).astype(jnp.uint32)
        else:
            words = jax.lax.bitcast_convert_type(weight, wide).astype(jnp.uint32)
        # Weighted by their place, so that the same numbers in another order count as others.
        total = words
        for axis, size in reversed(list(enumerate(weight.shape))):
            odd = 2 * jax.lax.iota(jnp.uint32, size) + (2 * axis + 3)
            odd = odd.reshape((1,) * axis + (size,))
            total = jnp.sum(total * odd, axis=axis, dtype=jnp.uint32)
        return total

    return {name: bits(weight) for name, weight in weights.items()}
