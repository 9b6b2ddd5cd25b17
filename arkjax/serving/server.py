"""The HTTP side of `arkjax serve`: routes, bodies in, answers and streams out."""

import asyncio
import dataclasses
import functools
import hmac
import json
import sys
import time
import traceback
import uuid
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from aiohttp import web

from arkjax.sampling.params import Request
from arkjax.serving.connection import Connection, Server, refused
from arkjax.serving.driver import Driver, Job
from arkjax.serving.fields import quoted, read_json
from arkjax.serving.prompts import Prompts
from arkjax.serving.protocol import Limits, Order, read_chat, read_completion
from arkjax.serving.refusals import Refusal, failure, stopping
from arkjax.serving.replies import Reply
from arkjax.serving.tokens import Tokens
from arkjax.text.tokenizer import Tokenizer

# Threads that read bodies and make prompts of them.
_READERS = 4


@dataclasses.dataclass(frozen=True)
class Timeouts:
    """Seconds that a client has.

    Attributes:
      head: for the head of its first request.
      idle: between requests.
      body: for the body of a request.
      send: to take in a piece of an answer.
    """

    head: float = 30.0
    idle: float = 75.0
    body: float = 60.0
    send: float = 60.0


class Application:
    """Answers the requests of OpenAI's API with one engine."""

    def __init__(
        self,
        driver: Driver,
        prompts: Prompts,
        tokenizer: Tokenizer,
        limits: Limits,
        *,
        key: str | None,
        timeouts: Timeouts,
    ):
        """Set up an application.

        Args:
          driver: of the engine.
          prompts: read orders.
          tokenizer: decodes.
          limits: what one request may ask for.
          key: that clients must know, or None.
          timeouts: how long clients are waited for.
        """
        self._driver, self._prompts, self._tokenizer = driver, prompts, tokenizer
        self._limits, self._timeouts = limits, timeouts
        self._key = None if key is None else _as_bytes(f"Bearer {key}")
        self._tokens = Tokens(tokenizer)
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="arkjax-reader")
        self._started = int(time.time())
        self._draining = False
        self._routes: dict[str, dict[str, Callable[[web.BaseRequest], Awaitable[Any]]]] = {
            "/health": {"GET": self._health},
            "/v1/models": {"GET": self._models},
            f"/v1/models/{limits.model}": {"GET": self._model},
            "/v1/chat/completions": {"POST": functools.partial(self._generate, read_chat)},
            "/v1/completions": {"POST": functools.partial(self._generate, read_completion)},
        }

    def server(self) -> Server:
        """What makes connections of this application."""
        seconds = self._timeouts
        return Server(self.handle, head_seconds=seconds.head, idle_seconds=seconds.idle)

    async def drain(self, seconds: float) -> None:
        """Take no more orders, and end those that are open, after `seconds` at the latest."""
        self._draining = True
        await self._driver.drain(seconds)

    def close(self) -> None:
        """End the threads that read; call it when no connection is left."""
        self._readers.shutdown(wait=False, cancel_futures=True)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request, whatever it is."""
        if isinstance(request.protocol, Connection):
            request.protocol.begun = True
        try:
            return await self._answer(request)
        except Refusal as error:
            refusal = error
        except ConnectionError:
            raise
        except Exception as error:
            traceback.print_exc(file=sys.stderr)
            if request.writer.output_size > 0:
                raise ConnectionError("the response has begun") from error
            refusal = failure("the server failed over this request")
        response = refused(refusal)
        if not request.content.is_eof():
            # The rest of a body that nobody read would be taken for the next request.
            response.force_close()
        return response

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.rel_url.path
        methods = self._routes.get(path)
        if methods is None:
            raise Refusal(
                f"there is nothing at {quoted(path)}: this server has {', '.join(self._routes)}",
                status=404,
                code="not_found",
            )
        method = "GET" if request.method == "HEAD" else request.method
        if method not in methods:
            raise Refusal(
                f"{path} takes {' and '.join(methods)}, not {quoted(request.method)}",
                status=405,
                code="method_not_allowed",
                headers={"Allow": ", ".join(methods)},
            )
        if path.startswith("/v1/"):
            self._check_key(request)
        answer = await methods[method](request)
        return answer if isinstance(answer, web.StreamResponse) else web.json_response(answer)

    def _check_key(self, request: web.BaseRequest) -> None:
        if self._key is None:
            return
        given = _as_bytes(request.headers.get("Authorization", ""))
        if not hmac.compare_digest(given, self._key):
            raise Refusal(
                "the API key is missing or wrong: send it as Authorization: Bearer KEY",
                status=401,
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )

    async def _health(self, _: web.BaseRequest) -> dict[str, Any]:
        if self._draining:
            raise stopping()
        return {"status": "ok", "open": self._driver.open, "waiting": self._driver.waiting}

    async def _models(self, _: web.BaseRequest) -> dict[str, Any]:
        return {"object": "list", "data": [self._card()]}

    async def _model(self, _: web.BaseRequest) -> dict[str, Any]:
        return self._card()

    def _card(self) -> dict[str, Any]:
        return {
            "id": self._limits.model,
            "object": "model",
            "created": self._started,
            "owned_by": "arkjax",
            "max_model_len": self._limits.context,
        }

    # --- orders ---------------------------------------------------------------------------------

    async def _generate(
        self,
        read: Callable[[Mapping[str, Any], Limits], Order],
        request: web.BaseRequest,
    ) -> web.StreamResponse:
        # Before there is any work: a server that has no room says so at once.
        self._driver.check_room(1)
        body = await self._body(request)
        name = uuid.uuid4().hex

        def prepare() -> tuple[Order, list[Request]]:
            order = read(read_json(body), self._limits)
            return order, self._prompts.requests(order, name)

        order, calls = await asyncio.get_running_loop().run_in_executor(self._readers, prepare)
        prefix = "chatcmpl" if order.chat else "cmpl"
        reply = Reply(
            order, f"{prefix}-{name}", self._limits.model, calls, self._tokenizer, self._tokens
        )
        with self._driver.submit(calls, live=order.stream) as job:
            if order.stream:
                return await self._stream(request, reply, job)
            choices = {i: reply.update(i, ended) async for i, ended in job.updates()}
            return web.json_response(reply.whole([choices[i] for i in sorted(choices)]))

    async def _body(self, request: web.BaseRequest) -> bytes:
        """The whole body of a request.

        Raises:
          Refusal: if it is no JSON by its head, too long, too slow or broken.
        """
        most = self._limits.body_bytes
        if request.content_type != "application/json":
            # Nor can a web page that a user looks at send this without asking.
            raise Refusal(
                f"the body is {quoted(request.content_type)} by its Content-Type: expected "
                "application/json",
                status=415,
                code="unsupported_media_type",
            )
        if request.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise Refusal(
                "the body is compressed: send it as it is", status=415, code="unsupported_encoding"
            )
        too_large = Refusal(
            f"the body has more than {most} bytes", status=413, code="request_too_large"
        )
        if request.content_length is not None and request.content_length > most:
            raise too_large
        await self._expect(request)
        body = bytearray()
        try:
            async with asyncio.timeout(self._timeouts.body):
                while chunk := await request.content.readany():
                    body += chunk
                    if len(body) > most:
                        raise too_large
        except TimeoutError:
            raise Refusal(
                f"the body did not come within {self._timeouts.body:g} seconds",
                status=408,
                code="timeout",
            ) from None
        except web.RequestPayloadError as error:
            raise Refusal(f"the body is broken: {error}") from None
        except RuntimeError as error:
            # So a body is refused to us whose client had gone before we began to read.
            if request.transport is not None and not request.transport.is_closing():
                raise
            raise ConnectionError("the client has gone") from error
        return bytes(body)

    async def _expect(self, request: web.BaseRequest) -> None:
        """Tell a client to go on that asks before it sends its body."""
        expected = request.headers.get("Expect")
        if expected is None:
            return
        if expected.lower() != "100-continue":
            raise Refusal(f"Expect: {quoted(expected)} is not known here", status=417)
        if request.version >= (1, 1):
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            # It is no part of the response.
            request.writer.output_size = 0

    async def _stream(self, request: web.BaseRequest, reply: Reply, job: Job) -> web.StreamResponse:
        """Send the answers as they grow, as server-sent events."""
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"}
        )
        try:
            async for index, generation in job.updates():
                choice = reply.update(index, generation)
                chunks = [] if choice is None else [reply.chunk(choice)]
                if not response.prepared:
                    # Not sooner: until there is something to tell, an error has a status.
                    await response.prepare(request)
                    chunks = [*reply.opening(), *chunks]
                await self._send(request, response, *map(json.dumps, chunks))
            await self._send(request, response, *map(json.dumps, reply.closing()), "[DONE]")
        except Refusal as refusal:
            if not response.prepared:
                raise
            await self._send(request, response, refusal.encoded().decode())
            response.force_close()
        return response

    async def _send(
        self, request: web.BaseRequest, response: web.StreamResponse, *events: str
    ) -> None:
        if not events:
            return
        try:
            async with asyncio.timeout(self._timeouts.send):
                await response.write("".join(f"data: {event}\n\n" for event in events).encode())
        except TimeoutError:
            # Closing would wait until the client has taken in what was sent.
            if request.transport is not None:
                request.transport.abort()
            raise ConnectionError("the client takes nothing in") from None


def _as_bytes(header: str) -> bytes:
    return header.encode("utf-8", "surrogateescape")
