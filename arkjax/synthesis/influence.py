"""What a message, or an agent, did to the probability of the right words: by leaving it out.

A *reading* is a call that was shown messages, with right words y* that could follow its prompt. The
influence of a message m is what its readers lose without it, in nats:

    log p(y* | prompt of r) - log p(y* | prompt of r without m), averaged over the readers r of m.

Log-probabilities are summed over the tokens of y*, the end token included. The agents of a team
play a game, whose worth for a coalition S is the mean of log p(y* | prompt with the messages of S
alone) over the readings of the last round: of the judge, or of those whose answers are counted. Its
Shapley values divide among the agents what the messages did together.

y* is, in this order:

1. the reader's own words, if they are right: the model wrote them under this very prompt, so they
   are likely there, in its own voice, and only what carried the answer can be missed;
2. the words of another right message of the same round, written under the same or a like prompt;
3. the words of a right message of the last round that has any.

The words of one author stand in for another's because a message that was right is known to be so
as a whole; an answer alone, cut out of it, would be scored without the reasoning that leads there.
Where nobody was right there is no influence: what should have followed is not known. Under 2. and
3. y* may be a message that the reader was shown. Leaving that one out then also takes away what
could be copied word for word, which is a part of what it did. A call that states no answer, such as
a critic's, is no reading: right words are not what follows there.

Both are direct effects on who reads a message, not on who reads these in turn.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence

from arkjax.synthesis.shapley import Coalition, Shapley, coalitions, shapley
from arkjax.synthesis.transcripts import Ids, Transcript, transcript
from arkjax.trajectories.schema import Call

Pair = tuple[Ids, Ids]
"""A prompt and what is scored after it."""
Worth = Callable[[Pair], float]
"""Log-probability of a pair's second part after its first, in nats."""


@dataclasses.dataclass(frozen=True)
class Reading:
    """A call that was shown messages.

    Attributes:
      reader: the call.
      shown: its prompt.
      target: the right words, y*.
    """

    reader: Call
    shown: Transcript
    target: Ids

    def without(self, removed: frozenset[str]) -> Pair:
        """What is scored where these messages are left out."""
        return self.shown.without(removed), self.target


def readings(
    calls: Sequence[Call], end_id: int | None, longest: int | None = None
) -> list[Reading]:
    """The readings of one debate; none where nobody was right.

    Args:
      calls: of the debate, in the order spoken, graded.
      end_id: the token that ends a message; None where messages are shown without it.
      longest: most tokens of a prompt and the right words, which can be longer than those of the
        reader; beyond that it is left out. None knows no limit.
    """
    answers = [call for call in calls if call.correct is not None and not call.is_action]
    found = []
    for call in answers:
        target = right_words(call, answers)
        shown = transcript(call, calls, end_id) if target and call.parents else None
        fits = longest is None or len(call.prompt_ids) + len(target or ()) <= longest
        if shown is not None and shown.messages and fits:
            found.append(Reading(call, shown, target))
    return found


def right_words(reader: Call, calls: Sequence[Call]) -> Ids | None:
    """y* of a reader, by the order above; None if nobody was right."""
    right = [call for call in calls if call.correct and call.gen_ids]
    ranks = {call.call_id: (call.round == reader.round, call.round) for call in right}
    own = [call for call in right if call.call_id == reader.call_id]
    # The first of those that rank alike.
    best = own or sorted(right, key=lambda c: ranks[c.call_id], reverse=True)
    return best[0].gen_ids if best else None


def influence_pairs(of: Sequence[Reading]) -> Iterator[Pair]:
    """All that `influences` asks the worth of."""
    for reading in of:
        for removed in ((), *((name,) for name in reading.shown.messages)):
            yield reading.without(frozenset(removed))


def influences(of: Sequence[Reading], worth: Worth) -> dict[str, tuple[float, int]]:
    """The influence of every message that was read, and by how many prompts; by call id."""
    lost: dict[str, list[float]] = {}
    for reading in of:
        whole = worth(reading.without(frozenset()))
        for name in reading.shown.messages:
            lost.setdefault(name, []).append(whole - worth(reading.without(frozenset([name]))))
    return {name: (math.fsum(some) / len(some), len(some)) for name, some in lost.items()}


@dataclasses.dataclass(frozen=True)
class Game:
    """The game that the agents of one debate play.

    Attributes:
      readings: of its last round.
      authors: who wrote each message, by call id.
      exact_up_to, pairs, seed: as for `shapley`.
    """

    readings: tuple[Reading, ...]
    authors: Mapping[str, str]
    exact_up_to: int = 6
    pairs: int = 32
    seed: int = 0

    @property
    def players(self) -> list[str]:
        """The agents whose messages are read in the last round, in the transcripts' order."""
        names = [name for reading in self.readings for name in reading.shown.messages]
        return list(dict.fromkeys(self.authors[name] for name in names))

    def asked(self) -> Iterator[Pair]:
        """All that `solve` asks the worth of."""
        sizes = {"exact_up_to": self.exact_up_to, "pairs": self.pairs, "seed": self.seed}
        for coalition in coalitions(self.players, **sizes):
            yield from self._pairs(coalition)

    def solve(self, worth: Worth) -> Shapley:
        """The agents' shares of the gain."""

        def game(asked: Sequence[Coalition]) -> list[float]:
            count = len(self.readings)
            return [math.fsum(map(worth, self._pairs(each))) / count for each in asked]

        sizes = {"exact_up_to": self.exact_up_to, "pairs": self.pairs, "seed": self.seed}
        return shapley(self.players, game, **sizes)

    def _pairs(self, coalition: Coalition) -> Iterator[Pair]:
        for reading in self.readings:
            others = (n for n in reading.shown.messages if self.authors[n] not in coalition)
            yield reading.without(frozenset(others))


def game(of: Sequence[Reading], calls: Sequence[Call], **sizes: int) -> Game | None:
    """The game of a debate, or None if its last round reads nothing.

    Args:
      of: the debate's readings.
      calls: its calls.
      sizes: `exact_up_to`, `pairs` and `seed` of `shapley`.
    """
    last = max((call.round for call in calls), default=0)
    final = tuple(reading for reading in of if reading.reader.round == last)
    if not final:
        return None
    return Game(final, {call.call_id: call.agent for call in calls}, **sizes)
