"""Who contributed what to the debates of one play, from its record."""

import collections
import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from arkjax.errors import ConfigError, DataError
from arkjax.progress import Task
from arkjax.synthesis.flips import flips
from arkjax.synthesis.influence import (
    Game,
    Pair,
    Reading,
    game,
    influence_pairs,
    influences,
    readings,
)
from arkjax.synthesis.shapley import Shapley
from arkjax.tasks.problems import Grader
from arkjax.teams.spec import TeamSpec
from arkjax.trajectories.attribution import AgentCredit, Attribution, MessageCredit
from arkjax.trajectories.schema import Call

Kind = Literal["flips", "influence", "shapley"]
Scorer = Callable[[Sequence[Pair]], Sequence[np.ndarray]]
"""Log-probabilities of targets after prompts; see `Engine.score_continuations`."""

# Problems whose prompts are scored together, and kept as a part of an unfinished record.
_TOGETHER = 64


@dataclasses.dataclass(frozen=True)
class AttributionConfig:
    """What is worked out about who contributed what.

    Attributes:
      kinds: "flips" is read off the answers, always, and asks no model; "influence" leaves out one
        message at a time, "shapley" plays the game of the agents (`arkjax.synthesis.influence`).
      problems: most problems about which the model is asked, those first in which right and wrong
        answers met; 0 takes all.
      exact_up_to: teams of at most so many agents have exact Shapley values, from 2^n coalitions.
      pairs: pairs of orders that are sampled for larger teams.
    """

    kinds: tuple[Kind, ...] = ("flips",)
    problems: int = 0
    exact_up_to: int = 6
    pairs: int = 32

    def __post_init__(self) -> None:
        unknown = [kind for kind in self.kinds if kind not in get_args(Kind)]
        if unknown or not self.kinds or len(set(self.kinds)) != len(self.kinds):
            raise ConfigError(
                f"synthesis.attribution.kinds is {self.kinds}: name at least one of "
                f"{', '.join(get_args(Kind))}, each once"
            )
        if self.problems < 0:
            raise ConfigError(
                f"synthesis.attribution.problems is {self.problems}: 0 takes all, or give a limit"
            )
        if not 1 <= self.exact_up_to <= 16:
            raise ConfigError(
                f"synthesis.attribution.exact_up_to is {self.exact_up_to}: expected 1 to 16, as "
                "there are 2^n coalitions of n agents"
            )
        if self.pairs < 2:
            raise ConfigError(
                f"synthesis.attribution.pairs is {self.pairs}: a standard error takes at least 2"
            )

    @property
    def asks_the_model(self) -> bool:
        """Whether a model has to score prompts."""
        return bool({"influence", "shapley"} & set(self.kinds))


@dataclasses.dataclass(frozen=True)
class _Asked:
    """What the model is asked about one debate."""

    readings: tuple[Reading, ...]
    with_influence: bool
    game: Game | None

    def pairs(self) -> Iterator[Pair]:
        if self.with_influence:
            yield from influence_pairs(self.readings)
        if self.game is not None:
            yield from self.game.asked()


def attribute(
    calls: Iterable[Call],
    spec: TeamSpec,
    answers: Mapping[str, str | None],
    grader: Grader,
    config: AttributionConfig,
    *,
    scorer: Scorer | None = None,
    end_id: int | None = None,
    longest: int | None = None,
    task: Task | None = None,
    scratch: Path | None = None,
) -> Attribution:
    """The credit of every message that counted, and of every agent in every debate.

    Args:
      calls: of one play, in any order.
      spec: the team.
      answers: the team's answer by problem id.
      grader: says when two answers are equal.
      config: what to work out.
      scorer: the model, if it is asked.
      end_id: the token that ends a message, likewise; None where they are shown without it.
      longest: the model's context in tokens; see `readings`.
      task: told how many problems are done.
      scratch: directory for what is done of a record that asks the model: after an interruption
        the same arguments go on from there. To be deleted by the caller, who keeps the whole.

    Raises:
      DataError: if a call is of an agent or a stage that the team does not have.
      StorageError: if `scratch` cannot be written.
    """
    by_problem: dict[str, list[Call]] = collections.defaultdict(list)
    for call in calls:
        by_problem[call.problem_id].append(call)
    names = sorted(by_problem)
    asking = _chosen(by_problem, config)
    parts = []
    for start in range(0, len(names), _TOGETHER):
        some = names[start : start + _TOGETHER]
        ask = [name for name in some if name in asking]
        place = scratch / f"{start:08d}" if scratch is not None and ask else None
        part = _done_before(place, some)
        if part is None:
            debates = {name: counted(by_problem[name], spec) for name in some}
            asked = {name: _asked(debates[name], config, end_id, longest) for name in ask}
            worths = _worths(asked.values(), scorer)
            credits = [
                _credits(debate, spec, answers.get(name), grader, asked.get(name), worths)
                for name, debate in debates.items()
            ]
            part = Attribution.of(
                (message for messages, _ in credits for message in messages),
                (agent for _, agents in credits for agent in agents),
            )
            if place is not None:
                part.save(place)
        parts.append(part)
        if task:
            task.advance(len(some))
    return Attribution.of(
        (message for part in parts for message in part.messages.values()),
        (agent for part in parts for agent in part.agents.values()),
    )


def counted(calls: Sequence[Call], spec: TeamSpec) -> list[Call]:
    """The messages of one debate that counted, in the order spoken: of repeated attempts the last.

    Args:
      calls: all calls of the debate.
      spec: the team.

    Raises:
      DataError: if a call is of an agent or a stage that the team does not have.
    """
    samples = {stage.name: stage.n_samples for stage in spec.stages}
    place = {agent.id: i for i, agent in enumerate(spec.agents)}
    for call in calls:
        if call.agent not in place or call.stage not in samples:
            raise DataError(
                f"call {call.call_id} is of agent {call.agent!r} in stage {call.stage!r}, which "
                f"team {spec.name!r} does not have: give the team that made the record"
            )

    def message(call: Call) -> tuple:
        # Repeated attempts are samples n, n + 1, ... beside the first ones 0 ... n - 1.
        return call.round, place[call.agent], call.sample % samples[call.stage]

    last: dict[tuple, int] = {}
    for call in calls:
        last[message(call)] = max(last.get(message(call), 0), call.sample)
    kept = [call for call in calls if call.sample == last[message(call)]]
    return sorted(kept, key=lambda c: (*message(c), c.step))


def _chosen(debates: Mapping[str, Sequence[Call]], config: AttributionConfig) -> set[str]:
    """The problems about which the model is asked."""
    if not config.asks_the_model:
        return set()

    def agreed(name: str) -> bool:
        return len({call.correct for call in debates[name] if call.correct is not None}) < 2

    ranked = sorted(debates, key=lambda name: (agreed(name), name))
    return set(ranked[: config.problems or None])


def _asked(
    calls: Sequence[Call], config: AttributionConfig, end_id: int | None, longest: int | None
) -> _Asked:
    of = readings(calls, end_id, longest)
    sizes = {"exact_up_to": config.exact_up_to, "pairs": config.pairs}
    played = game(of, calls, **sizes) if "shapley" in config.kinds else None
    return _Asked(tuple(of), "influence" in config.kinds, played)


def _worths(asked: Iterable[_Asked], scorer: Scorer | None) -> dict[Pair, float]:
    """The log-probability of every pair that any of the debates asks about."""
    pairs = list(dict.fromkeys(pair for each in asked for pair in each.pairs()))
    if not pairs:
        return {}
    scores = scorer(pairs)
    # In fp64, so that what is added up and taken off again leaves no trace.
    return {pair: float(np.sum(s, dtype=np.float64)) for pair, s in zip(pairs, scores, strict=True)}


def _credits(
    calls: Sequence[Call],
    spec: TeamSpec,
    answer: str | None,
    grader: Grader,
    asked: _Asked | None,
    worths: Mapping[Pair, float],
) -> tuple[list[MessageCredit], list[AgentCredit]]:
    """The records of one debate."""
    problem_id = calls[0].problem_id
    found = flips(calls, answer, grader.equal, spec.reducer.field)
    moved: dict[str, tuple[float, int]] = {}
    shares: Shapley | None = None
    if asked is not None:
        if asked.with_influence:
            moved = influences(asked.readings, worths.__getitem__)
        if asked.game is not None:
            shares = asked.game.solve(worths.__getitem__)
    messages = []
    of_agent: dict[str, list[float]] = collections.defaultdict(list)
    for call in calls:
        influence, readers = moved.get(call.call_id, (None, 0))
        credit = dataclasses.asdict(found.messages[call.call_id])
        place = (call.call_id, problem_id, call.agent, call.round)
        messages.append(MessageCredit(*place, **credit, influence=influence, readers=readers))
        if influence is not None:
            of_agent[call.agent].append(influence)
    agents = []
    for name, credit in found.agents.items():
        nats = of_agent.get(name)
        played = shares is not None and name in shares.values
        agents.append(
            AgentCredit(
                problem_id,
                name,
                **dataclasses.asdict(credit),
                influence=None if nats is None else math.fsum(nats),
                shapley=shares.values[name] if played else None,
                shapley_error=shares.errors[name] if played else None,
            )
        )
    return messages, agents


def _done_before(place: Path | None, names: Sequence[str]) -> Attribution | None:
    """The part that an interrupted command has left, if it is whole and of these problems."""
    if place is None or not place.exists():
        return None
    try:
        part = Attribution.load(place)
    except DataError:
        return None
    return part if {name for name, _ in part.agents} == set(names) else None
