"""How many messages become one answer, and how far a team agrees."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence

from arkjax.teams.rules import DECIDERS, Reducer
from arkjax.trajectories.schema import Call

Equal = Callable[[str, str], bool]


@dataclasses.dataclass(frozen=True)
class Verdict:
    """A team's answer.

    Attributes:
      answer: None if nobody stated one, or the reducer states none.
      tied: whether the tie rule had to choose.
      support: the winner's share of the votes or weights that were cast.
    """

    answer: str | None
    tied: bool = False
    support: float = 0.0


def reduce(reducer: Reducer, voters: Sequence[str], said: Sequence[Call], equal: Equal) -> Verdict:
    """The answer of a team.

    Args:
      reducer: the rule.
      voters: ids of the agents whose answers count, in the team's order.
      said: the messages that count, attempts that were repeated left out, in the order spoken.
      equal: the task's equality of answers.
    """
    if reducer.kind == "all":
        return Verdict(None)
    if reducer.kind in (*DECIDERS, "last"):
        return _last(reducer, voters, said)
    ballots = last_round(voters, said, reducer.latest)
    if reducer.kind == "best":
        return _best(reducer, ballots, lambda call: weight(reducer, call))
    if reducer.kind == "approvals":
        return _best(reducer, ballots, lambda call: _approval(reducer, call, said))
    weigh = (lambda call: 1.0) if reducer.kind == "vote" else _positive_weight(reducer)
    groups = _group(reducer.field, ballots, equal)
    if not groups:
        return Verdict(None)
    weights = [sum(map(weigh, group)) for group in groups]
    top = max(weights)
    tied = [group for group, weight in zip(groups, weights, strict=True) if weight == top]
    winner = tied[0] if len(tied) == 1 else _break_tie(reducer, tied, voters, said, equal)
    share = top / sum(weights) if sum(weights) > 0 else 0.0
    return Verdict(winner[0].parsed[reducer.field], len(tied) > 1, share)


def last_round(voters: Sequence[str], said: Sequence[Call], latest: bool = False) -> list[Call]:
    """What each voter said in the last round that it spoke in, voter by voter.

    With `latest`, only of those who spoke in the last round in which any of them did.
    """
    ballots: list[Call] = []
    for name in voters:
        own = [call for call in said if call.agent == name]
        last = max((call.round for call in own), default=0)
        ballots += [call for call in own if call.round == last]
    if latest and ballots:
        last = max(call.round for call in ballots)
        ballots = [call for call in ballots if call.round == last]
    return ballots


def agreement(reducer: Reducer, voters: Sequence[str], said: Sequence[Call], equal: Equal) -> float:
    """The largest share of the voters' last messages that state one answer; silence dissents."""
    ballots = last_round(voters, said, reducer.latest)
    if not ballots:
        return 0.0
    return max(map(len, _group(reducer.field, ballots, equal)), default=0) / len(ballots)


def unchanged(
    field: str, rounds: int, voters: Sequence[str], said: Sequence[Call], equal: Equal
) -> bool:
    """Whether no voter changed its answers over its last `rounds` rounds."""
    for name in voters:
        own: dict[int, list[str | None]] = {}
        for call in said:
            if call.agent == name:
                own.setdefault(call.round, []).append(call.parsed.get(field))
        history = [own[number] for number in sorted(own)]
        if len(history) <= rounds:
            return False
        for answers in history[-rounds - 1 : -1]:
            if not _same(answers, history[-1], equal):
                return False
    return True


def weight(reducer: Reducer, call: Call) -> float | None:
    """The weight that a message states, on the reducer's scale; None if it states none."""
    text = call.parsed.get(reducer.weight)
    verdict = (text or "").strip().casefold()
    value = {"yes": 1.0, "no": 0.0}.get(verdict, _number(text))
    if value is None or not reducer.scale:
        return value
    reached = [pair for pair in reducer.scale if pair[0] <= value]
    return max(reached)[1] if reached else 0.0


def _last(reducer: Reducer, voters: Sequence[str], said: Sequence[Call]) -> Verdict:
    heard = (reducer.agent,) if reducer.agent else voters
    for call in reversed(said):
        if call.agent not in heard:
            continue
        if reducer.field in call.parsed:
            return Verdict(call.parsed[reducer.field], support=1.0)
        if reducer.kind in DECIDERS:
            # The judge's last word counts: an earlier verdict was given up.
            return Verdict(None)
    return Verdict(None)


def _best(
    reducer: Reducer, ballots: Sequence[Call], weigh: Callable[[Call], float | None]
) -> Verdict:
    stated = [call for call in ballots if reducer.field in call.parsed]
    if not stated:
        return Verdict(None)
    weights = [-math.inf if (value := weigh(call)) is None else value for call in stated]
    top = max(weights)
    winners = [call for call, value in zip(stated, weights, strict=True) if value == top]
    answers = {call.parsed[reducer.field] for call in winners}
    winner = min(winners, key=_size(reducer.field)) if reducer.tie == "lowest" else winners[0]
    return Verdict(winner.parsed[reducer.field], len(answers) > 1, 1.0)


def _approval(reducer: Reducer, candidate: Call, said: Sequence[Call]) -> float:
    """The sum of what those say of a message who were shown it and judged it."""
    judged = (call for call in said if candidate.call_id in call.parents)
    return sum(weight(reducer, call) or 0.0 for call in judged)


def _break_tie(
    reducer: Reducer,
    tied: list[list[Call]],
    voters: Sequence[str],
    said: Sequence[Call],
    equal: Equal,
) -> list[Call]:
    """One of the groups, which stand in the order in which their answers were first given."""
    if reducer.tie == "lowest":
        if all(_number(group[0].parsed[reducer.field]) is not None for group in tied):
            return min(tied, key=lambda group: _number(group[0].parsed[reducer.field]))
        return min(tied, key=lambda group: group[0].parsed[reducer.field])
    if reducer.tie == "plurality_then_first":
        answers = [call.parsed.get(reducer.field) for call in said if call.agent in voters]

        def stated(group: list[Call]) -> int:
            mine = group[0].parsed[reducer.field]
            return sum(answer is not None and equal(mine, answer) for answer in answers)

        return max(tied, key=stated)
    return tied[0]


def _group(field: str, calls: Iterable[Call], equal: Equal) -> list[list[Call]]:
    """Calls by equal answers, in order of first appearance; calls without one are left out."""
    groups: list[list[Call]] = []
    for call in calls:
        if field not in call.parsed:
            continue
        for group in groups:
            if equal(group[0].parsed[field], call.parsed[field]):
                group.append(call)
                break
        else:
            groups.append([call])
    return groups


def _same(a: Sequence[str | None], b: Sequence[str | None], equal: Equal) -> bool:
    if len(a) != len(b):
        return False
    pairs = zip(a, b, strict=True)
    return all(x == y or (x is not None and y is not None and equal(x, y)) for x, y in pairs)


def _positive_weight(reducer: Reducer) -> Callable[[Call], float]:
    return lambda call: max(weight(reducer, call) or 0.0, 0.0)


def _size(field: str) -> Callable[[Call], tuple[bool, float, str]]:
    def key(call: Call) -> tuple[bool, float, str]:
        value = _number(call.parsed[field])
        return (value is None, value or 0.0, call.parsed[field])

    return key


def _number(text: str | None) -> float | None:
    try:
        value = float(text) if text is not None else None
    except ValueError:
        return None
    return value if value is None or math.isfinite(value) else None
