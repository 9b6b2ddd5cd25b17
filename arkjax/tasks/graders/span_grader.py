r"""Grades short answers in words by exact match and word overlap: HotpotQA, QASPER.

Both sides are normalised as in the evaluation script of SQuAD v1.1 (Rajpurkar et al. 2016,
arXiv:1606.05250): lower case, without ASCII punctuation, without the articles a, an and the, white
space as one space. Exact match (EM) is equality of what is left; F1 is the harmonic mean of
precision and recall of its words, counted with their number. Of several gold answers the best
counts.

Two official scripts extend this. That of HotpotQA (Yang et al. 2018, arXiv:1809.09600) gives F1 = 0
where one side is "yes", "no" or "noanswer" and the other is not the same: such a word must match
wholly. That of QASPER (Dasigi et al. 2021, arXiv:2105.03011) has no such rule; its answers are
extractive, free-form, "Yes" or "No", and "Unanswerable", and the best over annotators counts.
"""

import dataclasses
import re
import string
from collections import Counter
from collections.abc import Sequence

from arkjax.tasks.graders.reading import last_boxed, last_stated
from arkjax.tasks.problems import Grade, Problem

LONGEST = 2000
"""Characters of an answer that are read."""
HOTPOT_WHOLE = ("yes", "no", "noanswer")
"""Answers that HotpotQA's script takes wholly or not at all."""

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_EMPHASIS = ' \t*_`"“”'


@dataclasses.dataclass(frozen=True)
class SpanGrader:
    r"""Grades by the words of a short answer.

    The answer is what stands in the last `\boxed{}`, else behind the last "Answer:", "the answer
    is" or "A:" on its line or the next, else the last line that is not empty; at most `LONGEST`
    characters of it.

    The gold answers are those in the problem's `meta["answers"]`, a list of texts, or else its
    `answer`.

    Attributes:
      threshold: F1 from which an answer is correct, above 0; None: only exact match is, which is
        HotpotQA's main figure. For QASPER, whose main figure is F1 itself, 0.5 is a convention of
        ArkJAX: it tells which traces are good enough to learn from, and is not reported.
      whole: normalised answers that must match wholly for an F1 above 0. `HOTPOT_WHOLE` for
        HotpotQA, empty for QASPER.
    """

    threshold: float | None = None
    whole: tuple[str, ...] = HOTPOT_WHOLE

    def extract(self, text: str) -> str | None:
        """The answer that `text` states, or None if it is empty."""
        stated = last_boxed(text)
        if stated is None:
            stated = last_stated(text)
        if stated is None:
            stated = text[-4 * LONGEST :].strip().rpartition("\n")[2]
        return stated[:LONGEST].strip(_EMPHASIS) or None

    def equal(self, a: str, b: str) -> bool:
        """Whether two answers are the same after normalisation."""
        return normalize(a) == normalize(b)

    def accepts(self, problem: Problem, answer: str) -> bool:
        """Whether an answer matches a gold answer, or overlaps it as far as `threshold` asks."""
        return self._right(self._figures(problem, answer))

    def grade(self, problem: Problem, text: str) -> Grade:
        """Compare the answer that `text` states with the gold answers."""
        answer = self.extract(text)
        if answer is None:
            return Grade(False, None, "the text states no answer")
        figures = self._figures(problem, answer)
        reason = f"EM {figures['em']:.0f}, F1 {figures['f1']:.3f}"
        if self._right(figures):
            return Grade(True, answer, f"matches; {reason}")
        return Grade(False, answer, f"expected {' or '.join(gold_answers(problem))}; {reason}")

    def score(self, problem: Problem, text: str) -> dict[str, float]:
        """`em` and `f1` of the answer that `text` states, from 0 to 1."""
        return self._figures(problem, self.extract(text) or "")

    def _right(self, figures: dict[str, float]) -> bool:
        if self.threshold is None:
            return figures["em"] == 1
        return figures["em"] == 1 or figures["f1"] >= self.threshold > 0

    def _figures(self, problem: Problem, answer: str) -> dict[str, float]:
        golds = gold_answers(problem)
        return {
            "em": float(any(normalize(answer) == normalize(gold) for gold in golds)),
            "f1": max((f1(gold, answer, self.whole) for gold in golds), default=0.0),
        }


def gold_answers(problem: Problem) -> list[str]:
    """The gold answers: those of `meta["answers"]` or, where it has none, the answer itself."""
    answers = problem.meta.get("answers")
    if isinstance(answers, Sequence) and not isinstance(answers, str) and answers:
        return [str(answer) for answer in answers]
    return [problem.answer]


def normalize(text: str) -> str:
    """Lower case, no punctuation, no articles, single spaces: SQuAD v1.1's `normalize_answer`."""
    text = text[:LONGEST].lower().translate(_PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", text).split())


def f1(gold: str, answer: str, whole: Sequence[str] = ()) -> float:
    """F1 of the words of two texts after normalisation; 0 without a common word.

    Args:
      gold: the gold answer.
      answer: the other.
      whole: normalised texts that count only if the other side is the same.
    """
    gold, answer = normalize(gold), normalize(answer)
    if gold != answer and (gold in whole or answer in whole):
        return 0.0
    golds, answers = gold.split(), answer.split()
    common = (Counter(golds) & Counter(answers)).total()
    if not common:
        return 0.0
    precision, recall = common / len(answers), common / len(golds)
    return 2 * precision * recall / (precision + recall)
