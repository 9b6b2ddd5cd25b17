"""Attribution as preferences among traces, and as weights of training examples."""

import bisect
import collections
import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from arkjax.trajectories.attribution import Attribution
from arkjax.trajectories.schema import Call

CreditKind = Literal["none", "influence", "shapley", "corrected"]


def credit_of(call: Call, attribution: Attribution, kind: CreditKind) -> float | None:
    """What a call is credited with; None where that is not known.

    Args:
      call: a message of the debates that were attributed, or any other.
      attribution: of the debates.
      kind: "influence" is the message's own; a message that nobody read has that of its author, the
        sum over its messages in the same debate. "shapley" is the author's share of the gain, and
        "corrected" how many others it put right, less those that it misled.
    """
    message = attribution.messages.get(call.call_id)
    agent = attribution.agents.get((call.problem_id, call.agent))
    if message is None or agent is None or kind == "none":
        # A call of another play may be about the same problem, by an agent of the same name.
        return None
    if kind == "influence":
        return agent.influence if message.influence is None else message.influence
    return agent.shapley if kind == "shapley" else agent.corrected - agent.misled


def example_weights(credits: Sequence[float | None]) -> list[float]:
    """Weights of the examples of one data set: 1/2 + the share of examples that have less credit.

    With N the number of examples whose credit is known, and r_i the rank of example i among them
    from 1 to N, equal ones sharing the mean of their ranks,

        w_i = 1/2 + (r_i - 1/2) / N, and w_i = 1 where the credit is not known.

    Ranks, since nats have no bound and no common scale: the weights lie in (1/2, 3/2), their mean
    is 1, equal credits have equal weights, and where all are equal every weight is 1.
    """
    ranks = Ranks.of(credits)
    return [ranks.weight(credit) for credit in credits]


@dataclasses.dataclass(frozen=True)
class Ranks:
    """Where a credit stands among all those of a data set; see `example_weights`.

    Attributes:
      values: the different credits, ascending.
      below: for each how many examples have less, and last how many there are.
    """

    values: Sequence[float]
    below: Sequence[int]

    @classmethod
    def of(cls, credits: Iterable[float | None]) -> "Ranks":
        """Of the credits of all examples."""
        return cls.counted(collections.Counter(c for c in credits if c is not None))

    @classmethod
    def counted(cls, times: Mapping[float, int]) -> "Ranks":
        """Of the different credits, given how many examples have each."""
        values = sorted(times)
        return cls(values, list(itertools.accumulate((times[v] for v in values), initial=0)))

    def weight(self, credit: float | None) -> float:
        """The weight of an example of this credit, which is one of those counted."""
        if credit is None:
            return 1.0
        at = bisect.bisect_left(self.values, credit)
        return 0.5 + (self.below[at] + self.below[at + 1]) / (2 * self.below[-1])
