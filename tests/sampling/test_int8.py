"""An engine in int8: near what the model says, by no more than rounding, and always the same."""

import dataclasses
import os
import random
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh

from arkjax import config
from arkjax.errors import ConfigError
from arkjax.extras import install
from arkjax.models import cache as cache_module
from arkjax.models.cache import init_cache
from arkjax.models.config import PROJECTIONS, Lora
from arkjax.models.lora import quantize_model
from arkjax.models.placement import shardings
from arkjax.models.quantized import Quantized
from arkjax.models.transformer import Transformer, unstacked
from arkjax.models.weights import weight_specs
from arkjax.progress import Progress
from arkjax.run_config import RunConfig
from arkjax.rundir import RunDirectory
from arkjax.sampling import decode
from arkjax.sampling.params import Generation, Request
from arkjax.sampling.precision import weights_for
from arkjax.session import Session
from arkjax.sharding import MESH_AXES, ShardingRules

# One width of prompts and one length: three programs for each engine.
LANE = {"length_classes": (24,), "prefixes": 8}
BOTH = {"cache": "int8", "weights": "int8"}
# Numbers that differ in their last bit can become neighbouring values in int8. Measured: 0.009
# at most, where the whole error of int8 is up to 0.19.
_ROUNDED = 0.02


@pytest.fixture(autouse=True)
def needs_qwix() -> None:
    """With ARKJAX_PARITY=1 its absence is a failure."""
    if os.environ.get("ARKJAX_PARITY") != "1":
        pytest.importorskip("qwix")


@pytest.fixture(scope="module")
def workload(make_requests) -> list[Request]:
    requests = make_requests(60)
    return [r for r in requests if len(r.prompt_ids) + r.sampling.max_tokens <= 24][:24]


@pytest.fixture
def on_mesh(model):
    """A function that lays the model on a mesh."""

    def lay(*sizes: int) -> Transformer:
        devices = np.array(jax.devices()[: np.prod(sizes)]).reshape(sizes)
        mesh = Mesh(devices, MESH_AXES, axis_types=(AxisType.Auto,) * 3)
        places = shardings(model.config, mesh, ShardingRules())
        return Transformer(model.config, jax.device_put(model.arrays(), places), mesh)

    return lay


def _assert_close(got: list[Generation], expected: list[Generation]) -> None:
    for g, e in zip(got, expected, strict=True):
        assert (g.request_id, g.ids, g.finish_reason) == (e.request_id, e.ids, e.finish_reason)
        np.testing.assert_allclose(g.logprobs, e.logprobs, atol=_ROUNDED)


# --- how near -------------------------------------------------------------------------------------


def _logprobs(model: Transformer, tokens: np.ndarray, cache: str, weights: str) -> np.ndarray:
    """[S, T, V] of tokens [S, T], through the cache."""
    config, arrays = weights_for(model, weights)

    @jax.jit
    def read(arrays, tokens):
        decoder = Transformer(config, arrays)
        positions = jnp.broadcast_to(jnp.arange(tokens.shape[1])[None], tokens.shape)
        empty = init_cache(config, *tokens.shape, cache)
        return jax.nn.log_softmax(decoder.logits(decoder.extend(tokens, positions, empty)[0]))

    return np.asarray(read(arrays, tokens))


@pytest.fixture(scope="module")
def dense(model) -> tuple[np.ndarray, np.ndarray]:
    """Tokens, and what the model says of them."""
    tokens = np.random.default_rng(0).integers(3, 40, (4, 32), dtype=np.int32)
    return tokens, _logprobs(model, tokens, "model", "model")


# Measured with logits of spread 2.1: root mean square 0.010, 0.029 and 0.031, largest 0.051, 0.158
# and 0.190.
@pytest.mark.parametrize(
    ("cache", "weights", "typical", "largest"),
    [
        ("int8", "model", 0.015, 0.1),
        ("model", "int8", 0.04, 0.25),
        ("int8", "int8", 0.045, 0.3),
    ],
)
def test_distributions_are_near_those_of_the_model(
    model, dense, monkeypatch, cache, weights, typical, largest
):
    tokens, expected = dense

    def error() -> tuple[float, float]:
        apart = _logprobs(model, tokens, cache, weights) - expected
        return np.sqrt((apart**2).mean()), np.abs(apart).max()

    found = error()
    assert 0 < found[0] < typical and found[1] < largest
    if weights == "model":
        # Bounds that would let a wrong scale pass would say nothing: a twentieth is too much.
        right = cache_module.quantize_vectors

        def wrong(x: jax.Array) -> Quantized:
            made = right(x)
            return made._replace(scale=made.scale * 1.05)

        monkeypatch.setattr(cache_module, "quantize_vectors", wrong)
        assert error()[0] > 2 * typical


def test_what_is_scored_has_the_same_weights_and_no_cache(make_engine, model, workload):
    """A log-probability from an engine with an int8 cache is near its score; others equal it."""
    engine = make_engine(**LANE, **BOTH)
    answers = engine.generate(workload)
    whole = [r.prompt_ids + g.ids for r, g in zip(workload, answers, strict=True)]
    scores = [scored.logprobs for scored in engine.score(whole)]
    drawn = np.concatenate([g.logprobs for g in answers])
    again = np.concatenate([s[-len(g.ids) :] for g, s in zip(answers, scores, strict=True)])
    # Measured: 0.056.
    assert 1e-3 < np.abs(drawn - again).max() < 0.12
    tokens = np.zeros((len(whole), 24), np.int32)
    for row, ids in zip(tokens, whole, strict=True):
        row[: len(ids)] = ids
    exact = _logprobs(model, tokens, "model", "int8")
    for row, ids, score in zip(exact, whole, scores, strict=True):
        # fp32: sums are taken in another order.
        np.testing.assert_allclose(row[np.arange(len(score)), list(ids[1:])], score, atol=1e-4)


# --- always the same ------------------------------------------------------------------------------


def test_slot_order_and_company_change_no_bit(make_engine, workload):
    engine = make_engine(**LANE, **BOTH)
    alone = [engine.generate([request])[0] for request in workload[::4]]
    together = {g.request_id: g for g in engine.generate(workload)}
    shuffled = list(workload)
    random.Random(0).shuffle(shuffled)
    again = {g.request_id: g for g in make_engine(**LANE, **BOTH).generate(shuffled)}
    for one in alone:
        for other in (together[one.request_id], again[one.request_id]):
            assert one.ids == other.ids
            assert one.logprobs == other.logprobs
            assert one.sampling_logprobs == other.sampling_logprobs


def test_a_forked_prefix_equals_a_prompt_read_whole(make_engine, workload):
    engine = make_engine(**LANE, **BOTH)
    assert any(request.prefix_len for request in workload)
    whole = [dataclasses.replace(request, prefix_len=0) for request in workload]
    _assert_close(engine.generate(whole), engine.generate(workload))


@pytest.mark.slow
def test_slots_that_grow_longer_change_no_token(make_engine, workload):
    engine = make_engine(**LANE, **BOTH, least_length=18, block_steps=1)
    short = [r for r in workload if len(r.prompt_ids) + r.sampling.max_tokens < 16]
    done, lengths = {}, []
    waiting = [r for r in workload if r not in short]
    for request in short:
        engine.submit(request)
    while engine.pending:
        done.update((g.request_id, g) for g in engine.step())
        lengths.append(engine._lanes[24]._slots.cache.max_len)
        if len(lengths) == 3:
            for request in waiting:
                engine.submit(request)
    assert lengths[0] == 18 and max(lengths) == 24
    expected = make_engine(**LANE, **BOTH).generate(workload)
    _assert_close([done[request.id] for request in workload], expected)


@pytest.mark.slow
def test_prefixes_that_are_read_where_they_lie_change_no_token(make_engine, workload):
    grouped = make_engine(**LANE, **BOTH, grouped_prefixes=True)
    _assert_close(grouped.generate(workload), make_engine(**LANE, **BOTH).generate(workload))


@pytest.mark.parametrize("size, live", [(2, 16), (4, 16), (2, 24), (6, 30)])
def test_slots_take_their_scales_along_when_their_number_or_length_changes(model, size, live):
    rng = np.random.default_rng(0)

    def filled(x: jax.Array) -> jax.Array:
        return jnp.asarray(rng.integers(1, 100, x.shape), x.dtype)

    slots = decode.empty_rows(model.config, 4, 24, 1, cache="int8")
    slots = slots._replace(
        cache=jax.tree.map(filled, slots.cache), remaining=jnp.array([0, 5, 0, 7])
    )
    resized = decode.resize(slots, size, live)
    busy = [0, 1] if size < 4 else [1, 3]
    np.testing.assert_array_equal(resized.remaining[jnp.array(busy)], [5, 7])
    for old, new in zip(*map(jax.tree.leaves, (slots.cache, resized.cache)), strict=True):
        assert new.shape == (size, old.shape[1], live, *old.shape[3:])
        both = min(live, 24)
        np.testing.assert_array_equal(new[busy, :, :both], old[np.array([1, 3]), :, :both])


@pytest.mark.slow
def test_a_mesh_generates_the_same_and_each_device_has_its_share(make_engine, on_mesh, workload):
    placed = on_mesh(2, 1, 2)
    engine = make_engine(placed, **LANE, **BOTH, slots=8)
    _assert_close(
        engine.generate(workload[:16]), make_engine(**LANE, **BOTH).generate(workload[:16])
    )
    before = decode.decode_block._cache_size()
    engine.generate(workload[:16])
    assert decode.decode_block._cache_size() == before
    kept = engine._lanes[24]._slots.cache
    for layer in (*kept.keys, *kept.values):
        assert {s.data.shape for s in layer.values.addressable_shards} == {(4, 1, 24, 8)}
        assert {s.data.shape for s in layer.scale.addressable_shards} == {(4, 1, 24)}


# --- what is stored -------------------------------------------------------------------------------


def _bytes(tree) -> int:
    return sum(array.nbytes for array in jax.tree.leaves(tree))


def test_cache_and_matrices_take_as_many_bytes_as_said(make_engine, model, workload):
    """A byte a number, and four for each vector of 8 or row of D, H h or F; fp32 has 4 a number."""
    plain, small = make_engine(**LANE), make_engine(**LANE, **BOTH)
    for engine in (plain, small):
        # Which makes the lane, and compiles nothing yet.
        engine.submit(workload[0])
    for part, field in (("_slots", "cache"), ("_waiting", "cache"), ("_cache", "pool")):
        lanes = [getattr(getattr(e._lanes[24], part), field) for e in (plain, small)]
        assert _bytes(lanes[1]) * 32 == _bytes(lanes[0]) * 12
    names = [f"layers_{projection}" for projection in PROJECTIONS]
    numbers = sum(model.arrays()[name].size for name in names)
    outputs = 2 * (32 + 16 + 16 + 32 + 64 + 64 + 32)
    kept = [small._weights[name + end] for name in names for end in ("", "_scale")]
    assert _bytes(kept) == numbers + 4 * outputs
    assert _bytes(small._weights) == _bytes(plain._weights) - 3 * numbers + 4 * outputs


def test_weights_are_those_of_a_quantised_model(on_mesh):
    model = on_mesh(2, 2, 2)
    config, weights = weights_for(model, "int8")
    quantised = quantize_model(model, "int8")
    expected = unstacked(quantised.arrays())
    assert config == quantised.config and weights.keys() == expected.keys()
    jax.tree.map(np.testing.assert_array_equal, weights, expected)
    dense = unstacked(model.arrays())
    for name in (f"layers_{projection}" for projection in PROJECTIONS):
        matrix, layer = dense[name][1], weights[name][1]
        assert {s.data.size * 4 for s in layer.addressable_shards} == {layer.size}, name
        assert layer.sharding.is_equivalent_to(matrix.sharding, matrix.ndim), name
    # What is in int8 already stays so.
    again, same = weights_for(quantised, "int8")
    assert again == config
    jax.tree.map(np.testing.assert_array_equal, same, expected)


def test_adapters_stay_beside_int8_matrices(model):
    config = dataclasses.replace(model.config, lora=Lora(2, 4.0, ("q", "down")))
    rng = np.random.default_rng(0)
    adapters = {
        name: jnp.asarray(rng.normal(size=spec.shape), jnp.float32)
        for name, spec in weight_specs(config).items()
        if "_lora_" in name
    }
    adapted = Transformer(config, model.arrays() | adapters)
    made, weights = weights_for(adapted, "int8")
    assert made == dataclasses.replace(config, base_quantization="int8")
    expected = weights_for(model, "int8")[1] | unstacked(adapters)
    jax.tree.map(np.testing.assert_array_equal, weights, expected)


def test_decoding_holds_neither_matrices_nor_cache_in_floating_point(model):
    """Each step of a loop reads int8: XLA would rather convert once, before the loop."""
    config, weights = weights_for(model, "int8")

    @jax.jit
    def loop(weights, cache):
        decoder = Transformer(config, weights)

        def step(i: jax.Array, carry: tuple) -> tuple:
            tokens, cache = carry
            hidden, cache = decoder.extend(tokens, jnp.full_like(tokens, i), cache)
            return decoder.logits(hidden).argmax(axis=-1).astype(jnp.int32), cache

        return jax.lax.fori_loop(0, 16, step, (jnp.zeros((6, 1), jnp.int32), cache))

    program = loop.lower(weights, init_cache(config, 6, 24, "int8")).compile().as_text()
    inside, _, entry = program.partition("\nENTRY ")
    # Of the matrices that lead to the hidden units and back, and of what a layer has cached.
    made = re.compile(r"= f32\[(?:64,32|32,64|6,2,24,8)\]")
    assert made.search(inside) and "s8[6,2,24,8]" in inside
    assert not made.search(entry)


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.fast
@pytest.mark.parametrize("field", ["cache", "weights"])
def test_an_unknown_precision_is_refused_by_name(make_engine, field):
    with pytest.raises(ConfigError, match=f"engine.{field} is 'int4': expected 'model' or 'int8'"):
        make_engine(**{field: "int4"})


@pytest.mark.fast
@pytest.mark.parametrize("field", ["cache", "weights"])
def test_a_missing_qwix_is_named_with_its_remedy(make_engine, monkeypatch, field):
    monkeypatch.setitem(sys.modules, "qwix", None)
    remedy = re.escape(install("lora"))
    with pytest.raises(ConfigError, match=rf"engine.{field} .*{remedy}") as no:
        make_engine(**{field: "int8"})
    assert "\n" not in str(no.value)


def test_matrices_in_four_bits_are_not_quantised_again(make_engine, model):
    few = quantize_model(model, "nf4")
    with pytest.raises(ConfigError, match="engine.weights is 'int8' .*'nf4'.*merge_lora") as no:
        make_engine(few, weights="int8")
    assert "\n" not in str(no.value)


# --- in a run -------------------------------------------------------------------------------------


@pytest.mark.fast
def test_calls_are_not_reused_for_another_precision_but_for_other_sizes(tmp_path):
    """A run goes on only with calls that were made from the same numbers."""
    run = config.build(RunConfig, config.load("tiny"))

    def inputs(stage: str, **changes) -> dict:
        changed = dataclasses.replace(run, engine=dataclasses.replace(run.engine, **changes))
        return Session(changed, directory, 0, Progress(enabled=False)).inputs(stage)

    with RunDirectory(tmp_path / "run") as directory:
        assert inputs("base") == inputs("base", **BOTH)
        for stage in ("sample", "evaluate"):
            seen = [inputs(stage), inputs(stage, cache="int8"), inputs(stage, weights="int8")]
            assert seen[0] != seen[1] != seen[2] != seen[0]
            assert inputs(stage, slots=3) == seen[0]
