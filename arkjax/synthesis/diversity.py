"""Choosing traces that differ from one another."""

from collections.abc import Sequence

from arkjax.trajectories.schema import Call

_GRAM = 4


def distance(a: Call, b: Call) -> float:
    """Jaccard distance of the sets of 4-grams of two calls' tokens, in [0, 1]."""
    grams = [
        {call.gen_ids[i : i + _GRAM] for i in range(max(len(call.gen_ids) - _GRAM + 1, 1))}
        for call in (a, b)
    ]
    return 1.0 - len(grams[0] & grams[1]) / len(grams[0] | grams[1])


def most_diverse(calls: Sequence[Call], k: int) -> list[Call]:
    """At most k calls by greedy max-min distance, beginning with the first.

    The first call is the preferred one; each further one is the call farthest from those chosen,
    the earlier in the list where distances are equal (Gonzalez 1985: within a factor of two of the
    best spread).
    """
    chosen = list(calls[:1])
    rest = list(calls[1:])
    while rest and len(chosen) < k:
        spread = [min(distance(call, other) for other in chosen) for call in rest]
        chosen.append(rest.pop(spread.index(max(spread))))
    return chosen
