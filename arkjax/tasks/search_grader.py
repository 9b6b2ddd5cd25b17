"""Grades answers to the search world's problems, whole and step by step."""

import dataclasses
import re
from collections.abc import Sequence

from arkjax.tasks.final_digit import FinalDigitGrader, clauses
from arkjax.tasks.problems import Problem
from arkjax.tasks.search_world import (
    HIGH,
    LOW,
    OPERATIONS,
    RIGHT,
    narrowed,
    parse_question,
    truth_about,
)

# ASCII digits only: \d would take the digits of every script.
_VALUE = re.compile(r"\s*(\w+) ([0-9]) ([0-9]) is ([0-9]) left ([0-9]{1,3}|none)\s*")
_VERDICT = re.compile(r"\s*so (low|high|right)\s*")
_PROPOSAL = re.compile(r"\s*from ([0-9]) to ([0-9]) so ([0-9])\s*")
_CLOSE = re.compile(r"\s*so ([0-9])\s*")
_TRY = re.compile(r"\s*try ([0-9])\s*")
PROPOSE, TRY, VALUE, VERDICT, CLOSE, UNREAD = (
    "propose", "try", "value", "verdict", "close", "unread",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class SearchStep:
    """What one step does, and what is true of it.

    Attributes:
      kind: "propose", "try", "value" (of an item), "verdict", "close", or "unread".
      right: a proposal is between bounds that follow from the verdict before it, and within them if
        there is none; what is tried is what was proposed; a value is that of the item whose turn it
        is, and what it leaves follows from what was left before; a verdict is true, and every item
        was worked out for it as far as needed; the close is the number that was found right, and is
        right.
      follows: a value leaves what is stated, whatever the item's value should be; a verdict is what
        the stated values say, a close the number that was found right. Else the same as `right`.
      n: the number that the step proposes, works out, judges or closes with; None if unread.
      said: the verdict; empty for other steps.
    """

    kind: str
    right: bool
    follows: bool
    n: int | None = None
    said: str = ""


def search_steps(problem: Problem, steps: Sequence[str]) -> tuple[SearchStep, ...]:
    """What each step of a text about a problem does, and whether it is right.

    A text may be one message or a whole search: proposals, checks, verdicts and a close in turn.

    Args:
      problem: of the search world.
      steps: texts of the steps in order, with or without the ";" that ends them.

    Raises:
      DataError: if the question is not one of this world's.
    """
    items, total = parse_question(problem.question)
    found: list[SearchStep] = []
    bounds: tuple[int, int] | None = None  # what the next proposal has to state, if that is known
    proposed: int | None = None  # the number under discussion, if any
    approved: int | None = None
    done, left = 0, total  # of a check
    for text in (step.rstrip().removesuffix(";") for step in steps):
        if match := _VALUE.fullmatch(text):
            name, a, n, value = match[1], int(match[2]), int(match[3]), int(match[4])
            if done == 0 and proposed is None:
                proposed = n
            left -= value
            follows = (
                n == proposed
                and done < len(items)
                and (name, a) == items[done]
                and match[5] == (str(left) if left >= 0 else "none")
            )
            done += 1
            right = follows and value == OPERATIONS[name](n, a)
            found.append(SearchStep(VALUE, right, follows, n))
        elif match := _TRY.fullmatch(text):
            n = int(match[1])
            proposed = n if proposed is None else proposed
            same = n == proposed and done == 0
            found.append(SearchStep(TRY, same, same, n))
        elif match := _VERDICT.fullmatch(text):
            worked_out = done == len(items) or (done > 0 and left < 0)
            right = (
                worked_out
                and proposed is not None
                and match[1] == truth_about(items, total, proposed)
            )
            stated = HIGH if left < 0 else LOW if left else RIGHT
            follows = worked_out and proposed is not None and match[1] == stated
            found.append(SearchStep(VERDICT, right, follows, proposed, match[1]))
            if bounds and proposed is not None:
                bounds = narrowed(*bounds, proposed, match[1])
            approved = proposed if match[1] == RIGHT else None
            done, left = 0, total
        elif match := _PROPOSAL.fullmatch(text):
            low, high, n = (int(number) for number in match.groups())
            right = low <= n <= high and bounds in (None, (low, high))
            bounds, proposed, approved = (low, high), n, None
            done, left = 0, total
            found.append(SearchStep(PROPOSE, right, right, n))
        elif match := _CLOSE.fullmatch(text):
            n = int(match[1])
            right = n == approved and truth_about(items, total, n) == RIGHT
            found.append(SearchStep(CLOSE, right, n == approved, n))
        else:
            found.append(SearchStep(UNREAD, False, False))
    return tuple(found)


@dataclasses.dataclass(frozen=True)
class SearchQuality:
    """How a search went, step by step.

    Attributes:
      values: how many values of items it states, `right_values` of them rightly.
      verdicts: how many verdicts it gives, `true_verdicts` of them true.
      revisions: how many proposals follow a verdict that is not "right", `directed` of them moved
        to where that verdict points.
      started_wrong: whether the first number it names is wrong.
      corrected: whether it started wrong and ended right.
    """

    values: int
    right_values: int
    verdicts: int
    true_verdicts: int
    revisions: int
    directed: int
    started_wrong: bool
    corrected: bool


class SearchGrader(FinalDigitGrader):
    """Grades by the digit that closes the answer ("so 7"); every step of a search is checkable."""

    final = re.compile(r"\bso ([0-9])[\s;]*$")

    def right_steps(self, problem: Problem, steps: Sequence[str]) -> list[bool]:
        """Whether each step is right; see `SearchStep.right`. A wrong guess is no wrong step."""
        return [step.right for step in search_steps(problem, steps)]

    def consistent_steps(self, problem: Problem, steps: Sequence[str]) -> list[bool]:
        """Whether each step follows from what is stated before it; see `SearchStep.follows`."""
        return [step.follows for step in search_steps(problem, steps)]

    def first_wrong_step(self, problem: Problem, text: str) -> int | None:
        """Index of the first step that is wrong; None if every step is right."""
        right = self.right_steps(problem, clauses(text))
        return right.index(False) if False in right else None

    def read_step(self, text: str) -> tuple[str, str] | None:
        """What a step works out, and what it takes that to be."""
        text = text.strip().removesuffix(";")
        if match := _VALUE.fullmatch(text):
            name, a, n, value, left = match.groups()
            return f"{name} {a} {n}", f"{value} {left}"
        if match := _VERDICT.fullmatch(text):
            return "verdict", match[1]
        if match := _TRY.fullmatch(text):
            return "try", match[1]
        if match := _PROPOSAL.fullmatch(text):
            low, high, n = match.groups()
            return "proposal", f"{low} {high} {n}"
        return None

    def holds(self, problem: Problem, text: str) -> bool:
        """Whether the answer is right, was checked and found so, and no step is wrong."""
        steps = search_steps(problem, clauses(text))
        checked = any(s.kind == VERDICT and s.said == RIGHT for s in steps)
        return (
            self.grade(problem, text).correct
            and checked
            and steps[-1].kind == CLOSE
            and all(step.right for step in steps)
        )

    def quality(self, problem: Problem, text: str) -> SearchQuality:
        """How a search went; of any text, one that states nothing included."""
        steps = search_steps(problem, clauses(text))
        values = [step for step in steps if step.kind == VALUE]
        verdicts = [step for step in steps if step.kind == VERDICT]
        named = [step.n for step in steps if step.kind in (PROPOSE, CLOSE)]
        revisions = directed = 0
        last: SearchStep | None = None
        for step in steps:
            if step.kind == VERDICT:
                last = step
            elif step.kind == PROPOSE and last and last.said != RIGHT and last.n is not None:
                revisions += 1
                directed += step.n > last.n if last.said == LOW else step.n < last.n
                last = None
        wrong = bool(named) and str(named[0]) != problem.answer
        return SearchQuality(
            values=len(values),
            right_values=sum(step.right for step in values),
            verdicts=len(verdicts),
            true_verdicts=sum(step.right for step in verdicts),
            revisions=revisions,
            directed=directed,
            started_wrong=wrong,
            corrected=wrong and self.grade(problem, text).correct,
        )
