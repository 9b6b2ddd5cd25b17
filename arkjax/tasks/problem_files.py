"""Files of problems: JSON lines, one problem each."""

import dataclasses
import json
from collections.abc import Collection
from pathlib import Path

from arkjax.errors import DataError
from arkjax.tasks.problems import Problem


def save_problems(path: Path, problems: Collection[Problem]) -> None:
    """Write problems as JSON lines."""
    path.write_text("".join(json.dumps(dataclasses.asdict(p)) + "\n" for p in problems))


def load_problems(path: Path) -> list[Problem]:
    """Read problems written by `save_problems`.

    Raises:
      DataError: if the file is missing or a line is not a problem; names file and line.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read problems from {path}: {error}") from error
    problems = []
    for number, line in enumerate(lines, 1):
        try:
            problems.append(_problem(json.loads(line)))
        except (ValueError, TypeError) as error:
            raise DataError(f"{path}, line {number}: not a problem ({error})") from error
    if not problems:
        raise DataError(f"{path} holds no problems")
    return problems


def _problem(fields: dict) -> Problem:
    """A problem from its fields; ValueError or TypeError if they are not those of a problem."""
    problem = Problem(**fields)
    for name in ("id", "question", "answer", "task", "domain"):
        if not isinstance(getattr(problem, name), str):
            raise ValueError(f"{name} is not a string")
    if not isinstance(problem.meta, dict):
        raise ValueError("meta is not an object")
    return problem
