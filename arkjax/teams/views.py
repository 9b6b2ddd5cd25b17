"""Who sees which earlier messages, and in which order they stand in the transcript."""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Protocol, TypeVar

from arkjax.teams.primitives import View


class Message(Protocol):
    """What a view looks at: who spoke, in which round, which sample of it."""

    agent: str
    round: int
    sample: int


M = TypeVar("M", bound=Message)


def sees(view: View, viewer: str, author: str, speakers: Sequence[str]) -> bool:
    """Whether `viewer` may read `author` under the view's graph, in a stage with these speakers."""
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
    # Rings and chains have an order: only the stage's speakers stand in them.
    if author not in speakers:
        return False
    to, of, n = speakers.index(viewer), speakers.index(author), len(speakers)
    if view.graph == "chain":
        return to - of == 1
    return min((to - of) % n, (of - to) % n) <= view.k


def view_matrix(
    view: View, agents: Sequence[str], speakers: Sequence[str]
) -> tuple[tuple[bool, ...], ...]:
    """`[to][from]`: which of the stage's speakers (rows) reads which of the agents (columns)."""
    return tuple(
        tuple(sees(view, viewer, author, speakers) for author in agents) for viewer in speakers
    )


def visible(
    view: View,
    viewer: str,
    speakers: Sequence[str],
    agents: Sequence[str],
    messages: Iterable[M],
    shuffle_key: str = "",
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
    """
    heard: dict[str, list[M]] = {}
    for message in messages:
        if sees(view, viewer, message.agent, speakers):
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
            text = f"{shuffle_key}/{message.round}/{message.agent}"
            author = hashlib.sha256(text.encode()).hexdigest()
        return (message.round, author, message.sample)

    return sorted(shown, key=key)
