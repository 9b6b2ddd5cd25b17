"""What the AgentArk paper reports for a run of its grid, to stand beside what the run measured.

The figures are data (`data/agentark_tables.json`, with their tables and how these were read); none
of them is ours. The paper gives no seeds and no intervals, so a difference from them is no finding.
"""

import functools
import json
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from arkjax.errors import DataError
from arkjax.reporting import systems
from arkjax.shipped import shipped_path

TABLES = "data/agentark_tables.json"

# Splits that stand for the paper's test sets: where a test split has no public answers, it is the
# validation split that everybody tests on.
_TESTED = ("test", "validation")


@functools.cache
def tables() -> dict[str, Any]:
    """The paper's tables, as `data/agentark_tables.json` has them.

    Raises:
      DataError: if the file is missing or damaged.
    """
    path = shipped_path(TABLES)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: {error}; reinstall ArkJAX") from error


def published(config: Mapping[str, Any], report: Mapping[str, Any]) -> dict[str, Any] | None:
    """The paper's figures for the models, the training set and the tests of a run.

    A run is a point of the paper's grid if its student, its team's model and its task are; they are
    told by the last part of the names of their checkpoints, as the hub has them.

    Args:
      config: of the run, as plain data.
      report: what `build_report` made of it.

    Returns:
      None if there are no such figures; else

          {"title": str, "source": str, "note": str, "rows": [{"name", "ours", "paper", "system",
           "dataset", "student", "teacher", "trained_on", "split", "table"}]}

      with accuracies in [0, 1]; "ours" is None where the run has no such system. "teacher" and
      "trained_on" are None where the system has none.
    """
    paper = tables()
    student, teacher = (_model(name) for name in _checkpoints(config))
    if student is None or teacher is None:
        return None
    rows = []
    for split, section in report["splits"].items():
        dataset = split.rpartition(":")[0] or config["task"]
        if split.rpartition(":")[2] not in _TESTED:
            continue
        for row in paper["rows"]:
            figure = dict(zip(paper["columns"], row, strict=True))
            asked = {
                "student": (student,),
                "teacher": (teacher, None),
                "trained_on": (config["task"], None),
                "tested_on": (dataset,),
            }
            if any(figure[name] not in values for name, values in asked.items()):
                continue
            measured = section["systems"].get(figure["system"])
            rows.append(
                {
                    "name": f"{systems.label(figure['system'])}, {split}",
                    "ours": measured["accuracy"] if measured else None,
                    "paper": round(figure["percent"] / 100, 6),
                    "system": figure["system"],
                    "dataset": dataset,
                    "student": student,
                    "teacher": figure["teacher"],
                    "trained_on": figure["trained_on"],
                    "split": split,
                    "table": figure["table"],
                }
            )
    if not any(row["teacher"] for row in rows):
        return None
    order = systems.ordered({row["system"] for row in rows})
    splits = systems.ordered_splits(report["splits"])
    rows.sort(key=lambda row: (splits.index(row["split"]), order.index(row["system"])))
    return {
        "title": paper["title"],
        "source": f"{paper['source']} ({paper['url']})",
        "note": "The paper's figures, not measured here; it gives no seeds and no intervals.",
        "rows": rows,
    }


def _checkpoints(config: Mapping[str, Any]) -> tuple[str, str]:
    """Where a run's students start from, and who plays its team."""
    student, policy = config["base"]["checkpoint"], config.get("policy", "base")
    if policy in config.get("models", {}):
        return student, config["models"][policy]["checkpoint"]
    if policy in config.get("remotes", {}):
        return student, config["remotes"][policy]["model"]
    return student, student


def _model(checkpoint: str) -> str | None:
    """The paper's name of a model, by `hf:owner/name@revision`, a server's name or a folder."""
    name = PurePosixPath(checkpoint.removeprefix("hf:").partition("@")[0]).name.lower()
    known = tables()["models"].items()
    return next((paper for paper, hub in known if hub.rpartition("/")[2].lower() == name), None)
