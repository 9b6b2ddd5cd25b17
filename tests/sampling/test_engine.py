"""The engine generates what a plain loop would, whatever runs beside a call."""

import dataclasses
import random
import time

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from arkjax.errors import ConfigError, DataError
from arkjax.models.placement import shardings
from arkjax.models.transformer import Transformer, unstacked
from arkjax.sampling import decode, layout
from arkjax.sampling.params import Generation, Request, SamplingParams
from arkjax.sharding import MeshConfig, ShardingRules, make_mesh


def _assert_same(got: list[Generation], expected: list[Generation], tolerance: float) -> None:
    assert [g.request_id for g in got] == [e.request_id for e in expected]
    for g, e in zip(got, expected, strict=True):
        assert (g.ids, g.finish_reason) == (e.ids, e.finish_reason), g.request_id
        np.testing.assert_allclose(g.logprobs, e.logprobs, atol=tolerance)
        np.testing.assert_allclose(g.sampling_logprobs, e.sampling_logprobs, atol=tolerance)


@pytest.fixture(scope="module")
def workload(make_requests):
    return make_requests(40)


@pytest.fixture(scope="module")
def expected(reference, workload):
    return reference(workload)


def test_the_workload_covers_the_cases(workload, expected):
    """Refills, both lanes, both ends, ends at the first token: what the tests below rely on."""
    assert len(workload) > 3 * 6
    assert {len(r.prompt_ids) + r.sampling.max_tokens <= 24 for r in workload} == {True, False}
    assert {g.finish_reason for g in expected} == {"stop", "length"}
    assert any(len(g.ids) == 1 and g.finish_reason == "stop" for g in expected)
    assert any(r.sampling.max_tokens == 1 for r in workload)
    assert any(r.prefix_len == 0 for r in workload) and any(r.prefix_len > 0 for r in workload)
    assert len({g.ids for g in expected}) > 30


def test_generates_what_a_loop_without_cache_does(make_engine, workload, expected):
    engine = make_engine()
    _assert_same(engine.generate(workload), expected, 1e-4)
    assert engine.pending == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"block_steps": 1},
        {"length_classes": (40,), "chunk": 16, "prefixes": 1},
        {"length_classes": (48,), "slots": 1},
        {"length_classes": (40,), "least_slots": 3, "least_length": 20},
        {"length_classes": (40,), "prefill_tokens": 24, "waiting_rows": 1},
        {"length_classes": (40,), "slots": 64, "prefixes": 8, "admit_rows": 32},
    ],
)
def test_sizes_of_the_engine_change_no_token(make_engine, workload, expected, changes):
    _assert_same(make_engine(**changes).generate(workload), expected, 1e-4)


def test_slot_order_and_company_change_no_bit(make_engine, workload):
    """Equal to the last bit: other slots, other neighbours, cached or fresh prefixes."""
    engine = make_engine()
    alone = [engine.generate([request])[0] for request in workload[::4]]
    together = {g.request_id: g for g in engine.generate(workload)}
    shuffled = list(workload)
    random.Random(0).shuffle(shuffled)
    again = {g.request_id: g for g in make_engine().generate(shuffled)}
    for one in alone:
        for other in (together[one.request_id], again[one.request_id]):
            assert one.ids == other.ids
            assert one.logprobs == other.logprobs
            assert one.sampling_logprobs == other.sampling_logprobs


def test_calls_enter_slots_in_the_midst_of_a_block(make_engine, workload, expected):
    """One block of many steps lets several calls through one slot, none later than it can be."""
    engine = make_engine(length_classes=(40,), slots=1, waiting_rows=4, block_steps=64)
    blocks = 0
    for request in workload[:8]:
        engine.submit(request)
    done = {}
    while engine.pending:
        done.update((g.request_id, g) for g in engine.step())
        blocks += 1
    _assert_same([done[r.id] for r in workload[:8]], expected[:8], 1e-4)
    # One call a block would take nine turns, the first of which reads nothing.
    assert blocks < 8


def test_requests_may_arrive_while_others_run(make_engine, workload, expected):
    engine = make_engine()
    waiting, done = list(workload), {}
    while waiting or engine.pending:
        for _ in range(min(3, len(waiting))):
            engine.submit(waiting.pop())
        assert engine.pending <= len(workload)
        for generation in engine.step():
            assert generation.request_id not in done
            done[generation.request_id] = generation
    _assert_same([done[r.id] for r in workload], expected, 1e-4)


def test_a_forked_prefix_equals_a_prompt_read_whole(make_engine, workload, expected):
    whole = [dataclasses.replace(request, prefix_len=0) for request in workload]
    _assert_same(make_engine().generate(whole), expected, 1e-4)


def _request(name: str, prompt, prefix_len: int, **sampling) -> Request:
    params = {"temperature": 1.0, "max_tokens": 4} | sampling
    return Request(name, tuple(prompt), prefix_len, SamplingParams(**params), seed=len(name))


@pytest.fixture
def prefilled(monkeypatch) -> list[tuple[int, ...]]:
    """Every prefix that the engine computes, in order; without its padding."""
    seen: list[tuple[int, ...]] = []
    original = decode.extend_prefixes

    def watched(spec, weights, pool, parents, rows, starts, tokens, live):
        used = np.asarray(rows) < pool.keys[0].shape[0]
        seen.extend(tuple(row[row > 0].tolist()) for row in np.asarray(tokens)[used])
        return original(spec, weights, pool, parents, rows, starts, tokens, live)

    monkeypatch.setattr(decode, "extend_prefixes", watched)
    return seen


def test_a_shared_prefix_is_computed_once(make_engine, prefilled, reference):
    prefix = (5, 6, 7, 8, 9, 10)
    requests = [_request(f"a{i}", prefix + (11 + i,), 6) for i in range(13)]
    engine = make_engine()
    got = engine.generate(requests)
    _assert_same(got, reference(requests), 1e-4)
    assert prefilled == [prefix]
    assert sorted(g.cached_len for g in got) == [0] + [6] * 12
    later = engine.generate([_request("later", prefix + (30,), 6)])
    assert prefilled == [prefix] and later[0].cached_len == 6


def test_more_prefixes_than_the_pool_holds(make_engine, prefilled, reference):
    """Rows are taken from prefixes that no call of the batch needs, least recently used first."""
    prefixes = [(3 + i, 4 + i, 5 + i) for i in range(9)]
    names = [0, 1, 2, 3, 4, 5, 0, 6, 7, 8, 0, 1, 1, 2, 8, 3, 4, 0, 5, 6]
    requests = [_request(f"c{i}", prefixes[n] + (20 + i,), 3) for i, n in enumerate(names)]
    for pool in (2, 4):
        prefilled.clear()
        got = make_engine(prefixes=pool).generate(requests)
        _assert_same(got, reference(requests), 1e-4)
        computed = sum(3 for g in got if g.cached_len == 0)
        assert len(prefilled) * 3 == computed >= 27


def test_a_kept_prefix_survives_newcomers_when_it_is_used(make_engine, prefilled):
    engine = make_engine(prefixes=2, admit_rows=1)
    for i, n in enumerate((0, 1, 0, 2, 0, 1)):
        engine.generate([_request(f"k{i}", (3 + n, 9, 9, 20 + i), 3)])
    assert [p[0] - 3 for p in prefilled] == [0, 1, 2, 1]


def test_calls_without_a_prefix_compute_nothing_before_admission(make_engine, prefilled):
    make_engine().generate([_request(f"n{i}", (4, 5, 6 + i), 0) for i in range(5)])
    assert prefilled == []


# --- how a call ends ----------------------------------------------------------------------------


def test_a_stop_id_ends_a_call_and_is_kept(make_engine):
    engine = make_engine()
    free = engine.generate([_request("f", (4, 5, 6), 0, max_tokens=12)])[0]
    assert free.finish_reason == "length" and len(free.ids) == 12
    stop = free.ids[5]
    first = free.ids.index(stop)
    ended = engine.generate([_request("f", (4, 5, 6), 0, max_tokens=12, stop_ids=(39, stop))])[0]
    assert ended.ids == free.ids[: first + 1] and ended.finish_reason == "stop"
    assert ended.logprobs == free.logprobs[: first + 1]


def test_a_stop_id_as_first_or_as_last_allowed_token(make_engine):
    engine = make_engine()

    def generate(limit: int, *stop_ids: int) -> Generation:
        params = {"temperature": 8.0, "max_tokens": limit, "stop_ids": stop_ids}
        return engine.generate([_request("f", (4, 5, 6), 0, **params)])[0]

    free = generate(3)
    assert len(set(free.ids)) == 3
    one = generate(1)
    assert one.ids == free.ids[:1] and one.finish_reason == "length"
    for limit in (1, 3):
        stopped = generate(limit, free.ids[0])
        assert stopped.ids == free.ids[:1] and stopped.finish_reason == "stop"
    assert (generate(3, free.ids[2]).ids, generate(3, free.ids[2]).finish_reason) == (
        free.ids,
        "stop",
    )


def test_a_call_may_fill_its_lane_to_the_last_position(make_engine, reference):
    requests = [
        _request("full", range(3, 26), 20, max_tokens=17),
        _request("exact", range(3, 23), 3, max_tokens=4),
        _request("prompt", range(3, 26), 0, max_tokens=17),
    ]
    _assert_same(make_engine().generate(requests), reference(requests), 1e-4)


def test_seconds_add_up_to_the_time_taken(make_engine, workload):
    engine = make_engine()
    engine.generate(workload)
    started = time.monotonic()
    total = sum(g.seconds for g in engine.generate(workload))
    assert 0 < total <= time.monotonic() - started


# --- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "request_, error, words",
    [
        (_request("big", range(1, 40), 0, max_tokens=10), DataError, "longest context, 40"),
        (_request("stops", (4, 5), 0, stop_ids=(1, 2, 3, 4, 5)), ConfigError, "max_stop_ids is 4"),
        (_request("all", (4, 5), 2), DataError, "prefix_len is 2"),
        (_request("negative", (4, 5), -1), DataError, "prefix_len is -1"),
    ],
)
def test_what_cannot_be_generated_is_refused_in_one_line(make_engine, request_, error, words):
    engine = make_engine()
    with pytest.raises(error, match=words) as raised:
        engine.submit(request_)
    assert request_.id in str(raised.value) and "\n" not in str(raised.value)
    assert engine.pending == 0


def test_an_id_is_taken_until_its_call_ended(make_engine):
    engine = make_engine()
    engine.submit(_request("one", (4, 5), 0))
    with pytest.raises(DataError, match="one was submitted twice"):
        engine.submit(_request("one", (6, 7), 0))
    while engine.pending:
        engine.step()
    engine.submit(_request("one", (6, 7), 0))


def test_a_refused_request_leaves_none_of_its_list_behind(make_engine):
    engine = make_engine()
    good = _request("good", (4, 5), 0)
    with pytest.raises(DataError):
        engine.generate([good, _request("big", range(1, 40), 0, max_tokens=10)])
    with pytest.raises(DataError, match="good was submitted twice"):
        engine.generate([good, good])
    assert engine.pending == 0
    assert engine.generate([good])[0].request_id == "good"


def test_generate_would_lose_pending_calls_and_says_so(make_engine):
    engine = make_engine()
    engine.submit(_request("early", (4, 5, 6), 0, max_tokens=1))
    with pytest.raises(RuntimeError, match="1 calls are pending"):
        engine.generate([_request("now", (4, 5), 0)])
    with pytest.raises(RuntimeError, match="1 calls are pending"):
        engine.warm_up()
    ended = []
    while engine.pending:
        ended += engine.step()
    assert [g.request_id for g in ended] == ["early"]
    assert engine.generate([]) == []


def test_an_interrupted_engine_starts_anew(make_engine, monkeypatch):
    engine = make_engine()
    requests = [_request("one", (4, 5, 6), 2)]
    expected = engine.generate(requests)
    with monkeypatch.context() as patch:
        patch.setattr(decode, "decode_block", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            engine.generate(requests)
    assert engine.pending == 0
    again = engine.generate(requests)
    assert (again[0].ids, again[0].logprobs) == (expected[0].ids, expected[0].logprobs)


@pytest.mark.fast
@pytest.mark.parametrize(
    "changes", [{"slots": 0}, {"length_classes": ()}, {"length_classes": (8, 4)}, {"chunk": -1}]
)
def test_impossible_sizes_are_refused_by_name(make_engine, changes):
    with pytest.raises(ConfigError, match=f"engine.{next(iter(changes))}"):
        make_engine(**changes)


# --- any workload, any mesh, no recompiling -----------------------------------------------------


@settings(
    max_examples=6,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 32), prefixes=st.sampled_from((1, 5)))
def test_any_workload_equals_the_plain_loop(
    make_engine, make_requests, reference, seed, count, prefixes
):
    requests = make_requests(count, seed)
    got = make_engine(prefixes=prefixes).generate(requests)
    _assert_same(got, reference(requests), 1e-4)


def test_nothing_is_compiled_after_the_warm_up(make_engine, make_requests):
    functions = (decode.extend_prefixes, decode.prefill, decode.decode_block)
    engine = make_engine()
    engine.generate(make_requests(60, seed=1))
    before = [f._cache_size() for f in functions]
    engine.generate(make_requests(60, seed=2))
    make_engine().generate(make_requests(60, seed=3))
    assert [f._cache_size() for f in functions] == before


@pytest.mark.parametrize("sizes, shard", [((2, 2, 2), (2, 1, 40, 8)), ((8, 1, 1), (1, 2, 40, 8))])
def test_a_model_on_a_mesh_generates_the_same(model, make_engine, workload, expected, sizes, shard):
    """Each device keeps its share of the slots and heads, before and after the steps."""
    mesh = make_mesh(MeshConfig(*sizes))
    weights = jax.device_put(model.arrays(), shardings(model.config, mesh, ShardingRules()))
    engine = make_engine(
        Transformer(model.config, weights), length_classes=(40,), slots=8, admit_rows=8
    )
    _assert_same(engine.generate(workload[:16]), expected[:16], 1e-4)
    before = decode.decode_block._cache_size()
    engine.generate(workload[:16])
    assert decode.decode_block._cache_size() == before
    for array in jax.tree.leaves(engine._lanes[40]._slots.cache):
        assert {s.data.shape for s in array.addressable_shards} == {shard}


def test_devices_share_the_work_of_a_block(model):
    def work(mesh) -> float:
        places = shardings(model.config, mesh, ShardingRules()) if mesh else None
        weights = jax.device_put(model.arrays(), places)
        slots, waiting = (
            layout.place(decode.empty_rows(model.config, rows, 40, 1), mesh) for rows in (16, 8)
        )
        order, cancelled = np.full(8, 8, np.int32), np.full(24, -1, np.int32)
        spec = decode.Spec(model.config, mesh)
        lowered = decode.decode_block.lower(
            spec, unstacked(weights), slots, waiting, order, cancelled, 4, 0, np.int32(0)
        )
        return lowered.compile().cost_analysis()["flops"]

    # Not quite an eighth: each device goes through the noise and the bookkeeping.
    assert work(make_mesh(MeshConfig(8, 1, 1))) < 0.2 * work(None)
