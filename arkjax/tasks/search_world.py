"""The search world: problems that are hard to solve and easy to check, so that talk helps.

A problem lists items such as "cap 3" and a total, as in "cap 3 , over 2 makes 8". Each item is a
function of one number n, and the answer is the only n from 0 to 9 for which their values add up to
the total. To find n is to invert their sum, which nobody in this world can do at a glance. To check
a proposed n is a chain of easy steps: the value of each item, and what is left of the total.

Everybody *proposes* by the same misconception, that every item is n itself, so that n would be an
equal share of the total (`guess`). It is right on few problems and off on the others, by more than
a slip, so that neither more proposals nor a vote over them help. A *critic* works a proposal out
and says whether it is low, high or right. Who is told so proposes anew between the bounds that are
known by then (`arkjax.tasks.search_documents`), until a proposal holds.

In the *negative world* critics write down values and verdicts by lot. They say nothing about the
proposal, so talk cannot help, and a demonstration that still shows a gain is broken.
"""

import dataclasses
import itertools
import random
import re
from collections.abc import Callable, Collection

from arkjax.errors import ConfigError, DataError
from arkjax.tasks.drawing import check_items, check_shares, draw_mixture, draw_problems
from arkjax.tasks.problems import Problem

NAME = "search_world"
PARTS = ("plain", "near", "far")
BARE_BYLINE = "answer"
SOLVER, CRITIC = BYLINES = "solver", "critic"
LOW, HIGH, RIGHT = VERDICTS = ("low", "high", "right")
LARGEST = 9
"""The largest number that can be proposed; the smallest is 0."""

# Each is a function of the number sought and the digit of the item; none falls as n grows, and none
# is above `LARGEST`.
OPERATIONS: dict[str, Callable[[int, int], int]] = {
    "cap": min,
    "least": max,
    "over": lambda n, a: max(n - a, 0),
    "mean": lambda n, a: (n + a) // 2,
}

# Which operations may stand together. Training documents and in-distribution problems use only the
# first; out-of-distribution problems only the second.
SEEN_MIXTURES = (
    *itertools.combinations(OPERATIONS, 2),
    ("cap", "least", "over"),
    ("least", "over", "mean"),
)
UNSEEN_MIXTURES = (("cap", "least", "mean"), ("cap", "over", "mean"), tuple(OPERATIONS))

Item = tuple[str, int]


@dataclasses.dataclass(frozen=True)
class SearchWorldConfig:
    """How the world's documents and problems are drawn.

    Attributes:
      negative: critics write by lot; every gain must vanish.
      items: items of a problem in the train, validation and test splits.
      ood_items: items of an out-of-distribution problem.
      train_items: numbers of items that a problem of the train split may have, drawn uniformly.
      document_items: numbers of items that a training document may have, drawn uniformly.
      part_rates: share of the problems on which the common guess is right, one off, and further
        off.
      train_part_rates: the same for the problems that the team works on for training.
      proposal_rate: share of the documents that are one proposal; the rest are discussions.
      bylines_rate: share of those proposals that a solver or a critic signs.
      stray_rate: how often who proposes first takes any number in place of the common guess.
      slip_rate: how often a critic gets one value wrong by chance.
      most_checks: most checks of a document's discussion.
      earlier_weight: loss weight of the messages before the last one of a document.
    """

    negative: bool
    items: int
    ood_items: int
    train_items: tuple[int, ...]
    document_items: tuple[int, ...]
    part_rates: tuple[float, ...]
    train_part_rates: tuple[float, ...]
    proposal_rate: float
    bylines_rate: float
    stray_rate: float
    slip_rate: float
    most_checks: int
    earlier_weight: float

    def __post_init__(self) -> None:
        shares = ("proposal_rate", "bylines_rate", "stray_rate", "slip_rate", "earlier_weight")
        check_shares(self, PARTS, shares)
        check_items(self, UNSEEN_MIXTURES, "operations")
        if self.most_checks < 1:
            raise ConfigError(f"world.most_checks is {self.most_checks}: it must be at least 1")


# --- texts --------------------------------------------------------------------------------------


def question_text(items: Collection[Item], total: int) -> str:
    """Words of the question that lists these items and their total."""
    return f"{' , '.join(f'{name} {a}' for name, a in items)} makes {total}"


# ASCII digits only: \d would take the digits of every script.
_QUESTION = re.compile(r"\s*(.*?)\s+makes\s+([0-9]{1,3})\s*", re.DOTALL)
_ITEM = re.compile(r"\s*(\w+)\s+([0-9])\s*")


def parse_question(text: str) -> tuple[tuple[Item, ...], int]:
    """Items and total of a question. Raises DataError if it is not one of this world's."""
    whole = _QUESTION.fullmatch(text)
    parts = whole[1].split(",") if whole else [text]
    found = [_ITEM.fullmatch(part) for part in parts]
    for part, match in zip(parts, found, strict=True):
        if not whole or match is None or match[1] not in OPERATIONS:
            raise DataError(
                f"{part.strip()[:80]!r} is no part of a question of the search world: expected "
                f"items, each an operation ({', '.join(OPERATIONS)}) and a digit, then 'makes' and "
                "the total"
            )
    return tuple((match[1], int(match[2])) for match in found if match), int(whole[2])


def proposal_text(low: int, high: int, n: int) -> str:
    """Words of who proposes n, knowing that the answer is from `low` to `high`."""
    return f"from {low} to {high} so {n}"


def closing_text(n: int) -> str:
    """Words of who was told that n is right."""
    return f"so {n}"


def check_text(items: Collection[Item], total: int, n: int, values: Collection[int]) -> str:
    """Words of who checks n: values of the items, what each leaves of the total, and a verdict.

    The check ends with the item that takes more than is left.

    Args:
      items, total: of the question.
      n: what was proposed.
      values: what the critic takes the items to be.
    """
    steps, left = checked(items, total, n, values)
    return " ".join([*steps, f"so {verdict_on(left)}"])


def checked(
    items: Collection[Item], total: int, n: int, values: Collection[int]
) -> tuple[list[str], int]:
    """The steps of `check_text`, and what is left in the end, which is below 0 if n is too high."""
    steps, left = [f"try {n} ;"], total
    for (name, a), value in zip(items, values, strict=True):
        left -= value
        steps.append(f"{name} {a} {n} is {value} left {left if left >= 0 else 'none'} ;")
        if left < 0:
            break
    return steps, left


def verdict_on(left: int) -> str:
    """What follows for a proposal that leaves this much of the total."""
    return RIGHT if left == 0 else LOW if left > 0 else HIGH


# --- truth --------------------------------------------------------------------------------------


def true_values(items: Collection[Item], n: int) -> list[int]:
    """The right value of each item for a number n."""
    return [OPERATIONS[name](n, a) for name, a in items]


def total_of(items: Collection[Item], n: int) -> int:
    """What the items add up to for a number n."""
    return sum(true_values(items, n))


def solutions(items: Collection[Item], total: int) -> list[int]:
    """Every number for which the items add up to the total."""
    return [n for n in range(LARGEST + 1) if total_of(items, n) == total]


def truth_about(items: Collection[Item], total: int, n: int) -> str:
    """The right verdict on n; one of `VERDICTS`."""
    return verdict_on(total - total_of(items, n))


def guess(items: Collection[Item], total: int) -> int:
    """The common guess: an equal share of the total, rounded, as if every item were n."""
    count = len(items)
    return min((2 * total + count) // (2 * count), LARGEST)


def middle(low: int, high: int) -> int:
    """What is proposed when the answer is known to be from `low` to `high`."""
    return (low + high) // 2


def narrowed(low: int, high: int, n: int, verdict: str) -> tuple[int, int]:
    """The bounds after a verdict on n; where they would leave nothing, n alone is left."""
    if verdict == LOW and n < high:
        return n + 1, high
    if verdict == HIGH and n > low:
        return low, n - 1
    return n, n


def part_of(items: Collection[Item], total: int) -> str:
    """Named part of a split that a question belongs to: by how far its common guess is off."""
    [answer] = solutions(items, total)
    return PARTS[min(abs(guess(items, total) - answer), 2)]


# --- problems -----------------------------------------------------------------------------------


def draw_question(
    rng: random.Random, mixtures: Collection[tuple[str, ...]], k: int
) -> tuple[tuple[Item, ...], int, int]:
    """Items, total and the only answer of a question of k items; answers are drawn all alike."""
    n = rng.randint(0, LARGEST)
    while True:
        names = draw_mixture(rng, mixtures, k)
        items = tuple((name, rng.randint(0, 9)) for name in names)
        total = total_of(items, n)
        if solutions(items, total) == [n]:
            return items, total, n


def make_problem(items: tuple[Item, ...], total: int, problem_id: str) -> Problem:
    """A problem with its gold answer and the facts by which results are broken down."""
    [answer] = solutions(items, total)
    used = {name for name, _ in items}
    return Problem(
        id=problem_id,
        question=question_text(items, total),
        answer=str(answer),
        task=NAME,
        domain="+".join(name for name in OPERATIONS if name in used),
        meta={"part": part_of(items, total), "items": len(items)},
    )


def make_problems(
    config: SearchWorldConfig, split: str, count: int, seed: int, exclude: Collection[str] = ()
) -> list[Problem]:
    """Draw `count` distinct problems of a split; see `arkjax.tasks.drawing.draw_problems`.

    Those of "ood" have more items, and mixtures of operations that are unseen.
    """
    mixtures = UNSEEN_MIXTURES if split == "ood" else SEEN_MIXTURES

    def draw(
        rng: random.Random, lengths: tuple[int, ...], part: str, problem_id: str
    ) -> Problem | None:
        items, total, _ = draw_question(rng, mixtures, rng.choice(lengths))
        return make_problem(items, total, problem_id) if part_of(items, total) == part else None

    return draw_problems(NAME, PARTS, draw, config, split, count, seed, exclude)
