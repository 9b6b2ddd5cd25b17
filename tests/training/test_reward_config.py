"""What a process reward model may be told, and what it is if told nothing."""

import math

import pytest

from arkjax.errors import ConfigError
from arkjax.training.reward_training import ProcessRewardConfig

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss": "mse"}, "process_reward.loss is 'mse': expected one of contrastive, bce"),
        ({"aggregation": "sum"}, "process_reward.aggregation"),
        ({"temperature": 0.0}, "process_reward.temperature is 0.0: it must be positive"),
        ({"beta": math.nan}, "process_reward.beta"),
        ({"row_length": 0}, "process_reward.row_length"),
        ({"head_epochs": 0, "epochs": 0}, "at least one"),
        ({"epochs": -1}, "neither may be negative"),
    ],
)
def test_impossible_configs_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        ProcessRewardConfig(**change)


def test_published_hyper_parameters_are_the_defaults():
    config = ProcessRewardConfig()
    assert config.optimizer.learning_rate == 1e-4 and config.batch_rows == 64
    assert config.head_epochs + config.epochs == 3 and config.labels.rollouts == 8
