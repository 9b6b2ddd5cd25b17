"""The slots of one context length: what the host does between blocks, one block behind."""

import collections
import functools
import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import jax
import numpy as np

from arkjax.models.transformer import Weight
from arkjax.sampling import decode, layout
from arkjax.sampling.call_queue import CallQueue
from arkjax.sampling.engine_config import EngineConfig
from arkjax.sampling.engine_profile import EngineProfile
from arkjax.sampling.params import PENDING, Generation, Request
from arkjax.sampling.prefix_cache import PrefixCache, filled_columns
from arkjax.sampling.running_call import RunningCall, Steps
from arkjax.sampling.sampler import RowSampling, seed_words
from arkjax.sampling.stopping import StopTexts

# Chunks that a shared beginning of prefixes must have to be worth a row and a step of its own.
_LEAST_SHARED = 4


class _Unread(NamedTuple):
    """What the device was handed and the host has not read: a prefill, or a block."""

    drawn: decode.Drawn
    is_block: bool


class Lane:
    """The slots, the rows where calls wait for one, and the prefix pool of one context length.

    Each turn hands the device its next block before it reads the last one, so that the device never
    waits for the host. What the host knows is therefore one block old: it cannot tell which slots
    are free, and needs not, since calls that wait enter them by themselves.
    """

    def __init__(
        self,
        spec: decode.Spec,
        weights: dict[str, Weight],
        config: EngineConfig,
        length: int,
        stopping: Callable[[Request], StopTexts | None],
        lap: Callable[[], float],
        profile: EngineProfile,
    ):
        """Set up a lane.

        Args:
          spec, weights: the model.
          config: sizes.
          length: M, positions of a slot.
          stopping: what watches a call for stop texts.
          lap: seconds since it was called last, by any lane.
          profile: where the lane counts what it does.
        """
        self._spec, self._weights, self._config, self._length = spec, weights, config, length
        self._stopping, self._lap, self._profile = stopping, lap, profile
        stops = config.max_stop_ids
        self._sizes, self._lengths = config.sizes(), config.lengths(length)
        self._size, self._live = self._sizes[0], self._lengths[0]
        grouped = config.grouped_prefixes
        # What follows a prefix has one of these widths.
        wait = config.widths(length)[-1] if grouped else length
        kept = grouped, config.cache
        self._slots = self._empty(self._size, self._live, stops, *kept)
        self._waiting = self._empty(config.waiting, wait, stops, *kept)
        self._cache = PrefixCache(
            spec,
            weights,
            config,
            length,
            profile,
            least=_LEAST_SHARED * config.chunk,
            precision=config.cache,
        )
        self._prefixes = self._cache.prefixes
        self._queue = CallQueue(config, length, self._prefixes)
        self._running: dict[int, RunningCall] = {}
        self._tags: dict[str, int] = {}
        self._next_tag = 0
        # Rows where no call waits; tags of the calls that do, in the order in which they enter.
        self._rows = list(range(config.waiting))[::-1]
        self._order: dict[int, int] = {}
        self._cancelled: list[int] = []
        self._unread: collections.deque[_Unread] = collections.deque()
        # Whether calls of the queue can only be prefilled once others have ended.
        self._full = False

    @property
    def load(self) -> int:
        """Calls in the lane."""
        return len(self._queue) + len(self._running)

    def submit(self, request: Request) -> None:
        """Queue a call."""
        self._queue.add(request)

    def partial(self, request_id: str) -> Generation:
        """What a call of the lane has so far."""
        tag = self._tags.get(request_id)
        if tag is None:
            return Generation(request_id, (), (), (), PENDING, 0, 0.0)
        return self._running[tag].generation(PENDING)

    def cancel(self, request_id: str) -> None:
        """Forget a call of the lane."""
        tag = self._tags.get(request_id)
        if tag is None:
            self._queue.remove(request_id)
        else:
            self._forget(tag)
            self._cancelled.append(tag)

    def programs(self, prefixes: bool, top_logprobs: bool) -> list[Callable[[], object]]:
        """All that calls may need to have compiled; each runs one program, on no call at all.

        They are to be run in their order, all of them, and `wait` after that.

        Args:
          prefixes: calls may have shared prefixes or be prefilled in pieces.
          top_logprobs: calls may ask for the most probable tokens.
        """
        do = functools.partial
        programs: list[Callable[[], object]] = []
        tops = [0, self._most_top()] if top_logprobs else [0]
        shapes = self._queue.shapes
        whole = {(width, width) for width in shapes.widths}
        pairs = itertools.product(shapes.widths, shapes.lives)
        behind = {(width, live) for width, live in pairs if live >= width} if prefixes else ()
        for width, live in sorted(behind):
            programs.append(do(self._cache.extend, [], width, live))
        for width, live in sorted(whole if self._config.grouped_prefixes else whole.union(behind)):
            new = self._prefill([], [], [], width)
            programs += [do(self._hand_over, new, live, top) for top in tops]
        now = self._size, self._live
        for size, live in itertools.product(self._sizes, self._lengths):
            programs.append(do(self._resize, size, live))
            programs += [do(self._block, [], [], top, 0) for top in tops]
        programs += [do(self._resize, *shape) for shape in (*self._walk(), now)]
        return programs

    def wait(self) -> None:
        """Wait until the device has done all that it was handed."""
        jax.block_until_ready((self._slots, self._waiting, self._cache.pool))

    def renew(self) -> None:
        """Be as a new lane, since the weights have changed; no call may be in it.

        The arrays stay: nothing in them is looked at that a later call has not put there.
        """
        self._prefixes.clear()
        self._queue = CallQueue(self._config, self._length, self._prefixes)
        # Of calls that were cancelled.
        self._unread.clear()
        self._resize(self._sizes[0], self._lengths[0])

    def step(self) -> list[Generation]:
        """Prefill what fits, hand over a block, read the one before it; returns what ended."""
        self._admit()
        if self._running:
            self._decode()
        ended: list[Generation] = []
        while self._unread and (not self._running or self._blocks_unread() > 1):
            ended += self._read(self._unread.popleft())
        return ended

    # --- before the block -----------------------------------------------------------------------

    def _admit(self) -> None:
        """Prefill calls as long as there are rows for them to wait in."""
        self._full = False
        while self._queue and self._rows:
            with self._profile.time("scheduling"):
                batch = self._queue.next_batch(len(self._rows), patient=bool(self._order))
            if not batch:
                # With none waiting, it is prefixes in use that leave no room.
                self._full = not self._order
                return
            requests = [queued.request for queued in batch]
            cached = self._prefill_prefixes(requests)
            rows = [self._rows.pop() for _ in batch]
            tags = list(range(self._next_tag, self._next_tag + len(batch)))
            # Tags are int32; there are never so many calls at once.
            self._next_tag = (tags[-1] + 1) % 2**30
            with self._profile.time("scheduling"):
                new = self._prefill(requests, rows, tags, batch[0].width)
            drawn = self._hand_over(new, batch[0].live, self._top(requests))
            self._profile.calls += len(batch)
            self._profile.prompt_tokens += int(new.suffix_len[: len(batch)].sum())
            self._profile.padded_tokens += new.suffix.size
            self._unread.append(_Unread(drawn, is_block=False))
            for tag, row, request, known in zip(tags, rows, requests, cached, strict=True):
                self._running[tag] = RunningCall(request, known, self._stopping(request))
                if self._config.grouped_prefixes:
                    self._prefixes.pin(request)
                self._tags[request.id] = tag
                self._order[tag] = row

    def _prefill_prefixes(self, requests: Sequence[Request]) -> list[int]:
        """See that every prefix of the batch is in the pool; returns how much of each call's
        prompt was there or is computed for another call of the batch."""
        cached, seen = [], set()
        for request in requests:
            chain = self._prefixes.chain(request)
            known = [len(ids) for ids in chain if ids in seen]
            cached.append(max([self._prefixes.cached(request), *known]))
            seen.update(chain)
        self._cache.prepare(requests)
        return cached

    def _prefill(
        self, requests: Sequence[Request], rows: Sequence[int], tags: Sequence[int], width: int
    ) -> decode.Prefill:
        size = self._config.rows(width, self._config.admit_rows)
        params = [request.sampling for request in requests]
        suffixes = [request.prompt_ids[request.prefix_len :] for request in requests]
        suffix = np.zeros((size, width), np.int32)
        stop_ids = np.full((size, self._config.max_stop_ids), -1, np.int32)
        for i, (ids, request) in enumerate(zip(suffixes, requests, strict=True)):
            suffix[i, : len(ids)] = ids
            stop_ids[i, : len(request.sampling.stop_ids)] = request.sampling.stop_ids
        arrays = filled_columns(
            size,
            row=(rows, np.int32, self._config.waiting),
            # A call without a prefix may fork any row: its own tokens overwrite what it would see.
            prefix_row=([self._prefixes.row(r) for r in requests], np.int32, 0),
            prefix_len=([r.prefix_len for r in requests], np.int32, 0),
            suffix_len=([len(ids) for ids in suffixes], np.int32, 1),
            tag=(tags, np.int32, decode.NO_CALL),
            max_tokens=([p.max_tokens for p in params], np.int32, 0),
        )
        sampling = filled_columns(
            size,
            temperature=([p.temperature for p in params], np.float32, 0),
            top_k=([p.top_k for p in params], np.int32, 0),
            top_p=([p.top_p for p in params], np.float32, 1),
            min_p=([p.min_p for p in params], np.float32, 0),
        )
        seeds = np.zeros((size, 2), np.uint32)
        for i, request in enumerate(requests):
            seeds[i] = seed_words(request.seed)
        rows = RowSampling(**sampling, seed=seeds)
        return decode.Prefill(**arrays, suffix=suffix, stop_ids=stop_ids, sampling=rows)

    def _hand_over(self, new: decode.Prefill, live: int, top: int) -> decode.Drawn:
        with self._profile.time("handing_over"):
            self._waiting, drawn = decode.prefill(
                self._spec,
                self._weights,
                self._cache.pool,
                self._waiting,
                self._place(new),
                live,
                top,
            )
        return drawn

    # --- the block ------------------------------------------------------------------------------

    def _fit(self) -> None:
        """Give the lane as many slots and positions as its calls need, for what the host knows."""
        count = self._config.slots if self._queue else len(self._running)
        size = next((n for n in self._sizes if n >= count), self._sizes[-1])
        # The host is a block behind, and this is for the next one.
        ahead = 2 * self._config.block_steps + 1
        grouped = self._config.grouped_prefixes
        need = max(r.length(grouped) for r in self._running.values()) + ahead
        live = next((n for n in self._lengths if n >= need), self._length)
        if size < self._size or live > self._live or size > self._size:
            self._resize(size, live)

    def _resize(self, size: int, live: int) -> None:
        """Go there by steps to neighbouring shapes, so that few programs are compiled.

        Two steps halve or double, so that all steps of one way move at most 3.5 times what the
        largest does.
        """
        sizes = _between(self._sizes, self._size, size)
        lengths = _between(self._lengths, self._live, live)
        if size < self._size:
            shapes = [*((n, self._live) for n in sizes), *((size, n) for n in lengths)]
        else:
            shapes = [*((self._size, n) for n in lengths), *((n, live) for n in sizes)]
        for shape in shapes:
            self._slots = self._place(decode.resize(self._slots, *shape))
            self._size, self._live = shape

    def _walk(self) -> list[tuple[int, int]]:
        """Shapes, in an order in which every step from each to a neighbour is taken."""
        sizes, lengths = self._sizes, self._lengths
        along = [(size, live) for size in sizes for live in (*lengths, *lengths[::-1])]
        across = [(size, live) for live in lengths for size in (*sizes, *sizes[::-1])]
        return along + across

    def _decode(self) -> None:
        config = self._config
        self._fit()
        most = config.slots + config.waiting
        now, self._cancelled = self._cancelled[:most], self._cancelled[most:]
        # With calls that can be prefilled, a quarter of the slots falling free is worth a refill.
        leave_at = config.slots * 3 // 4 if self._queue and not self._full else 0
        top = self._top(running.request for running in self._running.values())
        drawn = self._block(list(self._order.values()), now, top, leave_at)
        self._unread.append(_Unread(drawn, is_block=True))

    def _block(
        self, waiting: Sequence[int], ended: Sequence[int], top: int, leave_at: int
    ) -> decode.Drawn:
        """Hand over a block; `waiting` are rows in the order in which their calls enter."""
        config = self._config
        order = np.full(config.waiting, config.waiting, np.int32)
        order[: len(waiting)] = waiting
        cancelled = np.full(config.slots + config.waiting, decode.NO_CALL, np.int32)
        cancelled[: len(ended)] = ended
        with self._profile.time("handing_over"):
            self._slots, self._waiting, drawn = decode.decode_block(
                self._spec,
                self._weights,
                self._slots,
                self._waiting,
                order,
                cancelled,
                config.block_steps,
                top,
                np.int32(leave_at),
                self._cache.pool if config.grouped_prefixes else None,
            )
        return drawn

    def _top(self, requests: Iterable[Request]) -> int:
        asked = any(request.sampling.top_logprobs for request in requests)
        return self._most_top() if asked else 0

    def _most_top(self) -> int:
        return min(self._config.max_top_logprobs, self._spec.config.vocab_size)

    # --- after the block ------------------------------------------------------------------------

    def _blocks_unread(self) -> int:
        return sum(unread.is_block for unread in self._unread)

    def _read(self, unread: _Unread) -> list[Generation]:
        with self._profile.time("waiting"):
            drawn = jax.tree.map(np.asarray, unread.drawn)
        with self._profile.time("reading"):
            return self._take(drawn, unread.is_block)

    def _take(self, drawn: decode.Drawn, is_block: bool) -> list[Generation]:
        """Give every call the tokens that were drawn for it; returns those that ended."""
        valid = drawn.tag != decode.NO_CALL
        if is_block:
            steps = int(valid.any(axis=1).sum())
            self._profile.steps += steps
            self._profile.slot_steps += steps * valid.shape[1]
            self._profile.tokens += int(valid.sum())
        tags = drawn.tag[valid]
        if not len(tags):
            return []
        # Tokens of a call together, in the order of their steps.
        sorting = np.argsort(tags, kind="stable")
        tags, starts = np.unique(tags[sorting], return_index=True)
        columns = [column[valid][sorting] for column in drawn[1:]]
        # A slice of a list is far faster than an array of its own for each call.
        columns[:3] = [column.tolist() for column in columns[:3]]
        tags, starts = tags.tolist(), starts.tolist()
        share = self._lap() / max(sum(tag in self._running for tag in tags), 1)
        ended: list[Generation] = []
        for tag, start, end in zip(tags, starts, [*starts[1:], len(sorting)], strict=True):
            running = self._running.get(tag)
            if running is None:
                continue
            running.seconds += share
            reason = running.add(Steps(*(column[start:end] for column in columns)))
            if is_block and tag in self._order:
                self._rows.append(self._order.pop(tag))
            if reason:
                ended.append(running.generation(reason))
                self._end(tag)
        return ended

    def _end(self, tag: int) -> None:
        running = self._running[tag]
        sampling, ids = running.request.sampling, running.ids
        if ids[-1] not in sampling.stop_ids and len(ids) < sampling.max_tokens:
            # Only the host knows of stop texts.
            self._cancelled.append(tag)
        self._queue.learn(running.request, len(ids))
        self._forget(tag)

    def _forget(self, tag: int) -> None:
        request = self._running.pop(tag).request
        del self._tags[request.id]
        if self._config.grouped_prefixes:
            self._prefixes.unpin(request)
        if tag in self._order:
            self._rows.append(self._order.pop(tag))

    def _empty(self, *sizes: int | str) -> decode.Rows:
        rows = functools.partial(decode.empty_rows, self._spec.config, *sizes)
        return layout.make(rows, self._spec.mesh)

    def _place(self, tree):
        return layout.place(tree, self._spec.mesh)


def _between(ordered: Sequence[int], start: int, end: int) -> Sequence[int]:
    """What is met on the way from `start` to `end`, which is the last."""
    a, b = ordered.index(start), ordered.index(end)
    return ordered[a + 1 : b + 1] if a < b else ordered[b:a][::-1]
