"""GRPO from the first sample to the last step: learns, is exact after a kill, logs what it does."""

import dataclasses
import math

import jax
import numpy as np
import pytest

from arkjax.distillation.grpo import VARIANTS, GRPOConfig, StepRewards
from arkjax.errors import ConfigError, DataError
from arkjax.models.config import Lora
from arkjax.models.lora import add_lora
from arkjax.models.placement import init_model
from arkjax.progress import Progress
from arkjax.sampling.engine import Engine, EngineConfig
from arkjax.sharding import ShardingRules
from arkjax.training.metrics import read_metrics
from arkjax.training.optimizer import OptimizerConfig
from arkjax.training.policy import train_policy
from arkjax.training.resampling import Rewarded, resample
from arkjax.training.rollouts import LiveSampler, RolloutConfig, questions

END = 5
PROMPTS = [(7, 9), (8, 3, 3), (6, 4), (10, 11)]
ROLLOUTS = RolloutConfig(prompts=4, samples=6, max_tokens=6, row_length=12)
GRPO = GRPOConfig(process_weight=0.0)
SIZES = EngineConfig(
    length_classes=(12,),
    slots=8,
    prefixes=4,
    admit_rows=8,
    prefix_rows=2,
    chunk=12,
    block_steps=6,
    max_stop_ids=1,
)
OPTIMIZER = OptimizerConfig(1e-2, 2, 0.5, 0.9, 0.95, 0.0, 1.0)


def _right(answer):
    """Which words of an answer, the end token apart, are of its prompt's parity."""
    words = answer.ids[:-1] if answer.ended else answer.ids
    return [float(token % 2 == answer.prompt_ids[0] % 2) for token in words]


def says_its_number(answers):
    """A bandit: the share of the answer's words that are of its prompt's parity."""
    return [float(np.mean(_right(answer) or [0.0])) for answer in answers]


def each_token_a_step(answers):
    """Process rewards of every token but the end token."""
    rights = [_right(answer) for answer in answers]
    return [StepRewards(tuple(range(1, len(right) + 1)), tuple(right)) for right in rights]


@pytest.fixture
def learn(model, training_config):
    """A function that trains and returns the weights, by name, and the metrics."""

    def learn(directory, steps=6, grpo=GRPO, rollouts=ROLLOUTS, student=None, **changes):
        student = student or model
        settings = {
            "end_ids": (END,),
            "seed": 3,
            "mesh": student.mesh,
            "rules": ShardingRules(),
            "progress": Progress(enabled=False),
            "name": "pupil",
            **changes,
        }
        every = settings.pop("checkpoint_every", 2)
        config = dataclasses.replace(
            training_config, steps=steps, optimizer=OPTIMIZER, checkpoint_every=every
        )
        outcome = settings.pop("outcome", says_its_number)
        prompts = settings.pop("prompts", PROMPTS)
        engine = Engine(student, SIZES)
        trained = train_policy(
            student, engine, prompts, outcome, rollouts, grpo, config, directory, **settings
        )
        weights = {name: np.asarray(array) for name, array in trained.arrays().items()}
        return weights, read_metrics(directory / "metrics.jsonl")

    return learn


def assert_same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


@pytest.mark.parametrize("name", ["default", *VARIANTS, "process"])
def test_every_variant_learns_what_is_rewarded(name, model, learn, tmp_path):
    # Answers of six words cannot be both whole and well below six tokens.
    grpo, process = dataclasses.replace(VARIANTS.get(name, GRPO), overlong_share=0.0), None
    if name == "process":
        grpo, process = GRPOConfig(outcome_weight=0.0, process_weight=1.0), each_token_a_step
    _, log = learn(tmp_path, 25, grpo, process=process, reference=model, checkpoint_every=25)
    reward = np.array([line["reward"] for line in log])
    assert 0.3 < reward[:3].mean() < 0.7
    assert reward[-5:].mean() > reward[:3].mean() + 0.2


# Before the first checkpoint, which is after step 2, and beyond the second.
@pytest.mark.parametrize("stop", [1, 5])
def test_interrupted_training_ends_bit_by_bit_the_same(stop, learn, stops_at, tmp_path):
    weights, whole = learn(tmp_path / "whole")
    with pytest.raises(stops_at.error):
        learn(tmp_path / "broken", progress=stops_at(stop))
    resumed, log = learn(tmp_path / "broken")
    assert_same(resumed, weights)
    for a, b in zip(whole, log, strict=True):
        timed = {name for name in a if name.endswith("seconds")}
        assert timed == {"train_seconds", "rollout_seconds", "reward_seconds"}
        assert {k: v for k, v in a.items() if k not in timed} == {
            k: v for k, v in b.items() if k not in timed
        }


def test_weights_that_last_two_steps_resume_as_well(learn, stops_at, tmp_path):
    rollouts = dataclasses.replace(ROLLOUTS, refresh_steps=2)
    weights, whole = learn(tmp_path / "whole", rollouts=rollouts)
    assert [line["lag"] for line in whole] == [0, 1] * 3
    # On policy the ratio is 1 up to rounding; one step behind it is not, once steps have a length.
    off = [abs(math.log(line["ratio"])) for line in whole]
    assert max(off[::2]) < 1e-4 < min(off[3::2])
    with pytest.raises(stops_at.error):
        learn(tmp_path / "broken", rollouts=rollouts, progress=stops_at(5))
    assert_same(learn(tmp_path / "broken", rollouts=rollouts)[0], weights)
    with pytest.raises(ConfigError, match=r"checkpoint_every is 3: expected a multiple"):
        learn(tmp_path / "other", rollouts=rollouts, checkpoint_every=3)


@pytest.mark.slow
def test_a_mesh_trains_the_same(learn, model, mesh_of, tmp_path):
    mesh = mesh_of(2, 2, 2)
    spread = init_model(model.config, 0, mesh, ShardingRules())
    grpo = dataclasses.replace(GRPO, kl_coefficient=0.1)
    one, log = learn(tmp_path / "one", 2, grpo, reference=model)
    parts = dataclasses.replace(ROLLOUTS, micro_rows=8)
    many, other = learn(tmp_path / "many", 2, grpo, parts, student=spread, reference=spread)
    assert [line["reward"] for line in log] == [line["reward"] for line in other]
    for name in ("kl", "ratio", "objective", "entropy", "gradient_norm"):
        np.testing.assert_allclose(
            [line[name] for line in log], [line[name] for line in other], rtol=1e-3, atol=2e-5
        )
    for name in one:
        # Adam divides by the gradient's size: what is rounding in it shows.
        np.testing.assert_allclose(one[name], many[name], atol=2e-3)


@pytest.mark.parametrize("name", ["default", "gspo"])
def test_micro_batches_train_the_same(name, learn, model, tmp_path):
    grpo = dataclasses.replace(VARIANTS.get(name, GRPO), kl_coefficient=0.1)
    whole, log = learn(tmp_path / "whole", 3, grpo, reference=model)
    rollouts = dataclasses.replace(ROLLOUTS, micro_rows=4)
    parts, other = learn(tmp_path / "parts", 3, grpo, rollouts, reference=model)
    assert [line["reward"] for line in log] == [line["reward"] for line in other]
    for metric in ("loss", "kl", "ratio", "entropy", "clip_share", "gradient_norm"):
        np.testing.assert_allclose(
            [line[metric] for line in log], [line[metric] for line in other], rtol=1e-3, atol=2e-5
        )
    for weight in whole:
        np.testing.assert_allclose(whole[weight], parts[weight], atol=1e-3)


def test_the_kl_holds_the_student_to_its_reference(learn, model, tmp_path):
    logs = []
    for beta in (0.0, 3.0):
        grpo = dataclasses.replace(GRPO, kl_coefficient=beta)
        logs.append(learn(tmp_path / str(beta), 12, grpo, reference=model)[1])
    free, held = logs
    assert held[0]["kl"] == pytest.approx(0, abs=1e-6) and held[-1]["kl"] > 1e-4
    assert held[-1]["reward"] < free[-1]["reward"]
    assert {line["kl"] for line in free} == {0}


def test_adapters_are_trained_and_sampled_from(learn, model, tmp_path):
    student = add_lora(model, Lora(rank=2, alpha=4.0))
    weights, log = learn(tmp_path, 3, student=student)
    before = {name: np.asarray(array) for name, array in student.arrays().items()}
    changed = {name for name in weights if not np.array_equal(weights[name], before[name])}
    assert changed and all("_lora_" in name for name in changed)
    # The third step's answers are those of adapters that are no longer zero.
    assert len(log) == 3 and abs(math.log(log[2]["ratio"])) < 1e-4


def test_nothing_is_learned_where_all_answers_earn_the_same(learn, model, tmp_path):
    weights, log = learn(tmp_path, 2, outcome=lambda answers: [0.1] * len(answers))
    assert_same(weights, {name: np.asarray(a) for name, a in model.arrays().items()})
    assert [line["reward_flat"] for line in log] == [1.0, 1.0]
    assert [line["gradient_norm"] for line in log] == [0.0, 0.0]


@pytest.mark.parametrize("process", [None, each_token_a_step], ids=["outcome", "process"])
def test_groups_that_teach_nothing_are_replaced(process, model):
    """Of eight problems two are always solved and two never: steps learn from the other four."""
    prompts = [(7, 9 + i) for i in range(8)]
    rollouts = dataclasses.replace(ROLLOUTS, prompts=4, samples=4)
    grpo = GRPOConfig(process_weight=0.5 if process else 0.0, resample_rounds=3)
    sampler = LiveSampler(Engine(model, SIZES), prompts, rollouts, (END,), 3)

    def rewarded(answers):
        fixed = {0: 0.0, 1: 0.0, 2: 1.0, 3: 1.0}
        own = [fixed.get(answer.problem, float(answer.sample % 2)) for answer in answers]
        seen.extend(own)
        steps = None
        if process:
            steps = [StepRewards((len(a.ids),), (r,)) for a, r in zip(answers, own, strict=True)]
        return Rewarded(answers, np.asarray(own), steps)

    for step in range(3):
        seen = []
        asked = questions(len(prompts), rollouts.prompts, sampler.seed, step)
        answers, _ = sampler.answers(step, lambda: model, asked)
        first = rewarded(answers)
        flat = sum(question.problem < 4 for question in asked)
        earned, measured = resample(first, asked, len(prompts), sampler, step, grpo, rewarded)
        assert measured["reward_sampled"] == pytest.approx(np.mean(seen))
        again, _ = resample(first, asked, len(prompts), sampler, step, grpo, rewarded)
        assert earned.answers == again.answers
        groups = earned.groups(rollouts.samples)
        problems = [{answer.problem for answer in group.answers} for group in groups]
        # Those that taught something stay where they were.
        for place, question in enumerate(asked):
            if question.problem >= 4:
                assert problems[place] == {question.problem}
        assert set().union(*problems) == {4, 5, 6, 7} and len(groups) == 4
        assert [answer.question for answer in earned.answers] == sorted([*range(4)] * 4)
        assert not any(earned.advantages(grpo, rollouts).flat)
        assert 4 + flat <= measured["groups_sampled"] <= 8


def test_what_is_left_of_flat_groups_stays_and_the_step_has_an_end(learn, tmp_path):
    grpo = dataclasses.replace(VARIANTS["dapo"], overlong_share=0.0)
    asked = []

    def outcome(answers):
        asked.append({answer.problem for answer in answers})
        return [0.0] * len(answers)

    prompts = [*PROMPTS, (12, 13), (14, 15)]
    _, log = learn(tmp_path, 1, grpo, prompts=prompts, outcome=outcome)
    # Six problems: four at first, and then the two that are left.
    assert [len(some) for some in asked] == [4, 2] and not asked[0] & asked[1]
    assert log[0]["groups_sampled"] == 6 and log[0]["reward_flat"] == 1


def test_resampling_resumes_bit_by_bit(learn, stops_at, tmp_path):
    grpo = dataclasses.replace(GRPO, resample_rounds=2)
    prompts = [*PROMPTS, (12, 13), (14, 15)]

    def outcome(answers):
        return [float(sum(_right(a)) > 3) if a.problem % 2 else 0.0 for a in answers]

    settings = {"grpo": grpo, "prompts": prompts, "outcome": outcome}
    weights, log = learn(tmp_path / "whole", 4, **settings)
    assert max(line["groups_sampled"] for line in log) > ROLLOUTS.prompts
    with pytest.raises(stops_at.error):
        learn(tmp_path / "broken", 4, progress=stops_at(3), **settings)
    assert_same(learn(tmp_path / "broken", 4, **settings)[0], weights)


def test_what_is_logged(learn, tmp_path):
    seen = []

    def outcome(answers):
        seen.append(answers)
        return says_its_number(answers)

    grpo = GRPOConfig(process_weight=0.2)
    _, log = learn(tmp_path, 1, grpo, outcome=outcome, process=each_token_a_step)
    (line,), (answers,) = log, seen
    lengths = [len(answer.ids) for answer in answers]
    assert line["answer_length"] == pytest.approx(np.mean(lengths))
    assert line["log_answer_length"] == pytest.approx(np.mean(np.log(lengths)))
    assert line["cut_off"] == pytest.approx(np.mean([not answer.ended for answer in answers]))
    assert line["reward"] == pytest.approx(np.mean(says_its_number(answers)))
    steps = each_token_a_step(answers)
    assert line["steps"] == pytest.approx(np.mean([len(one.ends) for one in steps]))
    least = np.mean([min(one.rewards, default=0.0) for one in steps])
    assert line["process_reward"] == pytest.approx(least)
    assert line["process_gap"] == pytest.approx(least - line["reward"])
    assert line["clip_share"] == 0 and line["entropy"] > 0


def test_one_shape_whatever_is_answered(learn, tmp_path):
    """A step of long answers after steps of short ones: nothing is compiled anew."""
    compiled = []

    def listen(event, _, **facts):
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append((len(calls), facts.get("fun_name")))

    calls = []

    def outcome(answers):
        calls.append(sum(len(answer.ids) for answer in answers))
        return [float(len(answer.ids)) for answer in answers]

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        learn(tmp_path, 8, outcome=outcome, checkpoint_every=8)
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert len(set(calls)) > 4
    assert [name for step, name in compiled if 3 <= step < 8] == []


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"grpo": GRPOConfig()}, ConfigError, "no process reward model"),
        ({"grpo": VARIANTS["grpo"]}, ConfigError, "there is no reference"),
        ({"outcome": lambda answers: [1.0]}, DataError, "24 answers have rewards of shape"),
        ({"prompts": []}, DataError, "no prompts"),
    ],
)
def test_what_does_not_fit_is_refused(changes, error, words, learn, tmp_path):
    with pytest.raises(error, match=words):
        learn(tmp_path, **changes)
