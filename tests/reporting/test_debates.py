"""Examples of every flip, chosen by rule, and each traceable to the calls that were recorded."""

import json
from types import SimpleNamespace

import pytest

from arkjax.reporting import debates
from arkjax.tasks.problems import Problem

pytestmark = pytest.mark.fast


def answer(system, right):
    return {"system": system, "text": "so 3", "answer": "3", "correct": right}


def record(name, opening, right, pool=None, student=None, base=None, part="plain", **changes):
    """A debate of so many letters as its name has."""
    return {
        "problem_id": name, "part": part, "split": "test", "seed": 0,
        "calls": [{"text": name}], "opening_correct": opening, "correct": right,
        "in_pool": opening or right if pool is None else pool,
        "student": None if student is None else answer("student_da", student),
        "base": None if base is None else answer("base", base), **changes,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"opening": True, "right": True}, []),
        ({"opening": False, "right": True}, ["corrected"]),
        ({"opening": True, "right": False}, ["misled", "pool"]),
        ({"opening": False, "right": False, "pool": True}, ["pool"]),
        ({"opening": False, "right": False}, ["failed"]),
        ({"opening": False, "right": False, "student": True}, ["student_right", "failed"]),
        ({"opening": True, "right": True, "student": False, "base": False}, ["student_wrong"]),
        (
            {"opening": True, "right": True, "student": False, "base": True},
            ["student_wrong", "forgot"],
        ),
        ({"opening": False, "right": False, "student": False, "base": True}, ["forgot", "failed"]),
        ({"opening": True, "right": True, "base": True}, []),
    ],
)
def test_what_a_debate_is_an_example_of(given, expected):
    assert debates.kinds(record("p", **given)) == expected
    assert set(expected) <= set(debates.KINDS)


def test_two_of_each_kind_the_shortest_first_and_none_twice():
    pool = [
        record("right", True, True),
        *(record("c" * n, False, True) for n in (5, 2, 3)),
        record("mm", True, False, student=True),
        record("m", True, False, student=True),
        record("mmm", True, False, student=True),
        record("s", False, False, pool=False, student=True),
        record("sss", False, False, pool=False, student=True, part="multi"),
        record("f", True, True, student=False, base=True),
    ]
    chosen = debates.choose_debates(pool)
    assert [(d["kind"], d["problem_id"]) for d in chosen] == [
        ("corrected", "cc"), ("corrected", "ccc"),
        ("misled", "m"), ("misled", "mm"),
        ("pool", "mmm"),
        ("student_right", "sss"), ("student_right", "s"),
        ("student_wrong", "f"),
    ]  # fmt: skip
    assert chosen[-1]["kinds"] == ["student_wrong", "forgot"]
    assert all(d["why_chosen"] == debates.KINDS[d["kind"]] for d in chosen)
    assert debates.choose_debates(pool[::-1]) == chosen
    # What was chosen of each seed can be chosen from again.
    assert debates.choose_debates(chosen) == chosen
    assert debates.choose_debates(pool[:1]) == debates.choose_debates([]) == []


def test_seeds_are_told_apart():
    pool = [record("p", False, True, seed=seed) for seed in (2, 0, 1)]
    assert [d["seed"] for d in debates.choose_debates(pool)] == [0, 1]


def test_a_record_has_what_was_recorded_and_where():
    calls = [
        SimpleNamespace(
            call_id=f"id{i}", stage="talk", round=i, agent="ada", text=f"so {said}",
            parsed={"value": said} if said else {}, correct=right,
        )
        for i, (said, right) in enumerate([("3", True), ("4", False), ("", None)])
    ]  # fmt: skip
    problem = Problem("p", "2+1", "3", "sums", "plus", {"part": "multi"})
    played = SimpleNamespace(
        problem=problem, calls=calls, answer="4", correct=False, opening="3",
        opening_correct=True, in_pool=True,
    )  # fmt: skip
    single = debates.alone(played, system="student_da", store="seed-4/evaluate/test/student_da")
    found = debates.debate_record(
        played, split="test", seed=4, store="seed-4/evaluate/test/team", field="value",
        student=single,
    )  # fmt: skip
    assert [(c["call_id"], c["answer"], c["correct"]) for c in found["calls"]] == [
        ("id0", "3", True), ("id1", "4", False), ("id2", None, False),
    ]  # fmt: skip
    assert found["call_ids"] == ["id0", "id1", "id2"] == found["student"]["call_ids"]
    assert (found["seed"], found["store"]) == (4, "seed-4/evaluate/test/team")
    assert (found["part"], found["gold"], found["opening"]) == ("multi", "3", "3")
    assert found["student"]["text"] == "so " and found["base"] is None
    assert debates.kinds(found) == ["misled", "pool"]
    json.dumps(found)
