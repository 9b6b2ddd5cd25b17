"""A server on a free port, whose model is a hash, and which misbehaves when told to."""

import contextlib
import dataclasses
import hashlib
import http.server
import json
import random
import socket
import struct
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest

from arkjax.sampling.params import Generation, Request, SamplingParams
from arkjax.sampling.remote import RemoteConfig, RemoteGenerator
from arkjax.shipped import shipped_path
from arkjax.text.tokenizer import Tokenizer

V = 40
_SCRIPT = """
import sys
from arkjax.sampling.params import Request, SamplingParams
from arkjax.sampling.remote import RemoteConfig, RemoteGenerator
url, keep = sys.argv[1:]
model = RemoteGenerator(RemoteConfig(url, "toy", retries=0))
request = Request("r0", (3, 4, 5), 0, SamplingParams(stop_ids=(1,)), 7)
if keep == "keep":
    model.submit(request)
    model.step()
else:
    print(model.generate([request])[0].ids)
"""


def say(prompt, seed, sampling):
    """What the model generates: ids, logprobs, sampling_logprobs and finish reason."""
    draw = hashlib.sha256(json.dumps([list(prompt), seed, sampling]).encode()).digest()
    end, limit = sampling["stop_token_ids"], sampling["max_tokens"]
    ids = [3 + byte % (V - 3) for byte in draw[: 1 + draw[-1] % 12]][:limit]
    stops = bool(end) and (len(ids) < limit or draw[-2] % 2 == 0)
    if stops:
        ids = [*ids[: limit - 1], end[0]]
    logprobs = [-byte / 64 for byte in draw[: len(ids)]]
    return ids, logprobs, [2 * x for x in logprobs], "stop" if stops else "length"


def expected(request):
    """The generation that must come of a request, without its seconds."""
    sampling = {
        "stop_token_ids": list(request.sampling.stop_ids),
        "max_tokens": request.sampling.max_tokens,
        "temperature": request.sampling.temperature,
    }
    ids, logprobs, drawn, reason = say(request.prompt_ids, request.seed, sampling)
    return Generation(
        request.id, tuple(ids), tuple(logprobs), tuple(drawn), reason, request.prefix_len, 0.0
    )


class CompletionsServer(http.server.ThreadingHTTPServer):
    """Answers /v1/completions.

    `trouble(body, attempt)` may say how to misbehave at an attempt of a call: a dict with `seconds`
    to wait first; a `status` with `body` and `headers`; `edit`, which changes a right reply or
    returns bytes or another one in its place; or `act`, something below HTTP.

    Attributes:
      bodies: of all completions that were asked for.
      times, paths: of them, the times in seconds.
      connections: that were made.
      peak: most completions under way at once.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, trouble=None, speak=say, model="toy", max_model_len=256, key=""):
        self.trouble = trouble or (lambda body, attempt: None)
        self.speak, self.model, self.max_model_len, self.key = speak, model, max_model_len, key
        self.bodies, self.times, self.paths = [], [], []
        self.connections = self.peak = self.open = 0
        self.attempts, self.sockets = {}, []
        self.lock, self.leaving = threading.Lock(), threading.Event()
        super().__init__(("127.0.0.1", 0), _Handler)
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def get_request(self):
        connection = super().get_request()
        self.connections += 1
        self.sockets.append(connection[0])
        return connection

    def handle_error(self, request, client_address):
        """Clients may leave."""

    def kill(self):
        """Be gone, with all connections."""
        self.leaving.set()
        self.shutdown()
        self.server_close()
        for connection in self.sockets:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *args):
        pass

    def do_GET(self):
        card = {"id": self.server.model, "object": "model"}
        if self.server.max_model_len:
            card["max_model_len"] = self.server.max_model_len
        self.reply(200, json.dumps({"object": "list", "data": [card]}).encode())

    def do_POST(self):
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            server.bodies.append(body)
            server.times.append(time.monotonic())
            server.paths.append(self.path)
            name = json.dumps([body["prompt"], body["seed"]])
            attempt = server.attempts[name] = server.attempts.get(name, 0) + 1
            server.open += 1
            server.peak = max(server.peak, server.open)
        try:
            trouble = server.trouble(body, attempt) or {}
            server.leaving.wait(trouble.get("seconds", 0))
            self.answer(body, trouble)
        finally:
            with server.lock:
                server.open -= 1

    def answer(self, body, trouble):
        sent = self.headers.get("Authorization", "")
        if self.server.key and sent != f"Bearer {self.server.key}":
            self.reply(401, b'{"error": {"message": "wrong key"}}')
        elif "act" in trouble:
            self.misbehave(trouble["act"])
        elif "status" in trouble:
            text = trouble.get("body", b'{"error": {"message": "not now"}}')
            text = text.replace(b"AUTHORIZATION", sent.encode())
            self.reply(trouble["status"], text, trouble.get("headers", {}))
        else:
            reply = self.completion(body)
            reply = trouble.get("edit", lambda reply: None)(reply) or reply
            data = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
            self.reply(200, data, trouble.get("headers", {}))

    def completion(self, body):
        sampling = {name: body[name] for name in ("max_tokens", "temperature")}
        sampling = {"stop_token_ids": body.get("stop_token_ids", []), **sampling}
        said = self.server.speak(body["prompt"], body["seed"], sampling)
        choice = {
            "index": 0,
            "text": "",
            "token_ids": said[0],
            "prompt_token_ids": body["prompt"],
            "logprobs": {"tokens": ["?"] * len(said[0]), "token_logprobs": said[1]},
            "sampling_logprobs": said[2],
            "finish_reason": said[3],
        }
        usage = {"prompt_tokens_details": {"cached_tokens": body.get("prefix_len", 0)}}
        return {"object": "text_completion", "choices": [choice], "usage": usage}

    def reply(self, status, data, headers=()):
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        for name, value in dict(headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def misbehave(self, act):
        self.close_connection = True
        if act == "reset":
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.connection.close()
        elif act == "garbage":
            self.wfile.write(b"\x00\xffSSH-2.0-none\r\n\r\n")
        elif act == "wrong length":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: -7\r\n\r\n{}")
        elif act == "truncate":
            self.wfile.write(b'HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n{"choices": [')
        elif act == "drip":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n")
            with contextlib.suppress(OSError):
                while not self.server.leaving.wait(0.05):
                    self.wfile.write(b" ")


@pytest.fixture(autouse=True)
def needs_aiohttp():
    pytest.importorskip("aiohttp")


@pytest.fixture
def serve():
    """A function that starts a `CompletionsServer`; all are gone at the end."""
    servers = []

    def start(*args, **kwargs):
        servers.append(CompletionsServer(*args, **kwargs))
        return servers[-1]

    yield start
    for server in servers:
        server.kill()


@pytest.fixture
def connect():
    """A function that makes a generator for a server or a url, quick to try again."""
    with contextlib.ExitStack() as stack:

        def make(where, tokenizer=None, **changes):
            url = where if isinstance(where, str) else where.url
            quick = {"backoff_seconds": 0.01, "retries": 3, "max_concurrency": 8}
            config = RemoteConfig(url, "toy", **(quick | changes))
            return stack.enter_context(RemoteGenerator(config, tokenizer))

        yield make


@pytest.fixture
def toy():
    """Requests for the toy model, and what must come of them."""

    def request(name="r0", prompt=(3, 4, 5), **sampling):
        return Request(name, prompt, 0, SamplingParams(**({"stop_ids": (1,)} | sampling)), 7)

    def requests(count, seed=0):
        rng = random.Random(seed)
        return [
            Request(
                f"r{i}",
                tuple(rng.randrange(3, V) for _ in range(rng.randrange(1, 30))),
                0,
                SamplingParams(
                    temperature=rng.choice((0.0, 0.7, 1.0)),
                    max_tokens=rng.randrange(1, 16),
                    stop_ids=rng.choice(((), (1,), (2, 1))),
                ),
                rng.randrange(2**31),
            )
            for i in range(count)
        ]

    def check(generations, requests):
        """Each request has its generation, in their order."""
        found = [dataclasses.replace(generation, seconds=0.0) for generation in generations]
        assert found == [expected(request) for request in requests]

    return SimpleNamespace(request=request, requests=requests, check=check, expected=expected)


@pytest.fixture(scope="session")
def tokenizer():
    return Tokenizer(shipped_path("data/embedded_world/tokenizer.model"))


@pytest.fixture
def run_apart():
    """A function that makes one call in a process of its own, or leaves it under way there."""

    def run(url, what):
        command = [sys.executable, "-c", _SCRIPT, url, what]
        return subprocess.run(command, capture_output=True, text=True, timeout=30)

    return run
