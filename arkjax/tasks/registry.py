"""Tasks by name: where their problems come from and the grader that goes with them."""

import dataclasses
import importlib.util
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from arkjax.errors import ArkJAXError, ConfigError
from arkjax.tasks.benchmarks import Benchmark
from arkjax.tasks.benchmarks.table import BENCHMARKS
from arkjax.tasks.documents import Document
from arkjax.tasks.drawing import SPLITS
from arkjax.tasks.embedded_sets import EMBEDDED_SETS
from arkjax.tasks.embedded_world import WorldConfig
from arkjax.tasks.names import unknown_name
from arkjax.tasks.problems import Grader, Problem, check_grader
from arkjax.tasks.search_documents import make_documents as make_search_documents
from arkjax.tasks.search_grader import SearchGrader
from arkjax.tasks.search_sets import SEARCH_SETS
from arkjax.tasks.search_world import SearchWorldConfig
from arkjax.tasks.world_documents import make_documents
from arkjax.tasks.world_grader import WorldGrader
from arkjax.tasks.world_sets import WorldSets


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


def _generated(sets: WorldSets, grader: Grader, documents: Callable, config: type) -> Task:
    """The task of a world that is generated."""
    return Task(
        sets.name,
        grader,
        SPLITS,
        sets.load,
        options=("world", "seed"),
        world=World(documents, sets.hashes, config),
    )


_TASKS = {
    task.name: task
    for task in (
        _generated(EMBEDDED_SETS, WorldGrader(), make_documents, WorldConfig),
        _generated(SEARCH_SETS, SearchGrader(), make_search_documents, SearchWorldConfig),
    )
}

# Task files that were run, and the names of the tasks that they registered.
_FILES: dict[Path, tuple[str, ...]] = {}


def register_task(task: Task) -> None:
    """Make a task of one's own known by its name.

    Raises:
      ConfigError: if the name is taken, or its grader is none.
    """
    if task.name in _TASKS:
        file = next((path for path, names in _FILES.items() if task.name in names), None)
        whose = f", of {file}" if file else ""
        raise ConfigError(f"there is a task {task.name!r} already{whose}: choose another name")
    check_grader(task.grader, f"task {task.name!r}")
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
            raise ConfigError(unknown_name(f"task of {file}", rest, known))
        return _TASKS[rest]
    if name not in _TASKS:
        raise ConfigError(unknown_name("task", name, task_names()))
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
    except Exception as error:
        # What it registered before would be in the way when the file is mended.
        for name in set(_TASKS) - before:
            del _TASKS[name]
        raise _failed(path, error) from error
    added = tuple(sorted(set(_TASKS) - before))
    if not added:
        raise ConfigError(f"{path} registers no task: call arkjax.tasks.registry.register_task")
    _FILES[path] = added
    return added


def _failed(path: Path, error: Exception) -> ConfigError:
    """What is wrong with a file that cannot be run, and in which line."""
    if isinstance(error, SyntaxError):
        return ConfigError(f"{path}, line {error.lineno}: {error.msg}")
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(path)]
    where = f"{path}:{lines[-1]}" if lines else str(path)
    kind = "" if isinstance(error, ArkJAXError) else f"{type(error).__name__}: "
    return ConfigError(f"{where}: {kind}{error}")
