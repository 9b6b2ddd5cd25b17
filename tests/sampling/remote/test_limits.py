"""Limits: those of the config are kept, and what a server asks for is done."""

import itertools
import re
import time

import pytest

from arkjax.errors import DataError


def test_requests_keep_their_rate(toy, serve, connect):
    server = serve()
    model = connect(server, requests_per_minute=1800)
    requests = toy.requests(16)
    toy.check(model.generate(requests), requests)
    # One in 33 ms; the first may have been long on its way.
    assert server.times[-1] - server.times[0] > 15 / 30 - 0.1


def test_tokens_keep_their_rate_and_come_back_unused(toy, serve, connect):
    """Of 100 tokens that a call may take, and that take a second, it uses 3."""
    server = serve(speak=lambda *_: ([3, 4], [-1.0, -1.0], [-1.0, -1.0], "stop"))
    model = connect(server, tokens_per_minute=6000, max_concurrency=1)
    began = time.monotonic()
    model.generate([toy.request(f"r{i}", (3,), max_tokens=99) for i in range(30)])
    assert time.monotonic() - began < 15
    began = time.monotonic()
    server.speak = lambda *_: ([3] * 50, [-1.0] * 50, [-1.0] * 50, "length")
    model.generate([toy.request(f"s{i}", (4,), max_tokens=50) for i in range(4)])
    # 204 tokens: a second's worth may be there at the start, and the last 51 are owed at the end.
    assert time.monotonic() - began > 0.5


def test_a_server_that_asks_to_wait_is_left_alone(toy, serve, connect):
    requests = toy.requests(12)
    first = requests[0].seed

    def trouble(body, attempt):
        if body["seed"] == first and attempt < 3:
            return {"status": 429, "headers": {"Retry-After": "1"}}
        return {"seconds": 0.02}

    server = serve(trouble=trouble)
    # It answers what it is asked: these attempts are no failures.
    model = connect(server, max_concurrency=1, retries=0)
    toy.check(model.generate(requests), requests)
    times = server.times
    assert times[1] - times[0] >= 1 and times[2] - times[1] >= 1 and times[3] - times[2] < 0.9


def test_a_limit_that_is_used_up_is_waited_for(toy, serve, connect):
    used = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "400ms"}
    server = serve(trouble=lambda body, attempt: {"headers": used})
    connect(server).generate(toy.requests(1))
    model = connect(server, max_concurrency=1)
    model.generate(toy.requests(3))
    times = server.times[1:]
    assert all(b - a >= 0.4 for a, b in itertools.pairwise(times))


def test_nobody_waits_for_an_hour(toy, serve, connect):
    server = serve(trouble=lambda *_: {"status": 429, "headers": {"Retry-After": "3600"}})
    with pytest.raises(DataError, match=r"status 429: not now; it asks to wait 3600 s"):
        connect(server).generate([toy.request()])
    assert len(server.bodies) == 1


@pytest.mark.parametrize("headers", [{}, {"Retry-After-Ms": "60"}], ids=["silent", "says when"])
def test_a_limit_that_nobody_told_of_ends_no_call(toy, serve, connect, headers):
    """Five calls in 0.2 s pass and the others are refused, more often than may be tried again."""
    requests = toy.requests(60)
    passed = []

    def trouble(body, attempt):
        with server.lock:
            now = time.monotonic()
            passed[:] = [at for at in passed if now - at < 0.2]
            if len(passed) < 5:
                passed.append(now)
                return None
        return {"status": 429, "headers": headers}

    server = serve(trouble=trouble)
    model = connect(server, max_concurrency=32, retries=3, backoff_seconds=0.05)
    toy.check(model.generate(requests), requests)
    # Fewer at a time, so that not all of them are refused over and over.
    assert len(server.bodies) < 6 * len(requests)


def test_a_call_that_is_refused_for_itself_does_not_wait_for_ever(toy, serve, connect):
    requests = toy.requests(30)
    large = requests[4].seed
    refused = {"status": 429, "body": b'{"error": {"message": "too large for your tier"}}'}
    server = serve(trouble=lambda body, attempt: refused if body["seed"] == large else None)
    model = connect(server, max_concurrency=4, retries=2)
    for request in requests:
        model.submit(request)
    came = []
    with pytest.raises(DataError, match=r"call r4: .* x status 429: too large for your tier"):
        while True:
            came += model.step()
    assert len(came) >= 20 and "r4" not in {generation.request_id for generation in came}


def test_how_it_goes_can_be_told(toy, serve, connect):
    server = serve()
    model = connect(server)
    model.generate(toy.requests(3))
    assert model.note == ""
    seconds = {"Retry-After": "30"}
    server.trouble = lambda *_: {"status": 429, "headers": seconds, "body": b"slow\x1b[2J down"}
    model.submit(toy.request("slow"))
    until = time.monotonic() + 20
    while "waits" not in model.note:
        model.step()
        assert time.monotonic() < until
    said = r"4 at once, waits (29|30) s as the server asked, status 429: slow \[2J down"
    assert re.fullmatch(rf"(1 asked again, )?{said}", model.note)
    model.cancel()
