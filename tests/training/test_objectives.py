"""What the loop minimises: live teacher and tape agree, and what must not count does not."""

import jax
import numpy as np
import pytest

from arkjax.distillation.objective import Objective
from arkjax.distillation.rows import batch, order
from arkjax.distillation.tape import Tape, write_tape
from arkjax.models.placement import init_model
from arkjax.sharding import ShardingRules
from arkjax.training import supervised
from arkjax.training.metrics import read_metrics
from arkjax.training.scoring import live_teacher, tape_scorer

KL = Objective(cross_entropy=0.3, divergence="forward_kl", weight=0.7)
PROMPT_ROW = 40


@pytest.fixture(scope="module")
def teacher_of(model):
    """A function that makes another model of the same shape, on a mesh."""

    def make(mesh):
        return init_model(model.config, 7, mesh, ShardingRules())

    return make


@pytest.fixture(scope="module")
def prompts(rows):
    """One to three prompts an example."""
    rng = np.random.default_rng(1)
    return [
        [tuple(rng.integers(1, 32, rng.integers(3, 20)).tolist()) for _ in range(1 + i % 3)]
        for i in range(len(rows.placements))
    ]


@pytest.fixture(scope="module")
def live(rows, prompts, teacher_of, mesh_of):
    return live_teacher(teacher_of(mesh_of()), rows, prompts, PROMPT_ROW)


def tape_of(path, rows, prompts, teacher, k):
    scorer = tape_scorer(teacher, rows, prompts, PROMPT_ROW, k, 1.0)
    write_tape(
        path,
        rows,
        scorer,
        teacher_id="teacher",
        k=k,
        vocab_size=teacher.config.vocab_size,
        batch_rows=4,
        dtype="float32",
    )
    return Tape.open(path, rows)


def logged(directory, name):
    return np.array([line[name] for line in read_metrics(directory / "metrics.jsonl")])


def test_a_tape_of_the_whole_vocabulary_is_the_live_teacher(
    rows, prompts, live, teacher_of, fit, mesh_of, tmp_path
):
    tape = tape_of(tmp_path / "tape", rows, prompts, teacher_of(mesh_of()), k=32)
    with_live = fit(tmp_path / "live", steps=3, objective=KL, teacher=live)
    with_tape = fit(tmp_path / "taped", steps=3, objective=KL, teacher=tape.targets)
    for name in ("loss", "divergence", "cross_entropy", "gradient_norm"):
        np.testing.assert_allclose(
            logged(tmp_path / "live", name), logged(tmp_path / "taped", name), atol=1e-5
        )
    for name in with_live:
        np.testing.assert_allclose(with_live[name], with_tape[name], rtol=0, atol=1e-5)
    assert (logged(tmp_path / "live", "divergence") > 0.01).all()


def test_a_live_teacher_on_a_mesh_is_the_same(
    rows, prompts, live, teacher_of, fit, mesh_of, tmp_path
):
    mesh = mesh_of(2, 2, 2)
    spread = live_teacher(teacher_of(mesh), rows, prompts, PROMPT_ROW)
    fit(tmp_path / "one", steps=2, objective=KL, teacher=live)
    fit(tmp_path / "many", steps=2, objective=KL, teacher=spread, mesh=mesh)
    for name in ("loss", "divergence"):
        np.testing.assert_allclose(
            logged(tmp_path / "one", name), logged(tmp_path / "many", name), atol=1e-5
        )


def test_a_short_tape_loses_exactly_what_happens_within_the_tail(
    model, rows, prompts, live, teacher_of, fit, mesh_of, tmp_path
):
    """KL = KL of (top k, tail) + p(tail) KL(p | tail, q | tail), by the chain rule."""
    k = 4
    tape = tape_of(tmp_path / "tape", rows, prompts, teacher_of(mesh_of()), k)
    fit(tmp_path / "live", steps=1, objective=KL, teacher=live)
    fit(tmp_path / "taped", steps=1, objective=KL, teacher=tape.targets)
    lost = logged(tmp_path / "live", "divergence") - logged(tmp_path / "taped", "divergence")

    indices = order(rows.num_rows, 8, 3, 0)
    b, target = batch(rows, indices), live(indices)
    log_q = jax.nn.log_softmax(model.logits(model(b.tokens, b.positions, b.segment_ids)))
    log_p = jax.nn.log_softmax(target.hidden @ target.head)
    log_p, log_q = (np.asarray(x, np.float64)[b.weights != 0] for x in (log_p, log_q))
    tail = np.argsort(-log_p, axis=-1)[:, k:]
    p, q = (np.take_along_axis(np.exp(x), tail, -1) for x in (log_p, log_q))
    within = p * (np.log(p / p.sum(-1, keepdims=True)) - np.log(q / q.sum(-1, keepdims=True)))
    weights = b.weights[b.weights != 0]
    expected = (within.sum(-1) * weights).sum() / weights.sum()
    assert expected > 1e-3
    np.testing.assert_allclose(lost, expected, atol=1e-5)


def disturbed(real, change):
    """`batch` with some of its arrays changed."""

    def changed(rows, indices):
        made = real(rows, indices)
        return made._replace(**change(made, np.random.default_rng(int(indices[0]))))

    return changed


def other_targets_where(chosen):
    def change(b, rng):
        noise = rng.integers(1, 32, b.targets.shape, dtype=np.int32)
        return {"targets": np.where(chosen(b), noise, b.targets)}

    return change


def other_padding(b, rng):
    noise = rng.integers(1, 32, b.tokens.shape, dtype=np.int32)
    places = rng.integers(0, 9, b.tokens.shape, dtype=np.int32)
    empty = b.segment_ids == 0
    assert empty.any()
    return {
        "tokens": np.where(empty, noise, b.tokens),
        "positions": np.where(empty, places, b.positions),
    }


@pytest.fixture(scope="module")
def plain(fit, live, tmp_path_factory):
    return fit(tmp_path_factory.mktemp("plain"), steps=2, objective=KL, teacher=live)


@pytest.mark.parametrize(
    ("change", "counts"),
    [
        # Prompts, headers, words of others and the last word of a row.
        (other_targets_where(lambda b: b.weights == 0), False),
        (other_padding, False),
        # The test would notice: a single target that counts.
        (other_targets_where(lambda b: b.weights == b.weights.max()), True),
    ],
    ids=["targets without weight", "padding", "targets with weight"],
)
def test_what_has_no_weight_has_exactly_no_gradient(
    change, counts, plain, fit, live, monkeypatch, tmp_path
):
    monkeypatch.setattr(supervised, "batch", disturbed(batch, change))
    weights = fit(tmp_path, steps=2, objective=KL, teacher=live)
    same = all(np.array_equal(weights[name], plain[name]) for name in plain)
    assert same != counts


def test_the_teacher_counts_only_where_the_student_learns(rows, plain, fit, live, tmp_path):
    import dataclasses

    def elsewhere_anything(indices):
        target = live(indices)
        hidden = np.array(target.hidden)
        hidden[batch(rows, indices).weights == 0] = np.nan
        return dataclasses.replace(target, hidden=hidden)

    weights = fit(tmp_path, steps=2, objective=KL, teacher=elsewhere_anything)
    for name in plain:
        np.testing.assert_array_equal(weights[name], plain[name])
