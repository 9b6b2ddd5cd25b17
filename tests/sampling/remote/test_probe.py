"""The first question: what would stop every call is found by it."""

import pytest

from arkjax.errors import ConfigError, DataError
from arkjax.text.tokenizer import Tokenizer

pytestmark = pytest.mark.fast

_SAID = "Isn't it so, that 12 + 30 makes 42?"


def reads(ids):
    """A reply of a server that read a text as these ids."""

    def edit(reply):
        reply["choices"][0]["prompt_token_ids"] = ids

    return lambda body, attempt: {"edit": edit}


def test_a_server_with_the_same_tokenizer_passes(serve, connect, tokenizer):
    server = serve(trouble=reads(tokenizer.encode(_SAID)))
    connect(server, tokenizer).check()
    assert server.bodies == [
        {
            "model": "toy",
            "prompt": _SAID,
            "max_tokens": 1,
            "temperature": 0,
            "seed": 0,
            "return_token_ids": True,
            "add_special_tokens": False,
        }
    ]
    # Cut otherwise, or said not at all.
    letters = [i for c in _SAID for i in tokenizer.encode(c)]
    for ids in (letters, None):
        server.trouble = reads(ids)
        connect(server, tokenizer).check()
    connect(server).check()


def test_a_server_with_another_tokenizer_does_not(serve, connect, tokenizer):
    wrong = [i + 1 for i in tokenizer.encode(_SAID)]
    for ids in (wrong, [2**20], [-1], ["a"], []):
        server = serve(trouble=reads(ids))
        with pytest.raises(ConfigError, match=r"the first call: \S+ has a model with another tok"):
            connect(server, tokenizer).check()
        assert len(server.bodies) == 1


def test_a_tokenizer_that_cannot_write_the_text_takes_a_shorter_one(serve, connect, tmp_path):
    from tokenizers import Tokenizer as Made
    from tokenizers import models

    path = tmp_path / "tokenizer.json"
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "?"}')
    Made(models.WordLevel({"a": 0, "?": 1}, unk_token="?")).save(str(path))
    server = serve(trouble=reads([0]))
    connect(server, Tokenizer(path)).check()
    assert server.bodies[0]["prompt"] == "a"
    server.trouble = reads([1])
    with pytest.raises(ConfigError, match="reads 'a' as ids \\[1\\], .*tokenizer.json as \\[0\\]"):
        connect(server, Tokenizer(path)).check()


def test_other_faults_are_found_as_in_any_call(serve, connect, tokenizer, monkeypatch):
    monkeypatch.setenv("TOY_KEY", "sk-wrong")
    model = connect(serve(key="sk-right"), tokenizer, api_key_env="TOY_KEY")
    with pytest.raises(ConfigError, match="the first call: .* status 401: wrong key"):
        model.check()
    for edit in (lambda reply: {"choices": []}, lambda reply: b"[]"):
        server = serve(trouble=lambda body, attempt, edit=edit: {"edit": edit})
        with pytest.raises(DataError, match="the first call: .*no choice in it"):
            connect(server, tokenizer, retries=0).check()
