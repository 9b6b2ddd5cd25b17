"""Answers, step by step, with what is held to be true of each step: what a reward model learns."""

import dataclasses
import io
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from arkjax.errors import DataError
from arkjax.storage import sha256_file, write_atomic, write_directory_atomic
from arkjax.synthesis.steps import spans
from arkjax.text.stream import token_texts
from arkjax.text.tokenizer import Tokenizer

UNKNOWN = math.nan
"""The label of a step, or the outcome of an answer, about which nothing is known."""


@dataclasses.dataclass(frozen=True)
class JudgedAnswer:
    """One answer to one problem.

    Attributes:
      problem_id: the problem.
      call_id: the first of the calls that said it.
      prompt_ids: what the reward model reads before it.
      answer_ids: its tokens, the end token included if there is one.
      step_ends: exclusive ends of its steps in `answer_ids`; see `steps.step_ends`.
      labels: for each step how right it is, in [0, 1], or `UNKNOWN`.
      outcome: 1 if its final answer is right, or is the team's; else 0; or `UNKNOWN`.
      votes: how many calls said just this.
    """

    problem_id: str
    call_id: str
    prompt_ids: tuple[int, ...]
    answer_ids: tuple[int, ...]
    step_ends: tuple[int, ...]
    labels: tuple[float, ...]
    outcome: float
    votes: int = 1

    def __post_init__(self) -> None:
        ends, where = self.step_ends, f"call {self.call_id} (problem {self.problem_id})"
        if not self.prompt_ids or not ends:
            raise DataError(f"{where}: an answer needs a prompt and at least one step; drop it")
        if list(ends) != sorted(set(ends)) or not 0 < ends[0] <= ends[-1] <= len(self.answer_ids):
            raise DataError(
                f"{where}: steps end at {ends}, expected ascending ends in an answer of "
                f"{len(self.answer_ids)} tokens"
            )
        values = (*self.labels, self.outcome)
        if len(self.labels) != len(ends) or any(value < 0 or value > 1 for value in values):
            raise DataError(
                f"{where}: labels {self.labels} and outcome {self.outcome}: expected one label in "
                f"[0, 1] for each of {len(ends)} steps, and an outcome like them"
            )

    def texts(self, tokenizer: Tokenizer) -> list[str]:
        """The steps' texts."""
        pieces = token_texts(tokenizer, self.answer_ids[: self.step_ends[-1]])
        return ["".join(pieces[start:end]) for start, end in spans(self.step_ends)]

    def prefix(self, step: int) -> tuple[int, ...]:
        """The answer up to the end of a step: what its reward looks at."""
        return self.answer_ids[: self.step_ends[step]]


class Step(NamedTuple):
    """A step of one of several answers: both are indices."""

    answer: int
    step: int


class StepSet(NamedTuple):
    """A right step and wrong ones at the same point (N_t of AgentArk eq. 7, arXiv 2602.03955)."""

    positive: Step
    negatives: tuple[Step, ...]


@dataclasses.dataclass(frozen=True)
class Judged:
    """What a reward model is trained on.

    Attributes:
      answers: those of one problem next to each other.
      sets: steps of these answers to be told apart; all steps of a set are of one problem.
    """

    answers: tuple[JudgedAnswer, ...]
    sets: tuple[StepSet, ...] = ()

    def counts(self) -> dict[str, int]:
        """How many answers, steps, labelled and right steps, sets and negatives there are."""
        labels = [label for answer in self.answers for label in answer.labels]
        return {
            "problems": len({answer.problem_id for answer in self.answers}),
            "answers": len(self.answers),
            "right_answers": sum(answer.outcome == 1 for answer in self.answers),
            "steps": len(labels),
            "labelled_steps": sum(not math.isnan(label) for label in labels),
            "right_steps": sum(label >= 0.5 for label in labels),
            "sets": len(self.sets),
            "negatives": sum(len(one.negatives) for one in self.sets),
        }

    def save(self, path: Path) -> None:
        """Write a directory with two tables and their hashes, all of it or nothing.

        Raises:
          StorageError: if the file system refuses.
        """
        tables = {
            "answers": pa.Table.from_pylist(
                [dataclasses.asdict(answer) for answer in self.answers], _ANSWERS
            ),
            "sets": pa.Table.from_pylist(
                [
                    {
                        "answer": [step.answer for step in (one.positive, *one.negatives)],
                        "step": [step.step for step in (one.positive, *one.negatives)],
                    }
                    for one in self.sets
                ],
                _SETS,
            ),
        }
        with write_directory_atomic(path) as directory:
            for name, table in tables.items():
                sink = io.BytesIO()
                pq.write_table(table, sink, compression="zstd")
                write_atomic(directory / f"{name}.parquet", sink.getvalue())
            files = {
                f"{name}.parquet": sha256_file(directory / f"{name}.parquet") for name in tables
            }
            meta = {"kind": "judged answers", "files": files, "counts": self.counts()}
            write_atomic(directory / "meta.json", json.dumps(meta, indent=1, sort_keys=True) + "\n")

    @classmethod
    def load(cls, path: Path) -> "Judged":
        """What `save` wrote.

        Raises:
          DataError: naming the file that is missing, damaged or something else.
        """
        remedy = "make the labels of the steps again"
        try:
            meta = json.loads((path / "meta.json").read_text(encoding="utf-8"))
            if meta["kind"] != "judged answers":
                raise ValueError(f"kind is {meta['kind']!r}")
            files = {name: meta["files"][name] for name in ("answers.parquet", "sets.parquet")}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path} holds no judged answers ({error}); {remedy}") from error
        for name, recorded in files.items():
            if not (path / name).is_file() or sha256_file(path / name) != recorded:
                raise DataError(f"{path / name} is missing or damaged; {remedy}")
        answers = pq.read_table(path / "answers.parquet").to_pylist()
        sets = pq.read_table(path / "sets.parquet").to_pylist()
        return cls(
            tuple(
                JudgedAnswer(**{k: tuple(v) if isinstance(v, list) else v for k, v in row.items()})
                for row in answers
            ),
            tuple(
                StepSet(steps[0], tuple(steps[1:]))
                for steps in (list(map(Step, row["answer"], row["step"])) for row in sets)
            ),
        )


def by_problem(answers: Sequence[JudgedAnswer]) -> Iterable[tuple[str, range]]:
    """Each problem with the indices of its answers, which stand next to each other."""
    start = 0
    for end in range(1, len(answers) + 1):
        if end == len(answers) or answers[end].problem_id != answers[start].problem_id:
            yield answers[start].problem_id, range(start, end)
            start = end


_IDS = pa.list_(pa.int32())
_ANSWERS = pa.schema(
    {
        "problem_id": pa.string(),
        "call_id": pa.string(),
        "prompt_ids": _IDS,
        "answer_ids": _IDS,
        "step_ends": _IDS,
        "labels": pa.list_(pa.float64()),
        "outcome": pa.float64(),
        "votes": pa.int32(),
    }
)
_SETS = pa.schema({"answer": _IDS, "step": _IDS})
