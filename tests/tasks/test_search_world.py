"""Problems of the search world: one answer each, parts, mixtures, shares and reproducibility."""

import dataclasses
from collections import Counter

import pytest

from arkjax.errors import ConfigError, DataError
from arkjax.tasks import search_world as world
from arkjax.tasks.registry import get_task
from arkjax.tasks.search_sets import SEARCH_SETS
from arkjax.tasks.search_sets import SHIPPED_SEARCH_WORLD as SHIPPED
from arkjax.tasks.world_sets import EVALUATION_SIZES

pytestmark = pytest.mark.fast

TASK = get_task(world.NAME)
SETS = {**SEARCH_SETS.evaluation(), "train": TASK.load("train", 1000, seed=3)}


@pytest.mark.parametrize("name", world.OPERATIONS)
def test_operations_never_fall_and_stay_among_the_digits(name):
    value = world.OPERATIONS[name]
    for a in range(10):
        values = [value(n, a) for n in range(world.LARGEST + 1)]
        assert values == sorted(values) and 0 <= values[0] and values[-1] <= world.LARGEST


@pytest.mark.parametrize("split", SETS)
def test_every_problem_has_one_answer_and_the_part_it_says(split):
    for problem in SETS[split]:
        items, total = world.parse_question(problem.question)
        assert world.question_text(items, total) == problem.question
        right = [
            n for n in range(10) if sum(world.OPERATIONS[name](n, a) for name, a in items) == total
        ]
        assert [str(n) for n in right] == [problem.answer]
        share = min(int(total / len(items) + 0.5), 9)
        off = abs(share - right[0])
        assert problem.meta["part"] == ("plain" if off == 0 else "near" if off == 1 else "far")
        verdicts = [world.truth_about(items, total, n) for n in range(10)]
        assert verdicts == ["low"] * right[0] + ["right"] + ["high"] * (9 - right[0])


@pytest.mark.parametrize("split", SETS)
def test_parts_have_their_shares_and_mixtures_are_the_splits(split):
    rates = SHIPPED.train_part_rates if split == "train" else SHIPPED.part_rates
    counts = Counter(problem.meta["part"] for problem in SETS[split])
    assert [counts[part] for part in world.PARTS] == [round(len(SETS[split]) * r) for r in rates]
    mixtures = world.UNSEEN_MIXTURES if split == "ood" else world.SEEN_MIXTURES
    known = {"+".join(name for name in world.OPERATIONS if name in m) for m in mixtures}
    assert {problem.domain for problem in SETS[split]} == known
    sizes = {problem.meta["items"] for problem in SETS[split]}
    assert sizes == {"train": {2, 3, 4}, "ood": {4}}.get(split, {3})


def test_unseen_mixtures_are_unseen():
    assert not {frozenset(m) for m in world.SEEN_MIXTURES} & {
        frozenset(m) for m in world.UNSEEN_MIXTURES
    }


def test_evaluation_sets_have_their_sizes_and_nobody_else_asks_their_questions():
    sizes = {split: len(SETS[split]) for split in EVALUATION_SIZES}
    assert sizes == {"validation": 200, "test": 1000, "ood": 1000}
    hashes = [p.question_hash for split in sizes for p in SETS[split]]
    assert len(set(hashes)) == 2200 and SEARCH_SETS.hashes() == set(hashes)
    trained = {p.question_hash for p in SETS["train"]}
    assert len(trained) == len(SETS["train"]) and not trained & set(hashes)
    ids = [p.id for problems in SETS.values() for p in problems]
    assert len(ids) == len(set(ids))


def test_problems_are_a_function_of_split_config_and_seed():
    first = TASK.load("train", 50, seed=1)
    assert first == TASK.load("train", 50, seed=1) != TASK.load("train", 50, seed=2)
    assert TASK.load("test", 5, seed=1) == TASK.load("test", 5, seed=2) == SETS["test"][:5]
    # What does not draw problems does not change them; what does, draws other sets.
    other = dataclasses.replace(SHIPPED, negative=True, stray_rate=0.5, train_items=(2,))
    assert SEARCH_SETS.evaluation(other) == SEARCH_SETS.evaluation()
    five = TASK.load("ood", 20, world=dataclasses.replace(SHIPPED, ood_items=5))
    assert {problem.meta["items"] for problem in five} == {5}


@pytest.mark.parametrize(
    ("split", "limit", "message"),
    [
        ("tset", 5, "no split of search_world 'tset'"),
        ("test", 0, "at least one"),
        ("test", 1001, "has 1000: ask for at most that many"),
        ("train", None, "has no end"),
    ],
)
def test_what_cannot_be_loaded_is_said(split, limit, message):
    with pytest.raises(ConfigError, match=message):
        TASK.load(split, limit)


def test_an_exhausted_world_says_so():
    few = dataclasses.replace(SHIPPED, train_part_rates=(1.0, 0.0, 0.0), train_items=(2,))
    with pytest.raises(ConfigError, match="found only .* of 20000 distinct problems"):
        world.make_problems(few, "train", 20_000, 0)


@pytest.mark.parametrize(
    "text", ["", "cap 3", "cap 3 , over 2", "cap 3 , gap 2 makes 5", "cap ٣ makes 5", "makes 5"]
)
def test_other_questions_are_refused(text):
    with pytest.raises(DataError, match="no part of a question of the search world"):
        world.parse_question(text)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"part_rates": (0.5, 0.6, 0.0)}, "world.part_rates is .* that sum to 1"),
        ({"train_part_rates": (0.5, 0.5)}, "world.train_part_rates is"),
        ({"stray_rate": 1.5}, "world.stray_rate is 1.5: it must be in"),
        ({"items": 1}, "at least 2 items"),
        ({"document_items": ()}, "world.document_items is empty"),
        ({"ood_items": 2}, "world.ood_items is 2: the smallest unseen mixture has 3"),
        ({"most_checks": 0}, "world.most_checks is 0"),
    ],
)
def test_settings_that_cannot_be_are_named(changes, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(SHIPPED, **changes)


def test_bounds_narrow_until_one_number_is_left():
    for n in range(10):
        for start in range(10):
            low, high, tried, checks = 0, 9, start, 1
            while tried != n:
                low, high = world.narrowed(low, high, tried, "low" if tried < n else "high")
                assert low <= n <= high
                tried, checks = world.middle(low, high), checks + 1
            assert checks <= 5
    # Verdicts that contradict each other leave the number itself.
    assert world.narrowed(4, 4, 4, "low") == world.narrowed(4, 4, 4, "high") == (4, 4)
