"""Calls as chats in the style of OpenAI's API, one JSON object a line."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from arkjax.errors import ConfigError
from arkjax.trajectories.exports.folder import Selection, json_line
from arkjax.trajectories.schema import ACTION, Call
from arkjax.trajectories.store import CallStore
from arkjax.trajectories.transcript import Decoder, Lookup, messages

_NOT_IN_NAMES = re.compile(r"[^a-zA-Z0-9_-]")
_FACTS = (
    *("call_id", "problem_id", "system", "stage", "round", "step", "agent", "sample", "model"),
    *("seed", "finish_reason", "parse_ok", "parsed", "correct", "sampling"),
)


def write_chat(
    store: CallStore,
    selection: Selection,
    folder: Path,
    tokenizer: Decoder | None,
    advance: Callable[[int], None],
) -> int:
    """Write `calls.jsonl`: for each generation `messages` and `metadata`.

    Messages are the speaker's role and instruction as "system"; the question as "user"; the
    transcript, where the speaker's own words are of the "assistant" and all others of a "user" with
    the author's `name`; and the answer as "assistant". Actions of tools are part of transcripts,
    and have no line of their own: no model wrote them.

    Raises:
      ConfigError: without a tokenizer.
    """
    if tokenizer is None:
        raise ConfigError(
            "chats need the words of prompts, and a store holds their token ids: give --tokenizer, "
            "a tokenizer's file or the folder of a checkpoint"
        )
    agent, model = store.lookup("agent"), store.lookup("model")
    written = 0
    with (folder / "calls.jsonl").open("w", encoding="utf-8") as file:
        for call in selection.calls(store):
            if not call.is_action:
                file.write(json_line(chat(call, tokenizer, agent, model)))
                written += 1
            advance(1)
    return written


def chat(call: Call, tokenizer: Decoder, agent: Lookup, model: Lookup) -> dict[str, Any]:
    """One call as `messages` and `metadata`; see `write_chat`."""
    system, said = "", []
    for message in messages(call, tokenizer):
        if message.kind == "header":
            # The byline of the plain chat ends in a colon that is no part of the role.
            system = message.text.removesuffix(":")
        elif message.kind == "question":
            said.append({"role": "user", "content": message.text.removeprefix("question: ")})
        elif message.kind == "shown":
            said.append({"role": "user", "content": message.text})
        else:
            author = agent(message.source)
            by_tool = (model(message.source) or "").startswith(ACTION)
            if author == call.agent and not by_tool:
                said.append({"role": "assistant", "content": message.text})
                continue
            name = model(message.source).removeprefix(ACTION) if by_tool else author
            name = {"name": _NOT_IN_NAMES.sub("_", name)[:64]} if name else {}
            said.append({"role": "user", **name, "content": message.text})
    opening = [{"role": "system", "content": system}] if system else []
    answer = {"role": "assistant", "content": call.text}
    return {
        "messages": [*opening, *said, answer],
        "metadata": {name: getattr(call, name) for name in _FACTS},
    }
