"""A real server over a tiny real model: its answers are the engine's, through OpenAI's client."""

import asyncio
import dataclasses

import pytest

from arkjax.sampling.params import Request, SamplingParams
from arkjax.sampling.remote import RemoteConfig, RemoteGenerator
from arkjax.sampling.stopping import StopTexts

USER = [{"role": "user", "content": "What is the capital of France?"}]
IDS = {"return_token_ids": True}


@pytest.fixture(scope="module")
def client(openai, served):
    with openai.OpenAI(base_url=served.url, api_key="unused", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def expected(offline, speaker):
    """A function that generates calls without a server: (prompt ids, seed, how) each."""

    def generate(*calls: tuple):
        requests = [
            Request(
                str(i),
                tuple(ids),
                0,
                SamplingParams(**{"stop_ids": speaker.tokenizer.end_ids, **how}),
                seed,
            )
            for i, (ids, seed, how) in enumerate(calls)
        ]
        return offline.generate(requests)

    return generate


@pytest.fixture(scope="module")
def text_of(speaker):
    def text(generation, stop=()) -> str:
        texts = StopTexts(speaker.tokenizer, speaker.tokenizer.end_ids, stop)
        return "".join([*map(texts.push, generation.ids), texts.flush()])

    return text


@pytest.fixture(scope="module")
def chat_ids(speaker):
    return lambda messages: speaker.template.encode(speaker.tokenizer, messages)


def test_two_hundred_streams_at_once_each_get_their_own_answer(
    openai, served, expected, text_of, chat_ids
):
    words = ["coins", "the gap", "Paris", "a fox", "time", "dogs", "Übung", "7"]
    talks = [
        [{"role": "user", "content": f"{words[i % 8]} {i % 25} " * (1 + i % 3)}] for i in range(200)
    ]
    rules = [
        {"temperature": 0.0, "max_tokens": 9},
        {"temperature": 1.0, "max_tokens": 17},
        {"temperature": 0.8, "top_p": 0.9, "max_tokens": 5},
        {"temperature": 1.3, "top_k": 9, "min_p": 0.02, "max_tokens": 12},
    ]

    async def one(client, i: int) -> tuple[list[int], str, str, int]:
        ids, text, reason, usage = [], "", "", None
        how = dict(rules[i % 4])
        extra = {k: how.pop(k) for k in ("top_k", "min_p") if k in how} | IDS
        stream = await client.chat.completions.create(
            model="tiny",
            messages=talks[i],
            seed=i,
            stream=True,
            stream_options={"include_usage": True},
            extra_body=extra,
            **how,
        )
        async for chunk in stream:
            if chunk.choices:
                (choice,) = chunk.choices
                ids += getattr(choice, "token_ids", None) or []
                text += choice.delta.content or ""
                reason = choice.finish_reason or reason
            else:
                usage = chunk.usage
        return ids, text, reason, usage.completion_tokens

    async def all_of_them():
        async with openai.AsyncOpenAI(base_url=served.url, api_key="x", max_retries=0) as client:
            return await asyncio.gather(*(one(client, i) for i in range(200)))

    answers = asyncio.run(all_of_them())
    offline = expected(*((chat_ids(talks[i]), i, rules[i % 4]) for i in range(200)))
    for i, (ids, text, reason, count) in enumerate(answers):
        assert tuple(ids) == offline[i].ids, i
        assert text == text_of(offline[i])
        assert (reason, count) == (offline[i].finish_reason, len(ids))
    assert served.ask("/health")[2] == {"status": "ok", "open": 0, "waiting": 0}


def test_n_answers_are_those_of_seeds_in_a_row(client, expected, chat_ids, text_of):
    reply = client.chat.completions.create(
        model="tiny", messages=USER, seed=40, n=5, max_tokens=8, extra_body=IDS
    )
    offline = expected(*((chat_ids(USER), 40 + i, {"max_tokens": 8}) for i in range(5)))
    assert [choice.index for choice in reply.choices] == [0, 1, 2, 3, 4]
    for choice, generation in zip(reply.choices, offline, strict=True):
        assert tuple(choice.token_ids) == generation.ids
        assert choice.message.content == text_of(generation)
        assert choice.finish_reason == generation.finish_reason
        assert choice.sampling_logprobs == pytest.approx(generation.sampling_logprobs, abs=1e-4)
    assert [choice.seed for choice in reply.choices] == [40, 41, 42, 43, 44]
    assert reply.prompt_token_ids == chat_ids(USER)
    assert reply.usage.prompt_tokens == len(chat_ids(USER))
    assert reply.usage.completion_tokens == sum(len(g.ids) for g in offline)
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens


def test_a_seed_that_is_not_given_is_reported_and_repeats_the_answer(client):
    ask = {"model": "tiny", "messages": USER, "max_tokens": 12}
    first = client.chat.completions.create(**ask, extra_body=IDS).choices[0]
    other = client.chat.completions.create(**ask, extra_body=IDS).choices[0]
    assert first.seed != other.seed and first.token_ids != other.token_ids
    again = client.chat.completions.create(**ask, seed=first.seed, extra_body=IDS).choices[0]
    assert again.token_ids == first.token_ids


def test_without_the_extension_there_is_nothing_but_openais_fields(served):
    body = {"messages": USER, "max_tokens": 2}
    _, _, reply = served.ask("/v1/chat/completions", body)
    assert set(reply) == {"id", "object", "created", "model", "choices", "usage"}
    assert set(reply["choices"][0]) == {"index", "message", "logprobs", "finish_reason"}
    assert reply["choices"][0]["message"]["role"] == "assistant"


def test_a_stop_text_ends_an_answer_wherever_it_lies(client, expected, chat_ids, text_of):
    how = {"temperature": 1.0, "max_tokens": 60}
    (free,) = expected((chat_ids(USER), 3, how))
    text = text_of(free)
    # Whole tokens, parts of tokens, and parts of several tokens.
    stops = [text[i : i + 3] for i in range(4, len(text) - 4, 5)]
    assert len(stops) > 5
    for stop in stops:
        ask = {"model": "tiny", "messages": USER, "seed": 3, **how}
        reply = client.chat.completions.create(**ask, stop=stop, extra_body=IDS).choices[0]
        assert reply.message.content == text[: text.index(stop)]
        assert reply.finish_reason == "stop"
        assert tuple(reply.token_ids) == free.ids[: len(reply.token_ids)]
        pieces = [
            chunk.choices[0].delta.content or ""
            for chunk in client.chat.completions.create(**ask, stop=["\0", stop], stream=True)
        ]
        assert "".join(pieces) == reply.message.content


def test_of_several_stop_texts_the_first_one_met_ends_the_answer(
    client, expected, chat_ids, text_of
):
    how = {"temperature": 1.0, "max_tokens": 60}
    (free,) = expected((chat_ids(USER), 3, how))
    text = text_of(free)
    stops = [text[12:15], text[6:9], "never that"]
    reply = client.chat.completions.create(
        model="tiny", messages=USER, seed=3, stop=stops, **how
    ).choices[0]
    assert reply.message.content == text[: min(text.find(stop) for stop in stops[:2])]


def test_logprobs_of_a_chat_are_those_of_the_engine(client, expected, chat_ids, speaker):
    reply = client.chat.completions.create(
        model="tiny", messages=USER, seed=9, max_tokens=10, logprobs=True, top_logprobs=4,
        extra_body=IDS,
    ).choices[0]  # fmt: skip
    (offline,) = expected((chat_ids(USER), 9, {"max_tokens": 10, "top_logprobs": 4}))
    assert tuple(reply.token_ids) == offline.ids
    content = reply.logprobs.content
    # float32, in other shapes than offline.
    assert [token.logprob for token in content] == pytest.approx(offline.logprobs, abs=1e-4)
    for token, top in zip(content, offline.top, strict=True):
        told = [other.logprob for other in token.top_logprobs]
        assert told == pytest.approx([logprob for _, logprob in top], abs=1e-4)
        assert told == sorted(told, reverse=True) and len(told) == 4
    spelled = b"".join(bytes(token.bytes) for token in content)
    assert spelled.decode(errors="replace") == speaker.tokenizer.decode(offline.ids, special=True)


def test_a_stream_tells_the_same_as_a_whole_answer(client):
    ask = {
        "model": "tiny",
        "messages": USER,
        "seed": 11,
        "n": 3,
        "max_tokens": 21,
        "logprobs": True,
        "top_logprobs": 2,
        "extra_body": IDS,
    }
    whole = client.chat.completions.create(**ask)
    told = {i: {"text": "", "ids": [], "drawn": [], "tokens": [], "ends": []} for i in range(3)}
    usages = []
    for chunk in client.chat.completions.create(
        **ask, stream=True, stream_options={"include_usage": True}
    ):
        assert chunk.object == "chat.completion.chunk" and chunk.model == "tiny"
        usages += [chunk.usage] if chunk.usage else []
        for choice in chunk.choices:
            said = told[choice.index]
            said["text"] += choice.delta.content or ""
            said["ids"] += getattr(choice, "token_ids", None) or []
            said["drawn"] += getattr(choice, "sampling_logprobs", None) or []
            said["tokens"] += choice.logprobs.content if choice.logprobs else []
            said["ends"] += [choice.finish_reason] if choice.finish_reason else []
    for choice in whole.choices:
        said = told[choice.index]
        assert said["text"] == choice.message.content
        assert said["ids"] == choice.token_ids
        assert said["drawn"] == choice.sampling_logprobs
        assert [t.model_dump() for t in said["tokens"]] == [
            t.model_dump() for t in choice.logprobs.content
        ]
        assert said["ends"] == [choice.finish_reason]
    (usage,) = usages
    assert usage.completion_tokens == whole.usage.completion_tokens
    assert usage.prompt_tokens == whole.usage.prompt_tokens


def test_completions_take_prompts_of_every_kind(client, expected, speaker):
    encode, tokenizer = speaker.tokenizer.encode, speaker.tokenizer
    ask = {"model": "tiny", "seed": 5, "max_tokens": 7, "extra_body": IDS}
    for prompts in (
        "The quick",
        ["The quick", "Hello, world"],
        encode("The quick"),
        [encode("The quick"), encode("Hello, world")],
    ):
        one = isinstance(prompts, str) or isinstance(prompts[0], int)
        listed = [prompts] if one else prompts
        ids = [encode(p) if isinstance(p, str) else p for p in listed]
        reply = client.completions.create(prompt=prompts, n=2, **ask)
        calls = [(ids[k // 2], 5 + k, {"max_tokens": 7}) for k in range(2 * len(ids))]
        for k, (choice, offline) in enumerate(zip(reply.choices, expected(*calls), strict=True)):
            assert (choice.index, tuple(choice.token_ids)) == (k, offline.ids)
            assert choice.prompt_token_ids == ids[k // 2]
            assert choice.text == tokenizer.decode(
                index for index in offline.ids if index not in tokenizer.end_ids
            )
        assert reply.usage.prompt_tokens == sum(map(len, ids))


def test_logprobs_of_a_completion(client, expected, speaker):
    prompt = speaker.tokenizer.encode("The quick")
    (offline,) = expected((prompt, 5, {"max_tokens": 9, "top_logprobs": 3}))
    ask = {"model": "tiny", "prompt": prompt, "seed": 5, "max_tokens": 9}
    choice = client.completions.create(**ask, logprobs=3).choices[0]
    told = choice.logprobs
    assert told.token_logprobs == pytest.approx(offline.logprobs, abs=1e-4)
    for index, token, logprob, top, known in zip(
        offline.ids, told.tokens, told.token_logprobs, told.top_logprobs, offline.top, strict=True
    ):
        assert token in top and top[token] >= logprob
        assert 3 <= len(top) + (len({i for i, _ in known} | {index}) - len(top)) <= 4
        assert max(top.values()) == pytest.approx(known[0][1], abs=1e-4)
    # Every token stands in the text where it is said to: the first without the space before it.
    ends = [*told.text_offset[1:], len(choice.text)]
    found = [choice.text[a:b] for a, b in zip(told.text_offset, ends, strict=True)]
    assert found == [told.tokens[0].removeprefix(" "), *told.tokens[1:]]
    as_ids = {"return_tokens_as_token_ids": True}
    by_id = client.completions.create(**ask, logprobs=3, extra_body=as_ids).choices[0].logprobs
    assert by_id.tokens == [f"token_id:{index}" for index in offline.ids]
    for names, known in zip(by_id.top_logprobs, offline.top, strict=True):
        assert {f"token_id:{index}" for index, _ in known} <= set(names)
    none = client.completions.create(**ask, logprobs=0).choices[0].logprobs
    assert none.top_logprobs is None and none.token_logprobs == told.token_logprobs


def test_own_stop_ids_and_no_end_of_the_model(client, expected, speaker):
    prompt = speaker.tokenizer.encode("The quick")
    how = {"max_tokens": 40, "stop_ids": ()}
    (free,) = expected((prompt, 8, how))
    stop = free.ids[6]
    extra = IDS | {"ignore_eos": True, "stop_token_ids": [stop]}
    reply = client.completions.create(
        model="tiny", prompt=prompt, seed=8, max_tokens=40, extra_body=extra
    ).choices[0]
    assert tuple(reply.token_ids) == free.ids[: free.ids.index(stop) + 1]
    assert reply.finish_reason == "stop"


def test_the_next_turn_finds_the_last_one_computed(client):
    ask = {"model": "tiny", "max_tokens": 4, "temperature": 0}
    talk = [{"role": "user", "content": "How many coins are in the gap? " * 40}]
    first = client.chat.completions.create(messages=talk, **ask)
    assert first.usage.prompt_tokens_details.cached_tokens == 0
    talk += [{"role": "assistant", "content": "Paris."}, {"role": "user", "content": "And then?"}]
    second = client.chat.completions.create(messages=talk, **ask)
    cached = second.usage.prompt_tokens_details.cached_tokens
    assert cached == first.usage.prompt_tokens - 1


def test_chats_find_their_system_prompt_computed(client):
    system = {"role": "system", "content": "You are a careful critic of the capital. " * 40}
    cached = []
    for word in ("one", "two", "three"):
        talk = [system, {"role": "user", "content": f"{word} coins"}]
        reply = client.chat.completions.create(model="tiny", messages=talk, max_tokens=2)
        cached.append(reply.usage.prompt_tokens_details.cached_tokens)
    assert cached[0] == 0 and cached[1] == cached[2] > 256
    # All but the words of the user, and what stands behind them.
    assert reply.usage.prompt_tokens - cached[2] < 20


def test_prefix_len_says_what_is_shared(client, expected):
    prompt = [7 + i % 90 for i in range(60)]
    ask = {"model": "tiny", "max_tokens": 6, "seed": 1}
    cached = [
        client.completions.create(
            prompt=[*prompt, tail], extra_body={"prefix_len": 60, **IDS}, **ask
        )
        for tail in (3, 4)
    ]
    assert [r.usage.prompt_tokens_details.cached_tokens for r in cached] == [0, 60]
    offline = expected(*(([*prompt, tail], 1, {"max_tokens": 6}) for tail in (3, 4)))
    assert [tuple(r.choices[0].token_ids) for r in cached] == [g.ids for g in offline]


def test_the_models_are_listed(client, openai):
    (model,) = client.models.list().data
    assert (model.id, model.owned_by, model.max_model_len) == ("tiny", "arkjax", 512)
    assert client.models.retrieve("tiny").id == "tiny"
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="gpt-4o", messages=USER)
    assert caught.value.body["code"] == "model_not_found"


def test_errors_reach_openais_client_with_their_field(client, openai):
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="tiny", messages=USER, logit_bias={"5": 1})
    assert caught.value.body["param"] == "logit_bias"
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model="tiny", prompt=[5] * 600, stream=True)
    assert caught.value.body["code"] == "context_length_exceeded"


def test_the_engines_remote_twin_gets_what_the_engine_gives(served, offline, speaker):
    encode, ends = speaker.tokenizer.encode, speaker.tokenizer.end_ids
    rules = [
        SamplingParams(max_tokens=9, stop_ids=ends),
        SamplingParams(max_tokens=30, temperature=0.0, stop=("e", "\n")),
        SamplingParams(max_tokens=12, temperature=0.7, top_k=8, top_p=0.9, stop_ids=(5, 9)),
        SamplingParams(max_tokens=12, temperature=1.5, min_p=0.05),
        SamplingParams(max_tokens=7, top_logprobs=5, stop_ids=ends),
    ]
    # Whose lowest 32 bits are the same.
    seeds = [77 + (high << 32) for high in (0, 1, 2, 2**30)]
    prompt = tuple(encode("The capital of France is Paris. How many coins are in the gap?"))
    calls = [
        Request(f"r{i}", (*prompt, 9 + i // 4), len(prompt), rules[i // 4], seeds[i % 4])
        for i in range(20)
    ]
    config = RemoteConfig(served.url, "tiny")
    with RemoteGenerator(config, speaker.tokenizer) as twin:
        twin.check()
        theirs = twin.generate(calls)
    assert len({one.ids for one in theirs[12:16]}) == 4
    for one, other in zip(theirs, offline.generate(calls), strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)
        assert one.sampling_logprobs == pytest.approx(other.sampling_logprobs, abs=1e-4)
        assert [[i for i, _ in step] for step in one.top] == [
            [i for i, _ in step] for step in other.top
        ]
        for step, expected in zip(one.top, other.top, strict=True):
            assert [p for _, p in step] == pytest.approx([p for _, p in expected], abs=1e-4)
        same = {"logprobs": (), "sampling_logprobs": (), "seconds": 0.0, "cached_len": 0}
        same["top"] = ()
        assert dataclasses.replace(one, **same) == dataclasses.replace(other, **same)
