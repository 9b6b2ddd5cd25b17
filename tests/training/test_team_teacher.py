"""The team as a teacher: the mixture of its contexts, whatever is shared, gated or just written."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arkjax.distillation.objective import Objective
from arkjax.distillation.rows import batch, one_a_row
from arkjax.distillation.tape import Tape, write_tape
from arkjax.distillation.tape_format import TapeFormat
from arkjax.distillation.targets import HiddenTarget, MixtureTarget
from arkjax.errors import DataError
from arkjax.models.placement import init_model
from arkjax.sharding import ShardingRules
from arkjax.synthesis.contexts import ContextConfig, TeacherContext, TeacherView
from arkjax.synthesis.examples import Example
from arkjax.training import team_teacher
from arkjax.training.metrics import read_metrics
from arkjax.training.scoring import fresh_teacher, live_teacher, tape_scorer
from arkjax.training.team_teacher import TeamTeacher

ROW = 64
CONTEXTS = ContextConfig("last", "all", 4)


@pytest.fixture(scope="module")
def make_teacher(model):
    """A function that makes another model of the student's shape, with some fields replaced."""

    def make(mesh, **changes):
        config = dataclasses.replace(model.config, **changes)
        return init_model(config, 7, mesh, ShardingRules())

    return make


@pytest.fixture(scope="module")
def views(rows):
    """One to four contexts an example; two neighbours share a transcript, as of one problem."""
    rng = np.random.default_rng(2)
    made = []
    for example in range(len(rows.placements)):
        transcript = np.random.default_rng(100 + example // 2).integers(1, 32, 24).tolist()
        count = 1 + example % 4
        weights = rng.dirichlet([2.0] * count)
        made.append(
            TeacherView(
                tuple(
                    TeacherContext((*transcript, *rng.integers(1, 32, 1 + k).tolist()), weights[k])
                    for k in range(count)
                )
            )
        )
    return made


def explicit_mixture(model, rows, indices, views, mixture) -> np.ndarray:
    """Log-probabilities [B, T, V], one forward pass for each context of each example, in float64.

    Zero where there is nothing to predict.
    """
    head = np.asarray(model.head, np.float64)
    cap = model.config.logit_soft_cap
    mixed = np.zeros((len(indices), rows.row_length, head.shape[1]))

    @jax.jit
    def hidden(tokens):
        at = jnp.arange(ROW, dtype=jnp.int32)[None]
        return model(tokens, at, jnp.ones_like(at))[0]

    for b, row in enumerate(indices):
        for e in set(np.asarray(rows.example_ids[row]).tolist()) - {-1}:
            at, example = rows.placements[e], rows.example(e)
            total = 0.0
            for prompt, weight in views[e].contexts:
                ids = (*prompt, *example.target_ids)
                tokens = np.zeros((1, ROW), np.int32)
                tokens[0, : len(ids)] = ids
                some = np.asarray(hidden(tokens), np.float64)
                z = some[len(prompt) - 1 : len(ids) - 1] @ head
                z = cap * np.tanh(z / cap) if cap else z
                log_p = z - np.log(np.exp(z).sum(-1, keepdims=True))
                total = total + weight * (np.exp(log_p) if mixture == "arithmetic" else log_p)
            if mixture == "geometric":
                total = np.exp(total)
            log_p = np.log(total / total.sum(-1, keepdims=True))
            mixed[b, at.target_start - 1 : at.target_start - 1 + at.target_length] = log_p
    return mixed


def said_by(target, model) -> np.ndarray:
    """Log-probabilities [B, T, V] of a target of hidden states."""
    cap = model.config.logit_soft_cap
    z = np.asarray(target.hidden, np.float64) @ np.asarray(target.head, np.float64)
    z = cap * np.tanh(z / cap) if cap else z
    log_p = z - np.log(np.exp(z).sum(-1, keepdims=True))
    if isinstance(target, HiddenTarget):
        return log_p
    weights = np.asarray(target.weights, np.float64)[..., None]
    if target.mixture == "arithmetic":
        p = (weights * np.exp(log_p)).sum(-2)
    else:
        p = np.exp((weights * log_p).sum(-2))
    p = np.where(p.sum(-1, keepdims=True) > 0, p, 1.0)
    return np.log(p / p.sum(-1, keepdims=True))


KINDS = [
    ({}, "geometric", HiddenTarget),
    ({}, "arithmetic", MixtureTarget),
    ({"logit_soft_cap": 2.0}, "geometric", MixtureTarget),
    (
        {"sliding_window": 7, "attention_pattern": ("local", "global"), "num_kv_heads": 1},
        "geometric",
        HiddenTarget,
    ),
    ({"attention_soft_cap": 1.0}, "arithmetic", MixtureTarget),
]


@pytest.mark.parametrize(("changes", "mixture", "kind"), KINDS)
def test_the_target_is_the_explicit_mixture(
    rows, views, make_teacher, mesh_of, changes, mixture, kind
):
    model = make_teacher(mesh_of(), **changes)
    config = dataclasses.replace(CONTEXTS, mixture=mixture)
    indices = np.array([3, 0, 3, 5])
    learned = batch(rows, indices).weights != 0
    wanted = explicit_mixture(model, rows, indices, views, mixture)[learned]
    summaries = {}
    for share in (True, False):
        teacher = live_teacher(model, rows, views, ROW, config, share=share)
        target = teacher(indices)
        assert isinstance(target, kind) and target.gate is None
        # fp32 hidden states: differences of 1e-6 in them, times the head.
        np.testing.assert_allclose(said_by(target, model)[learned], wanted, atol=1e-5)
        summaries[share] = teacher.team.summary()
    shared, whole = summaries[True], summaries[False]
    assert shared["unshared_tokens"] == whole["unshared_tokens"] == whole["tokens"]
    assert shared["sharing"] > 1.5 and whole["sharing"] == 1.0
    assert shared["predicted"] == shared["predicted_kept"] == learned.sum()


@pytest.mark.parametrize("mixture", ["geometric", "arithmetic"])
def test_eight_devices_say_what_one_does(rows, views, make_teacher, mesh_of, mixture):
    config = dataclasses.replace(
        CONTEXTS, mixture=mixture, token_gate="consensus", token_agreement=0.6
    )
    indices = np.arange(8)
    learned = batch(rows, indices).weights != 0
    targets = [
        live_teacher(make_teacher(mesh), rows, views, ROW, config)(indices)
        for mesh in (mesh_of(), mesh_of(2, 2, 2))
    ]
    said = [said_by(target, make_teacher(mesh_of()))[learned] for target in targets]
    np.testing.assert_allclose(said[0], said[1], atol=1e-5)
    np.testing.assert_array_equal(targets[0].gate, targets[1].gate)
    assert 0 < np.asarray(targets[0].gate)[learned].mean() < 1


def test_gates_close_examples_and_tokens_and_are_counted(rows, views, make_teacher, mesh_of):
    model, indices = make_teacher(mesh_of()), np.arange(6)
    gated = [dataclasses.replace(v, gate=float(e % 3 > 0)) for e, v in enumerate(views)]
    config = dataclasses.replace(
        CONTEXTS, gate="verified", token_gate="consensus", token_agreement=0.9
    )
    examples = np.asarray(rows.example_ids[indices])
    learned = batch(rows, indices).weights != 0
    # A position predicts a token of its own example.
    open_ = learned & (examples % 3 > 0)
    teacher = live_teacher(model, rows, gated, ROW, config)
    gate = np.asarray(teacher(indices).gate)
    alone = live_teacher(model, rows, gated, ROW)
    np.testing.assert_array_equal(np.asarray(alone(indices).gate)[learned], open_[learned])
    ungated = live_teacher(model, rows, views, ROW, dataclasses.replace(config, gate="none"))
    np.testing.assert_array_equal(
        gate[learned], (np.asarray(ungated(indices).gate) * open_)[learned]
    )
    assert 0 < gate[learned].sum() < open_.sum()

    here = set(examples.ravel().tolist()) - {-1}
    summary = teacher.team.summary()
    assert summary["examples"] == len(here)
    assert summary["examples_kept"] == sum(e % 3 > 0 for e in here)
    assert summary["predicted"] == learned.sum()
    assert summary["predicted_kept"] == (gate[learned] > 0).sum()
    # What is closed is not read: the others' tokens alone are counted.
    assert summary["unshared_tokens"] < ungated.team.summary()["unshared_tokens"]
    for _ in range(12):
        teacher(indices)
    assert teacher.team.summary()["predicted_kept"] == 13 * summary["predicted_kept"]


def test_the_token_gate_is_where_contexts_name_one_token(rows, views, make_teacher, mesh_of):
    model, indices, share = make_teacher(mesh_of()), np.arange(4), 0.75
    config = dataclasses.replace(CONTEXTS, token_gate="consensus", token_agreement=share)
    gate = np.asarray(live_teacher(model, rows, views, ROW, config)(indices).gate)
    votes = np.zeros((*gate.shape, model.config.vocab_size))
    for k in range(4):
        alone = [
            TeacherView((view.contexts[k % len(view.contexts)]._replace(weight=1.0),))
            for view in views
        ]
        best = explicit_mixture(model, rows, indices, alone, "geometric").argmax(-1)
        for b, row in enumerate(indices):
            for t, e in enumerate(np.asarray(rows.example_ids[row]).tolist()):
                if e >= 0 and k < len(views[e].contexts):
                    votes[b, t, best[b, t]] += views[e].contexts[k].weight
    learned = batch(rows, indices).weights != 0
    np.testing.assert_array_equal(gate[learned], (votes.max(-1) >= share - 1e-5)[learned])


def test_a_closed_example_is_learned_by_its_words_alone(
    rows, views, make_teacher, mesh_of, fit, tmp_path
):
    objective = Objective(cross_entropy=0.3, divergence="jsd", weight=0.7)
    closed = [dataclasses.replace(view, gate=0.0) for view in views]
    teacher = live_teacher(make_teacher(mesh_of()), rows, closed, ROW)
    with_teacher = fit(tmp_path / "gated", steps=2, objective=objective, teacher=teacher)
    words = fit(tmp_path / "words", steps=2, objective=Objective(cross_entropy=0.3))
    for name in words:
        np.testing.assert_allclose(with_teacher[name], words[name], atol=1e-6)
    lines = list(read_metrics(tmp_path / "gated" / "metrics.jsonl"))
    assert all(line["cross_entropy"] > 0 for line in lines)


@pytest.mark.parametrize("mixture", ["geometric", "arithmetic"])
def test_a_tape_keeps_what_the_team_says_and_its_gates(
    rows, views, make_teacher, mesh_of, mixture, tmp_path
):
    model = make_teacher(mesh_of())
    config = dataclasses.replace(
        CONTEXTS, mixture=mixture, token_gate="consensus", token_agreement=0.7
    )
    closed = [dataclasses.replace(v, gate=float(e % 4 > 0)) for e, v in enumerate(views)]
    live = live_teacher(model, rows, closed, ROW, config)
    V = model.config.vocab_size
    kept = TapeFormat(k=V, dtype="float32")
    write_tape(
        tmp_path / "tape",
        rows,
        tape_scorer(live, rows, kept),
        kept,
        teacher_id="team",
        vocab_size=V,
        batch_rows=4,
    )
    indices = np.array([4, 1, 2])
    taped, target = Tape.open(tmp_path / "tape", rows).targets(indices), live(indices)
    learned = batch(rows, indices).weights != 0
    np.testing.assert_array_equal(taped.gate[learned], np.asarray(target.gate)[learned])
    open_ = learned & (np.asarray(target.gate) > 0)
    assert 0 < open_.sum() < learned.sum()
    said = np.take_along_axis(said_by(target, model)[open_], taped.top_ids[open_], -1)
    np.testing.assert_allclose(taped.top_logprobs[open_], said, atol=1e-5)


# --- answers that were just written ---------------------------------------------------------------


def answers(seed: int, count: int = 5) -> list[Example]:
    rng = np.random.default_rng(seed)
    return [
        Example(
            tuple(rng.integers(1, 32, 4).tolist()),
            tuple(rng.integers(1, 32, rng.integers(1, 14)).tolist()),
            1.0,
            {"problem_id": f"p{i}"},
        )
        for i in range(count)
    ]


def test_fresh_answers_are_read_in_one_program_whatever_their_lengths(views, make_teacher, mesh_of):
    model = make_teacher(mesh_of())
    teacher = fresh_teacher(model, views, ROW, CONTEXTS, num_rows=12, gated=True)
    programs = team_teacher._read._cache_size()
    for seed in range(4):
        written = answers(seed, count=3 + seed)
        rows = one_a_row(written, 24, num_rows=8)
        assert rows.tokens.shape == (8, 24)
        of = np.random.default_rng(seed).permutation(len(views))[: len(written)]
        target = teacher(rows, of.tolist())
        assert target.hidden.shape[:2] == target.gate.shape == (8, 24)
        learned = batch(rows, np.arange(8)).weights != 0
        assert learned.sum() == sum(len(example.target_ids) for example in written)
        seen = [views[example] for example in of]
        wanted = explicit_mixture(model, rows, np.arange(8), seen, "geometric")
        np.testing.assert_allclose(said_by(target, model)[learned], wanted[learned], atol=1e-5)
        np.testing.assert_array_equal(target.gate, learned.astype(np.float32))
    # One where contexts share something, one where they do not.
    assert team_teacher._read._cache_size() <= programs + 2


def test_rows_that_do_not_suffice_are_refused(views, make_teacher, mesh_of):
    teacher = TeamTeacher(make_teacher(mesh_of()), ROW, num_rows=1, num_contexts=4)
    rows = one_a_row(answers(0, count=8), 24, num_rows=8)
    with pytest.raises(DataError, match="teacher rows of 64 tokens, but only 1"):
        teacher.target(rows, np.arange(8), views)
    with pytest.raises(DataError, match="8 examples do not go into 7 rows"):
        one_a_row(answers(0, count=8), 24, num_rows=7)
