"""Grades answers to the embedded world's problems, whole and step by step."""

import re
from collections.abc import Sequence

from arkjax.tasks.embedded_world import SKILLS, parse_question
from arkjax.tasks.final_digit import FinalDigitGrader
from arkjax.tasks.problems import Problem
from arkjax.tasks.world_steps import truth_of_steps

# ASCII digits only: \d would take the digits of every script.
_STEP = re.compile(r"(\w+) ([0-9]) ([0-9]) (?:is|makes) ([0-9]) (?:total|sum) ([0-9]) ;")


class WorldGrader(FinalDigitGrader):
    """Grades by the digit that closes the answer ("so 7"); steps can be checked one by one."""

    def right_steps(self, problem: Problem, steps: Sequence[str]) -> list[bool]:
        """Whether value and running total of each step are right; the close is a step as well."""
        return [truth.right for truth in truth_of_steps(problem, steps)]

    def consistent_steps(self, problem: Problem, steps: Sequence[str]) -> list[bool]:
        """Whether the running total of each step, or the close, adds up from what was stated."""
        return [truth.adds_up for truth in truth_of_steps(problem, steps)]

    def first_wrong_step(self, problem: Problem, text: str) -> int | None:
        """Index of the first step that is wrong; None if every step is right.

        A step is wrong if its value or total is, or if it is about an item that the question does
        not ask for (again).
        """
        total, unsolved = 0, list(parse_question(problem.question))
        for index, (domain, a, b, value, claimed) in enumerate(_STEP.findall(text)):
            item = (domain, int(a), int(b))
            if item not in unsolved:
                return index
            unsolved.remove(item)
            truth = SKILLS[domain].truth(*item[1:])
            total = (total + truth) % 10
            if (int(value), int(claimed)) != (truth, total):
                return index
        return None

    def read_step(self, text: str) -> tuple[str, str] | None:
        """The item of a step, and its value and running total: whatever words state them."""
        found = _STEP.findall(text)
        if len(found) != 1:
            return None
        domain, a, b, value, total = found[0]
        return f"{domain} {a} {b}", f"{value} {total}"

    def holds(self, problem: Problem, text: str) -> bool:
        """Whether the final digit is right, and so is one step for every item."""
        asked = len(parse_question(problem.question))
        return (
            self.grade(problem, text).correct
            and len(_STEP.findall(text)) == asked
            and self.first_wrong_step(problem, text) is None
        )
