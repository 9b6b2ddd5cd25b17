"""What a team is made of, as data: its agents, its stages, and who hears whom."""

import dataclasses
from typing import Any

from arkjax.errors import ConfigError
from arkjax.sampling.params import SamplingParams
from arkjax.storage import added
from arkjax.teams.fields import Fields, unknown_name
from arkjax.teams.parsers import PARSERS, check_pattern, fields_of

GRAPHS = (
    "full", "none", "self", "ring", "star", "chain", "before", "tree", "layer", "edges", "groups",
    "random", "matrix",
)  # fmt: skip
ORDERS = ("parallel", "sequential", "shuffled", "graph")
WHOLE, NO_THINK = SHOWS = ("full", "no_think")
"""What a view can show of a message beside its parsed fields."""

# What a graph needs.
_NEEDS = {"hub": "star", "edges": "edges", "groups": "groups", "matrix": "matrix"}

Selector = str | tuple[str, ...]
"""Some agents: "all", "tag:NAME", or their ids."""


def names_of(cls: type) -> list[str]:
    """The names of a dataclass's fields."""
    return [field.name for field in dataclasses.fields(cls)]


@dataclasses.dataclass(frozen=True)
class Agent:
    """Who speaks.

    Attributes:
      id: unique in the team, and part of the seed of every call of this agent.
      role: what the agent is told about itself; a single word is its byline as well.
      tags: names by which stages, views and reducers can select several agents.
      model: name of the model that plays this agent.
      sampling: how its tokens are drawn; with empty `stop_ids` the chat's end tokens end a call.
      seed_offset: added to the run's seed, so that twins with one id can be made to differ.
      byline: the name under which others read it; by default the role if that is a single word,
        else the id.
      role_from: fields, written "stage.field", in which other agents write this one's role: the
        latest that has been said counts, and `role` until there is one.
      tool: name of the tool that speaks in its place: what it answers to the messages that the
        agent reads is its message.
    """

    id: str
    role: str
    tags: tuple[str, ...] = ()
    model: str = "policy"
    sampling: SamplingParams = SamplingParams()
    seed_offset: int = 0
    byline: str = added("")
    role_from: tuple[str, ...] = added(())
    tool: str = added("")

    @property
    def name(self) -> str:
        """The byline."""
        return self.byline or (self.role if len(self.role.split()) == 1 else self.id)

    @classmethod
    def read(cls, data: Any, path: str) -> "Agent":
        """An agent from its config. Raises ConfigError."""
        f = Fields(data, path, names_of(cls))
        name = f.text("id")
        return cls(
            id=name,
            role=f.text("role", name),
            tags=f.texts("tags", ()),
            model=f.text("model", "policy"),
            sampling=_read_sampling(f.raw("sampling", {}), f.at("sampling")),
            seed_offset=f.number("seed_offset", 0, low=0),
            byline=f.text("byline", ""),
            role_from=f.texts("role_from", ()),
            tool=f.text("tool", ""),
        )


@dataclasses.dataclass(frozen=True)
class View:
    """Who sees which earlier messages, and in what form.

    Attributes:
      graph: `full` everybody; `none` nobody; `self` only oneself; `star` the hub sees all and is
        seen by all; `edges` the listed (from, to) pairs; `groups` the members of one's own groups;
        `random` each other agent with probability `p`; `matrix` what it says. The others go by
        the order of the stage's speakers: `ring` the `k` neighbours on either side; `chain` the
        speaker before oneself; `before` all speakers before oneself; `tree` parent and children,
        `k` of them each; `layer` the layer before, `k` speakers wide.
      k: how far a ring reaches, how many children a node of a tree has, how wide a layer is.
      hub: agent in the middle of a star.
      edges: (from, to) pairs of agent ids.
      groups: lists of agent ids.
      rounds: `last` shows the latest round of each author, `window` the latest `window`, `all` all.
      window: number of rounds that `rounds="window"` shows.
      own: whether an agent sees its own messages too.
      show: `full` messages word for word; `no_think` without what stands before "</think>"; or the
        name of a parsed field, such as `answer`, alone, as a turn of its author: an author in whose
        message it could not be read then shows nothing.
      order: authors within a round in the order of the team (`agents`), or `shuffled`, alike for
        all viewers of a round.
      layout: `transcript_first` puts the role after the transcript, so that all agents with the
        same view share one prefix; `role_first` announces it before, as an ablation.
      authors: whose messages can be seen at all.
      stages: names of the stages whose messages can be seen; empty is all.
      p, seed: of a random graph, which is the same in all rounds and problems.
      matrix: [round, to, from], 1 where agent `to` sees agent `from`, in the team's order; the
        stage's first play takes the first round's, and those after the last one take the last.
      pick: of the messages that could be seen `all`; the `best` one by the field `pick_by`; or the
        `next` best one each time that the stage is played.
      pick_by: a field that is a number: its own, or as "stage.field" what was said of it there by
        those who were shown it.
      anonymous: authors are called "agent 1", "agent 2", by their place in the team.
    """

    graph: str = "full"
    k: int = 1
    hub: str = ""
    edges: tuple[tuple[str, str], ...] = ()
    groups: tuple[tuple[str, ...], ...] = ()
    rounds: str = "last"
    window: int = 1
    own: bool = True
    show: str = WHOLE
    order: str = "agents"
    layout: str = "transcript_first"
    authors: Selector = added("all")
    stages: tuple[str, ...] = added(())
    p: float = added(0.5)
    seed: int = added(0)
    matrix: tuple[tuple[tuple[bool, ...], ...], ...] = added(())
    pick: str = added("all")
    pick_by: str = added("")
    anonymous: bool = added(False)

    @classmethod
    def read(cls, data: Any, path: str) -> "View":
        """A view from its config; a bare graph name will do. Raises ConfigError."""
        f = Fields({"graph": data} if isinstance(data, str) else data, path, names_of(cls))
        view = cls(
            graph=f.choice("graph", GRAPHS, "full"),
            k=f.number("k", 1, low=1),
            hub=f.text("hub", ""),
            edges=tuple(_read_ids(item, at, 2) for at, item in f.items("edges", ())),
            groups=tuple(_read_ids(item, at) for at, item in f.items("groups", ())),
            rounds=f.choice("rounds", ("last", "window", "all"), "last"),
            window=f.number("window", 1, low=1),
            own=f.flag("own", True),
            show=f.text("show", WHOLE),
            order=f.choice("order", ("agents", "shuffled"), "agents"),
            layout=f.choice("layout", ("transcript_first", "role_first"), "transcript_first"),
            authors=f.selector("authors"),
            stages=f.texts("stages", ()),
            p=f.number("p", 0.5, low=0, kind=float),
            seed=f.number("seed", 0, low=0),
            matrix=tuple(_read_matrix(item, at) for at, item in f.items("matrix", ())),
            pick=f.choice("pick", ("all", "best", "next"), "all"),
            pick_by=f.text("pick_by", ""),
            anonymous=f.flag("anonymous", False),
        )
        for field, graph in _NEEDS.items():
            if view.graph == graph and not getattr(view, field):
                raise ConfigError(f"{f.at(field)} is missing: the graph {view.graph!r} needs it")
            if view.graph == "full" and getattr(view, field):
                raise ConfigError(
                    f"{f.at(field)} is set, but the graph is 'full', which shows everybody: set"
                    f" graph to {graph!r}, or leave it out"
                )
        if view.pick != "all" and not view.pick_by:
            raise ConfigError(f"{f.at('pick_by')} is missing: name the field that is compared")
        if view.p > 1:
            raise ConfigError(f"{f.at('p')} is {view.p}: it is a probability, at most 1")
        return view


@dataclasses.dataclass(frozen=True)
class Chosen:
    """Speakers that an earlier message names.

    Attributes:
      by: the field that names them, "stage.field": ids, bylines, or places in `among` counted from
        1, several as a list; what was said when it was last asked for counts.
      among: who can be named.
      top: how many of those named speak, in the order that names them.
      default: who speaks in place of a choice that could not be read; by default the first ones
        of `among` who have spoken least.
    """

    by: str
    among: Selector = "all"
    top: int = 1
    default: str = ""

    @classmethod
    def read(cls, data: Any, path: str) -> "Chosen":
        """A choice from its config. Raises ConfigError."""
        f = Fields(data, path, names_of(cls))
        return cls(
            by=f.text("by"),
            among=f.selector("among"),
            top=f.number("top", 1, low=1),
            default=f.text("default", ""),
        )


@dataclasses.dataclass(frozen=True)
class Stage:
    """A round of talk: some agents speak, each having seen what its view allows.

    Attributes:
      name: unique in the team; part of every call's id.
      speakers: who speaks, in the order of the team's agents, or of the ids listed here, or as an
        earlier message has `Chosen`.
      order: `parallel`: nobody hears this round; `sequential`: one after the other; `shuffled`: the
        same in an order drawn anew each time; `graph`: each as soon as all have spoken whom its
        view lets it hear.
      view: who sees which earlier messages.
      n_samples: calls of each speaker.
      parser: how fields are read, several joined by "+"; see `arkjax.teams.parsers`.
      pattern: of the `regex` parser; its named groups are the fields, else it reads `answer`.
      choices: letters that the `choice` parser knows.
      on_parse_failure: `keep` the message without an answer, `resample` up to `resamples` times
        (every attempt is recorded, the last one counts), or use `default` as the first field.
      resamples: most repeated attempts.
      default: what stands in for a first field that could not be read, mostly the answer.
      seed_group: name that seeds are derived from, by default the stage's own; stages of different
        teams that share it draw alike.
      instruction: text added to the speakers' headers in this stage, unseen by later readers.
      optional: fields that a message need not have to count as read, such as a mark of the end.
      keys: of the parsers `json` and `fields`: the fields.
      each: `message`: a speaker is asked once for every message that it could see, and sees that
        one only.
      tools: names of the team's tools that the speakers may call.
      tool_calls: most calls of tools in one turn.
      result_tokens: most tokens of what a tool answers; the rest is cut off.
    """

    name: str
    speakers: Selector | Chosen = "all"
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
    keys: tuple[str, ...] = added(())
    optional: tuple[str, ...] = added(())
    each: str = added("")
    tools: tuple[str, ...] = added(())
    tool_calls: int = added(3)
    result_tokens: int = added(256)

    @property
    def seed_key(self) -> str:
        """The name that seeds are derived from."""
        return self.seed_group or self.name

    @property
    def attempts(self) -> int:
        """Most calls that one sample may take, those of a turn with tools counted once."""
        return 1 + (self.resamples if self.on_parse_failure == "resample" else 0)

    @property
    def steps(self) -> int:
        """Most generations of one turn."""
        return 1 + (self.tool_calls if self.tools else 0)

    @property
    def parsers(self) -> tuple[str, ...]:
        """The parsers, in order."""
        return tuple(part.strip() for part in self.parser.split("+"))

    @property
    def fields(self) -> tuple[str, ...]:
        """Names that the parsers can fill."""
        named = (fields_of(kind, self.pattern, self.keys) for kind in self.parsers)
        return tuple(dict.fromkeys(field for fields in named for field in fields))

    @classmethod
    def read(cls, data: Any, path: str) -> "Stage":
        """A stage from its config. Raises ConfigError."""
        f = Fields(data, path, names_of(cls))
        speakers = f.raw("speakers", "all")
        stage = cls(
            name=f.text("name"),
            speakers=(
                Chosen.read(speakers, f.at("speakers"))
                if isinstance(speakers, dict)
                else f.selector("speakers")
            ),
            order=f.choice("order", ORDERS, "parallel"),
            view=View.read(f.raw("view", {}), f.at("view")),
            n_samples=f.number("n_samples", 1, low=1),
            parser=f.text("parser", "task"),
            pattern=f.text("pattern", ""),
            choices=f.text("choices", "ABCDE"),
            on_parse_failure=f.choice("on_parse_failure", ("keep", "resample", "default"), "keep"),
            resamples=f.number("resamples", 0, low=0),
            default=f.text("default", ""),
            seed_group=f.text("seed_group", ""),
            instruction=f.text("instruction", ""),
            keys=f.texts("keys", ()),
            optional=f.texts("optional", ()),
            each=f.choice("each", ("", "message"), ""),
            tools=f.texts("tools", ()),
            tool_calls=f.number("tool_calls", 3, low=1),
            result_tokens=f.number("result_tokens", 256, low=1),
        )
        for kind in stage.parsers:
            if kind not in PARSERS:
                raise unknown_name(f.at("parser"), kind, PARSERS, "choice")
        if not stage.choices.isalpha():
            raise ConfigError(f"{f.at('choices')} is {stage.choices!r}: expected letters")
        if "regex" in stage.parsers:
            check_pattern(stage.pattern, f.at("pattern"))
        if {"json", "fields"} & set(stage.parsers) and not stage.keys:
            raise ConfigError(f"{f.at('keys')} is empty: name the fields that are read")
        if stage.on_parse_failure == "resample" and not stage.resamples:
            raise ConfigError(f"{f.at('resamples')} is 0: say how often a failed call is repeated")
        return stage


def _read_sampling(data: Any, path: str) -> SamplingParams:
    f = Fields(data, path, names_of(SamplingParams))
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


def _read_matrix(item: Any, path: str) -> tuple[tuple[bool, ...], ...]:
    rows = item if isinstance(item, list | tuple) else None
    if not rows or not all(
        isinstance(row, list | tuple) and all(cell in (0, 1) for cell in row) for row in rows
    ):
        raise ConfigError(f"{path} is {item!r}: expected rows of 0 and 1, a row for each agent")
    return tuple(tuple(bool(cell) for cell in row) for row in rows)
