"""What there is to see: the recorded plays of a run, and what is known about each of them."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from arkjax.errors import ArkJAXError, DataError
from arkjax.evaluation.outcomes import Outcomes
from arkjax.reporting import systems
from arkjax.rundir import StageDirectory
from arkjax.tasks import registry
from arkjax.tasks.problems import Problem
from arkjax.text.tokenizer import Tokenizer

TRAIN = "train"
"""The split whose problems the sample stage works on."""

_SHARDS = "calls-*.parquet"
_TOKENIZER = Path("base", "model", "tokenizer")
# A store may lie as deep as this below its seed's folder: evaluate/SPLIT/SYSTEM.
_DEPTH = 4

Answer = tuple[str | None, bool | None]


@dataclasses.dataclass(frozen=True)
class Source:
    """One play: a system that worked on the problems of one split.

    Attributes:
      directory: its store of calls.
      seed: of the run; None for a store that belongs to none.
      stage: "sample" or "evaluate"; empty for a bare store.
      split: of the problems.
      system: who played, as the report names systems.
      label: the same for people.
      problems: what was worked on, by id; empty where the task is not known here.
      answers: what each debate ended on, and whether that is right, by problem id; without those
        that are not recorded.
      equal: whether two answers are the same.
      agents: ids of the team's agents in its order; others follow by name.
      tokenizer: of the calls' ids, or None.
      attribution: folder of who contributed what, or None.
    """

    directory: Path
    seed: int | None
    stage: str
    split: str
    system: str
    label: str
    problems: Mapping[str, Problem]
    answers: Mapping[str, Answer]
    equal: Callable[[str, str], bool]
    agents: tuple[str, ...] = ()
    tokenizer: Tokenizer | None = None
    attribution: Path | None = None


@dataclasses.dataclass(frozen=True)
class Sources:
    """All plays of a run, or a bare store.

    Attributes:
      name: of the run.
      plays: by seed, the sampled ones first.
      notes: sentences on what could not be found.
    """

    name: str
    plays: tuple[Source, ...]
    notes: tuple[str, ...]


def find_sources(
    root: str | Path, seed: int | None = None, tokenizer: str | Path | None = None
) -> Sources:
    """Everything recorded below `root`; a run may be unfinished, and at work.

    Args:
      root: a run directory, or the directory of one `CallStore`.
      seed: only this one of the run's seeds.
      tokenizer: a tokenizer's file or folder, where there is none in the run.

    Raises:
      DataError: if there are no calls, or a file that says something about them is damaged.
    """
    root = Path(root)
    chosen = None if tokenizer is None else Tokenizer(tokenizer)
    if any(root.glob(_SHARDS)):
        if seed is not None:
            raise DataError(f"{root} is a store of calls and has no seeds: leave out --seed")
        return _bare(root, chosen)
    folders = {
        int(number): path
        for path in root.glob("seed-*")
        if (number := path.name.removeprefix("seed-")).isdecimal() and path.is_dir()
    }
    if seed is not None and seed not in folders:
        raise DataError(f"{root} has no seed {seed}; it has {sorted(folders) or 'none'}")
    notes: list[str] = []
    plays: list[Source] = []
    for number in sorted(folders) if seed is None else [seed]:
        plays += _of_seed(root, folders[number], number, chosen, notes)
    if not plays:
        raise DataError(
            f"{root} holds no recorded calls: give a run directory whose stage sample has begun, "
            "or a folder of calls-*.parquet files"
        )
    return Sources(root.resolve().name, tuple(plays), tuple(dict.fromkeys(notes)))


def _bare(root: Path, chosen: Tokenizer | None) -> Sources:
    notes = ["This is a store of calls alone: what the teams answered is not recorded with it."]
    for folder in root.resolve().parents[:_DEPTH]:
        if chosen is None and (folder / _TOKENIZER).is_dir():
            chosen = Tokenizer(folder / _TOKENIZER)
    if chosen is None:
        notes.append(
            "No tokenizer was found, so that tokens have no text: name one with --tokenizer."
        )
    name = root.resolve().name
    play = Source(root, None, "", "", name, name, {}, {}, _same_text, tokenizer=chosen)
    return Sources(name, (play,), tuple(notes))


def _of_seed(
    root: Path, folder: Path, seed: int, chosen: Tokenizer | None, notes: list[str]
) -> list[Source]:
    """The plays of one seed."""
    stages = {name: StageDirectory(folder / name, name, root) for name in ("sample", "evaluate")}
    inputs = stages["evaluate"].made_from() or stages["sample"].made_from()
    tokenizer = chosen
    if tokenizer is None and (folder / _TOKENIZER).is_dir():
        tokenizer = Tokenizer(folder / _TOKENIZER)
    if tokenizer is None:
        notes.append(f"seed {seed}: no tokenizer was found, so that tokens have no text.")
    agents = tuple(agent["id"] for agent in inputs.get("team", {}).get("agents", []))
    task = _task(inputs, notes)
    equal = _same_text if task is None else task.grader.equal
    plays: list[Source] = []

    def add(directory: Path, stage: str, split: str, label: str, **facts: Any) -> None:
        plays.append(
            Source(
                directory,
                seed,
                stage,
                split,
                directory.name,
                label,
                equal=equal,
                agents=agents,
                tokenizer=tokenizer,
                **facts,
            )
        )

    problems = _problems(task, TRAIN, inputs, notes)
    credit = folder / "synthesize" / "attribution"
    for directory in _stores(folder / "sample", first="team"):
        is_team = directory.name == "team"
        add(
            directory,
            "sample",
            TRAIN,
            directory.name.replace("_", " "),
            problems=problems,
            answers=_sampled_answers(stages["sample"], problems, equal) if is_team else {},
            attribution=credit if is_team and (credit / "messages.parquet").exists() else None,
        )
    if not stages["sample"].finished:
        notes.append(f"seed {seed}: the stage sample is not finished; its answers are not known.")
    outcomes = _outcomes(folder / "evaluate", seed)
    splits = [path.name for path in _folders(folder / "evaluate")]
    for split in systems.ordered_splits(splits):
        stores = {path.name: path for path in _stores(folder / "evaluate" / split)}
        if stores:
            problems = _problems(task, split, inputs, notes)
        for name in systems.ordered(stores):
            answers = outcomes.get((split, name), {})
            label = systems.label(name)
            add(stores[name], "evaluate", split, label, problems=problems, answers=answers)
    return plays


def _folders(path: Path) -> list[Path]:
    found = path.iterdir() if path.is_dir() else ()
    return sorted(entry for entry in found if entry.is_dir() and entry.name[0] != ".")


def _stores(path: Path, first: str = "") -> list[Path]:
    found = [folder for folder in _folders(path) if any(folder.glob(_SHARDS))]
    return sorted(found, key=lambda folder: (folder.name != first, folder.name))


def _same_text(a: str, b: str) -> bool:
    return a.strip() == b.strip()


def _task(inputs: Mapping[str, Any], notes: list[str]) -> registry.Task | None:
    name = inputs.get("task")
    try:
        return registry.get_task(name) if name else None
    except ArkJAXError:
        notes.append(
            f"The task {name!r} is registered by a program of its own and not known here: "
            "questions are read off the prompts, and answers are compared as text."
        )
        return None


def _problems(
    task: registry.Task | None, split: str, inputs: Mapping[str, Any], notes: list[str]
) -> dict[str, Problem]:
    """The problems of a split as the run drew them; empty, with a note, if they cannot be had."""
    if task is None:
        return {}
    try:
        options: dict[str, Any] = {}
        if task.world is not None:
            world = {
                name: tuple(value) if isinstance(value, list) else value
                for name, value in inputs["world"].items()
            }
            options = {"world": task.world.config(**world), "seed": inputs["seed"]}
        if split == TRAIN:
            limit = inputs["sample"]["problems"]
        else:
            limit = inputs["evaluation"]["limit"] or None
        return {problem.id: problem for problem in task.load(split, limit, **options)}
    except (ArkJAXError, KeyError, TypeError) as error:
        notes.append(f"The problems of {split} cannot be had ({error}): questions are read off.")
        return {}


def _sampled_answers(
    stage: StageDirectory, problems: Mapping[str, Problem], equal: Callable[[str, str], bool]
) -> dict[str, Answer]:
    """What the team answered, from the summary of a finished stage."""
    if not stage.finished:
        return {}
    answers: dict[str, Answer] = {}
    for problem_id, answer in stage.summary().get("team_answers", {}).items():
        right = None
        if problem_id in problems:
            right = answer is not None and bool(equal(answer, problems[problem_id].answer))
        answers[problem_id] = (answer, right)
    return answers


def _outcomes(stage: Path, seed: int) -> dict[tuple[str, str], dict[str, Answer]]:
    """Answers by split and system, and then by problem id; empty while the stage is at work."""
    path = stage / "outcomes.parquet"
    if not path.exists():
        return {}
    table = Outcomes.load(path).select(seed=seed)
    names = ("split", "system", "problem_id", "answer", "correct")
    found: dict[tuple[str, str], dict[str, Answer]] = {}
    for split, system, problem_id, answer, right in zip(
        *(table[name].tolist() for name in names), strict=True
    ):
        found.setdefault((split, system), {})[problem_id] = (answer or None, right)
    return found
