"""The truth of every step of an answer to a problem of the embedded world."""

import dataclasses
import re
from collections.abc import Sequence

from arkjax.tasks.embedded_world import SKILLS, parse_question
from arkjax.tasks.final_digit import clauses
from arkjax.tasks.problems import Problem

# ASCII digits only: \d would take the digits of every script.
_STEP = re.compile(r"\s*(\w+) ([0-9]) ([0-9]) (?:is|makes) ([0-9]) (?:total|sum) ([0-9])[\s;]*")
_CLOSE = re.compile(r"\s*so ([0-9])[\s;]*")


@dataclasses.dataclass(frozen=True)
class StepTruth:
    """What is true of one step.

    Attributes:
      value: the item is asked for, was not solved before, and its value is right; of the closing
        step ("so 7"): every item was solved.
      total: the running total is the one that right values give up to here.
      adds_up: the running total follows from the step's own value and the total before it, right or
        wrong: the author can add.
    """

    value: bool
    total: bool
    adds_up: bool

    @property
    def right(self) -> bool:
        """Whether value and running total are right; after a mistake it takes another to be so."""
        return self.value and self.total


def step_truth(problem: Problem, text: str) -> tuple[StepTruth, ...]:
    """The truth of each step of an answer, the closing one included.

    Steps end at ";"; what follows the last ";" is a step if it holds anything but spaces.

    Args:
      problem: of the embedded world.
      text: an answer, whoever wrote it; nothing in it makes this fail.

    Raises:
      DataError: if the question is not one of this world's.
    """
    return truth_of_steps(problem, clauses(text))


def truth_of_steps(problem: Problem, steps: Sequence[str]) -> tuple[StepTruth, ...]:
    """The truth of each of an answer's steps; what cannot be read as a step is wrong.

    Args:
      problem: of the embedded world.
      steps: texts of the steps in order, with or without the ";" that ends them, such as those of
        the runs of tokens that `arkjax.synthesis.steps.step_ends(..., "clause")` gives.

    Raises:
      DataError: if the question is not one of this world's.
    """
    items = parse_question(problem.question)
    answer = sum(SKILLS[domain].truth(a, b) for domain, a, b in items) % 10
    unsolved = list(items)
    total = claimed = 0
    truths = []
    for step in steps:
        if match := _CLOSE.fullmatch(step):
            stated = int(match[1])
            truths.append(StepTruth(not unsolved, stated == answer, stated == claimed))
            continue
        match = _STEP.fullmatch(step)
        if match is None:
            truths.append(StepTruth(False, False, False))
            continue
        item = (match[1], int(match[2]), int(match[3]))
        value, stated = int(match[4]), int(match[5])
        adds_up, claimed = stated == (claimed + value) % 10, stated
        if item not in unsolved:
            truths.append(StepTruth(False, False, adds_up))
            continue
        unsolved.remove(item)
        truth = SKILLS[item[0]].truth(*item[1:])
        total = (total + truth) % 10
        truths.append(StepTruth(value == truth, stated == total, adds_up))
    return tuple(truths)
