"""Answers with what they earned, and dynamic sampling: other problems for those that teach nothing.

A group whose answers are all right, or all wrong, has no advantage to learn from. Dynamic sampling
(DAPO, arXiv 2503.14476, section 3.2) puts groups of other problems in the place of such groups.
"""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from arkjax.distillation.grpo import Advantages, GRPOConfig, StepRewards, advantages
from arkjax.errors import DataError
from arkjax.training.rollouts import Answer, LiveSampler, Question, RolloutConfig, replacements

# The rewards of answers, each on its own.
Outcome = Callable[[Sequence[Answer]], Sequence[float]]
# The rewards of their steps.
Process = Callable[[Sequence[Answer]], Sequence[StepRewards]]


class Rewarded(NamedTuple):
    """Answers and what they earned.

    Attributes:
      answers: G of each question, group by group.
      outcomes: [P * G] float64, their rewards.
      steps: the rewards of their steps; None without a process reward.
    """

    answers: Sequence[Answer]
    outcomes: np.ndarray
    steps: Sequence[StepRewards] | None

    def groups(self, size: int) -> "list[Rewarded]":
        """One for each question, of `size` answers."""
        starts = range(0, len(self.answers), size)
        return [
            Rewarded(
                self.answers[i : i + size],
                self.outcomes[i : i + size],
                None if self.steps is None else self.steps[i : i + size],
            )
            for i in starts
        ]

    def advantages(self, grpo: GRPOConfig, rollouts: RolloutConfig) -> Advantages:
        """What the answers are worth; raises DataError as `grpo.advantages`."""
        shaped = self.outcomes.reshape(-1, rollouts.samples)
        lengths = [len(answer.ids) for answer in self.answers]
        return advantages(grpo, shaped, lengths, rollouts.max_tokens, self.steps)


def reward(answers: Sequence[Answer], outcome: Outcome, process: Process | None) -> Rewarded:
    """The answers with their rewards.

    Raises:
      DataError: if the outcome's rewards are not one for each answer.
    """
    outcomes = np.asarray(outcome(answers), np.float64)
    if outcomes.shape != (len(answers),):
        raise DataError(
            f"{len(answers)} answers have rewards of shape {outcomes.shape}: expected one each"
        )
    return Rewarded(answers, outcomes, process(answers) if process else None)


def resample(
    first: Rewarded,
    asked: Sequence[Question],
    num_problems: int,
    sampler: LiveSampler,
    step: int,
    grpo: GRPOConfig,
    rewarded: Callable[[Sequence[Answer]], Rewarded],
) -> tuple[Rewarded, dict[str, float]]:
    """Groups that teach nothing replaced by those of problems that the step has not asked.

    It ends when there are none, after `grpo.resample_rounds` rounds, or with the problems of the
    run; what is not replaced by then stays. What is asked is a function of the run's seed, the
    step, and the answers.

    Args:
      first: the answers to `asked`.
      asked: the questions of the step.
      num_problems: of the run.
      sampler: answers.
      step: its number.
      grpo: says what teaches nothing.
      rewarded: gives answers their rewards.

    Returns:
      As many groups as before, and what to log: `groups_sampled`, `reward_sampled` (mean over all
      answers, those that are not learned from included), and of the further rounds
      `rollout_seconds` and `reward_seconds`.

    Raises:
      DataError: as `grpo.advantages`, or if a prompt is too long.
    """
    rollouts = sampler.config
    groups = first.groups(rollouts.samples)
    left = replacements(num_problems, asked, sampler.seed, step)
    sampled, seconds = [first.outcomes], {"rollout_seconds": 0.0, "reward_seconds": 0.0}
    empty = _flat(first, grpo, rollouts)
    for _ in range(grpo.resample_rounds):
        some, left = left[: len(empty)], left[len(empty) :]
        if not some:
            break
        began = time.monotonic()
        answers = sampler.further(step, some)
        answered = time.monotonic()
        further = rewarded(answers)
        seconds["rollout_seconds"] += answered - began
        seconds["reward_seconds"] += time.monotonic() - answered
        sampled.append(further.outcomes)
        flat = set(_flat(further, grpo, rollouts))
        found = [g for i, g in enumerate(further.groups(rollouts.samples)) if i not in flat]
        for place, group in zip(empty, found, strict=False):
            groups[place] = group
        empty = empty[len(found) :]
    everything = np.concatenate(sampled)
    measured = {
        "groups_sampled": len(everything) / rollouts.samples,
        "reward_sampled": float(everything.mean()),
    }
    return _joined(groups), measured | seconds


def _flat(rewarded: Rewarded, grpo: GRPOConfig, rollouts: RolloutConfig) -> list[int]:
    """The groups that teach nothing."""
    return [i for i, flat in enumerate(rewarded.advantages(grpo, rollouts).flat) if flat]


def _joined(groups: Sequence[Rewarded]) -> Rewarded:
    """The groups, one after the other, with their answers' questions numbered anew."""
    answers = [
        dataclasses.replace(answer, question=place)
        for place, group in enumerate(groups)
        for answer in group.answers
    ]
    steps = None
    if groups[0].steps is not None:
        steps = [one for group in groups for one in group.steps]
    return Rewarded(answers, np.concatenate([group.outcomes for group in groups]), steps)
