"""What a server does when it is full, left alone, broken, kept waiting, or told to stop."""

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from arkjax.sampling.params import Request, SamplingParams

USER = [{"role": "user", "content": "What is the capital of France?"}]
CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"


def ask_for(seed: int, **fields) -> dict:
    return {"prompt": [5, 6, 7], "seed": seed, "max_tokens": 20, "return_token_ids": True, **fields}


def head(path: str, length: int, *more: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: x", "Content-Type: application/json"]
    return "\r\n".join([*lines, f"Content-Length: {length}", *more, "", ""]).encode()


def post(body: dict, path: str = TEXT) -> bytes:
    raw = json.dumps(body).encode()
    return head(path, len(raw)) + raw


def wait_for(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.01)


def read_all(connection) -> bytes:
    parts = []
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts)


def error_in(response: bytes) -> tuple[int, dict]:
    """Status and error of a raw response."""
    first, _, body = response.partition(b"\r\n\r\n")
    error = json.loads(body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return int(first.split()[1]), error


def opened(served) -> int:
    return served.ask("/health")[2]["open"]


@pytest.fixture(scope="module")
def expected(offline, speaker):
    """A function that gives the token ids that `ask_for` must bring."""

    def ids(seed: int, most: int = 20) -> list[int]:
        sampling = SamplingParams(max_tokens=most, stop_ids=speaker.tokenizer.end_ids)
        return list(offline.generate([Request("x", (5, 6, 7), 0, sampling, seed)])[0].ids)

    return ids


def test_a_full_queue_says_so_and_takes_nothing_in_part(start, gated, expected):
    with start(max_queue=3, wrap=gated) as served, ThreadPoolExecutor(8) as pool:
        (engine,) = gated.engines
        taken = [pool.submit(served.ask, TEXT, ask_for(seed)) for seed in range(6)]
        wait_for(lambda: opened(served) == 6)
        # One place is left, and nobody gets a part of what he asked for.
        status, headers, reply = served.ask(TEXT, ask_for(9, n=2))
        assert (status, headers["Retry-After"]) == (429, "1")
        assert (reply["error"]["type"], reply["error"]["code"]) == (
            "rate_limit_error",
            "queue_full",
        )
        assert opened(served) == 6
        status, _, reply = served.ask(TEXT, ask_for(9, stream=True, n=2))
        assert status == 429 and opened(served) == 6
        taken.append(pool.submit(served.ask, TEXT, ask_for(6)))
        wait_for(lambda: opened(served) == 7)
        assert served.ask("/health")[2]["waiting"] == 3
        assert served.ask(CHAT, {"messages": USER})[0] == 429
        engine.gate.set()
        for seed, future in enumerate(taken):
            status, _, reply = future.result(60)
            assert status == 200 and reply["choices"][0]["token_ids"] == expected(seed)
        assert served.ask(TEXT, ask_for(9, n=2))[0] == 200
        # What never fits is wrong, not early.
        assert served.ask(TEXT, ask_for(9, n=8))[0] == 400


@pytest.mark.parametrize("stream", [True, False])
def test_who_leaves_is_forgotten_and_the_others_are_not(start, gated, expected, stream):
    with start(max_queue=8, wrap=gated) as served, ThreadPoolExecutor(2) as pool:
        (engine,) = gated.engines
        stays = pool.submit(served.ask, TEXT, ask_for(1))
        wait_for(lambda: opened(served) == 1)
        leaves = [served.connect() for _ in range(3)]
        for seed, connection in enumerate(leaves):
            connection.sendall(post(ask_for(seed, n=2, max_tokens=200, stream=stream)))
        wait_for(lambda: opened(served) == 7)
        for connection in leaves:
            connection.close()
        wait_for(lambda: opened(served) == 1)
        engine.gate.set()
        status, _, reply = stays.result(60)
        assert status == 200 and reply["choices"][0]["token_ids"] == expected(1)
        wait_for(lambda: engine.pending == 0)
        assert served.ask(TEXT, ask_for(2))[2]["choices"][0]["token_ids"] == expected(2)


def test_who_leaves_in_the_midst_of_an_answer_frees_the_slot(start, gated, expected):
    with start(max_queue=4, wrap=gated) as served:
        (engine,) = gated.engines
        engine.turns.release(4)
        with served.connect() as connection:
            connection.sendall(post(ask_for(0, max_tokens=250, stream=True, ignore_eos=True)))
            said = b""
            while b"data: " not in said:
                said += connection.recv(4096)
            assert engine.pending == 1
        wait_for(lambda: opened(served) == 0)
        engine.gate.set()
        assert served.ask(TEXT, ask_for(2))[2]["choices"][0]["token_ids"] == expected(2)
        assert engine.pending == 0


def test_who_takes_nothing_in_is_cut_off(start, serving):
    timeouts = serving.Timeouts(send=0.5)
    settings = {"timeouts": timeouts, "send_buffer": 4096}
    with start(**settings) as served, served.connect() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        ask = ask_for(0, n=8, max_tokens=250, stream=True, ignore_eos=True, logprobs=20)
        connection.sendall(post(ask))
        wait_for(lambda: opened(served) > 0)
        wait_for(lambda: opened(served) == 0, 60)
        assert b"[DONE]" not in read_all(connection)
        assert served.ask(TEXT, ask_for(2))[0] == 200


def test_an_engine_that_fails_fails_its_calls_and_serves_on(start, gated, expected, capfd):
    with start(wrap=gated) as served, ThreadPoolExecutor(4) as pool:
        (engine,) = gated.engines
        whole = [pool.submit(served.ask, TEXT, ask_for(seed)) for seed in range(3)]
        # All of them are in the engine, not only before it.
        wait_for(lambda: opened(served) == 3)
        engine.turns.release()
        wait_for(lambda: engine.pending == 3)
        engine.fails = True
        engine.gate.set()
        for future in whole:
            status, _, reply = future.result(60)
            assert (status, reply["error"]["type"]) == (500, "server_error")
            assert "on fire" not in reply["error"]["message"]
        assert (engine.pending, opened(served)) == (0, 0)
        assert served.ask(TEXT, ask_for(5))[2]["choices"][0]["token_ids"] == expected(5)
    assert "the device is on fire" in capfd.readouterr().err


def test_an_engine_that_fails_in_the_midst_of_a_stream_ends_it_with_an_error(
    start, gated, openai, capfd
):
    with start(wrap=gated) as served:
        (engine,) = gated.engines
        engine.turns.release(4)
        with openai.OpenAI(base_url=served.url, api_key="x", max_retries=0) as client:
            ask = {"model": "tiny", "prompt": [5, 6, 7], "max_tokens": 250}
            stream = client.completions.create(**ask, stream=True, extra_body={"ignore_eos": True})
            assert next(stream).choices[0].text
            engine.fails = True
            engine.gate.set()
            with pytest.raises(openai.APIError, match="the model failed"):
                list(stream)
            assert client.completions.create(**ask | {"max_tokens": 3}).choices
    capfd.readouterr()


def test_a_key_is_demanded_and_never_told(start, capfd):
    key = "sk-a-secret-that-nobody-sees"
    with start(key=key) as served:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": key}):
            status, said, reply = served.ask("/v1/models", **headers)
            assert (status, said["WWW-Authenticate"]) == (401, "Bearer")
            assert reply["error"]["code"] == "invalid_api_key"
            assert served.ask(TEXT, ask_for(1), **headers)[0] == 401
            assert key not in json.dumps(reply)
        right = {"Authorization": f"Bearer {key}"}
        assert served.ask("/v1/models", **right)[0] == 200
        assert served.ask(TEXT, ask_for(1), **right)[0] == 200
        # Whether it is there is no secret.
        assert served.ask("/health")[0] == 200
        with served.connect() as connection:
            strange = b"\xff\xc3\xa9"
            connection.sendall(b"GET /v1/models HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ")
            connection.sendall(strange + b"\r\nConnection: close\r\n\r\n")
            assert error_in(read_all(connection))[0] in (400, 401)
    assert key not in "".join(capfd.readouterr())


@pytest.mark.parametrize(
    ("method", "path", "headers", "body", "status", "said"),
    [
        ("GET", "/", {}, None, 404, "there is nothing at"),
        ("GET", "/v1/embeddings", {}, None, 404, "/v1/chat/completions"),
        ("POST", "/v1/models", {}, b"{}", 405, "takes GET"),
        ("GET", CHAT, {}, None, 405, "takes POST"),
        ("DELETE", "/v1/models/tiny", {}, None, 405, "takes GET"),
        ("POST", CHAT, {"Content_Type": "text/plain"}, b"{}", 415, "application/json"),
        ("POST", CHAT, {"Content_Type": ""}, b"{}", 415, "application/json"),
        ("POST", CHAT, {"Content_Encoding": "gzip"}, b"{}", 415, "compressed"),
        ("POST", CHAT, {"Expect": "a-miracle"}, b"{}", 417, "a-miracle"),
        ("POST", CHAT, {}, b"{", 400, "not JSON"),
        ("POST", CHAT, {}, b'{"messages": "\xff"}', 400, "not UTF-8"),
        ("POST", CHAT, {}, b"{}", 400, "messages is missing"),
        ("POST", TEXT, {}, b'{"prompt": "\\ud800"}', 400, "lone surrogate"),
        ("POST", TEXT, {}, b'{"prompt": "' + b"a" * 2_000_000 + b'"}', 413, "more than"),
    ],
)
def test_wrong_requests(served, method, path, headers, body, status, said):
    got, sent, reply = served.ask(path, body, method, **headers)
    assert got == status and said in reply["error"]["message"]
    assert sent["Content-Type"].startswith("application/json")
    assert set(reply["error"]) == {"message", "type", "param", "code"}
    assert status != 405 or sent["Allow"]


def test_a_body_that_grows_beyond_the_limit_is_refused_without_its_length(served):
    with served.connect() as connection:
        start = head(TEXT, 0, "Transfer-Encoding: chunked").replace(b"Content-Length: 0\r\n", b"")
        connection.sendall(start)
        with contextlib.suppress(ConnectionError):
            for _ in range(40):
                connection.sendall(b"10000\r\n" + b" " * 65536 + b"\r\n")
        status, error = error_in(read_all(connection))
        assert (status, error["code"]) == (413, "request_too_large")


def test_a_client_that_asks_before_it_sends_is_told_to_go_on(served):
    raw = json.dumps(ask_for(1)).encode()
    with served.connect() as connection:
        connection.sendall(head(TEXT, len(raw), "Expect: 100-continue", "Connection: close"))
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(raw)
        assert read_all(connection).startswith(b"HTTP/1.1 200 ")


def test_requests_one_behind_the_other_are_answered_in_their_order(served, expected):
    with served.connect() as connection:
        connection.sendall(b"".join(post(ask_for(seed)) for seed in range(5)))
        connection.sendall(b"GET /none HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        said = read_all(connection).split(b"HTTP/1.1 ")[1:]
    assert [part[:3] for part in said] == [b"200"] * 5 + [b"404"]
    for seed, part in enumerate(said[:5]):
        reply = json.loads(part.partition(b"\r\n\r\n")[2])
        assert reply["choices"][0]["token_ids"] == expected(seed)


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"", "timeout"),
        (b"POST /v1/completions HT", "timeout"),
        (head(TEXT, 100)[:-2], "timeout"),
        (head(TEXT, 100), "timeout"),
        (head(TEXT, 100) + b'{"prompt": ', "timeout"),
    ],
)
def test_what_is_sent_by_halves_ends_in_time(served, sent, code):
    began = time.monotonic()
    with served.connect() as connection:
        connection.sendall(sent)
        status, error = error_in(read_all(connection))
    assert (status, error["code"]) == (408, code)
    assert time.monotonic() - began < 15


def test_a_body_that_trickles_ends_in_time(served):
    with served.connect() as connection:
        connection.sendall(head(TEXT, 1000))
        stop = threading.Event()

        def trickle() -> None:
            with contextlib.suppress(OSError):
                while not stop.wait(0.1):
                    connection.sendall(b" ")

        thread = threading.Thread(target=trickle)
        thread.start()
        try:
            began = time.monotonic()
            assert b" 408 " in connection.recv(4096)
            assert time.monotonic() - began < 10
        finally:
            stop.set()
            thread.join()


def test_half_a_request_and_gone_leaves_nothing(served):
    for sent in (b"", b"POST", head(TEXT, 100), head(TEXT, 100) + b"{"):
        for _ in range(20):
            with served.connect() as connection:
                connection.sendall(sent)
    assert served.ask(TEXT, ask_for(1))[0] == 200 and opened(served) == 0


def test_told_to_stop_a_server_finishes_what_it_has_begun(start, gated, expected):
    with start(wrap=gated, grace=30.0) as served, ThreadPoolExecutor(4) as pool:
        (engine,) = gated.engines
        taken = [pool.submit(served.ask, TEXT, ask_for(seed)) for seed in range(3)]
        streamed = served.connect()
        streamed.sendall(post(ask_for(3, stream=True)))
        wait_for(lambda: opened(served) == 4)
        served.stop()

        def refused() -> bool:
            try:
                served.connect(1.0).close()
            except OSError:
                return True
            return False

        wait_for(refused)
        engine.gate.set()
        for seed, future in enumerate(taken):
            status, _, reply = future.result(60)
            assert status == 200 and reply["choices"][0]["token_ids"] == expected(seed)
        assert read_all(streamed).endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
        streamed.close()


def test_what_takes_longer_than_the_grace_is_ended(start, gated):
    with start(wrap=gated, grace=0.3) as served, ThreadPoolExecutor(1) as pool:
        future = pool.submit(served.ask, TEXT, ask_for(0))
        wait_for(lambda: opened(served) == 1)
        served.stop()
        status, headers, reply = future.result(60)
        assert (status, reply["error"]["code"]) == (503, "stopping")
        assert headers["Retry-After"] == "10"
        gated.engines[0].gate.set()
