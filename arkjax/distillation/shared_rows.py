"""Sequences packed so that what several of them begin with is there once.

The sequences of a row are read as a trie, whose nodes are the segments of the row, depth first: a
token's segment goes on from the segment that is its `parents` (`models.prefix_tree`).
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from arkjax.distillation.rows import best_fit

# Sequences with fewer tokens in common lie where they fit best, and share nothing.
_LEAST = 8


class SharedRows(NamedTuple):
    """Packed sequences.

    Attributes:
      tokens, segment_ids, positions, parents: [R, T] int32, as `Transformer.forward` takes them.
      places: for each sequence [its length] int32, where its tokens stand in the flattened [R * T].
    """

    tokens: np.ndarray
    segment_ids: np.ndarray
    positions: np.ndarray
    parents: np.ndarray
    places: list[np.ndarray]


def pack_shared(
    sequences: Sequence[Sequence[int]], row_length: int, *, share: bool = True
) -> SharedRows:
    """Packs sequences into rows, what they begin with alike once for as many as a row holds.

    Args:
      sequences: token ids, of 1 to row_length tokens each.
      row_length: T.
      share: False puts every sequence whole.
    """
    given = [np.asarray(sequence, np.int32) for sequence in sequences]
    if share:
        # Equal ones are one.
        keys = [tuple(ids.tolist()) for ids in given]
        order = sorted(range(len(given)), key=keys.__getitem__)
        leaves = [next(same) for _, same in itertools.groupby(order, key=keys.__getitem__)]
        of_key = {keys[i]: at for at, i in enumerate(leaves)}
        leaf = [of_key[key] for key in keys]
    else:
        leaves = leaf = list(range(len(given)))
    ids = [given[i] for i in leaves]
    common = [0, *(_common(a, b) if share else 0 for a, b in itertools.pairwise(ids))]
    groups = _groups([len(one) for one in ids], common, row_length)
    sizes = [_size([len(one) for one in ids[a:b]], common[a:b]) for a, b in groups]
    starts, num_rows = best_fit(sizes, row_length)

    arrays = [np.zeros((num_rows, row_length), np.int32) for _ in range(4)]
    used = np.zeros(num_rows, np.int32)
    places: list[np.ndarray] = [np.zeros(0, np.int32)] * len(ids)
    # By row and column, so that segment ids rise from left to right.
    for group in sorted(range(len(groups)), key=starts.__getitem__):
        (first, end), (row, column) = groups[group], starts[group]
        tree = common[first:end]
        tree[0] = 0
        lay = _lay(ids[first:end], tree, int(used[row]))
        size = sizes[group]
        for array, values in zip(arrays, lay.columns, strict=True):
            array[row, column : column + size] = values
        used[row] = lay.columns[1].max()
        for i, where in enumerate(lay.places, start=first):
            places[i] = (row * row_length + column + where).astype(np.int32)
    tokens, segment_ids, positions, parents = arrays
    return SharedRows(tokens, segment_ids, positions, parents, [places[i] for i in leaf])


class _Trie(NamedTuple):
    """Tokens, segment ids, positions and parents of a stretch, and where each sequence's stand."""

    columns: tuple[np.ndarray, ...]
    places: list[np.ndarray]


def _lay(ids: Sequence[np.ndarray], common: Sequence[int], used: int) -> _Trie:
    """Sorted sequences depth first; `common[i]` tokens of sequence i are its predecessor's too.

    Segment ids go on from `used`.
    """
    parts: list[tuple[np.ndarray, ...]] = []
    places: list[np.ndarray] = []
    # Where the segments on the path to the present sequence end, and their ids.
    path: list[tuple[int, int]] = []
    column = 0
    for i, own in enumerate(ids):
        while path and path[-1][0] > common[i]:
            path.pop()
        before = places[-1][: common[i]] if common[i] else np.zeros(0, np.int64)
        new = len(own) - common[i]
        places.append(np.concatenate([before, np.arange(column, column + new)]))
        column += new
        # What is new here ends a segment wherever a later sequence leaves it.
        cuts, depth = set(), len(own)
        for later in common[i + 1 :]:
            depth = min(depth, later)
            if depth <= common[i]:
                break
            cuts.add(depth)
        edges = [common[i], *sorted(cuts - {len(own)}), len(own)]
        for a, b in itertools.pairwise(edges):
            if a == b:
                continue
            used += 1
            parent = path[-1][1] if path else 0
            shape = np.ones(b - a, np.int32)
            parts.append((own[a:b], used * shape, np.arange(a, b), parent * shape))
            path.append((b, used))
    columns = tuple(np.concatenate(column) for column in zip(*parts, strict=True))
    return _Trie(columns, places)


def _groups(lengths: Sequence[int], common: Sequence[int], row_length: int) -> list[tuple]:
    """Ranges of sorted sequences, each of which fits into a row as one trie.

    What does not fit is parted where it has least in common.
    """
    pieces: list[tuple[int, int]] = []
    ranges = [(0, len(lengths))] if lengths else []
    # A list of work, not recursion: a trie may be as deep as it has leaves.
    while ranges:
        first, end = ranges.pop()
        depth = min(common[first + 1 : end], default=0)
        whole = end - first == 1 or (
            depth > 0 and _size(lengths[first:end], common[first:end]) <= row_length
        )
        if whole:
            pieces.append((first, end))
            continue
        inner = [i for i in range(first + 1, end) if common[i] == depth]
        ranges += [*itertools.pairwise([first, *inner, end])][::-1]
    groups: list[tuple[int, int]] = []
    for first, end in pieces:
        if groups and common[first]:
            start = groups[-1][0]
            if _size(lengths[start:end], common[start:end]) <= row_length:
                groups[-1] = (start, end)
                continue
        groups.append((first, end))
    return groups


def _size(lengths: Sequence[int], common: Sequence[int]) -> int:
    """Tokens of a trie of sorted sequences."""
    return sum(lengths) - sum(common[1:])


def _common(a: np.ndarray, b: np.ndarray) -> int:
    """How many tokens two sequences begin with alike, as far as it is worth while."""
    n = min(len(a), len(b))
    other = np.flatnonzero(a[:n] != b[:n])
    common = int(other[0]) if len(other) else n
    return common if common >= _LEAST else 0
