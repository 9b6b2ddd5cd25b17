"""Shapley values: what each agent contributed to what its team achieved together.

The value of agent i in a game v over agents N is its marginal contribution, averaged over all
orders in which the team can be assembled (Shapley, 1953):

    phi_i = sum over S in N without i of |S|! (|N| - |S| - 1)! / |N|! * (v(S + i) - v(S)).

It is the only division of v(N) - v(empty) that treats equals alike, gives nothing to who changes
nothing, and is linear in v. Small teams are computed exactly, larger ones by sampled orders in
antithetic pairs (Castro et al., 2009; Mitchell et al., arXiv 2104.12199): an order and its reverse.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np

Coalition = frozenset[str]
Game = Callable[[Sequence[Coalition]], Sequence[float]]
"""The worth of each of some coalitions; all are asked for at once, so that they are one batch."""


@dataclasses.dataclass(frozen=True)
class Shapley:
    """A division of a team's gain.

    Attributes:
      values: of each player; they sum to `gain` up to the rounding of floats.
      errors: standard error of each value; 0 where it was computed exactly.
      gain: v(everybody) - v(nobody).
      exact: whether all coalitions were valued.
      coalitions: how many were.
    """

    values: dict[str, float]
    errors: dict[str, float]
    gain: float
    exact: bool
    coalitions: int


def shapley(
    players: Sequence[str], game: Game, *, exact_up_to: int = 6, pairs: int = 32, seed: int = 0
) -> Shapley:
    """The Shapley value of every player.

    Args:
      players: ids, all different.
      game: gives the worth of coalitions, nobody and everybody among them; it is called once, with
        every coalition once.
      exact_up_to: teams of at most so many are computed exactly, from 2^n coalitions.
      pairs: pairs of orders that are sampled for larger ones, at least 2; n coalitions each or
        fewer for every order.
      seed: of the orders.

    Raises:
      ValueError: players are repeated, pairs are too few, or a worth is not finite.
    """
    n = len(players)
    masks, chains = _asked(players, exact_up_to, pairs, seed)
    worth = _worths(players, masks, game)
    if not chains:
        return _exact(players, worth)
    marginals = np.zeros((pairs, 2, n))
    for p, pair in enumerate(chains):
        for side, (order, chain) in enumerate(pair):
            marginals[p, side, order] = np.diff([worth[mask] for mask in chain])
    # The two orders of a pair are not independent; the pairs are.
    means = marginals.mean(axis=1)
    errors = means.std(axis=0, ddof=1) / math.sqrt(pairs)
    return Shapley(
        values=dict(zip(players, means.mean(axis=0).tolist(), strict=True)),
        errors=dict(zip(players, errors.tolist(), strict=True)),
        gain=worth[(1 << n) - 1] - worth[0],
        exact=False,
        coalitions=len(masks),
    )


def coalitions(
    players: Sequence[str], *, exact_up_to: int = 6, pairs: int = 32, seed: int = 0
) -> list[Coalition]:
    """The coalitions that `shapley` asks the worth of, given the same arguments.

    So that the games of many teams can be valued as one batch beforehand.

    Raises:
      ValueError: as `shapley`.
    """
    return [_coalition(players, mask) for mask in _asked(players, exact_up_to, pairs, seed)[0]]


_Chain = tuple[list[int], list[int]]
"""An order of the players, by number, and the coalitions that it passes through."""


def _asked(
    players: Sequence[str], exact_up_to: int, pairs: int, seed: int
) -> tuple[list[int], list[tuple[_Chain, _Chain]]]:
    """The coalitions to be valued as bits, and the pairs of orders; none if it is exact."""
    n = len(players)
    if len(set(players)) != n:
        raise ValueError(f"players are repeated: {sorted(players)}")
    if n <= exact_up_to:
        return list(range(1 << n)), []
    if pairs < 2:
        raise ValueError(f"pairs is {pairs}: a standard error takes at least 2")
    rng = np.random.default_rng(seed)
    orders = [rng.permutation(n).tolist() for _ in range(pairs)]
    # Who is there before each step of each order, as bits; Python's integers hold any team.
    chains = [tuple((o, _chain(o)) for o in (order, order[::-1])) for order in orders]
    masks = {mask for pair in chains for _, chain in pair for mask in chain}
    return sorted(masks), chains


def _exact(players: Sequence[str], worth: dict[int, float]) -> Shapley:
    n = len(players)
    values = {}
    for i, player in enumerate(players):
        terms = [
            (worth[mask | 1 << i] - worth[mask]) / (n * math.comb(n - 1, mask.bit_count()))
            for mask in range(1 << n)
            if not mask >> i & 1
        ]
        values[player] = math.fsum(terms)
    gain = worth[(1 << n) - 1] - worth[0]
    return Shapley(values, dict.fromkeys(players, 0.0), gain, True, 1 << n)


def _chain(order: Sequence[int]) -> list[int]:
    """The coalitions that an order passes through, nobody first."""
    chain = [0]
    for i in order:
        chain.append(chain[-1] | 1 << i)
    return chain


def _worths(players: Sequence[str], masks: Sequence[int], game: Game) -> dict[int, float]:
    asked = [_coalition(players, mask) for mask in masks]
    worths = [float(worth) for worth in game(asked)]
    for coalition, worth in zip(asked, worths, strict=True):
        if not math.isfinite(worth):
            raise ValueError(f"the worth of {sorted(coalition)} is {worth}")
    return dict(zip(masks, worths, strict=True))


def _coalition(players: Sequence[str], mask: int) -> Coalition:
    return frozenset(player for i, player in enumerate(players) if mask >> i & 1)
