"""Problems of the embedded world: their parts, mixtures, shares and reproducibility."""

import dataclasses
import os
import subprocess
import sys
from collections import Counter

import pytest

from arkjax.errors import ConfigError, DataError
from arkjax.tasks import embedded_world as world
from arkjax.tasks.embedded_sets import EMBEDDED_SETS, SHIPPED_WORLD

pytestmark = pytest.mark.fast

SETS = {
    **EMBEDDED_SETS.evaluation(),
    "train": world.make_problems(SHIPPED_WORLD, "train", 2000, seed=3),
}


def answer_by(problem, skilled):
    """The answer of somebody who is right in the domains `skilled` and a layman elsewhere."""
    total = 0
    for part in problem.question.split(" , "):
        domain, a, b = part.split()
        skill = world.SKILLS[domain]
        total += (skill.truth if domain in skilled else skill.misconception)(int(a), int(b))
    return str(total % 10)


@pytest.mark.parametrize("split", SETS)
def test_parts_are_what_they_say(split):
    for problem in SETS[split]:
        trapped = {
            part.split()[0]
            for part in problem.question.split(" , ")
            if world.SKILLS[part.split()[0]].is_trap(*map(int, part.split()[1:]))
        }
        right = {d for d in world.SKILLS if answer_by(problem, {d}) == problem.answer}
        layman = answer_by(problem, set()) == problem.answer
        part = problem.meta["part"]
        if part == "plain":
            assert layman and not trapped
        elif part == "single":
            assert not layman and right == trapped and len(trapped) == 1
        else:
            assert part == "multi"
            assert not layman and not right and len(trapped) >= 2
        assert answer_by(problem, set(world.SKILLS)) == problem.answer
        # A team that only has the experts of the trapped domains already solves it.
        assert answer_by(problem, trapped) == problem.answer


@pytest.mark.parametrize("split", SETS)
def test_parts_have_their_shares(split):
    rates = SHIPPED_WORLD.train_part_rates if split == "train" else SHIPPED_WORLD.part_rates
    counts = Counter(problem.meta["part"] for problem in SETS[split])
    assert [counts[part] for part in world.PARTS] == [
        round(rate * len(SETS[split])) for rate in rates
    ]


def test_mixtures_of_ood_are_new():
    seen = {frozenset(mixture) for mixture in world.SEEN_MIXTURES}
    unseen = {frozenset(mixture) for mixture in world.UNSEEN_MIXTURES}
    assert not any(new <= old for new in unseen for old in seen)
    for split, problems in SETS.items():
        mixtures = {frozenset(problem.domain.split("+")) for problem in problems}
        assert mixtures == (unseen if split == "ood" else seen)
        for problem in problems:
            asked = {domain for domain, _, _ in world.parse_question(problem.question)}
            assert asked == set(problem.domain.split("+"))


def test_ood_is_longer():
    longest = max(problem.meta["items"] for problem in SETS["train"])
    assert min(problem.meta["items"] for problem in SETS["ood"]) > longest
    for problems in SETS.values():
        for problem in problems:
            assert problem.meta["items"] == len(world.parse_question(problem.question))


def test_problems_are_distinct_and_excluded_ones_absent():
    tiny = dataclasses.replace(SHIPPED_WORLD, items=2)
    first = world.make_problems(tiny, "train", 500, seed=0)
    hashes = {problem.question_hash for problem in first}
    second = world.make_problems(tiny, "train", 500, seed=0, exclude=hashes)
    assert len(hashes) == 500
    assert hashes.isdisjoint(problem.question_hash for problem in second)


def test_question_hash_ignores_spacing():
    problem = SETS["test"][0]
    spaced = dataclasses.replace(problem, question="  " + problem.question.replace(" ", "  "))
    assert spaced.question_hash == problem.question_hash


def test_seed_and_split_change_the_problems():
    def draw(split, seed):
        return [p.question for p in world.make_problems(SHIPPED_WORLD, split, 50, seed)]

    assert draw("train", 1) == draw("train", 1)
    assert not set(draw("train", 1)) & set(draw("train", 2))
    assert not set(draw("train", 1)) & set(draw("validation", 1))


_DIGEST = """
import hashlib, itertools
from arkjax.tasks import embedded_world as world
from arkjax.tasks.drawing import SPLITS
from arkjax.tasks.embedded_sets import SHIPPED_WORLD
from arkjax.tasks.world_documents import make_documents
digest = hashlib.sha256()
for split in SPLITS:
    digest.update(repr(world.make_problems(SHIPPED_WORLD, split, 200, 5)).encode())
documents = itertools.islice(make_documents(SHIPPED_WORLD, 5), 500)
digest.update(repr(list(documents)).encode())
print(digest.hexdigest())
"""


def test_every_process_draws_the_same():
    def digest(hash_seed):
        env = {**os.environ, "PYTHONHASHSEED": hash_seed}
        command = [sys.executable, "-c", _DIGEST]
        return subprocess.run(command, env=env, check=True, capture_output=True).stdout

    assert digest("1") == digest("2") == digest("3")


def test_an_exhausted_world_says_so():
    tiny = dataclasses.replace(SHIPPED_WORLD, train_items=(2,), train_part_rates=(1.0, 0.0, 0.0))
    everything = {
        world.make_problem(items, "").question_hash
        for items in (
            ((d, a, b), (e, c, f))
            for d in world.SKILLS
            for e in world.SKILLS
            if d != e
            for a in range(10)
            for b in range(10)
            for c in range(10)
            for f in range(10)
        )
        if not world.trap_domains(items)
    }
    with pytest.raises(ConfigError, match="found only 0 of 3 distinct problems of split 'train'"):
        world.make_problems(tiny, "train", 3, 0, exclude=everything)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("part_rates", (0.5, 0.5), "3 shares"),
        ("part_rates", (0.5, 0.6, -0.1), "sum to 1"),
        ("train_part_rates", (0.5, 0.2, 0.2), "sum to 1"),
        ("trap_rate", 1.5, "trap_rate"),
        ("slip_rate", -0.1, "slip_rate"),
        ("digit_skew", -0.1, "digit_skew"),
        ("byline_rate", 0.9, "must not exceed 1"),
        ("items", 1, "at least 2 items"),
        ("train_items", (), "world.train_items is empty"),
        ("document_items", (), "world.document_items is empty"),
        ("ood_items", 2, "ood_items"),
    ],
)
def test_impossible_worlds_are_refused(field, value, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(SHIPPED_WORLD, **{field: value})


@pytest.mark.parametrize(
    "text",
    ["", "coins 4", "coins 4 12", "coins \u00b2 3", "dogs 1 2", "coins 1 2 ,", "coins 1 2 3"],
)
def test_questions_of_other_worlds_are_refused(text):
    with pytest.raises(DataError, match="not an item of the embedded world"):
        world.parse_question(text)


def test_questions_are_read_back():
    items = (("coins", 4, 7), ("gap", 0, 9))
    assert world.parse_question(world.question_text(items)) == items
