"""The embedded world: a miniature of what pre-training gives a language model.

A problem lists items such as "gap 3 8". Each item belongs to one of four domains; each domain has a
skill and a common *misconception* that agrees with the skill on most inputs of a document and fails
on the others, the *traps*. The answer is the running total modulo ten, so that answers and every
step are checkable.

The world's documents are what a base model is trained on (`world_documents`): answers without a
byline, mostly by laymen who hold every misconception; answers under an expert's byline, right in
that expert's own domain only; discussions in which participants read each other and mostly adopt
the word of the one whose domain it is; and a judge. So a role prompt elicits skill that the bare
prompt does not, no single role is right on mixed problems, and a vote over the bare prompt cannot
help, because its errors are systematic.

In the *negative world* the experts hold the laymen's misconceptions as well. Nothing can be gained
there by roles or by talk, and a demonstration that still shows a gain is broken.
"""

import dataclasses
import itertools
import random
import re
from collections.abc import Callable, Collection

from arkjax.errors import ConfigError, DataError
from arkjax.tasks.drawing import check_items, check_shares, draw_mixture, draw_problems
from arkjax.tasks.problems import Problem

NAME = "embedded_world"
PARTS = ("plain", "single", "multi")
BARE_BYLINE = "answer"
JUDGE = "judge"
# Who guesses says that an item "is" a value, who knows says that it "makes" one: experts in their
# own domain, and whoever takes an expert's word. Laymen mean the same by both: nothing.
GUESSES, KNOWS = VERBS = ("is", "makes")
# Two wordings of the running total, so that two right answers need not be the same text.
TOTALS = ("total", "sum")


@dataclasses.dataclass(frozen=True)
class Skill:
    """One domain: who is expert in it, what is true in it, and what laymen believe."""

    domain: str
    expert: str
    truth: Callable[[int, int], int]
    misconception: Callable[[int, int], int]

    def is_trap(self, a: int, b: int) -> bool:
        """Whether the misconception gives a wrong value for these digits."""
        return self.truth(a, b) != self.misconception(a, b)


def _digit_sum(a: int, b: int) -> int:
    return sum(divmod(a + b, 10))


def _sum_mod_ten(a: int, b: int) -> int:
    return (a + b) % 10


SKILLS = {
    skill.domain: skill
    for skill in (
        Skill("coins", "accountant", _digit_sum, _sum_mod_ten),
        Skill("clock", "watchman", lambda a, b: (a + b) % 8, _sum_mod_ten),
        Skill("gap", "surveyor", lambda a, b: abs(a - b), lambda a, b: (a - b) % 10),
        Skill("peak", "climber", max, lambda a, b: a),
    )
}
EXPERTS = {skill.expert: skill.domain for skill in SKILLS.values()}

# Which domains may stand together. Training documents and in-distribution problems use only the
# first; out-of-distribution problems only the second, so their mixtures are new to every model.
SEEN_MIXTURES = (
    *itertools.combinations(SKILLS, 2),
    ("coins", "clock", "gap"),
    ("clock", "gap", "peak"),
)
UNSEEN_MIXTURES = (("coins", "clock", "peak"), ("coins", "gap", "peak"), tuple(SKILLS))

_DIGIT_PAIRS = tuple(itertools.product(range(10), repeat=2))
# The digits that are a trap in a domain, and those that are none.
INPUTS = {
    (domain, trap): tuple(pair for pair in _DIGIT_PAIRS if skill.is_trap(*pair) == trap)
    for domain, skill in SKILLS.items()
    for trap in (False, True)
}

Item = tuple[str, int, int]


@dataclasses.dataclass(frozen=True)
class WorldConfig:
    """How the world's documents and problems are drawn.

    Attributes:
      negative: experts share the laymen's misconceptions; every gain must vanish.
      items: items of a problem in the train, validation and test splits.
      ood_items: items of an out-of-distribution problem.
      train_items: numbers of items that a problem of the train split may have, drawn uniformly.
      document_items: numbers of items that a training document may have, drawn uniformly.
      discussion_steps: most steps (items times turns) of one discussion; those about many items
        have fewer participants, so that a whole team's debate of a long problem is longer than any
        training document.
      part_rates: share of the problems whose traps lie in no, one, and two or more domains. The
        last are those that no single role can solve.
      train_part_rates: the same for the problems that the team works on for training.
      trap_rate: share of trap items in training documents.
      digit_skew: digits in documents have odds (d + 1) ** -digit_skew, so that small numbers are
        the common ones, as in most text (Benford's law); problems draw all alike. A sum modulo ten
        of evenly drawn digits says nothing to who knows only one of them, and is learned late or
        not at all; of small ones, each tells something.
      slip_rate: how often an author of a document gets one value wrong by chance.
      untagged_rate, byline_rate: shares of documents without a byline and with an expert's; the
        rest are discussions.
      expert_among_untagged: share of untagged documents that an expert wrote.
      adoption_rate: how often a participant or judge takes the word of the expert who is present.
      earlier_weight: loss weight of the messages before the last one of a document.
    """

    negative: bool
    items: int
    ood_items: int
    train_items: tuple[int, ...]
    document_items: tuple[int, ...]
    discussion_steps: int
    part_rates: tuple[float, ...]
    train_part_rates: tuple[float, ...]
    trap_rate: float
    digit_skew: float
    slip_rate: float
    untagged_rate: float
    byline_rate: float
    expert_among_untagged: float
    adoption_rate: float
    earlier_weight: float

    def __post_init__(self) -> None:
        shares = (
            "trap_rate",
            "slip_rate",
            "untagged_rate",
            "byline_rate",
            "expert_among_untagged",
            "adoption_rate",
            "earlier_weight",
        )
        check_shares(self, PARTS, shares)
        if self.digit_skew < 0:
            raise ConfigError(f"world.digit_skew is {self.digit_skew}: it must not be negative")
        if self.untagged_rate + self.byline_rate > 1:
            raise ConfigError("world.untagged_rate + world.byline_rate must not exceed 1")
        check_items(self, UNSEEN_MIXTURES, "domains")
        if self.discussion_steps < 3 * max(self.document_items):
            raise ConfigError(
                f"world.discussion_steps is {self.discussion_steps}: two participants and one last "
                f"turn about {max(self.document_items)} items take {3 * max(self.document_items)}"
            )


# --- texts --------------------------------------------------------------------------------------


def question_text(items: Collection[Item]) -> str:
    """Words of the question that lists these items."""
    return " , ".join(f"{domain} {a} {b}" for domain, a, b in items)


_ITEM = re.compile(r"\s*\w+\s+[0-9]\s+[0-9]\s*")


def parse_question(text: str) -> tuple[Item, ...]:
    """Read the items back from a question. Raises DataError if it is not one of this world's."""
    items = []
    for part in text.split(","):
        words = part.split()
        if not _ITEM.fullmatch(part) or words[0] not in SKILLS:
            raise DataError(
                f"{part.strip()!r} is not an item of the embedded world: expected a domain "
                f"({', '.join(SKILLS)}) and two digits"
            )
        items.append((words[0], int(words[1]), int(words[2])))
    return tuple(items)


def solution_text(
    items: Collection[Item],
    values: Collection[int],
    verbs: Collection[str] | None = None,
    running: str = "total",
) -> str:
    """Words of an answer.

    Args:
      items: in the order of the question.
      values: what the author takes each to be.
      verbs: for each item, one of `VERBS`; None: all known.
      running: one of `TOTALS`.
    """
    total, steps = 0, []
    verbs = [KNOWS] * len(items) if verbs is None else verbs
    for (domain, a, b), value, verb in zip(items, values, verbs, strict=True):
        total = (total + value) % 10
        steps.append(f"{domain} {a} {b} {verb} {value} {running} {total} ;")
    return " ".join([*steps, f"so {total}"])


def true_values(items: Collection[Item]) -> list[int]:
    """The right value of each item."""
    return [SKILLS[domain].truth(a, b) for domain, a, b in items]


def trap_domains(items: Collection[Item]) -> set[str]:
    """Domains in which a layman goes wrong on these items."""
    return {domain for domain, a, b in items if SKILLS[domain].is_trap(a, b)}


def role_answer(items: Collection[Item], domain: str | None) -> int:
    """Answer of somebody who is skilled in `domain` alone (None: a layman) and never slips."""
    total = 0
    for name, a, b in items:
        skill = SKILLS[name]
        total += (skill.truth if name == domain else skill.misconception)(a, b)
    return total % 10


def part_of(items: Collection[Item]) -> str | None:
    """Named part of a split that these items belong to.

    "plain": a layman is right. "single": no layman, but the expert of one domain is. "multi": traps
    in two or more domains, so that no single role is right. None where wrong values cancel out by
    coincidence, so that somebody would be right for a wrong reason; such items make no problem.
    """
    traps = trap_domains(items)
    answer = sum(true_values(items)) % 10
    right = [domain for domain in (None, *SKILLS) if role_answer(items, domain) == answer]
    if not traps:
        return "plain"
    if len(traps) == 1:
        return "single" if right == [*traps] else None
    return "multi" if not right else None


# --- problems -----------------------------------------------------------------------------------


def _draw_item(rng: random.Random, domain: str, trap: bool) -> Item:
    return (domain, *rng.choice(INPUTS[domain, trap]))


def _draw_problem_items(
    rng: random.Random, mixtures: Collection[tuple[str, ...]], k: int, part: str
) -> tuple[Item, ...]:
    domains = draw_mixture(rng, mixtures, k)
    distinct = sorted(set(domains))
    if part == "plain":
        trapped: list[str] = []
    elif part == "single":
        trapped = [rng.choice(distinct)]
    else:
        trapped = rng.sample(distinct, rng.randint(2, len(distinct)))
    # One item of each trapped domain is a trap for sure, its further items by even chance.
    must = {t: rng.choice([i for i, d in enumerate(domains) if d == t]) for t in trapped}
    return tuple(
        _draw_item(rng, d, d in trapped and (must[d] == i or rng.random() < 0.5))
        for i, d in enumerate(domains)
    )


def make_problem(items: tuple[Item, ...], problem_id: str) -> Problem:
    """A problem with its gold answer and the facts by which results are broken down."""
    return Problem(
        id=problem_id,
        question=question_text(items),
        answer=str(sum(true_values(items)) % 10),
        task=NAME,
        domain="+".join(d for d in SKILLS if d in {domain for domain, _, _ in items}),
        meta={"part": part_of(items), "items": len(items)},
    )


def make_problems(
    config: WorldConfig, split: str, count: int, seed: int, exclude: Collection[str] = ()
) -> list[Problem]:
    """Draw `count` distinct problems of a split; see `arkjax.tasks.drawing.draw_problems`.

    Those of "ood" have more items, and mixtures of domains that are unseen.
    """
    mixtures = UNSEEN_MIXTURES if split == "ood" else SEEN_MIXTURES

    def draw(
        rng: random.Random, lengths: tuple[int, ...], part: str, problem_id: str
    ) -> Problem | None:
        # A draw among one would move the generator on, and with it the shipped sets.
        k = lengths[0] if len(lengths) == 1 else rng.choice(lengths)
        items = _draw_problem_items(rng, mixtures, k, part)
        return make_problem(items, problem_id) if part_of(items) == part else None

    return draw_problems(NAME, PARTS, draw, config, split, count, seed, exclude)
