"""Near-duplicates among very many token sequences: MinHash signatures and banding.

The similarity of two sequences is the Jaccard index J of the sets of their token n-grams. Under a
random order of all n-grams the least one of each set is the same with probability J (Broder 1997).
A signature holds the least of P such orders, so the share of places in which two signatures agree
is an unbiased estimate of J, with a standard deviation of sqrt(J (1 - J) / P), which is at most
1 / (2 sqrt(P)), and

    Pr(|estimate - J| >= e) <= 2 exp(-2 P e^2)    (Hoeffding 1963),

at P = 128: .044, and at most one pair in 1,000 off by .173 or more. Orders come from mixing 64-bit
hashes of the n-grams; a signature keeps 32 bits of each, so that two unequal places agree by chance
once in 2^32.

Pairs are not compared all with all: a signature is cut into b bands of r values, and only sequences
that agree in a whole band are compared, which a pair of similarity J does with probability
1 - (1 - J^r)^b (Leskovec, Rajaraman and Ullman, Mining of Massive Datasets, section 3.4).
"""

import math
from collections.abc import Iterable, Sequence

import numpy as np

PERMUTATIONS = 128
GRAM = 4
_RECALL = 0.99
# n-grams whose P hashes are worked out together: 4 MiB at P = 128, which stays in a cache.
_AT_ONCE = 1 << 12
_PAIRS_AT_ONCE = 1 << 14


def _mix(x: np.ndarray) -> np.ndarray:
    """A one-to-one scrambling of 64-bit numbers: SplitMix64's last step (Steele et al. 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def gram_hashes(ids: Sequence[int], gram: int = GRAM) -> np.ndarray:
    """uint64 hashes of the set of n-grams of a sequence; one shorter than a gram is one itself."""
    tokens = np.asarray(ids, np.int64).astype(np.uint64)
    width = min(gram, len(tokens))
    count = len(tokens) - width + 1
    hashes = np.full(max(count, 1), np.uint64(0x9E3779B97F4A7C15 + width), np.uint64)
    for offset in range(width):
        hashes = _mix(hashes * np.uint64(0xD1342543DE82EF95) + tokens[offset : offset + count])
    return np.unique(hashes)


def signatures(
    sequences: Iterable[Sequence[int]],
    *,
    permutations: int = PERMUTATIONS,
    gram: int = GRAM,
    seed: int = 0,
) -> np.ndarray:
    """MinHash signatures `[N, P]` uint32; memory beside them does not grow with N.

    Args:
      sequences: of token ids.
      permutations: P.
      gram: n of the n-grams.
      seed: determines the orders.
    """
    # Multiply and add (Dietzfelbinger et al. 1997), on hashes that are scrambled already.
    shifts = _mix(np.arange(1, permutations + 1, dtype=np.uint64) + np.uint64(seed << 32))[:, None]
    factors = _mix(shifts) | np.uint64(1)
    done: list[np.ndarray] = []
    waiting: list[np.ndarray] = []
    size = 0

    def flushed() -> np.ndarray:
        starts = np.cumsum([0, *map(len, waiting[:-1])])
        hashes = factors * np.concatenate(waiting)[None, :]
        hashes += shifts
        least = np.minimum.reduceat(hashes, starts, axis=1)
        return (least >> np.uint64(32)).astype(np.uint32).T

    for ids in sequences:
        hashes = gram_hashes(ids, gram)
        if waiting and size + len(hashes) > _AT_ONCE:
            done.append(flushed())
            waiting, size = [], 0
        waiting.append(hashes)
        size += len(hashes)
    if waiting:
        done.append(flushed())
    return np.concatenate(done) if done else np.zeros((0, permutations), np.uint32)


def estimate(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Estimated Jaccard index of signatures `[..., P]`, `[...]` float64."""
    return (a == b).mean(-1)


def error_bound(confidence: float = 0.999, permutations: int = PERMUTATIONS) -> float:
    """What the error of an estimate stays below with this probability, by Hoeffding's bound."""
    return math.sqrt(math.log(2 / (1 - confidence)) / (2 * permutations))


def bands_for(threshold: float, permutations: int = PERMUTATIONS) -> tuple[int, int]:
    """(b, r): the longest bands that still meet 99 of 100 pairs at the threshold."""
    for rows in range(permutations, 1, -1):
        bands = permutations // rows
        if 1 - (1 - threshold**rows) ** bands >= _RECALL:
            return bands, rows
    return permutations, 1


def band_keys(of: np.ndarray, band: int, rows: int) -> np.ndarray:
    """uint64 `[N]` of signatures `[N, P]`: equal where these agree in a whole band of r rows."""
    keys = np.full(len(of), np.uint64(band + 1), np.uint64)
    for column in of[:, band * rows : (band + 1) * rows].T:
        keys = _mix(keys * np.uint64(0xD1342543DE82EF95) + column)
    return keys


def near_duplicates(of: np.ndarray, threshold: float) -> np.ndarray:
    """For each signature the first one of its cluster: itself where nothing before it is like it.

    Clusters are the connected components of the pairs whose estimated similarity reaches the
    threshold, so that two members may be less alike than that. Of those that share a band each is
    compared with the first and with the one before it; time grows as N log N, memory by a few
    numbers a signature.

    Args:
      of: signatures `[N, P]`.
      threshold: in (0, 1].

    Returns:
      `[N]` int64, at most the index itself.
    """
    count = len(of)
    first = np.arange(count)
    bands, rows = bands_for(threshold, of.shape[1])
    for band in range(bands):
        keys = band_keys(of, band, rows)
        order = np.argsort(keys, kind="stable")
        same = keys[order][1:] == keys[order][:-1]
        # The first of each run of equal keys, for every place.
        head = np.maximum.accumulate(np.where(np.r_[True, ~same], np.arange(count), 0))
        later = np.flatnonzero(np.r_[False, same])
        for others in (order[later - 1], order[head[later]]):
            first = _joined(first, others, order[later], of, threshold)
    return first


def _joined(
    first: np.ndarray, a: np.ndarray, b: np.ndarray, of: np.ndarray, threshold: float
) -> np.ndarray:
    """Clusters, given by their first members, after those pairs of them that are alike are one."""
    apart = first[a] != first[b]
    a, b = a[apart], b[apart]
    alike = [
        estimate(of[a[i : i + _PAIRS_AT_ONCE]], of[b[i : i + _PAIRS_AT_ONCE]]) >= threshold
        for i in range(0, len(a), _PAIRS_AT_ONCE)
    ]
    if not alike:
        return first
    pairs = np.concatenate(alike)
    a, b = a[pairs], b[pairs]
    # Both roots take the smaller one until nothing changes; roots point to themselves.
    while True:
        low, high = np.minimum(first[a], first[b]), np.maximum(first[a], first[b])
        if (low == high).all():
            return first
        first = first.copy()
        np.minimum.at(first, high, low)
        while (first[first] != first).any():
            first = first[first]
