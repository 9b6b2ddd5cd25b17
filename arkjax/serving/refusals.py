"""Why a request is not served, in the shape in which OpenAI's API says so."""

import json
from collections.abc import Mapping
from typing import Any

INVALID = "invalid_request_error"
NO_TOOLS = "this server calls no tools"


class Refusal(Exception):
    """An answer other than what was asked for.

    Attributes:
      message: what is wrong and what to do, for people.
      param: the field that is wrong, such as "messages[0].content", or None.
      status: of HTTP.
      kind: OpenAI's "type" of the error.
      code: OpenAI's "code" of the error, or None.
      headers: of the response.
    """

    def __init__(
        self,
        message: str,
        param: str | None = None,
        *,
        status: int = 400,
        kind: str = INVALID,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ):
        super().__init__(message)
        self.message, self.param, self.status = message, param, status
        self.kind, self.code, self.headers = kind, code, dict(headers or {})

    def body(self) -> dict[str, Any]:
        """The error object."""
        error = {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}
        return {"error": error}

    def encoded(self) -> bytes:
        """The error object as JSON."""
        return json.dumps(self.body()).encode()


def busy(message: str) -> Refusal:
    """There are too many calls already."""
    return Refusal(
        message,
        status=429,
        kind="rate_limit_error",
        code="queue_full",
        headers={"Retry-After": "1"},
    )


def stopping() -> Refusal:
    """The server is about to end."""
    return Refusal(
        "the server is stopping: try again when it is back",
        status=503,
        kind="server_error",
        code="stopping",
        headers={"Retry-After": "10"},
    )


def failure(message: str) -> Refusal:
    """Something of the server's own went wrong."""
    return Refusal(message, status=500, kind="server_error", code="internal_error")
