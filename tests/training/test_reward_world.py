"""From debates' answers to rewards of steps, held against the embedded world's own truth."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from arkjax.distillation.grpo import GRPOConfig, advantages
from arkjax.evaluation.process import ScoredAnswer, best_of_n, step_quality
from arkjax.models.placement import init_model
from arkjax.progress import Progress
from arkjax.sharding import ShardingRules
from arkjax.shipped import shipped_path
from arkjax.synthesis.judged_answers import UNKNOWN, JudgedAnswer
from arkjax.synthesis.step_labels import StepLabelConfig, label_by_peers
from arkjax.synthesis.steps import step_ends
from arkjax.tasks import embedded_world as world
from arkjax.tasks.embedded_sets import SHIPPED_WORLD
from arkjax.tasks.world_grader import WorldGrader
from arkjax.tasks.world_steps import truth_of_steps
from arkjax.text.chat import BylineChat
from arkjax.text.tokenizer import Tokenizer
from arkjax.training.optimizer import OptimizerConfig
from arkjax.training.reward_model import RewardModel
from arkjax.training.reward_scoring import step_scorer
from arkjax.training.reward_training import ProcessRewardConfig, train_reward_model
from arkjax.training.rollouts import Answer

CONFIG = ProcessRewardConfig(
    labels=StepLabelConfig(steps="clause"),
    loss="bce",
    head_epochs=1,
    epochs=6,
    batch_rows=16,
    row_length=128,
    log_every=10,
    optimizer=OptimizerConfig(1e-2, 5, 0.1, 0.9, 0.98, 0.0, 1.0),
)


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer(shipped_path("data/embedded_world/tokenizer.model"))


def answers_to(problems, tokenizer):
    """Two who know everything, one who is expert in one domain alone, and two laymen."""
    chat, made = BylineChat(tokenizer), []
    for problem in problems:
        items = world.parse_question(problem.question)
        for i, knows in enumerate([set(world.SKILLS)] * 2 + [{items[0][0]}, set(), set()]):
            values = [
                (world.SKILLS[d].truth if d in knows else world.SKILLS[d].misconception)(a, b)
                for d, a, b in items
            ]
            verbs = [world.KNOWS if d in knows else world.GUESSES for d, _, _ in items]
            text = world.solution_text(items, values, verbs, world.TOTALS[i % 2])
            ids = (*tokenizer.encode(text), tokenizer.eos_id)
            ends = step_ends(ids, tokenizer, "clause")
            made.append(
                JudgedAnswer(
                    problem.id,
                    f"{problem.id}/{i}",
                    (*chat.question(problem.question), *chat.turn(world.BARE_BYLINE)),
                    ids,
                    ends,
                    (UNKNOWN,) * len(ends),
                    float(WorldGrader().grade(problem, text).correct),
                )
            )
    return made


def test_a_reward_model_tells_the_worlds_right_steps_from_wrong_ones(
    model, mesh_of, tokenizer, tmp_path
):
    traps = dataclasses.replace(SHIPPED_WORLD, train_part_rates=(0.0, 0.4, 0.6))
    problems = world.make_problems(traps, "train", 160, 0)
    by_id = {problem.id: problem for problem in problems}
    judged = label_by_peers(answers_to(problems[:100], tokenizer), tokenizer, CONFIG.labels)

    def truth(answer):
        texts = answer.texts(tokenizer)
        return [step.right for step in truth_of_steps(by_id[answer.problem_id], texts)]

    labels = np.concatenate([answer.labels for answer in judged.answers])
    right = np.concatenate([truth(answer) for answer in judged.answers])
    # The peers never saw the truth of a step; this much their agreement is worth.
    assert ((labels >= 0.5) == right).mean() > 0.97

    config = dataclasses.replace(model.config, vocab_size=192)
    start = init_model(config, 0, mesh_of(), ShardingRules())
    reward = train_reward_model(
        start,
        judged,
        CONFIG,
        tmp_path,
        seed=0,
        mesh=mesh_of(),
        rules=ShardingRules(),
        progress=Progress(enabled=False),
    )

    def scored(some):
        answers = answers_to(some, tokenizer)
        return [
            ScoredAnswer(
                a.problem_id,
                tuple(map(float, r)),
                tuple(truth(a)),
                str(WorldGrader().extract("".join(a.texts(tokenizer)))),
                a.outcome == 1,
            )
            for a, r in zip(answers, reward.rewards(answers, 16, 128), strict=True)
        ]

    test = scored(problems[120:])
    quality = step_quality(scored(problems[100:120]), test)
    assert quality.auroc > 0.85
    # Always to say "none", or always the first step, finds far fewer.
    firsts = [answer.first_error for answer in test]
    blind = max(firsts.count(guess) for guess in set(firsts)) / len(firsts)
    assert quality.first_errors.accuracy > blind + 0.1
    chosen = best_of_n(test)
    assert chosen.systems["best"].value > chosen.systems["majority"].value


def test_samples_of_a_student_get_the_rewards_of_their_steps(model, mesh_of, tokenizer):
    config = dataclasses.replace(model.config, vocab_size=192)
    start = init_model(config, 0, mesh_of(), ShardingRules())
    reward = RewardModel(start, "bce", jnp.linspace(-1, 1, config.d_model))
    answers = answers_to(world.make_problems(SHIPPED_WORLD, "train", 3, 0), tokenizer)
    samples = [
        Answer(0, 0, i, a.prompt_ids, a.answer_ids, (0.0,) * len(a.answer_ids), "stop")
        for i, a in enumerate(answers)
    ]
    # One that was cut off in its second step, and one that says nothing.
    cut = dataclasses.replace(samples[0], ids=samples[0].ids[: answers[0].step_ends[0] + 3])
    nothing = dataclasses.replace(samples[0], ids=(tokenizer.eos_id,))
    scored = step_scorer(reward, tokenizer, "clause", 4, 64)([*samples, cut, nothing])
    expected = reward.rewards(answers, 8, 80)
    for answer, got, own in zip(answers, scored, expected, strict=False):
        assert got.ends == answer.step_ends
        np.testing.assert_allclose(got.rewards, own, atol=1e-5)  # fp32, other widths
    assert scored[-2].ends == (answers[0].step_ends[0], answers[0].step_ends[0] + 3)
    assert scored[-2].rewards[0] == pytest.approx(expected[0][0], abs=1e-5)
    assert scored[-1] == ((), ())
    # What GRPO makes of them: one advantage a token, equal within a step.
    lengths = [len(answer.answer_ids) for answer in answers[:4]]
    grpo = GRPOConfig(outcome_weight=0.0, process_weight=1.0)
    found = advantages(grpo, np.zeros((1, 4)), lengths, 64, scored[:4])
    for answer, own in zip(answers[:4], found.tokens, strict=True):
        starts = (0, *answer.step_ends[:-1])
        for start, end in zip(starts, answer.step_ends, strict=True):
            assert (own[start:end] == own[start]).all()
