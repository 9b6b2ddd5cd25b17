"""Answers of a server: what comes back is what it said, in any order and at any concurrency."""

import asyncio
import dataclasses
import gc
import random
import threading
import time

import pytest

from arkjax.errors import ConfigError, DataError
from arkjax.sampling.params import Request, SamplingParams
from arkjax.sampling.remote import RemoteConfig, RemoteGenerator

pytestmark = pytest.mark.fast


@pytest.mark.parametrize("concurrency", [1, 4, 64])
def test_answers_are_the_servers_in_any_order_and_concurrency(toy, serve, connect, concurrency):
    """In the order of the requests, over no more connections than there are calls at once."""
    requests = toy.requests(60)
    random.Random(concurrency).shuffle(requests)
    server = serve(trouble=lambda body, attempt: {"seconds": 0.001 * (body["seed"] % 9)})
    model = connect(server, max_concurrency=concurrency)
    toy.check(model.generate(requests), requests)
    assert model.pending == 0 and len(server.bodies) == 60
    assert server.peak <= concurrency and server.connections <= concurrency + 1
    assert concurrency == 1 or server.peak > 1


def test_a_request_is_sent_whole(toy, serve, connect):
    server = serve()
    sampling = SamplingParams(0.5, 7, 0.9, 0.02, 11, (1, 2), ("\n\n", "Q:"))
    connect(server).generate([Request("a", (5, 6, 7, 8), 3, sampling, 2**31 - 1)])
    assert server.bodies[0] == {
        "model": "toy",
        "prompt": [5, 6, 7, 8],
        "max_tokens": 11,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 7,
        "min_p": 0.02,
        "repetition_penalty": 1.0,
        "seed": 2**31 - 1,
        "stop": ["\n\n", "Q:"],
        "stop_token_ids": [1, 2],
        "ignore_eos": True,
        "logprobs": 0,
        "return_token_ids": True,
        "prefix_len": 3,
    }
    assert server.paths == ["/v1/completions"]


def test_seconds_add_up_to_the_time_taken(toy, serve, connect):
    server = serve(trouble=lambda body, attempt: {"seconds": 0.02 + 0.002 * (body["seed"] % 9)})
    model = connect(server, max_concurrency=6)
    assert model.max_context == 256
    began = time.monotonic()
    generations = model.generate(toy.requests(40))
    took = time.monotonic() - began
    # All but what passes before the first call has begun and after the last one has ended.
    assert 0.5 * took < sum(generation.seconds for generation in generations) <= took
    assert min(generation.seconds for generation in generations) > 0


def test_the_context_is_given_or_asked_for(toy, serve, connect):
    server = serve(max_model_len=50)
    assert connect(server).max_context == 50
    assert connect(server, max_context=20).max_context == 20
    model = connect(server)
    model.submit(toy.request(prompt=(3,) * 40, max_tokens=10))
    with pytest.raises(DataError, match=r"call big: 41 prompt tokens and up to 10 .*toy.* 50:"):
        model.submit(toy.request("big", prompt=(3,) * 41, max_tokens=10))
    with pytest.raises(DataError, match="call r0 was submitted twice"):
        model.submit(toy.request(max_tokens=10))
    assert model.pending == 1
    other = serve(model="else\x1b[2J")
    with pytest.raises(ConfigError, match=r"list of models: \S+ has no model 'toy', but \['else"):
        _ = connect(other).max_context
    with pytest.raises(ConfigError, match=r"set remote.max_context"):
        _ = connect(serve(max_model_len=None)).max_context


def test_calls_can_be_forgotten(toy, serve, connect):
    requests = toy.requests(12)
    slow = {request.seed for request in requests[:2]}
    server = serve(trouble=lambda body, attempt: {"seconds": 20 * (body["seed"] in slow)})
    model = connect(server, max_concurrency=2)
    for request in requests:
        model.submit(request)
    began = time.monotonic()
    model.cancel("r0")
    model.cancel("r7")
    came = []
    while model.pending > 1:
        came += model.step()
    assert {g.request_id for g in came} == {r.id for r in requests} - {"r0", "r1", "r7"}
    assert model.step() == []
    model.cancel()
    assert model.pending == 0
    server.trouble = lambda body, attempt: None
    # The ids are free again, and nothing of the forgotten calls comes.
    toy.check(model.generate(requests), requests)
    assert time.monotonic() - began < 15
    # Nor of one that had ended already.
    asked = threading.Event()
    server.trouble = lambda body, attempt: asked.set()
    model.submit(requests[3])
    assert asked.wait(20)
    time.sleep(0.2)
    model.cancel("r3")
    other = dataclasses.replace(requests[4], id="r3")
    model.submit(other)
    came = model.step()
    while model.pending:
        came += model.step()
    toy.check(came, [other])
    model.submit(requests[0])
    with pytest.raises(RuntimeError, match="1 calls are pending"):
        model.generate(requests[1:])


def test_a_process_may_end_with_calls_under_way(serve, run_apart):
    server = serve(trouble=lambda body, attempt: {"seconds": 30})
    done = run_apart(server.url, "keep")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert len(server.bodies) == 1


def test_a_generator_that_nobody_has_any_more_leaves_no_thread(toy, serve, tokenizer):
    before = set(threading.enumerate())
    model = RemoteGenerator(RemoteConfig(serve().url, "toy"), tokenizer)
    toy.check(model.generate([toy.request()]), [toy.request()])
    (thread,) = (t for t in set(threading.enumerate()) - before if t.name == "arkjax-remote")
    del model
    gc.collect()
    thread.join(10)
    assert not thread.is_alive()


def test_calls_that_wait_for_their_turn_are_small_and_end_with_the_generator(
    toy, serve, connect, caplog
):
    """A hundred thousand of them are no more than their requests."""
    server = serve(trouble=lambda body, attempt: {"seconds": 30})
    model = connect(server, max_concurrency=3)
    prompt = tuple(range(1000, 1200))
    request = toy.request(prompt=prompt, max_tokens=2)
    for i in range(2000):
        model.submit(dataclasses.replace(request, id=f"r{i}"))
    while len(server.bodies) < 3:
        time.sleep(0.01)
    loop = model._connection.loop
    assert len(asyncio.all_tasks(loop)) <= 4
    model.close()
    assert loop.is_closed() and len(server.bodies) == 3
    gc.collect()
    assert not caplog.records
