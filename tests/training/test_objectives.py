"""What the loop minimises: live teacher and tape agree, and what must not count does not."""

import dataclasses

import jax
import numpy as np
import pytest

from arkjax.distillation.objective import Objective
from arkjax.distillation.rows import batch, order
from arkjax.distillation.tape import Tape, write_tape
from arkjax.distillation.tape_format import TapeFormat
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


def tape_of(path, rows, live, kept, vocab_size):
    write_tape(
        path,
        rows,
        tape_scorer(live, rows, kept),
        kept,
        teacher_id="teacher",
        vocab_size=vocab_size,
        batch_rows=4,
        shard_rows=16,
    )
    return Tape.open(path, rows)


def logged(directory, name):
    return np.array([line[name] for line in read_metrics(directory / "metrics.jsonl")])


# The most by which weights may differ after three steps. Adam divides by the gradients' size, so
# that where these are near 0 the rounding of another order of sums shows.
WEIGHTS = {"top_k": 1e-5, "hidden": 1e-6, "sampled": 1e-6}
WHOLE = {
    "top_k": TapeFormat(k=32, dtype="float32"),
    "hidden": TapeFormat("hidden", dtype="float32"),
    "sampled": TapeFormat("sampled", draws=12, seed=1),
}


def gated(live, rows):
    """The same teacher, trusted in part."""

    def target(indices):
        gate = (indices[:, None] * 7 + np.arange(rows.row_length)) % 5 / 4
        return dataclasses.replace(live(indices), gate=gate.astype(np.float32))

    return target


@pytest.mark.parametrize("kind", WHOLE)
def test_what_is_read_from_a_tape_is_what_the_teacher_said(
    rows, live, teacher_of, fit, mesh_of, kind, tmp_path
):
    """Training with the file, and with its scorer or the teacher itself in place of it."""
    kept, teacher = WHOLE[kind], teacher_of(mesh_of())
    ungated, live = live, gated(live, rows)
    tape = tape_of(tmp_path / "tape", rows, live, kept, teacher.config.vocab_size)

    def read(indices):
        return tape.targets(indices, teacher.head)

    # A sampled teacher is another loss than the teacher itself, and the same as its own scorer.
    instead = tape_scorer(live, rows, kept) if kind == "sampled" else live
    with_live = fit(tmp_path / "live", steps=3, objective=KL, teacher=instead)
    with_tape = fit(tmp_path / "taped", steps=3, objective=KL, teacher=read)
    for name in ("loss", "divergence", "cross_entropy", "gradient_norm"):
        np.testing.assert_allclose(
            logged(tmp_path / "live", name), logged(tmp_path / "taped", name), atol=1e-6, rtol=1e-6
        )
    fit(tmp_path / "ungated", steps=1, objective=KL, teacher=ungated)
    trusted = logged(tmp_path / "live", "divergence")[0] / logged(
        tmp_path / "ungated", "divergence"
    )
    assert 0.3 < trusted < 0.7 or kind == "sampled"
    assert (logged(tmp_path / "live", "divergence") > 0.01).all()
    for name in with_live:
        np.testing.assert_allclose(with_live[name], with_tape[name], rtol=0, atol=WEIGHTS[kind])


def test_scorers_on_a_mesh_say_the_same(rows, prompts, live, teacher_of, mesh_of):
    spread = live_teacher(teacher_of(mesh_of(2, 2, 2)), rows, prompts, PROMPT_ROW)
    indices = np.arange(8)
    valid = batch(rows, indices).weights != 0
    kinds = {
        "top_k": (TapeFormat(k=3), "top_logprobs"),
        "sampled": (TapeFormat("sampled", draws=9), "ids"),
        "hidden": (TapeFormat("hidden"), "hidden"),
    }
    for kept, name in kinds.values():
        one, many = (
            np.asarray(getattr(tape_scorer(teacher, rows, kept)(indices), name))[valid]
            for teacher in (live, spread)
        )
        if name == "ids":
            # Rounding may move a draw that falls on the border of two tokens.
            assert (one == many).all(-1).mean() > 0.99
        else:
            np.testing.assert_allclose(one, many, atol=1e-5)


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
    model, rows, live, teacher_of, fit, mesh_of, tmp_path
):
    """KL = KL of (top k, tail) + p(tail) KL(p | tail, q | tail), by the chain rule."""
    k = 4
    vocab_size = teacher_of(mesh_of()).config.vocab_size
    kept = TapeFormat(k=k, dtype="float32")
    tape = tape_of(tmp_path / "tape", rows, live, kept, vocab_size)
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
    def elsewhere_anything(indices):
        target = live(indices)
        hidden = np.array(target.hidden)
        hidden[batch(rows, indices).weights == 0] = np.nan
        return dataclasses.replace(target, hidden=hidden)

    weights = fit(tmp_path, steps=2, objective=KL, teacher=elsewhere_anything)
    for name in plain:
        np.testing.assert_array_equal(weights[name], plain[name])
