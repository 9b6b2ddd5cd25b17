"""What a client gives the model to read, checked: messages, texts, token ids.

All functions here raise `Refusal`, naming the first thing that is wrong.
"""

from collections.abc import Mapping
from typing import Any

from arkjax.serving.fields import Fields, check_text, is_integer, kind, quoted
from arkjax.serving.refusals import NO_TOOLS, Refusal
from arkjax.text.dialogue import RESERVED, Message

_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
_REFUSED_IN_MESSAGES: Mapping[str, tuple[tuple, str]] = {
    "tool_calls": (([],), NO_TOOLS),
    "function_call": ((), NO_TOOLS),
    "tool_call_id": ((), NO_TOOLS),
    "audio": ((), "this server reads text"),
    "refusal": (("",), "the template has no place for it"),
}


def read_ids(values: list, param: str, vocab_size: int) -> tuple[int, ...]:
    """Token ids below `vocab_size`; `param` names the field in refusals."""
    for i, value in enumerate(values):
        if not is_integer(value) or not 0 <= value < vocab_size:
            raise Refusal(
                f"{param}[{i}] is {quoted(value)}: expected a token id from 0 to {vocab_size - 1}",
                f"{param}[{i}]",
            )
    return tuple(values)


def read_prompts(value: Any, vocab_size: int, most: int) -> tuple[str | tuple[int, ...], ...]:
    """The prompts of a completion, at most `most`: texts or token ids."""
    expected = "a text, a list of texts, token ids, or a list of lists of token ids"
    if value is None:
        raise Refusal(f"prompt is missing: expected {expected}", "prompt", code="missing_parameter")
    if isinstance(value, str):
        return (check_text(value, "prompt"),)
    if not isinstance(value, list) or not value:
        raise Refusal(f"prompt is {quoted(value)}: expected {expected}", "prompt")
    if len(value) > most and not is_integer(value[0]):
        raise Refusal(
            f"prompt has {len(value)} prompts: this server takes {most} at once", "prompt"
        )
    if is_integer(value[0]):
        return (read_ids(value, "prompt", vocab_size),)
    if isinstance(value[0], str):
        return tuple(check_text(text, f"prompt[{i}]") for i, text in enumerate(value))
    for i, ids in enumerate(value):
        if not isinstance(ids, list):
            raise Refusal(f"prompt[{i}] is {kind(ids)}: expected {expected}", f"prompt[{i}]")
    return tuple(read_ids(ids, f"prompt[{i}]", vocab_size) for i, ids in enumerate(value))


def read_variables(value: Any) -> Mapping[str, Any]:
    """Variables for a chat template."""
    if value is None:
        return {}
    where = "chat_template_kwargs"
    if not isinstance(value, dict):
        raise Refusal(f"{where} is {quoted(value)}: expected an object", where)
    for name in value:
        check_text(name, f"a name in {where}")
        if not name.isidentifier() or name in RESERVED:
            raise Refusal(f"{where}.{name[:64]} is not for the client to set", where)
    return value


def read_messages(value: Any) -> tuple[str | None, tuple[Message, ...]]:
    """The content of a system message at the start, if there is one, and the other messages."""
    if value is None:
        raise Refusal("messages is missing", "messages", code="missing_parameter")
    if not isinstance(value, list) or not value:
        raise Refusal(
            f"messages is {quoted(value)}: expected a list of at least one message", "messages"
        )
    messages = tuple(_message(message, f"messages[{i}]") for i, message in enumerate(value))
    if messages[0].role == "system":
        return messages[0].content, messages[1:]
    return None, messages


def _message(value: Any, where: str) -> Message:
    if not isinstance(value, dict):
        raise Refusal(f'{where} is {kind(value)}: expected {{"role": ..., "content": ...}}', where)
    fields = Fields(value, where)
    role = fields.take("role")
    # Roles are written into prompts as they are, so that a client may name only these.
    if not isinstance(role, str) or role not in _ROLES:
        raise fields.wrong("role", role, f"one of {', '.join(_ROLES)}")
    content = fields.take("content")
    byline = fields.text("name")
    for name, (harmless, why) in _REFUSED_IN_MESSAGES.items():
        fields.refuse(name, harmless, why)
    # What OpenAI's client hands back of an answer.
    fields.ignore(("annotations",))
    fields.finish()
    return Message(_ROLES[role], _content(content, f"{where}.content"), byline or "")


def _content(value: Any, where: str) -> str:
    if not isinstance(value, list):
        return check_text(value, where)
    texts = []
    for i, part in enumerate(value):
        param = f"{where}[{i}]"
        if not isinstance(part, dict) or part.get("type") != "text":
            raise Refusal(
                f'{param} is {quoted(part)}: expected {{"type": "text", "text": ...}}', param
            )
        texts.append(check_text(part.get("text"), f"{param}.text"))
    return "\n".join(texts)
