"""Drawing a generated world's problems: distinct ones, in exact shares of the parts of a split."""

import itertools
import random
from collections.abc import Callable, Collection, Sequence
from typing import Protocol

from arkjax.errors import ConfigError
from arkjax.tasks.problems import Problem

SPLITS = ("train", "validation", "test", "ood")

# Draws in a row without a new problem after which a world counts as exhausted.
_MOST_MISSES = 10_000


class WorldSettings(Protocol):
    """The settings that every world's config has: how many items, and shares of which parts.

    Attributes:
      items: items of a problem in the validation and test splits.
      ood_items: items of an out-of-distribution problem.
      train_items: numbers of items that a problem of the train split may have.
      document_items: numbers of items that a training document may have.
      part_rates: share of each part of the problems.
      train_part_rates: the same in the train split.
    """

    items: int
    ood_items: int
    train_items: tuple[int, ...]
    document_items: tuple[int, ...]
    part_rates: tuple[float, ...]
    train_part_rates: tuple[float, ...]


# --- settings -----------------------------------------------------------------------------------


def check_shares(config: WorldSettings, parts: Sequence[str], shares: Sequence[str]) -> None:
    """Check the rates of a world's parts, and those of its fields that are shares of something.

    Args:
      config: the world.
      parts: names of its parts.
      shares: names of the fields that must be in [0, 1].

    Raises:
      ConfigError: naming the first field that is wrong.
    """
    for name in ("part_rates", "train_part_rates"):
        rates = getattr(config, name)
        if len(rates) != len(parts) or abs(sum(rates) - 1) > 1e-6 or min(rates) < 0:
            raise ConfigError(
                f"world.{name} is {rates}: give {len(parts)} shares for {', '.join(parts)} "
                "that sum to 1"
            )
    for name in shares:
        if not 0 <= getattr(config, name) <= 1:
            raise ConfigError(f"world.{name} is {getattr(config, name)}: it must be in [0, 1]")


def check_items(
    config: WorldSettings, unseen_mixtures: Collection[Sequence[str]], mixed: str
) -> None:
    """Check the numbers of items.

    Args:
      config: the world.
      unseen_mixtures: those of its out-of-distribution problems.
      mixed: what they are mixtures of, for the message: "domains".

    Raises:
      ConfigError: naming the first field that is wrong.
    """
    for name in ("train_items", "document_items"):
        if not getattr(config, name):
            raise ConfigError(f"world.{name} is empty: give at least one number of items")
    if min(config.items, *config.train_items, *config.document_items) < 2:
        raise ConfigError("world: problems and documents need at least 2 items")
    smallest = min(map(len, unseen_mixtures))
    if config.ood_items < smallest:
        raise ConfigError(
            f"world.ood_items is {config.ood_items}: the smallest unseen mixture has "
            f"{smallest} {mixed}"
        )


# --- draws --------------------------------------------------------------------------------------


def draw_mixture(rng: random.Random, mixtures: Collection[tuple[str, ...]], k: int) -> list[str]:
    """Names for k items: every one of a mixture at least once; only mixtures that fit into k."""
    mixture = rng.choice([m for m in mixtures if len(m) <= k])
    names = [*mixture, *rng.choices(mixture, k=k - len(mixture))]
    rng.shuffle(names)
    return names


def draw_shares(
    rng: random.Random, names: Sequence[str], rates: Collection[float], count: int
) -> list[str]:
    """`count` names in exactly these shares (rounded), shuffled."""
    bounds = [round(count * total) for total in itertools.accumulate(rates)]
    starts = [0, *bounds[:-1]]
    drawn = [n for n, lo, hi in zip(names, starts, bounds, strict=True) for _ in range(lo, hi)]
    rng.shuffle(drawn)
    return drawn


def draw_problems(
    world: str,
    parts: Sequence[str],
    draw: Callable[[random.Random, tuple[int, ...], str, str], Problem | None],
    config: WorldSettings,
    split: str,
    count: int,
    seed: int,
    exclude: Collection[str] = (),
) -> list[Problem]:
    """Draw `count` distinct problems of a split, in the split's shares of parts.

    Args:
      world: name of the world; with split, seed and config, it determines the problems.
      parts: names of its parts, in the order of the config's rates.
      draw: `draw(rng, lengths, part, problem_id)` is a problem of a part that has one of `lengths`
        items; None if what it drew is not of that part, so that it has to draw again.
      config: the world's settings.
      split: one of `SPLITS`.
      count: how many problems.
      seed: see `world`.
      exclude: question hashes that must not appear (those of other splits).

    Raises:
      ConfigError: if the split is unknown, `count` is not positive, or the world has not that many
        distinct problems.
    """
    if split not in SPLITS:
        raise ConfigError(
            f"{world.replace('_', ' ')} has no split {split!r}: choose one of {', '.join(SPLITS)}"
        )
    if count < 1:
        raise ConfigError(f"{count} problems asked of split {split!r}: ask for at least one")
    rng = random.Random(f"{world}/{split}/{seed}")
    lengths = {"train": config.train_items, "ood": (config.ood_items,)}.get(split, (config.items,))
    rates = config.train_part_rates if split == "train" else config.part_rates
    wanted = draw_shares(rng, parts, rates, count)
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
        at = len(problems)
        problem = draw(rng, lengths, wanted[at], f"{split}-{seed}-{at:05d}")
        if problem is not None and problem.question_hash not in taken:
            taken.add(problem.question_hash)
            problems.append(problem)
            misses = 0
    return problems
