"""What one call asks of a generator, and what comes back."""

import dataclasses
import math
import numbers
import operator
import reprlib
from collections.abc import Sequence
from typing import Any, Protocol

from arkjax.errors import ConfigError, DataError

_WHOLE = ("top_k", "max_tokens", "top_logprobs")


@dataclasses.dataclass(frozen=True)
class SamplingParams:
    """How the tokens of one call are drawn.

    The three filters look at one distribution, that after the temperature; a token must pass all.
    Tokens that tie with the last one kept are kept as well.

    Attributes:
      temperature: 0 takes the most probable token; otherwise logits are divided by it.
      top_k: keep the k most probable tokens; 0 keeps all.
      top_p: keep the smallest set of tokens whose mass reaches top_p; 1 keeps all.
      min_p: drop tokens less probable than min_p times the most probable one; 0 keeps all.
      max_tokens: most tokens that one call may generate, the end token included.
      stop_ids: tokens that end the call; the one met is the last of the generated ids.
      stop: texts that end the call, wherever in its tokens they begin and end; the token that
        completes one is the last of the generated ids.
      top_logprobs: how many of the most probable tokens are reported at each step.

    Raises:
      ConfigError: if a value is outside its range, or no number where one is needed.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    max_tokens: int = 64
    stop_ids: tuple[int, ...] = ()
    stop: tuple[str, ...] = ()
    top_logprobs: int = 0

    def __post_init__(self) -> None:
        for name in (*_WHOLE, "temperature", "top_p", "min_p"):
            value, kind = getattr(self, name), numbers.Integral if name in _WHOLE else numbers.Real
            if not isinstance(value, kind) or isinstance(value, bool):
                what = "a whole number" if name in _WHOLE else "a number"
                raise ConfigError(f"sampling.{name} is {value!r}: it must be {what}")
        ids = "a list of token ids"
        checks = {
            "temperature": (0 <= self.temperature < math.inf, ">= 0 and finite"),
            "stop_ids": (_is_list(self.stop_ids, numbers.Integral), ids),
            "top_k": (self.top_k >= 0, ">= 0 (0 keeps all tokens)"),
            "top_p": (0 < self.top_p <= 1, "in (0, 1]"),
            "min_p": (0 <= self.min_p < 1, "in [0, 1)"),
            "max_tokens": (self.max_tokens >= 1, ">= 1"),
            "stop": (_is_list(self.stop, str) and all(self.stop), "a list of texts"),
            "top_logprobs": (self.top_logprobs >= 0, ">= 0"),
        }
        for name, (holds, rule) in checks.items():
            if not holds:
                raise ConfigError(f"sampling.{name} is {getattr(self, name)!r}: it must be {rule}")


@dataclasses.dataclass(frozen=True)
class Request:
    """One call to be generated.

    Attributes:
      id: name of the call, unique among the pending ones.
      prompt_ids: the whole prompt as token ids; any sequence of them, kept as a tuple of ints.
      prefix_len: how many of the first prompt ids other requests may share; those are prefilled
        once.
      sampling: how to draw tokens.
      seed: with the weights, the prompt and `sampling`, it determines the tokens.
      shared: lengths below `prefix_len`, ascending, at which longer prefixes part: the end of a
        system prompt, of a question, of each round. A prefix grows from the longest of these that
        is there already.

    Raises:
      DataError: if the prompt is empty or is not made of token ids.
    """

    id: str
    prompt_ids: tuple[int, ...]
    prefix_len: int
    sampling: SamplingParams
    seed: int
    shared: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "prompt_ids", token_ids(self.prompt_ids, f"call {self.id}"))

    def samples(self, count: int) -> list["Request"]:
        """The same call `count` times, with ids "ID.0", "ID.1", ... and seeds of their own.

        The first has the seed of the request itself. The prompt is prefilled once for all.
        """
        prefix_len, shared = whole_prefix(self.prompt_ids, self.prefix_len, self.shared)
        return [
            dataclasses.replace(
                self, id=f"{self.id}.{i}", seed=self.seed + i, prefix_len=prefix_len, shared=shared
            )
            for i in range(count)
        ]


def whole_prefix(
    prompt_ids: Sequence[int], prefix_len: int, shared: tuple[int, ...]
) -> tuple[int, tuple[int, ...]]:
    """`prefix_len` and `shared` of a `Request` whose whole prompt, but for its last id, is shared.

    Args:
      prompt_ids, prefix_len, shared: of the request as it would be without that.
    """
    whole = len(prompt_ids) - 1
    return whole, (*shared, prefix_len) if 0 < prefix_len < whole else shared


def token_ids(sequence: Any, name: str) -> tuple[int, ...]:
    """A sequence of token ids as a tuple of ints.

    Raises:
      DataError: if it is empty or something else; `name` says what it belongs to.
    """
    if type(sequence) is tuple and set(map(type, sequence)) == {int}:
        # As it is: the samples of a call share one prompt.
        return sequence
    try:
        # Not int(): it would take texts and cut fractions off.
        ids = () if isinstance(sequence, str | bytes) else tuple(map(operator.index, sequence))
    except TypeError:
        ids = ()
    if not ids:
        raise DataError(
            f"{name} has {reprlib.repr(sequence)} where token ids are expected, at least one:"
            " encode the text with the model's tokenizer"
        )
    return ids


def _is_list(value: Any, kind: type) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(item, kind) for item in value)


PENDING = ""
"""`finish_reason` of a call that has not ended."""


@dataclasses.dataclass(frozen=True)
class Generation:
    """What a generator made of a request.

    Attributes:
      request_id: the `Request.id`.
      ids: generated token ids, the stop id included when one was met.
      logprobs: for each id, its log-probability in the model's unmodified distribution.
      sampling_logprobs: for each id, its log-probability in the distribution it was drawn from.
      finish_reason: "stop" (a stop id or a stop text was met), "length" (max_tokens was reached)
        or PENDING.
      cached_len: prompt tokens that were not prefilled for this call, because they were shared.
      seconds: the call's share of the generator's wall time: the time of a block is split evenly
        among the calls that it advanced, so that the seconds of all calls add up to the time taken,
        but for that in which programs were compiled.
      top: for each id, (token id, log-probability) of the `top_logprobs` most probable tokens in
        the unmodified distribution, most probable first; empty if none were asked for.
    """

    request_id: str
    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    sampling_logprobs: tuple[float, ...]
    finish_reason: str
    cached_len: int
    seconds: float
    top: tuple[tuple[tuple[int, float], ...], ...] = ()


class Generator(Protocol):
    """Anything that turns requests into generations: the engine, or a remote server.

    `max_context` is the largest number of prompt plus generated tokens of one call; `pending` is
    the number of requests submitted and not yet returned by `step`.
    """

    max_context: int

    @property
    def pending(self) -> int: ...

    def submit(self, request: Request) -> None:
        """Queue a request. Raises DataError if it cannot fit into `max_context`."""

    def step(self) -> list[Generation]:
        """Work for a while and return the calls that ended, in any order."""
