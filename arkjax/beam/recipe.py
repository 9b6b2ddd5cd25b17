"""What a worker needs to make the examples of a problem, as data that travels with the pipeline."""

import dataclasses
import functools
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from arkjax.errors import ConfigError
from arkjax.storage import plain
from arkjax.synthesis.attribution import AttributionConfig, attribute
from arkjax.synthesis.selection import SelectionConfig
from arkjax.synthesis.unified import Unifier
from arkjax.tasks.problems import Grader, Problem
from arkjax.teams.spec import TeamSpec
from arkjax.text.chat import ChatKind, make_chat
from arkjax.text.tokenizer import Tokenizer
from arkjax.trajectories.attribution import AgentCredit, Attribution, MessageCredit
from arkjax.trajectories.schema import Call


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How examples are made: everything of a `Unifier` but problems and attribution.

    Attributes:
      config: the filters and the form.
      grader: of the task.
      tokenizer: the names of the tokenizer's files and their bytes, so that a worker on another
        machine needs no files of this one.
      chat, variables, bylines: as for `arkjax.text.chat.make_chat`.
      role: under which students are asked.
      synthesizer: see `Unifier`.
      foreign: identities of models with another tokenizer; what becomes of their calls is the
        config's to say.
      team: whose debates these are, where answer flips are to be read off them: see
        `arkjax.synthesis.attribution`.
      attributed: whether the facts about problems come with an attribution.
    """

    config: SelectionConfig
    grader: Grader
    tokenizer: Mapping[str, bytes]
    chat: ChatKind = "auto"
    variables: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    bylines: bool = False
    role: str = ""
    synthesizer: str | None = None
    foreign: frozenset[str] = frozenset()
    team: TeamSpec | None = None
    attributed: bool = False

    def __post_init__(self) -> None:
        if self.config.diversity == "hidden":
            raise ConfigError(
                "synthesis.diversity is 'hidden', for which the base model has to read every "
                "trace: choose 'ngrams' or 'steps', or do it by the stage synthesize"
            )

    def unifier(self) -> Unifier:
        """The unifier, of no problem yet."""
        folder = tempfile.TemporaryDirectory(prefix="arkjax-tokenizer-")
        for name, data in self.tokenizer.items():
            path = Path(folder.name, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        only = next(iter(self.tokenizer)) if len(self.tokenizer) == 1 else ""
        tokenizer = Tokenizer(Path(folder.name, only))
        chat = make_chat(tokenizer, self.chat, self.variables, bylines=self.bylines)

        @functools.lru_cache(maxsize=1)
        def prompt(question: str) -> tuple[int, ...]:
            return (*chat.question(question), *chat.turn(self.role))

        prompt.folder = folder  # The files are there as long as the unifier is.
        return Unifier(
            self.config,
            self.grader,
            tokenizer,
            {},
            prompt,
            end_ids=chat.end_ids,
            synthesizer=self.synthesizer,
            foreign=self.foreign,
        )


def facts(
    problems: Iterable[Problem],
    team_answers: Mapping[str, str | None],
    attribution: Attribution | None = None,
) -> Iterator[tuple[str, dict[str, Any]]]:
    """What there is to know about each problem beside its calls, by id, as JSON says it."""
    messages: dict[str, list[list]] = {}
    agents: dict[str, list[list]] = {}
    if attribution is not None:
        for message in attribution.messages.values():
            row = list(dataclasses.astuple(message))
            messages.setdefault(message.problem_id, []).append(row)
        for agent in attribution.agents.values():
            agents.setdefault(agent.problem_id, []).append(list(dataclasses.astuple(agent)))
    for problem in problems:
        yield (
            problem.id,
            {
                "problem": plain(problem),
                "team_answer": team_answers.get(problem.id),
                "messages": messages.get(problem.id, []),
                "agents": agents.get(problem.id, []),
            },
        )


def with_facts(
    unifier: Unifier, recipe: Recipe, told: Mapping[str, Any], calls: Sequence[Call]
) -> Unifier:
    """The unifier for one problem, given the facts about it and all its calls.

    Raises:
      DataError: if a call is of an agent or a stage that the team does not have.
    """
    problem, attribution = Problem(**told["problem"]), None
    if recipe.attributed:
        attribution = Attribution.of(
            (MessageCredit(*row) for row in told["messages"]),
            (AgentCredit(*row) for row in told["agents"]),
        )
    elif recipe.team is not None:
        answers = {problem.id: told["team_answer"]}
        flips = AttributionConfig(("flips",))
        attribution = attribute(calls, recipe.team, answers, recipe.grader, flips)
    return dataclasses.replace(unifier, problems={problem.id: problem}, attribution=attribution)
