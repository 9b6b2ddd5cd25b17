"""Debates worth reading: plain records of them, and the choice of three that teach something."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from arkjax.tasks.problems import Grader

CORRECTED = "The debate corrected a wrong majority: most began wrong, the last answer is right."
MISLED = "The debate misled the team: most began right, the last answer is wrong."
FAILED = "The debate failed: no first answer was right, and talking did not help."
LOST = "The debate failed: a right first answer did not prevail."
STUDENT = "A student alone, in one call, solved what its team did not."


def debate_record(
    debate: Any,
    grader: Grader,
    *,
    split: str,
    student: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """One debate as plain data.

    Args:
      debate: has `problem`, `calls` (each with `stage`, `round`, `agent`, `text`), `answer` and
        `correct`.
      grader: of the problem's task; it reads every call's answer.
      split: that the problem belongs to.
      student: a student's answer to the same problem: `system`, `text`, `answer`, `correct`.

    Returns:
      `problem_id, problem, gold, part, split, calls, answer, correct, student`; each of the calls
      has `stage, round, agent, text, answer, correct`.
    """
    calls = []
    for call in debate.calls:
        grade = grader.grade(debate.problem, call.text)
        calls.append(
            {
                "stage": call.stage,
                "round": call.round,
                "agent": call.agent,
                "text": call.text,
                "answer": grade.extracted,
                "correct": grade.correct,
            }
        )
    return {
        "problem_id": debate.problem.id,
        "problem": debate.problem.question,
        "gold": debate.problem.answer,
        "part": debate.problem.meta.get("part", ""),
        "split": split,
        "calls": calls,
        "answer": debate.answer,
        "correct": bool(debate.correct),
        "student": dict(student) if student else None,
    }


def _opening(debate: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The calls that opened the debate: those of the stage and round of the first call."""
    calls = debate["calls"]
    if not calls:
        return ()
    first = (calls[0].get("stage"), calls[0].get("round"))
    return [call for call in calls if (call.get("stage"), call.get("round")) == first]


def _majority_correct(debate: Mapping[str, Any]) -> bool | None:
    """Whether the most frequent opening answer was right; None where there is no such answer."""
    opening = _opening(debate)
    answers = Counter(call["answer"] for call in opening if call["answer"] is not None)
    ranked = answers.most_common(2)
    if not ranked or (len(ranked) == 2 and ranked[0][1] == ranked[1][1]):
        return None
    return next(bool(call["correct"]) for call in opening if call["answer"] == ranked[0][0])


def _failure(debate: Mapping[str, Any]) -> str | None:
    if debate["correct"]:
        return None
    if _majority_correct(debate):
        return MISLED
    return LOST if any(call["correct"] for call in _opening(debate)) else FAILED


def choose_debates(debates: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Up to three debates to read, each with `why_chosen`; the same ones for the same input.

    In order: one that corrected a wrong majority; one that misled the team, else one that lost a
    right answer, else any failure; one whose problem a student alone solved, with traps in
    several domains (part "multi") if there is one. Among equals the shortest is the easiest to
    read.
    """
    pool = sorted(debates, key=lambda d: (_length(d), d["split"], str(d["problem_id"])))
    chosen: list[dict[str, Any]] = []

    def choose(reasons: Mapping[int, str]) -> None:
        taken = {(debate["split"], debate["problem_id"]) for debate in chosen}
        for index, reason in reasons.items():
            debate = pool[index]
            if (debate["split"], debate["problem_id"]) not in taken:
                chosen.append({**debate, "why_chosen": reason})
                return

    choose(
        {i: CORRECTED for i, d in enumerate(pool) if d["correct"] and _majority_correct(d) is False}
    )
    failures = {i: _failure(d) for i, d in enumerate(pool)}
    worst_first = (MISLED, LOST, FAILED)
    choose({i: why for wanted in worst_first for i, why in failures.items() if why == wanted})
    alone = [i for i, d in enumerate(pool) if _student_alone(d)]
    alone.sort(key=lambda i: pool[i].get("part") != "multi")
    choose(dict.fromkeys(alone, STUDENT))
    return chosen


def _student_alone(debate: Mapping[str, Any]) -> bool:
    student = debate.get("student")
    return bool(student and student["correct"] and not debate["correct"])


def _length(debate: Mapping[str, Any]) -> int:
    return sum(len(call["text"]) for call in debate["calls"])
