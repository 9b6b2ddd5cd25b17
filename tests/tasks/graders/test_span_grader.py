"""Short answers: the figures of SQuAD's, HotpotQA's and QASPER's scripts."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arkjax.tasks.graders import SpanGrader
from arkjax.tasks.graders.span_grader import LONGEST, f1, normalize
from arkjax.tasks.problems import Problem, ScoredGrader

pytestmark = pytest.mark.fast

GRADER = SpanGrader()
QASPER = SpanGrader(threshold=0.5, whole=())


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The Eiffel  Tower!", "eiffel tower"),
        ("an A.B.C.", "abc"),
        ("theatre, a play", "theatre play"),
        ("the", ""),
        ("1,234", "1234"),
        ("naïve – café", "naïve – café"),
        ("\ud800", "\ud800"),
    ],
)
def test_normalisation(text, normal):
    assert normalize(text) == normal


@pytest.mark.parametrize(
    ("gold", "answer", "expected"),
    [
        ("the Eiffel Tower", "Eiffel tower.", 1.0),
        # 2 of 4 words are right, and 2 of 2 are found.
        ("Barack Obama", "President Barack Hussein Obama", 2 / 3),
        ("a b b", "b b b", 2 * (2 / 3) * 1 / (2 / 3 + 1)),
        ("Paris", "Rome", 0.0),
        ("", "Rome", 0.0),
        ("the", "a", 0.0),
    ],
)
def test_f1(gold, answer, expected):
    assert f1(gold, answer) == pytest.approx(expected)
    assert f1(answer, gold) == pytest.approx(expected)


def test_yes_and_no_must_match_wholly_as_in_hotpotqa(problem):
    assert GRADER.score(problem("yes"), "Yes.") == {"em": 1.0, "f1": 1.0}
    for gold, text in [
        ("yes", "yes it is"), ("no way", "no"), ("yes", "no"), ("noanswer", "I have noanswer"),
    ]:  # fmt: skip
        assert GRADER.score(problem(gold), text) == {"em": 0.0, "f1": 0.0}
    assert QASPER.score(problem("Yes"), "yes it is")["f1"] == pytest.approx(0.5)


def test_qasper(problem):
    posed = problem("x", answers=["Unanswerable", "the BERT baseline of Devlin"])
    assert QASPER.grade(posed, "Answer: unanswerable").correct
    assert QASPER.grade(posed, "Answer: a BERT baseline").correct
    assert not QASPER.grade(posed, "Answer: baseline").correct
    assert not GRADER.grade(posed, "Answer: a BERT baseline").correct
    assert QASPER.score(posed, "a BERT baseline")["f1"] == pytest.approx(2 * 2 / (2 + 4))


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Thought.\nAnswer: Paris", "Paris"),
        ("**Answer:** Paris\nBecause I know.", "Paris"),
        ("The answer is the Eiffel Tower.", "the Eiffel Tower."),
        (r"\boxed{Paris}", "Paris"),
        ("Thought.\n\nParis\n", "Paris"),
        ("Paris", "Paris"),
        ("Answer:", None),
        ("", None),
    ],
)
def test_what_is_read(text, answer):
    assert GRADER.extract(text) == answer


def test_the_best_of_several_gold_answers_counts(problem):
    posed = problem("unused", answers=["Barack Obama", "Obama"])
    grade = GRADER.grade(posed, "Answer: Obama")
    assert grade.correct and grade.extracted == "Obama"
    grade = GRADER.grade(posed, "Answer: Barack H. Obama")
    assert not grade.correct
    assert grade.reason == "expected Barack Obama or Obama; EM 0, F1 0.800"
    assert GRADER.grade(problem("Obama", answers=[]), "Obama").correct
    assert GRADER.accepts(posed, "the obama!") and not GRADER.accepts(posed, "")


def test_equal_answers():
    assert GRADER.equal("The Eiffel Tower", "eiffel tower.")
    assert not GRADER.equal("Eiffel Tower", "Tower")


def test_it_has_figures():
    assert isinstance(GRADER, ScoredGrader)


def test_nasty_texts_are_harmless(nasty, problem):
    for grader in (GRADER, QASPER):
        grade = grader.grade(problem("Marie Curie", answers=["Marie Curie", "no"]), nasty)
        assert not grade.correct and grade.reason
        assert grade.extracted is None or len(grade.extracted) <= LONGEST
        assert not grader.accepts(problem("Marie Curie"), nasty)


@settings(max_examples=300, deadline=None)
@given(st.text(), st.text(st.sampled_from("ab the.\n:Answer")))
def test_figures_of_any_text_are_shares(text, gold):
    posed = Problem("p", "q", gold, "t", "d")
    figures = GRADER.score(posed, text)
    assert figures == GRADER.score(posed, text)
    assert set(figures) == {"em", "f1"} and all(0 <= value <= 1 for value in figures.values())
    assert GRADER.grade(posed, text).correct in (False, figures["em"] == 1)
