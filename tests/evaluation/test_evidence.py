"""Pool, flips and calibration: exact on small tables, and what holds of any table."""

import numpy as np
import pytest

from arkjax.errors import DataError
from arkjax.evaluation import evidence

pytestmark = pytest.mark.fast


def cells(*rows):
    """Cells written "10 01": 1 is right, a word a seed."""
    return {"team": np.array([[c == "1" for c in word] for row in rows for word in row.split()])}


def test_pool_of_a_small_table():
    found = evidence.pools(cells("11000000"), cells("11110000"), 500)["team"]
    assert found.accuracy.value == 0.5 and found.gap.value == 0.25
    low, high = found.gap.ci95
    assert 0 <= low < 0.25 < high


def test_right_answer_is_in_the_pool_even_if_no_message_states_it():
    found = evidence.pools(cells("1110"), cells("0000"), 200)["team"]
    assert found.accuracy.value == 0.75 and found.gap.value == 0
    # No gap was seen over four problems: the exact bound, and not a certainty.
    assert found.gap.ci95 == (0.0, pytest.approx(1 - 0.025**0.25))


def test_flips_of_a_small_table():
    # Two seeds, six problems: openings are right 3 + 2 times of 12.
    began, ended = cells("111000 110000"), cells("110110 101000")
    found = evidence.flips(ended, began, 2000)["team"]
    assert (found.corrected.n, found.corrected.count) == (7, 3)
    assert (found.misled.n, found.misled.count) == (5, 2)
    assert found.corrected.rate.value == pytest.approx(3 / 7)
    assert found.misled.rate.value == pytest.approx(2 / 5)
    assert found.net.value == pytest.approx(1 / 12)
    for turned in (found.corrected, found.misled):
        low, high = turned.rate.ci95
        assert 0 <= low <= turned.rate.value <= high <= 1


def test_where_no_opening_is_of_a_kind_there_is_no_rate():
    found = evidence.flips(cells("1101"), cells("1111"), 200)["team"]
    assert found.corrected == evidence.Turned(0, 0, None)
    assert (found.misled.n, found.misled.count, found.misled.rate.value) == (4, 1, 0.25)
    assert found.net.value == -0.25


def test_where_nothing_flips_the_interval_is_that_of_the_problems():
    found = evidence.flips(cells("1100 1100"), cells("1100 1100"), 200)["team"]
    assert found.net.value == 0
    bound = 1 - 0.025 ** (1 / 4)
    assert found.net.ci95 == (pytest.approx(-bound), pytest.approx(bound))
    # Two problems had a wrong opening, under both seeds.
    assert found.corrected.rate.ci95 == (0.0, pytest.approx(1 - 0.025 ** (1 / 2)))


@pytest.mark.parametrize("seed", range(8))
def test_net_flips_are_what_talking_adds(seed):
    rng = np.random.default_rng(seed)
    shape = (int(rng.integers(1, 4)), int(rng.integers(1, 60)))
    began, ended, stated = (
        {"a": rng.random(shape) < rng.random(), "b": rng.random(shape) < rng.random()}
        for _ in range(3)
    )
    flips = evidence.flips(ended, began, 200)
    pools = evidence.pools(ended, stated, 200)
    for name in ("a", "b"):
        found = flips[name]
        assert found.net.value == pytest.approx(ended[name].mean() - began[name].mean())
        assert found.net.ci95[0] <= found.net.ci95[1]
        assert found.corrected.n + found.misled.n == ended[name].size
        pool = pools[name]
        assert pool.accuracy.value - pool.gap.value == pytest.approx(ended[name].mean())


def test_intervals_of_rates_cover_the_truth():
    rng = np.random.default_rng(11)
    covered = 0
    for _ in range(200):
        began = rng.random((1, 300)) < 0.6
        ended = np.where(began, rng.random((1, 300)) > 0.1, rng.random((1, 300)) < 0.4)
        low, high = evidence.flips({"a": ended}, {"a": began}, 400)["a"].corrected.rate.ci95
        covered += low <= 0.4 <= high
    # 200 trials of a 95% interval: standard error 1.5 points.
    assert 0.90 < covered / 200 < 0.995


def test_calibration_of_a_small_table():
    confidence = np.array([0.9, 0.95, 0.35, 0.4, 0.0, 1.0])
    correct = np.array([True, False, False, True, False, True])
    found = evidence.calibration(confidence, correct)
    assert [(b.low, b.high, b.n) for b in found.bins] == [
        (0.0, 0.1, 1), (0.3, 0.4, 2), (0.8, 0.9, 1), (0.9, 1.0, 2),
    ]  # fmt: skip
    assert [b.accuracy for b in found.bins] == [0, 0.5, 1, 0.5]
    assert [b.confidence for b in found.bins] == pytest.approx([0, 0.375, 0.9, 0.975])
    # |0-0| + 2|.375-.5| + |.9-1| + 2|.975-.5|, over six answers.
    assert found.ece == pytest.approx((0 + 0.25 + 0.1 + 0.95) / 6)
    squares = [0.1**2, 0.95**2, 0.35**2, 0.6**2, 0, 0]
    assert found.brier == pytest.approx(sum(squares) / 6)
    assert found.n == 6


def test_shares_of_votes_lie_in_the_bin_that_they_close():
    for voters in (2, 4, 5, 10, 20):
        shares = np.arange(voters + 1) / voters
        found = evidence.calibration(shares, np.ones(len(shares), bool))
        held = {b.high: b.n for b in found.bins}
        for share in shares:
            tenth = max(1, -(-int(round(share * voters)) * 10 // voters))
            assert held[tenth / 10] >= 1


def test_perfect_calibration_and_none():
    sure = np.array([1.0, 1.0, 0.0])
    found = evidence.calibration(sure, sure.astype(bool))
    assert (found.ece, found.brier) == (0, 0)
    nan = np.full(3, np.nan)
    assert evidence.calibration(nan, np.ones(3, bool)) is None
    mixed = evidence.calibration(np.array([np.nan, 1.0]), np.array([False, True]))
    assert (mixed.n, mixed.ece) == (1, 0)
    assert evidence.calibration(np.zeros(0), np.zeros(0, bool)) is None


@pytest.mark.parametrize("seed", range(5))
def test_calibration_of_any_table_is_bounded(seed):
    rng = np.random.default_rng(seed)
    confidence = rng.random(200)
    correct = rng.random(200) < confidence**2
    found = evidence.calibration(confidence, correct)
    # Jensen: a bin's error is no larger than that of its members, and those at most one.
    assert 0 <= found.ece <= np.abs(confidence - correct).mean() <= 1
    assert found.ece**2 <= found.brier
    assert sum(b.n for b in found.bins) == found.n == 200


def test_what_is_no_confidence_is_refused():
    with pytest.raises(DataError, match="confidence is 1.5"):
        evidence.calibration(np.array([0.5, 1.5]), np.ones(2, bool))
    with pytest.raises(DataError, match="one length"):
        evidence.calibration(np.array([0.5]), np.ones(2, bool))
