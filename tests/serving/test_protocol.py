"""What bodies ask for, and how wrong ones are refused: without a server."""

import json

import pytest

from arkjax.sampling.params import SamplingParams
from arkjax.serving.fields import read_json
from arkjax.serving.protocol import Limits, read_chat, read_completion
from arkjax.serving.refusals import Refusal
from arkjax.text.dialogue import Message

pytestmark = pytest.mark.fast

LIMITS = Limits(model="tiny", context=64, vocab_size=100, end_ids=(2, 3), max_tokens=16, calls=12)
CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}]}
TEXT = {"model": "tiny", "prompt": "Hi"}


def refusal_of(read, body) -> Refusal:
    with pytest.raises(Refusal) as caught:
        read(body, LIMITS)
    error = caught.value.body()["error"]
    assert set(error) == {"message", "type", "param", "code"} and error["message"]
    return caught.value


def test_a_chat_says_how_its_answers_are_drawn():
    body = CHAT | {
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 7,
        "min_p": 0.1,
        "max_tokens": 9,
        "stop": ["x", "yy"],
        "stop_token_ids": [7],
        "seed": -5,
        "n": 3,
        "logprobs": True,
        "top_logprobs": 4,
        "stream": True,
        "stream_options": {"include_usage": True, "include_obfuscation": False},
        "return_token_ids": True,
        "prefix_len": 4,
        "chat_template_kwargs": {"enable_thinking": False},
    }
    order = read_chat(body, LIMITS)
    assert order.sampling == SamplingParams(
        temperature=0.5,
        top_k=7,
        top_p=0.9,
        min_p=0.1,
        stop_ids=(2, 3, 7),
        stop=("x", "yy"),
        top_logprobs=4,
    )
    assert (order.max_tokens, order.seed, order.n, order.prefix_len) == (9, -5, 3, 4)
    assert order.stream and order.include_usage and order.logprobs and order.token_ids
    assert order.variables == {"enable_thinking": False}
    assert (order.role, order.messages) == (None, (Message("user", "Hi"),))


def test_what_is_not_said_is_what_openai_says():
    order = read_chat(CHAT, LIMITS)
    assert order.sampling == SamplingParams(temperature=1.0, stop_ids=(2, 3))
    assert (order.n, order.max_tokens, order.stream, order.logprobs) == (1, None, False, False)
    nulls = {name: None for name in ("temperature", "stop", "n", "seed", "tools", "logit_bias")}
    assert read_chat(CHAT | nulls, LIMITS).sampling == order.sampling
    assert len({read_chat(CHAT, LIMITS).seed for _ in range(9)}) == 9


def test_the_first_system_message_is_the_role():
    said = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": "c", "name": "judge", "refusal": None, "tool_calls": None},
        {"role": "system", "content": "d"},
    ]
    order = read_chat(CHAT | {"messages": said}, LIMITS)
    assert order.role == "Be brief."
    assert order.messages == (
        Message("user", "a\nb"),
        Message("assistant", "c", "judge"),
        Message("system", "d"),
    )


@pytest.mark.parametrize(
    ("prompt", "read"),
    [
        ("a", ("a",)),
        (["a", ""], ("a", "")),
        ([1, 99], ((1, 99),)),
        ([[1], [2, 3]], ((1,), (2, 3))),
    ],
)
def test_prompts_of_all_kinds(prompt, read):
    order = read_completion({"prompt": prompt, "logprobs": 0}, LIMITS)
    assert order.prompts == read
    assert order.logprobs and order.sampling.top_logprobs == 0


def test_the_models_own_ends_can_be_left_out():
    order = read_completion(TEXT | {"ignore_eos": True, "stop_token_ids": [9]}, LIMITS)
    assert order.sampling.stop_ids == (9,)


def test_filters_at_their_edges_keep_their_meaning():
    order = read_completion(TEXT | {"top_k": -1, "top_p": 1e-300, "temperature": 0}, LIMITS)
    # In float32 that top_p would be 0, and would keep no token at all.
    assert (order.sampling.top_k, order.sampling.top_p) == (0, 1e-6)
    assert read_completion(TEXT | {"top_k": 2**31 - 1}, LIMITS).sampling.top_k == 100


HARMLESS = {
    "user": "u",
    "metadata": {"a": "b"},
    "store": True,
    "service_tier": "auto",
    "presence_penalty": 0.0,
    "frequency_penalty": 0,
    "logit_bias": {},
    "repetition_penalty": 1.0,
}
HARMLESS_IN_CHAT = {
    "tools": [],
    "tool_choice": "none",
    "response_format": {"type": "text"},
    "modalities": ["text"],
    "parallel_tool_calls": True,
}


def test_what_changes_nothing_is_ignored():
    chat = read_chat(CHAT | HARMLESS | HARMLESS_IN_CHAT | {"seed": 1}, LIMITS)
    assert chat == read_chat(CHAT | {"seed": 1}, LIMITS)
    text = read_completion(TEXT | HARMLESS | {"seed": 1, "echo": False, "best_of": 1}, LIMITS)
    assert text == read_completion(TEXT | {"seed": 1}, LIMITS)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tools", [{"type": "function"}]),
        ("tool_choice", "required"),
        ("functions", [{"name": "f"}]),
        ("function_call", {"name": "f"}),
        ("response_format", {"type": "json_object"}),
        ("response_format", {"type": "json_schema", "json_schema": {}}),
        ("logit_bias", {"5": 1}),
        ("presence_penalty", 0.1),
        ("frequency_penalty", -1),
        ("repetition_penalty", 1.1),
        ("modalities", ["audio"]),
        ("audio", {}),
        ("reasoning_effort", "low"),
        ("presence_penalty", False),
    ],
)
def test_what_would_change_the_tokens_is_refused_by_its_name(field, value):
    refusal = refusal_of(read_chat, CHAT | {field: value})
    assert (refusal.status, refusal.param, refusal.code) == (400, field, "unsupported_parameter")
    assert field in refusal.message


@pytest.mark.parametrize(
    ("field", "value"), [("echo", True), ("suffix", "x"), ("best_of", 2), ("logit_bias", {"1": 1})]
)
def test_completions_refuse_theirs(field, value):
    refusal = refusal_of(read_completion, TEXT | {field: value})
    assert (refusal.param, refusal.code) == (field, "unsupported_parameter")


@pytest.mark.parametrize(
    ("changes", "param", "said"),
    [
        ({"temprature": 1}, "temprature", "did you mean temperature?"),
        ({"temperature": "1"}, "temperature", "a number from 0 to 100"),
        ({"temperature": True}, "temperature", "a number from 0 to 100"),
        ({"temperature": -0.1}, "temperature", "a number"),
        ({"temperature": 10**400}, "temperature", "a number"),
        ({"temperature": 1e-30}, "temperature", "at least 0.0001"),
        ({"top_p": 0}, "top_p", "above 0"),
        ({"min_p": 1}, "min_p", "below 1"),
        ({"top_k": 1.5}, "top_k", "an integer"),
        ({"top_k": -2}, "top_k", "an integer"),
        ({"max_tokens": 0}, "max_tokens", "an integer from 1 to 64"),
        ({"max_tokens": 65}, "max_tokens", "an integer from 1 to 64"),
        ({"max_tokens": 8, "max_completion_tokens": 9}, "max_completion_tokens", "give one"),
        ({"n": 0}, "n", "an integer from 1 to 12"),
        ({"n": 13}, "n", "an integer from 1 to 12"),
        ({"n": [1]}, "n", "an integer"),
        ({"seed": 2**63}, "seed", "an integer"),
        ({"stream": "yes"}, "stream", "true or false"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "needs stream"),
        ({"stream": True, "stream_options": [1]}, "stream_options", "an object"),
        (
            {"stream": True, "stream_options": {"include_use": True}},
            "stream_options.include_use",
            "did you mean include_usage?",
        ),
        ({"stop": ["a"] * 5}, "stop", "up to 4"),
        ({"stop": ""}, "stop", "0 characters"),
        ({"stop": ["a", "b" * 257]}, "stop[1]", "257 characters"),
        ({"stop": ["a", 1]}, "stop[1]", "expected a text"),
        ({"stop": {}}, "stop", "expected a text"),
        ({"stop_token_ids": [100]}, "stop_token_ids[0]", "from 0 to 99"),
        ({"top_logprobs": 2}, "top_logprobs", "needs logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "from 0 to 20"),
        ({"logprobs": 1}, "logprobs", "true or false"),
        ({"messages": None}, "messages", "missing"),
        ({"messages": []}, "messages", "at least one"),
        ({"messages": "Hi"}, "messages", "expected a list"),
        ({"messages": ["Hi"]}, "messages[0]", "a text"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "null"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content", "an integer"),
        ({"messages": [{"role": "x\n", "content": ""}]}, "messages[0].role", "one of"),
        ({"messages": [{"role": ["user"], "content": ""}]}, "messages[0].role", "one of"),
        ({"messages": [{"role": "tool", "content": ""}]}, "messages[0].role", "one of"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "messages[0].content[0]",
            '"type": "text"',
        ),
        (
            {"messages": [{"role": "assistant", "content": "", "tool_calls": [{}]}]},
            "messages[0].tool_calls",
            "calls no tools",
        ),
        (
            {"messages": [{"role": "user", "content": "\ud800"}]},
            "messages[0].content",
            "lone surrogate",
        ),
        ({"chat_template_kwargs": {"messages": []}}, "chat_template_kwargs", "not for the client"),
        ({"chat_template_kwargs": {"a b": 1}}, "chat_template_kwargs", "not for the client"),
        ({"model": 5}, "model", "expected a text"),
    ],
)
def test_wrong_fields_are_named(changes, param, said):
    refusal = refusal_of(read_chat, CHAT | changes)
    assert (refusal.status, refusal.param) == (400, param)
    assert said in refusal.message


@pytest.mark.parametrize(
    ("changes", "param", "said"),
    [
        ({"prompt": None}, "prompt", "missing"),
        ({"prompt": []}, "prompt", "expected a text"),
        ({"prompt": {}}, "prompt", "expected a text"),
        ({"prompt": [1, "a"]}, "prompt[1]", "a token id"),
        ({"prompt": ["a", 1]}, "prompt[1]", "an integer"),
        ({"prompt": [[1], "a"]}, "prompt[1]", "a text"),
        ({"prompt": [[1], [True]]}, "prompt[1][0]", "a token id"),
        ({"prompt": [-1]}, "prompt[0]", "from 0 to 99"),
        ({"prompt": [10**30]}, "prompt[0]", "from 0 to 99"),
        ({"prompt": ["a"] * 13}, "prompt", "takes 12 at once"),
        ({"prompt": ["a"] * 7, "n": 2}, "prompt", "14 answers"),
        ({"prompt": [None]}, "prompt[0]", "null"),
        ({"logprobs": True}, "logprobs", "an integer"),
    ],
)
def test_wrong_prompts_are_named(changes, param, said):
    refusal = refusal_of(read_completion, TEXT | changes)
    assert (refusal.status, refusal.param) == (400, param)
    assert said in refusal.message


def test_another_model_is_not_found():
    refusal = refusal_of(read_chat, CHAT | {"model": "gpt-4o"})
    assert (refusal.status, refusal.code, refusal.param) == (404, "model_not_found", "model")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "not JSON"),
        (b'{"a": 1', "line 1, column"),
        (b'{"a": NaN}', "NaN is no number"),
        (b'{"a": -Infinity}', "-Infinity is no number"),
        (b'{"a": 1e999}', "too large: 1e999"),
        (b'{"a": ' + b"9" * 5000 + b"}", "too many digits"),
        (b'{"a": ' + b"[" * 100_000, "nested too deeply"),
        (b'{"a": "\xff"}', "not UTF-8: byte 7"),
        (b"\xef\xbb\xbf{}", "not JSON"),
        (b"[1]", "a list: expected an object"),
        (b"null", "null: expected an object"),
    ],
)
def test_bodies_that_are_no_objects(body, said):
    with pytest.raises(Refusal) as caught:
        read_json(body)
    assert said in caught.value.message and caught.value.status == 400


def test_a_refusal_is_short_and_json_whatever_the_client_sent():
    refusal = refusal_of(read_chat, CHAT | {"\ud800" * 10_000: 1})
    assert len(refusal.encoded()) < 2000
    assert json.loads(refusal.encoded())["error"]["code"] == "unknown_parameter"
    refusal = refusal_of(read_chat, CHAT | {"stop": {"x" * 10**6: 1}})
    assert len(refusal.encoded()) < 500
