"""Records of TruthfulQA, to be answered freely or by choice."""

import hashlib
from collections.abc import Iterator
from typing import Any

from arkjax.tasks.benchmarks.choices import with_options
from arkjax.tasks.benchmarks.drafts import Draft
from arkjax.tasks.benchmarks.records import Record

INSTRUCTION = "Answer in one or two sentences."
CHOICE_INSTRUCTION = "Give the letter of the right option, as in: Answer: B"


def generation(record: Record) -> Iterator[Draft]:
    """`question`, `best_answer`, `correct_answers`, `incorrect_answers`, `category`, `type`.

    In the authors' CSV the fields are called `Best Answer` and so on, and lists are one text with
    "; " between.
    """
    meta = {
        "correct_answers": _several(record, "correct_answers", "Correct Answers"),
        "incorrect_answers": _several(record, "incorrect_answers", "Incorrect Answers"),
        "type": record.text("type", "Type"),
    }
    best = record.text("best_answer", "Best Answer")
    meta["answers"] = list(dict.fromkeys([best, *meta["correct_answers"]]))
    yield Draft(
        record.text("question", "Question"), best, record.text("category", "Category"), meta
    )


def _several(record: Record, *fields: str) -> list[str]:
    value = record.any(*fields)
    if not isinstance(value, str):
        return record.texts(*fields)
    several = [text.strip() for text in value.split(";")]
    if not any(several):
        raise record.wrong(fields[0], "it is empty")
    return [text for text in several if text]


def multiple_choice(record: Record) -> Iterator[Draft]:
    """`question`, `mc1_targets` (one is right) and `mc2_targets` (several may be).

    Targets are `choices` and `labels` in the Hub's copy, labels by choice in the authors' file.
    The right choice of MC1 comes first in all published records; the options that the model reads
    stand in an order that is drawn from their words. `meta["stem"]` is the question without
    them, after which MC1 and MC2 compare the choices' log-probabilities.
    """
    question = record.text("question")
    targets = {name: _targets(record, f"{name}_targets") for name in ("mc1", "mc2")}
    right = [c for c, label in zip(*targets["mc1"].values(), strict=True) if label]
    if len(right) != 1:
        raise record.wrong("mc1_targets", f"{len(right)} choices are right, expected one")

    def draw(choice: str) -> bytes:
        return hashlib.sha256(f"{question}\n{choice}".encode()).digest()

    options = sorted(targets["mc1"]["choices"], key=draw)
    if len(options) > 26:
        raise record.wrong("mc1_targets", f"{len(options)} choices are more than there are letters")
    meta: dict[str, Any] = {"options": options, "stem": question, **targets}
    letter = chr(ord("A") + options.index(right[0]))
    yield Draft(with_options(question, options), letter, meta=meta)


def _targets(record: Record, field: str) -> dict[str, list]:
    value = record.mapping(field)
    if isinstance(value.get("choices"), list):
        choices, labels = record.part(value, field).texts("choices"), value.get("labels")
    else:
        choices, labels = list(value), list(value.values())
    if not isinstance(labels, list) or len(labels) != len(choices) or not set(labels) <= {0, 1}:
        raise record.wrong(field, "expected a label of 0 or 1 for each choice")
    if set(labels) != {0, 1}:
        raise record.wrong(field, "expected right choices and wrong ones")
    return {"choices": choices, "labels": [int(label) for label in labels]}
