"""Builds prompts: the question, the transcript of what is visible, then the speaker's header.

Everything before the last header is the same for all agents that share a view, so that it is
prefilled once. Generated ids are copied, never decoded and encoded again: what a reader sees is to
the token what the author generated. Where a view shows less than a message, or its author has
another tokenizer, the words are encoded anew and count as the template's.
"""

import dataclasses
import itertools
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

from arkjax.teams.primitives import NO_THINK, SHOWS, WHOLE
from arkjax.trajectories.schema import ACTION, TEMPLATE, Call, Segment

_THOUGHT = "</think>"


class Chat(Protocol):
    """A chat template, as token ids; see `arkjax.text.chat`."""

    end_id: int
    end_ids: tuple[int, ...]
    keeps_end: bool

    def question(self, text: str) -> Sequence[int]:
        """The opening of a conversation: system text and question."""

    def announce(self, byline: str, role: str = "", instruction: str = "") -> Sequence[int]:
        """What tells before the transcript who is going to speak, for `layout="role_first"`."""

    def message(self, byline: str) -> Sequence[int]:
        """The header of a message that was said before."""

    def turn(self, byline: str, role: str = "", instruction: str = "") -> Sequence[int]:
        """The header of a turn; generation starts right after it."""

    def result(self, tool: str) -> Sequence[int]:
        """What stands between a speaker's words and what a tool answers to them."""

    def resume(self, byline: str) -> Sequence[int]:
        """What follows a tool's answer; the speaker goes on right after it."""


class Tokenizer(Protocol):
    """Text to token ids and back."""

    def encode(self, text: str) -> Sequence[int]:
        """Token ids of `text`, without special tokens."""

    def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids."""


@dataclasses.dataclass(frozen=True)
class Prompt:
    """A prompt as token ids, and where each of them comes from.

    Attributes:
      ids: the whole prompt.
      segments: (source, start, end) over `ids`, in order and without gaps.
      prefix_len: number of ids before the speaker's header.
      parents: ids of the calls that are shown.
      shared: numbers of ids, below `prefix_len`, that prompts of other views or rounds begin with
        as well: the question, and the transcript up to each round.
    """

    ids: tuple[int, ...]
    segments: tuple[Segment, ...]
    prefix_len: int
    parents: tuple[str, ...]
    shared: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class Shown:
    """A message as a reader gets it.

    Attributes:
      byline: what its author is called.
      call: the last part of the author's turn, which states its answer.
      steps: the parts before it, the actions of tools among them, in order.
      copied: whether reader and author have one tokenizer, so that ids can be copied.
      most: most tokens of what is shown in its place, such as a field; 0 is no limit. A field can
        be longer than the message that states it: "[1,2]" is read as "[1, 2]".
    """

    byline: str
    call: Call
    steps: tuple[Call, ...] = ()
    copied: bool = True
    most: int = 0


Part = tuple[str, Sequence[int]]


class Transcript(NamedTuple):
    """What a prompt holds before its speaker's header; agents with one view have one.

    Attributes:
      ids: the question, what was announced, and the messages.
      segments: as of `Prompt`, over these ids.
      parents, shared: as of `Prompt`.
    """

    ids: tuple[int, ...]
    segments: tuple[Segment, ...]
    parents: tuple[str, ...]
    shared: tuple[int, ...]


def transcribe(
    chat: Chat,
    tokenizer: Tokenizer,
    question: Sequence[int],
    shown: Iterable[Shown],
    show: str,
    announced: Sequence[int] = (),
) -> Transcript:
    """The messages that an agent sees, behind the question.

    Args:
      chat: the chat template.
      tokenizer: encodes what is not shown word for word.
      question: `chat.question` of the problem.
      shown: the visible messages, in the transcript's order.
      show: what is shown of each, as in `View.show`.
      announced: `chat.announce` of the speaker where roles come first.
    """
    parts: list[Part] = [(TEMPLATE, question), (TEMPLATE, announced)]
    parents: list[str] = []
    shared, last_round = [len(question)], None
    for message in shown:
        if last_round not in (None, message.call.round):
            shared.append(sum(len(ids) for _, ids in parts))
        last_round = message.call.round
        for call in (*message.steps, message.call) if show == WHOLE else (message.call,):
            words = _words(chat, tokenizer, call, message, show)
            if words is not None:
                name = tool_name(call) if call.is_action else message.byline
                parts += [(TEMPLATE, chat.message(name)), *words]
                parents.append(call.call_id)
    ids = tuple(itertools.chain.from_iterable(ids for _, ids in parts))
    # Once each: a round of which nothing is shown adds nothing.
    starts = tuple(length for length in dict.fromkeys(shared) if 0 < length < len(ids))
    return Transcript(ids, _segments(parts), tuple(parents), starts)


def build_prompt(transcript: Transcript, header: Sequence[int]) -> Prompt:
    """The prompt of an agent that has read a transcript; `header` is its `chat.turn`."""
    return Prompt(
        ids=(*transcript.ids, *header),
        segments=_joined(transcript.segments, len(transcript.ids), header),
        prefix_len=len(transcript.ids),
        parents=transcript.parents,
        shared=transcript.shared,
    )


def continue_prompt(chat: Chat, prompt: Prompt, call: Call, action: Call, byline: str) -> Prompt:
    """The prompt after which an agent goes on, having called a tool and read what it answers.

    Args:
      chat: the chat template.
      prompt: the one that `call` answered.
      call: the words that call the tool.
      action: what the tool answered.
      byline: of the agent.
    """
    closing = () if call.gen_ids and call.gen_ids[-1] in chat.end_ids else (chat.end_id,)
    answer = action.gen_ids if chat.keeps_end else action.gen_ids[:-1]
    parts: list[Part] = [
        *((source, prompt.ids[start:end]) for source, start, end in prompt.segments),
        (call.call_id, call.gen_ids),
        (TEMPLATE, [*closing, *chat.result(tool_name(action))]),
        (action.call_id, answer),
        (TEMPLATE, chat.resume(byline)),
    ]
    return dataclasses.replace(
        prompt,
        ids=tuple(itertools.chain.from_iterable(ids for _, ids in parts)),
        segments=_segments(parts),
        parents=(*prompt.parents, call.call_id, action.call_id),
    )


def tool_name(call: Call) -> str:
    """Name of the tool that an action is of."""
    return call.model.removeprefix(ACTION).partition("/")[0]


def shown_text(call: Call, show: str) -> str | None:
    """What a view shows of a call as text; None if it shows nothing."""
    if show not in SHOWS:
        return call.parsed.get(show)
    if show == NO_THINK and _THOUGHT in call.text:
        return call.text.rpartition(_THOUGHT)[2].strip()
    return call.text


def _words(
    chat: Chat, tokenizer: Tokenizer, call: Call, message: Shown, show: str
) -> list[Part] | None:
    """The words of a call as its reader sees them; None if there are none to be seen."""
    closing = [chat.end_id] if chat.keeps_end else []
    text = shown_text(call, show)
    if text is None:
        return None
    if text is not call.text or not message.copied:
        ids = tokenizer.encode(text)
        most = message.most if message.copied else 0
        return [(TEMPLATE, [*(ids[:most] if most else ids), *closing])]
    ended = bool(call.gen_ids) and call.gen_ids[-1] in chat.end_ids
    if ended and not chat.keeps_end:
        return [(call.call_id, call.gen_ids[:-1])]
    # Cut off by its limit: without an end the next header would be part of the message.
    return [(call.call_id, call.gen_ids)] + ([] if ended else [(TEMPLATE, closing)])


def _segments(parts: Iterable[Part]) -> tuple[Segment, ...]:
    """The parts as spans, neighbouring template parts as one."""
    spans: list[Segment] = []
    start = 0
    for source, ids in parts:
        end = start + len(ids)
        if spans and source == TEMPLATE == spans[-1][0]:
            spans[-1] = (TEMPLATE, spans[-1][1], end)
        elif end > start:
            spans.append((source, start, end))
        start = end
    return tuple(spans)


def _joined(spans: tuple[Segment, ...], start: int, ids: Sequence[int]) -> tuple[Segment, ...]:
    """The spans, and behind them template ids, which begin at `start`."""
    if not ids:
        return spans
    end = start + len(ids)
    if spans and spans[-1][0] == TEMPLATE:
        spans, start = spans[:-1], spans[-1][1]
    return (*spans, (TEMPLATE, start, end))
