"""Calls of a lane that are not prefilled yet: in what shape each will be, and which go next."""

import dataclasses
import itertools
from typing import NamedTuple

from arkjax.sampling.engine_config import EngineConfig
from arkjax.sampling.params import Request
from arkjax.sampling.prefixes import Ids, PrefixPool
from arkjax.sampling.shapes import Shapes

# Calls among which the longest goes first, for each slot: how often one may be overtaken.
_WINDOW = 4


class Queued(NamedTuple):
    """A call that is not prefilled yet.

    Attributes:
      request: the call.
      width: what the tokens behind its prefix are padded to.
      live: the positions that its prefill needs: those of its prompt, or `width` of them if
        prefixes are not forked.
      needed: the prefixes that must be in the pool.
    """

    request: Request
    width: int
    live: int
    needed: frozenset[Ids]


class CallQueue:
    """Calls in order of arrival, of which batches of one shape are taken.

    Attributes:
      shapes: in which the calls are computed.
    """

    def __init__(self, config: EngineConfig, length: int, prefixes: PrefixPool):
        """An empty queue.

        Args:
          config: sizes.
          length: M, positions of a slot.
          prefixes: the pool that prefixes of a batch must all fit into.
        """
        self._config, self._prefixes = config, prefixes
        self.shapes = Shapes(config, length)
        self._calls: dict[str, Queued] = {}
        self._overtaken = 0
        # Calls and tokens so far, by what may tell the length of an answer.
        self._answers: dict[tuple, tuple[int, int]] = {}

    def __len__(self) -> int:
        return len(self._calls)

    def add(self, request: Request) -> None:
        """Put a call at the end."""
        start, most = request.prefix_len, self.shapes.widths[-1]
        if len(request.prompt_ids) - start > most:
            # All but the last piece of a long prompt is computed as a prefix is, piece by piece.
            whole = (len(request.prompt_ids) - start - 1) // most * most
            shared = (*request.shared, start) if start else request.shared
            request = dataclasses.replace(request, prefix_len=start + whole, shared=shared)
        width = self.shapes.width(len(request.prompt_ids) - request.prefix_len)
        # Where prefixes are left in the pool, what follows them is all that a call computes with.
        forks = request.prefix_len and not self._config.grouped_prefixes
        live = self.shapes.live(request.prefix_len + width) if forks else width
        needed = frozenset(self._prefixes.chain(request))
        self._calls[request.id] = Queued(request, width, live, needed)

    def remove(self, request_id: str) -> None:
        """Forget a call; nothing happens if it is not there."""
        self._calls.pop(request_id, None)

    def next_batch(self, rows: int, *, patient: bool) -> list[Queued]:
        """Take the next calls that are prefilled together, off the queue.

        The longest goes first, so that no long answer is left for the end, when slots stand empty.
        All calls of a batch have one shape, so that the shape in which a call is computed, and with
        it every last bit of its numbers, depends on the call alone.

        Args:
          rows: calls that there is room for.
          patient: there are calls to go on with, so that it may be better to wait for more rows.

        Returns:
          The calls; none if none can be prefilled now.
        """
        window = _WINDOW * self._config.slots
        first = list(itertools.islice(self._calls.values(), window))
        ranked = sorted(first, key=lambda queued: -self._expected(queued.request))
        # Prefixes of calls that run may leave no room for others. Who was overtaken often enough
        # waits for it, and nobody is let in before.
        able = ranked if self._overtaken < window else first[:1]
        head = next((queued for queued in able if self._prefixes.fits(queued.needed)), None)
        if head is None:
            return []
        alike = [
            q for q in ranked if q is not head and (q.width, q.live) == (head.width, head.live)
        ]
        wanted = min(self._config.rows(head.width, self._config.admit_rows), 1 + len(alike))
        if wanted > rows and patient:
            return []
        batch, needed = [head], head.needed
        for queued in alike:
            if len(batch) == min(wanted, rows):
                break
            if self._prefixes.fits(needed | queued.needed):
                batch.append(queued)
                needed |= queued.needed
        for queued in batch:
            del self._calls[queued.request.id]
        self._overtaken = 0 if first[0] in batch else self._overtaken + len(batch)
        return batch

    def learn(self, request: Request, tokens: int) -> None:
        """Take note of how many tokens the answer to a call had."""
        calls, before = self._answers.get(_kind(request), (0, 0))
        self._answers[_kind(request)] = (calls + 1, before + tokens)

    def _expected(self, request: Request) -> float:
        """Tokens that the answer to a call will probably have."""
        calls, tokens = self._answers.get(_kind(request), (0, 0))
        return tokens / calls if calls else request.sampling.max_tokens


def _kind(request: Request) -> tuple:
    return request.sampling.max_tokens, request.sampling.stop
