"""The fixed evaluation sets of a generated world, and its problems as a task loads them."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from arkjax.errors import ConfigError
from arkjax.shipped import shipped_path
from arkjax.tasks.drawing import SPLITS, WorldSettings
from arkjax.tasks.names import unknown_name
from arkjax.tasks.problem_files import load_problems, save_problems
from arkjax.tasks.problems import Problem

# How many problems each evaluation set of a world has, in the order in which they are drawn.
EVALUATION_SIZES = {"validation": 200, "test": 1000, "ood": 1000}

Config = TypeVar("Config", bound=WorldSettings)


@dataclasses.dataclass(frozen=True, eq=False)
class WorldSets(Generic[Config]):
    """Problems of one world: evaluation sets that are fixed for each config, and a train split.

    Attributes:
      name: of the world; its shipped sets are `data/NAME/SPLIT.jsonl`.
      make_problems: `make_problems(config, split, count, seed, exclude=()) -> list[Problem]`, of
        distinct questions whose hashes are not in `exclude`; the same arguments give the same.
      shipped: the config whose evaluation sets are shipped, which is also that of the SeqIO tasks
        and of the TFDS data set.
      seed: of the evaluation sets.
      draws: fields of a config that determine its evaluation problems. Configs that agree in them
        have the same sets.
    """

    name: str
    make_problems: Callable[..., list[Problem]]
    shipped: Config
    seed: int
    draws: tuple[str, ...] = ("items", "ood_items", "part_rates")

    def draw(self, world: Config) -> dict[str, list[Problem]]:
        """Draw the evaluation sets of a world, no question twice: one list of problems a split."""
        sets: dict[str, list[Problem]] = {}
        taken: set[str] = set()
        for split, size in EVALUATION_SIZES.items():
            sets[split] = self.make_problems(world, split, size, self.seed, taken)
            taken |= {problem.question_hash for problem in sets[split]}
        return sets

    def save(self, folder: Path) -> None:
        """Draw the shipped sets and write them into `folder`, one file a split."""
        for split, problems in self.draw(self.shipped).items():
            save_problems(folder / f"{split}.jsonl", problems)

    def evaluation(self, world: Config | None = None) -> dict[str, list[Problem]]:
        """The evaluation sets of a world: the shipped files if they are its own, else drawn anew.

        Args:
          world: None for the shipped sets.

        Raises:
          DataError: if a shipped file is missing or damaged.
        """
        sets = _evaluation(self, self._what_draws(world))
        return {split: list(problems) for split, problems in sets.items()}

    def hashes(self, world: Config | None = None) -> frozenset[str]:
        """Question hashes of all evaluation problems of a world (None: the shipped ones).

        Neither the documents of a base model nor the problems that a team works on for training
        may ask any of these questions.
        """
        return _hashes(self, self._what_draws(world))

    def load(
        self, split: str, limit: int | None = None, *, world: Config | None = None, seed: int = 0
    ) -> list[Problem]:
        """Problems of a split.

        Args:
          split: "train" is drawn, and asks no evaluation question; the others are fixed sets.
          limit: how many; "train" has no end, so it needs a number, and draws anew for each: its
            parts have their exact shares in any number of problems.
          world: None for the world of the shipped sets.
          seed: of "train"; the other splits are the same for every seed.

        Raises:
          ConfigError: if the split is unknown, or does not have that many problems.
        """
        if split not in SPLITS:
            raise ConfigError(unknown_name(f"split of {self.name}", split, SPLITS))
        if limit is not None and limit < 1:
            raise ConfigError(f"{limit} problems asked of split {split!r}: ask for at least one")
        if split == "train":
            if limit is None:
                raise ConfigError(
                    f"the {self.name.replace('_', ' ')}'s train split has no end: say how many "
                    "problems"
                )
            world = world or self.shipped
            return self.make_problems(world, split, limit, seed, self.hashes(world))
        problems = self.evaluation(world)[split]
        if limit is not None and limit > len(problems):
            raise ConfigError(
                f"{limit} problems asked of split {split!r} of {self.name}, which has "
                f"{len(problems)}: ask for at most that many"
            )
        return problems[:limit]

    def _what_draws(self, world: Config | None) -> Config:
        """The shipped config with those fields of `world` that draw its evaluation problems."""
        if world is None:
            return self.shipped
        fields = {name: getattr(world, name) for name in self.draws}
        # A list would not be equal to the shipped config's tuple, nor be hashed.
        fields = {n: tuple(v) if isinstance(v, list) else v for n, v in fields.items()}
        return dataclasses.replace(self.shipped, **fields)


# Beside the class, because a cache on a method would keep its object alive.
@functools.lru_cache(maxsize=8)
def _evaluation(sets: WorldSets, world: WorldSettings) -> dict[str, list[Problem]]:
    if world != sets.shipped:
        return sets.draw(world)
    return {
        split: load_problems(shipped_path(f"data/{sets.name}/{split}.jsonl"))
        for split in EVALUATION_SIZES
    }


@functools.lru_cache(maxsize=8)
def _hashes(sets: WorldSets, world: WorldSettings) -> frozenset[str]:
    problems = _evaluation(sets, world).values()
    return frozenset(problem.question_hash for split in problems for problem in split)
