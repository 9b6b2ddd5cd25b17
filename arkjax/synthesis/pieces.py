"""Targets put together from recorded tokens and fixed connecting texts."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from arkjax.synthesis.examples import Example
from arkjax.synthesis.operations import Step
from arkjax.trajectories.schema import Call


@dataclasses.dataclass(frozen=True)
class Piece:
    """A run of target tokens.

    Attributes:
      ids: the tokens.
      call: whose they are; None for a connecting text.
      start: they are `call.gen_ids[start : start + len(ids)]`.
      weight: share of the example's weight; 0 for words that are shown and not learned.
    """

    ids: tuple[int, ...]
    call: Call | None = None
    start: int = 0
    weight: float = 1.0


def of_call(call: Call, start: int = 0, end: int | None = None, weight: float = 1.0) -> Piece:
    """A run of a call's tokens, by default all of them."""
    return Piece(call.gen_ids[start:end], call, start, weight)


def of_step(step: Step, weight: float = 1.0) -> Piece:
    """One step."""
    return Piece(step.ids, step.call, step.start, weight)


def closing(step: Step) -> Piece:
    """The end tokens behind a call's last step."""
    return of_call(step.call, step.end)


def joined(
    problem_id: str,
    kind: str,
    prompt: Sequence[int],
    pieces: Sequence[Piece],
    facts: Mapping[str, Any] | None = None,
) -> Example:
    """The example whose target is these pieces, one behind the other, with weight 1.

    Its provenance names the problem, the kind, the calls in the order in which their words come,
    and `spans`: for each run of recorded tokens `[call_id, start, end, at]`, which says that
    `call.gen_ids[start:end]` stands in the target from `at` on. All other tokens are connecting
    texts.
    """
    runs: list[Piece] = []
    for piece in (piece for piece in pieces if piece.ids):
        last = runs[-1] if runs else None
        if (
            last is not None
            and last.call is not None
            and piece.call is not None
            and last.call.call_id == piece.call.call_id
            and last.start + len(last.ids) == piece.start
            and last.weight == piece.weight
        ):
            runs[-1] = dataclasses.replace(last, ids=last.ids + piece.ids)
        else:
            runs.append(piece)
    target: list[int] = []
    shares: list[float] = []
    spans = []
    for run in runs:
        if run.call is not None:
            end = run.start + len(run.ids)
            spans.append([run.call.call_id, run.start, end, len(target)])
        target += run.ids
        shares += [run.weight] * len(run.ids)
    provenance = {
        "problem_id": problem_id,
        "call_ids": list(dict.fromkeys(name for name, *_ in spans)),
        "kind": kind,
        **(facts or {}),
        "spans": spans,
    }
    whole = all(share == 1.0 for share in shares)
    return Example(tuple(prompt), tuple(target), 1.0, provenance, None if whole else tuple(shares))
