"""Answers that end in "so" and a digit: their clauses, and the grade of the digit."""

import re

from arkjax.tasks.problems import Grade, Problem


def clauses(text: str) -> list[str]:
    """The steps of an answer: each ends at ";"; the rest is one unless it is empty or spaces."""
    *ended, rest = text.split(";")
    return [*ended, rest] if rest.strip() else ended


class FinalDigitGrader:
    """Grades by the digit that closes the answer ("so 7").

    Attributes:
      final: what the end of an answer has to match; its first group is the digit.
    """

    # ASCII digits only: \d would take the digits of every script.
    final = re.compile(r"\bso ([0-9])\s*$")

    def extract(self, text: str) -> str | None:
        """The digit that the answer ends on, or None."""
        match = self.final.search(text[-64:])
        return match.group(1) if match else None

    def equal(self, a: str, b: str) -> bool:
        """Whether two final digits are the same."""
        return a == b

    def accepts(self, problem: Problem, answer: str) -> bool:
        """Whether a final digit is the gold answer."""
        return self.equal(answer, problem.answer)

    def grade(self, problem: Problem, text: str) -> Grade:
        """Compare the final digit with the gold answer."""
        extracted = self.extract(text)
        if extracted is None:
            return Grade(False, None, "the text does not end in 'so' and a digit")
        correct = extracted == problem.answer
        return Grade(correct, extracted, "matches" if correct else f"expected {problem.answer}")
