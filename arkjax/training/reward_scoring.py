"""A process reward model at work in reinforcement learning: the rewards of a student's samples."""

import dataclasses
from collections.abc import Callable, Collection, Sequence

from arkjax.distillation.grpo import StepRewards
from arkjax.synthesis.steps import StepKind, step_ends
from arkjax.text.tokenizer import Tokenizer
from arkjax.training.reward_model import ImplicitReward, RewardModel
from arkjax.training.rollouts import Answer


@dataclasses.dataclass(frozen=True)
class InSteps:
    """A sample as a reward model reads it."""

    prompt_ids: tuple[int, ...]
    answer_ids: tuple[int, ...]
    step_ends: tuple[int, ...]


def step_scorer(
    reward: RewardModel,
    tokenizer: Tokenizer,
    kind: StepKind,
    batch_rows: int,
    row_length: int,
    *,
    end_ids: Collection[int] | None = None,
    chunk_tokens: int = 4096,
    implicit: ImplicitReward = "step",
) -> Callable[[Sequence[Answer]], list[StepRewards]]:
    """What `arkjax.training.policy.train_policy` takes as `process`: sigma(R) of every step.

    Args:
      reward: the reward model; it is frozen.
      tokenizer: of the student's tokens, which are the reward model's.
      kind: what a step is: as in the labels that the reward model was trained on.
      batch_rows: rows that are read at once; over a mesh, a multiple of its data devices.
      row_length: T, enough for the longest prompt with the longest sample.
      end_ids: tokens that end a sample; None takes the tokenizer's.
      chunk_tokens, implicit: of an implicit reward model; see `RewardModel.logits`. Credit is given
        step by step, so that each has its own reward by default.
    """

    def score(answers: Sequence[Answer]) -> list[StepRewards]:
        read = [
            InSteps(a.prompt_ids, a.ids, step_ends(a.ids, tokenizer, kind, end_ids))
            for a in answers
        ]
        options = {"chunk_tokens": chunk_tokens, "implicit": implicit}
        rewards = reward.rewards(read, batch_rows, row_length, **options)
        return [
            StepRewards(one.step_ends, tuple(own.tolist()))
            for one, own in zip(read, rewards, strict=True)
        ]

    return score
