"""From the rewards of an answer's steps to one figure, and to the best of several answers."""

import math
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

from arkjax.errors import ConfigError, DataError

Aggregation = Literal["min", "product", "last", "mean"]


def aggregate(rewards: Sequence[float], how: Aggregation = "min") -> float:
    """One figure of an answer from the rewards of its steps.

    Args:
      rewards: of the steps in order, each in [0, 1], at least one.
      how: "min", an answer is as good as its worst step (Math-Shepherd, arXiv 2312.08935, section
        4.3, and the credit of PURE, arXiv 2504.15275: sums can be raised by more steps); "product",
        that all are right (arXiv 2305.20050, section 3.3); "last"; "mean".

    Raises:
      ConfigError: if there is no such aggregation.
      DataError: if there are no rewards.
    """
    if how not in get_args(Aggregation):
        raise ConfigError(
            f"aggregation is {how!r}: expected one of {', '.join(get_args(Aggregation))}"
        )
    if not len(rewards):
        raise DataError("an answer without steps has no reward: drop it before it is scored")
    match how:
        case "min":
            return float(min(rewards))
        case "product":
            return float(math.prod(rewards))
        case "last":
            return float(rewards[-1])
        case "mean":
            return float(np.mean(rewards))


def best_of(rewards: Sequence[Sequence[float]], how: Aggregation = "min") -> int:
    """Which of several answers has the highest reward; the first of equal ones.

    Args:
      rewards: for each answer those of its steps; an answer without steps is never better.
      how: see `aggregate`.

    Raises:
      DataError: if there are no answers.
    """
    if not len(rewards):
        raise DataError("there are no answers to choose from")
    totals = [aggregate(own, how) if len(own) else -math.inf for own in rewards]
    return int(np.argmax(totals))


def weighted_vote(answers: Sequence[str | None], totals: Sequence[float]) -> str | None:
    """The answer with the highest sum of rewards (arXiv 2312.08935, eq. 5).

    Args:
      answers: final answers in one spelling for equal ones; None for what has none.
      totals: the reward of each.

    Returns:
      The winner, of equal ones the first that was given; None if there is no answer.
    """
    sums: dict[str, float] = {}
    for answer, total in zip(answers, totals, strict=True):
        if answer is not None:
            sums[answer] = sums.get(answer, 0.0) + total
    return max(sums, key=sums.__getitem__, default=None)
