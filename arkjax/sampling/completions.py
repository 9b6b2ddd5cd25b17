"""The completions protocol of OpenAI-compatible servers: what is sent, and how a reply is read.

A reply is text from outside: every part is checked before it becomes a `Generation`.
"""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from arkjax.errors import ConfigError, DataError
from arkjax.sampling.params import Generation, Request
from arkjax.text.tokenizer import Tokenizer


class BadReply(Exception):
    """A reply that is damaged or contradicts itself or the request; another attempt may succeed."""


@dataclasses.dataclass(frozen=True)
class Server:
    """What a kind of server takes and says.

    Attributes:
      logprobs: of which distribution its log-probabilities are: "unmodified", "tempered" (after the
        temperature, before the filters) or "unknown".
      extensions: takes fields beyond OpenAI's, and returns token ids if asked for them.
      hints: takes `prefix_len`: how much of the prompt other calls share.
      top_ids: names top tokens by their ids, if asked to; otherwise by their text.
      own_stops: ends a call at the stop ids of the request alone, if told to ignore the model's.
    """

    logprobs: Literal["unmodified", "tempered", "unknown"]
    extensions: bool = False
    hints: bool = False
    top_ids: bool = False
    own_stops: bool = False


SERVERS: Mapping[str, Server] = {
    "arkjax": Server("unmodified", extensions=True, hints=True, top_ids=True, own_stops=True),
    # With its --logprobs-mode raw_logprobs, the default. return_token_ids came with 0.10.2.
    "vllm": Server("unmodified", extensions=True, top_ids=True, own_stops=True),
    # Without SGLANG_RETURN_ORIGINAL_LOGPROB. return_token_ids came in July 2026.
    "sglang": Server("tempered", extensions=True),
    "openai": Server("unknown"),
}
"""Kinds of servers by the names that `RemoteConfig.server` takes.

`Generation.logprobs` and `sampling_logprobs` are what the server says they are, and NaN where it
does not say. Its own `sampling_logprobs` are taken where it gives them. Without, the tokens of a
call at temperature 0 were certain: 0; those at another temperature without filters were drawn from
the unmodified distribution at temperature 1, and from the tempered one always.
"""

_FINISHED = {
    "stop": "stop",
    "eos": "stop",
    "eos_token": "stop",
    "stop_sequence": "stop",
    "length": "length",
    "max_tokens": "length",
}
_ID_AS_TEXT = re.compile("token_id:([0-9]{1,10})")
# Servers round: a log-probability may end a little above 0.
_LOGPROBS = (-1e9, 1e-2)


def check_request(request: Request, server: Server) -> None:
    """Make sure that a server can draw tokens as a request wants. Raises ConfigError."""
    sampling = request.sampling
    if sampling.top_logprobs and not server.top_ids:
        raise ConfigError(
            f"call {request.id} asks for top logprobs: this kind of server names their tokens by "
            "text, which does not tell their ids"
        )
    if not server.extensions and (sampling.top_k or sampling.min_p):
        raise ConfigError(
            f"call {request.id}: remote.server 'openai' knows no top_k and no min_p: leave them "
            "out of the team's sampling"
        )


def completion_body(
    request: Request, model: str, prompt: str | Sequence[int], server: Server
) -> dict[str, Any]:
    """The JSON of a request.

    Args:
      request: the call.
      model: the model's name on the server.
      prompt: the prompt, as ids or as text.
      server: what the server takes; see `check_request`.
    """
    sampling = request.sampling
    body: dict[str, Any] = {
        "model": model,
        "prompt": prompt if isinstance(prompt, str) else list(prompt),
        "max_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "seed": request.seed,
        "logprobs": sampling.top_logprobs,
    }
    if sampling.stop:
        body["stop"] = list(sampling.stop)
    if not server.extensions:
        return body
    body |= {
        # Where nothing is said, servers take what the checkpoint recommends.
        "top_k": sampling.top_k or -1,
        "min_p": sampling.min_p,
        "repetition_penalty": 1.0,
        "stop_token_ids": list(sampling.stop_ids),
        "return_token_ids": True,
    }
    if server.own_stops:
        body["ignore_eos"] = True
    if sampling.top_logprobs:
        body["return_tokens_as_token_ids"] = True
    if isinstance(prompt, str):
        body["add_special_tokens"] = False
    if server.hints and request.prefix_len:
        body["prefix_len"] = request.prefix_len
    return body


def reply_limit(request: Request) -> int:
    """Bytes that a well-formed reply to a request stays below."""
    sampling = request.sampling
    per_token = 512 * (1 + sampling.top_logprobs)
    return 2**16 + 16 * len(request.prompt_ids) + per_token * sampling.max_tokens


@dataclasses.dataclass(frozen=True)
class Reader:
    """Reads replies.

    Attributes:
      server: what the server says.
      tokenizer: sets the highest id, and encodes texts again; None allows any id.
      exact_prompt: whether the server must have read the very ids of the prompt.
      allow_retokenised: whether a text without ids is encoded again.
    """

    server: Server
    tokenizer: Tokenizer | None
    exact_prompt: bool
    allow_retokenised: bool

    def read(self, request: Request, reply: Any) -> tuple[Generation, bool]:
        """What a reply says of a request.

        Returns:
          The generation, its `seconds` 0; and whether its ids were encoded again.

        Raises:
          BadReply: if it is not what a server answers to this request.
          ConfigError: if the server cannot do what is asked.
          DataError: if its text has no ids.
        """
        choice = _choice(reply)
        said = choice.get("finish_reason")
        reason = _FINISHED.get(said) if isinstance(said, str) else None
        if reason is None:
            raise BadReply(f"finish_reason {said!r}")
        read = choice.get("prompt_token_ids")
        if self.exact_prompt and read is not None and read != list(request.prompt_ids):
            raise BadReply("the server read another prompt than was sent")
        limit = self.tokenizer.id_limit if self.tokenizer else 2**31
        given = choice.get("logprobs")
        if given is not None and not isinstance(given, dict):
            raise BadReply(f"logprobs is a {type(given).__name__}")
        again = choice.get("token_ids") is None
        if again:
            ids, logprobs = self._encode_again(request, choice, given, reason)
        else:
            ids = _ids(choice["token_ids"], limit)
            if given is None:
                raise BadReply("no logprobs")
            logprobs = _numbers(given.get("token_logprobs"), len(ids), "token_logprobs")
        if not 0 < len(ids) <= request.sampling.max_tokens:
            raise BadReply(f"{len(ids)} ids where 1 to {request.sampling.max_tokens} were asked")
        unmodified, drawn = self._distributions(request, choice, logprobs)
        generation = Generation(
            request_id=request.id,
            ids=ids,
            logprobs=unmodified,
            sampling_logprobs=drawn,
            finish_reason=reason,
            cached_len=_cached(reply, len(request.prompt_ids)),
            seconds=0.0,
            top=_top(given, len(ids), request.sampling.top_logprobs, limit),
        )
        return generation, again

    def _distributions(
        self, request: Request, choice: dict, logprobs: tuple[float, ...]
    ) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """The logprobs in the unmodified and in the sampling distribution, from those given."""
        sampling, kind = request.sampling, self.server.logprobs
        unknown, certain = (math.nan,) * len(logprobs), (0.0,) * len(logprobs)
        unfiltered = not sampling.top_k and sampling.top_p == 1 and not sampling.min_p
        plain = sampling.temperature == 1 and unfiltered
        # Servers that temper take 0 for "the most probable token at temperature 1".
        untempered = kind == "tempered" and sampling.temperature in (0, 1)
        unmodified = logprobs if kind == "unmodified" or untempered or plain else unknown
        reported = choice.get("sampling_logprobs")
        if reported is not None:
            return unmodified, _numbers(reported, len(logprobs), "sampling_logprobs")
        if sampling.temperature == 0:
            return unmodified, certain
        is_drawn = plain or (kind == "tempered" and unfiltered)
        return unmodified, logprobs if is_drawn else unknown

    def _encode_again(
        self, request: Request, choice: dict, given: dict | None, reason: str
    ) -> tuple[tuple[int, ...], tuple[float, ...]]:
        """Ids of the text; their logprobs where the server's tokens are the same, else NaN."""
        if not self.allow_retokenised or self.tokenizer is None:
            raise ConfigError(
                "returns no token ids: take a server that knows return_token_ids (arkjax serve, "
                "vLLM from 0.10.2 on), or set allow_retokenised=True to encode its texts again, "
                "into ids that the model may not have generated"
            )
        text = choice.get("text")
        if not isinstance(text, str):
            raise BadReply("neither token_ids nor text")
        encoding = self.tokenizer.encode_with_offsets(text)
        if self.tokenizer.decode(encoding.ids) != text:
            raise DataError(
                "returns a text that the tokenizer cannot write: take the tokenizer of its model, "
                "or a server that returns token ids"
            )
        end = self._end(request, choice) if reason == "stop" else ()
        ids = (*encoding.ids, *end)
        pieces = [text[start:stop] for start, stop in encoding.offsets]
        tokens = given.get("tokens") if given else None
        if not isinstance(tokens, list) or tokens[: len(pieces)] != pieces:
            return ids, (math.nan,) * len(ids)
        values = _numbers(given.get("token_logprobs"), len(tokens), "token_logprobs")
        values = values[: len(ids)]
        return ids, (*values, *(math.nan,) * (len(ids) - len(values)))

    def _end(self, request: Request, choice: dict) -> tuple[int, ...]:
        """The stop id that ended a text: it leaves none. Nothing if it was a stop text."""
        sampling, why = request.sampling, choice.get("stop_reason")
        if isinstance(why, int) and why in sampling.stop_ids:
            return (why,)
        if isinstance(why, str) or sampling.stop:
            return ()
        return sampling.stop_ids[:1]


def read_max_context(reply: Any, model: str) -> int:
    """The longest context of a model, from the list of models.

    Raises:
      BadReply: if it is no list of models.
      ConfigError: if the model is not in it, or its context is not said.
    """
    cards = reply.get("data") if isinstance(reply, dict) else None
    if not isinstance(cards, list) or not all(isinstance(card, dict) for card in cards):
        raise BadReply("no list of models")
    names = [card.get("id") for card in cards]
    if model not in names:
        raise ConfigError(f"has no model {model!r}, but {names[:5]}: set remote.model to its name")
    length = cards[names.index(model)].get("max_model_len")
    if not isinstance(length, int) or isinstance(length, bool) or length < 1:
        raise ConfigError("does not say how long its contexts may be: set remote.max_context")
    return length


def _choice(reply: Any) -> dict:
    choices = reply.get("choices") if isinstance(reply, dict) else None
    if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], dict):
        raise BadReply("no single choice in it")
    return choices[0]


def _ids(values: Any, limit: int) -> tuple[int, ...]:
    if not isinstance(values, list) or not all(type(value) is int for value in values):
        raise BadReply("token_ids is no list of numbers")
    outside = next((value for value in values if not 0 <= value < limit), None)
    if outside is not None:
        raise BadReply(f"token id {outside} is outside the vocabulary of {limit}")
    return tuple(values)


def _numbers(values: Any, count: int, what: str) -> tuple[float, ...]:
    if not isinstance(values, list) or len(values) != count:
        found = len(values) if isinstance(values, list) else type(values).__name__
        raise BadReply(f"{count} tokens, but {what} has {found}")
    low, high = _LOGPROBS
    if not all(type(value) in (int, float) and low <= value <= high for value in values):
        raise BadReply(f"{what} has a value that is no log-probability")
    return tuple(map(float, values))


def _top(
    given: dict | None, count: int, k: int, limit: int
) -> tuple[tuple[tuple[int, float], ...], ...]:
    """The k most probable tokens of each step, from {"token_id:N": logprob}."""
    if not k:
        return ()
    steps = given.get("top_logprobs") if given else None
    if not isinstance(steps, list) or len(steps) != count:
        raise BadReply(f"{count} tokens, but not as many top_logprobs")
    read = []
    for step in steps:
        if not isinstance(step, dict) or len(step) < k:
            raise BadReply(f"{k} top logprobs were asked for each token, fewer came")
        names = [_ID_AS_TEXT.fullmatch(name) for name in step]
        if not all(names):
            raise ConfigError(
                "names its top tokens by their text, which does not tell their ids: ask for no "
                "top logprobs, or take a server that knows return_tokens_as_token_ids"
            )
        ids = _ids([int(name[1]) for name in names], limit)
        logprobs = _numbers(list(step.values()), len(ids), "top_logprobs")
        ranked = sorted(zip(ids, logprobs, strict=True), key=lambda pair: -pair[1])
        read.append(tuple(ranked[:k]))
    return tuple(read)


def _cached(reply: dict, most: int) -> int:
    """Prompt tokens that the server did not compute anew, as far as it says so."""
    usage = reply.get("usage")
    details = usage.get("prompt_tokens_details") if isinstance(usage, dict) else None
    cached = details.get("cached_tokens") if isinstance(details, dict) else None
    return min(cached, most) if type(cached) is int and cached > 0 else 0
