r"""Grades answers to mathematical problems: GSM8K, MATH, MetaMathQA, SVAMP.

What is read as the final answer: `final_answer.py`. Two plain numbers (`plain_numbers.py`) are the
same if their values are, exactly: 0.333333 is not 1/3, nothing is rounded, and 50% is 50. Anything
else, such as intervals, sets, roots, polynomials, matrices and equations, is compared as text and
then by math-verify (`symbolic.py`), which counts irrational numbers as equal that agree to six
decimals; what it cannot decide within its limits of time and memory is not equal, nor what has
numbers of over 5,000 digits (`magnitude.py`), unless the text is the same.
"""

import dataclasses
import re

from arkjax.tasks.graders import symbolic
from arkjax.tasks.graders.final_answer import read_answer
from arkjax.tasks.graders.plain_numbers import clean, multiplied, plain_number
from arkjax.tasks.graders.symbolic import Verdict
from arkjax.tasks.problems import Grade, Problem

_TEXT = re.compile(r"\\(?:text|mbox|mathrm|textbf|textrm|mathbf)[ ]?\{([^{}]*)\}")
_FREE = re.compile(r"\s+|(?<!\\)\\[,;:! ]|\\(?:left|right|displaystyle)(?![A-Za-z])|\$")
_WORDS = re.compile(r"[^\W\d_]{2,}(?:[ ,'’-]{1,3}[^\W\d_]+)*[.]?")
_LETTER = re.compile(r"\(([A-Za-z])\)")


@dataclasses.dataclass(frozen=True)
class MathGrader:
    """Grades by the final answer, an exact number or an expression.

    Attributes:
      seconds: processor time that one comparison of expressions may take; of plain numbers none
        takes noticeable time.
    """

    seconds: float = symbolic.SECONDS

    def extract(self, text: str) -> str | None:
        """The final answer that `text` states, without units; None if it states none."""
        return read_answer(text).answer

    def equal(self, a: str, b: str) -> bool:
        """Whether two extracted answers are the same number or expression."""
        return self._compare(a, b).equal or self._compare(b, a).equal

    def accepts(self, problem: Problem, answer: str) -> bool:
        """Whether an extracted answer is the gold answer."""
        if answer == problem.answer:
            return bool(answer.strip())
        return self._compare(gold_answer(problem), answer).equal

    def grade(self, problem: Problem, text: str) -> Grade:
        """Compare the final answer that `text` states with the gold answer."""
        reading = read_answer(text)
        if reading.answer is None:
            return Grade(False, None, reading.where)
        gold = gold_answer(problem)
        verdict = self._compare(gold, reading.answer)
        if verdict.equal:
            return Grade(True, reading.answer, f"matches; read {reading.where}")
        reason = f"expected {gold}; read {reading.where}"
        if verdict.hindrance:
            reason += f"; {verdict.hindrance}"
        return Grade(False, reading.answer, reason)

    def _compare(self, gold: str, answer: str) -> Verdict:
        if gold == answer:
            return Verdict(bool(gold.strip()))
        if max(len(gold), len(answer)) > symbolic.LONGEST:
            return Verdict(False, f"answers of over {symbolic.LONGEST} characters are not compared")
        gold, answer = clean(gold), clean(answer)
        numbers = plain_number(gold), plain_number(answer)
        if None not in numbers:
            return Verdict(numbers[0].value == numbers[1].value)
        if any(numbers):
            # Beside a plain number the k of 5k multiplies; beside an expression it is an unknown.
            one = numbers[0] or multiplied(gold)
            other = numbers[1] or multiplied(answer)
            if one and other:
                return Verdict(one.value == other.value)
        texts = _plain_text(gold), _plain_text(answer)
        if texts[0] == texts[1]:
            return Verdict(bool(texts[0]))
        # Words are no product of their letters, as which they would be compared.
        if any(_WORDS.fullmatch(text) for text in texts):
            return Verdict(False)
        return symbolic.compare(gold, answer, self.seconds)


def gold_answer(problem: Problem) -> str:
    r"""The gold answer; of a whole solution, what its "#### N" or `\boxed{}` says."""
    gold = problem.answer
    if "####" in gold or r"\boxed" in gold:
        gold = read_answer(gold).answer or gold
    return gold


def _plain_text(text: str) -> str:
    """An expression without what does not change its meaning; words without capitals."""
    text = _TEXT.sub(r"\1", text).strip().rstrip(".")
    if _WORDS.fullmatch(text):
        return " ".join(text.split()).casefold()
    text = _FREE.sub("", text)
    letter = _LETTER.fullmatch(text)
    return letter[1] if letter else text
