"""Tasks by name: where their problems come from and the grader that goes with them."""

import dataclasses
import difflib
import functools
import importlib.util
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from arkjax.errors import ConfigError
from arkjax.shipped import shipped_path
from arkjax.tasks import embedded_world
from arkjax.tasks.benchmarks import Benchmark
from arkjax.tasks.benchmarks.table import BENCHMARKS
from arkjax.tasks.embedded_world import WorldConfig
from arkjax.tasks.problems import Grader, Problem
from arkjax.tasks.search_documents import make_documents as make_search_documents
from arkjax.tasks.search_grader import SearchGrader
from arkjax.tasks.search_sets import evaluation_hashes as search_evaluation_hashes
from arkjax.tasks.search_sets import load_search_world
from arkjax.tasks.search_world import NAME as SEARCH_WORLD
from arkjax.tasks.search_world import SPLITS as SEARCH_SPLITS
from arkjax.tasks.search_world import SearchWorldConfig
from arkjax.tasks.world_documents import Document, make_documents
from arkjax.tasks.world_grader import WorldGrader

# The fixed evaluation sets of the embedded world: how many problems each has, in the order in which
# they are drawn, and the seed of all of them.
EVALUATION_SIZES = {"validation": 200, "test": 1000, "ood": 1000}
EVALUATION_SEED = 0

# The world of the shipped evaluation sets, of the SeqIO tasks and of the TFDS data set.
SHIPPED_WORLD = WorldConfig(
    negative=False,
    items=3,
    ood_items=4,
    train_items=(2, 3),
    document_items=(2, 3, 4),
    discussion_steps=20,
    part_rates=(0.4, 0.3, 0.3),
    train_part_rates=(0.4, 0.3, 0.3),
    trap_rate=0.25,
    digit_skew=0.7,
    slip_rate=0.02,
    untagged_rate=0.3,
    byline_rate=0.3,
    expert_among_untagged=0.5,
    adoption_rate=0.9,
    earlier_weight=1.0,
)


@dataclasses.dataclass(frozen=True)
class World:
    """A world that is generated: what a base model is trained on, in documents with bylines.

    Attributes:
      documents: `documents(config, seed, exclude) -> Iterator[Document]`, without end; no document
        asks a question whose hash is excluded.
      evaluation_hashes: `evaluation_hashes(config) -> frozenset[str]`, of the questions that
        neither documents nor training problems may ask.
      config: the class of its settings, which a run's config has under `world`.
    """

    documents: Callable[..., Iterator[Document]]
    evaluation_hashes: Callable[..., frozenset[str]]
    config: type = WorldConfig


@dataclasses.dataclass(frozen=True)
class Task:
    """Problems under one name, and their grader.

    Attributes:
      name: the name that configs use.
      grader: compares a text with a problem's gold answer.
      splits: names of the splits that `load` knows.
      load: `load(split, limit=None, **options) -> list[Problem]`. The first `limit` problems of a
        split; None: all. The same arguments give the same problems in the same order.
      options: which of a run's settings `load` takes by name: "world", the generated world of the
        config; "seed", that of the run; "source", where the config says that the data lie.
      world: what a base model of the task's own can be trained on; None if there is no such thing,
        so that a checkpoint has to be given.
    """

    name: str
    grader: Grader
    splits: tuple[str, ...]
    load: Callable[..., list[Problem]]
    options: tuple[str, ...] = ()
    world: World | None = None


# --- the embedded world -------------------------------------------------------------------------


def draw_evaluation_sets(world: WorldConfig) -> dict[str, list[Problem]]:
    """Draw the evaluation sets of a world, no question twice: one list of problems a split."""
    sets: dict[str, list[Problem]] = {}
    taken: set[str] = set()
    for split, size in EVALUATION_SIZES.items():
        sets[split] = embedded_world.make_problems(world, split, size, EVALUATION_SEED, taken)
        taken |= {problem.question_hash for problem in sets[split]}
    return sets


def evaluation_sets(world: WorldConfig | None = None) -> dict[str, list[Problem]]:
    """The evaluation sets of a world: the shipped files where they are its own, else drawn anew.

    Args:
      world: None for the shipped sets.

    Raises:
      DataError: if a shipped file is missing or damaged.
    """
    draws = _what_draws(world or SHIPPED_WORLD)
    return {split: list(problems) for split, problems in _evaluation_sets(draws).items()}


def evaluation_hashes(world: WorldConfig | None = None) -> frozenset[str]:
    """Question hashes of all evaluation problems of a world (None: the shipped ones).

    Neither the documents of a base model nor the problems that a team works on for training may
    ask any of these questions.
    """
    return _evaluation_hashes(_what_draws(world or SHIPPED_WORLD))


def _what_draws(world: WorldConfig) -> WorldConfig:
    """The shipped world with those fields of `world` that determine its evaluation problems."""
    return dataclasses.replace(
        SHIPPED_WORLD,
        items=world.items,
        ood_items=world.ood_items,
        part_rates=tuple(world.part_rates),
    )


@functools.lru_cache(maxsize=4)
def _evaluation_sets(world: WorldConfig) -> dict[str, list[Problem]]:
    if world != SHIPPED_WORLD:
        return draw_evaluation_sets(world)
    return {
        split: embedded_world.load_problems(
            shipped_path(f"data/{embedded_world.NAME}/{split}.jsonl")
        )
        for split in EVALUATION_SIZES
    }


@functools.lru_cache(maxsize=4)
def _evaluation_hashes(world: WorldConfig) -> frozenset[str]:
    sets = _evaluation_sets(world)
    return frozenset(p.question_hash for problems in sets.values() for p in problems)


def load_embedded_world(
    split: str, limit: int | None = None, *, world: WorldConfig | None = None, seed: int = 0
) -> list[Problem]:
    """Problems of the embedded world.

    Args:
      split: "train" is drawn, and asks no evaluation question; the others are fixed sets.
      limit: how many; "train" has no end, so it needs a number, and draws anew for each: its parts
        have their exact shares in any number of problems.
      world: None for the world of the shipped sets.
      seed: of "train"; the other splits are the same for every seed.

    Raises:
      ConfigError: if the split is unknown, or does not have that many problems.
    """
    if split not in embedded_world.SPLITS:
        raise ConfigError(_unknown(f"split of {embedded_world.NAME}", split, embedded_world.SPLITS))
    if limit is not None and limit < 1:
        raise ConfigError(f"{limit} problems asked of split {split!r}: ask for at least one")
    if split == "train":
        if limit is None:
            raise ConfigError("the embedded world's train split has no end: say how many problems")
        world = world or SHIPPED_WORLD
        return embedded_world.make_problems(world, split, limit, seed, evaluation_hashes(world))
    problems = evaluation_sets(world)[split]
    if limit is not None and limit > len(problems):
        raise ConfigError(
            f"{limit} problems asked of split {split!r} of {embedded_world.NAME}, which has "
            f"{len(problems)}: ask for at most that many"
        )
    return problems[:limit]


# --- names --------------------------------------------------------------------------------------

_TASKS = {
    embedded_world.NAME: Task(
        embedded_world.NAME,
        WorldGrader(),
        embedded_world.SPLITS,
        load_embedded_world,
        options=("world", "seed"),
        world=World(make_documents, evaluation_hashes),
    ),
    SEARCH_WORLD: Task(
        SEARCH_WORLD,
        SearchGrader(),
        SEARCH_SPLITS,
        load_search_world,
        options=("world", "seed"),
        world=World(make_search_documents, search_evaluation_hashes, SearchWorldConfig),
    ),
}

# Task files that were run, and the names of the tasks that they registered.
_FILES: dict[Path, tuple[str, ...]] = {}


def register_task(task: Task) -> None:
    """Make a task of one's own known by its name. Raises ConfigError if the name is taken."""
    if task.name in _TASKS:
        raise ConfigError(f"there is a task {task.name!r} already: choose another name")
    _TASKS[task.name] = task


def register_benchmark(benchmark: Benchmark) -> None:
    """Make a data set known as a task, whose `source` says where it lies.

    Raises:
      ConfigError: if the name is taken.
    """
    register_task(
        Task(
            benchmark.name,
            benchmark.grader,
            benchmark.splits,
            benchmark.load,
            options=("source",),
        )
    )


for _benchmark in BENCHMARKS.values():
    register_benchmark(_benchmark)


def task_names() -> list[str]:
    """Names that `get_task` knows."""
    return sorted(_TASKS)


def get_task(name: str) -> Task:
    """The task of this name; `FILE.py:NAME` runs a file of one's own first, which registers it.

    A file is run once in a process, and no other code is. `:NAME` may be left out where the file
    registers one task.

    Raises:
      ConfigError: if there is no such task (the nearest name is suggested), or the file fails.
    """
    file, colon, rest = str(name).rpartition(":")
    if not colon and str(name).endswith(".py"):
        file, rest = name, ""
    if file.endswith(".py"):
        known = _run_task_file(Path(file).expanduser())
        if not rest and len(known) == 1:
            return _TASKS[known[0]]
        if rest not in known:
            raise ConfigError(_unknown(f"task of {file}", rest, known))
        return _TASKS[rest]
    if name not in _TASKS:
        raise ConfigError(_unknown("task", name, task_names()))
    return _TASKS[name]


def _run_task_file(path: Path) -> tuple[str, ...]:
    """The names of the tasks that a file registers."""
    if not path.is_file():
        raise ConfigError(f"there is no file {path}: give the path of one that registers a task")
    path = path.resolve()
    if path in _FILES:
        return _FILES[path]
    before = set(_TASKS)
    module_spec = importlib.util.spec_from_file_location(f"arkjax_task_{path.stem}", path)
    module = importlib.util.module_from_spec(module_spec)
    try:
        module_spec.loader.exec_module(module)
    except ConfigError:
        raise
    except SyntaxError as error:
        raise ConfigError(f"{path}, line {error.lineno}: {error.msg}") from error
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == str(path)]
        where = f"{path}:{lines[-1]}" if lines else str(path)
        raise ConfigError(f"{where}: {type(error).__name__}: {error}") from error
    added = tuple(sorted(set(_TASKS) - before))
    if not added:
        raise ConfigError(f"{path} registers no task: call arkjax.tasks.registry.register_task")
    _FILES[path] = added
    return added


def _unknown(what: str, name: str, known: list[str] | tuple[str, ...]) -> str:
    close = difflib.get_close_matches(str(name), list(known), n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"there is no {what} {name!r}; {hint}known: {', '.join(known)}"
