"""The world's grader: what it reads, and that no text makes it fail."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arkjax.tasks import embedded_world as world
from arkjax.tasks.problems import StepGrader
from arkjax.tasks.world_grader import WorldGrader

pytestmark = pytest.mark.fast

GRADER = WorldGrader()
ITEMS = (("coins", 4, 7), ("gap", 3, 8), ("peak", 6, 1))
PROBLEM = world.make_problem(ITEMS, "p")
SOLUTION = world.solution_text(ITEMS, world.true_values(ITEMS))

_FRAGMENTS = st.sampled_from(
    ["so 3", "so", " ", ";", "\n", "coins 4 7 is 2 total 2 ;", "gap 3 8 is 5 total 7 ;"]
    + ["gap 3", "is", "total 9 ;", "99", "\u0663", "\x00", "\ud800", "so 10", "answer: so 4"]
)
TEXTS = st.one_of(st.text(), st.lists(_FRAGMENTS).map("".join), st.lists(_FRAGMENTS).map(" ".join))


@settings(max_examples=300, deadline=None)
@given(TEXTS)
def test_no_text_makes_it_fail(text):
    extracted = GRADER.extract(text)
    assert extracted is None or extracted in set("0123456789")
    grade = GRADER.grade(PROBLEM, text)
    assert grade.extracted == extracted
    assert grade.correct == (extracted == PROBLEM.answer)
    assert grade.reason
    wrong = GRADER.first_wrong_step(PROBLEM, text)
    assert wrong is None or 0 <= wrong < text.count(" ;")
    assert GRADER.grade(PROBLEM, text) == grade


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("so 3", "3"),
        (SOLUTION, PROBLEM.answer),
        (SOLUTION + " \n", PROBLEM.answer),
        ("so 3 ; so 4", "4"),
        ("x" * 1000 + " so 7", "7"),
        ("so 3 .", None),
        ("so 12", None),
        ("also 3", None),
        ("So 3", None),
        ("so  3", None),
        ("3", None),
        ("", None),
        ("so \u0663", None),
    ],
)
def test_the_final_digit_is_read(text, expected):
    assert GRADER.extract(text) == expected


def test_answers_are_compared():
    assert GRADER.equal("3", "3") and not GRADER.equal("3", "4")
    assert GRADER.grade(PROBLEM, SOLUTION).correct
    wrong = GRADER.grade(PROBLEM, f"so {(int(PROBLEM.answer) + 1) % 10}")
    assert not wrong.correct and f"expected {PROBLEM.answer}" in wrong.reason
    assert "does not end in" in GRADER.grade(PROBLEM, "I do not know").reason


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
def test_right_steps_in_any_order(order):
    items = [ITEMS[i] for i in order]
    text = world.solution_text(items, world.true_values(items))
    assert GRADER.first_wrong_step(PROBLEM, text) is None


@pytest.mark.parametrize("index", range(3))
def test_first_wrong_value_is_found(index):
    values = world.true_values(ITEMS)
    values[index] = (values[index] + 1) % 10
    assert GRADER.first_wrong_step(PROBLEM, world.solution_text(ITEMS, values)) == index


@pytest.mark.parametrize(
    ("text", "index"),
    [
        (SOLUTION.replace("total 7", "total 8"), 1),
        (SOLUTION.replace("gap 3 8", "gap 3 9").replace("is 5", "is 6"), 1),
        (SOLUTION.replace("gap", "dogs"), 1),
        ("coins 4 7 is 2 total 2 ; coins 4 7 is 2 total 4 ;", 1),
        ("coins 4 7 is 2 total 2 ;", None),
        ("", None),
    ],
)
def test_miscounted_miscopied_and_repeated_steps_are_wrong(text, index):
    assert GRADER.first_wrong_step(PROBLEM, text) == index


def test_steps_are_read_whatever_words_state_them():
    assert GRADER.read_step("coins 4 7 makes 2 total 2 ;") == ("coins 4 7", "2 2")
    assert GRADER.read_step(" coins 4 7 is 2 sum 2 ;") == ("coins 4 7", "2 2")
    for text in ("so 3", "", "coins 4 7 is 2", "coins 4 7 is 2 sum 2 ; coins 4 7 is 2 sum 4 ;"):
        assert GRADER.read_step(text) is None


def test_an_answer_holds_if_every_item_has_its_right_step():
    assert isinstance(GRADER, StepGrader)
    assert GRADER.holds(PROBLEM, SOLUTION)
    steps = SOLUTION.split(" ; ")
    for text in (
        " ; ".join(steps[:-2] + steps[-1:]),  # the last step is left out, the answer is right
        " ; ".join([steps[0], *steps]),
        " ; ".join([steps[1], steps[0], *steps[2:]]),  # totals no longer fit
        SOLUTION[:-1] + str((int(PROBLEM.answer) + 1) % 10),
        f"so {PROBLEM.answer}",
        "",
    ):
        assert not GRADER.holds(PROBLEM, text), text
