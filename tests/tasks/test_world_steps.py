"""The truth of the world's steps."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arkjax.errors import DataError
from arkjax.tasks import embedded_world as world
from arkjax.tasks.problems import Problem
from arkjax.tasks.world_grader import WorldGrader
from arkjax.tasks.world_steps import step_truth, truth_of_steps

pytestmark = pytest.mark.fast

ITEMS = (("coins", 4, 7), ("gap", 3, 8), ("peak", 6, 1))
PROBLEM = world.make_problem(ITEMS, "p")
TRUE = world.true_values(ITEMS)
_FRAGMENTS = st.sampled_from(
    ["so 3", "so", " ", ";", "\n", "coins 4 7 is 2 total 2 ;", "gap 3 8 is 5 total 7 ;"]
    + ["gap 3", "peak 6 1 makes 6 sum 3 ;", "total 9 ;", "\u0663", "\ud800", "so 10"]
)


def rights(text):
    return [truth.right for truth in step_truth(PROBLEM, text)]


def test_a_right_answer_is_right_in_every_step():
    for running in world.TOTALS:
        text = world.solution_text(ITEMS, TRUE, ["is", "makes", "is"], running)
        assert rights(text) == [True] * 4
    assert rights(world.solution_text(ITEMS[::-1], TRUE[::-1])) == [True] * 4


@pytest.mark.parametrize("wrong", range(3))
def test_after_a_wrong_value_totals_are_wrong_and_still_add_up(wrong):
    values = list(TRUE)
    values[wrong] = (values[wrong] + 1) % 10
    truths = step_truth(PROBLEM, world.solution_text(ITEMS, values))
    assert [t.value for t in truths] == [i != wrong for i in range(3)] + [True]
    assert [t.total for t in truths] == [i < wrong for i in range(4)]
    assert all(t.adds_up for t in truths)
    assert [t.right for t in truths] == [i < wrong for i in range(4)]


def test_two_mistakes_that_cancel_end_right():
    values = [(TRUE[0] + 1) % 10, (TRUE[1] - 1) % 10, TRUE[2]]
    assert rights(world.solution_text(ITEMS, values)) == [False, False, True, True]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("coins 4 7 is 2 total 2 ;", [True]),
        ("coins 4 7 is 2 total 3 ;", [False]),
        ("coins 4 7 is 2 total 2 ; coins 4 7 is 2 total 4 ;", [True, False]),
        ("coins 4 7 is 2 total 2 ; dogs 1 1 is 1 total 3 ; so 3", [True, False, False]),
        ("coins 4 7 is 2 total 2 ; so 3", [True, False]),  # the right digit, but items are left
        ("coins 4 7 is 2 total 2", [True]),
        ("coins 4 7 is 12 total 2 ;", [False]),
        ("well ; ; so 3", [False, False, False]),
    ],
)
def test_what_is_no_right_step_is_wrong(text, expected):
    assert rights(text) == expected


@settings(max_examples=300, deadline=None)
@given(st.lists(_FRAGMENTS).map(" ".join) | st.text())
def test_no_text_makes_it_fail_and_each_clause_is_a_step(text):
    *clauses, rest = text.split(";")
    assert len(step_truth(PROBLEM, text)) == len(clauses) + bool(rest.strip())


@given(st.lists(st.integers(0, 9), min_size=3, max_size=3))
def test_the_first_wrong_step_is_the_graders(values):
    text = world.solution_text(ITEMS, values)
    wrong = [i for i, right in enumerate(rights(text)[:-1]) if not right]
    assert WorldGrader().first_wrong_step(PROBLEM, text) == (wrong[0] if wrong else None)


def test_a_question_of_another_task_is_refused():
    with pytest.raises(DataError, match="not an item of the embedded world"):
        step_truth(Problem("p", "what is 1 + 1", "2", "sums", ""), "so 2")


def test_steps_may_keep_the_mark_that_ends_them():
    text = world.solution_text(ITEMS, [TRUE[0], (TRUE[1] + 1) % 10, TRUE[2]])
    *clauses, rest = text.split(";")
    marked = [clause + ";" for clause in clauses] + [rest]
    assert truth_of_steps(PROBLEM, marked) == step_truth(PROBLEM, text)
