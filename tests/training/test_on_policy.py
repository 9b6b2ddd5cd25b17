"""Training partly on the student's own answers, held against a team-conditioned teacher."""

import dataclasses

import jax
import numpy as np
import pytest

from arkjax.distillation.objective import Objective
from arkjax.distillation.on_policy import OnPolicyConfig
from arkjax.distillation.rows import batch
from arkjax.errors import ConfigError, DataError
from arkjax.models.placement import init_model
from arkjax.progress import Progress
from arkjax.sampling.engine import Engine, EngineConfig
from arkjax.sharding import ShardingRules
from arkjax.synthesis.examples import Example
from arkjax.training.metrics import read_metrics
from arkjax.training.on_policy import lesson_of, train_on_policy
from arkjax.training.optimizer import OptimizerConfig
from arkjax.training.rollout_rows import pack_fixed
from arkjax.training.rollouts import RolloutConfig, questions, roll_out
from arkjax.training.scoring import fresh_teacher

END = 5
ROLLOUTS = RolloutConfig(prompts=6, samples=1, max_tokens=8, row_length=20)
HALF = OnPolicyConfig(own_share=0.5)
OBJECTIVE = Objective(cross_entropy=0.5, divergence="reverse_kl", weight=0.5)
SIZES = EngineConfig(
    length_classes=(20,),
    slots=6,
    prefixes=4,
    admit_rows=6,
    prefix_rows=2,
    chunk=20,
    block_steps=8,
    max_stop_ids=1,
)
OPTIMIZER = OptimizerConfig(1e-2, 2, 0.5, 0.9, 0.95, 0.0, 1.0)
TEACHER_ROW = 40


@pytest.fixture(scope="module")
def traces():
    """Eight problems, with recorded traces of different weights."""
    rng = np.random.default_rng(0)
    return [
        Example(
            tuple(rng.integers(6, 32, rng.integers(1, 5)).tolist()),
            (*rng.integers(6, 32, rng.integers(1, 6)).tolist(), END),
            float(rng.choice([0.5, 1.0])),
            {"problem_id": f"p{i}"},
        )
        for i in range(8)
    ]


@pytest.fixture(scope="module")
def prompts():
    """The team's: one or two contexts for each problem."""
    rng = np.random.default_rng(1)
    return [
        [tuple(rng.integers(6, 32, rng.integers(5, 20)).tolist()) for _ in range(1 + i % 2)]
        for i in range(8)
    ]


@pytest.fixture(scope="module")
def teacher(model, prompts, mesh_of):
    other = init_model(model.config, 7, mesh_of(), ShardingRules())
    return fresh_teacher(other, prompts, TEACHER_ROW)


@pytest.fixture
def learn(model, traces, teacher, training_config):
    """A function that trains and returns the weights, by name, and the metrics."""

    def learn(directory, steps=6, on_policy=HALF, **changes):
        settings = {
            "objective": OBJECTIVE,
            "rollouts": ROLLOUTS,
            "teacher": teacher,
            "examples": traces,
            "progress": Progress(enabled=False),
            **changes,
        }
        config = dataclasses.replace(training_config, steps=steps, optimizer=OPTIMIZER)
        trained = train_on_policy(
            model,
            Engine(model, SIZES),
            on_policy=on_policy,
            config=config,
            directory=directory,
            end_ids=(END,),
            seed=3,
            mesh=model.mesh,
            rules=ShardingRules(),
            name="pupil",
            **settings,
        )
        weights = {name: np.asarray(array) for name, array in trained.arrays().items()}
        return weights, read_metrics(directory / "metrics.jsonl")

    return learn


def assert_same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def test_a_student_comes_closer_to_the_teacher_on_its_own_answers(learn, tmp_path):
    objective = dataclasses.replace(OBJECTIVE, cross_entropy=0.0, weight=1.0)
    _, log = learn(tmp_path, 40, OnPolicyConfig(own_share=1.0), objective=objective)
    gap = np.array([line["divergence"] for line in log])
    assert gap[-5:].mean() < 0.8 * gap[:3].mean()
    assert {line["own_examples"] for line in log} == {1.0}
    np.testing.assert_allclose([line["own_loss"] for line in log], gap, rtol=1e-4)


@pytest.mark.parametrize("stop", [1, 5])
def test_interrupted_training_ends_bit_by_bit_the_same(stop, learn, stops_at, tmp_path):
    on_policy = OnPolicyConfig(own_share=0.2, own_share_end=0.9, importance_cap=2.0)
    weights, whole = learn(tmp_path / "whole", on_policy=on_policy)
    shares = [line["own_examples"] for line in whole]
    assert 0 <= shares[0] < shares[-1] <= 1
    with pytest.raises(stops_at.error):
        learn(tmp_path / "broken", on_policy=on_policy, progress=stops_at(stop))
    resumed, log = learn(tmp_path / "broken", on_policy=on_policy)
    assert_same(resumed, weights)
    assert [line["loss"] for line in log] == [line["loss"] for line in whole]
    # The sampler has the very weights that are trained.
    for line in whole:
        assert line["importance"] == pytest.approx(1.0 if line["own_examples"] else 0.0, abs=1e-4)


def test_micro_batches_train_the_same(learn, tmp_path):
    logs = []
    for micro_rows in (0, 2):
        rollouts = dataclasses.replace(ROLLOUTS, micro_rows=micro_rows, rows=6)
        logs.append(learn(tmp_path / str(micro_rows), 3, rollouts=rollouts)[1])
    for metric in ("loss", "divergence", "own_loss", "gradient_norm"):
        one, other = ([line[metric] for line in log] for log in logs)
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)


def test_without_own_answers_nothing_is_sampled(learn, tmp_path, monkeypatch):
    monkeypatch.setattr(Engine, "submit", None)
    monkeypatch.setattr(Engine, "update", None)
    _, log = learn(tmp_path, 2, OnPolicyConfig(own_share=0.0))
    assert [line["own_examples"] for line in log] == [0.0, 0.0]
    assert [line["answer_length"] for line in log] == [0.0, 0.0]


@pytest.fixture(scope="module")
def step(model, traces, teacher):
    """The questions of a step, which of them are asked, the answers and the lesson."""
    chosen = questions(8, 6, 3, 0)
    own = [True, False, True, True, False, False]
    asked = [question for question, mine in zip(chosen, own, strict=True) if mine]
    prompts = [example.prompt_ids for example in traces]
    answers = roll_out(Engine(model, SIZES), prompts, asked, ROLLOUTS, (END,), seed=3, step=0)
    return chosen, own, answers, lesson_of(traces, chosen, own, answers, ROLLOUTS, 6, teacher)


def test_own_answers_take_the_place_of_their_traces(step, traces):
    chosen, own, answers, lesson = step
    expected, mine = [], iter(answers)
    for question, replaced in zip(chosen, own, strict=True):
        trace = traces[question.problem]
        expected.append(
            dataclasses.replace(trace, target_ids=next(mine).ids) if replaced else trace
        )
    rows = pack_fixed(expected, 20, 6)
    plain = batch(rows, np.arange(6))
    for name in ("tokens", "targets", "weights", "segment_ids"):
        np.testing.assert_array_equal(getattr(lesson.batch, name), getattr(plain, name))
    assert lesson.own.sum() == sum(len(answer.ids) for answer in answers)
    assert (lesson.batch.weights[lesson.own] > 0).all()
    assert (lesson.logprobs != 0)[lesson.own].all() and not lesson.logprobs[~lesson.own].any()


def test_the_teacher_reads_own_answers_under_the_teams_prompts(
    step, model, traces, prompts, mesh_of
):
    """At every token the mean of its contexts' hidden states: their geometric mixture."""
    chosen, own, answers, lesson = step
    other = init_model(model.config, 7, mesh_of(), ShardingRules())
    mine = iter(answers)
    said = [
        next(mine).ids if replaced else traces[question.problem].target_ids
        for question, replaced in zip(chosen, own, strict=True)
    ]
    logits = np.asarray(lesson.target.hidden @ lesson.target.head)
    rows = pack_fixed(
        [
            Example(traces[q.problem].prompt_ids, ids, 1.0, {})
            for q, ids in zip(chosen, said, strict=True)
        ],
        20,
        6,
    )
    for question, ids, at in zip(chosen, said, rows.placements, strict=True):
        mixed = 0.0
        for prompt in prompts[question.problem]:
            tokens = np.array([(*prompt, *ids)], np.int32)
            places = np.arange(tokens.shape[1], dtype=np.int32)[None]
            hidden = other(tokens, places, np.ones_like(tokens))[0, len(prompt) - 1 : -1]
            mixed += jax.nn.log_softmax(other.logits(hidden)) / len(prompts[question.problem])
        here = logits[at.row, at.target_start - 1 : at.target_start - 1 + at.target_length]
        np.testing.assert_allclose(jax.nn.log_softmax(here), jax.nn.log_softmax(mixed), atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"objective": Objective()}, ConfigError, "need a teacher's distribution"),
        ({"rollouts": dataclasses.replace(ROLLOUTS, samples=2)}, ConfigError, "samples is 2"),
        (
            {"rollouts": dataclasses.replace(ROLLOUTS, row_length=11)},
            DataError,
            "rollouts.row_length",
        ),
        ({"examples": []}, DataError, "no prompts"),
    ],
)
def test_what_does_not_fit_is_refused(changes, error, words, learn, tmp_path):
    with pytest.raises(error, match=words):
        learn(tmp_path, **changes)
