"""Letters, options in words, and the golds of AQuA."""

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arkjax.tasks.graders import ChoiceGrader
from arkjax.tasks.graders.choice_grader import option_text
from arkjax.tasks.problems import Problem

pytestmark = pytest.mark.fast

GRADER = ChoiceGrader()
OPTIONS = ["Vitamin A", "B) Vitamin C", "Hepatitis B", "a cat", "125"]


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B", "B"),
        ("(b)", "B"),
        ("**B**", "B"),
        ("B)", "B"),
        ("B) Vitamin C", "B"),
        ("The answer is B.", "B"),
        ("The answer is A.", "A"),
        ("Answer: (c) Hepatitis B, not A", "C"),
        ("A: C", "C"),
        (r"\boxed{B) Vitamin C}", "B"),
        (r"\boxed{\text{(D)}}", "D"),
        ("The correct option is E) 125", "E"),
        ("A is wrong, and so is E.\nThe answer is D) a cat.", "D"),
        # An option in words.
        ("The answer is Vitamin C.", "B"),
        ("the answer is VITAMIN  c", "B"),
        ("Vitamin C", "B"),
        ("Let me think.\nHepatitis B", "C"),
        ("The answer is a cat", "D"),
        (r"\boxed{\text{Vitamin C}}", "B"),
        ("Option A fails. The answer is 125.", "E"),
        # No option.
        ("The answer is 1250", None),
        ("This is a test", None),
        ("A dog ran", None),
        ("The answer is A mystery", None),
        ("answer: a mystery", None),
        ("f(a) is 3", None),
        ("I", None),
        ("F", None),
        ("", None),
    ],
)
def test_what_is_chosen(text, letter, problem):
    grade = GRADER.grade(problem("B", options=OPTIONS), text)
    assert grade.extracted == letter
    assert grade.correct == (letter == "B")
    assert grade.reason


def test_an_option_that_stands_there_twice_names_no_letter(problem):
    posed = problem("B", options=["A)5", "B)7", "C)5"])
    assert GRADER.grade(posed, "The answer is 7").correct
    assert GRADER.grade(posed, "The answer is 5").extracted is None


def test_without_options_only_letters_count(problem):
    for options in ({}, {"options": None}, {"options": "7"}, {"options": []}):
        posed = problem("B", **options)
        assert GRADER.grade(posed, "The answer is 7").extracted is None
        assert GRADER.grade(posed, "The answer is B").correct


def test_answers_that_were_extracted(problem):
    posed = problem("B", options=OPTIONS)
    assert GRADER.accepts(posed, "B") and GRADER.accepts(posed, "b")
    assert GRADER.accepts(posed, "vitamin c.")
    assert not GRADER.accepts(posed, "Hepatitis B") and not GRADER.accepts(posed, "")
    assert GRADER.equal("B", "b") and not GRADER.equal("B", "C") and not GRADER.equal("", "")


def test_more_options_than_five(problem):
    posed = problem("H", options=[f"number {n}" for n in range(9)])
    grader = ChoiceGrader("ABCDEFGHI")
    assert grader.grade(posed, "The answer is H").correct
    assert grader.grade(posed, "The answer is number 7").correct
    assert grader.grade(posed, "so I think").extracted is None


def test_nasty_texts_are_harmless(nasty, problem):
    posed = problem("B", options=OPTIONS)
    grade = ChoiceGrader("ABCDEI").grade(posed, nasty)
    assert not grade.correct and grade.reason
    assert grade.extracted is None or len(grade.extracted) == 1
    assert not GRADER.accepts(posed, nasty)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.sampled_from(["A", "B", "a", "I", " ", "(", ")", "\n", "Answer: ", "is", "x", "."])
    ).map("".join)
    | st.text()
)
def test_any_text_has_one_reading(text):
    posed = Problem("p", "q", "B", "t", "d", {"options": OPTIONS})
    grade = GRADER.grade(posed, text)
    assert grade == GRADER.grade(posed, text)
    assert grade.extracted in (None, *"ABCDE")
    assert grade.correct == (grade.extracted == "B")


def aqua(datasets):
    for split in ("dev", "test"):
        for line in (datasets / "aqua" / f"{split}.json").read_text("utf-8").splitlines():
            yield json.loads(line)


FORMS = [
    "{}", "({})", "The answer is {}.", "Answer: {}", "**Answer:** ({})", r"\boxed{{{}}}", "A: {}",
    "A is wrong, and so is E.\nThe answer is ({}).", "I took option A at first.\nIt is option {}.",
]  # fmt: skip
SHARED = ["59:91", "6 kmph", "8.75", "L(x,y) < R(x,y)"]
TEXT_FORMS = ["{}", "The answer is {}.", r"\boxed{{{}}}", "Option A fails.\nAnswer: {}"]


def test_golds_of_aqua_are_right_in_letters_and_in_words(datasets, problem):
    shared = []
    for record in aqua(datasets):
        gold, options = record["correct"], record["options"]
        posed = problem(gold, options=options)
        said = option_text(options["ABCDE".index(gold)], gold)
        for form in (*FORMS, f"The answer is {{}}) {said}"):
            grade = GRADER.grade(posed, form.format(gold))
            assert grade.correct, (form, gold, grade)
        texts = [option_text(*pair) for pair in zip(options, "ABCDE", strict=True)]
        if texts.count(said) > 1:
            shared.append(said)
            continue
        for form in TEXT_FORMS:
            grade = GRADER.grade(posed, form.format(said))
            assert grade.correct, (form, said, grade)
    # These golds have the words of another option as well.
    assert sorted(shared) == SHARED


def test_shuffled_golds_of_aqua_are_right_only_where_they_coincide(datasets, problem):
    golds = [record["correct"] for record in aqua(datasets)]
    assert len(golds) == 508
    shuffled = random.Random(0).sample(golds, len(golds))
    accepted = [
        i
        for i, (gold, other) in enumerate(zip(golds, shuffled, strict=True))
        if GRADER.grade(problem(gold), f"The answer is {other}.").correct
    ]
    assert accepted == [i for i in range(508) if golds[i] == shuffled[i]]
    assert 0 < len(accepted) < 200
