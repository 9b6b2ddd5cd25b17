"""The rules of a team, as data: repeats and when they end, how an answer comes out, the budget."""

import dataclasses
from typing import Any, Union

from arkjax.errors import ConfigError
from arkjax.storage import added
from arkjax.teams.fields import Fields
from arkjax.teams.primitives import Selector, names_of

REDUCERS = (
    "vote",
    "weighted_vote",
    "approvals",
    "judge",
    "synthesize",
    "last",
    "best",
    "all",
)
DECIDERS = ("judge", "synthesize")
"""Reducers whose agent has the last word, and no vote."""
TIES = ("first", "lowest", "plurality_then_first")


@dataclasses.dataclass(frozen=True)
class Condition:
    """What a parsed field must be.

    Attributes:
      field: "stage.field", or "field" of any stage; the latest that has been said counts.
      equals: the text that it must be; capitals and the space around it do not count.
      at_least: the number that it must reach.
      share: of the speakers whose latest messages of that stage have to fulfil it; 0 asks the
        latest message alone.
      missing: that the field could not be read in the latest message of its stage.
    """

    field: str
    equals: str = added("")
    at_least: float | None = added(None)
    share: float = added(0.0)
    missing: bool = added(False)

    @classmethod
    def read(cls, data: Any, path: str) -> "Condition":
        """A condition from its config. Raises ConfigError."""
        f = Fields(data, path, names_of(cls))
        condition = cls(
            field=f.text("field"),
            equals=f.text("equals", ""),
            at_least=(
                None
                if f.raw("at_least", None) is None
                else f.number("at_least", low=float("-inf"), kind=float)
            ),
            share=f.number("share", 0.0, low=0, kind=float),
            missing=f.flag("missing", False),
        )
        given = (condition.equals != "", condition.at_least is not None, condition.missing)
        if sum(given) != 1:
            raise ConfigError(
                f"{path}: say what the field must be, by one of equals, at_least and missing"
            )
        if condition.missing and condition.share:
            raise ConfigError(
                f"{f.at('share')} is {condition.share}, but 'missing' asks the latest message"
                " alone: leave it out"
            )
        if condition.share > 1:
            raise ConfigError(f"{f.at('share')} is {condition.share}: it is a share, at most 1")
        return condition


@dataclasses.dataclass(frozen=True)
class Stop:
    """When a repeat block ends before its `max`: as soon as any condition that is set holds.

    Attributes:
      rounds: this many stages have been played in all; 0 is not set.
      agree: this share of the voters gives the same answer; those without one count as dissent.
      unchanged: no voter's answer changed over its last so many rounds.
      oracle: the team's answer is the gold one. It looks at the gold answer, so every report of
        such a team says so.
      tokens: this many tokens have been generated; 0 is not set.
      when: conditions on parsed fields, a verifier's verdict for instance; each counts by itself.
      every: all that is set must hold, in place of any.
    """

    rounds: int = 0
    agree: float = 0.0
    unchanged: int = 0
    oracle: bool = False
    tokens: int = added(0)
    when: tuple[Condition, ...] = added(())
    every: bool = added(False)

    @classmethod
    def read(cls, data: Any, path: str) -> "Stop":
        """Stop conditions from their config. Raises ConfigError."""
        f = Fields(data, path, names_of(cls))
        agree = f.number("agree", 0.0, low=0, kind=float)
        if agree > 1:
            raise ConfigError(f"{f.at('agree')} is {agree}: it is a share, at most 1")
        return cls(
            rounds=f.number("rounds", 0, low=0),
            agree=agree,
            unchanged=f.number("unchanged", 0, low=0),
            oracle=f.flag("oracle", False),
            tokens=f.number("tokens", 0, low=0),
            when=tuple(Condition.read(item, at) for at, item in f.items("when", ())),
            every=f.flag("every", False),
        )


Item = Union[str, "Repeat"]
"""What a schedule holds: the name of a stage, or a repeat block."""


@dataclasses.dataclass(frozen=True)
class Repeat:
    """A part of the schedule that is played several times: at least `min`, at most `max`.

    Attributes:
      stages: names of stages, and repeat blocks within this one.
      max: most passes.
      min: passes that are made whatever has been said; with 0 the block may be left out.
      stop: when it ends early; None takes the team's `stop`.
    """

    stages: tuple[Item, ...]
    max: int
    min: int = 1
    stop: Stop | None = added(None)

    @classmethod
    def read(cls, data: Any, path: str) -> "Repeat":
        """A repeat block, `{"repeat": [...], "max": n, "min": n, "stop": {...}}`.

        Raises:
          ConfigError: if it is something else, or has no bound.
        """
        f = Fields(data, path, ("repeat", "max", "min", "stop"))
        stages = read_items(f, "repeat")
        if not stages:
            raise ConfigError(f"{f.at('repeat')} is empty: name the stages to repeat")
        if f.raw("max", None) is None:
            raise ConfigError(f"{f.at('max')} is missing: a repeat without a bound may never end")
        most = f.number("max", low=0)
        least = f.number("min", min(1, most), low=0)
        if least > most:
            raise ConfigError(f"{f.at('min')} is {least}: it must not exceed max = {most}")
        stop = f.raw("stop", None)
        return cls(stages, most, least, None if stop is None else Stop.read(stop, f.at("stop")))


def read_items(f: Fields, name: str) -> tuple[Item, ...]:
    """The items of a schedule or of a repeat block. Raises ConfigError."""
    return tuple(
        item if isinstance(item, str) else Repeat.read(item, at) for at, item in f.items(name)
    )


@dataclasses.dataclass(frozen=True)
class Reducer:
    """How many messages become one answer.

    Attributes:
      kind: `vote`: the answer that most voters give; `weighted_vote`: the one with the largest sum
        of `weight`; `approvals`: that of the message with the largest sum of `weight` over all who
        were shown it and judged it; `judge` and `synthesize`: what `agent` said last; `last`: the
        last answer of any voter, or of `agent`; `best`: the answer with the largest `weight`;
        `all`: no answer, the calls are kept.
      agent: the judge or the synthesiser, or whose last answer counts.
      field: the parsed field that is the answer.
      weight: the parsed field that is a message's weight; "yes" weighs 1, what else is not a number
        weighs 0.
      voters: whose answers count; each votes with all its samples of the last round it spoke in.
        A judge does not vote.
      tie: which of the answers with equally many votes wins. `first`: the one stated first in
        the team's order; `lowest`: the smallest number, or the first in the alphabet where not all
        are numbers; `plurality_then_first`: the one stated most often over all rounds, then first.
      latest: only those vote who spoke in the latest round in which any voter did.
      scale: (at least, becomes) pairs that replace a weight by that of the highest bound it
        reaches; what reaches none weighs 0.
    """

    kind: str = "vote"
    agent: str = ""
    field: str = "answer"
    weight: str = ""
    voters: Selector = "all"
    tie: str = "first"
    scale: tuple[tuple[float, float], ...] = added(())
    latest: bool = added(False)

    @classmethod
    def read(cls, data: Any, path: str) -> "Reducer":
        """A reducer from its config; a bare kind will do. Raises ConfigError."""
        f = Fields({"kind": data} if isinstance(data, str) else data, path, names_of(cls))
        reducer = cls(
            kind=f.choice("kind", REDUCERS, "vote"),
            agent=f.text("agent", ""),
            field=f.text("field", "answer"),
            weight=f.text("weight", ""),
            voters=f.selector("voters"),
            tie=f.choice("tie", TIES, "first"),
            scale=tuple(_read_pair(item, at) for at, item in f.items("scale", ())),
            latest=f.flag("latest", False),
        )
        if reducer.kind in DECIDERS and not reducer.agent:
            raise ConfigError(f"{f.at('agent')} is missing: name the agent that decides")
        if reducer.kind in ("weighted_vote", "best", "approvals") and not reducer.weight:
            raise ConfigError(f"{f.at('weight')} is missing: {reducer.kind} compares that field")
        return reducer


@dataclasses.dataclass(frozen=True)
class Budget:
    """What one problem may cost at most; 0 is no limit. A repeat that does not fit is not played.

    Attributes:
      calls: generations, repeated attempts included.
      tokens: generated tokens; a call is charged `max_tokens` before it is made.
      seconds: of the calls' shares of the generator's time. What a call will take is not known
        before, so a pass that has begun may end beyond it; and as time is no property of the calls,
        a play with such a budget need not come out alike twice.
    """

    calls: int = 0
    tokens: int = 0
    seconds: float = added(0.0)

    @classmethod
    def read(cls, data: Any, path: str) -> "Budget":
        """A budget from its config. Raises ConfigError."""
        f = Fields(data, path, names_of(cls))
        return cls(
            calls=f.number("calls", 0, low=0),
            tokens=f.number("tokens", 0, low=0),
            seconds=f.number("seconds", 0.0, low=0, kind=float),
        )


@dataclasses.dataclass(frozen=True)
class ToolUse:
    """A tool that a team has.

    Attributes:
      name: of the tool; see `arkjax.tools`.
      options: its settings, as (name, value) pairs in the order of their names.
    """

    name: str
    options: tuple[tuple[str, Any], ...] = ()

    @classmethod
    def read(cls, data: Any, path: str) -> "ToolUse":
        """A tool, `{"name": ..., and its options}`; a bare name will do. Raises ConfigError."""
        if isinstance(data, str):
            data = {"name": data}
        f = Fields(data, path, data if isinstance(data, dict) else ())
        options = {}
        for key, value in data.items():
            value = value.__fspath__() if hasattr(value, "__fspath__") else value
            if not isinstance(value, str | int | float | None):
                raise ConfigError(f"{f.at(key)} is {value!r}: expected text, a number or a truth")
            if key != "name" and value is not None:
                options[key] = value
        return cls(f.text("name"), tuple(sorted(options.items())))

    def to_dict(self) -> dict[str, Any]:
        """The tool as `read` takes it."""
        return {"name": self.name, **dict(self.options)}


def _read_pair(item: Any, path: str) -> tuple[float, float]:
    numbers = isinstance(item, list | tuple) and all(
        isinstance(value, int | float) and not isinstance(value, bool) for value in item
    )
    if not numbers or len(item) != 2:
        raise ConfigError(f"{path} is {item!r}: expected two numbers, (at least, becomes)")
    return (float(item[0]), float(item[1]))
