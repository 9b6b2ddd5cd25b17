"""How a question and the turns of a deliberation become one sequence of tokens.

All chats lay a prompt out alike: the question, then the messages that are visible, then the header
after which an agent speaks. Everything before that header is the same for all who share a view.
"""

import functools
from collections.abc import Mapping
from typing import Any, Literal

from arkjax.errors import DataError
from arkjax.storage import content_hash
from arkjax.text.files import has_chat_template
from arkjax.text.templates import ChatTemplate, load_chat_template
from arkjax.text.tokenizer import Tokenizer

BARE = "answer"
"""The byline of who has no role: a lone model answers under it."""


class PlainChat:
    """Turns as plain text: a byline and a colon, the words, the end token.

        question: coins 4 7 , gap 3 8</s> surveyor: ... so 7</s> judge:

    A role text and an instruction stand before the byline of whoever is about to speak, so that
    any language model can read them. Other readers see the byline alone.

    Attributes:
      end_id: the token that ends a message.
      end_ids: the tokens that end a generation.
      keeps_end: whether a message that others read keeps its end token.
      identity: hash of the template and what it was given; empty without one.
    """

    keeps_end = True
    identity = ""

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        self.end_id = tokenizer.eos_id
        self.end_ids = (tokenizer.eos_id,)
        self.turn = functools.cache(self.turn)

    def question(self, text: str) -> list[int]:
        """Ids of the opening that states the question."""
        return [*self._tokenizer.encode(f"question: {text}"), self.end_id]

    def turn(self, byline: str, role: str = "", instruction: str = "") -> list[int]:
        """Ids of the header after which the agent of this byline speaks."""
        parts = [role if role != byline else "", instruction, byline]
        return self._tokenizer.encode("\n".join(filter(None, parts)) + ":")

    def announce(self, byline: str, role: str = "", instruction: str = "") -> list[int]:
        """Ids that tell before the transcript who is going to speak."""
        return [*self.turn(byline, role, instruction), self.end_id]

    def message(self, byline: str) -> list[int]:
        """Ids of the header of a message that was said before."""
        return self.turn(byline)

    def result(self, tool: str) -> list[int]:
        """Ids that stand between a speaker's words and what a tool answers to them."""
        return self.turn(tool)

    def resume(self, byline: str) -> list[int]:
        """Ids after which the speaker goes on, having read a tool's answer."""
        return self.turn(byline)


class BylineChat(PlainChat):
    """Turns of a model that knows bylines and nothing else, as that of the embedded world.

    Role texts and instructions are left out: to such a model they are noise.
    """

    def turn(self, byline: str, role: str = "", instruction: str = "") -> list[int]:
        """Ids of the byline and a colon."""
        return super().turn(byline)


class TemplateChat:
    """Turns in a checkpoint's own chat template: one message of the user holds the transcript.

        <user> QUESTION
        accountant:
        WORDS
        ROLE INSTRUCTION <end of turn> <assistant>

    Copied messages lose their end token, which would close the user's turn.

    Attributes: as of `PlainChat`.

    Raises:
      DataError: if the template does not write messages out as they are, or ends no turn by a
        token of its own.
    """

    keeps_end = False

    def __init__(
        self, tokenizer: Tokenizer, template: ChatTemplate, variables: Mapping[str, Any] = {}
    ):
        """Find the parts of the template.

        Args:
          tokenizer: the checkpoint's.
          template: its template.
          variables: more that it reads, such as `enable_thinking`.
        """
        self._tokenizer = tokenizer
        # With what a template that escapes, joins lines or collapses spaces would change.
        first, second, said = (
            f"{x}\n\n  \"<&>'  \\n{x}" for x in ("ARKJAXA", "ARKJAXB", "ARKJAXC")
        )
        user, other = {"role": "user", "content": first}, {"role": "user", "content": second}
        assistant = {"role": "assistant", "content": said}
        alone = _cut(template, [user], [first], variables)
        both = _cut(template, [user, assistant, other], [first, said, second], variables)
        self._opening, self._answering = (self._parse(part) for part in alone)
        after = self._parse(both[2].lstrip())
        ends = [token for token in after if token in tokenizer.special_tokens.values()]
        if not ends or after[0] != ends[0]:
            raise DataError(
                f"{template.source} ends the assistant's turns by no special token, so a message"
                " would have no end: play the team with config.chat = 'plain'"
            )
        self._lead = _lead(tokenizer)
        self.end_id = ends[0]
        self.end_ids = tuple(dict.fromkeys((ends[0], *tokenizer.end_ids)))
        self._again = after[1:]
        self.identity = content_hash([template.hash, dict(variables)])
        self.turn = functools.cache(self.turn)

    def question(self, text: str) -> list[int]:
        """Ids of the opening that states the question."""
        return [*self._opening, *self._words(text.strip())]

    def turn(self, byline: str, role: str = "", instruction: str = "") -> list[int]:
        """Ids of the end of the user's message, which tells who is to speak and what about."""
        return [*self.announce(byline, role, instruction), *self._answering]

    def announce(self, byline: str, role: str = "", instruction: str = "") -> list[int]:
        """Ids that tell before the transcript who is going to speak, and what about."""
        if role in ("", byline):
            role = "" if byline == BARE else f"You are the {byline}."
        text = "\n".join(filter(None, [role, instruction]))
        return self._words(f"\n\n{text}" if text else "")

    def message(self, byline: str) -> list[int]:
        """Ids of the header of a message that was said before."""
        return self._words(f"\n\n{byline}:\n")

    def result(self, tool: str) -> list[int]:
        """Ids that stand between a speaker's words and what a tool answers to them."""
        return [*self._again, *self._words(f"{tool}:\n")]

    def resume(self, byline: str) -> list[int]:
        """Ids after which the speaker goes on, having read a tool's answer."""
        return self._answering

    def _words(self, text: str) -> list[int]:
        if not text:
            return []
        if self._lead:
            ids = self._tokenizer.encode("\n" + text)
            if tuple(ids[: len(self._lead)]) == self._lead:
                return ids[len(self._lead) :]
        return self._tokenizer.encode(text)

    def _parse(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, special=True) if text else []


Chat = PlainChat | TemplateChat
ChatKind = Literal["auto", "bylines", "plain", "template"]


def make_chat(
    tokenizer: Tokenizer,
    kind: ChatKind = "auto",
    variables: Mapping[str, Any] = {},
    *,
    bylines: bool = False,
) -> Chat:
    """The chat of a model.

    Args:
      tokenizer: the model's; its folder may hold a chat template.
      kind: "bylines", "plain" or "template"; "auto" takes the template where there is one.
      variables: for the template.
      bylines: what "auto" takes without a template: bylines alone, or else plain text.

    Raises:
      DataError: if there is no template where one is asked for, or it cannot hold a transcript.
    """
    folder = tokenizer.path if tokenizer.path.is_dir() else tokenizer.path.parent
    if kind == "auto":
        kind = "bylines" if bylines else "plain"
        if has_chat_template(folder):
            kind = "template"
    if kind == "template":
        return TemplateChat(tokenizer, load_chat_template(folder), variables)
    return BylineChat(tokenizer) if kind == "bylines" else PlainChat(tokenizer)


def _lead(tokenizer: Tokenizer) -> tuple[int, ...]:
    """Ids of a line break, for tokenizers that put a space before every text that they are given.

    Behind it they put none, so that a text that goes on from another is encoded with it. Empty for
    other tokenizers.
    """
    lead = tokenizer.encode("\n")
    both = tokenizer.encode("\na")
    apart = both[: len(lead)] == lead and both[len(lead) :] != tokenizer.encode("a")
    return tuple(lead) if apart else ()


def _cut(
    template: ChatTemplate, messages: list, marks: list[str], variables: Mapping[str, Any]
) -> list[str]:
    """The text around each of the marks, in order."""
    text, parts = template.render(messages, **variables), []
    for mark in marks:
        before, found, text = text.partition(mark)
        if not found:
            raise DataError(
                f"{template.source} does not write its messages out as they are, so a transcript"
                " cannot be put into it: play the team with config.chat = 'plain'"
            )
        parts.append(before)
    parts.append(text)
    if any(mark in part for mark in marks for part in parts):
        raise DataError(
            f"{template.source} writes a message out more than once, so a transcript cannot be put"
            " into it: play the team with config.chat = 'plain'"
        )
    return parts
