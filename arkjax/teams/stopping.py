"""When a repeat block ends."""

import dataclasses
from collections.abc import Callable, Sequence

from arkjax.teams.reducers import Equal, agreement, last_round, reduce, unchanged
from arkjax.teams.rules import DECIDERS, Condition, Reducer, Stop
from arkjax.trajectories.schema import Call


@dataclasses.dataclass(frozen=True)
class Talk:
    """What a stop rule looks at.

    Attributes:
      said: the messages that count, in the order spoken.
      voters: ids of the agents whose answers count.
      rounds: stages that have been played.
      tokens: tokens that have been generated.
    """

    said: Sequence[Call]
    voters: Sequence[str]
    rounds: int = 0
    tokens: int = 0

    def latest_call(self, field: str) -> Call | None:
        """The latest message in which "stage.field", or "field" of any stage, could be read."""
        stage, _, name = field.rpartition(".")
        for call in reversed(self.said):
            if stage in ("", call.stage) and name in call.parsed:
                return call
        return None

    def latest(self, field: str) -> str | None:
        """The latest value of "stage.field", or of "field" of any stage."""
        call = self.latest_call(field)
        return None if call is None else call.parsed[field.rpartition(".")[2]]


def reason_to_stop(
    stop: Stop,
    reducer: Reducer,
    talk: Talk,
    equal: Equal,
    is_gold: Callable[[str | None], bool],
) -> str:
    """What holds of a stop rule: the names of its conditions; empty if it does not apply.

    Args:
      stop: the rule.
      reducer: of the team; a condition on the team's answer asks what it would be now.
      talk: what has been said.
      equal: the task's equality of answers.
      is_gold: whether an answer is the gold one.
    """
    voters, field, said = talk.voters, reducer.field, talk.said
    set_: list[tuple[str, Callable[[], bool]]] = []
    if stop.rounds:
        set_.append(("rounds", lambda: stop.rounds <= talk.rounds))
    if stop.tokens:
        set_.append(("tokens", lambda: stop.tokens <= talk.tokens))
    if stop.agree:
        set_.append(("agree", lambda: stop.agree <= agreement(reducer, voters, said, equal)))
    if stop.unchanged:
        set_.append(("unchanged", lambda: unchanged(field, stop.unchanged, voters, said, equal)))
    for condition in stop.when:
        set_.append((condition.field, lambda condition=condition: holds(condition, talk)))
    if stop.oracle:
        undecided = _without_decider(reducer)
        set_.append(("oracle", lambda: is_gold(reduce(undecided, voters, said, equal).answer)))
    if stop.every:
        return "+".join(name for name, _ in set_) if all(rule() for _, rule in set_) else ""
    return next((name for name, rule in set_ if rule()), "")


def holds(condition: Condition, talk: Talk) -> bool:
    """Whether a parsed field is what a condition asks."""
    stage, _, name = condition.field.rpartition(".")
    if condition.missing:
        last = next((c for c in reversed(talk.said) if stage in ("", c.stage)), None)
        return last is not None and name not in last.parsed
    if not condition.share:
        value = talk.latest(condition.field)
        return value is not None and _fits(condition, value)
    # All who spoke there count, those as well in whose messages the field could not be read.
    asking = {stage} if stage else {call.stage for call in talk.said if name in call.parsed}
    heard = [call for call in talk.said if call.stage in asking]
    latest = last_round(list(dict.fromkeys(call.agent for call in heard)), heard)
    if not latest:
        return False
    fitting = sum(name in c.parsed and _fits(condition, c.parsed[name]) for c in latest)
    return fitting / len(latest) >= condition.share


def _fits(condition: Condition, value: str) -> bool:
    if condition.at_least is None:
        return value.strip().casefold() == condition.equals.strip().casefold()
    try:
        return float(value) >= condition.at_least
    except ValueError:
        return False


def _without_decider(reducer: Reducer) -> Reducer:
    """What a team would answer before its judge has spoken: what its voters say."""
    return dataclasses.replace(reducer, kind="vote") if reducer.kind in DECIDERS else reducer
