"""How an agent calls a tool in its text, in either of two forms.

    <tool_call>                                             Action: calculator[12 * 7]
    {"name": "calculator", "arguments": {"input": "12 * 7"}}
    </tool_call>

The first is that of the Hermes models and of the chat templates of Qwen2.5 and Qwen3, the second
that of ReAct (https://arxiv.org/abs/2210.03629), there also as `Action 1: Search[...]`. The text is
a model's: whatever it is, reading it takes time proportional to its length, and raises nothing.
"""

import bisect
import dataclasses
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from arkjax.tools.protocol import MAX_INPUT, Tool, storable

_OPEN, _CLOSE = "<tool_call>", "</tool_call>"
_ACTION = re.compile(
    r"^[ \t]*(?:\*\*)?Action(?: [0-9]{1,3})?:(?:\*\*)?[ \t]*([A-Za-z_][\w.-]{0,63})[ \t]?\[", re.M
)
_BRACKET = re.compile(r"[\[\]]")
_FENCE = re.compile(r"^[ \t]*```[ \t]*\]", re.M)
_FENCE_END = re.compile(r"^[ \t]*```[ \t]*\n[ \t]*\]", re.M)
_REST_OF_LINE = re.compile(r"[ \t.*]*(?=\n|\r|\Z)")
_SPACE = re.compile(r"\s*")
_FIELDS = ("input", "code", "query", "expression")


@dataclasses.dataclass(frozen=True)
class ToolCall:
    """A call that an agent wrote.

    Attributes:
      name: of the tool, as it is known if it is; any other name as it was written.
      input: what the tool is to be given.
      start, end: where the call stands in the text.
      error: empty, or what is wrong with the way it was written; then no tool is to be run.
    """

    name: str
    input: str
    start: int
    end: int
    error: str = ""


class _Malformed(Exception):
    """Why a text in the form of a call is none."""


def stop_texts() -> tuple[str, ...]:
    """Texts that end a generation: behind them its author would go on with the tool's answer."""
    return (_CLOSE, "\nObservation")


def describe(tools: Mapping[str, Tool] | Iterable[Tool]) -> str:
    """What an agent's prompt says about the tools that it has; empty without any."""
    listed = list(tools.values() if isinstance(tools, Mapping) else tools)
    if not listed:
        return ""
    lines = [f"- {tool.name}: {tool.description}" for tool in listed]
    return "\n".join(
        [
            "You can use these tools:",
            *lines,
            "To use one, write a line of this form and nothing after it:",
            f"Action: {listed[0].name}[input]",
            "You are then told the result in a line that begins with Observation: and go on from "
            "there. Code may take several lines: put it between ``` and ``` in the brackets.",
        ]
    )


def find_call(text: str, names: Iterable[str]) -> ToolCall | None:
    """The first complete call in a text, or None.

    A call of a tool that is not among `names` is one too, and so is a malformed one, with its
    `error`. A call without its end, as when the generation was cut off, is none. Case does not
    matter in names that are known.
    """
    known: dict[str, str] = {}
    for name in names:
        known.setdefault(name.casefold(), name)
    found = [call for call in (_tagged(text), _action(text)) if call is not None]
    if not found:
        return None
    call = min(found, key=lambda c: c.start)
    if len(call.input) > MAX_INPUT:
        error = f"the input has {len(call.input)} characters; {MAX_INPUT} at most"
        call = dataclasses.replace(call, input="", error=error)
    name = storable(known.get(call.name.casefold(), call.name))
    return dataclasses.replace(call, name=name, input=storable(call.input))


# --- <tool_call> --------------------------------------------------------------------------------


def _tagged(text: str) -> ToolCall | None:
    start = text.find(_OPEN)
    if start < 0:
        return None
    inner = start + len(_OPEN)
    close = text.find(_CLOSE, inner)
    if close < 0:
        # The stop text may have been cut off; then the JSON is complete and nothing follows it.
        start = text.rfind(_OPEN)
        inner = start + len(_OPEN)
        try:
            value, end = _json(text, inner)
        except _Malformed:
            return None
        return _of_json(value, start, len(text)) if end == len(text) else None
    try:
        value, end = _json(text, inner)
        if not text.startswith(_CLOSE, end):
            raise _Malformed(f"there is more than one JSON object before {_CLOSE}")
    except _Malformed as error:
        return ToolCall("", "", start, close + len(_CLOSE), str(error))
    # The end may be a later one: a text in the JSON can spell the closing tag.
    return _of_json(value, start, end + len(_CLOSE))


def _json(text: str, at: int) -> tuple[Any, int]:
    """The JSON value that begins at a place in the text, and where what follows it begins."""
    at = _SPACE.match(text, at).end()
    if not text.startswith("{", at):
        raise _Malformed(f"a JSON object must follow {_OPEN}")
    try:
        value, end = _DECODER.raw_decode(text, at)
    except RecursionError:
        raise _Malformed("the JSON is nested too deep") from None
    except json.JSONDecodeError as error:
        raise _Malformed(f"the JSON is damaged: {error.msg}") from None
    except ValueError as error:
        raise _Malformed(f"the JSON is damaged: {str(error)[:100]}") from None
    return value, _SPACE.match(text, end).end()


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")


def _number(digits: str) -> int | float:
    # Longer ones cost more than their length to read, and no tool needs them as numbers.
    if len(digits) > 1000:
        raise ValueError("a number has more than 1000 digits")
    return int(digits)


_DECODER = json.JSONDecoder(parse_constant=_refuse, parse_int=_number)


def _of_json(value: dict[str, Any], start: int, end: int) -> ToolCall:
    name = value.get("name")
    if not isinstance(name, str) or not name.strip():
        return ToolCall("", "", start, end, 'the JSON has no "name" of a tool')
    name = name.strip()[:100]
    try:
        return ToolCall(name, _argument(value), start, end)
    except _Malformed as error:
        return ToolCall(name, "", start, end, str(error))


def _argument(value: dict[str, Any]) -> str:
    """The one text that a tool takes, from the arguments in one of the forms that models use."""
    arguments = value.get("arguments", value.get("parameters", {}))
    if isinstance(arguments, str):
        # OpenAI's interface has the object as a text.
        try:
            inner, end = _json(arguments, 0)
        except _Malformed:
            return arguments
        if end < len(arguments):
            return arguments
        arguments = inner
    if not isinstance(arguments, dict):
        raise _Malformed('"arguments" must be an object such as {"input": "..."}')
    if not arguments:
        return ""
    texts = {key: item for key, item in arguments.items() if isinstance(item, str)}
    for field in _FIELDS:
        if field in texts:
            return texts[field]
    if len(texts) == 1:
        return next(iter(texts.values()))
    if len(arguments) == 1:
        only = next(iter(arguments.values()))
        if isinstance(only, int | float) and not isinstance(only, bool):
            return repr(only)
    raise _Malformed('"arguments" must have one text, such as {"input": "..."}')


# --- Action: name[...] --------------------------------------------------------------------------


def _action(text: str) -> ToolCall | None:
    places: _Places | None = None
    at = 0
    while (match := _ACTION.search(text, at)) is not None:
        # One pass over the text serves all that looks like a beginning in it.
        places = places or _Places(text)
        inner = match.end()
        if (ends := places.end(inner)) is None:
            at = inner
            continue
        close, end = ends
        rest = _REST_OF_LINE.match(text, end)
        if rest is None:
            at = inner
            continue
        return ToolCall(match[1], text[inner:close].strip(), match.start(), end)
    return None


class _Places:
    """Where the brackets of a text are closed, by their numbers and behind fenced code."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.closed: dict[int, int] = {}
        opened: list[int] = []
        for match in _BRACKET.finditer(text):
            if match[0] == "[":
                opened.append(match.start())
            elif opened:
                self.closed[opened.pop()] = match.start()
        ends = [*_FENCE.finditer(text), *_FENCE_END.finditer(text)]
        self.fences = sorted(match.end() - 1 for match in ends)

    def end(self, inner: int) -> tuple[int, int] | None:
        """The closing bracket of an input, and the place after it; None if it is not closed."""
        if self.text.startswith("```", inner) or self.text.startswith("\n```", inner):
            # Code may have brackets in its texts that do not match: what counts is its fence.
            i = bisect.bisect_left(self.fences, inner + 4)
            if i < len(self.fences):
                return self.fences[i], self.fences[i] + 1
        close = self.closed.get(inner - 1)
        return None if close is None else (close, close + 1)
