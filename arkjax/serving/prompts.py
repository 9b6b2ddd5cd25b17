"""Orders as requests to the engine: messages and texts become token ids."""

import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from arkjax.errors import DataError
from arkjax.sampling.params import Request
from arkjax.serving.protocol import Limits, Order
from arkjax.serving.refusals import Refusal
from arkjax.teams.library import BARE_ROLE
from arkjax.text.dialogue import Message, prompt_ids
from arkjax.text.leading import leading_ids
from arkjax.text.templates import ChatTemplate
from arkjax.text.tokenizer import Tokenizer

# Answers of a talk, from the last, after whose prompts the next one's is looked up.
_TURNS = 4


class Prompt(NamedTuple):
    """Token ids, and the lengths at which they begin as other prompts do, ascending."""

    ids: tuple[int, ...]
    shared: tuple[int, ...] = ()


class Prompts:
    """Reads orders for one model."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        template: ChatTemplate | None,
        variables: Mapping[str, Any],
        limits: Limits,
    ):
        """Set up a reader.

        Args:
          tokenizer: of the model.
          template: its chat template; None writes turns as the embedded world does.
          variables: for the template, where a request does not set them.
          limits: what one request may ask for.
        """
        self._tokenizer, self._template, self._variables = tokenizer, template, variables
        self._limits = limits
        self._leading = leading_ids(tokenizer)
        self._opening = functools.lru_cache(maxsize=256)(self._opening)

    def requests(self, order: Order, name: str) -> list[Request]:
        """The calls that an order asks for: `n` for each of its prompts, prompt after prompt.

        Args:
          order: what is asked for.
          name: of the order; ids of the calls begin with it.

        Raises:
          Refusal: if the template refuses the messages, or a prompt is empty or too long.
        """
        try:
            prompts = [self._chat(order)] if order.chat else self._texts(order)
        except DataError as error:
            raise Refusal(str(error), "messages" if order.chat else "prompt") from error
        requests: list[Request] = []
        for i, prompt in enumerate(prompts):
            where = "messages" if order.chat else "prompt" if len(prompts) == 1 else f"prompt[{i}]"
            seed = order.seed + i * order.n
            request = self._request(order, prompt, f"{name}.{i}", seed, where)
            requests += request.samples(order.n) if order.n > 1 else [request]
        return requests

    def _request(self, order: Order, prompt: Prompt, name: str, seed: int, where: str) -> Request:
        size, context = len(prompt.ids), self._limits.context
        if not size:
            raise Refusal(f"{where} has no tokens: the model needs at least one", where)
        room = context - size
        wanted = order.max_tokens or min(self._limits.max_tokens, max(room, 1))
        if wanted > room:
            asked = f" and up to {wanted} tokens of the answer" if room > 0 else ""
            raise Refusal(
                f"{where} has {size} tokens, and with them{asked} the context of {context} is "
                "exceeded: shorten the prompt, or lower max_tokens",
                where,
                code="context_length_exceeded",
            )
        prefix_len, shared = order.prefix_len, ()
        if prefix_len is None:
            prefix_len, shared = (size - 1, prompt.shared) if order.chat else (0, ())
        elif prefix_len >= size:
            raise Refusal(
                f"prefix_len is {prefix_len} of {size} prompt tokens: at least one must follow the "
                "prefix",
                "prefix_len",
            )
        shared = tuple(length for length in shared if length < prefix_len)
        sampling = dataclasses.replace(order.sampling, max_tokens=wanted)
        return Request(name, prompt.ids, prefix_len, sampling, seed, shared)

    def _texts(self, order: Order) -> list[Prompt]:
        leading = self._leading if order.special else ()
        return [
            Prompt(
                (*leading, *self._tokenizer.encode(prompt)) if isinstance(prompt, str) else prompt
            )
            for prompt in order.prompts
        ]

    def _chat(self, order: Order) -> Prompt:
        """A chat's prompt, and where the prompts of its earlier turns end in it.

        What is shared depends on the messages alone, not on which of them came before: so the same
        chat is always computed in the same pieces, and with the same rounding.
        """
        role = order.role or ""
        messages: Sequence[Message] = order.messages
        variables = {**self._variables, **order.variables}
        if self._template is None:
            role = role or BARE_ROLE
            messages = [_with_byline(message, role) for message in messages]
        read = functools.partial(
            prompt_ids,
            role=role,
            tokenizer=self._tokenizer,
            template=self._template,
            variables=variables,
        )
        ids = read(messages)
        lengths = set()
        if self._template is not None and role:
            lengths.add(self._opening(role, json.dumps(variables)))
        answers = [i for i, message in enumerate(messages) if message.role == "assistant" and i]
        for i in answers[-_TURNS:]:
            try:
                before = read(messages[:i])
            except DataError:
                # Some templates refuse what is no whole exchange.
                continue
            if ids[: len(before)] == before:
                lengths.add(len(before) - 1)
        return Prompt(tuple(ids), tuple(sorted(lengths - {0})))

    def _opening(self, role: str, variables: str) -> int:
        """How many tokens all chats under this system prompt begin with."""
        one, other = (
            prompt_ids(
                [Message("user", word)],
                role,
                self._tokenizer,
                self._template,
                json.loads(variables),
            )
            for word in ("one", "2")
        )
        same = (a == b for a, b in zip(one, other, strict=False))
        return next((i for i, equal in enumerate(same) if not equal), 0)


def _with_byline(message: Message, role: str) -> Message:
    if message.role == "system":
        raise DataError(
            "a message of the system stands behind others: this model has no chat template, and a "
            "byline instead of a system prompt, which comes first"
        )
    return Message(message.role, message.content, message.byline or role)
