"""The training loop: right, whole after any interruption, the same on every mesh."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from arkjax.distillation.rows import batch, order
from arkjax.errors import ArkJAXError, ConfigError
from arkjax.models.transformer import Transformer
from arkjax.models.weights import weight_specs
from arkjax.training.checkpoints import Checkpoints
from arkjax.training.metrics import read_metrics
from arkjax.training.optimizer import OptimizerConfig, make_optimizer


def assert_same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def assert_close(a, b, atol):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_allclose(a[name], b[name], rtol=0, atol=atol, err_msg=name)


def dense_training(model, rows, config, seed):
    """The same training with dense logits: weights after each step, and the losses."""

    def loss_fn(weights, b):
        student = Transformer(model.config, weights)
        logits = student.logits(student(b.tokens, b.positions, b.segment_ids))
        log_q = jax.nn.log_softmax(logits)
        nll = -jnp.take_along_axis(log_q, b.targets[..., None], -1)[..., 0]
        return (nll * b.weights).sum() / b.weights.sum()

    optimizer = make_optimizer(config.optimizer, config.steps, weight_specs(model.config))

    @jax.jit
    def step(weights, state, b):
        loss, gradients = jax.value_and_grad(loss_fn)(weights, b)
        updates, state = optimizer.update(gradients, state, weights)
        return optax.apply_updates(weights, updates), state, loss

    weights = model.arrays()
    state, losses = optimizer.init(weights), []
    for number in range(config.steps):
        b = batch(rows, order(rows.num_rows, config.batch_rows, seed, number))
        weights, state, loss = step(weights, state, b)
        losses.append(float(loss))
    return {name: np.asarray(array) for name, array in weights.items()}, losses


def test_training_is_that_of_the_dense_loss(model, rows, undisturbed, training_config):
    weights, directory = undisturbed
    expected, losses = dense_training(model, rows, training_config, seed=3)
    # fp32: sums over chunks and over rows are taken in another order.
    assert_close(weights, expected, 1e-5)
    logged = read_metrics(directory / "metrics.jsonl")
    np.testing.assert_allclose([line["loss"] for line in logged], losses, rtol=1e-5)
    assert [line["cross_entropy"] for line in logged] == [line["loss"] for line in logged]


def test_the_given_model_is_left_as_it_is(model, fit, tmp_path):
    before = {name: np.array(array) for name, array in model.arrays().items()}
    fit(tmp_path, steps=1)
    assert_same(before, {name: np.asarray(array) for name, array in model.arrays().items()})


# Before the first checkpoint, which is after step 2, and beyond the second.
@pytest.mark.parametrize("stop", [1, 5])
def test_interrupted_training_ends_bit_by_bit_the_same(stop, fit, undisturbed, stops_at, tmp_path):
    weights, directory = undisturbed
    seen = []

    def watch(indices):
        seen.append(indices.tolist())

    with pytest.raises(stops_at.error):
        fit(tmp_path, progress=stops_at(stop), teacher=watch)
    started_again_at = len(seen)
    resumed = fit(tmp_path, teacher=watch)
    assert_same(resumed, weights)
    logs = [path / "metrics.jsonl" for path in (tmp_path, directory)]
    assert logs[0].read_bytes() == logs[1].read_bytes()
    # From the checkpoint on, the resumed run reads the very rows that the first one would have.
    assert len(seen) - started_again_at == (6 if stop == 1 else 2)
    from_step = 6 - (len(seen) - started_again_at)
    assert seen[started_again_at] == (seen[from_step] if from_step < started_again_at else None)


@pytest.mark.parametrize("shape", [(8, 1, 1), (2, 2, 2)])
def test_every_mesh_trains_the_same_weights(shape, fit, undisturbed, mesh_of, tmp_path):
    # Rows differ in their sums of weights, so a mean of the devices' means would differ far more.
    assert_close(fit(tmp_path, mesh=mesh_of(*shape)), undisturbed[0], 1e-5)


@pytest.mark.parametrize("muon", [0.0, 0.02], ids=["adamw", "muon"])
def test_what_the_optimizer_keeps_of_a_weight_lies_where_the_weight_does(
    muon, fit, mesh_of, training_config, monkeypatch, tmp_path
):
    states = []
    monkeypatch.setattr(Checkpoints, "save", lambda self, step, state, score: states.append(state))
    optimizer = dataclasses.replace(training_config.optimizer, muon_learning_rate=muon)
    fit(tmp_path, mesh=mesh_of(2, 2, 2), steps=3, optimizer=optimizer)
    (state,) = states
    kept = dict.fromkeys(state.weights, 0)
    for path, array in jax.tree_util.tree_leaves_with_path(state.optimizer):
        names = [key.key for key in path if isinstance(key, jax.tree_util.DictKey)]
        if names and names[-1] in kept:
            weight = state.weights[names[-1]]
            assert array.sharding.is_equivalent_to(weight.sharding, weight.ndim), path
            kept[names[-1]] += 1
    assert min(kept.values()) >= 1
    assert not state.weights["layers_q"].sharding.is_fully_replicated


def test_training_goes_on_on_another_mesh(fit, undisturbed, stops_at, mesh_of, tmp_path):
    with pytest.raises(stops_at.error):
        fit(tmp_path, progress=stops_at(4))
    assert_close(fit(tmp_path, mesh=mesh_of(2, 2, 2)), undisturbed[0], 1e-5)


def test_a_loss_that_is_no_number_stops_and_keeps_the_checkpoint(
    rows, fit, undisturbed, training_config, tmp_path
):
    batches = [order(rows.num_rows, training_config.batch_rows, 3, step) for step in range(6)]
    bad_row = next(row for row in batches[1] if row not in batches[0])
    loss_weights = rows.loss_weights.copy()
    loss_weights[bad_row][loss_weights[bad_row] != 0] = np.nan
    damaged = dataclasses.replace(rows, loss_weights=loss_weights)
    with pytest.raises(ArkJAXError, match=r"pupil: loss .* not finite at step 2 .*checkpoint"):
        fit(tmp_path, rows=damaged, checkpoint_every=1)
    logged = read_metrics(tmp_path / "metrics.jsonl")
    assert [line["step"] for line in logged] == [1]
    seen = []
    assert_same(fit(tmp_path, checkpoint_every=1, teacher=seen.append), undisturbed[0])
    assert len(seen) == 5


def test_a_single_step_is_enough(fit, tmp_path):
    fit(tmp_path, steps=1)
    assert [line["step"] for line in read_metrics(tmp_path / "metrics.jsonl")] == [1]


def test_a_batch_that_the_mesh_cannot_split_is_refused(fit, mesh_of, tmp_path):
    with pytest.raises(ConfigError, match="batch_rows is 12: it must be a multiple of the 8"):
        fit(tmp_path, mesh=mesh_of(4, 2, 1), batch_rows=12)


def test_sparse_logs_have_the_last_step(fit, tmp_path):
    fit(tmp_path, steps=3, log_every=2)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [2, 3]


def test_small_steps_add_up_though_the_model_is_kept_in_16_bits(model, rows, fit, tmp_path):
    """Steps of a hundredth of a bf16 spacing: each alone would round to nothing."""
    config = dataclasses.replace(model.config, dtype="bfloat16", param_dtype="bfloat16")
    start = {name: w.astype(jnp.bfloat16) for name, w in model.arrays().items()}
    half = Transformer(config, start, model.mesh)
    big = np.abs(np.asarray(start["layers_q"], np.float32)) > 0.25
    slow = OptimizerConfig(4e-5, 0, 1.0, 0.9, 0.95, 0.0, 1.0)
    after = fit(tmp_path / "one", model=half, steps=2, optimizer=slow)
    assert after["layers_q"].dtype == jnp.bfloat16
    np.testing.assert_array_equal(after["layers_q"][big], np.asarray(start["layers_q"])[big])
    later = fit(tmp_path / "many", model=half, steps=60, checkpoint_every=60, optimizer=slow)
    moved = later["layers_q"][big] != np.asarray(start["layers_q"])[big]
    assert moved.mean() > 0.5


def test_micro_batches_train_the_same_weights(fit, undisturbed, mesh_of, tmp_path):
    # Rows differ in their sums of weights: a mean of the parts' means would differ far more.
    assert_close(fit(tmp_path / "two", micro_rows=2), undisturbed[0], 1e-5)
    split = fit(tmp_path / "mesh", micro_rows=4, mesh=mesh_of(2, 2, 2))
    assert_close(split, undisturbed[0], 1e-5)


def test_micro_batches_that_do_not_divide_the_batch_are_refused(fit, mesh_of, tmp_path):
    with pytest.raises(ConfigError, match="micro_rows is 3: batch_rows, 8, must be a multiple"):
        fit(tmp_path, micro_rows=3)
    with pytest.raises(ConfigError, match="micro_rows is 2: it must be a multiple of the 4 dev"):
        fit(tmp_path, micro_rows=2, mesh=mesh_of(2, 2, 2))
