"""Near-duplicates: estimates within their bound, and clusters that all-with-all would find."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arkjax.synthesis.minhash import (
    GRAM,
    bands_for,
    error_bound,
    estimate,
    gram_hashes,
    near_duplicates,
    signatures,
)

pytestmark = pytest.mark.fast


def jaccard(a, b):
    grams = [{tuple(x[i : i + GRAM]) for i in range(max(len(x) - GRAM + 1, 1))} for x in (a, b)]
    return len(grams[0] & grams[1]) / len(grams[0] | grams[1])


def some(rng, count, length=60, changes=(0, 12), families=10):
    """Sequences that are others with a few tokens changed."""
    roots = rng.integers(0, 500, (families, length))
    made = []
    for _ in range(count):
        ids = roots[rng.integers(families)].copy()
        where = rng.integers(0, length, rng.integers(*changes))
        ids[where] = rng.integers(0, 500, len(where))
        made.append(ids.tolist())
    return made


def test_estimates_keep_within_the_stated_bound():
    sequences = some(np.random.default_rng(0), 80)
    of = signatures(sequences)
    assert of.shape == (80, 128) and of.dtype == np.uint32
    pairs = np.array(list(itertools.combinations(range(80), 2)))
    errors = estimate(of[pairs[:, 0]], of[pairs[:, 1]]) - np.array(
        [jaccard(sequences[i], sequences[j]) for i, j in pairs]
    )
    # Pairs of one family are not independent, so the share that may be off is given some room.
    assert (np.abs(errors) > error_bound(0.999)).mean() < 0.002
    assert np.abs(errors).max() < error_bound(0.999999)
    # Unbiased: the mean over many orders comes as near as their number says.
    many = signatures(sequences[:12], permutations=4096, seed=3)
    for i, j in itertools.combinations(range(12), 2):
        bound = error_bound(0.99999, 4096)
        assert abs(estimate(many[i], many[j]) - jaccard(sequences[i], sequences[j])) < bound


@given(st.lists(st.integers(0, 2**31 - 1), max_size=12))
@settings(max_examples=60, deadline=None)
def test_grams_are_a_set(ids):
    expected = {tuple(ids[i : i + GRAM]) for i in range(max(len(ids) - GRAM + 1, 1))}
    assert len(gram_hashes(ids)) == len(expected)
    assert (signatures([ids]) == signatures([ids])).all()


def test_a_signature_depends_on_its_sequence_alone(monkeypatch):
    sequences = [*some(np.random.default_rng(1), 30), [], [4], [4, 5]]
    alone = np.concatenate([signatures([ids]) for ids in sequences])
    monkeypatch.setattr("arkjax.synthesis.minhash._AT_ONCE", 100)
    assert (signatures(sequences) == alone).all()
    assert signatures([]).shape == (0, 128)


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.9, 1.0])
def test_bands_meet_nearly_all_pairs_at_the_threshold(threshold):
    bands, rows = bands_for(threshold)
    assert bands * rows <= 128
    assert 1 - (1 - threshold**rows) ** bands >= 0.99


@pytest.mark.parametrize("threshold", [0.6, 0.8, 1.0])
def test_clusters_are_those_of_all_pairs(threshold):
    rng = np.random.default_rng(2)
    sequences = some(rng, 300, changes=(0, 4), families=25)
    of = signatures(sequences)
    expected = np.arange(300)
    for i, j in itertools.combinations(range(300), 2):
        if estimate(of[i], of[j]) >= threshold:
            roots = expected[i], expected[j]
            expected[(expected == roots[0]) | (expected == roots[1])] = min(roots)
    found = near_duplicates(of, threshold)
    assert (found <= np.arange(300)).all() and (found[found] == found).all()
    # Nothing is joined that all pairs would not join, and hardly anything is missed.
    assert (expected[found] == expected).all()
    assert (found == expected).mean() > 0.97
    assert len(set(found.tolist())) < 290


def test_the_same_words_are_one_whatever_their_number():
    of = signatures([[1, 2, 3, 4, 5]] * 1000 + [[6, 7, 8, 9]])
    assert near_duplicates(of, 1.0).tolist() == [0] * 1000 + [1000]
    assert near_duplicates(of[:0], 0.5).tolist() == []
