"""Traces that differ: a metric, and a choice that is provably close to the best."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arkjax.synthesis.diversity import distance, most_diverse

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
