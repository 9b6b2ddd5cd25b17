"""Published data sets as SeqIO tasks and mixtures; importing this module registers them.

Each is registered as `arkjax_NAME`, such as `arkjax_gsm8k`, with the embedded world's vocabulary:
enough to look at, and for tests. `add_task` registers one with the vocabulary of a real model, from
any source, and takes tasks of one's own as well. Features are "inputs", the question as every model
here reads it, and "targets"; beside them rows hold `id`, `answer` and `domain`. Metrics are those
of the task's grader. Data are read when rows are taken, not before.
"""

import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import seqio
import tensorflow as tf

from arkjax.tasks.benchmarks.table import BENCHMARKS
from arkjax.tasks.problems import Grader, Problem, ScoredGrader
from arkjax.tasks.registry import Task, get_task
from arkjax.tasks.seqio_tasks import VOCABULARY

PREFIX = "arkjax_"
MIXTURES: dict[str, dict[str, float]] = {
    # MetaMathQA was made from the training problems of the two before it, fifty times as many.
    "arkjax_mathematics": {"gsm8k": 1.0, "math": 1.0, "metamath_qa": 2.0, "svamp": 0.5},
    "arkjax_choices": {"aqua": 1.0, "medmcqa": 1.0, "truthfulqa_mc": 0.1},
    "arkjax_reading": {"hotpotqa": 1.0, "qasper": 0.5, "qmsum": 0.25},
}
"""Data sets by mixture, with the rates at which rows are drawn; a split takes those that it has."""

_FIELDS = ("id", "question", "answer", "domain", "meta", "inputs", "targets")
_SPEC = {name: tf.TensorSpec((), tf.string) for name in _FIELDS}


def add_task(
    task: str,
    vocabulary: seqio.Vocabulary = VOCABULARY,
    *,
    source: str = "",
    name: str = "",
    targets: Literal["answer", "solution"] = "answer",
) -> seqio.Task:
    """Register a task whose data lie somewhere as a SeqIO task.

    Args:
      task: of `get_task`: a name, or FILE.py:NAME.
      vocabulary: of inputs and targets.
      source: where the data lie, as of the task's `load`; `tfds:NAME` reads by TFDS.
      name: under which SeqIO knows it; by default `arkjax_NAME`, which data sets have already.
      targets: the gold answer alone, or the published solution and then the answer, where there is
        a solution.

    Raises:
      ConfigError: if there is no such task.
      ValueError: if SeqIO has a task of that name.
    """
    known = get_task(task)
    return seqio.TaskRegistry.add(
        name or f"{PREFIX}{known.name}",
        source=seqio.FunctionDataSource(
            functools.partial(_dataset, known, source, targets), splits=known.splits
        ),
        preprocessors=[seqio.preprocessors.tokenize, seqio.preprocessors.append_eos_after_trim],
        output_features={
            "inputs": seqio.Feature(vocabulary, add_eos=False),
            "targets": seqio.Feature(vocabulary, add_eos=True),
        },
        postprocess_fn=functools.partial(to_problem, task=known.name),
        metric_fns=[graded_by(known.grader)],
    )


def _dataset(
    task: Task, source: str, targets: str, split: str, shuffle_files: bool, seed: int | None = None
) -> tf.data.Dataset:
    del shuffle_files, seed  # the order is that of the files
    return tf.data.Dataset.from_generator(
        functools.partial(_rows, task, source, targets, split), output_signature=_SPEC
    )


def _rows(task: Task, source: str, targets: str, split: str) -> Iterator[dict[str, str]]:
    options = {"source": source} if "source" in task.options else {}
    for problem in task.load(split, **options):
        solution = str(problem.meta.get("solution", "")) if targets == "solution" else ""
        yield {
            "id": problem.id,
            "question": problem.question,
            "answer": problem.answer,
            "domain": problem.domain,
            "meta": json.dumps(dict(problem.meta), ensure_ascii=False),
            "inputs": problem.question,
            "targets": f"{solution}\n\nAnswer: {problem.answer}" if solution else problem.answer,
        }


def to_problem(
    text: str, example: Mapping[str, Any] | None = None, is_target: bool = False, *, task: str = ""
) -> Problem | str:
    """SeqIO's postprocessing: a target becomes its `Problem`, a prediction stays text."""
    if not is_target:
        return text
    fields = {name: tf.compat.as_text(example[name]) for name in _FIELDS[:5]}
    meta = json.loads(fields.pop("meta"))
    return Problem(**fields, task=task, meta=meta)


def graded_by(grader: Grader) -> Callable[..., dict[str, float]]:
    """A metric of SeqIO: accuracy in [0, 1] by a grader, and the means of its further figures."""

    def graded(targets: Sequence[Problem], predictions: Sequence[str]) -> dict[str, float]:
        pairs = list(zip(targets, predictions, strict=True))
        rows = [{"accuracy": float(grader.grade(*pair).correct)} for pair in pairs]
        if isinstance(grader, ScoredGrader):
            rows = [row | grader.score(*pair) for row, pair in zip(rows, pairs, strict=True)]
        return {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}

    return graded


for _name in BENCHMARKS:
    add_task(_name)
for _mixture, _rates in MIXTURES.items():
    seqio.MixtureRegistry.add(
        _mixture, [(f"{PREFIX}{_name}", rate) for _name, rate in _rates.items()]
    )
