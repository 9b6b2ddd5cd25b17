"""Labels by continuations: right shares, whatever interrupts them, each beginning once."""

import dataclasses
import math

import pytest

from arkjax.models.config import ModelConfig
from arkjax.models.placement import init_model
from arkjax.sampling.engine import Engine, EngineConfig
from arkjax.sampling.params import Request, SamplingParams
from arkjax.sharding import MeshConfig, ShardingRules, make_mesh
from arkjax.shipped import shipped_path
from arkjax.synthesis.judged_answers import UNKNOWN, JudgedAnswer
from arkjax.synthesis.step_labels import StepLabelConfig
from arkjax.synthesis.step_rollouts import ROLLOUT, label_by_rollouts, num_starts
from arkjax.text.tokenizer import Tokenizer
from arkjax.trajectories.store import CallStore

CONFIG = StepLabelConfig(source="rollouts", steps="clause", rollouts=4, rollout_tokens=12)
ENGINE = EngineConfig(
    length_classes=(32,),
    slots=8,
    prefixes=8,
    admit_rows=4,
    prefix_rows=2,
    chunk=32,
    block_steps=4,
    max_stop_ids=2,
)


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer(shipped_path("data/embedded_world/tokenizer.model"))


@pytest.fixture(scope="module")
def model():
    config = ModelConfig(
        vocab_size=192,
        d_model=16,
        num_layers=1,
        num_heads=2,
        num_kv_heads=1,
        head_dim=8,
        d_ff=32,
    )
    return init_model(config, 0, make_mesh(MeshConfig(-1, 1, 1)), ShardingRules())


@pytest.fixture
def engine(model):
    return Engine(model, ENGINE)


@pytest.fixture(scope="module")
def answers(tokenizer):
    """Two that begin alike, one of them unfinished, and one to another problem."""

    def make(name, problem, ids, ends, closed, outcome):
        ids = ids + (tokenizer.eos_id,) * closed
        labels = (UNKNOWN,) * len(ends)
        return JudgedAnswer(problem, name, (7, 8, 9), ids, ends, labels, outcome)

    return [
        make("a", "p", (20, 21, 22, 23), (2, 4), True, 1.0),
        make("b", "p", (20, 21, 30), (2, 3), False, 0.0),
        make("c", "q", (20, 21, 22), (2, 3), True, 0.0),
    ]


def accept(problem_id, text):
    """Of a model that knows nothing, about half of the answers."""
    return hash_of(text) % 2 == 0


def hash_of(text):
    return sum(map(ord, text))


def label(answers, engine, tokenizer, config=CONFIG, **options):
    settings = {"model_id": "m", "seed": 3, **options}
    return label_by_rollouts(answers, engine, accept, tokenizer, config, **settings)


class Stopped(Exception):
    pass


class StopsAfter:
    """A generator that fails after some steps."""

    def __init__(self, engine, steps):
        self.engine, self.left = engine, steps

    def __getattr__(self, name):
        return getattr(self.engine, name)

    def step(self):
        self.left -= 1
        if self.left < 0:
            raise Stopped
        return self.engine.step()


def test_labels_are_shares_of_continuations_that_end_right(answers, engine, tokenizer, tmp_path):
    with CallStore(tmp_path) as store:
        labelled, costs = label(answers, engine, tokenizer, store=store)
    calls = store.load()
    # (20, 21) of either problem, and the whole of b.
    assert costs.steps == num_starts(answers, CONFIG) == 3
    assert costs.calls == len(calls) == 3 * 4
    assert costs.generated_tokens == sum(len(call.gen_ids) for call in calls)
    assert costs.prompt_tokens == sum(len(call.prompt_ids) for call in calls)
    assert costs.recorded == costs.without_room == 0

    def share(problem, prefix):
        own = [
            accept(problem, tokenizer.decode([*prefix, *call.gen_ids]))
            for call in calls
            if call.problem_id == problem and call.prompt_ids == (7, 8, 9, *prefix)
        ]
        assert len(own) == 4
        return sum(own) / 4

    shares = {p: share(*p) for p in [("p", (20, 21)), ("p", (20, 21, 30)), ("q", (20, 21))]}
    assert 0 < sum(shares.values()) < 3
    # An answer that has ended needs no continuation: its last label is its outcome.
    assert labelled[0].labels == (shares["p", (20, 21)], 1.0)
    assert labelled[1].labels == (shares["p", (20, 21)], shares["p", (20, 21, 30)])
    assert labelled[2].labels == (shares["q", (20, 21)], 0.0)
    for call in calls:
        assert (call.system, call.agent, call.stage) == (ROLLOUT,) * 3
        assert len(call.gen_ids) + len(call.prompt_ids) - 3 <= CONFIG.rollout_tokens
    assert len({(c.problem_id, c.prompt_ids, c.seed) for c in calls}) == len(calls)

    hard = dataclasses.replace(CONFIG, hard=True)
    again, costs = label(answers, engine, tokenizer, hard, store=store)
    assert costs.recorded == costs.calls  # the very same continuations
    assert again[1].labels == tuple(float(one > 0) for one in labelled[1].labels)


def test_a_continuation_is_what_the_engine_says_of_the_beginning_alone(
    answers, engine, tokenizer, tmp_path
):
    with CallStore(tmp_path) as store:
        label(answers, engine, tokenizer, store=store)
    for call in store.load()[::3]:
        sampling = SamplingParams(
            **{k: v for k, v in call.sampling.items() if k != "stop_ids"},
            stop_ids=tuple(call.sampling["stop_ids"]),
        )
        alone = engine.generate([Request("x", call.prompt_ids, 0, sampling, call.seed)])[0]
        assert alone.ids == call.gen_ids


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_interrupted_labelling_goes_on_and_ends_the_same(
    steps, answers, engine, tokenizer, tmp_path
):
    expected, _ = label(answers, engine, tokenizer)
    with CallStore(tmp_path) as store, pytest.raises(Stopped):
        label(answers, StopsAfter(engine, steps), tokenizer, store=store, max_active=4)
    assert engine.pending == 0
    before = len(CallStore(tmp_path))
    with CallStore(tmp_path) as store:
        labelled, costs = label(answers, engine, tokenizer, store=store)
    assert costs.recorded == before
    assert labelled == expected


def test_answers_beside_it_do_not_change_a_label(answers, engine, tokenizer):
    together, _ = label(answers, engine, tokenizer)
    alone, _ = label(answers[2:], engine, tokenizer, max_active=1)
    assert alone[0] == together[2]
    assert label(answers, engine, tokenizer, seed=4)[0] != together


def test_steps_without_room_get_no_label(answers, engine, tokenizer):
    config = dataclasses.replace(CONFIG, rollout_tokens=3)
    labelled, costs = label(answers, engine, tokenizer, config)
    assert not math.isnan(labelled[1].labels[0]) and math.isnan(labelled[1].labels[1])
    assert costs.without_room == 1 and num_starts(answers, config) == 2


def test_a_busy_generator_is_refused(answers, engine, tokenizer):
    engine.submit(Request("x", (5,), 0, SamplingParams(max_tokens=2), 0))
    with pytest.raises(RuntimeError, match="1 calls are pending"):
        label(answers, engine, tokenizer)
    engine.cancel()
