"""The most that can be heard at any point of any play of a team, and so what a play can cost.

A repeat that ends early can leave more to be heard than the longest play does: the many samples of
an opening, where the longest play shows one rebuttal each. So every message counts that may be the
latest of its author.
"""

import collections
import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from arkjax.teams.primitives import Chosen, Stage
from arkjax.teams.views import levels, sees

if TYPE_CHECKING:
    from arkjax.teams.team import Team

_BY_PLACE = ("ring", "chain", "before", "tree", "layer")
"""Graphs that go by the order of the speakers, which nobody knows of those yet to be chosen."""


@dataclasses.dataclass(frozen=True)
class Saying:
    """What one agent can say in one play of a stage.

    Attributes:
      agent: the author's id.
      stage: name of the stage.
      round: the place of the stage in the longest play.
      count: most messages.
      certain: whether it is said in every play.
      top: how many of those who can speak in this round do.
    """

    agent: str
    stage: str
    round: int
    count: int
    certain: bool
    top: int


@dataclasses.dataclass(frozen=True)
class Heard:
    """What a speaker can hear.

    Attributes:
      sayings: of all authors, in the order of the longest play.
      window: of how many rounds of each author it hears; None for all.
    """

    sayings: Sequence[Saying]
    window: int | None

    def most(self, size: Callable[[Saying], int]) -> int:
        """An upper bound of the sum of a message's size over all that is heard at once."""
        rounds: dict[int, list[int]] = {}
        authors: dict[str, list[int]] = {}
        tops: dict[int, int] = {}
        for saying in self.sayings:
            value = saying.count * size(saying)
            rounds.setdefault(saying.round, []).append(value)
            authors.setdefault(saying.agent, []).append(value)
            tops[saying.round] = saying.top
        by_round = sum(_largest(sizes, tops[number]) for number, sizes in rounds.items())
        if self.window is None:
            return by_round
        return min(by_round, sum(_largest(sizes, self.window) for sizes in authors.values()))

    def largest(self, size: Callable[[Saying], int]) -> int:
        """The size of the largest message that may be heard."""
        return max(map(size, self.sayings), default=0)


@dataclasses.dataclass(frozen=True)
class Play:
    """One play of a stage.

    Attributes:
      stage: the stage.
      heard: by speaker, all who may speak.
      asked: by speaker, how often it is asked at most, each sample counted once.
    """

    stage: Stage
    heard: dict[str, Heard]
    asked: dict[str, int]


def plays(team: "Team") -> Iterator[Play]:
    """The stages of the longest play in order, with the most that any play has said until then."""
    said: list[Saying] = []
    least: collections.Counter[str] = collections.Counter()
    most: collections.Counter[str] = collections.Counter()
    for number, (stage, certain) in enumerate(team.plays()):
        turns = range(least[stage.name], most[stage.name] + 1)
        play, new = _play(team, stage, said, turns, number)
        yield play
        said += [dataclasses.replace(one, certain=one.certain and certain) for one in new]
        least[stage.name] += certain
        most[stage.name] += 1


def _play(
    team: "Team", stage: Stage, said: list[Saying], turns: range, number: int
) -> tuple[Play, list[Saying]]:
    pool = team.select(stage.speakers)
    top = team.speaking(stage)
    certain = top == len(pool) and not stage.each
    make = functools.partial(Saying, stage=stage.name, round=number, certain=certain, top=top)
    new: list[Saying] = []
    heard: dict[str, Heard] = {}
    asked: dict[str, int] = {}
    waves = _waves(team, stage, pool, turns)
    for wave in waves or [pool]:
        before = [*said, *new]
        for name in wave:
            heard[name] = _heard(team, stage, name, before, turns)
            asked[name] = _asked(stage, heard[name])
        new += [make(name, count=stage.n_samples * asked[name]) for name in wave]
    if waves is not None:
        return Play(stage, heard, asked), new
    # The order is drawn or chosen: each may come last, and be asked about all that came before.
    if stage.each and stage.view.pick == "all":
        count = max(asked.values()) * (1 + stage.n_samples) ** (top - 1)
        asked = dict.fromkeys(pool, count)
        new = [make(name, count=stage.n_samples * count) for name in pool]
    maybe = [dataclasses.replace(one, certain=False) for one in new]
    for name in pool:
        others = [one for one in maybe if one.agent != name]
        heard[name] = _heard(team, stage, name, [*said, *others], turns)
    return Play(stage, heard, asked), new


def _waves(
    team: "Team", stage: Stage, pool: Sequence[str], turns: range
) -> list[Sequence[str]] | None:
    """Who speaks after whom; None if that is not known before."""
    if stage.order == "parallel":
        return [pool]
    if isinstance(stage.speakers, Chosen) or stage.order == "shuffled":
        return None
    if stage.order == "sequential":
        return [[name] for name in pool]
    orders = [levels(stage.view, pool, team.ids, turn) for turn in turns]
    return list(orders[0]) if all(order == orders[0] for order in orders) else None


def _asked(stage: Stage, heard: Heard) -> int:
    if not stage.each or stage.view.pick != "all":
        return 1
    return max(1, heard.most(lambda saying: 1))


def _heard(team: "Team", stage: Stage, viewer: str, said: Sequence[Saying], turns: range) -> Heard:
    view, pool = stage.view, team.select(stage.speakers)
    authors = team.select(view.authors)
    by_place = isinstance(stage.speakers, Chosen) and view.graph in _BY_PLACE

    def visible(author: str) -> bool:
        if by_place and author != viewer:
            return author in pool
        return any(sees(view, viewer, author, pool, team.ids, turn) for turn in turns)

    known = {author: visible(author) for author in authors}
    sayings = [
        saying
        for saying in said
        if known.get(saying.agent) and (not view.stages or saying.stage in view.stages)
    ]
    if view.rounds == "all":
        return Heard(sayings, None)
    window = 1 if view.rounds == "last" else view.window
    # What an author has certainly said hides what it said before.
    passed: collections.Counter[str] = collections.Counter()
    kept = []
    for saying in reversed(sayings):
        if passed[saying.agent] < window:
            kept.append(saying)
            passed[saying.agent] += saying.certain
    return Heard(kept[::-1], window)


def _largest(sizes: list[int], count: int) -> int:
    return sum(sorted(sizes, reverse=True)[:count])
