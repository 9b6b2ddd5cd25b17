"""Questions to an HTTP server, many at once, asked again until they are answered or hopeless."""

import asyncio
import collections
import dataclasses
import itertools
import json
import os
import random
import re
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from arkjax.errors import ArkJAXError, ConfigError, DataError
from arkjax.extras import install
from arkjax.sampling.completions import BadReply
from arkjax.sampling.pace import LONGEST_WAIT, Pace, Window, asked_wait, backoff, used_up
from arkjax.sampling.remote_config import RemoteConfig

if TYPE_CHECKING:
    import aiohttp

T = TypeVar("T")

_TOO_MANY = 429
_PASSING = (408, 409, 425, _TOO_MANY)
# How often a server may refuse a question as one too many while it answers others.
_MOST_REFUSALS = 250
# Servers commonly close a silent connection after 5 seconds.
_KEEP_SECONDS = 4.0
# Characters of what a server says that a message repeats.
_SAID = 300
# Visible ASCII but quotes and backslashes, which JSON would write in another way.
_KEY = re.compile(r"[!#-&(-\[\]-~]+")
_KEPT = "then repeat the command: answers that had come are kept"


@dataclasses.dataclass(frozen=True)
class Question:
    """What a server is asked.

    Attributes:
      name: for messages, as "call 3f".
      method, path: of HTTP; the path is added to the server's url.
      body: JSON, or None.
      most_bytes: a longer reply is damaged.
      tokens: how much of the limit of tokens it counts.
    """

    name: str
    method: str
    path: str
    body: Mapping[str, Any] | None
    most_bytes: int
    tokens: int = 0


class Connection:
    """An event loop in a thread of its own, and connections to one server in it.

    Attributes:
      loop: the loop.
      window: how many questions may be on their way at once.
      pace: says when a question may be asked.
      answers, repeats: how many answers came; how many attempts were not the first.
      trouble: what last went wrong; empty once an answer has come.
      talking: tasks that wait for the server at this moment.
      halted: whether no further question is asked; a task that wants to is cancelled.
    """

    def __init__(self, config: RemoteConfig):
        """Start the thread; nothing is sent yet.

        Raises:
          ConfigError: if the key is not there, or aiohttp cannot be imported.
        """
        self._config = config
        self._url = config.url.rstrip("/")
        self._key = _read_key(config.api_key_env)
        self._proxy = _proxy(config)
        self._aiohttp = _import_aiohttp()
        self._random = random.Random()
        self.window = Window(config.max_concurrency)
        self.pace = Pace(config.requests_per_minute, config.tokens_per_minute)
        self.talking: set[asyncio.Task] = set()
        self.halted = False
        self.answers, self.repeats, self.trouble = 0, 0, ""
        self._ranks = itertools.count()
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=_run, args=(self.loop,), name="arkjax-remote", daemon=True
        )
        self._thread.start()
        self._session = self.wait(self._open())

    def wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """The result of a coroutine that runs in the loop; from any other thread."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result()

    def close(self) -> None:
        """End all that runs in the loop, and the loop."""
        if not self.loop.is_closed():
            asyncio.run_coroutine_threadsafe(self._close(), self.loop)
            # The collector of garbage may call this in the loop's own thread.
            if threading.current_thread() is not self._thread:
                self._thread.join(5.0)

    async def ask(self, question: Question, read: Callable[[Any], T]) -> T:
        """Ask until there is an answer.

        Args:
          question: what.
          read: makes the result of the reply's JSON. Its BadReply asks for another attempt; the
            message of its ConfigError or DataError goes on where "call 3f: http://... " ends.

        Raises:
          DataError: if attempts or patience are used up, or the server refuses the question; it
            names question, server, status and what the server says, never the key.
          ConfigError: if key, address, model or certificate are wrong.
        """
        began, tried, patience = (
            time.monotonic(),
            collections.Counter(),
            _Patience(self, self._config.retries),
        )
        rank = next(self._ranks)
        while patience.lasts:
            if tried:
                first = self._config.backoff_seconds
                await asyncio.sleep(backoff(patience.steps, first, self._random.random()))
                self.repeats += 1
            try:
                async with self.window.place(rank):
                    return await self._attempt(question, read)
            except _Passing as error:
                tried[str(error)] += 1
                self.trouble = self._clean(str(error))
                patience.note(error)
            except ArkJAXError as error:
                raise type(error)(self._clean(f"{question.name}: {self._url} {error}")) from None
        problems = "; ".join(f"{count} x {problem}" for problem, count in tried.most_common(3))
        raise DataError(
            self._clean(
                f"{question.name}: {self._url} gave no answer in {tried.total()} attempts over "
                f"{time.monotonic() - began:.0f} s ({problems}): see that the server runs, {_KEPT}"
            )
        )

    async def _attempt(self, question: Question, read: Callable[[Any], T]) -> T:
        """Ask once, when it is time; what was not answered does not count for the pace."""
        await self.pace.turn(question.tokens)
        began = time.monotonic()
        try:
            result = await self._answer(question, read)
        except BaseException as error:
            self.pace.give_back(question.tokens)
            if isinstance(error, _Passing) and error.too_many:
                self.window.narrow(began)
            raise
        self.window.widen()
        self.answers, self.trouble = self.answers + 1, ""
        return result

    async def _answer(self, question: Question, read: Callable[[Any], T]) -> T:
        if self.halted:
            raise asyncio.CancelledError
        task = asyncio.current_task()
        self.talking.add(task)
        try:
            status, headers, data = await self._send(question)
        finally:
            self.talking.discard(task)
        self.pace.hold(used_up(headers))
        if status == 200:
            try:
                return read(_parse(data))
            except BadReply as error:
                raise _Passing(f"a reply that cannot be used: {error}") from None
        # Cleaned before it is cut: half a key is no longer found.
        said = self._clean(_server_says(data))
        problem = f"status {status}: {said[:_SAID]}{'...' if len(said) > _SAID else ''}"
        if status not in _PASSING and status < 500:
            raise self._refusal(status, problem)
        wait = asked_wait(headers)
        if wait > LONGEST_WAIT:
            raise DataError(f"answers {problem}; it asks to wait {wait:.0f} s: wait, {_KEPT}")
        self.pace.hold(wait)
        raise _Passing(problem, wait, too_many=status == _TOO_MANY or wait > 0)

    async def _send(self, question: Question) -> tuple[int, Mapping[str, str], bytes]:
        """Status, headers and body of the reply."""
        aiohttp = self._aiohttp
        data = bytearray()
        try:
            async with self._session.request(
                question.method,
                f"{self._url}/{question.path}",
                json=question.body,
                allow_redirects=False,
                proxy=self._proxy,
            ) as response:
                async for chunk in response.content.iter_any():
                    data += chunk
                    if len(data) > question.most_bytes:
                        raise _Passing(f"a reply of more than {question.most_bytes} bytes")
                return response.status, response.headers, bytes(data)
        except aiohttp.ClientSSLError as error:
            raise ConfigError(
                f"has no certificate that this machine trusts ({error}): name that of your "
                "authority in the environment variable SSL_CERT_FILE"
            ) from None
        except TimeoutError as error:
            raise _Passing(f"no answer in time ({error or 'all of it took too long'})") from None
        # What no HTTP parser accepts is a ValueError at times.
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise _Passing(f"no answer ({type(error).__name__}: {error})") from None

    def _refusal(self, status: int, problem: str) -> ArkJAXError:
        """The error of a status that another attempt would not change; the subject is left out."""
        config = self._config
        if status in (401, 403):
            place = config.api_key_env or "an environment variable, named by remote.api_key_env"
            return ConfigError(f"answers {problem}; put a valid key into {place}")
        if status == 404:
            return ConfigError(
                f"answers {problem}; remote.url must be what /completions is added to, and "
                f"remote.model, {config.model!r}, a model that the server has"
            )
        if 300 <= status < 400:
            return ConfigError(
                f"answers {problem}; redirects are not followed, lest the key goes elsewhere: set "
                "remote.url to where it leads"
            )
        return DataError(f"answers {problem}")

    def _clean(self, message: str) -> str:
        """The message in one line of printable text, without the key."""
        if self._key:
            message = message.replace(self._key, "***")
        return " ".join("".join(c if c.isprintable() else " " for c in message).split())

    async def _open(self) -> "aiohttp.ClientSession":
        aiohttp, config = self._aiohttp, self._config
        headers = {"User-Agent": "arkjax", "Accept-Encoding": "identity"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        return aiohttp.ClientSession(
            # Calls are bounded by `places`.
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_SECONDS),
            timeout=aiohttp.ClientTimeout(
                total=config.total_seconds,
                sock_connect=config.connect_seconds,
                sock_read=config.idle_seconds,
            ),
            headers=headers,
            cookie_jar=aiohttp.DummyCookieJar(),
            # A small reply must not unfold into a huge one.
            auto_decompress=False,
        )

    async def _close(self) -> None:
        self.halted = True
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._session.close()
        self.loop.call_soon(self.loop.stop)


class _Passing(Exception):
    """An attempt failed and another may succeed, after `wait` seconds if the server says so.

    `too_many` tells that the server has more to do than it will.
    """

    def __init__(self, problem: str, wait: float = 0.0, too_many: bool = False):
        super().__init__(problem)
        self.wait, self.too_many = wait, too_many


class _Patience:
    """How long one question is asked again.

    Attributes:
      steps: attempts, at least 1, after which nobody said how long to wait.
    """

    def __init__(self, connection: Connection, retries: int):
        self._connection, self._answers, self._retries = connection, connection.answers, retries
        self._failures, self._asked, self._refusals = 0, 0.0, 0
        self._untold = 0

    @property
    def lasts(self) -> bool:
        return (
            self._failures <= self._retries
            and self._asked <= LONGEST_WAIT
            and self._refusals <= _MOST_REFUSALS
        )

    @property
    def steps(self) -> int:
        return max(self._untold, 1)

    def note(self, error: _Passing) -> None:
        """Another attempt has failed."""
        self._untold += not error.wait
        answers, self._answers = self._answers, self._connection.answers
        if error.too_many and self._answers > answers:
            # It answers others meanwhile, and this question when its turn comes.
            self._failures, self._asked = 0, 0.0
            self._refusals += 1
        elif error.wait:
            # A server that says when to come again works: it is no failure to do so.
            self._asked += max(error.wait, 1.0)
        else:
            self._failures += 1


def _run(loop: asyncio.AbstractEventLoop) -> None:
    loop.run_forever()
    loop.close()


def _import_aiohttp() -> Any:
    try:
        import aiohttp
    except ImportError as error:
        raise ConfigError(
            f"remote generators need the package aiohttp, which cannot be imported ({error}): "
            f"{install('serve')}"
        ) from error
    return aiohttp


def _read_key(variable: str) -> str:
    if not variable:
        return ""
    key = os.environ.get(variable, "").strip()
    if not key:
        raise ConfigError(f"remote.api_key_env: the environment variable {variable} is not set")
    if not _KEY.fullmatch(key):
        raise ConfigError(
            f"remote.api_key_env: the environment variable {variable} holds characters that no key "
            "has: set it to the key alone"
        )
    return key


def _proxy(config: RemoteConfig) -> str | None:
    """The proxy that the environment names for the server; never one for this machine."""
    parts = urllib.parse.urlsplit(config.url)
    if config.is_loopback or urllib.request.proxy_bypass(parts.hostname):
        return None
    return urllib.request.getproxies().get(parts.scheme)


def _parse(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BadReply(f"no JSON ({error})") from None


def _server_says(data: bytes) -> str:
    """The message in the body of an error, or the body."""
    try:
        said = _parse(data)
    except BadReply:
        said = data.decode("utf-8", "replace")
    for name in ("error", "message", "detail"):
        if isinstance(said, dict) and name in said:
            said = said[name]
    return (said if isinstance(said, str) else json.dumps(said)) or "no message"
