"""Messages of a chat as plain data, in the shape that chat templates read."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from arkjax.errors import DataError

Message = Mapping[str, Any]

_ROLE = re.compile(r"[\w.-]+( [\w.-]+)*", re.ASCII)
# Names of a message's reasoning. Templates read the first, older ones the second.
_REASONING = ("reasoning_content", "thinking", "reasoning")
# Put behind a message that is to be continued, to find in the text where it ends.
_CUT = "ARKJAX-CONTINUES-HERE"


def _field(continues: bool | str) -> str:
    return continues if isinstance(continues, str) else "content"


def check_messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """The messages as plain data, without fields that are None.

    Raises:
      DataError: naming the first malformed message.
    """
    if isinstance(messages, (str, Mapping)) or not isinstance(messages, Sequence):
        raise DataError(f"messages is a {type(messages).__name__}, expected a list of messages")
    if not messages:
        raise DataError("there are no messages: a chat needs at least one")
    return [_check_message(message, f"messages[{i}]") for i, message in enumerate(messages)]


def _check_message(message: Any, where: str) -> dict[str, Any]:
    if not isinstance(message, Mapping):
        raise DataError(
            f'{where} is a {type(message).__name__}, expected {{"role": ..., "content": ...}}'
        )
    role = message.get("role")
    if not isinstance(role, str) or not _ROLE.fullmatch(role) or len(role) > 64:
        raise DataError(
            f'{where}: role is {role!r}, expected a name such as "system", "user" or "assistant"'
        )
    content = message.get("content")
    if content is None and not message.get("tool_calls"):
        raise DataError(f"{where}: content is missing: give it a text, if need be an empty one")
    if isinstance(content, Sequence) and not isinstance(content, str):
        for i, part in enumerate(content):
            if not isinstance(part, Mapping) or not isinstance(part.get("text", ""), str):
                raise DataError(
                    f'{where}: content[{i}] is {part!r}, expected {{"type": "text", "text": ...}}'
                )
    elif content is not None and not isinstance(content, str):
        raise DataError(
            f"{where}: content is a {type(content).__name__}, expected a text or a list of parts"
        )
    checked = {key: plain(value, where) for key, value in message.items() if value is not None}
    reasoning = next((checked[key] for key in _REASONING if key in checked), None)
    if reasoning is not None:
        checked = {"thinking": reasoning, **checked, "reasoning_content": reasoning}
    return checked


def plain(value: Any, where: str) -> Any:
    """`value` as plain JSON data.

    Raises:
      DataError: if it has no JSON form.
    """
    try:
        return json.loads(json.dumps(value))
    except (TypeError, ValueError, RecursionError) as error:
        raise DataError(f"{where} holds what is no plain data: {error}") from error


def check_objects(name: str, values: Sequence[Mapping[str, Any]] | None) -> list[Any] | None:
    if values is None:
        return None
    if isinstance(values, (str, Mapping)) or not isinstance(values, Sequence):
        raise DataError(f"{name} is a {type(values).__name__}, expected a list of objects")
    for i, value in enumerate(values):
        if not isinstance(value, Mapping):
            raise DataError(f"{name}[{i}] is a {type(value).__name__}, expected an object")
    return [plain(value, f"{name}[{i}]") for i, value in enumerate(values)]


def open_end(messages: list[dict[str, Any]], continues: bool | str) -> None:
    """Mark, in place, the end of the last message's content or of the field `continues`.

    Raises:
      DataError: if there is no text to continue.
    """
    last, field = messages[-1], _field(continues)
    fields = [key for key in _REASONING if last.get(key) == last.get(field)]
    value = last.get(field)
    if isinstance(value, str):
        for key in fields if field in _REASONING else [field]:
            last[key] = f"{value}{_CUT} "
        return
    for part in reversed(value if isinstance(value, list) else []):
        if isinstance(part, dict) and "text" in part:
            part["text"] += f"{_CUT} "
            return
    raise DataError(f"messages[{len(messages) - 1}] has no text in {field!r} to continue")


def until_end(text: str, continues: bool | str, source: str, index: int) -> str:
    """A rendered chat up to the end that `open_end` has marked in the message with this index.

    Raises:
      DataError: if the template has not written it.
    """
    end = text.rfind(_CUT)
    if end < 0:
        raise DataError(
            f"{source} does not write out {_field(continues)!r} of messages[{index}], so that "
            "nothing can continue it: use add_generation_prompt instead"
        )
    # The space behind the mark is lost where the template strips the message.
    return text[:end] if text.startswith(f"{_CUT} ", end) else text[:end].rstrip()
