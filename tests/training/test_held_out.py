"""Held-out accuracy decides which weights are kept, and when training stops."""

import dataclasses
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from arkjax.distillation.objective import Objective
from arkjax.progress import Progress
from arkjax.sharding import ShardingRules
from arkjax.training.held_out import HeldOutLog, best_look
from arkjax.training.loop import run_training
from arkjax.training.metrics import read_metrics
from arkjax.training.supervised import distillation_loss, rows_feed


def same(a, b):
    return all(np.array_equal(a[name], b[name]) for name in a)


class Scores:
    """Accuracies by the number of looks; remembers the models it was shown."""

    def __init__(self, *accuracies):
        self.left, self.seen = list(accuracies), []

    def __call__(self, model):
        self.seen.append({name: np.array(array) for name, array in model.arrays().items()})
        return self.left.pop(0)


def test_the_weights_of_the_best_look_are_kept(fit, undisturbed, tmp_path):
    scores = Scores(0.1, 0.5, 0.9, 0.3)  # before, after steps 2, 4 and 6
    kept = fit(tmp_path, held_out=scores)
    assert same(kept, scores.seen[2]) and not same(kept, undisturbed[0])
    assert same(scores.seen[3], undisturbed[0])  # Looking changes nothing.
    looks = [(line["step"], line["accuracy"]) for line in read_metrics(tmp_path / "held_out.jsonl")]
    assert looks == [(0, 0.1), (2, 0.5), (4, 0.9), (6, 0.3)]


def test_where_training_only_harms_the_given_weights_are_kept(model, fit, tmp_path, capsys):
    progress = Progress(stream=sys.stdout)
    kept = fit(tmp_path, held_out=Scores(0.6, 0.5, 0.5, 0.1), progress=progress)
    assert same(kept, model.arrays()) and best_look(tmp_path / "held_out.jsonl") == (0, 0.6)
    assert "no look was as good as the 60.0% that it began with" in capsys.readouterr().out


def test_what_is_trained_and_no_worse_is_kept(fit, tmp_path, capsys):
    scores = Scores(0.6, 0.5, 0.6, 0.6)
    kept = fit(tmp_path, held_out=scores, progress=Progress(stream=sys.stdout))
    assert same(kept, scores.seen[2])
    assert "step 4 is kept, with a held-out accuracy of 60.0%" in capsys.readouterr().out


def test_it_stops_when_patience_ends(fit, tmp_path):
    scores = Scores(0.1, 0.5, 0.4, 0.5)
    kept = fit(tmp_path, held_out=scores, patience=1)
    assert len(scores.seen) == 3 and same(kept, scores.seen[1])
    assert [line["step"] for line in read_metrics(tmp_path / "metrics.jsonl")] == [1, 2, 3, 4]
    # Called again, nothing more is trained or measured.
    assert same(fit(tmp_path, held_out=Scores(), patience=1), kept)


@pytest.mark.parametrize("stop", [1, 3, 5])
def test_killed_in_between_it_keeps_the_same_weights(stop, fit, stops_at, tmp_path):
    def accuracy(model):
        # A function of the weights, as a real one is, best in the middle of this training.
        return float(np.asarray(model.arrays()["final_norm"], np.float64).std()) % 1e-3

    whole = fit(tmp_path / "whole", held_out=accuracy)
    with pytest.raises(stops_at.error):
        fit(tmp_path / "cut", held_out=accuracy, progress=stops_at(stop))
    assert same(fit(tmp_path / "cut", held_out=accuracy), whole)
    logs = [(tmp_path / run / "held_out.jsonl").read_bytes() for run in ("whole", "cut")]
    assert logs[0] == logs[1]


def test_of_equal_looks_the_earliest_is_the_best(tmp_path):
    log = HeldOutLog(tmp_path / "held_out.jsonl", patience=2)
    for step, accuracy in enumerate([0.2, 0.7, 0.7]):
        log.look(step, lambda _, a=accuracy: a, None)
    assert log.best == 1 and not log.exhausted
    log.look(3, lambda _: 0.6, None)
    assert log.exhausted
    log.rewind(2)
    assert not log.exhausted


def test_frozen_entries_stay_bit_by_bit_and_extra_arrays_learn(
    model, rows, training_config, mesh_of, tmp_path
):
    """As the first stage of a reward model needs it: weight decay does not reach them either."""
    last = jnp.arange(model.config.num_layers) == model.config.num_layers - 1
    only = {
        name: last.reshape((-1,) + (1,) * (array.ndim - 1)).astype(jnp.float32)
        if name.startswith("layers_")
        else jnp.zeros(())
        for name, array in model.arrays().items()
    }
    words = distillation_loss(model.config, Objective(), training_config, mesh_of())

    def loss(weights, lesson):
        value, metrics = words(weights, lesson)
        return value + jnp.sum((weights["scalar"] - 1.0) ** 2), metrics

    config = dataclasses.replace(training_config, optimizer=training_config.optimizer)
    trained = run_training(
        model,
        loss,
        rows_feed(rows, config.batch_rows, 3, mesh_of()),
        config,
        tmp_path,
        mesh=mesh_of(),
        rules=ShardingRules(),
        progress=Progress(enabled=False),
        name="pupil",
        extra={"scalar": jnp.zeros((2,))},
        only=only,
    )
    assert 0 < float(trained.extra["scalar"].min()) and trained.step == config.steps
    for name, before in model.arrays().items():
        after = np.asarray(trained.model.arrays()[name])
        if name.startswith("layers_"):
            np.testing.assert_array_equal(after[:-1], before[:-1], err_msg=name)
            assert not np.array_equal(after[-1], before[-1]), name
        else:
            np.testing.assert_array_equal(after, before, err_msg=name)
