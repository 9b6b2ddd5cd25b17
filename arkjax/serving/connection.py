"""Connections whose errors below HTTP have the shape of OpenAI's API too, and that end in time."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from aiohttp import web

from arkjax.serving.refusals import Refusal, failure

# The server says itself what is worth saying.
_SILENT = logging.getLogger("arkjax.serving.silent")
_SILENT.addHandler(logging.NullHandler())
_SILENT.propagate = False
# Seconds for which what a refused client still sends is read, so that it sees the refusal.
_LINGER = 2.0


def refused(refusal: Refusal) -> web.Response:
    """A refusal as a response."""
    return web.Response(
        body=refusal.encoded(),
        status=refusal.status,
        headers=refusal.headers,
        content_type="application/json",
    )


def _too_slow() -> bytes:
    """The response to a client of whose request not even the head came in time."""
    body = Refusal(
        "the head of the request did not come in time", status=408, code="timeout"
    ).encoded()
    head = (
        "HTTP/1.1 408 Request Timeout\r\nContent-Type: application/json\r\nConnection: close\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class Connection(web.RequestHandler):
    """One connection of a client.

    Attributes:
      begun: whether a whole head of a request has come.
    """

    __slots__ = ("begun", "_head_seconds", "_late")

    def __init__(self, server: "Server", *, head_seconds: float, idle_seconds: float):
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=idle_seconds,
            access_log=None,
            logger=_SILENT,
            lingering_time=_LINGER,
            # What unpacks to a thousand times its size is not unpacked.
            auto_decompress=False,
        )
        self.begun = False
        self._head_seconds = head_seconds
        self._late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for the first request."""
        super().connection_made(transport)
        loop = asyncio.get_running_loop()
        self._late = loop.call_later(self._head_seconds, self._end_if_late)

    def connection_lost(self, error: BaseException | None) -> None:
        """Stop waiting."""
        if self._late is not None:
            self._late.cancel()
        super().connection_lost(error)

    def _end_if_late(self) -> None:
        if not self.begun and self.transport is not None:
            self.transport.write(_too_slow())
            self.force_close()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """What was no HTTP, as a refusal."""
        self.begun = True
        if request.writer.output_size > 0:
            raise ConnectionError("the response has begun")
        if status >= 500:
            response = refused(failure("the server failed over this request"))
        else:
            why = (message or "malformed").strip().splitlines()[0]
            response = refused(Refusal(f"this is no HTTP request: {why}", status=status))
        response.force_close()
        return response


class Server(web.Server):
    """Makes a `Connection` for each client; a handler is cancelled when its client leaves."""

    def __init__(
        self,
        handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
        *,
        head_seconds: float,
        idle_seconds: float,
    ):
        """Set up a server.

        Args:
          handler: answers requests.
          head_seconds: in which the head of a connection's first request must have come.
          idle_seconds: in which each further one must have come.
        """
        super().__init__(handler, handler_cancellation=True)
        self._seconds = {"head_seconds": head_seconds, "idle_seconds": idle_seconds}

    def __call__(self) -> Connection:
        """A connection for a client that has come."""
        return Connection(self, **self._seconds)
