"""Answers in the shape of OpenAI's API, whole or as the chunks of a stream."""

import time
from collections.abc import Sequence
from typing import Any

from arkjax.sampling.params import Generation, Request
from arkjax.sampling.stopping import StopTexts
from arkjax.serving.protocol import Order
from arkjax.serving.tokens import Tokens, number
from arkjax.text.tokenizer import Tokenizer


class Reply:
    """The answers to one order, as they grow.

    `update` takes in what a call has so far and gives what is new of it as a choice: of a chunk
    where the order is a stream, else of the whole answer.
    """

    def __init__(
        self,
        order: Order,
        name: str,
        model: str,
        requests: Sequence[Request],
        tokenizer: Tokenizer,
        tokens: Tokens,
    ):
        """Begin a reply.

        Args:
          order: what is asked for.
          name: of the reply.
          model: the name of the model.
          requests: the calls, in the order of the choices.
          tokenizer: decodes.
          tokens: write single tokens.
        """
        self._order, self._requests = order, requests
        kind = "chat.completion" if order.chat else "text_completion"
        if order.chat and order.stream:
            kind += ".chunk"
        self._head = {"id": name, "object": kind, "created": int(time.time()), "model": model}
        self._choices = [_Choice(i, order, r, tokenizer, tokens) for i, r in enumerate(requests)]
        self._newest: dict[int, Generation] = {}

    def update(self, index: int, generation: Generation) -> dict[str, Any] | None:
        """What is new of the choice with this index; None if there is nothing to be told."""
        self._newest[index] = generation
        return self._choices[index].update(generation)

    def whole(self, choices: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """The reply that is no stream."""
        return self._head | {"choices": list(choices)} | self._prompt() | {"usage": self.usage()}

    def opening(self) -> list[dict[str, Any]]:
        """The chunks before the first token."""
        if not self._order.chat:
            return []
        chunks = [self.chunk(choice.opening()) for choice in self._choices]
        chunks[0] |= self._prompt()
        return chunks

    def chunk(self, choice: dict[str, Any]) -> dict[str, Any]:
        """One choice as a chunk of a stream."""
        usage = {"usage": None} if self._order.include_usage else {}
        return self._head | {"choices": [choice]} | usage

    def closing(self) -> list[dict[str, Any]]:
        """The chunks behind the last token."""
        if not self._order.include_usage:
            return []
        return [self._head | {"choices": [], "usage": self.usage()}]

    def usage(self) -> dict[str, Any]:
        """How many tokens there are so far. A prompt counts once, however many answers it has."""
        firsts = range(0, len(self._requests), self._order.n)
        prompt = sum(len(self._requests[i].prompt_ids) for i in firsts)
        # Whichever of the answers to a prompt is computed first has it computed for the others.
        cached = sum(
            min(
                self._newest[k].cached_len if k in self._newest else 0
                for k in range(i, i + self._order.n)
            )
            for i in firsts
        )
        completion = sum(len(generation.ids) for generation in self._newest.values())
        return {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "prompt_tokens_details": {"cached_tokens": cached},
        }

    def _prompt(self) -> dict[str, Any]:
        if not self._order.token_ids or not self._order.chat:
            return {}
        return {"prompt_token_ids": list(self._requests[0].prompt_ids)}


class _Choice:
    """One answer: what was told of it."""

    def __init__(
        self, index: int, order: Order, request: Request, tokenizer: Tokenizer, tokens: Tokens
    ):
        self._index, self._order, self._request, self._tokens = index, order, request, tokens
        sampling = request.sampling
        self._text = StopTexts(tokenizer, sampling.stop_ids, sampling.stop)
        # Tokens that were told, and characters of those with log-probabilities.
        self._told = self._offset = 0

    def opening(self) -> dict[str, Any]:
        choice = self._choice({"delta": {"role": "assistant", "content": ""}}, None, None)
        return choice | ({"seed": self._request.seed} if self._order.token_ids else {})

    def update(self, generation: Generation) -> dict[str, Any] | None:
        first, self._told = self._told, len(generation.ids)
        text = "".join(map(self._text.push, generation.ids[first:]))
        reason = generation.finish_reason or None
        if reason:
            text += self._text.flush()
            # Half a character at the end may complete a stop text, when nothing follows it.
            reason = "stop" if self._text.stopped else reason
        order, fresh = self._order, self._told > first
        if not (text or reason or (fresh and (order.logprobs or order.token_ids))):
            return None
        logprobs = self._logprobs(generation, first) if order.logprobs else None
        if not order.chat:
            said: dict[str, Any] = {"text": text}
        elif order.stream:
            said = {"delta": {"content": text} if text else {}}
        else:
            said = {"message": {"role": "assistant", "content": text, "refusal": None}}
        choice = self._choice(said, logprobs, reason)
        if order.token_ids:
            choice |= self._ids(generation, first)
        return choice

    def _choice(self, said: dict[str, Any], logprobs: Any, reason: str | None) -> dict[str, Any]:
        return {"index": self._index, **said, "logprobs": logprobs, "finish_reason": reason}

    def _ids(self, generation: Generation, first: int) -> dict[str, Any]:
        ids = {
            "token_ids": list(generation.ids[first:]),
            "sampling_logprobs": [number(x) for x in generation.sampling_logprobs[first:]],
        }
        if not self._order.stream or (first == 0 and not self._order.chat):
            ids["seed"] = self._request.seed
            if not self._order.chat:
                ids["prompt_token_ids"] = list(self._request.prompt_ids)
        return ids

    def _logprobs(self, generation: Generation, first: int) -> dict[str, Any]:
        drawn = list(zip(generation.ids, generation.logprobs, strict=True))[first:]
        top = generation.top[first:] if generation.top else [()] * len(drawn)
        if self._order.chat:
            content = [
                self._told_token(index, logprob)
                | {"top_logprobs": [self._told_token(*other) for other in others]}
                for (index, logprob), others in zip(drawn, top, strict=True)
            ]
            return {"content": content, "refusal": None}
        offsets = []
        for place, (index, _) in enumerate(drawn, first):
            offsets.append(self._offset)
            self._offset += len(self._tokens.text(index) if place else self._tokens.opening(index))
        return {
            "tokens": [self._name(index) for index, _ in drawn],
            "token_logprobs": [number(logprob) for _, logprob in drawn],
            "top_logprobs": [
                self._alternatives((token, *others))
                for token, others in zip(drawn, top, strict=True)
            ]
            if self._request.sampling.top_logprobs
            else None,
            "text_offset": offsets,
        }

    def _alternatives(self, tokens: Sequence[tuple[int, float]]) -> dict[str, float]:
        """Log-probabilities by text: of texts that several tokens have, the most probable one's."""
        texts: dict[str, float] = {}
        for index, logprob in tokens:
            text = self._name(index)
            texts[text] = max(number(logprob), texts.get(text, number(logprob)))
        return texts

    def _told_token(self, index: int, logprob: float) -> dict[str, Any]:
        name, spelled = self._name(index), self._tokens.spelled(index)
        return {"token": name, "logprob": number(logprob), "bytes": spelled}

    def _name(self, index: int) -> str:
        return self._tokens.name(index, self._order.tokens_as_ids)
