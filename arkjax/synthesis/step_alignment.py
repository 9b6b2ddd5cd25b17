"""What a step says, and which steps of two answers to one problem are about the same thing."""

import re
import unicodedata
from collections.abc import Sequence
from typing import Literal

Content = Literal["numbers", "words"]

# A minus is a sign only where nothing stands before it that it could be taken from.
_NUMBER = re.compile(r"(?:(?<![\w)\]}])-)?[0-9]+(?:,[0-9]{3})*(?:\.[0-9]+)?")
_WORD = re.compile(r"[^\W_]+")
# Steps with no word in common still belong together where they stand at the same place.
_PLACE = 1e-3


def step_content(text: str, kind: Content) -> tuple[str, ...]:
    """What a step says, however it is worded: steps of equal content agree.

    Args:
      text: of the step.
      kind: "numbers" keeps the step's numbers in order ("1,200.50" is 1200.5), and its words where
        it has none: other wordings of one computation agree. "words" keeps all words and numbers.
    """
    numbers = tuple(map(_number, _NUMBER.findall(text)))
    if kind == "numbers" and numbers:
        return numbers
    return tuple(_WORD.findall(unicodedata.normalize("NFKC", text).casefold()))


def _number(text: str) -> str:
    """One spelling of each number, as text: digits of a model's words may be thousands long."""
    sign, digits = ("-", text[1:]) if text.startswith("-") else ("", text)
    whole, _, fraction = digits.replace(",", "").partition(".")
    whole, fraction = whole.lstrip("0") or "0", fraction.rstrip("0")
    value = f"{whole}.{fraction}" if fraction else whole
    return value if value == "0" else sign + value


def align(a: Sequence[str], b: Sequence[str]) -> list[int | None]:
    """For each step of one answer its counterpart in another, in order; None where it has none.

    The alignment that keeps the order of both and has the most words in common, by dynamic
    programming (Needleman and Wunsch 1970, J. Mol. Biol. 48) with the Jaccard index of two steps'
    words as their score and no cost of gaps. Of equally good ones it takes that whose counterparts
    come earliest in `b`.

    Args:
      a, b: texts of the steps.
    """
    words = [[frozenset(step_content(text, "words")) for text in texts] for texts in (a, b)]
    # best[i][j]: of the steps from i and from j on.
    best = [[0.0] * (len(b) + 1) for _ in range(len(a) + 1)]
    score = [[_PLACE + _common(x, y) for y in words[1]] for x in words[0]]
    for i in range(len(a) - 1, -1, -1):
        row, below = best[i], best[i + 1]
        for j in range(len(b) - 1, -1, -1):
            row[j] = max(below[j + 1] + score[i][j], below[j], row[j + 1])
    found: list[int | None] = [None] * len(a)
    i = j = 0
    while i < len(a) and j < len(b):
        # Compared as they were computed: equal floats here are equal.
        if best[i][j] == best[i + 1][j + 1] + score[i][j]:
            found[i] = j
            i, j = i + 1, j + 1
        elif best[i][j] == best[i][j + 1]:
            j += 1
        else:
            i += 1
    return found


def _common(a: frozenset[str], b: frozenset[str]) -> float:
    return len(a & b) / len(a | b) if a and b else 0.0
