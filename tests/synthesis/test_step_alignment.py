"""What steps say, and which of two answers' steps belong together."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arkjax.synthesis.step_alignment import align, step_content

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("coins 2 8 makes 1 total 1 ;", ("2", "8", "1", "1")),
        ("So 1,200.50 + 007 = 1207.5", ("1200.5", "7", "1207.5")),
        ("x = -3, and 5 - 3 = 5-3", ("-3", "5", "3", "5", "3")),
        ("f(2)-1 and [4]-1", ("2", "1", "4", "1")),
        ("-0 and 0.00", ("0", "0")),
        ("1,2 and 12,345,678", ("1", "2", "12345678")),
    ],
)
def test_numbers_are_read_however_they_are_written(text, numbers):
    assert step_content(text, "numbers") == numbers


def test_steps_without_numbers_are_their_words():
    assert step_content("Hence, THE claim!", "numbers") == ("hence", "the", "claim")
    assert step_content("Hence the claim.", "words") == step_content("hence, the Claim", "words")
    assert step_content("a is 1", "words") != step_content("a makes 1", "words")
    assert step_content("a is 1", "numbers") == step_content("a makes 1", "numbers")


def test_huge_numbers_are_only_text():
    assert step_content("9" * 50_000, "numbers") == ("9" * 50_000,)


def test_steps_are_matched_by_what_they_are_about():
    a = ["coins 2 8 is 0 sum 0 ;", "peak 3 2 is 3 sum 3 ;", "so 3"]
    b = ["let me see ;", "coins 2 8 makes 1 total 1 ;", "peak 3 2 makes 3 total 4 ;", "so 4"]
    assert align(a, b) == [1, 2, 3]
    assert align(b, a) == [None, 0, 1, 2]
    assert align(a, a) == [0, 1, 2]
    assert align([], a) == [] and align(a, []) == [None] * 3


def test_steps_without_a_common_word_go_by_their_place():
    assert align(["p", "q"], ["r", "s"]) == [0, 1]


_STEPS = st.lists(st.text(st.sampled_from("ab 1"), max_size=5), max_size=4)


def score(a, b, pairs):
    def words(text):
        return set(step_content(text, "words"))

    def common(x, y):
        return len(x & y) / len(x | y) if x and y else 0.0

    return sum(1e-3 + common(words(a[i]), words(b[j])) for i, j in pairs)


def matchings(n, m):
    """Every way to match steps of n and of m in order."""
    for size in range(min(n, m) + 1):
        for left in itertools.combinations(range(n), size):
            for right in itertools.combinations(range(m), size):
                yield list(zip(left, right, strict=True))


@settings(deadline=None)
@given(_STEPS, _STEPS)
def test_no_other_alignment_in_order_has_more_in_common(a, b):
    found = [(i, j) for i, j in enumerate(align(a, b)) if j is not None]
    assert found in list(matchings(len(a), len(b)))
    best = max(score(a, b, pairs) for pairs in matchings(len(a), len(b)))
    assert score(a, b, found) == pytest.approx(best, abs=1e-9)
