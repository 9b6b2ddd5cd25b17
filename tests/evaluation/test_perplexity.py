"""Which of a team's messages are read, and what a model makes of them."""

import math
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from arkjax.evaluation.perplexity import Trace, surprise, team_traces
from arkjax.models.config import ModelConfig
from arkjax.models.transformer import Transformer
from arkjax.models.weights import init_weights
from arkjax.sampling.engine import Engine, EngineConfig

MODEL = ModelConfig(
    vocab_size=32,
    d_model=16,
    num_layers=2,
    num_heads=2,
    num_kv_heads=2,
    head_dim=8,
    d_ff=32,
    qk_norm=True,
)


def said(name, round, ids, correct=True, is_action=False):
    return SimpleNamespace(
        call_id=name, round=round, gen_ids=ids, correct=correct, is_action=is_action
    )


def debate(name, *calls):
    return SimpleNamespace(problem=SimpleNamespace(id=name, question=name), calls=calls)


def traces(debates, most=10, longest=20, own=lambda calls: calls):
    return team_traces(debates, lambda question: (1, len(question)), own, most, longest)


def test_right_messages_of_the_last_round_each_once():
    debates = [
        debate(
            "p",
            said("opening", 0, (5, 6)),
            said("wrong", 1, (7,), correct=False),
            said("b", 1, (8, 9)),
            said("a", 1, (8, 9)),
            said("c", 1, (9, 9)),
            said("tool", 1, (3,), is_action=True),
            said("nothing", 2, ()),
        ),
        debate("all wrong", said("d", 0, (4,), correct=False)),
        debate("silent"),
    ]
    assert traces(debates) == (
        [Trace("p", "a", (1, 1), (8, 9)), Trace("p", "c", (1, 1), (9, 9))],
        0,
    )
    assert traces(debates[1:]) == ([], 0)
    assert traces(debates, longest=3) == ([], 3)
    foreign = traces(debates, own=lambda calls: [c for c in calls if c.call_id == "c"])[0]
    assert [trace.call_id for trace in foreign] == ["c"]


def test_every_problem_has_one_before_any_has_two():
    debates = [
        debate(f"p{i}", *(said(f"{i}{j}", 0, (i + 1, j + 1)) for j in range(3))) for i in range(5)
    ]
    chosen = traces(debates, most=7)[0]
    names = [trace.problem_id for trace in chosen]
    assert len(set(names[:5])) == 5 and len(set(names[5:])) == 2
    assert traces(debates[::-1], most=7)[0] == chosen
    assert traces(debates, most=0)[0] == []


def test_perplexity_is_that_of_the_transformer():
    model = Transformer(MODEL, init_weights(MODEL, 0))
    config = EngineConfig(
        length_classes=(24,),
        slots=4,
        prefixes=4,
        admit_rows=4,
        prefix_rows=2,
        chunk=24,
        block_steps=4,
        max_stop_ids=1,
    )
    rng = np.random.default_rng(0)
    chosen = [
        Trace(
            f"p{i}",
            f"c{i}",
            tuple(rng.integers(3, 32, 2 + i % 4).tolist()),
            tuple(rng.integers(3, 32, 1 + i % 7).tolist()),
        )
        for i in range(70)
    ]
    told = []
    found = surprise(chosen, Engine(model, config, None).score, told.append)
    assert told == [64, 6] and found.keys() == {trace.call_id for trace in chosen}
    for trace in chosen[::9]:
        ids = jnp.asarray([[*trace.prompt, *trace.target]], jnp.int32)
        positions = jnp.arange(ids.shape[1])[None]
        logits = np.asarray(model.logits(model(ids, positions, jnp.ones_like(ids)))[0], np.float64)
        logprobs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        start = len(trace.prompt)
        own = [logprobs[start + i - 1, token] for i, token in enumerate(trace.target)]
        nats, tokens = found[trace.call_id]
        assert tokens == len(trace.target)
        assert math.exp(nats) == pytest.approx(math.exp(-np.mean(own)), rel=1e-5)
    assert surprise([], None) == {}
