"""What a team is made of, as data: agents, stages, views, repeats, reducer, stop and budget."""

import dataclasses
import re
from typing import Any

from arkjax.errors import ConfigError
from arkjax.sampling.params import SamplingParams
from arkjax.teams.fields import Fields
from arkjax.teams.parsers import PARSERS, check_pattern

GRAPHS = ("full", "none", "self", "ring", "star", "chain", "edges", "groups")
REDUCERS = ("vote", "weighted_vote", "judge", "last", "best", "all")
TIES = ("first", "lowest", "plurality_then_first")

Selector = str | tuple[str, ...]
"""Some agents: "all", "tag:NAME", or their ids."""


def _names(cls: type) -> list[str]:
    return [field.name for field in dataclasses.fields(cls)]


@dataclasses.dataclass(frozen=True)
class Agent:
    """Who speaks.

    Attributes:
      id: unique in the team, and part of the seed of every call of this agent.
      role: byline or role text; the chat template makes the header of a turn from it.
      tags: names by which stages, views and reducers can select several agents.
      model: name of the model that plays this agent.
      sampling: how its tokens are drawn; with empty `stop_ids` the chat's end token ends a call.
      seed_offset: added to the run's seed, so that twins with one id can be made to differ.
    """

    id: str
    role: str
    tags: tuple[str, ...] = ()
    model: str = "policy"
    sampling: SamplingParams = SamplingParams()
    seed_offset: int = 0

    @classmethod
    def read(cls, data: Any, path: str) -> "Agent":
        """An agent from its config. Raises ConfigError."""
        f = Fields(data, path, _names(cls))
        name = f.text("id")
        return cls(
            id=name,
            role=f.text("role", name),
            tags=f.texts("tags", ()),
            model=f.text("model", "policy"),
            sampling=_read_sampling(f.raw("sampling", {}), f.at("sampling")),
            seed_offset=f.number("seed_offset", 0, low=0),
        )


@dataclasses.dataclass(frozen=True)
class View:
    """Who sees which earlier messages, and in what form.

    Attributes:
      graph: `full` everybody; `none` nobody; `self` only oneself; `ring` the `k` neighbours on
        either side, in the order of the stage's speakers; `star` the hub sees all and is seen by
        all; `chain` the speaker before oneself; `edges` the listed (from, to) pairs; `groups` the
        members of one's own groups.
      k: how far a ring reaches.
      hub: agent in the middle of a star.
      edges: (from, to) pairs of agent ids.
      groups: lists of agent ids.
      rounds: `last` shows the latest round of each author, `window` the latest `window`, `all` all.
      window: number of rounds that `rounds="window"` shows.
      own: whether an agent sees its own messages too.
      show: `full` messages word for word, or the `answer` only, as a turn of its author; an author
        whose answer could not be parsed then shows nothing.
      order: authors within a round in the order of the team (`agents`), or `shuffled`, alike for
        all viewers of a round.
      layout: `transcript_first` puts the role after the transcript, so that all agents with the
        same view share one prefix; `role_first` announces it before, as an ablation.
    """

    graph: str = "full"
    k: int = 1
    hub: str = ""
    edges: tuple[tuple[str, str], ...] = ()
    groups: tuple[tuple[str, ...], ...] = ()
    rounds: str = "last"
    window: int = 1
    own: bool = True
    show: str = "full"
    order: str = "agents"
    layout: str = "transcript_first"

    @classmethod
    def read(cls, data: Any, path: str) -> "View":
        """A view from its config; a bare graph name will do. Raises ConfigError."""
        f = Fields({"graph": data} if isinstance(data, str) else data, path, _names(cls))
        view = cls(
            graph=f.choice("graph", GRAPHS, "full"),
            k=f.number("k", 1, low=1),
            hub=f.text("hub", ""),
            edges=tuple(_read_ids(item, at, 2) for at, item in f.items("edges", ())),
            groups=tuple(_read_ids(item, at) for at, item in f.items("groups", ())),
            rounds=f.choice("rounds", ("last", "window", "all"), "last"),
            window=f.number("window", 1, low=1),
            own=f.flag("own", True),
            show=f.choice("show", ("full", "answer"), "full"),
            order=f.choice("order", ("agents", "shuffled"), "agents"),
            layout=f.choice("layout", ("transcript_first", "role_first"), "transcript_first"),
        )
        needed = {"star": "hub", "edges": "edges", "groups": "groups"}.get(view.graph)
        if needed and not getattr(view, needed):
            raise ConfigError(f"{f.at(needed)} is missing: the graph {view.graph!r} needs it")
        return view


@dataclasses.dataclass(frozen=True)
class Stage:
    """A round of talk: some agents speak, each having seen what its view allows.

    Attributes:
      name: unique in the team; part of every call's id.
      speakers: who speaks, in the order of the team's agents, or of the ids listed here.
      order: `parallel`: nobody hears this round; `sequential`: one after the other.
      view: who sees which earlier messages.
      n_samples: calls of each speaker.
      parser: how the answer is read; see `arkjax.teams.parsers`.
      pattern: of the `regex` parser; its named groups are the fields, else it reads `answer`.
      choices: letters that the `choice` parser knows.
      on_parse_failure: `keep` the message without an answer, `resample` up to `resamples` times
        (every attempt is recorded, the last one counts), or use `default` as the answer.
      resamples: most repeated attempts.
      default: the answer that stands in for one that could not be parsed.
      seed_group: name that seeds are derived from, by default the stage's own; stages of different
        teams that share it draw alike.
      instruction: text added to the speakers' headers in this stage, unseen by later readers.
    """

    name: str
    speakers: Selector = "all"
    order: str = "parallel"
    view: View = View()
    n_samples: int = 1
    parser: str = "task"
    pattern: str = ""
    choices: str = "ABCDE"
    on_parse_failure: str = "keep"
    resamples: int = 0
    default: str = ""
    seed_group: str = ""
    instruction: str = ""

    @property
    def seed_key(self) -> str:
        """The name that seeds are derived from."""
        return self.seed_group or self.name

    @property
    def attempts(self) -> int:
        """Most calls that one sample may take."""
        return 1 + (self.resamples if self.on_parse_failure == "resample" else 0)

    @property
    def fields(self) -> tuple[str, ...]:
        """Names that the parser can fill."""
        if self.parser == "none":
            return ()
        if self.parser == "regex":
            return tuple(re.compile(self.pattern).groupindex) or ("answer",)
        return ("answer",)

    @classmethod
    def read(cls, data: Any, path: str) -> "Stage":
        """A stage from its config. Raises ConfigError."""
        f = Fields(data, path, _names(cls))
        stage = cls(
            name=f.text("name"),
            speakers=f.selector("speakers"),
            order=f.choice("order", ("parallel", "sequential"), "parallel"),
            view=View.read(f.raw("view", {}), f.at("view")),
            n_samples=f.number("n_samples", 1, low=1),
            parser=f.choice("parser", PARSERS, "task"),
            pattern=f.text("pattern", ""),
            choices=f.text("choices", "ABCDE"),
            on_parse_failure=f.choice("on_parse_failure", ("keep", "resample", "default"), "keep"),
            resamples=f.number("resamples", 0, low=0),
            default=f.text("default", ""),
            seed_group=f.text("seed_group", ""),
            instruction=f.text("instruction", ""),
        )
        if not stage.choices.isalpha():
            raise ConfigError(f"{f.at('choices')} is {stage.choices!r}: expected letters")
        if stage.parser == "regex":
            check_pattern(stage.pattern, f.at("pattern"))
        if stage.on_parse_failure == "resample" and not stage.resamples:
            raise ConfigError(f"{f.at('resamples')} is 0: say how often a failed call is repeated")
        return stage


@dataclasses.dataclass(frozen=True)
class Repeat:
    """Stages of the schedule that are played several times: at least `min`, at most `max`."""

    stages: tuple[str, ...]
    max: int
    min: int = 1

    @classmethod
    def read(cls, data: Any, path: str) -> "Repeat":
        """A repeat block, `{"repeat": [...], "max": n, "min": n}`. Raises ConfigError."""
        f = Fields(data, path, ("repeat", "max", "min"))
        stages = f.texts("repeat")
        if not stages:
            raise ConfigError(f"{f.at('repeat')} is empty: name the stages to repeat")
        if f.raw("max", None) is None:
            raise ConfigError(f"{f.at('max')} is missing: a repeat without a bound may never end")
        most = f.number("max", low=0)
        least = f.number("min", min(1, most), low=0)
        if least > most:
            raise ConfigError(f"{f.at('min')} is {least}: it must not exceed max = {most}")
        return cls(stages, most, least)


@dataclasses.dataclass(frozen=True)
class Reducer:
    """How many messages become one answer.

    Attributes:
      kind: `vote`: the answer that most voters give; `weighted_vote`: the one with the largest sum
        of `weight`; `judge`: what `agent` said last; `last`: the last answer of anybody, or of
        `agent`; `best`: the answer with the largest `weight`; `all`: no answer, the calls are kept.
      agent: the judge, or whose last answer counts.
      field: the parsed field that is the answer.
      weight: the parsed field that is a message's weight; what is not a number weighs 0.
      voters: whose answers count; each votes with all its samples of the last round it spoke in.
        A judge does not vote.
      tie: which of the answers with equally many votes wins. `first`: the one stated first in
        the team's order; `lowest`: the smallest number, or the first in the alphabet where not all
        are numbers; `plurality_then_first`: the one stated most often over all rounds, then first.
    """

    kind: str = "vote"
    agent: str = ""
    field: str = "answer"
    weight: str = ""
    voters: Selector = "all"
    tie: str = "first"

    @classmethod
    def read(cls, data: Any, path: str) -> "Reducer":
        """A reducer from its config; a bare kind will do. Raises ConfigError."""
        f = Fields({"kind": data} if isinstance(data, str) else data, path, _names(cls))
        reducer = cls(
            kind=f.choice("kind", REDUCERS, "vote"),
            agent=f.text("agent", ""),
            field=f.text("field", "answer"),
            weight=f.text("weight", ""),
            voters=f.selector("voters"),
            tie=f.choice("tie", TIES, "first"),
        )
        if reducer.kind == "judge" and not reducer.agent:
            raise ConfigError(f"{f.at('agent')} is missing: name the agent that judges")
        if reducer.kind in ("weighted_vote", "best") and not reducer.weight:
            raise ConfigError(f"{f.at('weight')} is missing: {reducer.kind} compares that field")
        return reducer


@dataclasses.dataclass(frozen=True)
class Stop:
    """When a repeat block ends before its `max`: as soon as any condition that is set holds.

    Attributes:
      rounds: this many stages have been played in all; 0 is not set.
      agree: this share of the voters gives the same answer; those without one count as dissent.
      unchanged: no voter's answer changed over its last so many rounds.
      oracle: the team's answer is the gold one. It looks at the gold answer, so every report of
        such a team says so.
    """

    rounds: int = 0
    agree: float = 0.0
    unchanged: int = 0
    oracle: bool = False

    @classmethod
    def read(cls, data: Any, path: str) -> "Stop":
        """Stop conditions from their config. Raises ConfigError."""
        f = Fields(data, path, _names(cls))
        agree = f.number("agree", 0.0, low=0, kind=float)
        if agree > 1:
            raise ConfigError(f"{f.at('agree')} is {agree}: it is a share, at most 1")
        return cls(
            rounds=f.number("rounds", 0, low=0),
            agree=agree,
            unchanged=f.number("unchanged", 0, low=0),
            oracle=f.flag("oracle", False),
        )


@dataclasses.dataclass(frozen=True)
class Budget:
    """What one problem may cost at most; 0 is no limit. A repeat that does not fit is not played.

    Attributes:
      calls: generations, repeated attempts included.
      tokens: generated tokens; a call is charged `max_tokens` before it is made.
    """

    calls: int = 0
    tokens: int = 0

    @classmethod
    def read(cls, data: Any, path: str) -> "Budget":
        """A budget from its config. Raises ConfigError."""
        f = Fields(data, path, _names(cls))
        return cls(calls=f.number("calls", 0, low=0), tokens=f.number("tokens", 0, low=0))


def _read_sampling(data: Any, path: str) -> SamplingParams:
    f = Fields(data, path, _names(SamplingParams))
    stop_ids = f.items("stop_ids", ())
    if not all(isinstance(token, int) and token >= 0 for _, token in stop_ids):
        raise ConfigError(f"{f.at('stop_ids')} must hold token ids")
    stop = f.items("stop", ())
    if not all(isinstance(text, str) and text for _, text in stop):
        raise ConfigError(f"{f.at('stop')} must hold texts")
    low = float("-inf")
    try:
        return SamplingParams(
            temperature=f.number("temperature", 1.0, low=low, kind=float),
            top_k=f.number("top_k", 0, low=low),
            top_p=f.number("top_p", 1.0, low=low, kind=float),
            min_p=f.number("min_p", 0.0, low=low, kind=float),
            max_tokens=f.number("max_tokens", 64, low=low),
            stop_ids=tuple(token for _, token in stop_ids),
            stop=tuple(text for _, text in stop),
            top_logprobs=f.number("top_logprobs", 0, low=low),
        )
    except ConfigError as error:
        # SamplingParams knows its fields as "sampling.x", not where they stand in the team.
        message = str(error)
        if message.startswith("sampling."):
            message = path.removesuffix("sampling") + message
        raise ConfigError(message) from None


def _read_ids(item: Any, path: str, count: int | None = None) -> tuple[str, ...]:
    fits = isinstance(item, list | tuple) and all(isinstance(name, str) for name in item)
    if not fits or (count is not None and len(item) != count):
        raise ConfigError(f"{path} is {item!r}: expected a list of {count or 'some'} agent ids")
    return tuple(item)
