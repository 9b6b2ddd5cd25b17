"""An engine whose weights change is from then on as one that was made with the new ones."""

import contextlib
import dataclasses
import gc
import math

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from arkjax.errors import ConfigError
from arkjax.models.placement import shardings
from arkjax.models.transformer import Transformer
from arkjax.sampling.params import Request, SamplingParams
from arkjax.sampling.prefixes import PrefixPool
from arkjax.sharding import MESH_AXES, ShardingRules


@contextlib.contextmanager
def _compiled():
    """Names of what XLA compiles meanwhile."""
    seen: list[str] = []

    def listen(event: str, _: float, **facts) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            seen.append(str(facts.get("fun_name")))

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield seen
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def _mesh(*sizes: int) -> Mesh:
    """Of the first devices."""
    devices = jax.devices()[: math.prod(sizes)]
    axis_types = (AxisType.Auto,) * len(MESH_AXES)
    return jax.make_mesh(sizes, MESH_AXES, axis_types=axis_types, devices=devices)


def _moved(model: Transformer, by: float, places=None) -> Transformer:
    """The model after what might have been a few steps of training."""
    weights = {name: array * (1 + by) for name, array in model.arrays().items()}
    rng = np.random.default_rng(round(by * 1000))
    noise = rng.normal(0, 0.3, weights["embedding"].shape).astype(np.float32)
    weights["embedding"] += noise
    mesh = None
    if places:
        weights = jax.device_put(weights, places)
        mesh = places["embedding"].mesh
    return Transformer(model.config, weights, mesh)


@pytest.fixture(scope="module")
def calls(make_requests):
    return make_requests(24, seed=5)


SIZES = [
    {},
    {"length_classes": (40,), "grouped_prefixes": True},
    {"length_classes": (40,), "slots": 8, "least_slots": 2, "least_length": 20},
]


@pytest.mark.parametrize("sizes", SIZES, ids=["forked", "grouped", "shrinking"])
def test_an_updated_engine_is_a_new_one_to_the_last_bit(make_engine, model, calls, sizes):
    engine, later = make_engine(**sizes), _moved(model, 0.1)
    before = engine.generate(calls)
    engine.update(later)
    after, fresh = engine.generate(calls), make_engine(later, **sizes).generate(calls)
    for a, b in zip(after, fresh, strict=True):
        assert (a.ids, a.logprobs, a.sampling_logprobs) == (b.ids, b.logprobs, b.sampling_logprobs)
        assert (a.cached_len, a.finish_reason) == (b.cached_len, b.finish_reason)
    assert sum(a.ids != b.ids for a, b in zip(after, before, strict=True)) > 12
    scored = engine.score([(4, 5, 6, 7)])[0], make_engine(later, **sizes).score([(4, 5, 6, 7)])[0]
    np.testing.assert_array_equal(scored[0].logprobs, scored[1].logprobs)


def test_a_prefix_of_the_old_weights_would_be_noticed(make_engine, model, calls, monkeypatch):
    """The test above can fail: with the prefixes kept, calls that share them come out otherwise."""
    engine, later = make_engine(), _moved(model, 0.1)
    engine.generate(calls)
    monkeypatch.setattr(PrefixPool, "clear", lambda _: None)
    engine.update(later)
    stale, fresh = engine.generate(calls), make_engine(later).generate(calls)
    differing = {a.request_id for a, b in zip(stale, fresh, strict=True) if a.ids != b.ids}
    assert differing and differing <= {call.id for call in calls if call.prefix_len}


def test_calls_that_were_cancelled_leave_nothing_behind(make_engine, model, calls):
    engine, later = make_engine(length_classes=(40,)), _moved(model, 0.1)
    for call in calls:
        engine.submit(call)
    engine.step()
    running = [call for call in calls if call.id in engine._busy]
    for call in running:
        engine.cancel(call.id)
    engine.update(later)
    after = engine.generate(calls)
    fresh = make_engine(later, length_classes=(40,)).generate(calls)
    assert [a.ids for a in after] == [b.ids for b in fresh]
    assert [a.logprobs for a in after] == [b.logprobs for b in fresh]


def test_weights_are_not_changed_under_pending_calls(make_engine, model, calls):
    engine = make_engine()
    engine.submit(calls[0])
    with pytest.raises(RuntimeError, match="1 calls are pending"):
        engine.update(_moved(model, 0.1))
    ended = []
    while engine.pending:
        ended += engine.step()
    assert ended[0].ids == make_engine().generate(calls[:1])[0].ids


def test_another_model_is_refused_and_the_engine_goes_on(make_engine, model, calls):
    engine = make_engine()
    other = Transformer(dataclasses.replace(model.config, rope_theta=5e5), model.arrays())
    with pytest.raises(ConfigError, match="made for another model: config differ"):
        engine.update(other)
    weights = model.arrays()
    weights["layers_q"] = weights["layers_q"].astype("bfloat16")
    with pytest.raises(ConfigError, match="layers_q differ"):
        engine.update(Transformer(model.config, weights))
    assert engine.generate(calls[:4])[0].ids == make_engine().generate(calls[:4])[0].ids


@pytest.mark.parametrize(
    ("sizes", "precision"), [(None, "int8"), ((1, 1, 2), "int8"), ((2, 2, 2), "model")]
)
def test_nothing_is_compiled_and_nothing_kept(make_engine, model, calls, sizes, precision):
    """From the second update on: the first may meet copies and slices that nobody has made yet."""
    places = None
    if sizes:
        places = shardings(model.config, _mesh(*sizes), ShardingRules())
    states = [_moved(model, 0.1 * i, places) for i in range(4)]
    shape = {"length_classes": (40,), "slots": 8, "admit_rows": 8, "weights": precision}
    engine = make_engine(states[0], **shape)
    engine.generate(calls)
    engine.update(states[1])
    engine.generate(calls)
    gc.collect()
    held = sum(array.nbytes for array in jax.live_arrays())
    with _compiled() as compiled:
        engine.update(states[2])
        engine.generate(calls)
        engine.update(states[3])
        last = engine.generate(calls)
    assert compiled == []
    gc.collect()
    assert sum(array.nbytes for array in jax.live_arrays()) == held
    again = make_engine(states[3], **shape).generate(calls)
    assert [a.ids for a in last] == [b.ids for b in again]


def test_the_model_may_be_donated_afterwards(make_engine, model, calls):
    engine, later = make_engine(), _moved(model, 0.2)
    expected = make_engine(later).generate(calls[:6])
    engine.update(later)
    for array in later.arrays().values():
        array.delete()
    assert [g.ids for g in engine.generate(calls[:6])] == [g.ids for g in expected]


def test_weights_that_lie_elsewhere_are_moved(make_engine, model):
    """A trainer may divide its weights in another way than the engine."""
    mesh = _mesh(1, 1, 2)
    here = shardings(model.config, mesh, ShardingRules())
    whole = NamedSharding(mesh, PartitionSpec())
    engine = make_engine(_moved(model, 0.0, here), length_classes=(40,))
    request = [Request("one", (4, 5, 6, 7), 3, SamplingParams(max_tokens=8), 1)]
    engine.generate(request)
    engine.update(_moved(model, 0.1, dict.fromkeys(here, whole)))
    fresh = make_engine(_moved(model, 0.1, here), length_classes=(40,))
    assert engine.generate(request)[0].logprobs == fresh.generate(request)[0].logprobs
