"""The search world's fixed evaluation sets, and its problems as a task loads them."""

import dataclasses
import functools

from arkjax.errors import ConfigError
from arkjax.shipped import shipped_path
from arkjax.tasks import search_world
from arkjax.tasks.embedded_world import load_problems
from arkjax.tasks.problems import Problem
from arkjax.tasks.search_world import SearchWorldConfig

# How many problems each evaluation set has, in the order in which they are drawn, and the seed of
# all of them: not 0, on whose problems the settings of the shipped config were tried.
EVALUATION_SIZES = {"validation": 200, "test": 1000, "ood": 1000}
EVALUATION_SEED = 1

# The world of the shipped evaluation sets, of the SeqIO tasks and of the TFDS data set.
SHIPPED_SEARCH_WORLD = SearchWorldConfig(
    negative=False,
    items=3,
    ood_items=4,
    train_items=(2, 3, 4),
    document_items=(2, 3, 4),
    part_rates=(0.25, 0.35, 0.4),
    train_part_rates=(0.25, 0.35, 0.4),
    proposal_rate=0.3,
    bylines_rate=0.4,
    stray_rate=0.2,
    slip_rate=0.01,
    most_checks=5,
    earlier_weight=1.0,
)


def draw_evaluation_sets(world: SearchWorldConfig) -> dict[str, list[Problem]]:
    """Draw the evaluation sets of a world, no question twice: one list of problems a split."""
    sets: dict[str, list[Problem]] = {}
    taken: set[str] = set()
    for split, size in EVALUATION_SIZES.items():
        sets[split] = search_world.make_problems(world, split, size, EVALUATION_SEED, taken)
        taken |= {problem.question_hash for problem in sets[split]}
    return sets


def evaluation_sets(world: SearchWorldConfig | None = None) -> dict[str, list[Problem]]:
    """The evaluation sets of a world: the shipped files where they are its own, else drawn anew.

    Args:
      world: None for the shipped sets.

    Raises:
      DataError: if a shipped file is missing or damaged.
    """
    draws = _what_draws(world or SHIPPED_SEARCH_WORLD)
    return {split: list(problems) for split, problems in _evaluation_sets(draws).items()}


def evaluation_hashes(world: SearchWorldConfig | None = None) -> frozenset[str]:
    """Question hashes of all evaluation problems of a world (None: the shipped ones).

    Neither the documents of a base model nor the problems that a team works on for training may
    ask any of these questions.
    """
    return _evaluation_hashes(_what_draws(world or SHIPPED_SEARCH_WORLD))


def _what_draws(world: SearchWorldConfig) -> SearchWorldConfig:
    """The shipped world with those fields of `world` that determine its evaluation problems."""
    return dataclasses.replace(
        SHIPPED_SEARCH_WORLD,
        items=world.items,
        ood_items=world.ood_items,
        part_rates=tuple(world.part_rates),
    )


@functools.lru_cache(maxsize=4)
def _evaluation_sets(world: SearchWorldConfig) -> dict[str, list[Problem]]:
    if world != SHIPPED_SEARCH_WORLD:
        return draw_evaluation_sets(world)
    return {
        split: load_problems(shipped_path(f"data/{search_world.NAME}/{split}.jsonl"))
        for split in EVALUATION_SIZES
    }


@functools.lru_cache(maxsize=4)
def _evaluation_hashes(world: SearchWorldConfig) -> frozenset[str]:
    sets = _evaluation_sets(world)
    return frozenset(p.question_hash for problems in sets.values() for p in problems)


def load_search_world(
    split: str, limit: int | None = None, *, world: SearchWorldConfig | None = None, seed: int = 0
) -> list[Problem]:
    """Problems of the search world.

    Args:
      split: "train" is drawn, and asks no evaluation question; the others are fixed sets.
      limit: how many; "train" has no end, so it needs a number, and draws anew for each: its parts
        have their exact shares in any number of problems.
      world: None for the world of the shipped sets.
      seed: of "train"; the other splits are the same for every seed.

    Raises:
      ConfigError: if the split is unknown, or does not have that many problems.
    """
    if split not in search_world.SPLITS:
        raise ConfigError(
            f"there is no split of {search_world.NAME} {split!r}; known: "
            f"{', '.join(search_world.SPLITS)}"
        )
    if limit is not None and limit < 1:
        raise ConfigError(f"{limit} problems asked of split {split!r}: ask for at least one")
    world = world or SHIPPED_SEARCH_WORLD
    if split == "train":
        if limit is None:
            raise ConfigError("the search world's train split has no end: say how many problems")
        return search_world.make_problems(world, split, limit, seed, evaluation_hashes(world))
    problems = evaluation_sets(world)[split]
    if limit is not None and limit > len(problems):
        raise ConfigError(
            f"{limit} problems asked of split {split!r} of {search_world.NAME}, which has "
            f"{len(problems)}: ask for at most that many"
        )
    return problems[:limit]
