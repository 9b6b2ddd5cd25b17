"""MC1 and MC2: which of given answers a model finds likeliest, without having it write any."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from arkjax.progress import Progress
from arkjax.tasks.graders import mc1, mc2
from arkjax.tasks.problems import Problem
from arkjax.text.chat import BARE, Chat
from arkjax.text.tokenizer import Tokenizer

_MEASURES: dict[str, Callable[[Sequence[float], Sequence[float]], float]] = {"mc1": mc1, "mc2": mc2}


class Scorer(Protocol):
    """What scores continuations: an `Engine`."""

    def score_continuations(
        self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]], progress: Any = None
    ) -> list[np.ndarray]:
        """Log-probabilities of each target's tokens after its prompt."""


@dataclasses.dataclass(frozen=True)
class Choices:
    """What came of it.

    Attributes:
      rows: for each problem "id", "mc1" and "mc2" in [0, 1], and "logprobs": by measure the sums
        over each choice's tokens, in nats, in the order of the problem's choices.
      figures: means of "mc1" and "mc2"; empty where no problem has choices.
      without_room: problems with a choice that does not fit into the context; not in the means.
    """

    rows: list[dict[str, Any]]
    figures: dict[str, float]
    without_room: int


def score_choices(
    scorer: Scorer,
    chat: Chat,
    tokenizer: Tokenizer,
    problems: Sequence[Problem],
    context: int,
    progress: Progress,
) -> Choices:
    """MC1 and MC2 of the problems that have `meta["mc1"]` and `meta["mc2"]` (arXiv 2109.07958).

    Choices are scored after the bare question, `meta["stem"]`, of which none of them is a part: by
    the sum of the log-probabilities of its tokens, as in the paper.
    """
    asked, pairs, without_room = [], [], 0
    for problem in problems:
        if not all(name in problem.meta for name in (*_MEASURES, "stem")):
            continue
        prompt = [*chat.question(problem.meta["stem"]), *chat.turn(BARE)]
        every = [c for name in _MEASURES for c in problem.meta[name]["choices"]]
        targets = {choice: tokenizer.encode(choice) for choice in dict.fromkeys(every)}
        if len(prompt) + max(map(len, targets.values())) > context:
            without_room += 1
            continue
        asked.append((problem, list(targets)))
        pairs += [(prompt, target) for target in targets.values()]
    if not asked:
        return Choices([], {}, without_room)
    with progress.task("MC1 and MC2", total=len(pairs), unit="choices") as task:
        scored = iter(scorer.score_continuations(pairs, task.advance))
    rows = []
    for problem, choices in asked:
        sums = {choice: float(next(scored).sum(dtype=np.float64)) for choice in choices}
        rows.append(_row(problem, sums))
    figures = {name: sum(row[name] for row in rows) / len(rows) for name in _MEASURES}
    return Choices(rows, figures, without_room)


def _row(problem: Problem, sums: Mapping[str, float]) -> dict[str, Any]:
    row: dict[str, Any] = {"id": problem.id, "logprobs": {}}
    for name, measure in _MEASURES.items():
        targets = problem.meta[name]
        logprobs = [sums[choice] for choice in targets["choices"]]
        row["logprobs"][name] = logprobs
        labelled = list(zip(logprobs, targets["labels"], strict=True))
        row[name] = measure([x for x, y in labelled if y], [x for x, y in labelled if not y])
    return row
