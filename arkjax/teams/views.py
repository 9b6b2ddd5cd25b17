"""Who sees which earlier messages, and in which order they stand in the transcript."""

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol, TypeVar

from arkjax.teams.primitives import View


class Message(Protocol):
    """What a view looks at: who spoke in which stage and round, which sample of it, what it said.

    `parsed` are the fields that were read in it, `parents` the messages that its author had read.
    """

    call_id: str
    agent: str
    stage: str
    round: int
    sample: int
    parsed: Mapping[str, str]
    parents: Sequence[str]


M = TypeVar("M", bound=Message)


def sees(
    view: View,
    viewer: str,
    author: str,
    speakers: Sequence[str],
    agents: Sequence[str] = (),
    turn: int = 0,
) -> bool:
    """Whether `viewer` may read `author` under the view's graph, in a stage with these speakers.

    Args:
      view: the stage's view.
      viewer, author: ids of agents.
      speakers: ids of all who speak in the stage.
      agents: ids of the whole team, in its order; for `matrix`.
      turn: how often the stage has been played before; for `matrix`.
    """
    if viewer == author:
        return view.own and view.graph != "none"
    if view.graph == "full":
        return True
    if view.graph in ("none", "self"):
        return False
    if view.graph == "star":
        return view.hub in (viewer, author)
    if view.graph == "edges":
        return (author, viewer) in view.edges
    if view.graph == "groups":
        return any(viewer in group and author in group for group in view.groups)
    if view.graph == "random":
        return _chance(f"{view.seed}/{viewer}/{author}") < view.p
    if view.graph == "matrix":
        round_ = view.matrix[min(turn, len(view.matrix) - 1)]
        return round_[agents.index(viewer)][agents.index(author)]
    # The others have an order: only the stage's speakers stand in it.
    if author not in speakers:
        return False
    to, of, n = speakers.index(viewer), speakers.index(author), len(speakers)
    if view.graph == "chain":
        return to - of == 1
    if view.graph == "before":
        return of < to
    if view.graph == "tree":
        return (to - 1) // view.k == of or (of - 1) // view.k == to
    if view.graph == "layer":
        return to // view.k - of // view.k == 1
    return min((to - of) % n, (of - to) % n) <= view.k


def view_matrix(
    view: View, agents: Sequence[str], speakers: Sequence[str], turn: int = 0
) -> tuple[tuple[bool, ...], ...]:
    """`[to][from]`: which of the stage's speakers (rows) reads which of the agents (columns)."""
    return tuple(
        tuple(sees(view, viewer, author, speakers, agents, turn) for author in agents)
        for viewer in speakers
    )


def levels(
    view: View, speakers: Sequence[str], agents: Sequence[str] = (), turn: int = 0
) -> list[list[str]]:
    """The speakers in the order `graph`: each level hears none of its own or of later levels.

    Arguments as of `sees`.

    Raises:
      ValueError: if some hear each other in a circle; it names them.
    """
    hears = {
        viewer: {
            a for a in speakers if a != viewer and sees(view, viewer, a, speakers, agents, turn)
        }
        for viewer in speakers
    }
    made: list[list[str]] = []
    spoken: set[str] = set()
    while len(spoken) < len(speakers):
        level = [name for name in speakers if name not in spoken and hears[name] <= spoken]
        if not level:
            left = [name for name in speakers if name not in spoken]
            raise ValueError(f"{', '.join(left)} wait for each other")
        made.append(level)
        spoken |= set(level)
    return made


def anonymous_name(agents: Sequence[str], name: str) -> str:
    """What an agent is called in an anonymous view, by its place in the team."""
    return f"agent {agents.index(name) + 1}"


def shuffled(names: Sequence[str], key: str) -> list[str]:
    """The names in an order that the key determines."""
    return sorted(names, key=lambda name: _digest(f"{key}/{name}"))


def visible(
    view: View,
    viewer: str,
    speakers: Sequence[str],
    agents: Sequence[str],
    messages: Iterable[M],
    shuffle_key: str = "",
    *,
    authors: Sequence[str] | None = None,
    turn: int = 0,
) -> list[M]:
    """The messages that `viewer` reads, as they stand in its transcript: round by round.

    Args:
      view: the stage's view.
      viewer: id of the agent that is about to speak.
      speakers: ids of all who speak in this stage.
      agents: ids of the whole team, in its order.
      messages: what has been said so far, by anybody.
      shuffle_key: what, together with the round, determines the order of `order="shuffled"`; it
        does not name the viewer, so that all viewers keep a common prefix.
      authors: ids of those whose messages can be seen at all, by default all.
      turn: how often the stage has been played before.
    """
    heard: dict[str, list[M]] = {}
    for message in messages:
        if view.stages and message.stage not in view.stages:
            continue
        if authors is not None and message.agent not in authors:
            continue
        if sees(view, viewer, message.agent, speakers, agents, turn):
            heard.setdefault(message.agent, []).append(message)
    shown: list[M] = []
    for said in heard.values():
        rounds = sorted({message.round for message in said})
        if view.rounds != "all":
            rounds = rounds[-(1 if view.rounds == "last" else view.window) :]
        shown += [message for message in said if message.round in rounds]
    place = {name: i for i, name in enumerate(agents)}

    def key(message: M) -> tuple:
        author: int | str = place[message.agent]
        if view.order == "shuffled":
            author = _digest(f"{shuffle_key}/{message.round}/{message.agent}")
        return (message.round, author, message.sample)

    shown = sorted(shown, key=key)
    if view.pick == "all" or not shown:
        return shown
    # The best first; what is no number comes last, and equals stay in the transcript's order.
    stage, _, field = view.pick_by.rpartition(".")
    values = {}
    if stage:
        for message in messages:
            if message.stage == stage and field in message.parsed:
                values |= dict.fromkeys(message.parents, message.parsed[field])
    else:
        values = {message.call_id: message.parsed.get(field) for message in shown}
    ranked = sorted(shown, key=lambda message: -_number(values.get(message.call_id)))
    return [ranked[min(turn if view.pick == "next" else 0, len(ranked) - 1)]]


def _number(text: str | None) -> float:
    try:
        value = float(text) if text is not None else -math.inf
    except ValueError:
        return -math.inf
    return -math.inf if math.isnan(value) else value


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _chance(text: str) -> float:
    return int(_digest(text)[:13], 16) / 16**13
