"""What a team is: data only. A new multi-agent method is a config, never a class."""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

from arkjax.errors import ConfigError
from arkjax.storage import content_hash, plain
from arkjax.teams.fields import Fields, unknown_name, unwrapped
from arkjax.teams.primitives import Agent, Budget, Reducer, Repeat, Selector, Stage, Stop


@dataclasses.dataclass(frozen=True)
class TeamSpec:
    """A team: a bounded graph of calls, and how an answer comes out of it.

    Attributes:
      name: how the team is called in records and reports.
      agents: who there is; their order is the order of transcripts and of the tie rule.
      stages: what can be played.
      schedule: what is played: names of stages, and `Repeat` blocks of them.
      reducer: how the messages become one answer.
      stop: when a repeat ends early.
      budget: what one problem may cost.
      path: where the team stands in a config, for the messages of errors.

    Raises:
      ConfigError: if a part refers to what is not there, or the budget cannot hold the schedule.
    """

    name: str
    agents: tuple[Agent, ...]
    stages: tuple[Stage, ...]
    schedule: tuple[str | Repeat, ...]
    reducer: Reducer = Reducer()
    stop: Stop = Stop()
    budget: Budget = Budget()
    path: dataclasses.InitVar[str] = "team"

    def __post_init__(self, path: str) -> None:
        _check_agents(self, path)
        _check_stages(self, path)
        _check_schedule(self, path)
        _check_reducer(self, path)
        _check_budget(self, path)

    @classmethod
    def from_config(cls, cfg: Any, path: str = "config.team") -> "TeamSpec":
        """The team that a ConfigDict or dict describes.

        Raises:
          ConfigError: one line with the field's dotted path, what it holds and what it may hold.
        """
        names = [field.name for field in dataclasses.fields(cls)]
        f = Fields(unwrapped(cfg), path, names)
        schedule = []
        for at, item in f.items("schedule"):
            schedule.append(item if isinstance(item, str) else Repeat.read(item, at))
        return cls(
            name=f.text("name"),
            agents=tuple(Agent.read(item, at) for at, item in f.items("agents")),
            stages=tuple(Stage.read(item, at) for at, item in f.items("stages")),
            schedule=tuple(schedule),
            reducer=Reducer.read(f.raw("reducer", {}), f.at("reducer")),
            stop=Stop.read(f.raw("stop", {}), f.at("stop")),
            budget=Budget.read(f.raw("budget", {}), f.at("budget")),
            path=path,
        )

    def to_dict(self) -> dict[str, Any]:
        """The team as plain data, from which `from_config` makes an equal team."""
        data = plain(self)
        for item in data["schedule"]:
            if isinstance(item, dict):
                item["repeat"] = item.pop("stages")
        return data

    @functools.cached_property
    def hash(self) -> str:
        """SHA-256 of the team's content."""
        return content_hash(self.to_dict())

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the models that play the agents, each once."""
        return tuple(dict.fromkeys(agent.model for agent in self.agents))

    @property
    def uses_oracle(self) -> bool:
        """Whether the talk depends on the gold answer; a report must say so."""
        return self.stop.oracle

    def agent(self, name: str) -> Agent:
        """The agent of that id."""
        return next(agent for agent in self.agents if agent.id == name)

    def stage(self, name: str) -> Stage:
        """The stage of that name."""
        return next(stage for stage in self.stages if stage.name == name)

    def select(self, selector: Selector) -> tuple[str, ...]:
        """Ids of the selected agents: in the team's order, or in the order that lists them."""
        if selector == "all":
            return tuple(agent.id for agent in self.agents)
        if isinstance(selector, str):
            tag = selector.removeprefix("tag:")
            return tuple(agent.id for agent in self.agents if tag in agent.tags)
        return selector

    @functools.cached_property
    def voters(self) -> tuple[str, ...]:
        """Ids of the agents whose answers count in votes and stop conditions."""
        judge = self.reducer.agent if self.reducer.kind == "judge" else None
        return tuple(name for name in self.select(self.reducer.voters) if name != judge)

    def unrolled(self, *, longest: bool) -> Iterator[Stage]:
        """The stages of the longest or the shortest possible play, in order."""
        for item in self.schedule:
            if isinstance(item, str):
                yield self.stage(item)
                continue
            for _ in range(item.max if longest else item.min):
                yield from map(self.stage, item.stages)

    def cost(self, stage: Stage) -> Budget:
        """The most calls and generated tokens that playing a stage once can take."""
        speakers = [self.agent(name) for name in self.select(stage.speakers)]
        each = stage.n_samples * stage.attempts
        tokens = sum(agent.sampling.max_tokens for agent in speakers)
        return Budget(calls=each * len(speakers), tokens=each * tokens)


def total(costs: Any) -> Budget:
    """The sum of costs."""
    costs = list(costs)
    return Budget(sum(cost.calls for cost in costs), sum(cost.tokens for cost in costs))


def _check_agents(spec: TeamSpec, path: str) -> None:
    if not spec.name:
        raise ConfigError(f"{path}.name is empty")
    if not spec.agents:
        raise ConfigError(f"{path}.agents is empty: a team needs an agent")
    _unique([agent.id for agent in spec.agents], f"{path}.agents", "id")
    _unique([stage.name for stage in spec.stages], f"{path}.stages", "name")


def _check_stages(spec: TeamSpec, path: str) -> None:
    for i, stage in enumerate(spec.stages):
        at = f"{path}.stages[{i}]"
        _check_selector(spec, stage.speakers, f"{at}.speakers")
        view = stage.view
        named = [
            *(("hub", name) for name in [view.hub] if name),
            *((f"edges[{j}]", name) for j, edge in enumerate(view.edges) for name in edge),
            *((f"groups[{j}]", name) for j, group in enumerate(view.groups) for name in group),
        ]
        for field, name in named:
            _check_agent(spec, name, f"{at}.view.{field}")
        if view.show == "answer" and all(stage.parser == "none" for stage in spec.stages):
            raise ConfigError(f"{at}.view.show is 'answer', but no stage's parser reads an answer")
        if stage.n_samples > 1:
            for name in spec.select(stage.speakers):
                if spec.agent(name).sampling.temperature == 0:
                    raise ConfigError(
                        f"{at}.n_samples is {stage.n_samples}, but agent {name!r} samples at"
                        " temperature 0: all samples would be equal; raise its temperature"
                    )


def _check_schedule(spec: TeamSpec, path: str) -> None:
    names = [stage.name for stage in spec.stages]
    for i, item in enumerate(spec.schedule):
        at = f"{path}.schedule[{i}]"
        for name in (item,) if isinstance(item, str) else item.stages:
            if name not in names:
                raise unknown_name(at, name, names, "stage")
    if not any(True for _ in spec.unrolled(longest=True)):
        raise ConfigError(f"{path}.schedule plays no stage: name at least one")


def _check_reducer(spec: TeamSpec, path: str) -> None:
    reducer, at = spec.reducer, f"{path}.reducer"
    if reducer.agent:
        _check_agent(spec, reducer.agent, f"{at}.agent")
    _check_selector(spec, reducer.voters, f"{at}.voters")
    if reducer.kind == "all":
        return
    heard = spec.voters
    if reducer.kind in ("judge", "last") and reducer.agent:
        heard = (reducer.agent,)
    played = list(spec.unrolled(longest=True))
    stages = [stage for stage in played if set(heard) & set(spec.select(stage.speakers))]
    if not stages:
        listed = ", ".join(heard)
        raise ConfigError(f"{at} needs {listed} to speak, but no stage of the schedule lets them")
    parsed = sorted({field for stage in stages for field in stage.fields})
    for place, field in (("field", reducer.field), ("weight", reducer.weight)):
        if field and field not in parsed:
            raise ConfigError(
                f"{at}.{place} is {field!r}, which no parser of the stages where these agents speak"
                f" reads; they read: {', '.join(parsed) or 'nothing'}"
            )


def _check_budget(spec: TeamSpec, path: str) -> None:
    least = total(spec.cost(stage) for stage in spec.unrolled(longest=False))
    for field in ("calls", "tokens"):
        given, needed = getattr(spec.budget, field), getattr(least, field)
        if given and given < needed:
            raise ConfigError(
                f"{path}.budget.{field} is {given}: one pass of the schedule can take {needed}"
            )


def _check_selector(spec: TeamSpec, selector: Selector, path: str) -> None:
    if isinstance(selector, str) and selector.startswith("tag:"):
        tags = {tag for agent in spec.agents for tag in agent.tags}
        if selector.removeprefix("tag:") not in tags:
            raise unknown_name(path, selector.removeprefix("tag:"), tags, "tag")
    if not spec.select(selector):
        raise ConfigError(f"{path} is empty: name at least one agent")
    for name in spec.select(selector):
        _check_agent(spec, name, path)
    _unique(list(spec.select(selector)), path, "agent")


def _check_agent(spec: TeamSpec, name: str, path: str) -> None:
    names = [agent.id for agent in spec.agents]
    if name not in names:
        raise unknown_name(path, name, names, "agent")


def _unique(names: list[str], path: str, what: str) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"{path}: the {what} {twice[0]!r} stands there more than once")
