"""An engine that stores prefixes once generates what one does that copies them, and the loop."""

import dataclasses

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jax.sharding import AxisType, Mesh

from arkjax.errors import ConfigError
from arkjax.models.placement import shardings
from arkjax.models.transformer import Transformer
from arkjax.sampling import decode
from arkjax.sampling.params import Generation, Request, SamplingParams
from arkjax.sampling.prefixes import PrefixPool
from arkjax.sharding import MESH_AXES, MeshConfig, ShardingRules, make_mesh

# Fewer rows than the prefixes of most workloads here.
GROUPED = {"grouped_prefixes": True, "length_classes": (40,), "prefixes": 2}


def _assert_same(got: list[Generation], expected: list[Generation], tolerance: float) -> None:
    assert [g.request_id for g in got] == [e.request_id for e in expected]
    for g, e in zip(got, expected, strict=True):
        assert (g.ids, g.finish_reason) == (e.ids, e.finish_reason), g.request_id
        np.testing.assert_allclose(g.logprobs, e.logprobs, atol=tolerance)
        np.testing.assert_allclose(g.sampling_logprobs, e.sampling_logprobs, atol=tolerance)


def _request(name: str, prompt, prefix_len: int, seed: int = 0, **sampling) -> Request:
    params = {"temperature": 1.0, "max_tokens": 4} | sampling
    return Request(name, tuple(prompt), prefix_len, SamplingParams(**params), seed)


def _drain(engine) -> dict[str, Generation]:
    done = {}
    while engine.pending:
        done.update((g.request_id, g) for g in engine.step())
    return done


@pytest.fixture(autouse=True)
def nothing_in_use_is_overwritten(monkeypatch):
    """Watches every prefix that is computed: its row holds none that a call in the lane needs."""
    pools: dict[int, PrefixPool] = {}
    original = PrefixPool.missing

    def watched(self, requests, most):
        held = {self._rows[ids]: ids for ids in self._pins}
        layers = original(self, requests, most)
        taken = {piece.row for layer in layers for piece in layer}
        assert not taken & held.keys()
        assert all(self._rows[ids] == row for row, ids in held.items())
        pools[id(self)] = self
        return layers

    monkeypatch.setattr(PrefixPool, "missing", watched)
    yield pools
    # Every call has ended by then, and let go what it held.
    assert not any(pool._pins for pool in pools.values())


# --- the same tokens ----------------------------------------------------------------------------


@settings(
    max_examples=6,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 32))
def test_any_workload_equals_the_copying_engine_and_the_plain_loop(
    make_engine, make_requests, reference, seed, count
):
    requests = make_requests(count, seed)
    got = make_engine(**GROUPED).generate(requests)
    _assert_same(got, reference(requests), 1e-4)
    _assert_same(got, make_engine(length_classes=(40,), prefixes=2).generate(requests), 1e-4)


@pytest.mark.parametrize(
    "changes",
    [
        {"prefixes": 1, "block_steps": 64, "slots": 2, "waiting_rows": 4},
        {"least_slots": 3, "least_length": 10},
        {"prefill_tokens": 8, "chunk": 4, "prefixes": 4},
        # More who share a prefix than an entry holds.
        {"slots": 32, "prefixes": 3, "admit_rows": 32},
    ],
)
def test_sizes_of_the_engine_change_no_token(make_engine, make_requests, reference, changes):
    requests = make_requests(40)
    got = make_engine(**GROUPED | changes).generate(requests)
    _assert_same(got, reference(requests), 1e-4)


def test_company_changes_no_bit(make_engine, make_requests):
    requests = make_requests(40)
    engine = make_engine(**GROUPED)
    together = {g.request_id: g for g in engine.generate(requests)}
    for request in requests[::5]:
        alone, other = engine.generate([request])[0], together[request.id]
        assert (alone.ids, alone.logprobs) == (other.ids, other.logprobs)


def test_windows_and_soft_caps_over_long_prefixes(model, make_engine):
    """Prefixes of more than one block of keys; layers with a window and without."""
    shape = {"sliding_window": 30, "attention_pattern": ("local", "global")}
    config = dataclasses.replace(model.config, **shape, attention_soft_cap=3.0)
    own = Transformer(config, model.arrays())
    rng = np.random.default_rng(0)
    prefixes = [tuple(rng.integers(3, 40, n).tolist()) for n in (290, 256)]
    requests = [
        _request(f"w{i}", prefixes[i % 2] + (3 + i,) * (i + 1), len(prefixes[i % 2]), i)
        for i in range(6)
    ]
    sizes = {"length_classes": (320,), "chunk": 320, "prefixes": 2}
    flat = make_engine(own, **sizes).generate(requests)
    _assert_same(make_engine(own, **sizes, grouped_prefixes=True).generate(requests), flat, 1e-4)
    assert [g.ids for g in flat] != [g.ids for g in make_engine(**sizes).generate(requests)]


def test_heads_on_several_devices_generate_the_same(model, make_engine, make_requests, reference):
    devices = np.array(jax.devices()[:2]).reshape(1, 1, 2)
    mesh = Mesh(devices, MESH_AXES, axis_types=(AxisType.Auto,) * 3)
    weights = jax.device_put(model.arrays(), shardings(model.config, mesh, ShardingRules()))
    requests = make_requests(16)
    engine = make_engine(Transformer(model.config, weights), **GROUPED)
    _assert_same(engine.generate(requests), reference(requests), 1e-4)
    lane = engine._lanes[40]
    for array in jax.tree.leaves((lane._slots.cache, lane._cache.pool)):
        assert {s.data.shape[1] for s in array.addressable_shards} == {1}


@pytest.mark.parametrize("sizes", [(8, 1, 1), (2, 2, 2)])
def test_slots_on_several_devices_are_refused_in_one_line(model, make_engine, sizes):
    mesh = make_mesh(MeshConfig(*sizes))
    weights = jax.device_put(model.arrays(), shardings(model.config, mesh, ShardingRules()))
    with pytest.raises(ConfigError, match=f"engine.grouped_prefixes .* data={sizes[0]}") as raised:
        make_engine(Transformer(model.config, weights), **GROUPED)
    assert "\n" not in str(raised.value)


# --- what is stored -----------------------------------------------------------------------------


def test_a_prefix_is_computed_and_stored_once_and_slots_hold_the_rest(
    make_engine, reference, monkeypatch
):
    """The slots have never room for the prefix; a copying engine's must."""
    prefix = tuple(3 + i % 30 for i in range(28))
    requests = [_request(f"s{i}", (*prefix, 5 + i), 28, i) for i in range(12)]
    computed, original = [], decode.extend_prefixes

    def watched(spec, weights, pool, parents, rows, starts, tokens, live):
        computed.extend(row for row in np.asarray(rows) if row < 2)
        return original(spec, weights, pool, parents, rows, starts, tokens, live)

    monkeypatch.setattr(decode, "extend_prefixes", watched)
    positions = {}
    for grouped in (False, True):
        computed.clear()
        engine = make_engine(**GROUPED | {"grouped_prefixes": grouped}, least_length=10)
        for request in requests:
            engine.submit(request)
        done, positions[grouped] = {}, []
        while engine.pending:
            done.update((g.request_id, g) for g in engine.step())
            positions[grouped].append(engine._lanes[40]._slots.cache.max_len)
        assert len(computed) == 1
        _assert_same([done[r.id] for r in requests], reference(requests), 1e-4)
    assert max(positions[True]) < 28 < max(positions[False])


def test_a_prefill_copies_no_prefix(make_engine):
    """However long prefixes may be; an engine that forks them needs room for as many copies."""

    def temporaries(grouped: bool, length: int) -> int:
        engine = make_engine(
            grouped_prefixes=grouped, length_classes=(length,), prefixes=1, admit_rows=8, slots=1
        )
        lane = engine._lane(length)
        width = lane._queue.shapes.widths[0]
        program = decode.prefill.lower(
            lane._spec,
            lane._weights,
            lane._cache.pool,
            lane._waiting,
            lane._prefill([], [], [], width),
            length,
            0,
        )
        return program.compile().memory_analysis().temp_size_in_bytes

    grown = {grouped: temporaries(grouped, 1024) / temporaries(grouped, 512) for grouped in (0, 1)}
    assert grown[True] < 1.3 < 1.7 < grown[False]


def test_more_prefixes_than_the_pool_holds_wait_for_calls_to_end(make_engine, reference):
    names = [0, 1, 2, 3, 4, 5, 0, 6, 7, 8, 0, 1, 1, 2, 8, 3, 4, 0, 5, 6]
    requests = [
        _request(f"c{i}", (3 + n, 4 + n, 5 + n, 20 + i), 3, i, max_tokens=3 + i % 9)
        for i, n in enumerate(names)
    ]
    _assert_same(make_engine(**GROUPED).generate(requests), reference(requests), 1e-4)


def test_prefixes_that_grow_from_each_other_in_a_small_pool(make_engine, reference):
    """A chain needs all rows: it waits until nothing runs, and then gets in."""
    base = tuple(range(3, 23))
    requests = []
    for i in range(12):
        own = (*base[: 8 + i % 3], 30 + i % 2, *base[3:8])
        sampling = SamplingParams(max_tokens=4)
        requests.append(Request(f"g{i}", (*own, 25 + i), len(own), sampling, i, shared=(4, 8)))
    engine = make_engine(**GROUPED, chunk=1)
    _assert_same(engine.generate(requests), reference(requests), 1e-4)


def test_who_waits_for_a_row_is_not_overtaken_for_ever(make_engine):
    """The pool has one row, and calls of another prefix would keep it."""
    engine = make_engine(**GROUPED | {"prefixes": 1, "slots": 2, "admit_rows": 2})
    many = [_request(f"a{i}", (4, 5, 6, 7 + i % 9), 3, i, max_tokens=12) for i in range(40)]
    for request in (*many[:2], _request("b", (9, 8, 7, 6), 3, max_tokens=1), *many[2:]):
        engine.submit(request)
    assert list(_drain(engine)).index("b") < 30


def test_a_cancelled_call_lets_its_prefix_go(make_engine, reference):
    engine = make_engine(**GROUPED | {"prefixes": 1})
    engine.submit(_request("long", (4, 5, 6), 2, max_tokens=36))
    engine.step()
    other = _request("other", (9, 8, 7, 6), 3)
    engine.submit(other)
    engine.step()
    assert engine.partial("other").ids == () and len(engine.partial("long").ids) > 0
    engine.cancel("long")
    steps = 0
    while engine.pending:
        ended = engine.step()
        steps += 1
    _assert_same(ended, reference([other]), 1e-4)
    assert steps <= 3


def test_nothing_is_compiled_after_the_warm_up(make_engine, make_requests):
    functions = (decode.extend_prefixes, decode.prefill, decode.decode_block, decode.resize)
    engine = make_engine(**GROUPED, least_length=20)
    engine.warm_up(top_logprobs=False)
    before = [f._cache_size() for f in functions]
    engine.generate(make_requests(60, seed=2))
    assert [f._cache_size() for f in functions] == before


@pytest.mark.fast
def test_a_pinned_prefix_stays_until_each_pin_is_gone():
    pool = PrefixPool(2)
    a, b, c = (_request(name, (i, i, 9), 2) for i, name in enumerate("abc"))
    pool.missing([a, b], 8)
    pool.pin(a)
    pool.pin(a)
    pool.pin(_request("none", (5,), 0))
    assert pool.fits([b]) and pool.fits([c]) and not pool.fits([b, c])
    row = pool.row(a)
    pool.missing([c], 8)
    assert (pool.cached(a), pool.cached(b), pool.cached(c)) == (2, 0, 2) and pool.row(a) == row
    pool.unpin(a)
    assert not pool.fits([b, c])
    pool.unpin(a)
    assert pool.fits([b, c])
