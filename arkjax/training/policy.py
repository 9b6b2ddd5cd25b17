"""Training on rewards of the student's own answers: GRPO and its variants, step by step."""

import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from arkjax.distillation.grpo import GRPOConfig, token_shares
from arkjax.distillation.policy_loss import LossShape, PolicyBatch, policy_loss
from arkjax.distillation.rows import Batch, batch
from arkjax.distillation.targets import HiddenTarget
from arkjax.errors import ConfigError
from arkjax.models.config import ModelConfig
from arkjax.models.transformer import Transformer
from arkjax.progress import Progress
from arkjax.sharding import BATCH_AXES, ShardingRules
from arkjax.tasks.problems import Grader, Problem
from arkjax.text.tokenizer import Tokenizer
from arkjax.training.head import head_for
from arkjax.training.held_out import HeldOut
from arkjax.training.loop import Feed, Loss, TrainConfig, Weights, run_training
from arkjax.training.micro_batches import micro_batch, num_micro_batches, summed
from arkjax.training.resampling import Outcome, Process, Rewarded, resample, reward
from arkjax.training.rollout_rows import at_targets, example_of, num_rows, pack_fixed, placed
from arkjax.training.rollouts import (
    Answer,
    LiveGenerator,
    LiveSampler,
    RolloutConfig,
    questions,
)


class PolicyStep(NamedTuple):
    """What a step learns from.

    Attributes:
      answers: in rows, over all devices.
      measured: scalars to log beside what the loss measures.
    """

    answers: PolicyBatch
    measured: dict[str, jax.Array]


def train_policy(
    model: Transformer,
    generator: LiveGenerator,
    prompts: Sequence[Sequence[int]],
    outcome: Outcome,
    rollouts: RolloutConfig,
    grpo: GRPOConfig,
    config: TrainConfig,
    directory: Path,
    *,
    end_ids: Collection[int],
    seed: int,
    mesh: Mesh,
    rules: ShardingRules,
    progress: Progress,
    name: str,
    process: Process | None = None,
    reference: Transformer | None = None,
    held_out: HeldOut | None = None,
) -> Transformer:
    """Train a model on rewards of its own answers, from its last checkpoint if there is one.

    Args:
      model, config, directory, mesh, rules, progress, name, held_out: as of `run_training`;
        `config.batch_rows` has no meaning here, `rollouts` says what a step is.
      generator: answers with the student's weights: an engine of a model of the student's shape.
      prompts: for every problem, token ids.
      outcome: the reward of each answer.
      rollouts: what is asked at each step.
      grpo: how rewards become a loss.
      end_ids: tokens that end an answer.
      seed: of the order of the problems and of the answers.
      process: the rewards of each answer's steps.
      reference: what the KL holds the student to.

    Raises:
      ConfigError: if grpo needs process rewards or a reference and there are none, or a run could
        not go on from its checkpoints.
      DataError: if a prompt is too long.
      ArkJAXError: as `run_training`.
    """
    rollouts.check_resume(config.checkpoint_every)
    trained = run_training(
        model,
        grpo_loss(model.config, grpo, rollouts, config, mesh),
        policy_feed(
            LiveSampler(generator, prompts, rollouts, end_ids, seed),
            len(prompts),
            max(map(len, prompts)),
            outcome,
            grpo,
            mesh,
            process=process,
            reference=reference,
        ),
        config,
        directory,
        mesh=mesh,
        rules=rules,
        progress=progress,
        name=name,
        held_out=held_out,
    )
    return trained.model


def policy_feed(
    sampler: LiveSampler,
    num_problems: int,
    longest_prompt: int,
    outcome: Outcome,
    grpo: GRPOConfig,
    mesh: Mesh,
    *,
    process: Process | None = None,
    reference: Transformer | None = None,
) -> Feed:
    """Answers of the student and what they are worth, step by step.

    Args:
      sampler: the student's answers.
      num_problems: that there are prompts of.
      longest_prompt: in tokens.
      outcome, process, grpo, reference, mesh: as of `train_policy`.

    Raises:
      ConfigError: if grpo needs process rewards or a reference and there are none.
    """
    rollouts = sampler.config
    if grpo.process_weight and process is None:
        raise ConfigError(
            f"grpo.process_weight is {grpo.process_weight}, but there is no process reward model: "
            "train one, or set it to 0"
        )
    if grpo.kl_coefficient and reference is None:
        raise ConfigError(
            f"grpo.kl_coefficient is {grpo.kl_coefficient}, but there is no reference: give one, "
            "or set it to 0"
        )
    longest = longest_prompt + rollouts.max_tokens
    rows = num_rows(rollouts, rollouts.prompts * rollouts.samples, longest, mesh)
    held_to = (
        reference_fn(reference, rollouts.micro_rows)
        if grpo.kl_coefficient and reference is not None
        else None
    )

    def rewarded(answers: Sequence[Answer]) -> Rewarded:
        return reward(answers, outcome, process)

    def feed(step: int, model: Callable[[], Transformer]) -> PolicyStep:
        asked = questions(num_problems, rollouts.prompts, sampler.seed, step)
        answers, measured = sampler.answers(step, model, asked)
        began = time.monotonic()
        earned = rewarded(answers)
        measured["reward_seconds"] = time.monotonic() - began
        if grpo.resample_rounds:
            earned, more = resample(earned, asked, num_problems, sampler, step, grpo, rewarded)
            for name in ("rollout_seconds", "reward_seconds"):
                measured[name] += more.pop(name)
            measured |= more
        made, more = policy_batch(earned, grpo, rollouts, rows)
        arrays, scalars = placed(made, measured | more, mesh)
        if held_to:
            arrays = arrays._replace(reference=held_to(arrays))
        sampler.hand_over()
        return PolicyStep(arrays, scalars)

    return feed


def graded(
    problems: Sequence[Problem], grader: Grader, tokenizer: Tokenizer, end_ids: Collection[int]
) -> Outcome:
    """Rewards of 1 for what the grader accepts and 0 for all else.

    Args:
      problems: those of the prompts, in their order.
      grader: compares a text with a problem's gold answer.
      tokenizer: of the student.
      end_ids: tokens that end an answer and are no part of its text.
    """

    def outcome(answers: Sequence[Answer]) -> list[float]:
        rewards = []
        for answer in answers:
            spoken = answer.ids[:-1] if answer.ids[-1] in end_ids else answer.ids
            grade = grader.grade(problems[answer.problem], tokenizer.decode(spoken))
            rewards.append(float(grade.correct))
        return rewards

    return outcome


def policy_batch(
    earned: Rewarded, grpo: GRPOConfig, rollouts: RolloutConfig, rows: int
) -> tuple[PolicyBatch, dict[str, float]]:
    """A step's answers in rows with their advantages and shares, and what to log of them.

    Args:
      earned: the answers and their rewards.
      grpo, rollouts: how rewards count, and what a step is.
      rows: B.

    Returns:
      The batch without a reference, and `reward`, `reward_flat` (share of groups whose answers all
      have the same advantage), and with process rewards `steps` (mean number),
      `process_reward` (mean over answers of the least reward of a step), and `process_gap`: by how
      much that exceeds the outcome's reward, which grows when the student finds out what the reward
      model likes.

    Raises:
      DataError: as `grpo.advantages` and `rollouts.pack_fixed`.
    """
    answers, outcomes, steps = earned
    lengths = [len(answer.ids) for answer in answers]
    found = earned.advantages(grpo, rollouts)
    shares = token_shares(grpo.aggregation, lengths, found.kept, rollouts.max_tokens)
    packed = pack_fixed([example_of(answer) for answer in answers], rollouts.row_length, rows)
    made = PolicyBatch(
        batch=batch(packed, np.arange(rows))._replace(weights=at_targets(packed, shares)),
        advantages=at_targets(packed, found.tokens),
        logprobs=at_targets(packed, [answer.logprobs for answer in answers]),
        answers=at_targets(packed, range(len(answers)), len(answers), np.int32),
    )
    measured = {"reward": float(outcomes.mean()), "reward_flat": float(np.mean(found.flat))}
    if steps is not None:
        least = [min(one.rewards, default=0.0) for one in steps]
        measured["steps"] = float(np.mean([len(one.ends) for one in steps]))
        measured["process_reward"] = float(np.mean(least))
        measured["process_gap"] = measured["process_reward"] - measured["reward"]
    return made, measured


def reference_fn(model: Transformer, micro_rows: int = 0) -> Callable[[PolicyBatch], HiddenTarget]:
    """Reads rows with the weights of the reference, under the student's own prompts.

    Args:
      model: the reference.
      micro_rows: rows that are read at once; 0: all.
    """
    config, mesh = model.config, model.mesh

    @jax.jit
    def read(weights: Weights, rows: Batch):
        number = num_micro_batches(len(rows.tokens), micro_rows)

        def part(index: jax.Array) -> jax.Array:
            inputs = (rows.tokens, rows.positions, rows.segment_ids)
            tokens, positions, segment_ids = (micro_batch(x, index, number) for x in inputs)
            return Transformer(config, weights, mesh)(tokens, positions, segment_ids)

        hidden = jax.lax.map(part, jnp.arange(number))
        return hidden.swapaxes(0, 1).reshape(*rows.tokens.shape, -1)

    def target(inputs: PolicyBatch) -> HiddenTarget:
        hidden = read(model.arrays(), inputs.batch)
        return HiddenTarget(hidden, model.head, config.logit_soft_cap or None)

    return target


def grpo_loss(
    model_config: ModelConfig,
    grpo: GRPOConfig,
    rollouts: RolloutConfig,
    config: TrainConfig,
    mesh: Mesh,
) -> Loss:
    """The policy loss of `PolicyStep`s; see `distillation.policy_loss`.

    Beside what was measured it logs `objective`, `kl` (mean over tokens, by share), `clip_share`,
    `ratio` and `entropy` (means over tokens).
    """
    shape = loss_shape(model_config, rollouts, rollouts.prompts * rollouts.samples, config, mesh)

    def loss(weights: Weights, step: PolicyStep) -> tuple[jax.Array, dict[str, jax.Array]]:
        model = Transformer(model_config, weights, mesh)
        number = num_micro_batches(len(step.answers.advantages), rollouts.micro_rows)

        def part(index: jax.Array) -> tuple[jax.Array, dict[str, jax.Array], jax.Array]:
            some = micro_batch(step.answers, index, number)
            rows = some.batch
            hidden, router_loss = model.forward(rows.tokens, rows.positions, rows.segment_ids)
            head = head_for(model, hidden)
            return *policy_loss(hidden, head, some, grpo, shape), router_loss / number

        value, sums, router_loss = summed(part, number)
        tokens = jnp.maximum(sums["tokens"], 1.0)
        metrics = {
            "objective": sums["objective"],
            "kl": sums["kl"] / jnp.maximum(sums["share"], 1e-6),
            "clip_share": sums["clipped"] / tokens,
            "ratio": sums["ratio"] / tokens,
            "entropy": sums["entropy"] / tokens,
        }
        if model_config.experts is not None:
            metrics["router_loss"] = router_loss
            value += config.router_loss_weight * router_loss
        return value, metrics | step.measured

    return loss


def loss_shape(
    model_config: ModelConfig,
    rollouts: RolloutConfig,
    num_answers: int,
    config: TrainConfig,
    mesh: Mesh,
) -> LossShape:
    """What the compiler must know of a student's loss on its own answers."""
    return LossShape(
        num_answers=num_answers,
        chunk_size=config.chunk_tokens,
        train_head=model_config.lora is None,
        soft_cap=model_config.logit_soft_cap or None,
        temperature=rollouts.temperature,
        mesh=mesh if mesh.size > 1 else None,
        token_axes=BATCH_AXES if mesh.size > 1 else (),
    )
