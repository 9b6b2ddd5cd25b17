"""Finds out before any call whether the longest talk that a team can have fits into its models."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping

from arkjax.errors import DataError
from arkjax.tasks.problems import Problem
from arkjax.teams.plans import instruction
from arkjax.teams.primitives import Agent, Stage
from arkjax.teams.prompts import Chat
from arkjax.teams.team import Team
from arkjax.teams.views import visible
from arkjax.tools.protocol import Tool


@dataclasses.dataclass(frozen=True)
class _Slot:
    """A message that has not been said yet, with the tokens that it can take in a transcript."""

    agent: str
    stage: str
    round: int
    sample: int
    size: int
    parsed: Mapping[str, str] = dataclasses.field(default_factory=dict)


def check_context(
    team: Team,
    problems: Iterable[Problem],
    chat: Chat | Mapping[str, Chat],
    max_context: int | Mapping[str, int],
    tools: Mapping[str, Tool] = {},
) -> None:
    """Make sure that the longest possible play of any problem fits into the models' context.

    Every message counts with its `max_tokens` and its header, every turn with all the tools that it
    may call.

    Args:
      team: the team.
      problems: what it is going to work on.
      chat: the chat template, or one for each named model.
      max_context: tokens that a model can hold, or a number for each named model.
      tools: the team's, by name: agents are told what they do.

    Raises:
      DataError: naming team, stage and problem, the tokens needed and the tokens there are.
    """
    problems = list(problems)
    if not problems:
        return
    longest: dict[int, tuple[int, Problem]] = {}
    for stage, agent, tokens, own in _longest_prompts(team, chat, tools):
        if id(own) not in longest:
            lengths = [(len(own.question(problem.question)), problem) for problem in problems]
            longest[id(own)] = max(lengths, key=lambda pair: pair[0])
        question, problem = longest[id(own)]
        limit = max_context if isinstance(max_context, int) else max_context[agent.model]
        needed = question + tokens + agent.sampling.max_tokens
        if needed > limit:
            raise DataError(
                f"team {team.name!r}, stage {stage.name!r}, agent {agent.id!r}: problem"
                f" {problem.id!r} can need {needed} tokens ({question} question, {tokens} for"
                f" transcript and headers, {agent.sampling.max_tokens} to generate), but model"
                f" {agent.model!r} holds {limit}: lower max_tokens, show fewer messages or less of"
                " them, or choose a longer context (in a run, engine.length_classes; that of a"
                " server is its own)"
            )


def _longest_prompts(
    team: Team, chats: Chat | Mapping[str, Chat], tools: Mapping[str, Tool]
) -> Iterator[tuple[Stage, Agent, int, Chat]]:
    """Of the longest play, by stage and speaker: the prompt's length after the question."""

    def chat_of(agent: Agent) -> Chat:
        return chats[agent.model] if isinstance(chats, Mapping) else chats

    # A tool reads no prompt; its words are written as whoever reads them has them.
    any_chat = next(iter(chats.values())) if isinstance(chats, Mapping) else chats
    said: list[_Slot] = []
    played: dict[str, int] = {}
    for number, stage in enumerate(team.unrolled(longest=True)):
        pool = team.select(stage.speakers)
        new: list[_Slot] = []
        for name in pool:
            agent = team.agent(name)
            shown = visible(
                dataclasses.replace(stage.view, pick="all"),
                name,
                pool,
                team.ids,
                said if stage.order == "parallel" else said + new,
                authors=team.select(stage.view.authors),
                turn=played.get(stage.name, 0),
            )
            sizes = [slot.size for slot in shown]
            if stage.each or stage.view.pick != "all":
                # One of them only, and it may be any.
                sizes = [max(sizes, default=0)]
            chat = any_chat if agent.tool else chat_of(agent)
            if not agent.tool:
                tokens = sum(sizes) + _header(team, agent, stage, chat, instruction(stage, tools))
                if stage.tools:
                    tokens += stage.tool_calls * _step(agent, stage, chat)
                yield stage, agent, tokens, chat
            size = _size(agent, stage, chat)
            count = stage.n_samples * team.asked(stage, name)
            new += [_Slot(name, stage.name, number, sample, size) for sample in range(count)]
        # Of those who may be chosen, the ones with the longest messages.
        spoken = sorted({slot.agent: slot.size for slot in new}.items(), key=lambda x: -x[1])
        kept = {name for name, _ in spoken[: team.speaking(stage)]}
        said += [slot for slot in new if slot.agent in kept]
        played[stage.name] = played.get(stage.name, 0) + 1


def _header(team: Team, agent: Agent, stage: Stage, chat: Chat, told: str) -> int:
    """Tokens of the speaker's own headers, with the longest role that others can write for it."""
    header = len(chat.turn(agent.name, agent.role, told))
    if stage.view.layout == "role_first":
        header += len(chat.announce(agent.name, agent.role, told))
    writers = [
        team.agent(name).sampling.max_tokens
        for field in agent.role_from
        for other in team.stages
        if field.rpartition(".")[0] in ("", other.name)
        for name in team.select(other.speakers)
    ]
    return header + max(writers, default=0)


def _step(agent: Agent, stage: Stage, chat: Chat) -> int:
    """Tokens that calling a tool once adds to the speaker's prompt."""
    around = max(len(chat.result(tool)) for tool in stage.tools) + len(chat.resume(agent.name))
    return agent.sampling.max_tokens + 1 + around + stage.result_tokens + 1


def _size(agent: Agent, stage: Stage, chat: Chat) -> int:
    """Tokens that the agent's message, with all parts of its turn, takes in a transcript."""
    if agent.tool:
        return len(chat.message(agent.tool)) + stage.result_tokens + 1
    part = len(chat.message(agent.name)) + agent.sampling.max_tokens + 1
    if not stage.tools:
        return part
    result = max(len(chat.message(tool)) for tool in stage.tools) + stage.result_tokens + 1
    return part + stage.tool_calls * (part + result)
