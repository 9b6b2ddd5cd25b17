"""Who said it first, who put whom right and who misled whom: read off a debate's answers alone.

A message is counted as having moved another when the other's author states another answer than it
did the time before, and had read the message, which states just that answer. If several of the
messages that it read do, they share the credit: a debate does not say which of them was believed.
What changes without any such message was worked out by its author (`own`).
"""

import collections
import dataclasses
from collections.abc import Callable, Sequence

from arkjax.trajectories.schema import Call

Equal = Callable[[str, str], bool]


@dataclasses.dataclass(frozen=True)
class Turn:
    """One author's change of mind.

    Attributes:
      call_id: the message with the new answer.
      before: the author's message before, whose answer was given up; empty for a first message.
      kind: "corrected" from wrong to right, "misled" from right to wrong, "moved" from wrong to
        wrong; "adopted" or "invented" for an author's first answer, which it read or did not read.
      sources: the messages that it read and that state the new answer; empty if it is `own`.
    """

    call_id: str
    before: str
    kind: str
    sources: tuple[str, ...]


@dataclasses.dataclass
class Credit:
    """What one message did to others, in messages; shared credit counts in parts.

    Attributes:
      corrected: others that it put right.
      misled: others that it led away from the right answer.
      first: whether it was the first to state the team's final answer.
      own: whether its author came by a right answer without having read it.
    """

    corrected: float = 0.0
    misled: float = 0.0
    first: bool = False
    own: bool = False


@dataclasses.dataclass(frozen=True)
class Flips:
    """A debate's changes of mind.

    Attributes:
      turns: in the order spoken.
      messages: the credit of every message, by call id.
      agents: the sum of its messages' credit, by agent id; `first` and `own` if any of them is.
    """

    turns: tuple[Turn, ...]
    messages: dict[str, Credit]
    agents: dict[str, Credit]


def flips(calls: Sequence[Call], answer: str | None, equal: Equal, field: str = "answer") -> Flips:
    """The changes of mind in one debate, and whose they are.

    Args:
      calls: the messages that counted, in the order spoken, graded (`Call.correct`).
      answer: the team's final answer.
      equal: the task's equality of answers.
      field: the parsed field that is the answer.
    """
    by_id = {call.call_id: call for call in calls}
    credit = {call.call_id: Credit() for call in calls}
    heard: list[Call] = []
    turns: list[Turn] = []
    stated = False
    for call in calls:
        said = call.parsed.get(field)
        if said is None:
            continue
        before = _before(call, heard)
        heard.append(call)
        if answer is not None and not stated and equal(said, answer):
            credit[call.call_id].first = stated = True
        if before is not None and equal(before.parsed[field], said):
            continue
        sources = tuple(
            parent
            for parent in call.parents
            if parent in by_id
            and by_id[parent].agent != call.agent
            and (theirs := by_id[parent].parsed.get(field)) is not None
            and equal(theirs, said)
        )
        kind = _kind(before, call, bool(sources))
        turns.append(Turn(call.call_id, before.call_id if before else "", kind, sources))
        if call.correct and not sources:
            credit[call.call_id].own = True
        for source in sources:
            if kind == "corrected":
                credit[source].corrected += 1 / len(sources)
            elif kind == "misled":
                credit[source].misled += 1 / len(sources)
    agents: dict[str, Credit] = collections.defaultdict(Credit)
    for call in calls:
        one, all_ = credit[call.call_id], agents[call.agent]
        all_.corrected += one.corrected
        all_.misled += one.misled
        all_.first |= one.first
        all_.own |= one.own
    return Flips(tuple(turns), credit, dict(agents))


def _before(call: Call, heard: Sequence[Call]) -> Call | None:
    """What the author answered in the round before: by the same sample, where that has one."""
    earlier = [c for c in heard if c.agent == call.agent and c.round < call.round]
    return max(earlier, key=lambda c: (c.round, c.sample == call.sample), default=None)


def _kind(before: Call | None, call: Call, read: bool) -> str:
    if before is None:
        return "adopted" if read else "invented"
    if bool(before.correct) == bool(call.correct):
        return "moved"
    return "corrected" if call.correct else "misled"
