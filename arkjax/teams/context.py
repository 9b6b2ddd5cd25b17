"""Finds out before any call whether the longest talk that a team can have fits into its models."""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping

from arkjax.errors import DataError
from arkjax.tasks.problems import Problem
from arkjax.teams.bounds import Saying, plays
from arkjax.teams.plans import NO_TOOL, instruction
from arkjax.teams.primitives import WHOLE, Agent, Stage, View
from arkjax.teams.prompts import Chat
from arkjax.teams.team import Team
from arkjax.teams.views import anonymous_name
from arkjax.tools.protocol import Tool


def check_context(
    team: Team,
    problems: Iterable[Problem],
    chat: Chat | Mapping[str, Chat],
    max_context: int | Mapping[str, int],
    tools: Mapping[str, Tool] = {},
) -> None:
    """Make sure that the longest possible play of any problem fits into the models' context.

    Every message counts with its `max_tokens` and its header, every turn with all the tools that it
    may call. What a reader with another tokenizer gets counts as its author's tokens.

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
                f" {agent.model!r} holds {limit}: lower max_tokens (of tools"
                " result_tokens), show fewer messages or less of them, or choose a longer context"
                " (in a run, engine.length_classes; that of a server is its own)"
            )


def tokens_needed(
    team: Team,
    problems: Iterable[Problem],
    chat: Chat | Mapping[str, Chat],
    tools: Mapping[str, Tool] = {},
) -> list[int]:
    """Tokens that the longest call of a play of each problem can need, prompt and answer.

    Arguments as of `check_context`, which refuses what needs more than a model holds.
    """
    beside: dict[int, tuple[int, Chat]] = {}
    for _, agent, tokens, own in _longest_prompts(team, chat, tools):
        needed = tokens + agent.sampling.max_tokens
        beside[id(own)] = (max(needed, beside.get(id(own), (0, own))[0]), own)
    return [
        max((len(own.question(p.question)) + needed for needed, own in beside.values()), default=0)
        for p in problems
    ]


def _longest_prompts(
    team: Team, chats: Chat | Mapping[str, Chat], tools: Mapping[str, Tool]
) -> Iterator[tuple[Stage, Agent, int, Chat]]:
    """By play of a stage and speaker: the longest prompt's length after the question."""
    for play in plays(team):
        stage = play.stage
        for name, heard in play.heard.items():
            agent = team.agent(name)
            if agent.tool:
                # A tool reads no prompt.
                continue
            chat = chats[agent.model] if isinstance(chats, Mapping) else chats
            size = functools.cache(functools.partial(_size, team, stage.view, chat))

            def size_of(saying: Saying, size: Callable = size) -> int:
                return size(saying.agent, saying.stage)

            if stage.each or stage.view.pick != "all":
                # One of them only, and it may be any.
                tokens = heard.largest(size_of)
            else:
                tokens = heard.most(size_of)
            tokens += _header(team, agent, stage, chat, instruction(stage, tools))
            if stage.tools:
                tokens += stage.tool_calls * _step(agent, stage, chat)
            yield stage, agent, tokens, chat


def _header(team: Team, agent: Agent, stage: Stage, chat: Chat, told: str) -> int:
    """Tokens of the speaker's own headers, with the longest role that others can write for it."""
    # Some chats leave a role out that is the byline, and what separates it with it.
    roles = [agent.role, *(["role:"] if agent.role_from else [])]
    header = max(len(chat.turn(agent.name, role, told)) for role in roles)
    written = max(
        (
            team.agent(name).sampling.max_tokens
            for field in agent.role_from
            for other in team.stages
            if field.rpartition(".")[0] in ("", other.name)
            for name in team.select(other.speakers)
        ),
        default=0,
    )
    if stage.view.layout == "role_first":
        announced = max(len(chat.announce(agent.name, role, told)) for role in roles)
        return header + announced + 2 * written
    return header + written


def _step(agent: Agent, stage: Stage, chat: Chat) -> int:
    """Tokens that calling a tool once adds to the speaker's prompt."""
    names = (*stage.tools, NO_TOOL)
    around = max(len(chat.result(tool)) for tool in names) + len(chat.resume(agent.name))
    return agent.sampling.max_tokens + 1 + around + stage.result_tokens + 1


def _size(team: Team, view: View, chat: Chat, author: str, stage: str) -> int:
    """Tokens of a message that was said in a stage, as a reader of this chat and view has it."""
    agent, spoken = team.agent(author), team.stage(stage)
    if agent.tool:
        return len(chat.message(agent.tool)) + spoken.result_tokens + 1
    byline = anonymous_name(team.ids, author) if view.anonymous else agent.name
    part = len(chat.message(byline)) + agent.sampling.max_tokens + 1
    if not spoken.tools or view.show != WHOLE:
        return part
    names = (*spoken.tools, NO_TOOL)
    result = max(len(chat.message(tool)) for tool in names) + spoken.result_tokens + 1
    return part + spoken.tool_calls * (part + result)
