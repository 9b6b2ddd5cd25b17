"""Replays: an engine's own calls come out the same, and whatever was changed is found."""

import dataclasses

import numpy as np
import pytest

from arkjax.models.config import ModelConfig
from arkjax.models.transformer import Transformer
from arkjax.models.weights import init_weights
from arkjax.sampling.engine import Engine, EngineConfig
from arkjax.sampling.params import Request, SamplingParams
from arkjax.trajectories.replay import (
    TOLERANCE,
    Rescored,
    request_of,
    resample,
    rescore,
    sampling_of,
)
from arkjax.trajectories.schema import TEMPLATE, Call, sampling_dict

CONFIG = ModelConfig(
    vocab_size=48, d_model=32, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=8, d_ff=64
)
ENGINE = EngineConfig(
    length_classes=(32,),
    slots=6,
    prefixes=4,
    admit_rows=4,
    prefix_rows=2,
    chunk=16,
    block_steps=5,
    max_stop_ids=2,
)


@pytest.fixture(scope="module")
def engine():
    return Engine(Transformer(CONFIG, init_weights(CONFIG, 0)), ENGINE)


@pytest.fixture(scope="module")
def calls(engine):
    """What the engine made of requests of all kinds, as records."""
    rng = np.random.default_rng(0)
    kinds = [
        SamplingParams(temperature=0.0, max_tokens=6),
        SamplingParams(temperature=1.0, max_tokens=9, stop_ids=(3,)),
        SamplingParams(temperature=0.7, top_k=5, top_p=0.9, max_tokens=8),
    ]
    requests = [
        Request(f"{i:032x}", rng.integers(4, 48, 8 + i % 5).tolist(), i % 7, kinds[i % 3], seed=i)
        for i in range(24)
    ]
    recorded = []
    for request, made in zip(requests, engine.generate(requests), strict=True):
        recorded.append(
            Call(
                call_id=request.id,
                problem_id="p",
                system="debate",
                stage="opening",
                round=0,
                agent="a",
                sample=0,
                parents=(),
                prompt_segments=((TEMPLATE, 0, len(request.prompt_ids)),),
                prompt_ids=request.prompt_ids,
                prefix_len=request.prefix_len,
                cached_len=0,
                gen_ids=tuple(map(int, made.ids)),
                logprobs=tuple(map(float, made.logprobs)),
                sampling_logprobs=tuple(map(float, made.sampling_logprobs)),
                text="",
                parsed={},
                parse_ok=False,
                finish_reason=made.finish_reason,
                sampling=sampling_dict(request.sampling),
                seed=request.seed,
                model="base",
                correct=None,
                seconds=0.0,
            )
        )
    return recorded


def test_a_record_says_what_its_request_was(calls):
    sampling = SamplingParams(0.5, 3, 0.9, 0.1, 7, (1, 2), ("so",))
    assert sampling_of(sampling_dict(sampling)) == sampling
    assert request_of(calls[4]).prompt_ids == calls[4].prompt_ids


def test_scores_agree_with_what_was_recorded_while_sampling(engine, calls):
    assert engine.dtype == "float32"
    told = []
    result = rescore(calls, engine, TOLERANCE[engine.dtype], advance=told.append)
    assert (result.calls, sum(told)) == (24, 24)
    assert result.tokens == sum(len(call.gen_ids) for call in calls)
    assert (result.beyond, result.differing, result.unknown) == (0, {}, 0)
    # Far below the tolerance, but not the same computation.
    assert 0 < result.rms <= result.largest < 1e-4


def test_a_changed_log_probability_a_changed_token_and_another_model_are_found(engine, calls):
    wrong = list(calls)
    logprobs = list(calls[3].logprobs)
    logprobs[1] -= 0.01
    wrong[3] = dataclasses.replace(calls[3], logprobs=tuple(logprobs))
    result = rescore(wrong, engine, 1e-3)
    assert (result.beyond, list(result.differing)) == (1, [calls[3].call_id])
    assert result.differing[calls[3].call_id] == pytest.approx(0.01, rel=0.01)
    assert result.rms == pytest.approx(0.01 / result.tokens**0.5, rel=0.01)
    assert rescore(wrong, engine, 0.02).beyond == 0
    ids = (*calls[5].gen_ids[:2], calls[5].gen_ids[2] ^ 1, *calls[5].gen_ids[3:])
    token = dataclasses.replace(calls[5], gen_ids=ids)
    assert list(rescore([token, calls[0]], engine, 1e-3).differing) == [token.call_id]
    other = Engine(Transformer(CONFIG, init_weights(CONFIG, 1)), ENGINE)
    assert len(rescore(calls, other, 1e-3).differing) == 24


def test_what_was_not_recorded_or_not_generated_is_left_out(engine, calls):
    blank = dataclasses.replace(calls[0], logprobs=(float("nan"),) * len(calls[0].gen_ids))
    action = dataclasses.replace(calls[1], model="tool:calculator/1", logprobs=())
    silent = dataclasses.replace(calls[2], gen_ids=(), logprobs=())
    result = rescore([blank, action, silent, calls[3]], engine, 1e-3)
    assert (result.calls, result.unknown) == (2, len(blank.gen_ids))
    assert result.differing == {} and result.rms < 1e-4
    assert resample([action], engine).calls == 0


def test_results_of_several_stretches_add_up(engine, calls):
    whole = rescore(calls, engine, 1e-3)
    parts = Rescored(1e-3)
    for some in (calls[:7], calls[7:]):
        rescore(some, engine, 1e-3, parts)
    assert (parts.calls, parts.tokens, parts.largest) == (whole.calls, whole.tokens, whole.largest)
    assert parts.rms == pytest.approx(whole.rms)


def test_the_same_requests_give_the_same_tokens_in_any_company(engine, calls):
    assert resample(calls, engine).differing == {}
    result = resample(list(reversed(calls)), engine, batch_calls=7)
    assert (result.calls, result.differing) == (24, {})
    assert result.tokens == sum(len(call.gen_ids) for call in calls)


def test_other_tokens_another_end_and_another_seed_are_found(engine, calls):
    first = calls[1]
    changed = [
        dataclasses.replace(first, gen_ids=(first.gen_ids[0], first.gen_ids[1] ^ 1)),
        dataclasses.replace(calls[2], gen_ids=calls[2].gen_ids[:-1]),
        dataclasses.replace(calls[3], finish_reason="stop"),
        calls[4],
    ]
    result = resample(changed, engine)
    assert result.differing == {
        first.call_id: 1,
        calls[2].call_id: len(calls[2].gen_ids) - 1,
        calls[3].call_id: len(calls[3].gen_ids),
    }
    drawn = [call for i, call in enumerate(calls) if i % 3]
    others = [dataclasses.replace(call, seed=call.seed + 1000) for call in drawn]
    assert len(resample(others, engine).differing) > len(drawn) // 2
