"""Which shared prefixes a lane has computed, where they lie, and which are to be computed next."""

import collections
import dataclasses
from collections.abc import Sequence

from arkjax.sampling.params import Request

Ids = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Piece:
    """Tokens to be computed behind a prefix that is there.

    Attributes:
      parent: row of the prefix that they follow; of no meaning where `start` is 0.
      row: where the longer prefix goes.
      start: tokens of the parent.
      ids: the tokens.
    """

    parent: int
    row: int
    start: int
    ids: Ids


class PrefixPool:
    """Rows of a lane's prefix pool by the prefix that each holds, least recently used first.

    A prefix grows from the longest of its shared beginnings that is there, so that a system prompt
    is computed once for all debates, and a transcript once for all who see it and all rounds that
    follow.
    """

    def __init__(self, rows: int, least: int = 1):
        """An empty pool.

        Args:
          rows: prefixes that it holds.
          least: tokens that a shared beginning must add to the one before it to be kept.
        """
        self._size, self._least = rows, least
        self._rows: collections.OrderedDict[Ids, int] = collections.OrderedDict()
        self._pins: collections.Counter[Ids] = collections.Counter()

    def clear(self) -> None:
        """Forget all prefixes; none may be pinned."""
        assert not self._pins
        self._rows.clear()

    def row(self, request: Request) -> int:
        """The row of a request's prefix; any where it has none."""
        return self._rows.get(request.prompt_ids[: request.prefix_len], 0)

    def cached(self, request: Request) -> int:
        """Tokens of a request's prompt that are there already."""
        chain = self.chain(request)
        return next((len(ids) for ids in reversed(chain) if ids in self._rows), 0)

    def chain(self, request: Request) -> list[Ids]:
        """The prefixes that are kept for a request, from the shortest to its own."""
        lengths = [0]
        for length in request.shared:
            if length - lengths[-1] >= self._least:
                lengths.append(length)
        lengths = [n for n in (*lengths, request.prefix_len) if n]
        return [request.prompt_ids[:n] for n in lengths[-self._size :]]

    def pin(self, request: Request) -> None:
        """Keep a request's prefix, which is there, until `unpin` was called as often."""
        if request.prefix_len:
            self._pins[request.prompt_ids[: request.prefix_len]] += 1

    def unpin(self, request: Request) -> None:
        """Let a request's prefix go, if no other request needs it."""
        ids = request.prompt_ids[: request.prefix_len]
        if ids:
            self._pins[ids] -= 1
            if not self._pins[ids]:
                del self._pins[ids]

    def fits(self, needed: frozenset[Ids]) -> bool:
        """Whether all these prefixes can be there at once, beside those pinned."""
        return len(needed) + len(self._pins.keys() - needed) <= self._size

    def missing(self, requests: Sequence[Request], most: int) -> list[list[Piece]]:
        """What to compute so that the prefixes of all these requests are there.

        Rows are taken from prefixes that none of the requests needs, and that are not pinned.

        Args:
          requests: whose prefixes all fit together.
          most: tokens that are computed behind a prefix at a time.

        Returns:
          Pieces in layers; those of one layer do not depend on each other.
        """
        chains = [self.chain(request) for request in requests]
        for ids in (ids for chain in chains for ids in chain):
            if ids in self._rows:
                self._rows.move_to_end(ids)
        needed = {ids for chain in chains for ids in chain} | self._pins.keys()
        layers: list[list[Piece]] = []
        depth: dict[Ids, int] = {}
        for chain in chains:
            parent: Ids = ()
            for ids in chain:
                if ids not in self._rows:
                    row = self._take(needed)
                    level = depth.get(parent, 0)
                    source, start = self._rows.get(parent, 0), len(parent)
                    while start < len(ids):
                        end = min(start + most, len(ids))
                        layers += [[]] if level == len(layers) else []
                        layers[level].append(Piece(source, row, start, ids[start:end]))
                        source, start, level = row, end, level + 1
                    self._rows[ids], depth[ids] = row, level
                parent = ids
        return layers

    def _take(self, needed: set[Ids]) -> int:
        if len(self._rows) < self._size:
            return len(self._rows)
        oldest = next(ids for ids in self._rows if ids not in needed)
        return self._rows.pop(oldest)
