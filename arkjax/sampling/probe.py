"""The first question to a server: does it answer, and read a text as the tokenizer here does."""

from collections.abc import Mapping
from typing import Any

from arkjax.errors import ConfigError, DataError
from arkjax.sampling.completions import BadReply, Server
from arkjax.text.tokenizer import Tokenizer

# Letters, digits and signs, which tokenizers number in ways of their own; and less of them.
_TEXTS = ("Isn't it so, that 12 + 30 makes 42?", "so 12 and 30", "a")
PROBE_BYTES = 2**20


def probe_body(model: str, server: Server, tokenizer: Tokenizer | None) -> dict[str, Any]:
    """The JSON of a completion of one token, of a text that the tokenizer can write."""
    text = next((t for t in _TEXTS if tokenizer is None or _again(tokenizer, t) == t), _TEXTS[-1])
    body: dict[str, Any] = {"model": model, "prompt": text, "max_tokens": 1}
    body |= {"temperature": 0, "seed": 0}
    if server.extensions:
        body |= {"return_token_ids": True, "add_special_tokens": False}
    return body


def read_probe(body: Mapping[str, Any], tokenizer: Tokenizer | None, reply: Any) -> None:
    """See that the ids in which the server read the text are those of the text here.

    Words may be cut otherwise: what counts is that ids mean the same. Servers that return no ids
    tell nothing.

    Raises:
      BadReply: if it is no completion.
      ConfigError: if the server's model has another tokenizer.
    """
    choices = reply.get("choices") if isinstance(reply, dict) else None
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise BadReply("no choice in it")
    ids, text = choices[0].get("prompt_token_ids"), body["prompt"]
    if tokenizer is None or not isinstance(ids, list) or _again(tokenizer, text) != text:
        return
    known = all(type(i) is int and 0 <= i < tokenizer.id_limit for i in ids)
    # Some tokenizers begin a text with a space.
    if not known or "".join(tokenizer.decode(ids).split()) != "".join(text.split()):
        raise ConfigError(
            f"has a model with another tokenizer: it reads {text!r} as ids {_few(ids)}, "
            f"{tokenizer.path} as {_few(tokenizer.encode(text))}; give the tokenizer of its model"
        )


def _again(tokenizer: Tokenizer, text: str) -> str | None:
    try:
        return tokenizer.decode(tokenizer.encode(text))
    except DataError:
        # It has no words for it.
        return None


def _few(ids: list) -> str:
    return f"[{', '.join(map(str, ids[:6]))}{', ...' if len(ids) > 6 else ''}]"
