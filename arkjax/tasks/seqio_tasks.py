"""The embedded world as SeqIO tasks; importing this module registers them.

`arkjax_embedded_world` asks the bare prompt: splits train, validation, test and ood; features
"inputs" (question and byline, as `PlainChat` lays them out) and "targets" (a right answer); metrics
by the world's grader. `arkjax_embedded_world_documents` are the documents that a base model is
trained on: feature "targets", and "loss_weights" of the same length.
"""

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import seqio
import tensorflow as tf

from arkjax.shipped import shipped_path
from arkjax.tasks import embedded_world
from arkjax.tasks.documents import Document
from arkjax.tasks.embedded_sets import EMBEDDED_SETS
from arkjax.tasks.embedded_world import BARE_BYLINE, PARTS
from arkjax.tasks.problems import Problem
from arkjax.tasks.world_documents import make_documents
from arkjax.tasks.world_grader import WorldGrader
from arkjax.tasks.world_sets import EVALUATION_SIZES

TASK = f"arkjax_{embedded_world.NAME}"
DOCUMENTS_TASK = f"{TASK}_documents"
PROBLEM_SIZES = {"train": 10_000, **EVALUATION_SIZES}
DOCUMENT_SIZES = {"train": 50_000, "validation": 1_000}
# Seeds of the splits: documents of different splits must not be the same stream.
_TRAIN_SEED = 0
_DOCUMENT_SEEDS = {"train": 0, "validation": 1}

VOCABULARY = seqio.SentencePieceVocabulary(
    str(shipped_path(f"data/{embedded_world.NAME}/tokenizer.model")), extra_ids=0
)

_TEXT = tf.TensorSpec((), tf.string)
_PROBLEM_SPEC = {name: _TEXT for name in ("id", "question", "answer", "domain", "part", "solution")}
_DOCUMENT_SPEC = {
    "segments": tf.TensorSpec((None,), tf.string),
    "ends": tf.TensorSpec((None,), tf.bool),
    "weights": tf.TensorSpec((None,), tf.float32),
}


# --- sources ------------------------------------------------------------------------------------


def problem_features(problem: Problem) -> dict[str, str]:
    """A problem as flat text fields, with the right answer written out as "solution"."""
    items = embedded_world.parse_question(problem.question)
    return {
        "id": problem.id,
        "question": problem.question,
        "answer": problem.answer,
        "domain": problem.domain,
        "part": problem.meta["part"],
        "solution": embedded_world.solution_text(items, embedded_world.true_values(items)),
    }


def document_segments(document: Document) -> dict[str, list]:
    """A document as pieces of text, whether the end token follows each, and their loss weights."""
    segments, ends, weights = [f"question: {document.question}"], [True], [0.0]
    for turn in document.turns:
        segments += [f"{turn.byline}:", turn.text]
        ends += [False, True]
        weights += [0.0, turn.weight]
    return {"segments": segments, "ends": ends, "weights": weights}


def _problem_rows(split: str) -> Iterator[dict[str, str]]:
    for problem in EMBEDDED_SETS.load(split, PROBLEM_SIZES[split], seed=_TRAIN_SEED):
        yield problem_features(problem)


def _document_rows(split: str) -> Iterator[dict[str, list]]:
    stream = make_documents(EMBEDDED_SETS.shipped, _DOCUMENT_SEEDS[split], EMBEDDED_SETS.hashes())
    for document in itertools.islice(stream, DOCUMENT_SIZES[split]):
        yield document_segments(document)


def _dataset(
    rows: Callable[[str], Iterator[dict]], spec: Mapping[str, tf.TensorSpec]
) -> Callable[..., tf.data.Dataset]:
    """A dataset function of SeqIO. Nothing is shuffled here: rows are in random order already."""

    def dataset_fn(split: str, shuffle_files: bool, seed: int | None = None) -> tf.data.Dataset:
        del shuffle_files, seed
        return tf.data.Dataset.from_generator(
            functools.partial(rows, split), output_signature=dict(spec)
        )

    return dataset_fn


# --- from text to ids ---------------------------------------------------------------------------


@seqio.map_over_dataset
def bare_prompt(row: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Ids of question and byline as "inputs" and of the answer as "targets", without its end."""
    opening = VOCABULARY.encode_tf(tf.strings.join(["question: ", row["question"]]))
    header = VOCABULARY.encode_tf(tf.constant(f"{BARE_BYLINE}:"))
    inputs = tf.concat([opening, [VOCABULARY.eos_id], header], axis=0)
    return {**row, "inputs": inputs, "targets": VOCABULARY.encode_tf(row["solution"])}


@seqio.map_over_dataset
def whole_document(row: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Ids of a document as "targets" and a weight for each of them as "loss_weights"."""
    pieces = VOCABULARY.encode_tf(row["segments"])
    count = tf.shape(row["segments"])[0]
    ends = tf.RaggedTensor.from_row_lengths(
        tf.fill([tf.math.count_nonzero(row["ends"], dtype=tf.int32)], VOCABULARY.eos_id),
        tf.cast(row["ends"], pieces.row_splits.dtype),
    )
    ids = tf.concat([pieces, tf.cast(ends, pieces.dtype)], axis=1)
    segment = tf.repeat(tf.range(count), ids.row_lengths())
    return {"targets": ids.flat_values, "loss_weights": tf.gather(row["weights"], segment)}


# --- grading ------------------------------------------------------------------------------------


def to_problem(text: str, example: Mapping[str, Any] | None = None, is_target: bool = False):
    """SeqIO's postprocessing: a target becomes its `Problem`, a prediction stays text."""
    if not is_target:
        return text
    fields = {name: tf.compat.as_text(example[name]) for name in _PROBLEM_SPEC}
    return Problem(
        id=fields["id"],
        question=fields["question"],
        answer=fields["answer"],
        task=embedded_world.NAME,
        domain=fields["domain"],
        meta={"part": fields["part"]},
    )


def graded(targets: Sequence[Problem], predictions: Sequence[str]) -> dict[str, float]:
    """Accuracy in [0, 1] by the world's grader: over all problems, and over each part of them."""
    grade = WorldGrader().grade
    right = [
        (problem.meta["part"], grade(problem, text).correct)
        for problem, text in zip(targets, predictions, strict=True)
    ]
    groups = {"accuracy": [correct for _, correct in right]}
    groups |= {f"accuracy_{part}": [c for p, c in right if p == part] for part in PARTS}
    return {name: sum(group) / len(group) for name, group in groups.items() if group}


seqio.TaskRegistry.add(
    TASK,
    source=seqio.FunctionDataSource(
        _dataset(_problem_rows, _PROBLEM_SPEC),
        splits=tuple(PROBLEM_SIZES),
        num_input_examples=PROBLEM_SIZES,
    ),
    preprocessors=[bare_prompt, seqio.preprocessors.append_eos_after_trim],
    output_features={
        "inputs": seqio.Feature(VOCABULARY, add_eos=False),
        "targets": seqio.Feature(VOCABULARY, add_eos=True),
    },
    postprocess_fn=to_problem,
    metric_fns=[graded],
)

seqio.TaskRegistry.add(
    DOCUMENTS_TASK,
    source=seqio.FunctionDataSource(
        _dataset(_document_rows, _DOCUMENT_SPEC),
        splits=tuple(DOCUMENT_SIZES),
        num_input_examples=DOCUMENT_SIZES,
    ),
    preprocessors=[whole_document],
    output_features={
        "targets": seqio.Feature(VOCABULARY, add_eos=False),
        "loss_weights": seqio.Feature(
            seqio.PassThroughVocabulary(1), add_eos=False, dtype=tf.float32
        ),
    },
)
