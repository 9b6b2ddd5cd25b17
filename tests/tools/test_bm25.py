"""BM25 against its formula: by hand, and on random texts by brute force."""

import math
import random

import numpy as np
import pytest

from arkjax.tools import bm25
from arkjax.tools.bm25 import Index, tokenize

pytestmark = pytest.mark.fast


def test_words_of_many_scripts():
    assert tokenize("The CAT, the cat's 3.5kg") == ["the", "cat", "the", "cat", "s", "3", "5kg"]
    assert tokenize("Straße ＦＵＬＬ ﬁn") == ["strasse", "full", "fin"]
    # One word however its accent is typed, and vowel signs do not part words.
    assert tokenize("e\u0301tude") == tokenize("étude") == ["étude"]
    assert tokenize("हिन्दी भाषा") == ["हिन्दी", "भाषा"]
    assert tokenize("東京 is 東") == ["東", "京", "is", "東"]
    assert tokenize("") == tokenize(" ,;\u2028 ") == []


def test_scores_by_hand():
    index = Index(["a b", "a a c c", "d"])
    # N = 3, mean length 7/3. Of "a": n = 2, idf = ln(1 + 1.5 / 2.5); of "d": ln(1 + 2.5 / 1.5).
    first = math.log(1.6) * 1 * 2.2 / (1 + 1.2 * (0.25 + 0.75 * 2 / (7 / 3)))
    second = math.log(1.6) * 2 * 2.2 / (2 + 1.2 * (0.25 + 0.75 * 4 / (7 / 3)))
    np.testing.assert_allclose(index.scores("A"), [first, second, 0.0], rtol=1e-12)
    third = math.log(1 + 2.5 / 1.5) * 2.2 / (1 + 1.2 * (0.25 + 0.75 / (7 / 3)))
    np.testing.assert_allclose(index.scores("d d a")[2], 2 * third, rtol=1e-12)
    assert [i for i, _ in index.search("a d", 5)] == [2, 1, 0]


def _by_formula(texts: list[str], query: str) -> list[float]:
    words = [text.split() for text in texts]
    mean = sum(map(len, words)) / len(words)
    scores = []
    for document in words:
        score = 0.0
        for word in query.split():
            n = sum(word in other for other in words)
            tf = document.count(word)
            idf = math.log(1 + (len(words) - n + 0.5) / (n + 0.5))
            score += idf * tf * 2.2 / (tf + 1.2 * (1 - 0.75 + 0.75 * len(document) / mean))
        scores.append(score)
    return scores


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("block", [1, 37, 2**22])
def test_scores_are_those_of_the_formula(seed, block, monkeypatch):
    monkeypatch.setattr(bm25, "_BLOCK", block)
    rng = random.Random(seed)
    texts = [
        " ".join(f"w{int(rng.paretovariate(0.6))}" for _ in range(rng.randint(1, 30)))
        for _ in range(120)
    ]
    index = Index(iter(texts))
    for _ in range(20):
        query = " ".join(f"w{int(rng.paretovariate(0.6))}" for _ in range(rng.randint(1, 6)))
        expected = _by_formula(texts, query)
        np.testing.assert_allclose(index.scores(query), expected, rtol=1e-10, atol=1e-12)
        found = index.search(query, 7)
        # By the index's own figures: sums in another order may break a tie.
        own = index.scores(query)
        ranked = sorted(range(len(texts)), key=lambda i: (-own[i], i))
        assert [i for i, _ in found] == [i for i in ranked if own[i] > 0][:7]


def test_ties_go_by_order_and_nothing_is_found_without_a_word_in_common():
    index = Index(["x y"] * 100)
    assert [i for i, _ in index.search("x", 3)] == [0, 1, 2]
    assert index.search("z", 3) == index.search("", 3) == []
    assert Index([]).search("x", 3) == []
    assert [i for i, _ in Index(["", "x", "..."]).search("x", 3)] == [1]
