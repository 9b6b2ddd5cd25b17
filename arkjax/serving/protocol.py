"""What a body of OpenAI's API asks for, checked: nothing behind this file meets raw input.

Fields are those of https://platform.openai.com/docs/api-reference, of `top_k`, `min_p`,
`ignore_eos`, `stop_token_ids`, `add_special_tokens`, `chat_template_kwargs`, `return_token_ids` and
`return_tokens_as_token_ids` those of vLLM. `prefix_len` is ours. What would change the tokens and
cannot be had is refused, what changes nothing is ignored.
"""

import dataclasses
import secrets
from collections.abc import Mapping
from typing import Any

from arkjax.sampling.params import SamplingParams
from arkjax.serving.fields import Fields, check_text, quoted
from arkjax.serving.inputs import read_ids, read_messages, read_prompts, read_variables
from arkjax.serving.refusals import NO_TOOLS, Refusal
from arkjax.text.dialogue import Message

MOST_CHOICES = 128
"""Largest `n`."""
MOST_STOPS, STOP_LENGTH = 4, 256
"""Most stop texts, and characters of each: every token is searched for them."""
MOST_STOP_IDS = 16
"""Most `stop_token_ids`."""
MOST_ALTERNATIVES = 20
"""Most tokens of which the log-probability is told at each step."""
# Below, logits divided by the temperature leave float32; that near to 0 the draw is certain.
_LEAST_TEMPERATURE = 1e-4
_LEAST_TOP_P = 1e-6
_IGNORED = (
    "user",
    "metadata",
    "store",
    "service_tier",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "parallel_tool_calls",
    "prediction",
)
_NO_WEIGHING = "this server does not change what the model gives to single tokens"
_UNKNOWN = "this server cannot do that"
_REFUSED: Mapping[str, tuple[tuple, str]] = {
    "logit_bias": (({},), _NO_WEIGHING),
    "presence_penalty": ((0, 0.0), _NO_WEIGHING),
    "frequency_penalty": ((0, 0.0), _NO_WEIGHING),
    "repetition_penalty": ((1, 1.0), _NO_WEIGHING),
    "min_tokens": ((0,), _NO_WEIGHING),
    "skip_special_tokens": ((True,), _UNKNOWN),
    "include_stop_str_in_output": ((False,), _UNKNOWN),
}
_REFUSED_IN_CHAT: Mapping[str, tuple[tuple, str]] = {
    "tools": (([],), NO_TOOLS),
    "tool_choice": (("none", "auto"), NO_TOOLS),
    "functions": (([],), NO_TOOLS),
    "function_call": (("none", "auto"), NO_TOOLS),
    "response_format": (({"type": "text"},), "this server answers in free text"),
    "modalities": ((["text"],), "this server answers in text"),
    "audio": ((), "this server answers in text"),
    "web_search_options": ((), "this server searches nothing"),
    "reasoning_effort": ((), "templates read it from chat_template_kwargs"),
    "verbosity": ((), _UNKNOWN),
    "add_generation_prompt": ((True,), _UNKNOWN),
    "continue_final_message": ((False,), _UNKNOWN),
}


@dataclasses.dataclass(frozen=True)
class Limits:
    """What one request may ask for.

    Attributes:
      model: the name that clients call the model by.
      context: most tokens of a prompt with its answer.
      vocab_size: V, rows of the model's vocabulary.
      end_ids: tokens that end an answer.
      max_tokens: of an answer where the request does not say.
      calls: most answers of one request, over all its prompts.
    """

    model: str
    context: int
    vocab_size: int
    end_ids: tuple[int, ...]
    max_tokens: int
    calls: int

    @property
    def body_bytes(self) -> int:
        """Most bytes of a body: what a context may hold many times over."""
        return 2**20 + 64 * self.context


@dataclasses.dataclass(frozen=True)
class Order:
    """What one request asks for.

    Attributes:
      chat: whether it is a chat; otherwise it is a completion.
      messages: of a chat, without the first if that is of the system.
      role: content of that system message, or None.
      variables: for the chat template.
      prompts: of a completion, each a text or token ids.
      special: whether a text begins as the tokenizer has texts begin, with a BOS token for example.
      prefix_len: how many first tokens of the prompt others share, or None.
      sampling: how the answers are drawn, but for `max_tokens`.
      max_tokens: of an answer, or None.
      n: answers to each prompt.
      seed: of the first answer; each further one, over all prompts, has the next.
      stream: whether the answers are sent as they grow.
      include_usage: whether a stream ends with the number of tokens.
      logprobs: whether log-probabilities are told; `sampling.top_logprobs` is of how many others.
      token_ids: whether token ids, seeds and log-probabilities of the draws are told.
      tokens_as_ids: whether tokens with log-probabilities are called "token_id:N".
    """

    chat: bool
    messages: tuple[Message, ...]
    role: str | None
    variables: Mapping[str, Any]
    prompts: tuple[str | tuple[int, ...], ...]
    special: bool
    prefix_len: int | None
    sampling: SamplingParams
    max_tokens: int | None
    n: int
    seed: int
    stream: bool
    include_usage: bool
    logprobs: bool
    token_ids: bool
    tokens_as_ids: bool


def read_chat(body: Mapping[str, Any], limits: Limits) -> Order:
    """The order in a body of /v1/chat/completions.

    Raises:
      Refusal: naming the first field that is wrong.
    """
    fields = Fields(body)
    common = _common(fields, limits)
    role, messages = read_messages(fields.take("messages"))
    told = fields.flag("logprobs")
    top = fields.integer("top_logprobs", 0, MOST_ALTERNATIVES)
    if top and not told:
        raise Refusal("top_logprobs needs logprobs to be true", "top_logprobs")
    longer = fields.integer("max_completion_tokens", 1, limits.context)
    if longer is not None and common["max_tokens"] not in (None, longer):
        raise Refusal(
            "max_tokens and max_completion_tokens are two names of one number, and differ: give "
            "one of them",
            "max_completion_tokens",
        )
    for name, (harmless, why) in _REFUSED_IN_CHAT.items():
        fields.refuse(name, harmless, why)
    variables = fields.take("chat_template_kwargs")
    fields.finish()
    return Order(
        **common
        | {"max_tokens": common["max_tokens"] if longer is None else longer}
        | {"sampling": dataclasses.replace(common["sampling"], top_logprobs=top or 0)},
        chat=True,
        messages=messages,
        role=role,
        variables=read_variables(variables),
        prompts=(),
        special=False,
        logprobs=told,
    )


def read_completion(body: Mapping[str, Any], limits: Limits) -> Order:
    """The order in a body of /v1/completions.

    Raises:
      Refusal: naming the first field that is wrong.
    """
    fields = Fields(body)
    common = _common(fields, limits)
    prompts = read_prompts(fields.take("prompt"), limits.vocab_size, limits.calls)
    if len(prompts) * common["n"] > limits.calls:
        raise Refusal(
            f"{len(prompts)} prompts with n = {common['n']} are {len(prompts) * common['n']} "
            f"answers: this server takes {limits.calls} at once",
            "prompt",
        )
    top = fields.integer("logprobs", 0, MOST_ALTERNATIVES)
    fields.refuse("echo", (False,), "this server does not repeat the prompt")
    fields.refuse("suffix", ("",), "this server writes on and fills no gaps")
    fields.refuse("best_of", (common["n"],), "this server returns every answer that it draws")
    special = fields.flag("add_special_tokens", True)
    fields.finish()
    return Order(
        **common | {"sampling": dataclasses.replace(common["sampling"], top_logprobs=top or 0)},
        chat=False,
        messages=(),
        role=None,
        variables={},
        prompts=prompts,
        special=special,
        logprobs=top is not None,
    )


def _common(fields: Fields, limits: Limits) -> dict[str, Any]:
    """The fields of an `Order` that chats and completions share."""
    model = fields.text("model")
    if model not in (None, limits.model):
        raise Refusal(
            f"the model {quoted(model)} is not served here, but {quoted(limits.model)}",
            "model",
            status=404,
            code="model_not_found",
        )
    fields.ignore(_IGNORED)
    for name, (harmless, why) in _REFUSED.items():
        fields.refuse(name, harmless, why)
    stream = fields.flag("stream")
    options = fields.object("stream_options")
    if options is not None and not stream:
        raise Refusal("stream_options needs stream to be true", "stream_options")
    include_usage = False
    if options is not None:
        include_usage = options.flag("include_usage")
        options.ignore(("include_obfuscation",))
        options.finish()
    seed = fields.integer("seed", -(2**63), 2**63 - 1)
    return {
        "sampling": _sampling(fields, limits),
        "max_tokens": fields.integer("max_tokens", 1, limits.context),
        "n": fields.integer("n", 1, min(MOST_CHOICES, limits.calls)) or 1,
        "seed": secrets.randbelow(2**31) if seed is None else seed,
        "stream": stream,
        "include_usage": include_usage,
        "token_ids": fields.flag("return_token_ids"),
        "tokens_as_ids": fields.flag("return_tokens_as_token_ids"),
        "prefix_len": fields.integer("prefix_len", 0, limits.context),
    }


def _sampling(fields: Fields, limits: Limits) -> SamplingParams:
    temperature = fields.number("temperature", 0, 100, 1.0)
    if 0 < temperature < _LEAST_TEMPERATURE:
        raise fields.wrong("temperature", temperature, f"0, or at least {_LEAST_TEMPERATURE:g}")
    top_p = fields.number("top_p", 0, 1, 1.0)
    if not top_p:
        raise fields.wrong("top_p", top_p, "a number above 0, up to 1")
    min_p = fields.number("min_p", 0, 1, 0.0)
    if min_p == 1:
        raise fields.wrong("min_p", min_p, "a number from 0 to below 1")
    # None is left out, and more than there are leaves none out.
    top_k = min(max(fields.integer("top_k", -1, 2**31 - 1) or 0, 0), limits.vocab_size)
    end_ids = () if fields.flag("ignore_eos") else limits.end_ids
    return SamplingParams(
        temperature=temperature,
        top_k=top_k,
        # No distribution is so flat that less than this would mean another set of tokens.
        top_p=max(top_p, _LEAST_TOP_P),
        min_p=min_p,
        stop_ids=(*end_ids, *_stop_ids(fields, limits)),
        stop=_stop(fields.take("stop")),
    )


def _stop_ids(fields: Fields, limits: Limits) -> tuple[int, ...]:
    value = fields.take("stop_token_ids")
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > MOST_STOP_IDS:
        raise fields.wrong("stop_token_ids", value, f"a list of up to {MOST_STOP_IDS} token ids")
    return read_ids(value, "stop_token_ids", limits.vocab_size)


def _stop(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or len(texts) > MOST_STOPS:
        raise Refusal(
            f"stop is {quoted(value)}: expected a text, or a list of up to {MOST_STOPS}", "stop"
        )
    for i, text in enumerate(texts):
        param = "stop" if texts is not value else f"stop[{i}]"
        if not 0 < len(check_text(text, param)) <= STOP_LENGTH:
            raise Refusal(f"{param} has {len(text)} characters: expected 1 to {STOP_LENGTH}", param)
    return tuple(texts)
