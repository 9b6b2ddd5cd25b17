"""`arkjax trajectories select`: the examples of any number of shards, through Apache Beam."""

import argparse
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from arkjax.beam.files import is_remote
from arkjax.beam.pipeline import select as select_by_beam
from arkjax.beam.recipe import Recipe
from arkjax.beam.tally import Tally
from arkjax.config import build, nearest
from arkjax.distillation.rows import pack
from arkjax.errors import ConfigError, DataError
from arkjax.progress import Progress
from arkjax.records.places import run_config, run_root
from arkjax.run_config import RunConfig
from arkjax.rundir import RunDirectory
from arkjax.session import Session
from arkjax.synthesis.example_files import read_examples
from arkjax.synthesis.strategies import PHASES, Dataset
from arkjax.synthesis.unified import synthesizer_of
from arkjax.tasks.problems import Problem
from arkjax.trajectories.attribution import Attribution

DATASETS = {p.dataset.name: p.dataset for p in PHASES.values() if p.dataset is not None}
"""What `--data` may name: what any student learns from."""


def select(arguments: argparse.Namespace, progress: Progress) -> int:
    """Do what the arguments of the command say. Returns the exit code.

    The config is that of the run given, or of the first path that lies in one; problems, team
    answers and influence come from every run and seed in which a path lies.

    Raises:
      ConfigError: if there is no such data set, no run, or runs that ask different questions under
        one name.
      DataError: if a run has no finished stage `sample`, or the model was to be asked about credit
        and nobody has.
    """
    dataset = _dataset(arguments.data)
    stores, places = _places(arguments, dataset)
    with contextlib.ExitStack() as stack:
        sessions = [stack.enter_context(_opened(*place, progress)) for place in places]
        first = sessions[0]
        recipe, attribution = _recipe(first, dataset), None
        attributed = dataset.source == "team" and dataset.gate == "gold"
        if attributed and first.config.synthesis.attribution.asks_the_model:
            attribution = _attribution(sessions)
        problems, answers = _known(sessions)
        tally = select_by_beam(
            arguments.out,
            stores,
            recipe,
            problems.values(),
            answers,
            attribution,
            runner=arguments.runner,
            workers=arguments.workers,
            options=[f"--{option.lstrip('-')}" for option in arguments.beam],
            shards=arguments.shards,
            overwrite=arguments.overwrite,
            progress=progress,
        )
        print(_told(arguments.out, tally))
        if arguments.rows is not None:
            if is_remote(arguments.out):
                raise ConfigError("--rows packs examples that lie on this machine: leave it out")
            packed = pack(list(read_examples(arguments.out)), first.config.student.row_length)
            packed.save(arguments.rows)
            print(f"{arguments.rows}: {packed.num_rows:,} rows of {packed.row_length:,} tokens")
    return 0


def _dataset(name: str) -> Dataset:
    if name not in DATASETS:
        raise ConfigError(
            f"--data {name!r}{nearest(name, list(DATASETS))}: there are {', '.join(DATASETS)}"
        )
    return DATASETS[name]


def _places(
    arguments: argparse.Namespace, dataset: Dataset
) -> tuple[list[str], list[tuple[Path, int]]]:
    """What is read, and the runs and seeds from which it comes, that of the config first."""
    stores: list[str] = []
    runs: dict[tuple[Path, int], None] = {}
    if arguments.of_run is not None:
        runs |= dict.fromkeys(_seeds(arguments.of_run, arguments.seed))
    for path in arguments.path:
        root = None if is_remote(path) else run_root(Path(path))
        if root is None:
            stores.append(path)
            continue
        inside = Path(path).absolute().relative_to(root).parts
        if len(inside) < 2:
            seed = int(inside[0].removeprefix("seed-")) if inside else arguments.seed
            # Of a whole run the calls that these examples are made of.
            of = _seeds(root, seed)
            stores += [str(root / f"seed-{s}" / "sample" / dataset.source) for _, s in of]
        else:
            name = inside[0].removeprefix("seed-")
            of = _seeds(root, int(name) if name.isdigit() else arguments.seed)
            stores.append(path)
        runs |= dict.fromkeys(of)
    if not runs:
        raise ConfigError(f"{arguments.path[0]} lies in no run: give the run as --run")
    return stores, list(runs)


def _seeds(root: Path, seed: int | None) -> list[tuple[Path, int]]:
    seeds = build(RunConfig, run_config(root)).seeds
    if seed is not None and seed not in seeds:
        raise ConfigError(f"seed {seed} is not one of {root}'s seeds {seeds}")
    return [(root, one) for one in (seeds if seed is None else (seed,))]


@contextlib.contextmanager
def _opened(root: Path, seed: int, progress: Progress) -> Iterator[Session]:
    with RunDirectory(root, lock=False) as run:
        config = build(RunConfig, run_config(root))
        with contextlib.closing(Session(config, run, seed, progress)) as session:
            yield session


def _recipe(session: Session, dataset: Dataset) -> Recipe:
    config = session.config
    of_team = dataset.source == "team"
    return Recipe(
        dataset.selection(config.synthesis),
        session.task.grader,
        {name: path.read_bytes() for name, path in session.tokenizer_files.items()},
        chat=config.chat,
        variables=dict(config.chat_variables),
        bylines=session.task.world is not None,
        role=session.single.agents[0].role,
        synthesizer=synthesizer_of(session.team) if of_team else None,
        foreign=session.players.foreign if config.models else frozenset(),
        team=session.team if of_team and dataset.gate == "gold" else None,
    )


def _known(sessions: list[Session]) -> tuple[dict[str, Problem], dict[str, Any]]:
    """All problems, and the teams' answers to them."""
    problems: dict[str, Problem] = {}
    answers: dict[str, Any] = {}
    for session in sessions:
        answers |= session.stage("sample").summary()["team_answers"]
        for name, problem in session.training_problems.items():
            if problems.setdefault(name, problem) != problem:
                raise ConfigError(
                    f"{session.run.root} asks another question than a run before it under the name "
                    f"{name}: select from these runs one by one"
                )
    return problems, answers


def _attribution(sessions: list[Session]) -> Attribution:
    """What the model has said about credit, in every run."""
    parts = []
    for session in sessions:
        path = session.stage("synthesize").path / "attribution"
        if not path.exists():
            raise DataError(
                f"{path} does not exist: config.synthesis.attribution asks the model, which the "
                "stage synthesize does; do that first, or let the kinds be ('flips',)"
            )
        parts.append(Attribution.load(path))
    return Attribution.of(
        (message for part in parts for message in part.messages.values()),
        (agent for part in parts for agent in part.agents.values()),
    )


def _told(out: str, tally: Tally) -> str:
    records, counts = tally.records, tally.counts
    told = (
        f"{out}: {counts.examples:,} examples of {counts.problems_kept:,} problems, from "
        f"{records['calls']:,} calls in {records['shards']:,} shards"
    )
    if records["told_differently"]:
        told += f"; {records['told_differently']:,} calls were told differently by a later shard"
    if records["dead_letters"]:
        told += f"; {records['dead_letters']:,} dead letters: see dead-letters-*.jsonl"
    return told
