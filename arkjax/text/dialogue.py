"""The messages of a talk as the prompt after which a model answers."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from arkjax.errors import ConfigError, DataError
from arkjax.text.chat import PlainChat
from arkjax.text.templates import ChatTemplate
from arkjax.text.tokenizer import Tokenizer

RESERVED = (
    "self",
    "tokenizer",
    "messages",
    "add_generation_prompt",
    "continue_final_message",
    "tools",
    "documents",
    "name",
)
"""Arguments of `ChatTemplate.encode` that are no variables of a template."""


@dataclasses.dataclass(frozen=True)
class Message:
    """One message of a talk.

    Attributes:
      role: "user" or "assistant"; for chat templates also "system".
      content: its words.
      byline: the role text under which an answer was given.
      ids: the tokens of an answer, as they were generated.
    """

    role: str
    content: str
    byline: str = ""
    ids: tuple[int, ...] = ()


def prompt_ids(
    messages: Sequence[Message],
    role: str,
    tokenizer: Tokenizer,
    template: ChatTemplate | None,
    variables: Mapping[str, Any],
) -> list[int]:
    """The prompt after which the model answers as `role`.

    With a chat template the role is the system prompt, or opens the first message where a template
    knows no system prompts. Without, the role is a byline and the last question with the answers
    to it makes the transcript, as in the teams of the embedded world.

    Raises:
      DataError: if the template refuses the messages, or there is no question.
    """
    if template is None:
        chat = PlainChat(tokenizer)
        last = max((i for i, m in enumerate(messages) if m.role == "user"), default=None)
        if last is None:
            raise DataError("no message is of the user: without a chat template, one asks")
        ids = chat.question(messages[last].content)
        for message in messages[last + 1 :]:
            ids += [*chat.turn(message.byline), *tokenizer.encode(message.content), chat.end_id]
        return [*ids, *chat.turn(role)]
    said = [{"role": message.role, "content": message.content} for message in messages]
    if not role:
        return template.encode(tokenizer, said, **variables)
    try:
        system = {"role": "system", "content": role}
        return template.encode(tokenizer, [system, *said], **variables)
    except DataError:
        if not said:
            raise
        first = {**said[0], "content": f"{role}\n\n{said[0]['content']}"}
        return template.encode(tokenizer, [first, *said[1:]], **variables)


def template_variable(word: str) -> tuple[str, Any]:
    """The variable for a chat template in a word of the command line, NAME=JSON.

    Raises:
      ConfigError: if it is not written so.
    """
    name, equals, value = word.partition("=")
    try:
        if not (name.isidentifier() and equals):
            raise ValueError("no NAME= before it")
        if name in RESERVED:
            raise ValueError(f"{name} is not for the user to set")
        return name, json.loads(value)
    except ValueError as error:
        raise ConfigError(
            f"--variable {word}: expected NAME=JSON, such as enable_thinking=false ({error})"
        ) from None
