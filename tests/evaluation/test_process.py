"""Figures of a process reward model against brute force, and choosing among samples."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arkjax.errors import ConfigError, DataError
from arkjax.evaluation.process import (
    ScoredAnswer,
    auroc,
    best_of_n,
    choose_threshold,
    first_error,
    first_errors,
    step_quality,
)
from arkjax.evaluation.step_rewards import aggregate, best_of, weighted_vote

pytestmark = pytest.mark.fast

# Few different values, so that many tie.
_SCORES = st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.5000001, 0.9, 1.0])
_STEPS = st.lists(st.tuples(_SCORES, st.booleans()), max_size=12)


# --- AUROC ----------------------------------------------------------------------------------------


@settings(deadline=None)
@given(_STEPS)
def test_the_area_is_the_share_of_pairs_in_order(steps):
    scores = [score for score, _ in steps]
    right = [one for _, one in steps]
    pairs = [
        (a > b) + 0.5 * (a == b)
        for a, is_right in steps
        for b, other in steps
        if is_right and not other
    ]
    expected = sum(pairs) / len(pairs) if pairs else None
    assert auroc(scores, right) == expected


def test_the_area_is_exact_for_many_steps():
    rng = np.random.default_rng(0)
    right = rng.random(200_000) < 0.3
    # In fp32 ranks of so many steps are not whole numbers any more.
    scores = np.where(right, 1.0, 0.0)
    assert auroc(scores, right) == 1.0
    assert auroc(-scores, right) == 0.0
    assert auroc(0 * scores, right) == 0.5


def test_an_area_of_what_is_no_score_is_refused():
    with pytest.raises(DataError, match="NaN"):
        auroc([0.5, math.nan], [True, False])
    with pytest.raises(DataError, match=r"got \(2,\) and \(1,\)"):
        auroc([0.5, 0.1], [True])


# --- first errors ---------------------------------------------------------------------------------


def scored(steps, problem="p", answer=None, correct=False):
    return ScoredAnswer(
        problem, tuple(r for r, _ in steps), tuple(o for _, o in steps), answer, correct
    )


def hits(answers, threshold):
    return sum(first_error(a.rewards, threshold) == a.first_error for a in answers)


@settings(deadline=None, max_examples=200)
@given(st.lists(st.lists(st.tuples(_SCORES, st.booleans()), max_size=5), min_size=1, max_size=8))
def test_no_threshold_finds_more_first_errors(lists):
    answers = [scored(steps) for steps in lists]
    chosen = choose_threshold(answers)
    assert math.isfinite(chosen)
    values = sorted({r for a in answers for r in a.rewards} | {-1.0, 2.0})
    tried = [*values, *((a + b) / 2 for a, b in zip(values, values[1:], strict=False))]
    assert hits(answers, chosen) == max(hits(answers, one) for one in tried)


def test_first_errors_are_counted_on_wrong_and_right_answers():
    answers = [
        scored([(0.9, True), (0.2, False), (0.9, True)]),  # found
        scored([(0.3, True), (0.2, False)]),  # one too early
        scored([(0.9, True), (0.8, True)]),  # found: none
        scored([(0.9, False)]),  # missed
    ]
    found = first_errors(answers, 0.5)
    assert (found.on_wrong, found.on_right, found.accuracy) == (1 / 3, 1.0, 0.5)
    assert found.f1 == pytest.approx(0.5)
    assert first_errors(answers[2:3], 0.5).on_wrong is None
    assert first_errors(answers[2:3], 0.5).f1 is None
    assert first_errors([answers[1], scored([(0.1, True)])], 0.5).f1 == 0.0
    with pytest.raises(DataError, match="no answers"):
        first_errors([], 0.5)
    with pytest.raises(DataError, match="held-out"):
        choose_threshold([])


def test_the_threshold_never_sees_the_test_part():
    held = [scored([(0.4, True)], "a"), scored([(0.2, False)], "b")]
    test = [scored([(0.8, True), (0.6, False)], "c"), scored([(0.9, True)], "d")]
    quality = step_quality(held, test)
    assert quality.first_errors.threshold == pytest.approx(0.3)
    assert quality.first_errors.accuracy == 0.5  # one that knew these would find both
    assert (quality.steps, quality.right_steps, quality.auroc) == (3, 2, 1.0)
    mixed = [*held, dataclasses.replace(test[0], problem_id="a")]
    with pytest.raises(DataError, match="problem a is in the held-out and in the test part"):
        step_quality(held, mixed)


def test_rewards_without_truth_are_refused():
    with pytest.raises(DataError, match="2 rewards, but the truth of 1 steps"):
        ScoredAnswer("p", (0.1, 0.2), (True,))
    with pytest.raises(DataError, match="no finite number"):
        ScoredAnswer("p", (math.nan,), (True,))


# --- one figure of an answer ----------------------------------------------------------------------


def test_answers_are_as_good_as_the_aggregation_says():
    rewards = [0.9, 0.5, 0.8]
    assert aggregate(rewards) == aggregate(rewards, "min") == 0.5
    assert aggregate(rewards, "product") == pytest.approx(0.36)
    assert aggregate(rewards, "last") == 0.8
    assert aggregate(rewards, "mean") == pytest.approx(2.2 / 3)
    with pytest.raises(ConfigError, match="'sum': expected one of min, product, last, mean"):
        aggregate(rewards, "sum")
    with pytest.raises(DataError, match="without steps"):
        aggregate([])


def test_more_good_steps_make_no_answer_better():
    for how in ("min", "product"):
        assert aggregate([0.9, 0.5, 1.0, 1.0], how) <= aggregate([0.9, 0.5], how)


def test_the_best_is_the_first_of_equal_ones():
    assert best_of([[0.2, 0.9], [0.4], [0.4, 0.8]]) == 1
    assert best_of([[0.2, 0.9], [0.4], [0.4, 0.8]], "last") == 0
    assert best_of([[], [0.0]]) == 1
    with pytest.raises(DataError, match="no answers"):
        best_of([])


def test_votes_weigh_by_reward():
    assert weighted_vote(["1", "2", "2"], [0.9, 0.3, 0.3]) == "1"
    assert weighted_vote(["1", "2", "2"], [1, 1, 1]) == "2"
    assert weighted_vote(["2", "1"], [0.5, 0.5]) == "2"
    assert weighted_vote([None, None], [1, 1]) is None


# --- best of n ------------------------------------------------------------------------------------


def samples(rng, problems, quality):
    """Four samples a problem; a wrong answer is common and always the same; rewards tell a bit."""
    made = []
    for p in range(problems):
        for _ in range(4):
            right = rng.random() < 0.4
            reward = float(np.clip(rng.normal(0.5 + quality * (0.2 if right else -0.2), 0.2), 0, 1))
            made.append(
                ScoredAnswer(f"p{p}", (reward,), (right,), " 1 " if right else "0", bool(right))
            )
    return made


def test_rewards_that_tell_right_from_wrong_beat_the_vote():
    rng = np.random.default_rng(0)
    answers = samples(rng, 150, quality=2)
    found = best_of_n(answers, equal=lambda a, b: a.strip() == b.strip(), resamples=500)
    by_problem = [answers[i : i + 4] for i in range(0, len(answers), 4)]
    best = np.mean([max(own, key=lambda a: a.rewards).correct for own in by_problem])
    majority = np.mean(
        [
            sum(a.correct for a in own) > 2 or (sum(a.correct for a in own) == 2 and own[0].correct)
            for own in by_problem
        ]
    )
    assert found.samples == 4
    assert found.systems["best"].value == pytest.approx(best)
    assert found.systems["majority"].value == pytest.approx(majority)
    assert found.lift.value == pytest.approx(best - majority)
    assert found.lift.ci95[0] > 0 and found.lift.ci95[0] < found.lift.value < found.lift.ci95[1]
    assert found.systems["oracle"].value >= best
    assert found.systems["first"].value == np.mean([own[0].correct for own in by_problem])
    # The order of problems, and whether their samples stand together, change nothing.
    order = np.argsort([i % 4 for i in range(len(answers))], kind="stable")
    again = best_of_n(
        [answers[i] for i in order], equal=lambda a, b: a.strip() == b.strip(), resamples=500
    )
    assert again == found


def test_rewards_that_tell_nothing_show_no_lift_over_a_single_sample():
    answers = samples(np.random.default_rng(1), 200, quality=0)
    found = best_of_n(answers, resamples=500)
    single, best = found.systems["first"], found.systems["best"]
    assert single.ci95[0] < best.value < single.ci95[1]


def test_samples_without_answer_or_steps_lose():
    answers = [
        ScoredAnswer("p", (), (), None, False),
        ScoredAnswer("p", (0.1,), (True,), "1", True),
    ]
    found = best_of_n(answers, resamples=20)
    for name in ("best", "majority", "weighted", "oracle"):
        assert found.systems[name].value == 1.0
    assert found.systems["first"].value == 0.0
    nothing = best_of_n(answers[:1], resamples=20)
    assert nothing.systems["majority"].value == 0.0
    with pytest.raises(DataError, match="no answers"):
        best_of_n([])
