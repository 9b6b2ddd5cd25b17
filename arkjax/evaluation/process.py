"""How good a process reward model is, where the truth of every step is known."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from arkjax.errors import DataError
from arkjax.evaluation.statistics import RESAMPLES, Difference, Estimate, PairedBootstrap
from arkjax.evaluation.step_rewards import Aggregation, aggregate, best_of, weighted_vote


@dataclasses.dataclass(frozen=True)
class ScoredAnswer:
    """One answer with the rewards of its steps, and the truth.

    Attributes:
      problem_id: the problem.
      rewards: of the steps, in order.
      right: whether each step is right.
      answer: the final answer; None if there is none.
      correct: whether it is right.
    """

    problem_id: str
    rewards: tuple[float, ...]
    right: tuple[bool, ...]
    answer: str | None = None
    correct: bool = False

    def __post_init__(self) -> None:
        if len(self.rewards) != len(self.right):
            raise DataError(
                f"problem {self.problem_id}: {len(self.rewards)} rewards, but the truth of "
                f"{len(self.right)} steps: cut the answer into the same steps for both"
            )
        if not np.isfinite(self.rewards).all():
            raise DataError(f"problem {self.problem_id}: a reward is no finite number")

    @property
    def first_error(self) -> int | None:
        """Index of the first wrong step; None if all are right."""
        return next((i for i, right in enumerate(self.right) if not right), None)


@dataclasses.dataclass(frozen=True)
class FirstErrors:
    """How often the first wrong step is found.

    Attributes:
      threshold: a step with a smaller reward is taken to be wrong.
      accuracy: over all answers.
      on_wrong, on_right: over answers with and without a wrong step; None if there is none.
      f1: the harmonic mean of these two (ProcessBench, arXiv 2412.06559): neither doubting
        everything nor nothing raises it.
      answers: how many there are.
    """

    threshold: float
    accuracy: float
    on_wrong: float | None
    on_right: float | None
    f1: float | None
    answers: int


@dataclasses.dataclass(frozen=True)
class StepQuality:
    """How well rewards tell right steps from wrong ones.

    Attributes:
      steps: how many there are, `right_steps` of them right.
      auroc: over all steps; None if all are right, or all wrong.
      first_errors: with a threshold that was chosen on other problems.
    """

    steps: int
    right_steps: int
    auroc: float | None
    first_errors: FirstErrors


@dataclasses.dataclass(frozen=True)
class BestOfN:
    """What choosing among samples by their rewards is worth.

    Attributes:
      samples: answers a problem, on average.
      systems: accuracies with their intervals: "first" sample, "majority" vote, "best" by reward,
        "weighted" vote by reward, and "oracle", whether any sample is right.
      lift: best minus majority, paired by problem.
      weighted_lift: weighted minus majority.
    """

    samples: float
    systems: Mapping[str, Estimate]
    lift: Difference
    weighted_lift: Difference


def auroc(scores: Sequence[float], right: Sequence[bool]) -> float | None:
    """Probability that a right step scores higher than a wrong one, ties counting one half.

    The Mann-Whitney statistic from midranks, in whole numbers: exact up to the last division.

    Args:
      scores, right: of the steps, `[N]`.

    Returns:
      The area; None if all steps are right, or all wrong.

    Raises:
      DataError: if the two are not aligned, or a score is NaN.
    """
    scores, right = np.asarray(scores, np.float64), np.asarray(right, bool)
    if scores.shape != right.shape or scores.ndim != 1:
        raise DataError(
            f"auroc: expected scores and truth [steps], got {scores.shape} and {right.shape}"
        )
    if np.isnan(scores).any():
        raise DataError("auroc: a score is NaN, which is neither higher nor lower than another")
    positives = int(right.sum())
    negatives = right.size - positives
    if not positives or not negatives:
        return None
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    below = np.cumsum(counts) - counts
    twice_midrank = (2 * below + counts + 1)[inverse]
    twice_u = int(twice_midrank[right].sum()) - positives * (positives + 1)
    return twice_u / (2 * positives * negatives)


def first_error(rewards: Sequence[float], threshold: float) -> int | None:
    """The first step whose reward is below a threshold; None if there is none."""
    return next((i for i, reward in enumerate(rewards) if reward < threshold), None)


def choose_threshold(answers: Iterable[ScoredAnswer]) -> float:
    """The threshold with which most first errors are found.

    An answer is judged rightly just by thresholds in one interval, from above the reward of its
    first wrong step to the smallest reward before it: that point is looked for which lies in most
    of them. Of several stretches of such points it is the middle of the first.

    Raises:
      DataError: if there is no answer.
    """
    opens, closes = [], []
    for answer in answers:
        error = answer.first_error
        rewards = answer.rewards
        low = -math.inf if error is None else rewards[error]
        high = min(rewards if error is None else rewards[:error], default=math.inf)
        opens.append(low)
        closes.append(high)
    if not opens:
        raise DataError("a threshold needs answers of held-out problems to be chosen on")
    edges = np.unique([*opens, *closes, -math.inf, math.inf])
    # Interval (low, high]: of thresholds between two neighbouring edges all are equally good.
    inside = np.zeros(len(edges), np.int64)
    for low, high in zip(opens, closes, strict=True):
        if low < high:
            inside[np.searchsorted(edges, low)] += 1
            inside[np.searchsorted(edges, high)] -= 1
    counts = np.cumsum(inside)[:-1]
    best = int(np.argmax(counts))
    low, high = float(edges[best]), float(edges[best + 1])
    if math.isinf(low):
        return high if math.isfinite(high) else 0.0
    # Above the highest reward any threshold doubts every step.
    middle = math.nextafter(low, math.inf) if math.isinf(high) else (low + high) / 2
    return middle if low < middle <= high else high


def first_errors(answers: Sequence[ScoredAnswer], threshold: float) -> FirstErrors:
    """How often the first wrong step, or that there is none, is found at a threshold.

    Raises:
      DataError: if there is no answer.
    """
    if not answers:
        raise DataError("first errors: there are no answers")
    hits: dict[bool, list[bool]] = {True: [], False: []}
    for answer in answers:
        error = answer.first_error
        hits[error is None].append(first_error(answer.rewards, threshold) == error)
    on_right, on_wrong = (
        sum(found) / len(found) if found else None for found in (hits[True], hits[False])
    )
    f1 = None
    if on_right is not None and on_wrong is not None:
        both = on_right + on_wrong
        f1 = 2 * on_right * on_wrong / both if both else 0.0
    every = hits[True] + hits[False]
    return FirstErrors(threshold, sum(every) / len(every), on_wrong, on_right, f1, len(every))


def step_quality(held_out: Sequence[ScoredAnswer], test: Sequence[ScoredAnswer]) -> StepQuality:
    """AUROC over the test part's steps, and its first errors by the held-out part's threshold.

    Args:
      held_out: on these alone the threshold is chosen.
      test: answers to other problems.

    Raises:
      DataError: if a part is empty, or a problem is in both.
    """
    shared = {a.problem_id for a in held_out} & {a.problem_id for a in test}
    if shared:
        raise DataError(
            f"problem {min(shared)} is in the held-out and in the test part ({len(shared)} such in "
            "all): a threshold must be chosen on other problems than it is tested on"
        )
    right = [one for answer in test for one in answer.right]
    rewards = [one for answer in test for one in answer.rewards]
    found = first_errors(test, choose_threshold(held_out))
    return StepQuality(len(right), sum(right), auroc(rewards, right), found)


def best_of_n(
    answers: Iterable[ScoredAnswer],
    how: Aggregation = "min",
    *,
    equal: Callable[[str, str], bool] = str.__eq__,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> BestOfN:
    """Choosing one of a problem's samples by reward, against a majority vote of the same samples.

    Args:
      answers: the samples, in the order sampled; those of one problem need not stand together.
      how: how rewards of steps become that of a sample.
      equal: the task's equality of final answers.
      resamples, seed: of the bootstrap over problems; one run, so that the intervals say nothing
        about variation between runs.

    Raises:
      DataError: if there are no answers.
    """
    by_problem: dict[str, list[ScoredAnswer]] = {}
    for answer in answers:
        by_problem.setdefault(answer.problem_id, []).append(answer)
    if not by_problem:
        raise DataError("best of n: there are no answers")
    cells: dict[str, list[bool]] = {
        name: [] for name in ("first", "majority", "best", "weighted", "oracle")
    }
    for samples in by_problem.values():
        spelled = _spelled([sample.answer for sample in samples], equal)
        totals = [aggregate(s.rewards, how) if s.rewards else 0.0 for s in samples]
        correct: dict[str | None, bool] = {None: False}
        for words, sample in zip(spelled, samples, strict=True):
            correct.setdefault(words, sample.correct)
        cells["first"].append(samples[0].correct)
        cells["majority"].append(correct[weighted_vote(spelled, [1.0] * len(samples))])
        cells["best"].append(samples[best_of([s.rewards for s in samples], how)].correct)
        cells["weighted"].append(correct[weighted_vote(spelled, totals)])
        cells["oracle"].append(any(sample.correct for sample in samples))
    bootstrap = PairedBootstrap(
        {name: np.array([own]) for name, own in cells.items()}, resamples=resamples, seed=seed
    )
    return BestOfN(
        samples=sum(map(len, by_problem.values())) / len(by_problem),
        systems={name: bootstrap.accuracy(name) for name in cells},
        lift=bootstrap.difference("best", "majority"),
        weighted_lift=bootstrap.difference("weighted", "majority"),
    )


def _spelled(answers: Sequence[str | None], equal: Callable[[str, str], bool]) -> list[str | None]:
    """Each answer in the spelling of the first that is equal to it."""
    seen: list[str] = []
    spelled: list[str | None] = []
    for answer in answers:
        if answer is None:
            spelled.append(None)
            continue
        first = next((other for other in seen if equal(other, answer)), None)
        if first is None:
            seen.append(answer)
        spelled.append(answer if first is None else first)
    return spelled
