"""What a team would have answered if nobody had heard anybody."""

import dataclasses
from collections.abc import Collection, Sequence

from arkjax.teams.reducers import Equal, reduce
from arkjax.teams.rules import DECIDERS, Reducer
from arkjax.trajectories.schema import Call


def opening(said: Sequence[Call], asking: Collection[str]) -> list[Call]:
    """The messages that were asked for an answer before their authors had heard of any.

    Of a debate those of the first round; of a chain that of its first agent; of agents who read a
    plan first, all. Whoever read a critique of an answer has heard of it.

    Args:
      said: the messages that count, in the order spoken.
      asking: names of the stages that ask for an answer.
    """
    heard: set[str] = set()
    opened: list[Call] = []
    for call in said:
        asked, aware = call.stage in asking, not heard.isdisjoint(call.parents)
        if asked and not aware:
            opened.append(call)
        if asked or aware:
            heard.add(call.call_id)
    return opened


def opening_answer(
    reducer: Reducer,
    voters: Sequence[str],
    opened: Sequence[Call],
    equal: Equal,
) -> str | None:
    """The answer that the team's own reducer gives over the opening messages.

    Some reducers find nothing there: a judge has not spoken, weights and approvals are not stated,
    the voters come later. The answer that most of the opening messages state, of equals the first,
    stands for theirs. None if no opening message states an answer, or the team never gives one.

    Args:
      reducer: the team's rule.
      voters: ids of the agents whose answers count, in the team's order.
      opened: of `opening`.
      equal: the task's equality of answers.
    """
    if reducer.kind == "all":
        return None
    if _applies(reducer, opened):
        found = reduce(reducer, voters, opened, equal).answer
        if found is not None:
            return found
    majority = dataclasses.replace(reducer, kind="vote", tie="first", latest=False)
    authors = list(dict.fromkeys(call.agent for call in opened))
    return reduce(majority, authors, opened, equal).answer


def _applies(reducer: Reducer, opened: Sequence[Call]) -> bool:
    if reducer.kind in DECIDERS or reducer.kind == "approvals":
        return False
    if reducer.kind in ("weighted_vote", "best"):
        return any(reducer.weight in call.parsed for call in opened)
    return True
