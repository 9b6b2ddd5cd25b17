"""Finished runs as they lie on the disk, and what they are called side by side."""

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from arkjax.errors import ConfigError, DataError
from arkjax.evaluation.outcomes import Outcomes
from arkjax.reporting.front import listed
from arkjax.reporting.report import SCHEMA
from arkjax.rundir import RunDirectory

_NEEDED = ("seeds", "splits", "config_hash", "versions", "device", "wall_seconds", "counts")


@dataclasses.dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
      name: of the run, behind the names of its systems; "" leaves these as they are.
      root: the run directory.
      report: what its report.json holds.
      task: what its problems are of, as the run was told; None if that is not recorded.
      outcomes: of every seed, of the systems that its report shows.
    """

    name: str
    root: Path
    report: Mapping[str, Any]
    task: Any
    outcomes: Outcomes

    @property
    def called(self) -> str:
        """What a sentence calls it."""
        return self.name or self.root.name


def load_run(root: Path, name: str) -> Run:
    """Read a finished run: its report.json, and the outcomes of every seed of that.

    Raises:
      DataError: if it is not finished, or a file is damaged; says how to mend it.
    """
    file = RunDirectory(root, lock=False).report / "report.json"
    remedy = f"finish it with `arkjax run --workdir {root} --config ...`, or leave it out"
    if not file.is_file():
        raise DataError(f"run {root}: it has no report/report.json; {remedy}")
    try:
        report = json.loads(file.read_text(encoding="utf-8"))
        lacking = [key for key in _NEEDED if key not in report]
        present = {system for section in report["splits"].values() for system in section["systems"]}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(
            f"run {root}: {file} is damaged ({error!r}); make it again with `arkjax report "
            f"--workdir {root} --config ...`"
        ) from error
    if lacking or report.get("schema") != SCHEMA:
        raise DataError(
            f"run {root}: {file} is of schema {report.get('schema')!r} and lacks {lacking}; make "
            f"it again with `arkjax report --workdir {root} --config ...`"
        )
    tables, task = [], None
    for seed in report["seeds"]:
        stage = RunDirectory(root, lock=False).stage(seed, "evaluate")
        if not stage.finished:
            raise DataError(f"run {root}: {stage.path} is not finished; {remedy}")
        task = stage.made_from().get("task")
        rows = Outcomes.load(stage.path / "outcomes.parquet")
        tables.append(rows.without(set(rows.distinct("system")) - present))
    return Run(name, root, report, task, Outcomes.concatenate(tables))


def label_runs(roots: Sequence[Path], given: Mapping[Path, str] | None = None) -> list[str]:
    """A name for each run directory: the given one, else its own, with its parent's where alike.

    Raises:
      ConfigError: if two runs would have the same name, or a name would not stand behind a
        system's.
    """
    given = given or {}
    own = [_tidy(root.resolve().name) for root in roots]
    names = []
    for root, name in zip(roots, own, strict=True):
        if own.count(name) > 1:
            name = f"{_tidy(root.resolve().parent.name)}-{name}"
        names.append(given.get(root, name))
    for name, root in zip(names, roots, strict=True):
        if not re.fullmatch(r"\w[\w.+ -]{0,39}", name):
            raise ConfigError(
                f"--name {name}: the name of run {root} must be 1 to 40 letters, digits, spaces, "
                "or . + -"
            )
        if names.count(name) > 1:
            raise ConfigError(
                f"runs {listed([str(r) for r, n in zip(roots, names, strict=True) if n == name])} "
                f"would both be called {name}; tell them apart with --name {root}=NAME"
            )
    return names


def _tidy(name: str) -> str:
    return re.sub(r"[^\w.+-]+", "-", name).strip("-.")[:40] or "run"
