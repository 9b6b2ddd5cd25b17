"""Answers of the live student: pure functions of seed, step and weights; what of them counts."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from arkjax.distillation.rows import batch, pack
from arkjax.errors import ConfigError, DataError
from arkjax.models.placement import init_model
from arkjax.sampling.engine import Engine, EngineConfig
from arkjax.sharding import ShardingRules
from arkjax.synthesis.examples import Example
from arkjax.training.rollout_rows import at_targets, example_of, num_rows, pack_fixed, rows_needed
from arkjax.training.rollouts import (
    LiveSampler,
    Question,
    RolloutConfig,
    answer_length,
    answer_seed,
    questions,
    roll_out,
)

END = 5
CONFIG = RolloutConfig(prompts=4, samples=6, max_tokens=12, row_length=24, temperature=0.8)
# The end token stands in prompts as well, as it does between the turns of a chat.
PROMPTS = [(7, END, 9, 4), (8, 3), (6,), (2, END, END), (1, 9, 9, 9, 4)]
SIZES = EngineConfig(
    length_classes=(24,),
    slots=6,
    prefixes=4,
    admit_rows=4,
    prefix_rows=2,
    chunk=24,
    block_steps=5,
    max_stop_ids=2,
)


@pytest.fixture(scope="module")
def engine(model):
    return Engine(model, SIZES)


@pytest.fixture(scope="module")
def answers(engine):
    return roll_out(engine, PROMPTS, questions(5, 4, 0, 3), CONFIG, (END,), seed=0, step=3)


def test_answers_end_at_their_first_end_token_or_are_cut_off(answers):
    ended = [answer for answer in answers if answer.ended]
    cut = [answer for answer in answers if not answer.ended]
    assert len(answers) == 24 and len(ended) > 3 and len(cut) > 3
    for answer in ended:
        assert answer.ids.index(END) == len(answer.ids) - 1
        assert len(answer.logprobs) == len(answer.ids) <= 12
    for answer in cut:
        assert END not in answer.ids and len(answer.ids) == len(answer.logprobs) == 12
        assert answer.finish_reason == "length"


def test_the_loss_counts_the_very_tokens_that_were_drawn(answers):
    """The prediction of the first token stands at the prompt's last, that of the end token counts
    and nothing after it: neither sampler nor loss is off by one."""
    rows = pack_fixed([example_of(answer) for answer in answers], 24, 24)
    made = batch(rows, np.arange(24))
    assert (made.weights > 0).sum() == sum(len(answer.ids) for answer in answers)
    for answer, at in zip(answers, rows.placements, strict=True):
        predicted = range(at.target_start - 1, at.target_start - 1 + at.target_length)
        assert tuple(made.targets[at.row, list(predicted)].tolist()) == answer.ids
        assert (made.weights[at.row, list(predicted)] == 1).all()
        ends = [made.targets[at.row, t] == END for t in predicted]
        assert ends == [False] * (len(answer.ids) - 1) + [answer.ended]


def test_sampler_and_trainer_agree_on_the_probability_of_every_token(model, answers):
    rows = pack_fixed([example_of(answer) for answer in answers], 24, 24)
    made = batch(rows, np.arange(24))
    drawn = at_targets(rows, [answer.logprobs for answer in answers])
    logits = model.logits(model(made.tokens, made.positions, made.segment_ids))
    log_q = jax.nn.log_softmax(logits / CONFIG.temperature)
    ours = np.asarray(jnp.take_along_axis(log_q, made.targets[..., None], -1)[..., 0])
    counts = made.weights > 0
    # fp32: caches and whole sequences add up in another order.
    np.testing.assert_allclose(ours[counts], drawn[counts], atol=2e-5)
    assert not drawn[~counts].any()
    # One place further they would not.
    assert np.abs(ours[counts] - np.roll(drawn, 1, axis=1)[counts]).mean() > 0.1


def test_a_group_shares_the_prefill_of_its_prompt(model):
    engine = Engine(model, SIZES)
    prompt = (1, 9, 9, 9, 4)
    roll_out(engine, [prompt], [Question(0, 0)], CONFIG, (END,), seed=0, step=0)
    # All but the last token once, and that for each of the answers.
    assert engine.profile.prompt_tokens == len(prompt) - 1 + CONFIG.samples


def test_answers_are_a_function_of_seed_step_problem_and_sample(model, engine, answers):
    asked = questions(5, 4, 0, 3)
    again = roll_out(Engine(model, SIZES), PROMPTS, asked, CONFIG, (END,), seed=0, step=3)
    assert again == answers
    alone = roll_out(engine, PROMPTS, asked[2:3], CONFIG, (END,), seed=0, step=3)
    assert [a.ids for a in alone] == [a.ids for a in answers if a.question == 2]
    other = roll_out(engine, PROMPTS, asked, CONFIG, (END,), seed=0, step=4)
    assert sum(a.ids == b.ids for a, b in zip(other, answers, strict=True)) < 6
    seeds = {
        answer_seed(s, t, p, i) for s in (0, 1) for t in (0, 1) for p in (0, 1) for i in (0, 1)
    }
    assert len(seeds) == 16 and max(seeds) > 2**40


def test_a_step_asks_the_same_whenever_it_is_asked():
    assert questions(50, 8, seed=3, step=7) == questions(50, 8, seed=3, step=7)
    assert questions(50, 8, seed=3, step=8) != questions(50, 8, seed=3, step=7)
    epoch = [q.problem for step in range(5) for q in questions(40, 8, 3, step)]
    assert sorted(epoch) == list(range(40))
    # Few problems are asked more than once a step, and answered with further seeds.
    twice = questions(3, 6, 3, 0)
    assert sorted((q.problem, q.first) for q in twice) == [(p, n) for p in range(3) for n in (0, 1)]


def test_a_problem_that_is_asked_twice_gets_other_answers(engine):
    asked = [Question(1, 0), Question(1, 1)]
    made = roll_out(engine, PROMPTS, asked, CONFIG, (END,), seed=0, step=0)
    assert [answer.sample for answer in made] == list(range(12))
    assert len({answer.ids for answer in made}) > 9


@pytest.mark.parametrize(
    ("ids", "length"), [((1, END), 2), ((END,), 1), ((1, 2), 2), ((1, END, 3, END), 2)]
)
def test_what_follows_an_end_token_is_no_part_of_the_answer(ids, length):
    assert answer_length(ids, (END, 30)) == length


# --- rows ---------------------------------------------------------------------------------------


@given(
    st.lists(st.integers(2, 10), min_size=1, max_size=40), st.integers(10, 33), st.integers(1, 4)
)
def test_there_are_always_rows_enough(lengths, row_length, multiple_of):
    examples = [Example((1,), (2,) * (n - 1), 1.0, {}) for n in lengths]
    rows = rows_needed(len(lengths), 10, row_length, multiple_of)
    assert pack(examples, row_length).num_rows <= rows and rows % multiple_of == 0
    packed = pack_fixed(examples, row_length, rows)
    assert packed.tokens.shape == packed.example_ids.shape == (rows, row_length)
    assert (packed.example_ids >= 0).sum() == sum(lengths) == (packed.segment_ids > 0).sum()


def test_too_few_rows_are_named(mesh_of):
    with pytest.raises(DataError, match=r"need 2 rows of 4 tokens, rollouts.rows is 1"):
        pack_fixed([Example((1,), (2, 3), 1.0, {})] * 2, 4, 1)
    odd = dataclasses.replace(CONFIG, rows=6)
    with pytest.raises(ConfigError, match=r"rollouts.rows is 6: it must be a multiple of the 4"):
        num_rows(odd, 24, 20, mesh_of(2, 2, 1))


def test_numbers_stand_where_their_tokens_are_predicted():
    rows = pack_fixed([Example((1, 2), (3, 4), 1.0, {}), Example((5,), (6,), 1.0, {})], 6, 2)
    spread = at_targets(rows, [(0.25, 0.5), 2.0])
    assert spread.tolist() == [[0, 0.25, 0.5, 0, 2.0, 0], [0] * 6]
    assert at_targets(rows, [0, 1], 2, np.int32)[0].tolist() == [2, 0, 0, 2, 1, 2]


# --- the sampler of a training ------------------------------------------------------------------


def test_the_sampler_answers_with_the_weights_of_the_moment(model, mesh_of):
    engine = Engine(model, SIZES)
    sampler = LiveSampler(engine, PROMPTS, CONFIG, (END,), 0)
    asked = questions(5, 4, 0, 0)
    first, measured = sampler.answers(0, lambda: model, asked)
    later = init_model(model.config, 9, mesh_of(), ShardingRules())
    second, _ = sampler.answers(1, lambda: later, asked)
    fresh = roll_out(Engine(later, SIZES), PROMPTS, asked, CONFIG, (END,), seed=0, step=1)
    assert second == fresh != first
    assert measured["lag"] == 0 and measured["rollout_seconds"] > 0
    assert measured["answer_length"] == np.mean([len(answer.ids) for answer in first])
    assert measured["cut_off"] == np.mean([not answer.ended for answer in first])


def test_weights_may_last_for_several_steps(model, mesh_of):
    config = dataclasses.replace(CONFIG, refresh_steps=2)
    asked = questions(5, 4, 0, 0)
    later = init_model(model.config, 9, mesh_of(), ShardingRules())

    def sampled(sampler, step, student):
        made, measured = sampler.answers(step, lambda: student, asked)
        return [answer.ids for answer in made], measured["lag"]

    sampler = LiveSampler(Engine(model, SIZES), PROMPTS, config, (END,), 0)
    sampled(sampler, 0, model)
    lagging = sampled(sampler, 1, later)
    fresh = roll_out(Engine(model, SIZES), PROMPTS, asked, config, (END,), seed=0, step=1)
    assert lagging == ([answer.ids for answer in fresh], 1)
    assert sampled(sampler, 2, later)[1] == 0
    anew = LiveSampler(Engine(model, SIZES), PROMPTS, config, (END,), 0)
    with pytest.raises(DataError, match=r"goes on at step 3, .* weights at step 2"):
        sampled(anew, 3, later)
    config.check_resume(4)
    with pytest.raises(ConfigError, match=r"checkpoint_every is 3: expected a multiple"):
        config.check_resume(3)


def test_what_cannot_be_answered_is_refused_before_the_first_step(engine):
    short = dataclasses.replace(CONFIG, max_tokens=11, row_length=20)
    with pytest.raises(DataError, match=r"prompt 1 has 13 tokens, .*rollouts.row_length, 20"):
        LiveSampler(engine, [(1,), (1,) * 13], short, (END,), 0)
    with pytest.raises(DataError, match=r"prompt 0: 13 prompt tokens .* longest context, 24"):
        LiveSampler(engine, [(1,) * 13], CONFIG, (END,), 0)
    with pytest.raises(ConfigError, match="max_stop_ids is 2"):
        LiveSampler(engine, [(1,)], CONFIG, (END, 6, 7), 0)
    with pytest.raises(DataError, match="no prompts to answer"):
        LiveSampler(engine, [], CONFIG, (END,), 0)


@pytest.mark.fast
@pytest.mark.parametrize("changes", [{"samples": 0}, {"temperature": 0.0}, {"rows": -1}])
def test_impossible_configs_are_refused_by_name(changes):
    with pytest.raises(ConfigError, match=f"rollouts.{next(iter(changes))} is"):
        dataclasses.replace(CONFIG, **changes)
