"""What stands in a prompt, as text: who said which part, with nothing that a terminal obeys."""

import dataclasses
import unicodedata
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Protocol

from arkjax.trajectories.schema import TEMPLATE, Call

_KEPT = {"\n", "\t", "\u200c", "\u200d"}  # The joiners spell words and emoji, and move nothing.
_UNSAFE = {"Cc", "Cf", "Cs", "Zl", "Zp"}


class Decoder(Protocol):
    """Token ids to text; `arkjax.text.tokenizer.Tokenizer` is one."""

    end_ids: Sequence[int]

    def decode(self, ids: Sequence[int], *, special: bool = False) -> str:
        """Text of the ids."""


@dataclasses.dataclass(frozen=True, slots=True)
class Part:
    """A stretch of a prompt.

    Attributes:
      source: `TEMPLATE`, or the id of the call whose words these are.
      text: decoded, special tokens included.
    """

    source: str
    text: str


@dataclasses.dataclass(frozen=True, slots=True)
class Spoken:
    """One message of a prompt, or its frame.

    Attributes:
      kind: "question", "said" (a call's words), "shown" (words that the template put there, such as
        the answer of a call whose reasoning was left out) or "header" (what opens the speaker's own
        turn: its role and instruction).
      source: id of the call that said it; empty where the template did.
      text: the words, without special tokens.
    """

    kind: str
    source: str
    text: str


def printable(text: str) -> str:
    """The text with every control and formatting character spelled out, as in `\\x1b`.

    A model's words must not move a terminal's cursor, change its title or turn text around. Line
    breaks and tabs stay.
    """
    if text.isprintable():
        return text
    return "".join(_shown(char) for char in text)


def _shown(char: str) -> str:
    if char in _KEPT or unicodedata.category(char) not in _UNSAFE:
        return char
    return char.encode("unicode_escape", "surrogatepass").decode("ascii")


def parts(call: Call, tokenizer: Decoder) -> Iterator[Part]:
    """The parts of a call's prompt in order."""
    for source, start, end in call.prompt_segments:
        yield Part(source, tokenizer.decode(call.prompt_ids[start:end], special=True))


def messages(call: Call, tokenizer: Decoder) -> list[Spoken]:
    """A call's prompt as messages: what a turn's end token closes is one of them.

    The byline of another call's words is left out, since the call itself says whose they are.
    """
    ends, found, open_ids = set(tokenizer.end_ids), [], []
    for source, start, end in call.prompt_segments:
        ids = call.prompt_ids[start:end]
        if source != TEMPLATE:
            found.append(Spoken("said", source, _words(ids, tokenizer)))
            open_ids = []
            continue
        for token in ids:
            if token not in ends:
                open_ids.append(token)
                continue
            if text := _words(open_ids, tokenizer):
                kind = "shown" if found else "question"
                found.append(Spoken(kind, "", text))
            open_ids = []
    if text := _words(open_ids, tokenizer):
        found.append(Spoken("header", "", text))
    return found


def question(calls: Collection[Call], tokenizer: Decoder) -> str:
    """The question of a debate, as its first call was asked it; empty if there is none."""
    first = min(calls, key=lambda call: (call.round, call.step, len(call.prompt_ids)), default=None)
    if first is None:
        return ""
    return next((m.text for m in messages(first, tokenizer) if m.kind == "question"), "")


def _words(ids: Sequence[int], tokenizer: Decoder) -> str:
    return tokenizer.decode(ids).strip()


Lookup = Callable[[str], str | None]
"""A property of a call by its id; None if it is not recorded."""
