"""Builds prompts: the question, the transcript of what is visible, then the speaker's header.

Everything before the last header is the same for all agents that share a view, so that it is
prefilled once. Generated ids are copied, never decoded and encoded again: what a reader sees is to
the token what the author generated.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Protocol

from arkjax.errors import DataError
from arkjax.tasks.problems import Problem
from arkjax.teams.primitives import Agent, Stage
from arkjax.teams.spec import TeamSpec
from arkjax.teams.views import visible
from arkjax.trajectories.schema import TEMPLATE, Call, Segment


class Chat(Protocol):
    """A chat template, as token ids."""

    end_id: int

    def question(self, text: str) -> Sequence[int]:
        """The opening of a conversation: system text and question."""

    def turn(self, role: str) -> Sequence[int]:
        """The header of a turn; generation starts right after it."""


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
class _Slot:
    """A message that has not been said yet, for the longest prompt there can be."""

    agent: str
    round: int
    sample: int


def header(agent: Agent, stage: Stage) -> str:
    """What opens the agent's turn in this stage: its role, and the stage's instruction if any."""
    return "\n".join(part for part in (agent.role, stage.instruction) if part)


def build_prompt(
    chat: Chat,
    tokenizer: Tokenizer,
    question: Sequence[int],
    shown: Iterable[tuple[Agent, Call]],
    agent: Agent,
    stage: Stage,
) -> Prompt:
    """The prompt of `agent` in `stage`.

    Args:
      chat: the chat template.
      tokenizer: encodes the answers where the view shows only these.
      question: `chat.question` of the problem.
      shown: the visible calls with their authors, in the transcript's order.
      agent: who is about to speak.
      stage: the stage that it speaks in.
    """
    parts: list[tuple[str, Sequence[int]]] = [(TEMPLATE, question)]
    parents = []
    own = list(chat.turn(header(agent, stage)))
    if stage.view.layout == "role_first":
        parts.append((TEMPLATE, [*own, chat.end_id]))
    shared, last_round = [len(question)], None
    for author, call in shown:
        if last_round not in (None, call.round):
            shared.append(sum(len(ids) for _, ids in parts))
        last_round = call.round
        if stage.view.show == "answer":
            answer = call.parsed.get("answer")
            if answer is None:
                continue
            ids = [*chat.turn(author.role), *tokenizer.encode(answer), chat.end_id]
            parts.append((TEMPLATE, ids))
        else:
            parts += [(TEMPLATE, chat.turn(author.role)), (call.call_id, call.gen_ids)]
            if not call.gen_ids or call.gen_ids[-1] != chat.end_id:
                # Cut off by its limit: without this the next header would be part of the message.
                parts.append((TEMPLATE, [chat.end_id]))
        parents.append(call.call_id)
    prefix_len = sum(len(ids) for _, ids in parts)
    parts.append((TEMPLATE, own))
    return Prompt(
        ids=tuple(token for _, ids in parts for token in ids),
        segments=_segments(parts),
        prefix_len=prefix_len,
        parents=tuple(parents),
        shared=tuple(length for length in shared if 0 < length < prefix_len),
    )


def check_context(
    spec: TeamSpec, problems: Iterable[Problem], chat: Chat, max_context: int | dict[str, int]
) -> None:
    """Make sure that the longest possible play of any problem fits into the models' context.

    Every message counts with its `max_tokens` and its header. `max_context` is one number of
    tokens, or one for each named model.

    Raises:
      DataError: naming team, stage and problem, the tokens needed and the tokens there are.
    """
    longest: tuple[int, Problem | None] = (-1, None)
    for problem in problems:
        longest = max(longest, (len(chat.question(problem.question)), problem), key=lambda p: p[0])
    question, problem = longest
    if problem is None:
        return
    for stage, agent, tokens in _longest_prompts(spec, chat):
        limit = max_context if isinstance(max_context, int) else max_context[agent.model]
        needed = question + tokens + agent.sampling.max_tokens
        if needed > limit:
            raise DataError(
                f"team {spec.name!r}, stage {stage.name!r}, agent {agent.id!r}: problem"
                f" {problem.id!r} can need {needed} tokens ({question} question, {tokens} for"
                f" transcript and headers, {agent.sampling.max_tokens} to generate), but model"
                f" {agent.model!r} holds {limit}: lower max_tokens, show fewer messages or less of"
                " them, or choose a longer context (in a run, engine.length_classes; that of a"
                " server is its own)"
            )


def _longest_prompts(spec: TeamSpec, chat: Chat) -> Iterable[tuple[Stage, Agent, int]]:
    """Of the longest play, by stage and speaker: the prompt's length after the question."""
    agents = [agent.id for agent in spec.agents]
    sizes = {
        agent.id: len(chat.turn(agent.role)) + agent.sampling.max_tokens + 1
        for agent in spec.agents
    }
    said: list[_Slot] = []
    for number, stage in enumerate(spec.unrolled(longest=True)):
        speakers = spec.select(stage.speakers)
        new: list[_Slot] = []
        for name in speakers:
            agent = spec.agent(name)
            heard = said + new if stage.order == "sequential" else said
            shown = visible(stage.view, name, speakers, agents, heard)
            own = len(chat.turn(header(agent, stage)))
            tokens = own + sum(sizes[slot.agent] for slot in shown)
            if stage.view.layout == "role_first":
                tokens += own + 1
            yield stage, agent, tokens
            new += [_Slot(name, number, sample) for sample in range(stage.n_samples)]
        said += new


def _segments(parts: Iterable[tuple[str, Sequence[int]]]) -> tuple[Segment, ...]:
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
