"""Traces that differ: a metric, and a choice that is provably close to the best."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arkjax.synthesis.diversity import distance, hidden_distance, most_diverse, step_distance
from arkjax.synthesis.operations import StepReader, operation, sequence_distance

pytestmark = pytest.mark.fast
TOKENS = st.lists(st.integers(0, 3), min_size=1, max_size=9).map(tuple)
FEW = settings(max_examples=60, deadline=None)


class Said:
    """As much of a call as matters here."""

    def __init__(self, ids):
        self.gen_ids = ids


@FEW
@given(TOKENS, TOKENS, TOKENS)
def test_distance_is_a_metric_on_sets_of_grams(a, b, c):
    a, b, c = Said(a), Said(b), Said(c)
    assert distance(a, a) == 0
    assert distance(a, b) == distance(b, a)
    assert 0 <= distance(a, b) <= 1
    assert distance(a, c) <= distance(a, b) + distance(b, c) + 1e-12


def test_distance_by_hand():
    # 4-grams 1234 2345 | 1234 2346: one of three is shared.
    assert distance(Said((1, 2, 3, 4, 5)), Said((1, 2, 3, 4, 6))) == pytest.approx(2 / 3)
    # Shorter than a gram: the whole answer is one.
    assert distance(Said((1, 2)), Said((1, 2))) == 0
    assert distance(Said((1, 2)), Said((2, 1))) == 1


@FEW
@given(st.lists(TOKENS, min_size=1, max_size=7, unique=True), st.integers(1, 4))
def test_the_spread_is_at_least_half_the_best(words, k):
    calls = [Said(ids) for ids in words]
    chosen = most_diverse(calls, k)
    assert chosen[0] is calls[0]
    assert len(chosen) == len({id(c) for c in chosen}) == min(k, len(calls))

    def spread(of):
        return min((distance(a, b) for a, b in itertools.combinations(of, 2)), default=1.0)

    best = max(spread(those) for those in itertools.combinations(calls, len(chosen)))
    assert spread(chosen) >= best / 2 - 1e-12


def test_equal_distances_are_decided_by_preference():
    calls = [Said((i, i, i, i)) for i in range(5)]
    assert most_diverse(calls, 3) == calls[:3]
    assert most_diverse([], 3) == []


# --- steps ----------------------------------------------------------------------------------------

KEYS = st.lists(st.sampled_from("abc"), max_size=5)


@FEW
@given(KEYS, KEYS, KEYS)
def test_the_edit_distance_of_sequences_is_a_metric(a, b, c):
    assert (sequence_distance(a, b) == 0) == (a == b)
    assert sequence_distance(a, b) == sequence_distance(b, a)
    assert 0 <= sequence_distance(a, b) <= 1
    assert sequence_distance(a, c) <= sequence_distance(a, b) + sequence_distance(b, c) + 1e-12


def test_answers_that_work_out_the_same_are_alike_whatever_their_words(world):
    problem = world.problem_of((("peak", 3, 2), ("peak", 5, 1)))
    texts = [
        "peak 3 2 makes 3 total 3 ; peak 5 1 makes 5 total 8 ; so 8",
        "peak 3 2 is 3 sum 3 ; peak 5 1 is 5 sum 8 ; so 8",
        "peak 5 1 makes 5 total 5 ; peak 3 2 makes 3 total 8 ; so 8",
    ]
    calls = [world.said(t, problem, agent=a) for t, a in zip(texts, "abc", strict=True)]
    between = step_distance(StepReader.of(world.grader, world.tokenizer))
    assert between(calls[0], calls[1]) == 0
    # Two of three steps replaced: 2 * 2 / (3 + 3 + 2).
    assert between(calls[0], calls[2]) == pytest.approx(0.5)
    assert most_diverse(calls, 2, between) == [calls[0], calls[2]]
    # By their words the other two are farther.
    assert most_diverse(calls, 2) == [calls[0], calls[1]]


@pytest.mark.parametrize(
    ("text", "other", "subject", "claim"),
    [
        ("So 3 * 4 = 12 apples.", "**Step 2.** We have $3 \u00d7 4 = 12$:", "3*4", "12"),
        ("(1,200 - 200)/2 = 500", "thus (1200-200)\u00f72 = 500.", "(1200-200)/2", "500"),
        ("x - 1 = \u22123.5", "Now x-1 = -3.5.", "x-1", "-3.5"),
        ("1 + 1 = 2 and 2 + 2 = 4.", "1+1=2, 2+2=4", "1+1; 2+2", "2; 4"),
    ],
)
def test_equations_are_what_a_step_is_about(text, other, subject, claim):
    assert operation(text) == operation(other) == (subject, claim)


def test_words_without_equations_are_compared_without_marks():
    assert operation("1. **We** count, the apples!")[0] == "we count the apples"
    assert operation("Step 3: We count the apples.") == ("we count the apples",) * 2
    assert operation("3.5 apples") != operation("35 apples")


@FEW
@given(st.text())
def test_no_text_makes_the_reading_of_steps_fail(text):
    subject, claim = operation(text)
    assert operation(text) == (subject, claim)


# --- hidden states --------------------------------------------------------------------------------


def test_hidden_states_are_compared_without_what_they_share(call):
    calls = [call(agent=agent) for agent in "abc"]
    parts = np.array([[0, 1.0, 0], [0, 2.0, 0], [0, -3.0, 0]])
    for common in (0.0, 1000.0):
        between = hidden_distance(calls, parts + [common, 0, 0])
        assert between(calls[0], calls[1]) == pytest.approx(1)
        assert between(calls[0], calls[2]) == pytest.approx(4)
        assert most_diverse(calls, 2, between) == [calls[0], calls[2]]
