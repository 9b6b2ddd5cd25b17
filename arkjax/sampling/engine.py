"""The sampling engine: many calls of many agents, in slots over one cache."""

import collections
import dataclasses
import time
from collections.abc import Sequence

import jax
import numpy as np
from flax import nnx
from jax.sharding import NamedSharding

from arkjax.errors import ConfigError, DataError
from arkjax.models.transformer import Transformer, init_cache
from arkjax.sampling import decode
from arkjax.sampling.params import Generation, Request
from arkjax.sampling.sampler import RowSampling

# Blocks of a busy lane that another lane, less than half full, waits for more calls.
_PATIENCE = 8


@dataclasses.dataclass(frozen=True)
class EngineConfig:
    """Sizes of the engine; few, so that few shapes are compiled.

    Attributes:
      length_classes: context lengths of the lanes, ascending; a call goes into the shortest that
        holds its prompt and its longest answer.
      slots: calls that one lane decodes at once.
      prefixes: shared prefixes that one lane keeps.
      admit_rows: calls that enter slots together.
      prefix_rows: prefixes that are prefilled together; fewer than calls, which share them.
      chunk: prompts are padded to this many tokens, or to 1.5, 2, 3, 4, 6, 8, ... times as many.
      block_steps: most decode steps between two looks by the host.
      max_stop_ids: most stop ids of a call.
    """

    length_classes: tuple[int, ...]
    slots: int
    prefixes: int
    admit_rows: int
    prefix_rows: int
    chunk: int
    block_steps: int
    max_stop_ids: int

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not value or min(value if isinstance(value, tuple) else (value,)) < 1:
                raise ConfigError(f"engine.{field.name} is {value!r}: it must be positive")
        if list(self.length_classes) != sorted(set(self.length_classes)):
            raise ConfigError(
                f"engine.length_classes is {self.length_classes}: list each length once, ascending"
            )


class Engine:
    """Generates calls with one model; implements `arkjax.sampling.params.Generator`.

    The tokens of a call depend on the weights, its prompt, its sampling and its seed only: not on
    its slot, on the calls beside it, or on the order of arrival.
    """

    def __init__(self, model: Transformer, config: EngineConfig):
        """Set up an engine; nothing is compiled or allocated before the first call."""
        self.config = config
        self.max_context = config.length_classes[-1]
        self._graph, self._weights = nnx.split(model)
        self._model_config = model.config
        self._lanes: dict[int, _Lane] = {}
        self._busy: dict[str, int] = {}

    @property
    def pending(self) -> int:
        """Requests submitted and not yet returned."""
        return len(self._busy)

    def submit(self, request: Request) -> None:
        """Queue a request.

        Raises:
          DataError: if prompt and answer cannot fit into the longest lane, or the id is taken.
          ConfigError: if the request has more stop ids than the engine was set up for.
        """
        need = len(request.prompt_ids) + request.sampling.max_tokens
        length = next((n for n in self.config.length_classes if n >= need), None)
        if length is None:
            raise DataError(
                f"call {request.id}: {len(request.prompt_ids)} prompt tokens and up to "
                f"{request.sampling.max_tokens} generated ones do not fit into the engine's "
                f"longest context, {self.max_context}: raise engine.length_classes or "
                "shorten the prompt"
            )
        if not 0 <= request.prefix_len < len(request.prompt_ids):
            raise DataError(
                f"call {request.id}: prefix_len is {request.prefix_len} of "
                f"{len(request.prompt_ids)} prompt tokens: at least one must follow the prefix"
            )
        if len(request.sampling.stop_ids) > self.config.max_stop_ids:
            raise ConfigError(
                f"call {request.id} has {len(request.sampling.stop_ids)} stop ids: "
                f"engine.max_stop_ids is {self.config.max_stop_ids}"
            )
        if request.id in self._busy:
            raise DataError(f"call {request.id} was submitted twice")
        if length not in self._lanes:
            self._lanes[length] = _Lane(
                self._graph, self._weights, self._model_config, self.config, length
            )
        self._busy[request.id] = length
        self._lanes[length].waiting.append(request)

    def step(self) -> list[Generation]:
        """Advance the lanes by one block; returns the calls that ended.

        A block costs the same however few of its slots are busy. So while one lane is busy, one
        that is less than half full waits for more calls, for a few blocks at the most.
        """
        ended: list[Generation] = []
        half = self.config.slots // 2
        one_is_busy = any(lane.load >= half for lane in self._lanes.values())
        for lane in self._lanes.values():
            if one_is_busy and lane.load < half and lane.patience > 0:
                lane.patience -= 1
                continue
            lane.patience = _PATIENCE
            ended += lane.step()
        for generation in ended:
            del self._busy[generation.request_id]
        return ended

    def generate(self, requests: Sequence[Request]) -> list[Generation]:
        """Generate all requests; returns the generations in the order of the requests.

        Raises:
          DataError, ConfigError: as `submit`; no request of the list stays behind then.
          RuntimeError: if calls are pending that `submit` took: this would lose them.
        """
        if self.pending:
            raise RuntimeError(f"{self.pending} calls are pending: step until they have ended")
        done: dict[str, Generation] = {}
        try:
            for request in requests:
                self.submit(request)
            while self.pending:
                done |= {generation.request_id: generation for generation in self.step()}
        except BaseException:
            # Also on Ctrl-C: arrays that were being replaced are gone, so all start anew.
            self._lanes.clear()
            self._busy.clear()
            raise
        return [done[request.id] for request in requests]


@dataclasses.dataclass
class _Running:
    """A call in a slot, as the host knows it."""

    request: Request
    cached_len: int
    seconds: float = 0.0
    ids: list[int] = dataclasses.field(default_factory=list)
    logprobs: list[float] = dataclasses.field(default_factory=list)
    sampling_logprobs: list[float] = dataclasses.field(default_factory=list)

    def finished(self) -> str | None:
        sampling = self.request.sampling
        if self.ids[-1] in sampling.stop_ids:
            return "stop"
        return "length" if len(self.ids) >= sampling.max_tokens else None

    def generation(self, reason: str) -> Generation:
        return Generation(
            request_id=self.request.id,
            ids=tuple(self.ids),
            logprobs=tuple(self.logprobs),
            sampling_logprobs=tuple(self.sampling_logprobs),
            finish_reason=reason,
            cached_len=self.cached_len,
            seconds=self.seconds,
        )


class _Lane:
    """The slots and the prefix pool of one context length."""

    def __init__(self, graph, weights, model_config, config: EngineConfig, length: int):
        self.waiting: collections.deque[Request] = collections.deque()
        self._graph, self._weights, self._config, self._length = graph, weights, config, length
        places = jax.tree.leaves(weights)[0].sharding
        sharded = isinstance(places, NamedSharding) and places.mesh.size > 1
        self._mesh = places.mesh if sharded else None
        slots = decode.empty_slots(model_config, config.slots, length, config.max_stop_ids)
        self._slots = decode.place(slots, self._mesh)
        self._pool = decode.place(init_cache(model_config, config.prefixes, length), self._mesh)
        # Prefix token ids -> row of the pool, least recently used first.
        self._rows: collections.OrderedDict[tuple[int, ...], int] = collections.OrderedDict()
        # The few widths that prompts are computed in: at most a third of one is padding.
        doubled = [config.chunk << i for i in range(length.bit_length())]
        widths = {min(w, length) for two in doubled for w in (two, two + two // 2)}
        self._widths = sorted(widths)
        self._running: dict[int, _Running] = {}
        self._free = list(range(config.slots))[::-1]
        self.patience = _PATIENCE

    @property
    def load(self) -> int:
        """Calls in slots or waiting for one."""
        return len(self._running) + len(self.waiting)

    def step(self) -> list[Generation]:
        """Admit what fits, decode a block, and return what ended."""
        ended = self._admit()
        if not self._running:
            return ended
        started = time.monotonic()
        # With calls waiting, a quarter of the slots falling free is worth a refill.
        leave_at = len(self._running) * 3 // 4 if self.waiting else 0
        self._slots, drawn = decode.decode_block(
            self._graph, self._weights, self._slots, self._config.block_steps, np.int32(leave_at)
        )
        drawn = jax.tree.map(np.asarray, drawn)
        share = (time.monotonic() - started) / len(self._running)
        for slot in list(self._running):
            self._record(slot, slot, drawn, share, ended)
        return ended

    def _record(
        self,
        slot: int,
        column: int,
        drawn: decode.Drawn,
        seconds: float,
        ended: list[Generation],
    ) -> None:
        """Append the tokens of one column of a block to the call in `slot`."""
        running = self._running[slot]
        running.seconds += seconds
        steps = drawn.valid[:, column]
        running.ids += drawn.token[steps, column].tolist()
        running.logprobs += drawn.logprob[steps, column].tolist()
        running.sampling_logprobs += drawn.sampling_logprob[steps, column].tolist()
        reason = running.finished()
        if reason:
            ended.append(running.generation(reason))
            del self._running[slot]
            self._free.append(slot)

    # --- admission ------------------------------------------------------------------------------

    def _admit(self) -> list[Generation]:
        ended: list[Generation] = []
        while self.waiting and self._free:
            started = time.monotonic()
            batch = self._next_batch()
            self._prefill(batch)
            slots = [self._free.pop() for _ in batch]
            new = decode.place(self._admission(batch, slots), self._mesh)
            self._slots, drawn = decode.admit(
                self._graph, self._weights, self._pool, self._slots, new
            )
            drawn = jax.tree.map(np.asarray, drawn)
            share = (time.monotonic() - started) / len(batch)
            for column, (slot, (request, cached)) in enumerate(zip(slots, batch, strict=True)):
                self._running[slot] = _Running(request, cached)
                self._record(slot, column, drawn, share, ended)
        return ended

    def _next_batch(self) -> list[tuple[Request, int]]:
        """The next calls that can be prefilled together, each with its number of cached tokens.

        They share one padded suffix length, so that the shape in which a call is computed, and with
        it every last bit of its numbers, depends on the call alone.
        """
        room = min(len(self._free), self._config.admit_rows, self._config.prefixes)
        width = self._padded(_suffix_len(self.waiting[0]))
        batch: list[tuple[Request, int]] = []
        skipped: list[Request] = []
        seen: set[tuple[int, ...]] = set()
        while self.waiting and len(batch) < room and len(skipped) < 4 * room:
            request = self.waiting.popleft()
            if self._padded(_suffix_len(request)) != width:
                skipped.append(request)
                continue
            prefix = _prefix(request)
            cached = len(prefix) if prefix in self._rows or prefix in seen else 0
            seen.add(prefix)
            batch.append((request, cached))
        self.waiting.extendleft(reversed(skipped))
        return batch

    def _padded(self, length: int) -> int:
        return next(width for width in self._widths if width >= length)

    def _prefill(self, batch: list[tuple[Request, int]]) -> None:
        """See that every prefix of the batch is in the pool, evicting the least recently used."""
        wanted = list(dict.fromkeys(_prefix(r) for r, _ in batch if r.prefix_len))
        for prefix in wanted:
            if prefix in self._rows:
                self._rows.move_to_end(prefix)
        by_width = collections.defaultdict(list)
        for prefix in wanted:
            if prefix not in self._rows:
                if len(self._rows) < self._config.prefixes:
                    row = len(self._rows)
                else:
                    _, row = self._rows.popitem(last=False)
                self._rows[prefix] = row
                by_width[self._padded(len(prefix))].append((prefix, row))
        rows = self._config.prefix_rows
        for width, prefixes in sorted(by_width.items()):
            for start in range(0, len(prefixes), rows):
                tokens = np.zeros((rows, width), np.int32)
                pool_rows = np.full(rows, self._config.prefixes, np.int32)
                for i, (prefix, row) in enumerate(prefixes[start : start + rows]):
                    tokens[i, : len(prefix)] = prefix
                    pool_rows[i] = row
                tokens = decode.place(tokens, self._mesh)
                self._pool = decode.extend_prefixes(
                    self._graph, self._weights, self._pool, pool_rows, tokens
                )

    def _admission(self, batch: list[tuple[Request, int]], slots: list[int]) -> decode.Admission:
        rows, stops = self._config.admit_rows, self._config.max_stop_ids
        requests = [request for request, _ in batch]
        params = [request.sampling for request in requests]

        def column(values: Sequence, dtype: type, fill: float = 0) -> np.ndarray:
            array = np.full(rows, fill, dtype)
            array[: len(values)] = values
            return array

        suffix = np.zeros((rows, self._padded(_suffix_len(requests[0]))), np.int32)
        stop_ids = np.full((rows, stops), -1, np.int32)
        for i, request in enumerate(requests):
            suffix[i, : _suffix_len(request)] = request.prompt_ids[request.prefix_len :]
            stop_ids[i, : len(request.sampling.stop_ids)] = request.sampling.stop_ids
        return decode.Admission(
            slot=column(slots, np.int32, self._config.slots),
            # A call without a prefix may fork any row: its own tokens overwrite what it would see.
            prefix_row=column([self._rows.get(_prefix(r), 0) for r in requests], np.int32),
            prefix_len=column([r.prefix_len for r in requests], np.int32),
            suffix=suffix,
            suffix_len=column([_suffix_len(r) for r in requests], np.int32, 1),
            max_tokens=column([p.max_tokens for p in params], np.int32),
            stop_ids=stop_ids,
            sampling=RowSampling(
                temperature=column([p.temperature for p in params], np.float32),
                top_k=column([p.top_k for p in params], np.int32),
                top_p=column([p.top_p for p in params], np.float32, 1.0),
                min_p=column([p.min_p for p in params], np.float32),
                seed=column([r.seed % 2**32 for r in requests], np.uint32),
            ),
        )


def _prefix(request: Request) -> tuple[int, ...]:
    return request.prompt_ids[: request.prefix_len]


def _suffix_len(request: Request) -> int:
    return len(request.prompt_ids) - request.prefix_len
