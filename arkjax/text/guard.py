"""Special tokens in a rendered chat: parsed where the template wrote them, nowhere else.

Who writes "<|im_end|><|im_start|>system" in a message must not end it and begin another.
"""

import dataclasses
import functools
import re
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from arkjax.errors import DataError
from arkjax.text.tokenizer import Tokenizer

# Private-use characters, of which two that no text of a chat holds become the marks.
_MARKS = (range(0xF0000, 0xFFFFE), range(0x100000, 0x10FFFE))
# Whose messages a model has written.
_ASSISTANT = "assistant"

Spans = Sequence[tuple[int, int]]


@dataclasses.dataclass(frozen=True)
class Control:
    """The tokens that may come from one template only.

    Attributes:
      tokens: their text by id: all special tokens, and of the other added tokens those that the
        template writes, such as "<think>" or "<tool_response>".
      fragments: literal text of the template that is such a token or may be the start or the end
        of one.
      written: the tokens that the template has in its text as a whole.
      any, special, other: find the tokens in a text: all, the special ones, the others.
    """

    tokens: Mapping[int, str]
    fragments: tuple[str, ...]
    written: frozenset[str]
    any: re.Pattern
    special: re.Pattern
    other: re.Pattern


def control_of(tokenizer: Tokenizer, named: Iterable[str], literals: Sequence[str]) -> Control:
    """The tokens to guard for a template.

    Args:
      tokenizer: knows the tokens.
      named: tokens that the template is given as variables.
      literals: all literal text in the template.
    """
    whole = "\0".join(literals)
    tokens = {
        index: text
        for text, index in tokenizer.added_tokens.items()
        if text in tokenizer.special_tokens or (text in whole and not text.isspace())
    }
    written = frozenset(text for text in tokens.values() if text in whole)
    starts = {text[:end] for text in tokens.values() for end in range(1, len(text))}
    ends = {text[start:] for text in tokens.values() for start in range(1, len(text))}
    longest = max(map(len, tokens.values()), default=0)
    edges: set[str] = set()
    for literal in literals:
        for size in range(1, min(longest, len(literal)) + 1):
            edges |= {literal[-size:]} & starts | {literal[:size]} & ends
    return Control(
        tokens=tokens,
        # Marks around white space would keep a template from stripping it.
        fragments=tuple(sorted(written | {text for text in edges if text.strip() == text})),
        written=written | set(named),
        any=_pattern(tokens.values()),
        special=_pattern(text for text in tokens.values() if text in tokenizer.special_tokens),
        other=_pattern(text for text in tokens.values() if text not in tokenizer.special_tokens),
    )


def _pattern(texts: Iterable[str]) -> re.Pattern:
    longest_first = sorted(texts, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or "(?!)")


def free_marks(text: str) -> tuple[str, str]:
    """Two characters that are not in `text`."""
    used = set(text)
    free = (chr(code) for codes in _MARKS for code in codes if chr(code) not in used)
    opening, closing = next(free, None), next(free, None)
    if opening is None or closing is None:
        raise DataError("the messages hold every private-use character of Unicode: take some out")
    return opening, closing


def marked_variables(
    control: Control, marks: tuple[str, str], inputs: Mapping[str, Any], named: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Variables with marks around what counts as written by the template, to be tried in order.

    First with the tokens that the assistant may write marked in its messages, if it has written
    any: a template that leaves these as they are gives them back with their marks. One that takes
    the messages apart at such tokens writes them itself.
    """
    opening, closing = marks
    given = {
        name: f"{opening}{text}{closing}" for name, text in named.items() if name not in inputs
    }
    own = [
        _wrapped(control.other, marks, message) if message["role"] == _ASSISTANT else message
        for message in inputs["messages"]
    ]
    return [{**given, "messages": own}, given] if own != inputs["messages"] else [given]


def _wrapped(pattern: re.Pattern, marks: tuple[str, str], value: Any) -> Any:
    if isinstance(value, str):
        return pattern.sub(rf"{marks[0]}\g<0>{marks[1]}", value)
    if isinstance(value, Mapping):
        return {key: _wrapped(pattern, marks, item) for key, item in value.items()}
    if isinstance(value, list):
        return [_wrapped(pattern, marks, item) for item in value]
    return value


def encode_chat(
    tokenizer: Tokenizer,
    control: Control,
    text: str,
    spans: Spans | None,
    inputs: Mapping[str, Any],
    source: str,
) -> list[int]:
    """Ids of a rendered chat.

    A control token is parsed if the template wrote all of it, or all but a role in its midst
    ("<|" role "|>"). One that the marks do not cover at all is parsed if the template has it in its
    text and no input spells any control token. All others are text.

    Args:
      tokenizer: encodes.
      control: what `control_of` gives for tokenizer and template.
      text: the rendered chat.
      spans: where in `text` the template wrote a fragment; None if that is unknown.
      inputs: all that the template was given and has not written itself: "messages" and other
        variables, as plain data.
      source: the template, for the message.

    Raises:
      DataError: if `spans` is None and an input spells a control token, naming the input.
    """
    roles = {message["role"] for message in inputs["messages"]}
    offender = functools.cache(lambda: _offender(control, inputs))
    if spans is None:
        if offender() is None:
            return tokenizer.encode(text, special=True)
        raise DataError(
            f"{source} compares what it writes itself, so that its control tokens cannot be told "
            f"from the one that is spelled in {offender()}: take that out"
        )
    starts = [start for start, _ in spans]

    def forged(index: int, start: int, end: int) -> tuple[int, int] | None:
        token = control.tokens.get(index)
        if token is None:
            return None
        # Some tokens take the white space around them with them.
        found = text.find(token, start, end)
        if found >= 0:
            start, end = found, found + len(token)
        elif index == tokenizer.unk_id:
            # Stands for characters without a token.
            return None
        gaps = _gaps(spans, starts, start, end)
        whole = gaps == [(start, end)]
        if whole and found >= 0 and token in control.written and offender() is None:
            return None
        inside = all(first > start and last < end for first, last in gaps)
        if inside and all(text[first:last] in roles for first, last in gaps):
            return None
        return start, end

    return tokenizer.encode_except(text, forged).ids


def _gaps(spans: Spans, starts: Sequence[int], start: int, end: int) -> list[tuple[int, int]]:
    """The parts of [start, end) that no span covers."""
    gaps = []
    index = max(bisect_right(starts, start) - 1, 0)
    while index < len(spans) and spans[index][0] < end:
        first, last = spans[index]
        if first > start:
            gaps.append((start, first))
        start = max(start, last)
        index += 1
    if start < end:
        gaps.append((start, end))
    return gaps


def _offender(control: Control, inputs: Mapping[str, Any]) -> str | None:
    """The input that spells a token which it may not make, as "messages[1].content", or None."""
    for i, message in enumerate(inputs["messages"]):
        pattern = control.special if message["role"] == _ASSISTANT else control.any
        words = {key: value for key, value in message.items() if key != "role"}
        if where := _search(pattern, words, f"messages[{i}]"):
            return where
    others = {key: value for key, value in inputs.items() if key != "messages"}
    return _search(control.any, others, "")


def _search(pattern: re.Pattern, value: Any, path: str) -> str | None:
    """Where in nested data a string matches, as "messages[1].content"; None if nowhere."""
    if isinstance(value, str):
        return path if pattern.search(value) else None
    items: Iterable[tuple[str, Any]] = ()
    if isinstance(value, Mapping):
        items = ((f"{path}.{key}" if path else str(key), item) for key, item in value.items())
    elif isinstance(value, (list, tuple)):
        items = ((f"{path}[{i}]", item) for i, item in enumerate(value))
    return next((where for at, item in items if (where := _search(pattern, item, at))), None)
