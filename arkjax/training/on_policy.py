"""Training on a teacher's distributions, partly on the student's own answers: the feed and loss."""

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from arkjax.distillation.objective import Objective
from arkjax.distillation.on_policy import (
    OnPolicyBatch,
    OnPolicyConfig,
    on_policy_loss,
    takes_own,
)
from arkjax.distillation.rows import Rows, batch
from arkjax.distillation.targets import Target
from arkjax.errors import ConfigError, DataError
from arkjax.models.config import ModelConfig
from arkjax.models.transformer import Transformer
from arkjax.progress import Progress
from arkjax.sharding import ShardingRules
from arkjax.synthesis.examples import Example
from arkjax.training.head import head_for
from arkjax.training.held_out import HeldOut
from arkjax.training.loop import Feed, Loss, TrainConfig, Weights, run_training
from arkjax.training.micro_batches import micro_batch, num_micro_batches, summed
from arkjax.training.policy import loss_shape
from arkjax.training.rollout_rows import at_targets, example_of, num_rows, pack_fixed, placed
from arkjax.training.rollouts import (
    Answer,
    LiveGenerator,
    LiveSampler,
    Question,
    RolloutConfig,
    questions,
)

# The teacher's distributions on a step's rows, given for each of their examples the example of the
# run that it stands for: `scoring.fresh_teacher`.
StepTeacher = Callable[[Rows, Sequence[int]], Target]


class OnPolicyStep(NamedTuple):
    """What a step learns from.

    Attributes:
      lesson: rows, over all devices, and the teacher of them.
      measured: scalars to log beside what the loss measures.
    """

    lesson: OnPolicyBatch
    measured: dict[str, jax.Array]


def train_on_policy(
    model: Transformer,
    generator: LiveGenerator,
    examples: Sequence[Example],
    teacher: StepTeacher | None,
    objective: Objective,
    rollouts: RolloutConfig,
    on_policy: OnPolicyConfig,
    config: TrainConfig,
    directory: Path,
    *,
    end_ids: Collection[int],
    seed: int,
    mesh: Mesh,
    rules: ShardingRules,
    progress: Progress,
    name: str,
    held_out: HeldOut | None = None,
) -> Transformer:
    """Distil a teacher into a model, from its last checkpoint if there is one.

    Args:
      model, config, directory, mesh, rules, progress, name, held_out: as of `run_training`;
        `config.batch_rows` has no meaning here, `rollouts` says what a step is.
      generator: answers with the student's weights: an engine of a model of the student's shape.
      examples: recorded traces; of those that a step does not take, it asks the prompts.
      teacher: of the rows of a step, see `StepTeacher`; None if the objective needs none.
      objective: what is minimised; of own answers its divergence alone.
      rollouts: what a step is: `prompts` examples, recorded or sampled; `samples` must be 1.
      on_policy: how many are sampled.
      end_ids: tokens that end an answer.
      seed: of the order of the examples and of the answers.

    Raises:
      ConfigError: if objective and on_policy do not fit together, there are several samples, or a
        run could not go on from its checkpoints.
      DataError: if a prompt or an example is too long.
      ArkJAXError: as `run_training`.
    """
    on_policy.check_objective(objective)
    if rollouts.samples != 1:
        raise ConfigError(
            f"rollouts.samples is {rollouts.samples}: expected 1, the answer that takes the place "
            "of an example's trace"
        )
    rollouts.check_resume(config.checkpoint_every)
    prompts = [example.prompt_ids for example in examples]
    trained = run_training(
        model,
        gkd_loss(model.config, objective, on_policy, rollouts, config, mesh),
        on_policy_feed(
            LiveSampler(generator, prompts, rollouts, end_ids, seed),
            examples,
            teacher if objective.needs_teacher else None,
            on_policy,
            config.steps,
            mesh,
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


def on_policy_feed(
    sampler: LiveSampler,
    examples: Sequence[Example],
    teacher: StepTeacher | None,
    on_policy: OnPolicyConfig,
    steps: int,
    mesh: Mesh,
) -> Feed:
    """Recorded traces and the student's own answers in their place, step by step.

    Args:
      sampler: the student's answers to the examples' prompts.
      examples, teacher, on_policy, mesh: as of `train_on_policy`.
      steps: of the run, over which the share of own answers changes.

    Raises:
      DataError: an example does not fit into a row.
    """
    rollouts = sampler.config
    longest = max(
        len(example.prompt_ids) + max(len(example.target_ids), rollouts.max_tokens)
        for example in examples
    )
    if longest > rollouts.row_length:
        raise DataError(
            f"an example has {longest} tokens with its prompt, rollouts.row_length is "
            f"{rollouts.row_length}: raise it, or drop long examples"
        )
    rows = num_rows(rollouts, rollouts.prompts, longest, mesh)

    def feed(step: int, model: Callable[[], Transformer]) -> OnPolicyStep:
        chosen = questions(len(examples), rollouts.prompts, sampler.seed, step)
        share = on_policy.share(step, steps)
        own = [takes_own(share, sampler.seed, step, at) for at in range(len(chosen))]
        asked = [question for question, mine in zip(chosen, own, strict=True) if mine]
        answers, measured = sampler.answers(step, model, asked)
        lesson = lesson_of(examples, chosen, own, answers, rollouts, rows, teacher)
        measured["own_examples"] = sum(own) / len(own)
        arrays, scalars = placed(lesson._replace(target=None), measured, mesh)
        sampler.hand_over()
        return OnPolicyStep(arrays._replace(target=lesson.target), scalars)

    return feed


def lesson_of(
    examples: Sequence[Example],
    chosen: Sequence[Question],
    own: Sequence[bool],
    answers: Sequence[Answer],
    rollouts: RolloutConfig,
    rows: int,
    teacher: StepTeacher | None,
) -> OnPolicyBatch:
    """Rows of a step: of each chosen example its trace, or the student's answer in its place."""
    answer = iter(answers)
    taken, logprobs = [], []
    for question, mine in zip(chosen, own, strict=True):
        recorded = examples[question.problem]
        if mine:
            sampled = next(answer)
            # As much as the trace that it stands for.
            taken.append(example_of(sampled, recorded.weight))
            logprobs.append(sampled.logprobs)
        else:
            taken.append(recorded)
            logprobs.append(0.0)
    packed = pack_fixed(taken, rollouts.row_length, rows)
    return OnPolicyBatch(
        batch=batch(packed, np.arange(rows)),
        target=teacher(packed, [question.problem for question in chosen]) if teacher else None,
        own=at_targets(packed, own, False, bool),
        logprobs=at_targets(packed, logprobs),
    )


def gkd_loss(
    model_config: ModelConfig,
    objective: Objective,
    on_policy: OnPolicyConfig,
    rollouts: RolloutConfig,
    config: TrainConfig,
    mesh: Mesh,
) -> Loss:
    """The loss of `OnPolicyStep`s: a mean over the valid tokens; see `distillation.on_policy`.

    Beside what was measured it logs `divergence` (mean over tokens) and, of own tokens, `own_loss`
    and `importance` (means; 0 in steps without any).
    """
    shape = loss_shape(model_config, rollouts, rollouts.prompts, config, mesh)

    def loss(weights: Weights, step: OnPolicyStep) -> tuple[jax.Array, dict[str, jax.Array]]:
        model = Transformer(model_config, weights, mesh)
        number = num_micro_batches(len(step.lesson.own), rollouts.micro_rows)

        def part(index: jax.Array) -> tuple[jax.Array, dict[str, jax.Array], jax.Array]:
            some = micro_batch(step.lesson, index, number)
            rows = some.batch
            hidden, router_loss = model.forward(rows.tokens, rows.positions, rows.segment_ids)
            head = head_for(model, hidden)
            both = on_policy_loss(hidden, head, some, objective, on_policy, shape)
            return *both, router_loss / number

        total, sums, router_loss = summed(part, number)
        weight = jnp.maximum(sums["weight"], 1e-6)
        own = jnp.maximum(sums["own_weight"], 1e-6)
        metrics = {
            "divergence": sums["divergence"] / weight,
            "own_loss": sums["own_loss"] / own,
            "importance": sums["importance"] / own,
        }
        value = total / weight
        if model_config.experts is not None:
            metrics["router_loss"] = router_loss
            value += config.router_loss_weight * router_loss
        return value, metrics | step.measured

    return loss
