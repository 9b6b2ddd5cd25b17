"""Generates calls with a model behind an OpenAI-compatible server."""

import asyncio
import collections
import dataclasses
import functools
import queue
import time
import warnings
import weakref
from collections.abc import Iterable, Sequence

from arkjax.errors import ConfigError, DataError
from arkjax.sampling.completions import (
    SERVERS,
    Reader,
    check_request,
    completion_body,
    read_max_context,
    reply_limit,
)
from arkjax.sampling.connection import Connection, Question
from arkjax.sampling.generating import generate_all
from arkjax.sampling.params import Generation, Request
from arkjax.sampling.probe import PROBE_BYTES, probe_body, read_probe
from arkjax.sampling.remote_config import RemoteConfig
from arkjax.text.tokenizer import Tokenizer

__all__ = ["RemoteConfig", "RemoteGenerator"]

# What `step` waits for an answer, at the most.
_STEP_SECONDS = 0.05
# What calls under way are waited for once another one has failed: they are paid for.
_GRACE_SECONDS = 10.0
_MODELS_BYTES = 2**24
# Characters of what last went wrong, in the note of how it goes.
_TROUBLE = 80


class RemoteGenerator:
    """Generates calls through a server; implements `arkjax.sampling.params.Generator`.

        with RemoteGenerator(RemoteConfig("http://127.0.0.1:8000/v1", "tiny"), tokenizer) as model:
            generations = model.generate(requests)

    A thread keeps many calls under way, over connections that are used again; one thread drives the
    generator, as it does an engine. Where a server says that they are too many, fewer are under way
    for a while. What fails in passing (no connection, a timeout, status 408,
    409, 425, 429 or 5xx, a damaged reply) is tried again. A call that cannot be answered ends all:
    no other one begins, those under way get a few seconds to end and are returned, and then `step`
    raises what went wrong.

    The tokens of a call are the server's: they depend on its prompt, sampling and seed only if the
    server keeps that promise. `arkjax serve` does; others do up to rounding, SGLang only if started
    with --enable-deterministic-inference.

    Attributes:
      config: which server, and how.
      retokenised: how many generations have the ids of the server's text, encoded again.
    """

    def __init__(self, config: RemoteConfig, tokenizer: Tokenizer | None = None):
        """Set up a generator; nothing is sent before the first call.

        Args:
          config: which server, and how.
          tokenizer: of the server's model. Bounds the ids; texts that go or come as such need it.

        Raises:
          ConfigError: if the key is not there, aiohttp cannot be imported, or a tokenizer is
            needed.
        """
        if tokenizer is None and (config.prompts == "text" or config.allow_retokenised):
            raise ConfigError(
                "remote.prompts 'text' and remote.allow_retokenised need the tokenizer of the "
                "server's model"
            )
        self.config = config
        self.retokenised = 0
        self._tokenizer = tokenizer
        self._server = SERVERS[config.server]
        self._reader = Reader(
            server=self._server,
            tokenizer=tokenizer,
            exact_prompt=config.prompts == "ids" or not config.allow_retokenised,
            allow_retokenised=config.allow_retokenised,
        )
        self._calls: dict[str, _Flight] = {}
        # Those that wait for their turn: a request is small, a task and a body are not.
        self._queue: collections.deque[_Flight] = collections.deque()
        self._under_way = 0
        self._ended: queue.SimpleQueue[tuple[_Flight, Generation, bool]] = queue.SimpleQueue()
        self._failure: tuple[Exception, float] | None = None
        self._clock = _SharedClock()
        self._connection = Connection(config)
        # Also at the end of the process, which would complain of open connections.
        weakref.finalize(self, self._connection.close)

    @functools.cached_property
    def max_context(self) -> int:
        """Largest number of prompt plus generated tokens of one call; asks the server if it must.

        Raises:
          ConfigError: if the server has no such model, or does not say.
          DataError: if it does not answer.
        """
        if self.config.max_context:
            return self.config.max_context
        question = Question("the list of models", "GET", "models", None, _MODELS_BYTES)
        read = functools.partial(read_max_context, model=self.config.model)
        return self._connection.wait(self._connection.ask(question, read))

    def check(self) -> None:
        """Find now what would stop every call: asks for the context, and for one token of a text.

        Raises:
          DataError: if the server does not answer.
          ConfigError: if key, address or model are wrong, or its tokenizer is another one.
        """
        _ = self.max_context
        body = probe_body(self.config.model, self._server, self._tokenizer)
        question = Question("the first call", "POST", "completions", body, PROBE_BYTES)
        read = functools.partial(read_probe, body, self._tokenizer)
        self._connection.wait(self._connection.ask(question, read))

    @property
    def pending(self) -> int:
        """Requests submitted and not yet returned."""
        return len(self._calls)

    @property
    def note(self) -> str:
        """For people: attempts beyond the first, what is waited for, what went wrong last."""
        connection, parts = self._connection, []
        if connection.repeats:
            parts.append(f"{connection.repeats:,} asked again")
        if connection.window.size < self.config.max_concurrency:
            parts.append(f"{connection.window.size} at once")
        if connection.pace.held > 1:
            parts.append(f"waits {connection.pace.held:.0f} s as the server asked")
        if trouble := connection.trouble:
            parts.append(trouble[:_TROUBLE] + "..." * (len(trouble) > _TROUBLE))
        return ", ".join(parts)

    def submit(self, request: Request) -> None:
        """Queue a request.

        Raises:
          DataError: if prompt and answer cannot fit into the context, the id is taken, or the text
            of the prompt does not stand for its ids.
          ConfigError: if the server cannot draw tokens as the request wants.
        """
        if _most_tokens(request) > self.max_context:
            raise DataError(
                f"call {request.id}: {len(request.prompt_ids)} prompt tokens and up to "
                f"{request.sampling.max_tokens} generated ones do not fit into the context of "
                f"{self.config.model!r} at {self.config.url}, {self.max_context}: shorten the "
                "prompt or lower max_tokens"
            )
        if request.id in self._calls:
            raise DataError(f"call {request.id} was submitted twice")
        check_request(request, self._server)
        flight = _Flight(request, self._prompt(request))
        self._connection.loop.call_soon_threadsafe(self._start, flight)
        self._calls[request.id] = flight

    def step(self, wait: bool = True) -> list[Generation]:
        """Wait a little for answers, if told so; returns the calls that ended.

        Raises:
          DataError, ConfigError: if a call cannot be answered, once those that ended were returned;
            it says which call, server and status, or what was tried.
        """
        settled = False
        if self._failure is not None:
            late = time.monotonic() - self._failure[1] > _GRACE_SECONDS
            settled = late or not self._connection.talking
            # A call that has just fallen silent is on its way to where `_take` looks.
            self._connection.wait(asyncio.sleep(0))
        ended = self._take(_STEP_SECONDS if wait and not settled else 0.0)
        if settled and not ended:
            raise self._failure[0]
        return ended

    def cancel(self, request_id: str | None = None) -> None:
        """Forget a pending call, or all of them, also after an error in a step."""
        if request_id is not None:
            self._connection.wait(_stop([self._calls.pop(request_id)]))
            return
        self._connection.wait(_stop(self._calls.values()))
        self._calls.clear()
        self._failure = None
        self._connection.halted = False

    def generate(self, requests: Sequence[Request]) -> list[Generation]:
        """Generate all requests; returns the generations in the order of the requests.

        Raises:
          DataError, ConfigError: as `submit` and `step`; no request of the list stays behind then.
          RuntimeError: if calls are pending that `submit` took: this would lose them.
        """
        return generate_all(self, requests)

    def close(self) -> None:
        """Forget all calls and close the connections, for good."""
        self._calls.clear()
        self._connection.close()

    def __enter__(self) -> "RemoteGenerator":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _take(self, seconds: float) -> list[Generation]:
        """What has ended by now; if nothing has, what ends within some time."""
        ended: list[Generation] = []
        while True:
            try:
                if ended or not seconds:
                    flight, generation, encoded_again = self._ended.get_nowait()
                else:
                    flight, generation, encoded_again = self._ended.get(timeout=seconds)
            except queue.Empty:
                return ended
            if self._calls.get(flight.request.id) is not flight:
                # Forgotten in the moment in which it ended.
                continue
            del self._calls[flight.request.id]
            if encoded_again and not self.retokenised:
                warnings.warn(
                    f"{self.config.url} returns no token ids: its texts are encoded again, into "
                    "ids that the model may not have generated",
                    stacklevel=3,
                )
            self.retokenised += encoded_again
            ended.append(generation)

    def _prompt(self, request: Request) -> str | Sequence[int]:
        if self.config.prompts == "ids":
            return request.prompt_ids
        tokenizer, ids = self._tokenizer, list(request.prompt_ids)
        text = tokenizer.decode(ids, special=True)
        again = tokenizer.encode(text, special=True)
        if again == ids:
            return text
        # Words may be cut otherwise if the config says so; no word may become a special token.
        special = frozenset(tokenizer.special_tokens.values())
        same_text = tokenizer.decode(again, special=True) == text
        same_special = [i for i in again if i in special] == [i for i in ids if i in special]
        if self.config.allow_retokenised and same_text and same_special:
            return text
        raise DataError(
            f"call {request.id}: the text of its prompt encodes into other ids, so that the server "
            "would read another prompt: set remote.prompts='ids', or allow_retokenised=True if "
            "only words are cut otherwise"
        )

    # --- in the connection's thread -------------------------------------------------------------

    def _start(self, flight: "_Flight") -> None:
        self._queue.append(flight)
        self._fill()

    def _fill(self) -> None:
        """Begin calls, until as many are under way as may be."""
        while self._queue and self._under_way < self.config.max_concurrency:
            flight = self._queue.popleft()
            if self._connection.halted or flight.forgotten:
                continue
            flight.task = self._connection.loop.create_task(self._call(flight))
            self._under_way += 1
            flight.task.add_done_callback(self._leave)

    def _leave(self, task: asyncio.Task) -> None:
        self._under_way -= 1
        self._fill()

    async def _call(self, flight: "_Flight") -> None:
        """Make one call, and put its end where `step` finds it."""
        connection, request = self._connection, flight.request
        question = Question(
            name=f"call {request.id}",
            method="POST",
            path="completions",
            body=completion_body(request, self.config.model, flight.prompt, self._server),
            most_bytes=reply_limit(request),
            tokens=_most_tokens(request),
        )
        began = self._clock.enter()
        try:
            read = functools.partial(self._reader.read, request)
            generation, encoded_again = await connection.ask(question, read)
        except Exception as error:
            self._fail(error)
            return
        finally:
            seconds = self._clock.leave() - began
        used = len(request.prompt_ids) + len(generation.ids)
        connection.pace.give_back(question.tokens - used)
        generation = dataclasses.replace(generation, seconds=seconds)
        self._ended.put((flight, generation, encoded_again))

    def _fail(self, error: Exception) -> None:
        """Let no other attempt begin."""
        self._connection.halted = True
        self._failure = self._failure or (error, time.monotonic())


@dataclasses.dataclass(eq=False)
class _Flight:
    """A call from its submission to its end; its prompt as it travels."""

    request: Request
    prompt: str | Sequence[int]
    task: asyncio.Task | None = None
    forgotten: bool = False


class _SharedClock:
    """Splits the time in which calls are under way evenly among them, so that it adds up."""

    def __init__(self) -> None:
        self._share, self._calls, self._read_at = 0.0, 0, 0.0

    def enter(self) -> float:
        """Count one more call; the time to be subtracted at its end."""
        return self._read(1)

    def leave(self) -> float:
        """Count one call less; the time at its end."""
        return self._read(-1)

    def _read(self, change: int) -> float:
        now = time.monotonic()
        if self._calls:
            self._share += (now - self._read_at) / self._calls
        self._read_at = now
        self._calls += change
        return self._share


def _most_tokens(request: Request) -> int:
    return len(request.prompt_ids) + request.sampling.max_tokens


async def _stop(flights: Iterable[_Flight]) -> None:
    tasks = []
    for flight in flights:
        flight.forgotten = True
        if flight.task is not None:
            flight.task.cancel()
            tasks.append(flight.task)
    await asyncio.gather(*tasks, return_exceptions=True)
