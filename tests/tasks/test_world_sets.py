"""A third world in a few lines: what every generated world shares needs to know no other."""

import dataclasses
from collections import Counter

import pytest

from arkjax.errors import ConfigError
from arkjax.tasks.drawing import check_items, check_shares, draw_mixture, draw_problems
from arkjax.tasks.problem_files import load_problems
from arkjax.tasks.problems import Problem
from arkjax.tasks.world_sets import EVALUATION_SIZES, WorldSets

pytestmark = pytest.mark.fast

PARTS = ("even", "odd")
SIGNS = (("add", "take"),)


@dataclasses.dataclass(frozen=True)
class SumsConfig:
    items: int = 3
    ood_items: int = 5
    train_items: tuple[int, ...] = (2, 3)
    document_items: tuple[int, ...] = (3,)
    part_rates: tuple[float, ...] = (0.5, 0.5)
    train_part_rates: tuple[float, ...] = (0.2, 0.8)
    largest: int = 99
    noise: float = 0.1

    def __post_init__(self):
        check_shares(self, PARTS, ("noise",))
        check_items(self, SIGNS, "signs")


def make_problems(config, split, count, seed, exclude=()):
    def draw(rng, lengths, part, problem_id):
        k = rng.choice(lengths)
        terms = [(sign, rng.randint(0, config.largest)) for sign in draw_mixture(rng, SIGNS, k)]
        total = sum(n if sign == "add" else -n for sign, n in terms)
        if PARTS[total % 2] != part:
            return None
        question = " ".join(f"{sign} {n}" for sign, n in terms)
        meta = {"part": part, "items": k}
        return Problem(problem_id, question, str(total), "sums_world", "sums", meta)

    return draw_problems("sums_world", PARTS, draw, config, split, count, seed, exclude)


SUMS = WorldSets(
    "sums_world",
    make_problems,
    SumsConfig(largest=98),
    seed=5,
    draws=("items", "ood_items", "part_rates", "largest"),
)
WORLD = SumsConfig()


def test_its_sets_have_their_sizes_parts_and_lengths_and_share_no_question():
    sets = SUMS.evaluation(WORLD)
    assert {split: len(problems) for split, problems in sets.items()} == EVALUATION_SIZES
    sets["train"] = SUMS.load("train", 1000, world=WORLD)
    hashes = [p.question_hash for problems in sets.values() for p in problems]
    assert len(set(hashes)) == len(hashes) == 3200
    assert SUMS.hashes(WORLD) == set(hashes[:2200])
    for split, problems in sets.items():
        assert {p.meta["items"] for p in problems} == {"train": {2, 3}, "ood": {5}}.get(split, {3})
        rates = WORLD.train_part_rates if split == "train" else WORLD.part_rates
        counts = Counter(p.meta["part"] for p in problems)
        assert [counts[part] / len(problems) for part in PARTS] == list(rates)


def test_what_draws_its_problems_is_what_it_says():
    same = dataclasses.replace(WORLD, noise=1.0, train_items=(4,), part_rates=[0.5, 0.5])
    assert SUMS.evaluation(same) == SUMS.evaluation(WORLD)
    for changes in ({"items": 4}, {"part_rates": (0.9, 0.1)}, {"largest": 500}):
        other = SUMS.evaluation(dataclasses.replace(WORLD, **changes))
        assert other["validation"] != SUMS.evaluation(WORLD)["validation"]


def test_its_files_are_its_shipped_sets(tmp_path):
    SUMS.save(tmp_path)
    drawn = SUMS.draw(SUMS.shipped)
    assert {path.stem: load_problems(path) for path in tmp_path.iterdir()} == drawn


def test_errors_say_its_name():
    for split, limit, message in (
        ("tests", 1, "no split of sums_world 'tests'; did you mean 'test'"),
        ("train", None, "the sums world's train split has no end"),
        ("ood", 1001, "split 'ood' of sums_world, which has 1000"),
    ):
        with pytest.raises(ConfigError, match=message):
            SUMS.load(split, limit, world=WORLD)
    with pytest.raises(ConfigError, match="sums world has no split 'tests'"):
        make_problems(WORLD, "tests", 1, 0)
    with pytest.raises(ConfigError, match="0 problems asked of split 'test'"):
        make_problems(WORLD, "test", 0, 0)
    with pytest.raises(ConfigError, match="smallest unseen mixture has 2 signs"):
        dataclasses.replace(WORLD, ood_items=1)
