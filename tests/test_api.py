"""The stages as functions, from a checkpoint to a student."""

import jax
import numpy as np
import pytest
from jax.sharding import AxisType

import arkjax
from arkjax import config
from arkjax.errors import ConfigError, DataError
from arkjax.run_config import RunConfig
from arkjax.sharding import MESH_AXES

TINY = config.build(RunConfig, config.load("tiny"))


@pytest.fixture(scope="module")
def mesh():
    """One device: a student is trained where its model lies."""
    axis_types = (AxisType.Auto,) * 3
    return jax.make_mesh((1, 1, 1), MESH_AXES, axis_types=axis_types, devices=jax.devices()[:1])


@pytest.fixture(scope="module")
def loaded(tiny_run, mesh):
    return arkjax.load(tiny_run / "seed-0" / "base" / "model", mesh=mesh)


@pytest.fixture(scope="module")
def problems():
    return arkjax.problems("embedded_world", "train", limit=24, world=TINY.world)


@pytest.fixture(scope="module")
def sampled(loaded, problems):
    team = arkjax.teams.debate(rounds=2, max_tokens=30)
    return arkjax.sample(team, problems, *loaded, slots=32)


def test_a_team_debates_and_every_call_is_kept(sampled, problems):
    assert [debate.problem for debate in sampled.debates] == problems
    assert len(sampled.calls) == 24 * 8
    assert 0.3 < sampled.accuracy <= 1


def test_a_student_is_distilled_and_its_teacher_left_as_it_is(loaded, sampled, problems, tmp_path):
    model, tokenizer = loaded
    before = {name: np.array(array) for name, array in model.arrays().items()}
    rows = arkjax.synthesize(sampled, strategy="da")
    live = arkjax.distill(model, rows, teacher=model, steps=4, batch_rows=4)
    tape = arkjax.score(rows, model, tmp_path / "tape", top_k=tokenizer.vocab_size)
    taped = arkjax.distill(model, rows, teacher=tape, steps=4, batch_rows=4)
    for name, array in model.arrays().items():
        np.testing.assert_array_equal(array, before[name])
    for name, array in live.arrays().items():
        # The tape holds float16.
        np.testing.assert_allclose(array, taped.arrays()[name], rtol=0, atol=2e-3)
    assert any((np.asarray(a) != before[n]).any() for n, a in live.arrays().items())
    assert live.arrays()["embedding"].sharding.mesh == model.arrays()["embedding"].sharding.mesh
    assert 0 <= arkjax.evaluate(live, problems[:8], tokenizer) <= 1


def test_training_goes_on_where_it_was_stopped(loaded, sampled, tmp_path):
    rows = arkjax.synthesize(sampled, strategy="rsft")
    arkjax.distill(loaded[0], rows, steps=3, batch_rows=4, directory=tmp_path)
    assert (tmp_path / "metrics.jsonl").exists()
    assert [p.name for p in (tmp_path / "checkpoints").iterdir() if p.name.isdigit()]


def test_what_cannot_be_done_is_said(sampled, loaded, problems, tmp_path):
    with pytest.raises(ConfigError, match="no strategy 'dda'.*rsft, .*da"):
        arkjax.synthesize(sampled, strategy="dda")
    with pytest.raises(DataError, match="no problems"):
        arkjax.sample("debate", [], *loaded)
    for field in ("cache", "weights"):
        with pytest.raises(ConfigError, match=f"engine.{field} is 'int4'"):
            arkjax.sample("debate", problems, *loaded, **{field: "int4"})
    with pytest.raises(DataError, match="there is no model at"):
        arkjax.load(tmp_path)
    with pytest.raises(ConfigError, match="debate"):
        arkjax.sample("debait", [sampled.debates[0].problem], *loaded)
    with pytest.raises(AttributeError, match="no attribute 'distil'"):
        _ = arkjax.distil
