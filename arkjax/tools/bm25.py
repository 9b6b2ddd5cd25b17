"""Finding texts by their words: Okapi BM25 over sparse postings.

The score of a text D for a query Q is

    sum over terms t of Q:  qtf(t) idf(t) tf(t, D) (k1 + 1) / (tf(t, D) + k1 (1 - b + b |D| / avg))
    idf(t) = ln(1 + (N - n(t) + 0.5) / (n(t) + 0.5))

with N texts, n(t) of them with t, tf and qtf the counts of t in text and query, |D| the words of D
and avg their mean: Robertson and Zaragoza, The Probabilistic Relevance Framework: BM25 and Beyond
(2009), section 3; the 1 in idf, which keeps it above zero, is that of Lucene's BM25Similarity.
"""

import array
import functools
import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterable

import numpy as np

K1, B = 1.2, 0.75
_BLOCK = 2**22
_ASCII = re.compile(r"[a-z0-9]+")
# Scripts that are written without spaces: each character counts as a word.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
_UNSPACED += "\uf900-\ufaff\U00020000-\U0003ffff"


@functools.cache
def _words() -> re.Pattern[str]:
    # For Python's \w, vowel signs of Indic scripts and accents of their own are no letters.
    marks = [c for c in map(chr, range(sys.maxunicode + 1)) if unicodedata.category(c)[0] == "M"]
    inside = rf"(?:[^\W_]|[{re.escape(''.join(marks))}])"
    return re.compile(rf"[{_UNSPACED}]|(?:(?![{_UNSPACED}]){inside})+")


def tokenize(text: str) -> list[str]:
    """The words of a text as they are compared: case, widths and ligatures make no difference.

    Of Chinese, Japanese, Thai and other scripts without spaces, every character is a word.
    """
    if text.isascii():
        return _ASCII.findall(text.lower())
    return _words().findall(unicodedata.normalize("NFKC", text).casefold())


class Index:
    """An index of N texts: for each term the texts that have it, and how often.

    Takes 8 bytes for each different word of each text, and while it is built some 20.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        """Index texts; they are read once, in order, and not kept."""
        self._terms: dict[str, int] = {}
        lengths = array.array("i")
        blocks: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        terms, docs, counts = (array.array("i") for _ in range(3))
        for doc, text in enumerate(texts):
            words = tokenize(text)
            lengths.append(len(words))
            for word, count in Counter(words).items():
                terms.append(self._terms.setdefault(word, len(self._terms)))
                docs.append(doc)
                counts.append(count)
            if len(terms) >= _BLOCK:
                blocks.append(_by_term(terms, docs, counts))
                terms, docs, counts = (array.array("i") for _ in range(3))
        blocks.append(_by_term(terms, docs, counts))
        self.size = len(lengths)
        self._lengths = np.array(lengths, dtype=np.float64)
        self._merge(blocks)

    def _merge(self, blocks: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> None:
        """Put the blocks together by term; each is let go once it is copied."""
        sizes = np.zeros(len(self._terms), dtype=np.int64)
        for terms, _, _ in blocks:
            sizes += np.bincount(terms, minlength=len(sizes))
        self._starts = np.concatenate([[0], np.cumsum(sizes)])
        self._docs = np.empty(self._starts[-1], dtype=np.int32)
        self._counts = np.empty(self._starts[-1], dtype=np.int32)
        free = self._starts[:-1].copy()
        for i, (terms, docs, counts) in enumerate(blocks):
            here = np.bincount(terms, minlength=len(sizes))
            first = np.cumsum(here) - here
            places = free[terms] + np.arange(len(terms)) - first[terms]
            self._docs[places], self._counts[places] = docs, counts
            free += here
            blocks[i] = (terms[:0], docs[:0], counts[:0])

    def scores(self, query: str) -> np.ndarray:
        """The score of every text for a query: [N] float64, zero where no word is shared."""
        scores = np.zeros(self.size)
        mean = max(float(self._lengths.mean()), 1.0) if self.size else 1.0
        for word, times in Counter(tokenize(query)).items():
            term = self._terms.get(word)
            if term is None:
                continue
            part = slice(self._starts[term], self._starts[term + 1])
            docs, tf = self._docs[part], self._counts[part].astype(np.float64)
            idf = np.log1p((self.size - len(docs) + 0.5) / (len(docs) + 0.5))
            length = K1 * (1.0 - B + B * self._lengths[docs] / mean)
            # No text stands twice in the postings of a term.
            scores[docs] += times * idf * tf * (K1 + 1.0) / (tf + length)
        return scores

    def search(self, query: str, top: int) -> list[tuple[int, float]]:
        """The best texts that share a word with a query: (index, score), best first.

        Of equal ones the earlier comes first.
        """
        scores = self.scores(query)
        found = np.flatnonzero(scores)
        if len(found) > top:
            # All that are as good as the last of the best, so that ties go by their order.
            least = np.partition(scores[found], -top)[-top]
            found = found[scores[found] >= least]
        order = np.lexsort((found, -scores[found]))[:top]
        return [(int(i), float(scores[i])) for i in found[order]]


def _by_term(
    terms: array.array, docs: array.array, counts: array.array
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Postings in the order of their terms, and of texts within a term."""
    arrays = [np.frombuffer(values, dtype=np.int32) for values in (terms, docs, counts)]
    order = np.argsort(arrays[0], kind="stable")
    return arrays[0][order], arrays[1][order], arrays[2][order]
