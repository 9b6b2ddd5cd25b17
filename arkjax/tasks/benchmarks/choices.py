"""Records of the multiple-choice data sets: AQuA and MedMCQA; and how options are written."""

import re
from collections.abc import Callable, Iterator, Sequence

from arkjax.tasks.benchmarks.drafts import Draft
from arkjax.tasks.benchmarks.records import Record

INSTRUCTION = (
    "Reason step by step, and give the letter of the right option at the end, as in: Answer: B"
)
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

_MED_FIELDS = ("opa", "opb", "opc", "opd")


def with_options(question: str, options: Sequence[str]) -> str:
    """A question with its options below it, one a line, as "A) text"."""
    listed = "".join(f"\n{LETTERS[i]}) {text}" for i, text in enumerate(options))
    return f"{question}\n{listed}"


def aqua(record: Record) -> Iterator[Draft]:
    """`question`, `options` such as "A)21", `rationale`, `correct`, the letter."""
    options = []
    for letter, text in zip(LETTERS, record.texts("options"), strict=False):
        # One published record has each letter twice, "A)A)59".
        options.append(re.sub(rf"^\(?{letter}\s*[).:]\s*(?:{letter}\)\s*)?", "", text))
    correct = record.text("correct")
    if correct not in LETTERS[: len(options)] or len(correct) != 1:
        raise record.wrong("correct", f"{correct[:40]!r} is the letter of no option")
    meta = {"options": options, "solution": record.text("rationale", empty=True)}
    yield Draft(with_options(record.text("question"), options), correct, meta=meta)


def begin_medmcqa(first: list[Record]) -> Callable[[Record], Iterator[Draft]]:
    """The reader of a file of MedMCQA: its authors count `cop` from 1, the Hub's copy from 0.

    A file that has a 0 counts from 0, one that has a 4 from 1, and what has neither by its format:
    only the authors' files are JSON.
    """
    seen = {record.value.get("cop") for record in first}
    if {0, 4} <= seen:
        record = next(record for record in first if record.value.get("cop") == 0)
        raise record.wrong("cop", "0 and 4 in one file: there are four options")
    least = 1 if 4 in seen or (0 not in seen and first and ".json" in first[0].file) else 0

    def read(record: Record) -> Iterator[Draft]:
        options = [record.text(field, empty=True) for field in _MED_FIELDS]
        cop = record.any("cop")
        if isinstance(cop, bool) or not isinstance(cop, int) or not 0 <= cop - least < 4:
            raise record.wrong("cop", f"{str(cop)[:40]!r} is none of {least} to {least + 3}")
        meta = {
            "options": options,
            "solution": record.text("exp", empty=True) if record.has("exp") else "",
            "choice_type": record.text("choice_type") if record.has("choice_type") else "",
            "topic": record.text("topic_name", empty=True) if record.has("topic_name") else "",
            "source_id": record.text("id"),
        }
        question = with_options(record.text("question"), options)
        yield Draft(question, LETTERS[cop - least], record.text("subject_name"), meta)

    return read


def medmcqa(record: Record) -> Iterator[Draft]:
    """`question`, `opa` to `opd`, `cop`, `subject_name`, `topic_name`, `exp`, `choice_type`.

    A record alone does not say whether `cop` counts from 0; see `begin_medmcqa`.
    """
    yield from begin_medmcqa([record])(record)
