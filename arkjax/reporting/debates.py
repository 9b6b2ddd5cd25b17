"""Debates worth reading: plain records of them, and the choice of a few that teach something."""

from collections.abc import Iterable, Mapping
from typing import Any

from arkjax.reporting import systems

MOST = 2
"""How many debates of a kind are shown."""

KINDS = {
    "corrected": "Talking corrected the team: it would have begun wrong, and ends right.",
    "misled": "Talking misled the team: it would have begun right, and ends wrong.",
    "pool": "The team is wrong although one of its members had the right answer.",
    "student_right": "A student alone, in one call, solved what its team did not.",
    "student_wrong": "The team solved what its student, in one call, does not.",
    "forgot": "The student forgot: the model that it was trained from is right here.",
    "failed": "The debate failed: nobody had the right answer at any time.",
}
"""What a debate can be an example of, in the order in which examples are shown, and in words."""


def debate_record(
    debate: Any,
    *,
    split: str,
    seed: int,
    store: str,
    field: str = "answer",
    student: Mapping[str, Any] | None = None,
    base: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """One debate as plain data, every figure of it as recorded with its calls.

    Args:
      debate: a `Debate` of the team.
      split: that the problem belongs to.
      seed: of the run.
      store: where its calls are recorded, within the run directory.
      field: the parsed field that is the answer.
      student: `alone` of a student's answer to the same problem.
      base: `alone` of the base model's.

    Returns:
      `problem_id, problem, gold, part, split, seed, store, call_ids, calls, opening,
      opening_correct, in_pool, answer, correct, student, base`; each of the calls has `call_id,
      stage, round, agent, text, answer, correct`.
    """
    calls = [
        {
            "call_id": call.call_id,
            "stage": call.stage,
            "round": call.round,
            "agent": call.agent,
            "text": call.text,
            "answer": call.parsed.get(field),
            "correct": bool(call.correct),
        }
        for call in debate.calls
    ]
    return {
        "problem_id": debate.problem.id,
        "problem": debate.problem.question,
        "gold": debate.problem.answer,
        "part": debate.problem.meta.get("part", ""),
        "split": split,
        "seed": seed,
        "store": store,
        "call_ids": [call["call_id"] for call in calls],
        "calls": calls,
        "opening": debate.opening,
        "opening_correct": bool(debate.opening_correct),
        "in_pool": bool(debate.in_pool),
        "answer": debate.answer,
        "correct": bool(debate.correct),
        "student": dict(student) if student else None,
        "base": dict(base) if base else None,
    }


def alone(debate: Any, *, system: str, store: str) -> dict[str, Any]:
    """What a system of one call answered: `system, store, call_ids, text, answer, correct`."""
    return {
        "system": system,
        "store": store,
        "call_ids": [call.call_id for call in debate.calls],
        "text": debate.calls[-1].text if debate.calls else "",
        "answer": debate.answer,
        "correct": bool(debate.correct),
    }


def kinds(record: Mapping[str, Any]) -> list[str]:
    """Which of `KINDS` a debate is an example of."""
    right, began = record["correct"], record["opening_correct"]
    held = {
        "corrected": right and not began,
        "misled": began and not right,
        "pool": record["in_pool"] and not right,
        "failed": not record["in_pool"] and not right,
    }
    if student := record["student"]:
        held["student_right"] = student["correct"] and not right
        held["student_wrong"] = right and not student["correct"]
        if base := record["base"]:
            held["forgot"] = base["correct"] and not student["correct"]
    return [kind for kind in KINDS if held.get(kind)]


def choose_debates(debates: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Up to two debates of each of `KINDS`, kind by kind; the same ones for the same input.

    A debate is shown once, under the first kind that it was chosen for. Among equals the shortest
    is the easiest to read; of those that a student alone solved, first those of the hardest
    part of an embedded world.

    Args:
      debates: records of `debate_record`.

    Returns:
      The records, each with `kind`, `why_chosen` and, of all that it is an example of, `kinds`.
    """
    pool = sorted(debates, key=_by_length)
    examples = [kinds(record) for record in pool]
    chosen: dict[int, str] = {}
    for kind in KINDS:
        found = [i for i, of in enumerate(examples) if kind in of]
        if kind == "student_right":
            found.sort(key=lambda i: pool[i]["part"] not in systems.HARDEST)
        for i in [i for i in found if i not in chosen][:MOST]:
            chosen[i] = kind
    return [
        {**pool[i], "kind": kind, "kinds": examples[i], "why_chosen": KINDS[kind]}
        for i, kind in chosen.items()
    ]


def _by_length(record: Mapping[str, Any]) -> tuple:
    length = sum(len(call["text"]) for call in record["calls"])
    return (length, record["split"], str(record["problem_id"]), record["seed"])
