"""Replies of servers: whose log-probabilities are whose, and which tokens were the likeliest."""

import math

import pytest

from arkjax.errors import ConfigError
from arkjax.sampling.completions import SERVERS, BadReply, Reader, completion_body, reply_limit
from arkjax.sampling.params import Request, SamplingParams

pytestmark = pytest.mark.fast

GIVEN, DRAWN = [-1.5, -0.25, 0.0], [-0.5, -0.125, 0.0]
N, G, D, Z = "nan", "given", "drawn", "zero"


def request_of(**sampling):
    return Request("r0", (5, 6, 7, 8), 0, SamplingParams(**sampling), 3)


def reply_of(**fields):
    choice = {
        "token_ids": [3, 4, 2],
        "logprobs": {"token_logprobs": GIVEN, "top_logprobs": None},
        "finish_reason": "stop",
        **fields,
    }
    return {"choices": [choice]}


def read(server, reply, **sampling):
    reader = Reader(SERVERS[server], None, exact_prompt=True, allow_retokenised=False)
    generation, again = reader.read(request_of(**sampling), reply)
    assert not again
    return generation


PLAIN = {"temperature": 1.0}
GREEDY = {"temperature": 0.0}
WARM = {"temperature": 0.7}
FILTERS = ({"top_k": 5}, {"top_p": 0.9}, {"min_p": 0.1})


@pytest.mark.parametrize(
    ("server", "sampling", "unmodified", "drawn"),
    [
        ("vllm", PLAIN, G, G),
        ("vllm", GREEDY, G, Z),
        ("vllm", WARM, G, N),
        *[("vllm", PLAIN | some, G, N) for some in FILTERS],
        ("sglang", PLAIN, G, G),
        ("sglang", GREEDY, G, Z),
        ("sglang", WARM, N, G),
        *[("sglang", PLAIN | some, G, N) for some in FILTERS],
        *[("sglang", WARM | some, N, N) for some in FILTERS],
        ("openai", PLAIN, G, G),
        ("openai", GREEDY, N, Z),
        ("openai", WARM, N, N),
        *[("openai", PLAIN | some, N, N) for some in FILTERS],
        ("arkjax", PLAIN, G, D),
        ("arkjax", GREEDY, G, D),
        ("arkjax", WARM, G, D),
        *[("arkjax", WARM | some, G, D) for some in FILTERS],
    ],
)
def test_a_logprob_is_that_of_its_distribution_or_none(server, sampling, unmodified, drawn):
    """What a server says of one distribution is never recorded as of another."""
    fields = {"sampling_logprobs": DRAWN} if server == "arkjax" else {}
    generation = read(server, reply_of(**fields), **sampling)
    values = {G: GIVEN, D: DRAWN, Z: [0.0] * 3, N: [math.nan] * 3}
    assert repr(generation.logprobs) == repr(tuple(values[unmodified]))
    assert repr(generation.sampling_logprobs) == repr(tuple(values[drawn]))


def test_the_likeliest_tokens_come_by_their_ids():
    """vLLM adds the drawn token where it is not among them."""
    steps = [
        {"token_id:9": -2.0, "token_id:3": -1.5, "token_id:7": -0.5},
        {"token_id:4": -0.25, "token_id:8": -3.0},
        {"token_id:2": 0.0, "token_id:1": -9999.0},
    ]
    reply = reply_of(logprobs={"token_logprobs": GIVEN, "top_logprobs": steps})
    generation = read("vllm", reply, top_logprobs=2)
    assert generation.top == (
        ((7, -0.5), (3, -1.5)),
        ((4, -0.25), (8, -3.0)),
        ((2, 0.0), (1, -9999.0)),
    )
    assert read("vllm", reply).top == ()
    body = completion_body(request_of(top_logprobs=2), "toy", (5,), SERVERS["vllm"])
    assert body["logprobs"] == 2 and body["return_tokens_as_token_ids"] is True
    for wrong, why in (
        (steps[:2], "3 tokens, but not as many top_logprobs"),
        ([*steps[:2], {"token_id:2": 0.0}], "fewer came"),
        ([*steps[:2], [1, 2]], "fewer came"),
        ([*steps[:2], {"token_id:2": 0.0, "token_id:99999999999": -1.0}], None),
        ([*steps[:2], {"token_id:2": 0.0, "token_id:9999999999": -1.0}], "outside"),
    ):
        reply = reply_of(logprobs={"token_logprobs": GIVEN, "top_logprobs": wrong})
        with pytest.raises(BadReply if why else ConfigError, match=why):
            read("vllm", reply, top_logprobs=2)


def test_every_server_gets_what_it_takes():
    sampling = {"stop_ids": (2,), "top_logprobs": 0}
    bodies = {
        kind: completion_body(Request("r", (5, 6), 1, SamplingParams(**sampling), 3), "m", (5,), s)
        for kind, s in SERVERS.items()
    }
    # SGLang would not stop at the stop ids either if told to ignore the model's own.
    assert [kind for kind, body in bodies.items() if "ignore_eos" in body] == ["arkjax", "vllm"]
    assert [kind for kind, body in bodies.items() if "prefix_len" in body] == ["arkjax"]
    assert [kind for kind, body in bodies.items() if "return_token_ids" not in body] == ["openai"]
    # Servers take what the checkpoint recommends where nothing is said; 0 is no top_k to SGLang.
    for kind in ("arkjax", "vllm", "sglang"):
        assert {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}.items() <= bodies[
            kind
        ].items()


def test_cached_tokens_are_no_more_than_there_are():
    for said, cached in ((3, 3), (99, 4), (-1, 0), (True, 0), ("3", 0), (None, 0)):
        reply = reply_of() | {"usage": {"prompt_tokens_details": {"cached_tokens": said}}}
        assert read("vllm", reply).cached_len == cached
    for usage in (None, [], {"prompt_tokens_details": [1]}):
        assert read("vllm", reply_of() | {"usage": usage}).cached_len == 0


def test_a_long_reply_is_within_its_limit():
    """64 bytes a number, and 300 for the text of a token and its escapes."""
    for k in (0, 20):
        request = request_of(max_tokens=1000, top_logprobs=k)
        assert 1000 * (1 + k) * (64 + 300) < reply_limit(request) < 2**16 + 1000 * (1 + k) * 1024
