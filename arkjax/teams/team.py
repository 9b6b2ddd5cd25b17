"""The parts of a team put together, and what follows from them: who speaks when, and the costs."""

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Sequence

from arkjax.storage import added
from arkjax.teams.bounds import Play, plays
from arkjax.teams.primitives import Agent, Chosen, Selector, Stage
from arkjax.teams.rules import DECIDERS, Budget, Item, Reducer, Stop, ToolUse


@dataclasses.dataclass(frozen=True)
class Team:
    """A team as it is described; `TeamSpec` is one that has been checked.

    Attributes:
      name: how the team is called in records and reports.
      agents: who there is; their order is the order of transcripts and of the tie rule.
      stages: what can be played.
      schedule: what is played: names of stages, and `Repeat` blocks of them.
      reducer: how the messages become one answer.
      stop: when a repeat ends early.
      budget: what one problem may cost.
      tools: what agents may use; see `arkjax.tools`.
    """

    name: str
    agents: tuple[Agent, ...]
    stages: tuple[Stage, ...]
    schedule: tuple[Item, ...]
    reducer: Reducer = Reducer()
    stop: Stop = Stop()
    budget: Budget = Budget()
    tools: tuple[ToolUse, ...] = added(())

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the models that play the agents, each once."""
        return tuple(dict.fromkeys(agent.model for agent in self.agents if not agent.tool))

    @functools.cached_property
    def stops(self) -> tuple[Stop, ...]:
        """All stop rules: the team's, and those of its repeats."""
        return (self.stop, *(item.stop for item in _repeats(self.schedule) if item.stop))

    @property
    def uses_oracle(self) -> bool:
        """Whether the talk depends on the gold answer; a report must say so."""
        return any(stop.oracle for stop in self.stops)

    @functools.cached_property
    def ids(self) -> tuple[str, ...]:
        """The agents' ids, in the team's order."""
        return tuple(agent.id for agent in self.agents)

    @functools.cached_property
    def _agents(self) -> dict[str, Agent]:
        return {agent.id: agent for agent in self.agents}

    @functools.cached_property
    def _stages(self) -> dict[str, Stage]:
        return {stage.name: stage for stage in self.stages}

    def agent(self, name: str) -> Agent:
        """The agent of that id."""
        return self._agents[name]

    def stage(self, name: str) -> Stage:
        """The stage of that name."""
        return self._stages[name]

    def select(self, selector: Selector | Chosen) -> tuple[str, ...]:
        """Ids of the selected agents: in the team's order, or in the order that lists them.

        Of speakers that are yet to be chosen, all who can be.
        """
        if isinstance(selector, Chosen):
            return self.select(selector.among)
        if selector == "all":
            return self.ids
        if isinstance(selector, str):
            tag = selector.removeprefix("tag:")
            return tuple(agent.id for agent in self.agents if tag in agent.tags)
        return selector

    @functools.cached_property
    def voters(self) -> tuple[str, ...]:
        """Ids of the agents whose answers count in votes and stop conditions."""
        decider = self.reducer.agent if self.reducer.kind in DECIDERS else None
        return tuple(name for name in self.select(self.reducer.voters) if name != decider)

    def plays(
        self, items: Sequence[Item] | None = None, certain: bool = True
    ) -> Iterator[tuple[Stage, bool]]:
        """The stages of the longest possible play in order, each with whether every play has it.

        Args:
          items: what is played; by default the whole schedule.
          certain: whether every play comes to them.
        """
        for item in self.schedule if items is None else items:
            if isinstance(item, str):
                yield self.stage(item), certain
                continue
            for number in range(item.max):
                yield from self.plays(item.stages, certain and number < item.min)

    def unrolled(self, *, longest: bool, items: Sequence[Item] | None = None) -> Iterator[Stage]:
        """The stages of the longest or the shortest possible play, in order.

        Args:
          longest: which of the two.
          items: what is played; by default the whole schedule.
        """
        for item in self.schedule if items is None else items:
            if isinstance(item, str):
                yield self.stage(item)
                continue
            for _ in range(item.max if longest else item.min):
                yield from self.unrolled(longest=longest, items=item.stages)

    def speaking(self, stage: Stage) -> int:
        """How many agents speak in a stage at most."""
        pool = self.select(stage.speakers)
        return (
            min(stage.speakers.top, len(pool)) if isinstance(stage.speakers, Chosen) else len(pool)
        )

    def most_tokens(self, author: str, stage: str) -> int:
        """The most tokens that an agent can say at once in a stage, without an end token."""
        agent = self.agent(author)
        return self.stage(stage).result_tokens if agent.tool else agent.sampling.max_tokens

    @functools.cached_property
    def _costs(self) -> dict[str, Budget]:
        once = (Play(s, {}, dict.fromkeys(self.select(s.speakers), 1)) for s in self.stages)
        costs = {play.stage.name: self._cost(play) for play in once}
        # How often a speaker is asked depends on what it hears only where it is asked by message.
        for play in plays(self) if any(stage.each for stage in self.stages) else ():
            most, cost = costs[play.stage.name], self._cost(play)
            costs[play.stage.name] = Budget(
                max(most.calls, cost.calls), max(most.tokens, cost.tokens)
            )
        return costs

    def cost(self, stage: Stage) -> Budget:
        """The most calls and generated tokens that playing a stage once can take."""
        return self._costs[stage.name]

    def _cost(self, play: Play) -> Budget:
        stage = play.stage
        each = stage.n_samples * stage.attempts * stage.steps
        agents = [self.agent(name) for name in play.asked]
        calls = [each * play.asked[agent.id] for agent in agents if not agent.tool]
        tokens = [
            each * play.asked[agent.id] * agent.sampling.max_tokens
            for agent in agents
            if not agent.tool
        ]
        top = self.speaking(stage)
        return Budget(
            calls=sum(sorted(calls, reverse=True)[:top]),
            tokens=sum(sorted(tokens, reverse=True)[:top]),
        )


def total(costs: Iterable[Budget]) -> Budget:
    """The sum of costs in calls and tokens."""
    costs = list(costs)
    return Budget(sum(cost.calls for cost in costs), sum(cost.tokens for cost in costs))


def _repeats(items: Sequence[Item]) -> Iterator:
    for item in items:
        if not isinstance(item, str):
            yield item
            yield from _repeats(item.stages)
