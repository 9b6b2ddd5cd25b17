"""Grades multiple choice: AQuA, MedMCQA, TruthfulQA with choices."""

import dataclasses
import re
from collections.abc import Sequence

from arkjax.tasks.graders.reading import last_boxed, last_choice, last_stated
from arkjax.tasks.problems import Grade, Problem

_LONGEST = 1000
_EMPHASIS = " \t*_`\"'“”$"
_WRAPPED = re.compile(r"\\(?:text|mbox|mathrm|textbf)[ ]?\{([^{}]*)\}")


@dataclasses.dataclass(frozen=True)
class ChoiceGrader:
    """Grades by a letter, or by an option's text in its place.

    What a box holds counts most, then what stands behind the last "the answer is" or "Answer:". It
    may begin with a letter, as "B) Vitamin C" does; so may the last line of a text without them.
    Else the letter is read by `reading.last_choice`: the last that is stated ("the answer is B",
    "option (b)"), or the last that stands alone. Articles and pronouns are no letters.

    Where the problem's `meta["options"]` gives the options in order, with or without a letter
    before each, an option's text stands for its letter: in a box, behind "the answer is", or as the
    last line, word for word; capitals, white space, emphasis and a final period aside. A text that
    two options share names neither.

    Attributes:
      choices: the capital letters that can be an answer, in the order of the options.
    """

    choices: str = "ABCDE"

    def extract(self, text: str) -> str | None:
        """The letter that `text` chooses, as a capital, or None."""
        stated = last_boxed(text) or last_stated(text) or _last_line(text)
        return self._label(stated) or last_choice(text, self.choices)

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
        letter, where = self._read(problem, text)
        if letter is None:
            return Grade(False, None, "the text names no option")
        if letter == problem.answer.strip().upper():
            return Grade(True, letter, f"matches; read {where}")
        return Grade(False, letter, f"expected {problem.answer}; read {where}")

    def _read(self, problem: Problem, text: str) -> tuple[str | None, str]:
        for stated, where in ((last_boxed(text), "in a box"), (last_stated(text), "as the answer")):
            if stated and self._label(stated) is None:
                letter = self._option(problem, stated)
                if letter:
                    return letter, f"the option's text {where}"
        last_line = _last_line(text)
        if self._label(last_line) is None and (letter := self._option(problem, last_line)):
            return letter, "the option's text in the last line"
        return self.extract(text), "the letter"

    def _label(self, stated: str) -> str | None:
        """The letter that a statement begins with or consists of."""
        match = re.match(
            rf"[ \t*_>`\"']*(?:\(([{self.choices}{self.choices.lower()}])\)|"
            rf"([{self.choices}])(?:[ ]?[).:](?=[\s*_]|$)|[).](?=[^\s.)])|(?=[*_.\s]*$)))",
            stated,
        )
        return None if match is None else (match[1] or match[2]).upper()

    def _letters(self, problem: Problem) -> str:
        options = problem.meta.get("options")
        counted = isinstance(options, Sequence) and not isinstance(options, str)
        return self.choices.upper()[: len(options) if counted else None]

    def _option(self, problem: Problem, stated: str) -> str | None:
        """The letter of the one option whose text this is."""
        options = problem.meta.get("options")
        if not isinstance(options, Sequence) or isinstance(options, str):
            return None
        stated = _folded(stated)
        found = [
            letter
            for letter, option in zip(self.choices.upper(), options, strict=False)
            if stated and _folded(option_text(str(option), letter)) == stated
        ]
        return found[0] if len(found) == 1 else None


def _last_line(text: str) -> str:
    return text[-_LONGEST:].strip().rpartition("\n")[2]


def option_text(option: str, letter: str) -> str:
    """An option without the letter that stands before it, as in "A)125" or "(A) 125"."""
    return re.sub(rf"^\s*\(?{re.escape(letter)}\s?[).:]\s*", "", option, count=1)


def _folded(text: str) -> str:
    text = _WRAPPED.sub(r"\1", text[:_LONGEST]).strip(_EMPHASIS).rstrip(".").strip(_EMPHASIS)
    return " ".join(text.split()).casefold()
