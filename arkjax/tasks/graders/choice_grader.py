"""Grades multiple choice: AQuA, MedMCQA, TruthfulQA with choices."""

import dataclasses
import re
from collections.abc import Sequence

from arkjax.tasks.graders.choices import read_choice
from arkjax.tasks.problems import Grade, Problem

_LONGEST = 1000
_EMPHASIS = " \t*_`\"'“”$"
_WRAPPED = re.compile(r"\\(?:text|mbox|mathrm|textbf)[ ]?\{([^{}]*)\}")


@dataclasses.dataclass(frozen=True)
class ChoiceGrader:
    """Grades by a letter, or by an option's text in its place.

    What a box holds counts most, then what stands behind the last "the answer is" or "Answer:",
    then a first line that is only a letter, and so on: `choices.py` says where a letter is read,
    and which A is an article. A text that denies an option, or names several, chooses none.

    Where the problem's `meta["options"]` gives the options in order, with or without a letter
    before each, an option's text stands for its letter: in a box, behind "the answer is", or as the
    last line, word for word; capitals, white space, emphasis and a final period aside. A text that
    two options share names neither. The text of option A behind an A, as in "Answer: A cat", makes
    a letter of what else is an article.

    Attributes:
      choices: the capital letters that can be an answer, in the order of the options.
    """

    choices: str = "ABCDE"

    def extract(self, text: str) -> str | None:
        """The letter that `text` chooses, as a capital, or None."""
        return read_choice(text, self.choices).letter

    def equal(self, a: str, b: str) -> bool:
        """Whether two answers are the same letter, or the same words."""
        return _folded(a) == _folded(b) != ""

    def accepts(self, problem: Problem, answer: str) -> bool:
        """Whether an answer is the gold letter or the text of its option.

        None is where the gold answer is no letter, or one of no option.
        """
        gold = problem.answer.strip().upper()
        if len(gold) != 1 or gold not in self._letters(problem):
            return False
        return self.equal(answer, gold) or self._option(problem, answer) == gold

    def expects(self, problem: Problem) -> str:
        """Which gold answers a problem can have, for people."""
        letters = ", ".join(self._letters(problem)) or 'none, as meta["options"] is empty'
        return f"the letter of an option: {letters}"

    def grade(self, problem: Problem, text: str) -> Grade:
        """Compare the letter or option that `text` states with the gold letter."""
        found = read_choice(text, self.choices, lambda stated: self._option(problem, stated))
        if found.letter is None:
            return Grade(False, None, found.where)
        if found.letter == problem.answer.strip().upper():
            return Grade(True, found.letter, f"matches; read {found.where}")
        return Grade(False, found.letter, f"expected {problem.answer}; read {found.where}")

    def _letters(self, problem: Problem) -> str:
        options = problem.meta.get("options")
        counted = isinstance(options, Sequence) and not isinstance(options, str)
        return self.choices.upper()[: len(options) if counted else None]

    def _option(self, problem: Problem, stated: str) -> str | None:
        """The letter of the one option whose text this is, an article before it aside."""
        options = problem.meta.get("options")
        if not isinstance(options, Sequence) or isinstance(options, str):
            return None
        said = _folded(stated)
        texts = [
            _folded(option_text(str(o), x)) for x, o in zip(self.choices, options, strict=False)
        ]
        pairs = list(zip(self.choices, texts, strict=False))
        # The text alone, behind its letter, and behind an article.
        for text in (said, said.removeprefix("a ")):
            named = [x for x, o in pairs if o and text in (o, f"{x.lower()} {o}")]
            if named:
                return named[0].upper() if len(named) == 1 else None
        return None


def option_text(option: str, letter: str) -> str:
    """An option without the letter that stands before it, as in "A)125" or "(A) 125"."""
    return re.sub(rf"^\s*\(?{re.escape(letter)}\s?[).:]\s*", "", option, count=1)


def _folded(text: str) -> str:
    text = _WRAPPED.sub(r"\1", text[:_LONGEST]).strip(_EMPHASIS).rstrip(".").strip(_EMPHASIS)
    return " ".join(text.split()).casefold()
