"""Records of the mathematical data sets: GSM8K, MATH, MATH-500, MetaMathQA, SVAMP."""

import re
from collections.abc import Iterator

from arkjax.tasks.benchmarks.drafts import Draft
from arkjax.tasks.benchmarks.records import Record

INSTRUCTION = "Reason step by step, and give the final answer at the end as \\boxed{answer}."

_CALCULATION = re.compile(r"<<[^<>]*>>")
_BOX = re.compile(r"\\(?:boxed|fbox)\s*")
# Of the published file one record says "Common-Divison".
_MISSPELT = {"Common-Divison": "Common-Division"}


def gsm8k(record: Record) -> Iterator[Draft]:
    """`question`; `answer`, the solution with calculations in <<>>, ending in "#### 18".

    Difficulty is the number of calculations.
    """
    solution, mark, gold = record.text("answer").rpartition("####")
    gold = gold.strip()
    if not mark or not gold:
        raise record.wrong("answer", 'expected a solution that ends in "#### NUMBER"')
    meta = {
        "difficulty": len(_CALCULATION.findall(solution)),
        "solution": _CALCULATION.sub("", solution).strip(),
    }
    yield Draft(record.text("question"), gold, meta=meta)


def last_boxed(text: str) -> str | None:
    r"""What the last \boxed{} (or \fbox{}) of a text holds, braces within it balanced.

    A box without braces holds the word that follows. None if there is no box, or it does not end.
    """
    boxes = list(_BOX.finditer(text))
    if not boxes:
        return None
    rest = text[boxes[-1].end() :]
    if not rest.startswith("{"):
        return next(iter(rest.split()), "").strip("$.") or None
    depth, at = 0, 0
    while at < len(rest):
        if rest[at] == "\\":
            at += 2
            continue
        depth += {"{": 1, "}": -1}.get(rest[at], 0)
        if depth == 0:
            return rest[1:at].strip() or None
        at += 1
    return None


def _level(record: Record) -> int | str:
    """ "Level 5" or 5 as 5; "Level ?", which a few records have, as "?"."""
    text = str(record.any("level")).removeprefix("Level").strip()
    return int(text) if text.isdecimal() else text


def math(record: Record) -> Iterator[Draft]:
    r"""`problem`, `level` ("Level 1" to "Level 5"), `type`, `solution` with a \boxed{} answer."""
    solution = record.text("solution")
    gold = last_boxed(solution)
    if gold is None:
        raise record.wrong("solution", "it has no \\boxed{answer}")
    meta = {"difficulty": _level(record), "solution": solution}
    yield Draft(record.text("problem"), gold, record.text("type"), meta)


def math_500(record: Record) -> Iterator[Draft]:
    """`problem`, `solution`, `answer`, `subject`, `level` (1 to 5), `unique_id`."""
    meta = {
        "difficulty": _level(record),
        "solution": record.text("solution"),
        "unique_id": record.text("unique_id"),
    }
    yield Draft(record.text("problem"), record.text("answer"), record.text("subject"), meta)


def metamath_qa(record: Record) -> Iterator[Draft]:
    """`query`, `response` ending in "The answer is: 7", `type` such as GSM_AnsAug.

    `original_question` tells which problem of GSM8K or MATH it was made from.
    """
    response = record.text("response")
    _, mark, gold = response.rpartition("The answer is:")
    gold = gold.strip()
    if not mark or not gold:
        raise record.wrong("response", 'expected it to end in "The answer is: ANSWER"')
    meta = {"solution": response, "original_question": record.text("original_question")}
    yield Draft(record.text("query"), gold, record.text("type"), meta)


def svamp(record: Record) -> Iterator[Draft]:
    """`Body` and `Question` are one text; `Answer`, a number; `Equation`; `Type`, the operation.

    Difficulty is the number of operations in the equation.
    """
    equation, kind = record.text("Equation"), record.text("Type")
    meta = {
        "difficulty": len(re.findall(r"(?<=\s)[-+*/](?=\s)", equation)),
        "solution": equation,
        "source_id": record.text("ID"),
    }
    question = f"{record.text('Body')} {record.text('Question')}"
    yield Draft(question, record.number("Answer"), _MISSPELT.get(kind, kind), meta)
