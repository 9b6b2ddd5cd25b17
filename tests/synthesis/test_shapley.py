"""Shapley values: their axioms, known games, and how far sampling is off."""

import math

import numpy as np
import pytest

from arkjax.synthesis.shapley import shapley


def _random_game(n: int, seed: int):
    rng = np.random.default_rng(seed)
    players = [f"p{i}" for i in range(n)]
    table: dict[frozenset, float] = {}

    def game(coalitions):
        for coalition in sorted(set(coalitions) - table.keys(), key=sorted):
            table[coalition] = float(rng.normal())
        return [table[coalition] for coalition in coalitions]

    return players, game


@pytest.mark.parametrize("n", range(7))
def test_exact_values_sum_to_the_gain(n):
    players, game = _random_game(n, seed=n)
    result = shapley(players, game)
    assert result.exact and result.coalitions == 2**n
    assert abs(math.fsum(result.values.values()) - result.gain) < 1e-12


def test_the_glove_game():
    """One left glove, two right ones: 2/3, 1/6, 1/6 (Shapley's standard example)."""
    result = shapley(
        ["left", "right", "other"],
        lambda cs: [float("left" in c and len(c) > 1) for c in cs],
    )
    assert result.values == pytest.approx({"left": 2 / 3, "right": 1 / 6, "other": 1 / 6})


def test_an_additive_game_gives_everybody_their_own_and_sampling_has_no_error():
    own = {f"p{i}": float(i) for i in range(12)}
    result = shapley(list(own), lambda cs: [sum(own[p] for p in c) for c in cs], pairs=4)
    assert not result.exact
    assert result.values == pytest.approx(own)
    assert max(result.errors.values()) < 1e-12


def test_sampled_values_are_near_the_exact_ones_as_their_errors_say():
    players, game = _random_game(8, seed=3)
    exact = shapley(players, game, exact_up_to=8)
    off = []
    for seed in range(40):
        sampled = shapley(players, game, pairs=24, seed=seed)
        assert abs(math.fsum(sampled.values.values()) - sampled.gain) < 1e-9
        off += [(sampled.values[p] - exact.values[p]) / sampled.errors[p] for p in players]
    # Studentised errors of 24 pairs: mean 0, variance 23 / 21.
    assert abs(np.mean(off)) < 0.2
    assert 0.8 < np.std(off) < 1.3


def test_every_coalition_is_asked_for_once_in_one_batch():
    players, game = _random_game(9, seed=4)
    asked = []

    def counted(coalitions):
        asked.append(list(coalitions))
        return game(coalitions)

    result = shapley(players, counted, pairs=8)
    (batch,) = asked
    assert len(batch) == len(set(batch)) == result.coalitions <= 2 + 16 * 8
    assert frozenset() in batch and frozenset(players) in batch


def test_what_is_wrong_is_said():
    with pytest.raises(ValueError, match="repeated"):
        shapley(["a", "a"], lambda cs: [0.0] * len(cs))
    with pytest.raises(ValueError, match="at least 2"):
        shapley([str(i) for i in range(9)], lambda cs: [0.0] * len(cs), pairs=1)
    with pytest.raises(ValueError, match="worth of .* is nan"):
        shapley(["a", "b"], lambda cs: [math.nan] * len(cs))
