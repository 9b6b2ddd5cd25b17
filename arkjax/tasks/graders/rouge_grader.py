"""Grades summaries by ROUGE: QMSum."""

import dataclasses
import functools
import re
from typing import Any

from arkjax.tasks.graders.span_grader import gold_answers
from arkjax.tasks.problems import Grade, Problem

LONGEST = 16_384
"""Characters of a summary that are read, from its beginning."""
WORDS = 1000
"""Words of a summary that are read: ROUGE-L takes time that grows with the product of two."""
_LONGEST_WORD = 64
KINDS = ("rouge1", "rouge2", "rougeL")

_TITLE = re.compile(
    r"^[ \t>*_#]{0,8}(?:final[ ]|the[ ])?(?:summary|answer)[ ]?[*_]{0,3}[ ]?"
    r"(?:of[^\n:]{0,60})?:[ *_]{0,4}",
    re.IGNORECASE | re.MULTILINE,
)


@dataclasses.dataclass(frozen=True)
class RougeGrader:
    """Grades a summary by its overlap with the gold summary.

    The summary is what stands behind the last line that begins with "Summary:" or "Answer:", else
    the whole text. Of summaries the first `LONGEST` characters and `WORDS` words are read. Figures
    are F1 of ROUGE-1, ROUGE-2 and ROUGE-L with stemming, by the package rouge-score (Lin 2004,
    "ROUGE: A Package for Automatic Evaluation of Summaries"); of several gold summaries in the
    problem's `meta["answers"]` the one with the best ROUGE-L counts, for all figures.

    Attributes:
      threshold: ROUGE-L from which a summary counts as correct. No benchmark has such a line: it
        is a convention for choosing traces to learn from. What is reported are the figures.
    """

    threshold: float = 0.2

    def extract(self, text: str) -> str | None:
        """The summary in `text`, or None if there is none."""
        found = None
        for match in _TITLE.finditer(text[-4 * LONGEST :]):
            found = match
        summary = text if found is None else found.string[found.end() :]
        return summary.strip()[:LONGEST] or None

    def equal(self, a: str, b: str) -> bool:
        """Whether two summaries have the same words in the same order."""
        return _words(a) == _words(b)

    def accepts(self, problem: Problem, answer: str) -> bool:
        """Whether the ROUGE-L of a summary reaches the threshold."""
        return self._figures(problem, answer)["rougeL"] >= self.threshold

    def grade(self, problem: Problem, text: str) -> Grade:
        """Measure the summary in `text` against the gold summary."""
        summary = self.extract(text)
        if summary is None:
            return Grade(False, None, "the text is empty")
        figures = self._figures(problem, summary)
        correct = figures["rougeL"] >= self.threshold
        reason = ", ".join(f"{kind} {figures[kind]:.3f}" for kind in KINDS)
        sign = "reaches" if correct else "is below"
        return Grade(correct, summary, f"{reason}; rougeL {sign} {self.threshold:g}")

    def score(self, problem: Problem, text: str) -> dict[str, float]:
        """`rouge1`, `rouge2` and `rougeL` of the summary in `text`, F1 from 0 to 1."""
        return self._figures(problem, self.extract(text) or "")

    def _figures(self, problem: Problem, summary: str) -> dict[str, float]:
        golds = gold_answers(problem)
        return max((rouge(gold, summary) for gold in golds), key=lambda figures: figures["rougeL"])


def rouge(gold: str, text: str) -> dict[str, float]:
    """F1 of ROUGE-1, ROUGE-2 and ROUGE-L of two texts, of which `WORDS` words are read."""
    scores = _scorer().score(_bounded(gold), _bounded(text))
    return {kind: float(scores[kind].fmeasure) for kind in KINDS}


def _bounded(text: str) -> str:
    return " ".join(word[:_LONGEST_WORD] for word in _words(text))


def _words(text: str) -> list[str]:
    # What rouge-score takes for a word.
    return re.findall("[a-z0-9]+", text[:LONGEST].lower())[:WORDS]


@functools.cache
def _scorer() -> Any:
    # It loads nltk, which takes a second.
    from rouge_score import rouge_scorer

    return rouge_scorer.RougeScorer(list(KINDS), use_stemmer=True)
