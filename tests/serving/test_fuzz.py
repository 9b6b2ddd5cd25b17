"""Ten thousand malformed requests: none brings the server down, none hangs, none is its fault."""

import collections
import contextlib
import json
import random
import socket
from collections.abc import Iterator

import pytest

BATCH = 500
GOOD = {"prompt": [5, 6, 7], "seed": 3, "max_tokens": 4, "return_token_ids": True}
VALID = [
    (
        "/v1/chat/completions",
        {
            "model": "tiny",
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": [{"type": "text", "text": "Hi \u00fc"}]},
            ],
            "max_tokens": 1,
            "temperature": 0.5,
            "top_p": 0.9,
            "n": 1,
            "stop": ["x", "y"],
            "logprobs": True,
            "top_logprobs": 2,
            "stream": False,
            "stream_options": None,
            "seed": 7,
            "response_format": {"type": "text"},
            "chat_template_kwargs": {"enable_thinking": False},
        },
    ),
    (
        "/v1/completions",
        {
            "model": "tiny",
            "prompt": [[5, 6], [7]],
            "max_tokens": 1,
            "top_k": 4,
            "min_p": 0.1,
            "logprobs": 1,
            "stop_token_ids": [9],
            "prefix_len": 0,
            "user": "u",
        },
    ),
]
HOSTILE = [
    "null", "true", "false", "0", "-1", "1.5", "1e999", "-1e999", "1e-999", "NaN", "Infinity",
    "9" * 400, "9" * 5000, str(2**31), str(2**63), str(-(2**63) - 1), str(2**64), "01", "0x1",
    '""', '"a"', '"\\ud800"', '"\\u0000"', '"' + "a" * 5000 + '"', '"\xff"', "'a'", "undefined",
    "[]", "[[]]", "[null]", "[1,[2,[3]]]", '[""]', "[" * 600 + "]" * 600, "[" * 5000, "[1,2,",
    "{}", '{"a":1}', '{"role":"user"}', '{"":{"":{}}}', '{"type":"image_url"}', "{1:2}",
    '{"include_usage":true}', '[{"role":"user","content":null}]', '[{"role":{},"content":[]}]',
    '["a","b",1]', "[" + "5," * 3000 + "5]", '{"type":"json_object"}', "-", "", "\\", "\x00",
]  # fmt: skip


def typed(rng: random.Random) -> tuple[str, bytes]:
    """A valid body with a value somewhere in it replaced by one of another kind."""
    path, body = rng.choice(VALID)
    body = json.loads(json.dumps(body))
    where = body
    while True:
        key = rng.choice(list(where) if isinstance(where, dict) else range(len(where)))
        inner = where[key]
        if not inner or not isinstance(inner, (dict, list)) or rng.random() < 0.4:
            break
        where = inner
    if isinstance(where, dict) and rng.random() < 0.2:
        # Another name, such as one that is almost right.
        del where[key]
        key = rng.choice([key + "s", key[1:], key.upper(), "tools", "echo", "__class__", "\ud800"])
    where[key] = "HOSTILE"
    return path, json.dumps(body).replace('"HOSTILE"', rng.choice(HOSTILE)).encode("latin-1")


def mutated(rng: random.Random) -> tuple[str, bytes]:
    """A valid body with some of its bytes changed, lost, doubled or put elsewhere."""
    path, body = rng.choice(VALID)
    raw = bytearray(json.dumps(body).encode())
    for _ in range(rng.randint(1, 6)):
        at, size = rng.randrange(len(raw)), rng.randint(1, 12)
        kind = rng.randrange(5)
        if kind == 0:
            raw[at] = rng.randrange(256)
        elif kind == 1:
            del raw[at : at + size]
        elif kind == 2:
            raw[at:at] = raw[at : at + size]
        elif kind == 3:
            raw[at:at] = rng.randbytes(size)
        else:
            raw[at:at] = rng.choice(b'{}[]",:\\0-9e.').to_bytes(1, "big") * size
        raw = raw or bytearray(b"{")
    return path, bytes(raw)


def head(path: str, length: int, *more: str) -> bytes:
    """The head of a request with JSON."""
    lines = [f"POST {path} HTTP/1.1", "Host: x", "Content-Type: application/json"]
    return "\r\n".join([*lines, f"Content-Length: {length}", *more, "", ""]).encode()


def broken(rng: random.Random) -> bytes:
    """Bytes that are no HTTP, or HTTP with something wrong in its head or its framing."""
    path, body = rng.choice(VALID)
    raw = json.dumps(body).encode()
    kind = rng.randrange(9)
    if kind == 0:
        return rng.randbytes(rng.randint(1, 300))
    if kind == 1:
        return rng.randbytes(rng.randint(0, 20)) + b"\r\n\r\n" + rng.randbytes(30)
    if kind == 2:
        words = [b"GET", b"POST", b"PRI", b"get", b"\x16\x03\x01", b"CONNECT", b"OPTIONS", b""]
        targets = [
            b"/", b"*", b"//", b"http://[::1", b"/v1/%zz%ff", b"/v1/../health", b"?a", b"\xff\xfe",
            b"/" + b"a" * 9000, b"http://x:99999/", b"/v1/chat/completions#x", b"/\x00", b"a b",
        ]  # fmt: skip
        versions = [b"HTTP/1.1", b"HTTP/9.9", b"HTTP/1.0", b"HTTP/2.0", b"", b"http/1.1", b"HTTP/"]
        parts = [rng.choice(words), rng.choice(targets), rng.choice(versions)]
        return b" ".join(parts) + b"\r\nHost: x\r\n\r\n"
    if kind == 3:
        lines = [
            b"Content-Length: -1", b"Content-Length: 1e3", b"Content-Length: " + b"9" * 30,
            b"Content-Length: 5\r\nContent-Length: 6", b"Transfer-Encoding: gzip, chunked",
            b"Transfer-Encoding: chunked\r\nContent-Length: 3", b"Upgrade: websocket",
            b"Connection: upgrade\r\nUpgrade: h2c", b": x", b"x", b"X: " + b"a" * 9000,
            b"X\x00: y", b"X : y", b" X: y", b"Content-Encoding: br", b"Expect: nothing",
            b"Host: y", b"Authorization: \xff\xfe", b"Content-Type: multipart/form-data",
            b"\r\n".join(b"X%d: y" % i for i in range(200)), b"Accept: text/html",
        ]  # fmt: skip
        return head(path, len(raw))[:-2] + rng.choice(lines) + b"\r\n\r\n" + raw
    if kind == 4:
        chunks = [
            b"zz\r\n",
            b"-1\r\n",
            b"5\r\nab",
            b"FFFFFFFFFFFFFFFFFF\r\n",
            b"1;\x00\r\na\r\n0\r\n",
        ]
        start = head(path, 0).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
        return start + rng.choice(chunks) + b"\r\n\r\n"
    if kind == 5:
        return head(path, len(raw) + rng.randint(1, 50)) + raw
    if kind == 6:
        return head(path, rng.randrange(len(raw))) + raw
    whole = bytearray(head(path, len(raw)) + raw)
    for _ in range(rng.randint(1, 8)):
        whole[rng.randrange(120)] = rng.randrange(256)
    return bytes(whole[: rng.randrange(len(whole))] if kind == 8 else whole)


def responses(connection: socket.socket) -> Iterator[tuple[int, bytes]]:
    """Statuses and bodies of all that comes until the other side has no more to say."""
    raw = b""
    try:
        while part := connection.recv(65536):
            raw += part
    except ConnectionResetError:
        pass
    while raw:
        top, _, raw = raw.partition(b"\r\n\r\n")
        fields = dict(line.lower().split(b": ", 1) for line in top.split(b"\r\n")[1:])
        # A stream has no length, and is the last that comes.
        length = int(fields.get(b"content-length", len(raw)))
        yield int(top.split()[1]), raw[:length]
        raw = raw[length:]


def check(status: int, body: bytes, sent: bytes) -> None:
    """No answer is a failure of the server, and every refusal is an error object."""
    assert status < 500, (status, body, sent)
    if status >= 400:
        error = json.loads(body)["error"]
        assert set(error) == {"message", "type", "param", "code"} and error["message"], sent
        assert len(body) < 4000, sent


def good(served) -> list[int]:
    status, _, reply = served.ask("/v1/completions", GOOD)
    assert status == 200
    return reply["choices"][0]["token_ids"]


@pytest.fixture(scope="module")
def impatient(serving, start):
    """A server that waits for nobody, so that what waits for ever is seen to."""
    with start(timeouts=serving.Timeouts(head=1.0, idle=2.0, body=1.0, send=5.0)) as served:
        yield served


@pytest.mark.parametrize(("kind", "count"), [("typed", 4000), ("mutated", 3000), ("broken", 3000)])
def test_malformed_requests(impatient, capfd, kind, count):
    rng = random.Random(kind)
    right = good(impatient)
    statuses: collections.Counter[int] = collections.Counter()
    for first in range(0, count, BATCH):
        sent, connections = [], []
        for _ in range(BATCH):
            if kind == "broken":
                sent.append(broken(rng))
            else:
                path, body = typed(rng) if kind == "typed" else mutated(rng)
                sent.append(head(path, len(body), "Connection: close") + body)
            # A server that hangs runs into this timeout.
            connections.append(impatient.connect(30.0))
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connections[-1].sendall(sent[-1])
        for connection, said in zip(connections, sent, strict=True):
            with connection:
                answers = list(responses(connection))
            # Every request is told something, if only that it came too slowly.
            assert answers, said
            for status, body in answers:
                check(status, body, said)
                statuses[status] += 1
        assert good(impatient) == right, f"after {first + BATCH} {kind} requests"
    assert statuses[400] > count // 3 and len(statuses) > 2, statuses
    assert impatient.ask("/health")[2] == {"status": "ok", "open": 0, "waiting": 0}
    # Nothing of it is worth a word to who runs the server.
    assert capfd.readouterr().err == ""
