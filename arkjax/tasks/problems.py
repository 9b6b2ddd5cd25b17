"""A problem, a grade, and the promise that every grader keeps."""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from arkjax.errors import ConfigError


def question_hash(question: str) -> str:
    """SHA-256 of a question's words, however they are spaced."""
    return hashlib.sha256(" ".join(question.split()).encode()).hexdigest()


@dataclasses.dataclass(frozen=True)
class Problem:
    """One question with its gold answer.

    Attributes:
      id: unique within its task and split.
      question: the text that the model reads.
      answer: the gold answer, in the form that the task's grader compares.
      task: name of the task, e.g. "embedded_world".
      domain: group by which results are broken down.
      meta: further facts about the problem; `part` names its part of the split.
    """

    id: str
    question: str
    answer: str
    task: str
    domain: str
    meta: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def question_hash(self) -> str:
        """SHA-256 of the question's text: two problems with the same words are the same problem."""
        return question_hash(self.question)


@dataclasses.dataclass(frozen=True)
class Grade:
    """A grader's verdict: whether it is right, what it read as the answer, and why it said so."""

    correct: bool
    extracted: str | None
    reason: str


class Grader(Protocol):
    """Grades the text of one answer; deterministic, never raises on any text."""

    def extract(self, text: str) -> str | None:
        """The final answer stated in `text`, or None."""

    def equal(self, a: str, b: str) -> bool:
        """Whether two extracted answers are the same answer, such as two votes for it."""

    def accepts(self, problem: Problem, answer: str) -> bool:
        """Whether an extracted answer is right; more than one may be."""

    def grade(self, problem: Problem, text: str) -> Grade:
        """Compare the answer stated in `text` with the problem's gold answer."""


def check_grader(grader: object, owner: str) -> None:
    """Refuse what cannot grade.

    Args:
      grader: what was given as one.
      owner: whose it is, for the error.

    Raises:
      ConfigError: if it is no grader.
    """
    if isinstance(grader, type):
        raise ConfigError(f"{owner}: grader is the class: give {grader.__name__}(), one made of it")
    methods = ("extract", "equal", "accepts", "grade")
    lacking = [name for name in methods if not callable(getattr(grader, name, None))]
    if len(lacking) == len(methods):
        raise ConfigError(
            f"{owner}: grader is {type(grader).__name__} {grader!r:.60}, which is none: give one "
            "such as MathGrader()"
        )
    if lacking:
        raise ConfigError(
            f"{owner}: grader {type(grader).__name__} lacks {', '.join(lacking)}(): see Grader"
        )


@runtime_checkable
class StepGrader(Grader, Protocol):
    """A grader of a task whose answers are made of steps that can be read one by one."""

    def read_step(self, text: str) -> tuple[str, str] | None:
        """What a step works out and what it takes that to be; None if it is no step of the task."""

    def holds(self, problem: Problem, text: str) -> bool:
        """Whether an answer is right in every step, and leaves none out."""

    def right_steps(self, problem: Problem, steps: Sequence[str]) -> list[bool]:
        """Whether each step of an answer is right, given the texts of all of them in order."""

    def first_wrong_step(self, problem: Problem, text: str) -> int | None:
        """Index of the first step that is wrong; None if every step is right."""


@runtime_checkable
class ScoredGrader(Grader, Protocol):
    """A grader that also measures how good an answer is."""

    def score(self, problem: Problem, text: str) -> dict[str, float]:
        """Figures of the answer stated in `text` by name, the same names for every text."""


@runtime_checkable
class StepChecker(StepGrader, Protocol):
    """A step grader that can also tell whether a step follows from those before it."""

    def consistent_steps(self, problem: Problem, steps: Sequence[str]) -> list[bool]:
        """Whether each step follows from what it and the steps before it state, right or wrong."""
