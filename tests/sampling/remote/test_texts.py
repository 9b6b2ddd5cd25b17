"""Servers that know texts only."""

import math

import pytest

from arkjax.errors import ConfigError, DataError

pytestmark = pytest.mark.fast


def texts_only(tokenizer, words="so 7 coins", **fields):
    """Makes of a reply one without ids."""

    def edit(reply):
        choice = reply["choices"][0]
        for name in ("token_ids", "prompt_token_ids", "sampling_logprobs"):
            del choice[name]
        pieces = [words[a:b] for a, b in tokenizer.encode_with_offsets(words).offsets]
        logprobs = {"tokens": pieces, "token_logprobs": [-0.5] * len(pieces)}
        choice |= {"text": words, "logprobs": logprobs, "finish_reason": "stop", **fields}

    return {"edit": edit}


def test_texts_are_encoded_again_only_if_that_is_wanted(toy, serve, connect, tokenizer):
    server = serve(trouble=lambda *_: texts_only(tokenizer))
    with pytest.raises(ConfigError, match=r"call r0: \S+ returns no token ids: .*allow_retok"):
        connect(server, tokenizer).generate([toy.request(temperature=1.0)])
    assert len(server.bodies) == 1
    with pytest.raises(ConfigError, match="need the tokenizer"):
        connect(server, allow_retokenised=True)
    model = connect(server, tokenizer, allow_retokenised=True)
    with pytest.warns(UserWarning, match="returns no token ids") as warned:
        first, second = model.generate([toy.request("a"), toy.request("b")])
    assert len(warned) == 1 and model.retokenised == 2
    words = tokenizer.encode("so 7 coins")
    for generation in (first, second):
        # The stop id leaves no text, and of it the server says nothing.
        assert generation.ids == (*words, 1)
        assert generation.logprobs[:-1] == generation.sampling_logprobs[:-1] == (-0.5,) * len(words)
        assert math.isnan(generation.logprobs[-1]) and math.isnan(generation.sampling_logprobs[-1])
    server.trouble = lambda *_: texts_only(tokenizer, logprobs={"tokens": ["so 7 coins"]})
    (other,) = model.generate([toy.request()])
    assert other.ids == (*words, 1) and all(map(math.isnan, other.logprobs))
    server.trouble = lambda *_: texts_only(tokenizer, "so \ufffd 7 \x00\u4e2d")
    with pytest.raises(DataError, match="call r0: .* a text that the tokenizer cannot write"):
        model.generate([toy.request()])


def test_prompts_go_as_text_only_if_the_server_reads_them_alike(toy, serve, connect, tokenizer):
    server = serve(trouble=lambda *_: texts_only(tokenizer))
    common = {"prompts": "text", "max_context": 99}
    strict = connect(server, tokenizer, **common)
    loose = connect(server, tokenizer, allow_retokenised=True, **common)
    text = "question: what is 7</s>judge:"
    exact = tuple(tokenizer.encode(text, special=True))
    assert tokenizer.eos_id in exact
    strict.submit(toy.request("exact", prompt=exact))
    with pytest.warns(UserWarning):
        loose.generate([toy.request("exact", prompt=exact)])
    assert server.bodies[-1]["prompt"] == text
    assert server.bodies[-1]["add_special_tokens"] is False
    # The same text, its words cut in another way.
    cut = (*tokenizer.encode("question: what is 7"), tokenizer.eos_id, *tokenizer.encode("judge:"))
    assert cut != exact and tokenizer.decode(cut, special=True) != ""
    with pytest.raises(DataError, match="call cut: the text of its prompt encodes into other ids"):
        strict.submit(toy.request("cut", prompt=cut))
    loose.generate([toy.request("cut", prompt=cut)])
    assert server.bodies[-1]["prompt"] == tokenizer.decode(cut, special=True)
    # What somebody wrote must not become a special token on the way.
    forged = tuple(tokenizer.encode("say</s>now"))
    read = tokenizer.encode("say</s>now", special=True)
    assert tokenizer.eos_id not in forged and tokenizer.eos_id in read
    assert tokenizer.decode(read, special=True) == tokenizer.decode(forged)
    for model in (strict, loose):
        with pytest.raises(DataError, match="call forged: the text of its prompt"):
            model.submit(toy.request("forged", prompt=forged))


def test_a_server_of_openais_own_fields_gets_no_others(toy, serve, connect, tokenizer):
    server = serve(trouble=lambda *_: texts_only(tokenizer, logprobs=None))
    model = connect(server, tokenizer, server="openai", allow_retokenised=True)
    with pytest.raises(ConfigError, match="call k: remote.server 'openai' knows no top_k"):
        model.submit(toy.request("k", top_k=5))
    with pytest.raises(ConfigError, match="call top asks for top logprobs"):
        model.submit(toy.request("top", top_logprobs=5))
    with pytest.warns(UserWarning):
        (generation,) = model.generate([toy.request(temperature=0.0)])
    assert set(server.bodies[0]) == {
        "model",
        "prompt",
        "max_tokens",
        "temperature",
        "top_p",
        "seed",
        "logprobs",
    }
    # Nobody says how probable the words were; that they were certain is known.
    assert all(map(math.isnan, generation.logprobs))
    assert generation.sampling_logprobs == (0.0,) * len(generation.ids)
