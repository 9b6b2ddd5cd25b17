"""Choosing traces that differ from one another: in words, in steps, or in what a model sees."""

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from arkjax.synthesis.operations import StepReader, sequence_distance
from arkjax.trajectories.schema import Call

Diversity = Literal["ngrams", "steps", "hidden"]
Embedding = Callable[[Sequence[Call]], np.ndarray]
"""Embeds N calls as `[N, D]`; see `arkjax.training.embeddings`."""
Distance = Callable[[Call, Call], float]

_GRAM = 4


def distance(a: Call, b: Call) -> float:
    """Jaccard distance of the sets of 4-grams of two calls' tokens, in [0, 1]."""
    grams = [
        {call.gen_ids[i : i + _GRAM] for i in range(max(len(call.gen_ids) - _GRAM + 1, 1))}
        for call in (a, b)
    ]
    return 1.0 - len(grams[0] & grams[1]) / len(grams[0] | grams[1])


def step_distance(reader: StepReader) -> Distance:
    """Distance of the sequences of steps that a reader finds in two calls, in [0, 1].

    Answers that work out the same in the same order are alike, whatever their words.
    """
    reader = reader.remembering()

    def keys(call: Call) -> list[tuple[str, str]]:
        return [step.key for step in reader(call)]

    return lambda a, b: sequence_distance(keys(a), keys(b))


def hidden_distance(calls: Sequence[Call], embedded: np.ndarray) -> Distance:
    """Euclidean distance of what the calls are embedded as, `[N, D]`.

    What all answers have in common, and in hidden states that is much, cancels out.
    """
    place = {call.call_id: i for i, call in enumerate(calls)}
    embedded = np.asarray(embedded, np.float64)

    def between(a: Call, b: Call) -> float:
        return float(np.linalg.norm(embedded[place[a.call_id]] - embedded[place[b.call_id]]))

    return between


def most_diverse(calls: Sequence[Call], k: int, between: Distance = distance) -> list[Call]:
    """At most k calls by greedy max-min distance, beginning with the first.

    The first call is the preferred one; each further one is the call farthest from those chosen,
    the earlier in the list where distances are equal (Gonzalez 1985: within a factor of two of the
    best spread, if the distance is a metric).
    """
    chosen, rest = list(calls[:1]), list(calls[1:])
    spread = [between(call, chosen[0]) for call in rest] if k > 1 else []
    while rest and len(chosen) < k:
        at = spread.index(max(spread))
        chosen.append(rest.pop(at))
        spread.pop(at)
        spread = [
            min(known, between(call, chosen[-1])) for call, known in zip(rest, spread, strict=True)
        ]
    return chosen
