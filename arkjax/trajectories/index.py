"""Where in a record a call is: derived from the shards when a store is opened, never stored.

An index file could go stale or be damaged. The checksums that are verified at opening need every
byte of the shards anyway, and beside them reading one column costs little.
"""

import hashlib
import re
from collections.abc import Iterator

import numpy as np
import pyarrow as pa

_HEX_ID = re.compile(r"[0-9a-f]{32}")
_MASK = 2**64 - 1
# Finalizer of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): a bijection of 64 bits.
_FIRST, _SECOND = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_DIGITS = np.full(256, 255, np.uint8)
_DIGITS[np.frombuffer(b"0123456789abcdef", np.uint8)] = np.arange(16, dtype=np.uint8)


def key_of(call_id: str) -> tuple[int, int]:
    """128 bits that stand for an id: the id itself where it is 32 hex digits, else its hash.

    The first half is mixed, so that ids which count upwards are spread like any others; the
    mixture can be undone, so that different hex ids have different keys.
    """
    if _HEX_ID.fullmatch(call_id):
        whole = int(call_id, 16)
    else:
        digest = hashlib.blake2b(call_id.encode("utf-8", "surrogatepass"), digest_size=16)
        whole = int.from_bytes(digest.digest(), "big")
    low = whole & _MASK
    return _mixed((whole >> 64) ^ _mixed(low)), low


def keys_of(ids: pa.ChunkedArray | pa.Array) -> np.ndarray:
    """Keys [n, 2] uint64 of a column of n ids, as `key_of` gives them."""
    array = ids.combine_chunks() if isinstance(ids, pa.ChunkedArray) else ids
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], pa.string())
    n = len(array)
    keys = np.empty((n, 2), np.uint64)
    if not n:
        return keys
    offsets = np.frombuffer(array.buffers()[1], np.int32)[array.offset : array.offset + n + 1]
    plain = np.zeros(n, bool)
    if offsets[-1] - offsets[0] == 32 * n and (np.diff(offsets) == 32).all():
        text = np.frombuffer(array.buffers()[2], np.uint8)[offsets[0] : offsets[-1]]
        digits = _DIGITS[text.reshape(n, 32)]
        plain = (digits < 16).all(axis=1)
        halves = np.ascontiguousarray(digits[:, 0::2] << 4 | digits[:, 1::2])
        words = halves.view(">u8").astype(np.uint64)
        keys[:, 0] = _mixed_words(words[:, 0] ^ _mixed_words(words[:, 1]))
        keys[:, 1] = words[:, 1]
    for row in np.flatnonzero(~plain).tolist():
        keys[row] = key_of(array[row].as_py())
    return keys


def _mixed(word: int) -> int:
    word = ((word ^ (word >> 30)) * _FIRST) & _MASK
    word = ((word ^ (word >> 27)) * _SECOND) & _MASK
    return word ^ (word >> 31)


def _mixed_words(words: np.ndarray) -> np.ndarray:
    words = (words ^ (words >> np.uint64(30))) * np.uint64(_FIRST)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(_SECOND)
    return words ^ (words >> np.uint64(31))


class IdIndex:
    """Ids to positions: 20 bytes for each id, in sorted arrays.

    Additions become arrays of their own, which are joined so that each is more than twice as long
    as the next: few are searched, and adding n ids moves each about log n times.

    Attributes:
      size: positions given out, those of ids that were there already included.
      unique: different ids.
    """

    def __init__(self) -> None:
        self._runs: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self.size = 0
        self.unique = 0

    def add(self, keys: np.ndarray) -> np.ndarray:
        """Give keys [n, 2] the next n positions; returns [n] bool, which ids were new.

        An id that is there already, or earlier in `keys`, stays where it was.
        """
        n = len(keys)
        positions = np.arange(self.size, self.size + n)
        self.size += n
        new = self.find_many(keys) < 0
        order = np.lexsort((positions, keys[:, 1], keys[:, 0]))
        ordered = keys[order]
        again = np.zeros(n, bool)
        again[1:] = (ordered[1:] == ordered[:-1]).all(axis=1)
        new[order[again]] = False
        kept = order[new[order]]
        if len(kept):
            first, second = keys[kept].T
            run = (first.copy(), second.copy(), positions[kept].astype(np.uint32))
            self._runs.append(run)
            self._join()
        self.unique += len(kept)
        return new

    def find(self, call_id: str) -> int:
        """Position of an id, or -1."""
        first, second = key_of(call_id)
        wanted = np.uint64(first)
        for firsts, seconds, positions in self._runs:
            at = int(firsts.searchsorted(wanted))
            while at < len(firsts) and firsts[at] == wanted:
                if int(seconds[at]) == second:
                    return int(positions[at])
                at += 1
        return -1

    def find_many(self, keys: np.ndarray) -> np.ndarray:
        """Positions [n] int64 of keys [n, 2]; -1 where there is none."""
        found = np.full(len(keys), -1, np.int64)
        for firsts, seconds, positions in self._runs:
            left = np.flatnonzero(found < 0)
            at = firsts.searchsorted(keys[left, 0])
            while len(left):
                inside = at < len(firsts)
                left, at = left[inside], at[inside]
                same = firsts[at] == keys[left, 0]
                left, at = left[same], at[same]
                hit = seconds[at] == keys[left, 1]
                found[left[hit]] = positions[at[hit]]
                left, at = left[~hit], at[~hit] + 1
        return found

    def _join(self) -> None:
        runs = self._runs
        while len(runs) > 1 and len(runs[-2][0]) <= 2 * len(runs[-1][0]):
            last, before = runs.pop(), runs.pop()
            first, second, positions = map(np.concatenate, zip(before, last, strict=True))
            order = np.lexsort((second, first))
            runs.append((first[order], second[order], positions[order]))


class ProblemIndex:
    """Problems to positions: 8 bytes for each call, and each problem's name once."""

    def __init__(self) -> None:
        self._codes: dict[str, int] = {}
        self._of_row: list[np.ndarray] = []
        self._sorted: tuple[np.ndarray, np.ndarray] | None = None

    def __iter__(self) -> Iterator[str]:
        """The problems in the order in which they were first recorded."""
        return iter(self._codes)

    def __len__(self) -> int:
        return len(self._codes)

    def add(self, column: pa.ChunkedArray | pa.Array) -> None:
        """Give the problem of each of the next calls."""
        encoded = column.dictionary_encode()
        for chunk in encoded.chunks if isinstance(encoded, pa.ChunkedArray) else [encoded]:
            names = chunk.dictionary.to_pylist()
            codes = np.array([self._codes.setdefault(n, len(self._codes)) for n in names], np.int32)
            self._of_row.append(codes[chunk.indices.to_numpy(zero_copy_only=False)])
        self._sorted = None

    def rows(self, problem_id: str) -> np.ndarray:
        """Positions of a problem's calls, ascending; none if it is unknown."""
        code = self._codes.get(problem_id)
        if code is None:
            return np.zeros(0, np.int64)
        if self._sorted is None:
            codes = np.concatenate(self._of_row)
            self._of_row = [codes]
            order = np.argsort(codes, kind="stable").astype(np.uint32)
            self._sorted = order, np.searchsorted(codes[order], np.arange(len(self._codes) + 1))
        order, starts = self._sorted
        return order[starts[code] : starts[code + 1]].astype(np.int64)
