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
import json
import random
import re
from collections.abc import Callable, Collection
from pathlib import Path

from arkjax.errors import ConfigError, DataError
from arkjax.tasks.problems import Problem

NAME = "embedded_world"
SPLITS = ("train", "validation", "test", "ood")
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
        for name in ("part_rates", "train_part_rates"):
            rates = getattr(self, name)
            if len(rates) != len(PARTS) or abs(sum(rates) - 1) > 1e-6 or min(rates) < 0:
                raise ConfigError(
                    f"world.{name} is {rates}: give {len(PARTS)} shares for {', '.join(PARTS)} "
                    "that sum to 1"
                )
        for name in (
            "trap_rate",
            "slip_rate",
            "untagged_rate",
            "byline_rate",
            "expert_among_untagged",
            "adoption_rate",
            "earlier_weight",
        ):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"world.{name} is {getattr(self, name)}: it must be in [0, 1]")
        if self.digit_skew < 0:
            raise ConfigError(f"world.digit_skew is {self.digit_skew}: it must not be negative")
        if self.untagged_rate + self.byline_rate > 1:
            raise ConfigError("world.untagged_rate + world.byline_rate must not exceed 1")
        if min(self.items, *self.train_items, *self.document_items) < 2:
            raise ConfigError("world: problems and documents need at least 2 items")
        if self.ood_items < min(map(len, UNSEEN_MIXTURES)):
            raise ConfigError(
                f"world.ood_items is {self.ood_items}: the smallest unseen mixture has "
                f"{min(map(len, UNSEEN_MIXTURES))} domains"
            )
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


def draw_domains(rng: random.Random, mixtures: Collection[tuple[str, ...]], k: int) -> list[str]:
    """Domains of k items: every domain of one mixture at least once, as far as k allows."""
    mixture = rng.choice([m for m in mixtures if len(m) <= k])
    domains = [*mixture, *rng.choices(mixture, k=k - len(mixture))]
    rng.shuffle(domains)
    return domains


def _draw_problem_items(
    rng: random.Random, mixtures: Collection[tuple[str, ...]], k: int, part: str
) -> tuple[Item, ...]:
    domains = draw_domains(rng, mixtures, k)
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


# Draws in a row without a new problem after which a world counts as exhausted.
_MOST_MISSES = 10_000


def make_problems(
    config: WorldConfig, split: str, count: int, seed: int, exclude: Collection[str] = ()
) -> list[Problem]:
    """Draw `count` distinct problems of a split, in the split's shares of parts.

    Args:
      config: the world.
      split: one of `SPLITS`; "ood" has more items and unseen mixtures of domains.
      count: how many problems.
      seed: with the split and the config, it determines the problems.
      exclude: question hashes that must not appear (those of other splits).

    Raises:
      ConfigError: if the split is unknown, `count` is not positive, or the world has not that many
        distinct problems.
    """
    if split not in SPLITS:
        raise ConfigError(
            f"embedded world has no split {split!r}: choose one of {', '.join(SPLITS)}"
        )
    if count < 1:
        raise ConfigError(f"{count} problems asked of split {split!r}: ask for at least one")
    rng = random.Random(f"{NAME}/{split}/{seed}")
    ood = split == "ood"
    mixtures = UNSEEN_MIXTURES if ood else SEEN_MIXTURES
    lengths = {"train": config.train_items, "ood": (config.ood_items,)}.get(split, (config.items,))
    rates = config.train_part_rates if split == "train" else config.part_rates
    parts = _shares(rng, rates, count)
    taken = set(exclude)
    problems: list[Problem] = []
    misses = 0
    while len(problems) < count:
        misses += 1
        if misses > _MOST_MISSES:
            raise ConfigError(
                f"found only {len(problems)} of {count} distinct problems of split {split!r}: ask "
                f"for fewer, or for more than {max(lengths)} items a problem"
            )
        k = lengths[0] if len(lengths) == 1 else rng.choice(lengths)
        items = _draw_problem_items(rng, mixtures, k, parts[len(problems)])
        if part_of(items) != parts[len(problems)]:
            continue
        problem = make_problem(items, f"{split}-{seed}-{len(problems):05d}")
        if problem.question_hash not in taken:
            taken.add(problem.question_hash)
            problems.append(problem)
            misses = 0
    return problems


def _shares(rng: random.Random, rates: Collection[float], count: int) -> list[str]:
    """`count` part names in exactly these shares (rounded), shuffled."""
    bounds = [round(count * total) for total in itertools.accumulate(rates)]
    starts = [0, *bounds[:-1]]
    names = [p for p, lo, hi in zip(PARTS, starts, bounds, strict=True) for _ in range(lo, hi)]
    rng.shuffle(names)
    return names


def save_problems(path: Path, problems: Collection[Problem]) -> None:
    """Write problems as JSON lines."""
    path.write_text("".join(json.dumps(dataclasses.asdict(p)) + "\n" for p in problems))


def load_problems(path: Path) -> list[Problem]:
    """Read problems written by `save_problems`.

    Raises:
      DataError: if the file is missing or a line is not a problem; names file and line.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read problems from {path}: {error}") from error
    problems = []
    for number, line in enumerate(lines, 1):
        try:
            problems.append(_problem(json.loads(line)))
        except (ValueError, TypeError) as error:
            raise DataError(f"{path}, line {number}: not a problem ({error})") from error
    if not problems:
        raise DataError(f"{path} holds no problems")
    return problems


def _problem(fields: dict) -> Problem:
    """A problem from its fields; ValueError or TypeError if they are not those of a problem."""
    problem = Problem(**fields)
    for name in ("id", "question", "answer", "task", "domain"):
        if not isinstance(getattr(problem, name), str):
            raise ValueError(f"{name} is not a string")
    if not isinstance(problem.meta, dict):
        raise ValueError("meta is not an object")
    return problem
