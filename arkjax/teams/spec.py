"""What a team is: data only. A new multi-agent method is a config, never a class."""

import dataclasses
import functools
from typing import Any

from arkjax.storage import content_hash, plain
from arkjax.teams.checks import check
from arkjax.teams.fields import Fields, unwrapped
from arkjax.teams.primitives import Agent, Stage
from arkjax.teams.rules import Budget, Reducer, Stop, ToolUse, read_items
from arkjax.teams.team import Team


@dataclasses.dataclass(frozen=True)
class TeamSpec(Team):
    """A team that can be played: a bounded graph of calls, and how an answer comes out of it.

    Attributes:
      path: where the team stands in a config, for the messages of errors.

    Raises:
      ConfigError: if a part refers to what is not there, reads what nobody uses, waits for itself,
        or the budget cannot hold the schedule.
    """

    path: dataclasses.InitVar[str] = "team"

    def __post_init__(self, path: str) -> None:
        check(self, path)

    @classmethod
    def from_config(cls, cfg: Any, path: str = "config.team") -> "TeamSpec":
        """The team that a ConfigDict or dict describes.

        Raises:
          ConfigError: one line with the field's dotted path, what it holds and what it may hold.
        """
        f = Fields(unwrapped(cfg), path, [field.name for field in dataclasses.fields(cls)])
        return cls(
            name=f.text("name"),
            agents=tuple(Agent.read(item, at) for at, item in f.items("agents")),
            stages=tuple(Stage.read(item, at) for at, item in f.items("stages")),
            schedule=read_items(f, "schedule"),
            reducer=Reducer.read(f.raw("reducer", {}), f.at("reducer")),
            stop=Stop.read(f.raw("stop", {}), f.at("stop")),
            budget=Budget.read(f.raw("budget", {}), f.at("budget")),
            tools=tuple(ToolUse.read(item, at) for at, item in f.items("tools", ())),
            path=path,
        )

    def to_dict(self) -> dict[str, Any]:
        """The team as plain data, from which `from_config` makes an equal team."""
        data = plain(self)
        _rename_repeats(data["schedule"])
        if self.tools:
            data["tools"] = [tool.to_dict() for tool in self.tools]
        return data

    @functools.cached_property
    def hash(self) -> str:
        """SHA-256 of the team's content."""
        return content_hash(self.to_dict())


def _rename_repeats(items: list[Any]) -> None:
    for item in items:
        if isinstance(item, dict):
            _rename_repeats(item["stages"])
            item["repeat"] = item.pop("stages")
