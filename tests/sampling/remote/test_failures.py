"""Failures: what passes is tried again, what stays ends all in one line, and no answer is lost."""

import gzip
import math
import random
import re
import socket
import threading
import time

import pytest

from arkjax.errors import ConfigError, DataError

pytestmark = pytest.mark.fast


def edit_choice(**fields):
    def edit(reply):
        reply["choices"][0] |= fields

    return {"edit": edit}


def edit_logprobs(change):
    def edit(reply):
        values = reply["choices"][0]["logprobs"]["token_logprobs"]
        reply["choices"][0]["logprobs"]["token_logprobs"] = change(values)

    return {"edit": edit}


PASSING = {
    "408": ({"status": 408}, "status 408: not now"),
    "409": ({"status": 409}, "status 409"),
    "429": ({"status": 429}, "status 429"),
    "500": (
        {"status": 500, "body": b"<html>oh\x1b[31m</html>"},
        r"status 500: <html>oh \[31m</html>",
    ),
    "503": ({"status": 503, "body": b'{"detail": "loading"}'}, "status 503: loading"),
    "reset": ({"act": "reset"}, "no answer"),
    "closed": ({"act": "close"}, "no answer"),
    "garbage": ({"act": "garbage"}, "no answer"),
    "wrong length": ({"act": "wrong length"}, "no answer"),
    "truncated": ({"act": "truncate"}, "no answer"),
    "silent": ({"seconds": 30}, "no answer in time"),
    "dripping": ({"act": "drip"}, "no answer in time"),
    "no JSON": ({"edit": lambda reply: b'{"choices": [{'}, "no JSON"),
    "no UTF-8": ({"edit": lambda reply: b'{"a": "\xff"}'}, "no JSON"),
    "too deep": ({"edit": lambda reply: b"[" * 60000}, "no JSON"),
    "too long a number": ({"edit": lambda reply: b"1" * 6000}, "no JSON"),
    "huge": ({"edit": lambda reply: b" " * 2**22}, r"more than \d+ bytes"),
    "unpacked": (
        {
            "edit": lambda reply: gzip.compress(b" " * 2**24),
            "headers": {"Content-Encoding": "gzip"},
        },
        "no JSON",
    ),
    "a list": ({"edit": lambda reply: b"[1]"}, "no single choice"),
    "no choices": ({"edit": lambda reply: {"choices": []}}, "no single choice"),
    "two choices": (
        {"edit": lambda reply: {"choices": reply["choices"] * 2}},
        "no single choice",
    ),
    "aborted": (edit_choice(finish_reason="abort"), "finish_reason 'abort'"),
    "odd reason": (edit_choice(finish_reason=["stop"]), "finish_reason"),
    "other prompt": (edit_choice(prompt_token_ids=[1, 3, 4, 5]), "another prompt"),
    "no ids": (edit_choice(token_ids=[]), "0 tokens, but token_logprobs has"),
    "text ids": (edit_choice(token_ids="345"), "no list of numbers"),
    "true ids": (edit_choice(token_ids=[True]), "no list of numbers"),
    "negative id": (edit_choice(token_ids=[-1]), "token id -1 is outside"),
    "high id": (edit_choice(token_ids=[2**31]), "token id 2147483648 is outside"),
    "too many": (
        edit_choice(token_ids=[3] * 65, logprobs={"token_logprobs": [0] * 65}),
        "65 ids where 1 to 64",
    ),
    "no logprobs": (edit_choice(logprobs=None), "no logprobs"),
    "odd logprobs": (edit_choice(logprobs=[1]), "logprobs is a list"),
    "one logprob less": (edit_logprobs(lambda x: x[:-1]), "token_logprobs has"),
    "one logprob more": (edit_logprobs(lambda x: [*x, -1.0]), "token_logprobs has"),
    "null logprob": (edit_logprobs(lambda x: [None, *x[1:]]), "no log-probability"),
    "NaN": (edit_logprobs(lambda x: [math.nan, *x[1:]]), "no log-probability"),
    "infinite": (edit_logprobs(lambda x: [-math.inf, *x[1:]]), "no log-probability"),
    "positive": (edit_logprobs(lambda x: [1.5, *x[1:]]), "no log-probability"),
    "beyond a double": (edit_logprobs(lambda x: [-(10**400), *x[1:]]), "no log-probability"),
    "sampling logprobs": (edit_choice(sampling_logprobs=[-1.0] * 99), "sampling_logprobs has 99"),
}


@pytest.mark.parametrize("kind", PASSING)
def test_what_fails_once_is_tried_again_and_what_stays_ends_in_one_line(toy, serve, connect, kind):
    trouble, why = PASSING[kind]
    server = serve(trouble=lambda body, attempt: trouble if attempt == 1 else None)
    patience = {"silent": {"idle_seconds": 0.5}, "dripping": {"total_seconds": 0.6}}
    model = connect(server, retries=1, max_context=256, **patience.get(kind, {}))
    toy.check(model.generate([toy.request()]), [toy.request()])
    assert len(server.bodies) == 2 and server.bodies[0] == server.bodies[1]
    server.trouble = lambda body, attempt: trouble
    with pytest.raises(DataError) as error:
        model.generate([toy.request("r1", prompt=(9, 9))])
    message = str(error.value)
    assert len(server.bodies) == 4 and model.pending == 0
    assert re.match(rf"call r1: {server.url} gave no answer in 2 attempts over \d+ s \(", message)
    assert re.search(why, message) and message.isprintable() and len(message) < 700
    # The failure of one list of calls is not that of the next.
    server.trouble = lambda body, attempt: None
    toy.check(model.generate([toy.request()]), [toy.request()])


@pytest.mark.parametrize("seed", range(6))
def test_random_failures_lose_and_double_nothing(toy, serve, connect, seed):
    kinds = [k for k in PASSING if k not in ("silent", "dripping", "huge", "other prompt")]

    def trouble(body, attempt):
        draw = random.Random(f"{seed} {body['prompt']} {body['seed']} {attempt}")
        return PASSING[draw.choice(kinds)][0] if draw.random() < 0.5 else None

    requests = toy.requests(40, seed)
    server = serve(trouble=trouble)
    model = connect(server, retries=40, backoff_seconds=0.002, max_concurrency=1 + 6 * (seed % 3))
    for request in requests:
        model.submit(request)
    came = []
    while model.pending:
        came += model.step()
    assert sorted(generation.request_id for generation in came) == sorted(r.id for r in requests)
    by_id = {generation.request_id: generation for generation in came}
    toy.check([by_id[request.id] for request in requests], requests)
    assert len(server.bodies) > 40


def test_a_server_that_is_not_there_is_said_to_be(toy, connect):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    model = connect(f"http://127.0.0.1:{port}/v1", max_context=99)
    with pytest.raises(DataError, match=r"call r0: .*4 attempts .*4 x no answer \(Client.*repeat"):
        model.generate([toy.request()])


@pytest.mark.parametrize(
    ("status", "kind", "why"),
    [
        (400, DataError, "not now"),
        (401, ConfigError, "put a valid key into TOY_KEY"),
        (403, ConfigError, "put a valid key into TOY_KEY"),
        (404, ConfigError, "remote.model, 'toy'"),
        (413, DataError, "not now"),
        (422, DataError, "not now"),
        (307, ConfigError, "redirects are not followed"),
    ],
)
def test_permanent_errors_stop_at_once_and_say_why(
    toy, serve, connect, monkeypatch, status, kind, why
):
    monkeypatch.setenv("TOY_KEY", "sk-7f3a9")
    requests = toy.requests(9)
    headers = {"Location": "http://127.0.0.1:9/v1/completions"} if status == 307 else {}
    trouble = {"status": status, "headers": headers}
    server = serve(
        trouble=lambda body, attempt: trouble if body["seed"] == requests[3].seed else None
    )
    model = connect(server, max_concurrency=1, api_key_env="TOY_KEY")
    for request in requests:
        model.submit(request)
    while len(server.bodies) < 4:
        time.sleep(0.01)
    # All that there is to know is known before anybody asks.
    time.sleep(0.2)
    came = []
    with pytest.raises(kind) as error:
        while model.pending:
            came += model.step()
    # Those before it are not lost, those behind it are not begun.
    toy.check(came, requests[:3])
    assert len(server.bodies) == 4
    assert str(error.value).startswith(f"call r3: {server.url} answers status {status}: not now")
    assert why in str(error.value)
    with pytest.raises(kind):
        model.step()
    model.cancel()
    assert model.pending == 0
    toy.check(model.generate(requests[4:]), requests[4:])


def test_calls_under_way_are_returned_before_the_error(toy, serve, connect):
    requests = toy.requests(20)
    bad, all_four = requests[1].seed, threading.Barrier(4)

    def trouble(body, attempt):
        all_four.wait(20)
        return {"status": 400} if body["seed"] == bad else {"seconds": 0.3}

    server = serve(trouble=trouble)
    model = connect(server, max_concurrency=4)
    for request in requests:
        model.submit(request)
    came = []
    with pytest.raises(DataError, match="call r1: .* status 400"):
        while True:
            came += model.step()
    assert {generation.request_id for generation in came} == {"r0", "r2", "r3"}
    assert len(server.bodies) == 4
