"""Advantages: the published formulas, exact zeros, and the credit of steps."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from arkjax.distillation.grpo import (
    VARIANTS,
    GRPOConfig,
    StepRewards,
    advantages,
    group_advantages,
    group_step_advantages,
    on_tokens,
    overlong_penalty,
    step_values,
    token_shares,
    variant,
)
from arkjax.errors import ConfigError, DataError

pytestmark = pytest.mark.fast

OUTCOME_ONLY = GRPOConfig(process_weight=0.0)


def test_a_groups_advantages_are_its_rewards_standardised():
    rewards = np.array([[1.0, 0.0, 0.0, 0.0], [0.5, 1.5, 2.5, 3.5]])
    # By hand: the first group has mean 1/4 and standard deviation sqrt(3)/4.
    np.testing.assert_allclose(
        group_advantages(rewards, std=True)[0], [3**0.5, *[-(3**-0.5)] * 3], atol=1e-12
    )
    np.testing.assert_allclose(group_advantages(rewards, std=False)[1], [-1.5, -0.5, 0.5, 1.5])


@given(st.lists(st.floats(-5, 5, width=32), min_size=2, max_size=9), st.booleans())
def test_advantages_have_mean_zero_and_do_not_see_a_shift(rewards, std):
    made = group_advantages(np.array(rewards), std)
    assert abs(made.mean()) < 1e-6
    if np.ptp(rewards) > 1e-3:
        shifted = group_advantages(np.array(rewards) + 3.0, std)
        np.testing.assert_allclose(made, shifted, atol=1e-6)


@pytest.mark.parametrize("reward", [0.0, 1.0, 0.1, 1 / 3])
def test_equal_rewards_have_advantages_of_exactly_zero(reward):
    """The mean of three times 0.1 is not 0.1: a division would make something of nothing."""
    assert not group_advantages(np.full(3, reward), std=True).any()
    assert not group_advantages(np.full((2, 7), reward), std=False).any()


def test_long_answers_are_punished_softly():
    lengths = np.array([1, 80, 90, 100])
    np.testing.assert_allclose(overlong_penalty(lengths, 100, 0.2), [0, 0, -0.5, -1], atol=1e-12)
    assert not overlong_penalty(lengths, 100, 0.0).any()
    config = dataclasses.replace(OUTCOME_ONLY, overlong_share=0.2, std=False)
    made = advantages(config, np.ones((1, 4)), lengths, 100)
    np.testing.assert_allclose([a[0] for a in made.tokens], [0.375, 0.375, -0.125, -0.625])


# --- credit of steps ----------------------------------------------------------------------------


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_a_steps_value_is_the_least_reward_from_it_on(rewards):
    values = step_values(rewards)
    assert values.tolist() == [min(rewards[i:]) for i in range(len(rewards))]


def test_further_good_steps_raise_no_value():
    """Why not the sum: an answer would be worth more the more steps it is padded with."""
    short, padded = [0.9, 0.4], [0.9, 0.9, 0.9, 0.9, 0.4]
    assert step_values(padded)[0] == step_values(short)[0] == 0.4


def test_steps_are_normalised_over_all_steps_of_the_group():
    group = [[0.9, 0.5], [0.2], [0.6, 0.8, 0.7]]
    made = group_step_advantages(group, std=True)
    values = np.array([0.5, 0.5, 0.2, 0.6, 0.7, 0.7])
    normed = (values - values.mean()) / values.std()
    np.testing.assert_allclose(np.concatenate(made), normed, atol=1e-12)
    assert [len(one) for one in made] == [2, 1, 3]


def test_an_answer_without_steps_is_worth_nothing_good():
    made = group_step_advantages([[], [0.9]], std=False)
    assert made[0].tolist() == [-0.45] and made[1].tolist() == [0.45]


def test_a_token_has_the_value_of_its_step_and_the_end_token_that_of_the_last():
    values = np.array([1.0, 2.0, 3.0])
    assert on_tokens(values, (2, 3, 6), 7).tolist() == [1, 1, 2, 3, 3, 3, 3]
    assert on_tokens(values, (2, 3, 7), 7).tolist() == [1, 1, 2, 3, 3, 3, 3]


def test_outcome_and_process_are_added_up_normalised():
    outcomes, lengths = np.array([[1.0, 0.0]]), [4, 3]
    steps = [StepRewards((2, 3), (0.9, 0.7)), StepRewards((2,), (0.1,))]
    values = np.array([0.7, 0.7, 0.1])
    normed = (values - values.mean()) / values.std()
    made = advantages(GRPOConfig(), outcomes, lengths, 8, steps)
    np.testing.assert_allclose(made.tokens[0], 1 + 0.2 * normed[[0, 0, 1, 1]], atol=1e-12)
    np.testing.assert_allclose(made.tokens[1], -1 + 0.2 * normed[[2, 2, 2]], atol=1e-12)
    alone = advantages(GRPOConfig(outcome_weight=0, process_weight=1), outcomes, lengths, 8, steps)
    np.testing.assert_allclose(alone.tokens[1], normed[[2, 2, 2]], atol=1e-12)
    plain = advantages(OUTCOME_ONLY, outcomes, lengths, 8, steps)
    assert [a.tolist() for a in plain.tokens] == [[1.0] * 4, [-1.0] * 3]


def test_groups_without_variance_are_flat_and_may_be_dropped():
    outcomes = np.array([[1.0, 1.0], [0.0, 1.0], [0.0, 0.0]])
    made = advantages(OUTCOME_ONLY, outcomes, [2] * 6, 4)
    assert made.flat == [True, False, True]
    assert made.kept == [False, False, True, True, False, False]
    keeping = dataclasses.replace(OUTCOME_ONLY, drop_zero_variance=False)
    assert all(advantages(keeping, outcomes, [2] * 6, 4).kept)
    # Equal outcomes, unequal steps: there is something to learn.
    steps = [StepRewards((2,), (r,)) for r in (0.5, 0.5, 0.5, 0.5, 0.1, 0.9)]
    assert advantages(GRPOConfig(), outcomes, [2] * 6, 4, steps).flat == [True, False, False]


# --- shares of tokens ---------------------------------------------------------------------------


def test_what_a_token_weighs():
    lengths, kept = [2, 6, 4], [True, True, False]
    assert token_shares("token", lengths, kept, 10) == [1 / 8, 1 / 8, 0]
    assert token_shares("sequence", lengths, kept, 10) == [1 / 4, 1 / 12, 0]
    assert token_shares("constant", lengths, kept, 10) == [1 / 20, 1 / 20, 0]
    assert token_shares("token", lengths, [False] * 3, 10) == [0, 0, 0]


# --- configs ------------------------------------------------------------------------------------


def test_the_published_variants():
    assert set(VARIANTS) == {"grpo", "dr_grpo", "dapo", "gspo"}
    assert variant("grpo").std and not variant("dr_grpo").std
    assert (variant("dapo").clip_low, variant("dapo").clip_high) == (0.2, 0.28)
    assert variant("gspo").ratio == "sequence"
    with pytest.raises(ConfigError, match="unknown variant 'grop' of GRPO: expected one of grpo"):
        variant("grop")


@pytest.mark.parametrize(
    "changes",
    [
        {"aggregation": "tokens"},
        {"clip_low": 1.5},
        {"clip_high": -0.1},
        {"kl": "k1"},
        {"kl_coefficient": float("nan")},
        {"importance_cap": 0.5},
        {"overlong_share": 2},
    ],
)
def test_impossible_configs_are_refused_by_name(changes):
    with pytest.raises(ConfigError, match=f"grpo.{next(iter(changes))} is"):
        GRPOConfig(**changes)


def test_nothing_to_learn_from_is_refused():
    with pytest.raises(ConfigError, match=r"both 0"):
        GRPOConfig(outcome_weight=0, process_weight=0)


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        (None, "expected process rewards of 2 answers"),
        ([StepRewards((2, 5), (0.1, 0.2)), StepRewards((2,), (0.1,))], "answer 0 of 4 tokens"),
        ([StepRewards((2, 2), (0.1, 0.2)), StepRewards((2,), (0.1,))], "ends that ascend"),
        ([StepRewards((2,), (0.1,)), StepRewards((2,), ())], "answer 1 of 3 tokens"),
        ([StepRewards((2,), (0.1,)), StepRewards((2,), (float("nan"),))], "one finite reward"),
    ],
)
def test_process_rewards_that_do_not_fit_are_refused(steps, words):
    with pytest.raises(DataError, match=words):
        advantages(GRPOConfig(), np.array([[1.0, 0.0]]), [4, 3], 8, steps)


def test_a_reward_that_is_no_number_is_refused():
    with pytest.raises(DataError, match="not finite"):
        advantages(OUTCOME_ONLY, np.array([[1.0, np.nan]]), [4, 3], 8)
