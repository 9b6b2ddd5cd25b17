"""Intervals cover, pairing helps, tests are exact, and the same cells give the same figures."""

from math import comb

import numpy as np
import pytest

from arkjax.errors import DataError
from arkjax.evaluation.statistics import (
    RESAMPLES,
    PairedBootstrap,
    holm,
    mcnemar,
    mcnemar_over_seeds,
)


def correlated(rng, seeds, problems, gap=0.1, share=0.7):
    """Two systems that find the same problems hard; b is `gap` better. Bool [S, P] each."""
    hard = rng.random(problems)
    mixed = [share * hard + (1 - share) * rng.random((seeds, problems)) for _ in range(2)]
    return mixed[0] < 0.5, mixed[1] < 0.5 + gap


def truth(gap=0.1, share=0.7):
    rng = np.random.default_rng(99)
    a, b = correlated(rng, 1, 2_000_000, gap, share)
    return a.mean(), b.mean() - a.mean()


def test_intervals_cover_the_truth_about_95_times_in_100():
    accuracy, difference = truth()
    rng = np.random.default_rng(3)
    covered = np.zeros(2)
    for _ in range(400):
        a, b = correlated(rng, 1, 250)
        boot = PairedBootstrap({"a": a, "b": b}, resamples=600)
        low, high = boot.accuracy("a").ci95
        covered[0] += low <= accuracy <= high
        low, high = boot.difference("b", "a").ci95
        covered[1] += low <= difference <= high
    # 400 trials of a 95% interval: standard error 1.1 points.
    assert (covered / 400 > 0.915).all() and (covered / 400 < 0.985).all()


def test_several_seeds_cover_problems_and_seeds_together():
    rng = np.random.default_rng(5)
    trials, covered = 200, 0
    for _ in range(trials):
        level = np.clip(0.6 + 0.05 * rng.standard_normal((8, 1)), 0, 1)
        boot = PairedBootstrap({"a": rng.random((8, 200)) < level}, resamples=500)
        low, high = boot.accuracy("a").ci95
        covered += low <= 0.6 <= high
    assert covered / trials > 0.89  # percentile intervals of 8 runs know no t distribution


def test_pairing_narrows_the_interval_of_correlated_systems():
    a, b = correlated(np.random.default_rng(1), 2, 800, share=0.95)
    boot = PairedBootstrap({"a": a, "b": b}, resamples=3000)
    low, high = boot.difference("b", "a").ci95
    ends = [boot.accuracy(name).ci95 for name in "ab"]
    unpaired = np.hypot(*[end[1] - end[0] for end in ends])
    assert high - low < 0.8 * unpaired


def test_seed_variation_widens_the_interval():
    rng = np.random.default_rng(2)
    steady = rng.random((4, 2000)) < 0.6
    unsteady = rng.random((4, 2000)) < np.array([[0.5], [0.55], [0.65], [0.7]])
    width = {}
    for name, cells in (("steady", steady), ("unsteady", unsteady)):
        low, high = PairedBootstrap({"a": cells}, resamples=2000).accuracy("a").ci95
        width[name] = high - low
    assert width["unsteady"] > 2 * width["steady"]


def test_seed_part_of_the_variance_is_unbiased():
    """All problems of a seed alike: the variance of the mean must be s^2 / S."""
    levels = np.array([True, False, True, True, False])
    cells = np.repeat(levels[:, None], 50, axis=1)
    boot = PairedBootstrap({"a": cells}, resamples=20_000)
    expected = levels.astype(float).var(ddof=1) / len(levels)
    assert boot._replicates.var() == pytest.approx(expected, rel=0.05)


def test_same_seed_same_figures_and_no_system_disturbs_another():
    a, b = correlated(np.random.default_rng(4), 3, 100)
    one = PairedBootstrap({"a": a, "b": b}, resamples=500)
    two = PairedBootstrap({"x": ~a, "b": b, "a": a}, resamples=500)
    other = PairedBootstrap({"a": a, "b": b}, resamples=500, seed=1)
    assert one.difference("a", "b") == two.difference("a", "b")
    assert one.difference("a", "b") != other.difference("a", "b")


def test_p_value_and_interval_of_equal_and_of_opposite_systems():
    a = np.random.default_rng(0).random((1, 300)) < 0.5
    boot = PairedBootstrap({"a": a, "same": a, "not": ~a, "all": a | ~a}, resamples=999)
    same = boot.difference("a", "same")
    # Up to 1.2% of problems may be such that one of the two alone solves: none is among 300.
    assert (same.value, same.p, same.holds_zero) == (0, 1, True)
    assert same.ci95 == pytest.approx((-0.01222, 0.01222), abs=1e-5)
    assert boot.difference("a", "a").ci95 == (0, 0)
    assert boot.difference("all", "a").p == pytest.approx(2 / 1000)
    assert not boot.difference("all", "a").holds_zero


def test_perfect_and_hopeless_systems_keep_an_honest_interval():
    ones = np.ones((2, 100), dtype=bool)
    boot = PairedBootstrap({"all": ones, "none": ~ones}, resamples=200)
    low, high = boot.accuracy("all").ci95
    assert high == 1.0 and low**100 == pytest.approx(0.025)
    assert boot.accuracy("none").ci95 == (0.0, pytest.approx(1 - low))


def first(share, problems=1000):
    return (np.arange(problems) < share * problems)[None]


def test_captured_gain_of_known_shares():
    cells = {"base": first(0.4), "team": first(0.6), "half": first(0.5), "more": first(0.65)}
    cells |= {"none": first(0.4), "all": first(0.6)}
    boot = PairedBootstrap(cells, resamples=2000)
    half, more = boot.captured_gain("half"), boot.captured_gain("more")
    assert half.value == pytest.approx(0.5) and more.value == pytest.approx(1.25)
    assert half.ci95[0] < 0.5 < half.ci95[1] and more.ci95[0] > 1
    assert boot.captured_gain("base").value == 0
    assert boot.captured_gain("team").ci95 == (1.0, 1.0)
    # None of 1,000 problems told them apart: 0.37% of all may, of a gain of 20%.
    assert boot.captured_gain("none").ci95 == pytest.approx((-0.0184107, 0.0184107), abs=1e-6)
    assert boot.captured_gain("all").ci95 == pytest.approx((0.9815893, 1.0184107), abs=1e-6)


@pytest.mark.parametrize(
    ("team", "why"),
    [(0.4, "cannot be told from zero"), (0.401, "cannot be"), (0.3, "is not above")],
)
def test_captured_gain_is_undefined_without_a_gain(team, why):
    boot = PairedBootstrap(
        {"base": first(0.4), "team": first(team), "student": first(0.9)}, resamples=500
    )
    gain = boot.captured_gain("student")
    assert gain.value is None and gain.ci95 is None
    assert why in gain.reason and "team minus base" in gain.reason


def test_bad_cells_are_refused():
    for cells in ({}, {"a": np.ones(3, bool)}, {"a": np.ones((1, 0), bool)}):
        with pytest.raises(DataError, match="bootstrap"):
            PairedBootstrap(cells)
    with pytest.raises(DataError, match="different seeds or problems"):
        PairedBootstrap({"a": np.ones((1, 3), bool), "b": np.ones((1, 4), bool)})


@pytest.mark.parametrize(
    ("only_a", "only_b", "p"),
    [(0, 0, 1.0), (5, 0, 0.0625), (0, 5, 0.0625), (1, 9, 0.021484375), (4, 4, 1.0), (10, 0, 2**-9)],
)
def test_mcnemar_exact_values(only_a, only_b, p):
    a = np.array([True] * only_a + [False] * only_b + [True] * 7 + [False] * 2)
    b = np.array([False] * only_a + [True] * only_b + [True] * 7 + [False] * 2)
    test = mcnemar(a, b)
    assert (test.only_a, test.only_b) == (only_a, only_b)
    assert test.p == pytest.approx(p, abs=1e-15)


def test_mcnemar_tail_of_many_problems_is_exact():
    a = np.arange(3000) < 1400
    expected = 2 * sum(comb(3000, k) for k in range(1401)) / 2**3000
    assert mcnemar(a, ~a).p == pytest.approx(expected, rel=1e-12)


def test_mcnemar_refuses_unaligned():
    with pytest.raises(DataError, match="mcnemar"):
        mcnemar(np.ones(3, bool), np.ones(4, bool))


def test_holm_steps_down_and_never_falls():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0] and holm([]) == []


def test_over_seeds_each_problem_counts_once():
    a = np.array([[1, 1, 1, 0, 1, 0], [1, 0, 1, 0, 0, 0], [1, 1, 0, 1, 0, 0]], dtype=bool)
    b = np.array([[0, 0, 1, 0, 0, 0], [0, 1, 1, 0, 1, 1], [0, 0, 0, 0, 0, 1]], dtype=bool)
    # a leads by 3, 1, 0, 1, 0 and -2 runs: three problems are a's, one is b's.
    found = mcnemar_over_seeds(a, b)
    assert (found.only_a, found.only_b) == (3, 1)
    assert found.p == pytest.approx(2 * (1 + 4) / 16)
    assert mcnemar_over_seeds(a[:1], b[:1]) == mcnemar(a[0], b[0])
    # The same run three times over is no more evidence than once.
    assert mcnemar_over_seeds(np.repeat(a[:1], 3, 0), np.repeat(b[:1], 3, 0)) == mcnemar(a[0], b[0])
    with pytest.raises(DataError, match="one shape"):
        mcnemar_over_seeds(a, b[:1])


def test_share_is_a_ratio_and_exact_at_its_ends():
    whole = np.arange(40)[None] < 20
    cells = {"whole": whole, "half": np.arange(40)[None] < 10, "none": whole & False}
    boot = PairedBootstrap({**cells, "all": whole}, resamples=2000)
    half = boot.share("half", "whole")
    assert half.value == 0.5
    # Ten of twenty: the exact binomial interval is [0.272, 0.728].
    assert half.ci95 == pytest.approx((0.272, 0.728), abs=0.05)
    assert boot.share("none", "whole").ci95 == (0.0, pytest.approx(1 - 0.025 ** (1 / 20)))
    assert boot.share("all", "whole").ci95 == (pytest.approx(0.025 ** (1 / 20)), 1.0)
    assert boot.share("none", "none") is None


@pytest.mark.parametrize("seeds", [1, 3])
def test_more_draws_change_no_interval_and_make_p_finer(seeds):
    rng = np.random.default_rng(3)
    cells = {name: rng.random((seeds, 37)) < rate for name, rate in (("a", 0.9), ("b", 0.2))}
    cells |= {"base": cells["b"], "team": cells["a"]}
    few = PairedBootstrap(cells)
    many = PairedBootstrap(cells, resamples=2 * RESAMPLES + 5)
    assert many._replicates.shape == (2 * RESAMPLES + 5, 4)
    assert few.accuracy("a") == many.accuracy("a")
    assert few.share("b", "b") == many.share("b", "b")
    assert few.captured_gain("b") == many.captured_gain("b")
    one, other = few.difference("a", "b"), many.difference("a", "b")
    assert one.ci95 == other.ci95 and other.p == pytest.approx(2 / (2 * RESAMPLES + 6))
    assert one.p == pytest.approx(2 / (RESAMPLES + 1))
