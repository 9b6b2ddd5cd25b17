"""Grades of the search world's answers and steps: exact, and of any text."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arkjax.errors import DataError
from arkjax.tasks import search_world as world
from arkjax.tasks.problems import StepChecker, StepGrader
from arkjax.tasks.search_grader import SearchGrader

pytestmark = pytest.mark.fast

GRADER = SearchGrader()
ITEMS = (("cap", 3), ("least", 7), ("over", 2))
# cap 3, least 7 and over 2 at 5: 3 + 7 + 3.
PROBLEM = world.make_problem(ITEMS, 13, "p")
START = (
    "from 0 to 9 so 4 ; try 4 ; "
    "cap 3 4 is 3 left 10 ; least 7 4 is 7 left 3 ; over 2 4 is 2 left 1 ; "
)
HIGH = "try 8 ; cap 3 8 is 3 left 10 ; least 7 8 is 8 left 2 ; over 2 8 is 6 left none ; so high"
RIGHT = "try 5 ; cap 3 5 is 3 left 10 ; least 7 5 is 7 left 3 ; over 2 5 is 3 left 0 ; so right"
WHOLE = f"{START}so low ; from 5 to 9 so 5 ; {RIGHT} ; so 5"


def test_it_is_a_step_grader_and_the_example_holds():
    assert isinstance(GRADER, StepGrader) and PROBLEM.answer == "5"
    assert GRADER.holds(PROBLEM, WHOLE) and GRADER.first_wrong_step(PROBLEM, WHOLE) is None
    assert GRADER.right_steps(PROBLEM, WHOLE.split(";")) == [True] * 13


def test_a_step_can_follow_from_what_is_stated_and_still_be_wrong():
    assert isinstance(GRADER, StepChecker)
    steps = WHOLE.split(";")
    assert GRADER.consistent_steps(PROBLEM, steps) == [True] * 13
    # 3 is not what the cap gives for 5, but what it would leave is stated rightly, and so is the
    # verdict on what is left in the end.
    wrong = (
        "try 5 ; cap 3 5 is 5 left 8 ; least 7 5 is 7 left 1 ; over 2 5 is 3 left none ; so high"
    )
    assert GRADER.consistent_steps(PROBLEM, wrong.split(";")) == [True] * 5
    assert GRADER.right_steps(PROBLEM, wrong.split(";")) == [True, False, True, True, False]
    # It adds up to another verdict, and to another remainder.
    for before, after in (("so high", "so low"), ("left 1 ", "left 2 ")):
        steps = wrong.replace(before, after).split(";")
        assert False in GRADER.consistent_steps(PROBLEM, steps)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (WHOLE, "5"),
        ("from 0 to 9 so 4", "4"),
        ("so 5 ; ", "5"),
        ("so 12", None),
        ("so ٥", None),
        (RIGHT, None),
        ("so 5 ; so right", None),
        ("", None),
    ],
)
def test_the_closing_digit_is_the_answer(text, answer):
    assert GRADER.extract(text) == answer
    grade = GRADER.grade(PROBLEM, text)
    assert grade.extracted == answer and grade.correct == (answer == "5")
    assert grade.reason


@pytest.mark.parametrize(
    ("old", "new", "wrong"),
    [
        # A value; what is left; another number than proposed; an item twice, for another, or none.
        ("cap 3 4 is 3 left 10", "cap 3 4 is 4 left 9", 2),
        ("cap 3 4 is 3 left 10", "cap 3 4 is 3 left 11", 2),
        ("cap 3 4", "cap 3 6", 2),
        ("least 7 4 is 7 left 3", "cap 3 4 is 3 left 7", 3),
        ("over 2 4 is 2 left 1 ; ", "", 4),
        # A verdict; a revision that is not where it points, is out of bounds, or has others.
        ("so low", "so high", 5),
        ("from 5 to 9 so 5", "from 0 to 3 so 3", 6),
        ("from 5 to 9 so 5", "from 5 to 9 so 4", 6),
        ("from 5 to 9 so 5", "from 6 to 9 so 7", 6),
        # A close with another number.
        ("right ; so 5", "right ; so 6", 12),
        ("from 5 to 9", "I say", 6),
        ("try 4", "try 3", 1),
    ],
)
def test_the_first_wrong_step_is_found(old, new, wrong):
    text = WHOLE.replace(old, new, 1)
    assert text != WHOLE
    assert GRADER.first_wrong_step(PROBLEM, text) == wrong
    assert not GRADER.holds(PROBLEM, text)


@pytest.mark.parametrize(
    "text",
    ["so 5", "from 0 to 9 so 5", f"{START}so low ; from 5 to 9 so 5", f"{RIGHT} ; so 4", RIGHT, ""],
)
def test_what_was_not_checked_or_not_closed_does_not_hold(text):
    assert not GRADER.holds(PROBLEM, text)


def test_a_check_ends_where_more_is_taken_than_is_left():
    text = f"from 0 to 9 so 8 ; {HIGH} ; from 0 to 7 so 3"
    assert GRADER.first_wrong_step(PROBLEM, text) is None
    assert GRADER.first_wrong_step(PROBLEM, text.replace("so high", "so low")) == 5
    # A message of a critic alone is about the number that it works out.
    assert GRADER.right_steps(PROBLEM, HIGH.split(";")) == [True] * 5
    four = world.make_problem((("over", 2), ("cap", 3), ("least", 7)), 13, "p")
    early = (
        "try 9 ; over 2 9 is 7 left 6 ; cap 3 9 is 3 left 3 ; least 7 9 is 9 left none ; so high"
    )
    assert GRADER.first_wrong_step(four, early) is None


def test_subjects_and_claims_of_steps():
    assert GRADER.read_step(" over 2 4 is 2 left 1 ;") == ("over 2 4", "2 1")
    assert GRADER.read_step("try 4 ;") == ("try", "4")
    assert GRADER.read_step("so low ;") == ("verdict", "low")
    assert GRADER.read_step("from 0 to 9 so 4") == ("proposal", "0 9 4")
    assert GRADER.read_step("so 4") is None and GRADER.read_step("hm") is None


def test_quality_counts_what_can_be_known():
    found = dataclasses.asdict(GRADER.quality(PROBLEM, WHOLE))
    assert found == {
        "values": 6,
        "right_values": 6,
        "verdicts": 2,
        "true_verdicts": 2,
        "revisions": 1,
        "directed": 1,
        "started_wrong": True,
        "corrected": True,
    }
    worse = WHOLE.replace("over 2 4 is 2 left 1 ; so low", "over 2 4 is 9 left none ; so high")
    worse = worse.replace("; so 5", "; so 6")
    found = GRADER.quality(PROBLEM, worse)
    assert (found.right_values, found.true_verdicts, found.directed) == (5, 1, 0)
    assert found.started_wrong and not found.corrected
    nothing = GRADER.quality(PROBLEM, "hm")
    assert not nothing.started_wrong and nothing.values == nothing.verdicts == 0


def test_other_questions_are_refused():
    other = dataclasses.replace(PROBLEM, question="gap 3 8 , coins 4 7")
    with pytest.raises(DataError, match="search world"):
        GRADER.right_steps(other, ["so 5"])


WORDS = st.sampled_from(
    [*WHOLE.split(), "none", "high", "12", "999", "٥", "\x00", "so so", "x" * 80]
)


@given(st.lists(WORDS, max_size=60).map(" ".join) | st.text(max_size=200))
def test_no_text_makes_it_fail(text):
    GRADER.grade(PROBLEM, text)
    GRADER.holds(PROBLEM, text)
    GRADER.read_step(text)
    GRADER.quality(PROBLEM, text)
    steps = text.split(";")
    assert len(GRADER.right_steps(PROBLEM, steps)) == len(steps)
