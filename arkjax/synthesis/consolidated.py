"""The steps on which those who were right agree, as one answer."""

import collections
import itertools
from collections.abc import Callable, Mapping, Sequence

from arkjax.synthesis.operations import FINAL, Step, StepReader
from arkjax.synthesis.pieces import Piece, closing, of_step
from arkjax.trajectories.schema import Call

ALONE = "only one agent was right"
UNALIGNED = "no step in common"
THIN = "too few steps in common"
CYCLE = "no common order of steps"
LONG = "too many steps"

# Pairs of steps are compared.
_MOST_STEPS = 400
# Of the longest answer, the share of steps that has to be agreed on.
_COVERED = 0.5

Key = tuple[str, str]
Voice = tuple[str, int]


def consolidated_pieces(
    finished: Sequence[Call], reader: StepReader, credit: Callable[[Call], float]
) -> list[Piece] | str:
    """The pieces of a consolidated example.

    Of each agent, and of each of its samples, the preferred answer is heard. A step is agreed on if
    at least two of them, and more than half of those with a step of its subject, make the same
    claim. It is taken from the agent with the highest credit. Steps stand in the order in which
    most of those that have both put them, the answer last.

    Args:
      finished: the accepted, finished calls of one problem, the preferred first.
      reader: of steps.
      credit: what a call is credited with.

    Returns:
      The pieces, or why there are none. Whether what they say together still holds is not known
      here: steps may lean on others that were left out.
    """
    answers: dict[Voice, list[Step]] = {}
    for call in finished:
        voice = call.agent, call.sample
        if voice not in answers and (steps := reader(call)):
            answers[voice] = steps
    if len(answers) < 2:
        return ALONE
    if max(map(len, answers.values())) > _MOST_STEPS:
        return LONG
    rank = {
        name: i for i, name in enumerate(sorted(answers, key=lambda a: -credit(answers[a][0].call)))
    }
    agreed = _agreed(answers)
    body = [key for key in agreed if key[0] != FINAL]
    most = max(sum(step.subject != FINAL for step in steps) for steps in answers.values())
    # Answers of one step each have nothing to be put together from.
    if not body:
        return UNALIGNED
    if len(body) < _COVERED * most:
        return THIN
    order = _in_order(body, answers)
    if order is None:
        return CYCLE
    chosen = [
        min(
            (step for steps in answers.values() for step in steps if step.key == key),
            key=lambda step: rank[step.call.agent, step.call.sample],
        )
        for key in order
    ]
    # Whoever gives the last step also ends the answer.
    last = answers[min(rank, key=rank.__getitem__)][-1]
    return [*map(of_step, [*chosen, last]), closing(last)]


def _agreed(answers: Mapping[Voice, Sequence[Step]]) -> list[Key]:
    """What enough agents claim, in the order in which it first comes up."""
    said: collections.Counter[Key] = collections.Counter()
    about: collections.Counter[str] = collections.Counter()
    for steps in answers.values():
        # Subjects are distinct within one answer.
        said.update(step.key for step in steps)
        about.update(step.subject for step in steps)
    return [key for key, count in said.items() if count >= 2 and 2 * count > about[key[0]]]


def _in_order(keys: Sequence[Key], answers: Mapping[Voice, Sequence[Step]]) -> list[Key] | None:
    """The keys in an order that most agents keep; None if there is none."""
    wanted = set(keys)
    votes: collections.Counter[tuple[Key, Key]] = collections.Counter()
    for steps in answers.values():
        votes.update(itertools.combinations([s.key for s in steps if s.key in wanted], 2))
    before: dict[Key, set[Key]] = {key: set() for key in keys}
    for (a, b), count in votes.items():
        if count > votes[b, a]:
            before[b].add(a)
    order: list[Key] = []
    waiting = list(keys)
    while waiting:
        ready = next((key for key in waiting if not before[key] - set(order)), None)
        if ready is None:
            return None
        order.append(ready)
        waiting.remove(ready)
    return order
