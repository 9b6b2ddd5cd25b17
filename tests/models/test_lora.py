"""Adapters: fresh ones change nothing, merged ones say the same, wherever and however they run."""

import dataclasses
import functools
import json
import os
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh

from arkjax.errors import ConfigError
from arkjax.models.config import PROJECTIONS, Experts, Lora, config_from_json
from arkjax.models.lora import (
    adapter_places,
    add_lora,
    merge_lora,
    quantize_model,
    trainable,
)
from arkjax.models.placement import load_model, save_model, shardings
from arkjax.models.transformer import Transformer, unstacked
from arkjax.models.weights import init_weights, num_parameters, weight_specs
from arkjax.sampling import decode
from arkjax.sampling.engine import Engine, EngineConfig
from arkjax.sampling.params import Request, SamplingParams
from arkjax.sharding import MESH_AXES, ShardingRules

LORA = Lora(rank=4, alpha=8.0)
ATTENTION = Lora(rank=4, alpha=8.0, targets=("q", "k", "v", "o"))
# Biases, experts, and a model with none of either; those with experts adapt attention alone.
VARIANTS = {
    "plain": ({}, LORA),
    "some": ({"qkv_bias": True, "tie_embeddings": False}, Lora(2, 3.0, ("q", "down"))),
    "experts": ({"experts": Experts(4, 2)}, ATTENTION),
}


@pytest.fixture(scope="module")
def needs_qwix() -> None:
    """With ARKJAX_PARITY=1 its absence is a failure."""
    if os.environ.get("ARKJAX_PARITY") != "1":
        pytest.importorskip("qwix")


@pytest.fixture(scope="module")
def learned():
    """A function that gives a model adapters that have learned something."""

    def make(model: Transformer, lora: Lora = LORA, kind: str = "none") -> Transformer:
        base = quantize_model(model, kind)
        config = dataclasses.replace(base.config, lora=lora)
        rng, specs, adapters = np.random.default_rng(1), weight_specs(config), {}
        for name, place in adapter_places(base, lora).items():
            # Drawn by NumPy: that compiles nothing.
            drawn = rng.normal(0, (specs[name].fan_in or 100) ** -0.5, specs[name].shape)
            adapters[name] = jax.device_put(drawn.astype(np.float32), place)
        return Transformer(config, base.arrays() | adapters, base.mesh)

    return make


@functools.partial(jax.jit, static_argnums=(0, 3))
def _logits(config, weights, tokens, mesh=None):
    model = Transformer(config, weights, mesh)
    positions = jnp.broadcast_to(jnp.arange(tokens.shape[1])[None], tokens.shape)
    return model.logits(model(tokens, positions, jnp.ones_like(tokens)))


def logits(model: Transformer, tokens) -> np.ndarray:
    return np.asarray(_logits(model.config, model.arrays(), tokens, model.mesh))


def test_fresh_adapters_change_nothing(make_model, tokens):
    model = make_model(num_layers=1)
    fresh = add_lora(model, Lora(4, 8.0, ("q", "o", "down")))
    positions = np.broadcast_to(np.arange(12, dtype=np.int32), tokens.shape)
    # Operation by operation, for XLA merges products that read the same input, and sums anew.
    with jax.disable_jit():
        np.testing.assert_array_equal(
            fresh(tokens, positions, np.ones_like(tokens)),
            model(tokens, positions, np.ones_like(tokens)),
        )
    np.testing.assert_allclose(logits(fresh, tokens), logits(model, tokens), atol=5e-6)
    for name, array in model.arrays().items():
        assert fresh.arrays()[name] is array


# Measured on logits of spread 1.2: root mean square 0.005 and largest 0.021 in int8, 0.08 and 0.32
# in nf4.
@pytest.mark.parametrize(("kind", "typical", "largest"), [("int8", 0.01, 0.05), ("nf4", 0.16, 0.7)])
def test_a_quantised_base_answers_nearly_the_same(
    needs_qwix, model, tokens, kind, typical, largest
):
    error = logits(quantize_model(model, kind), tokens) - logits(model, tokens)
    assert 0 < np.sqrt((error**2).mean()) < typical
    assert np.abs(error).max() < largest


@pytest.mark.parametrize(
    ("kind", "variant"),
    [("none", "plain"), ("none", "experts"), ("int8", "some"), ("nf4", "experts")],
)
def test_merged_adapters_say_the_same(needs_qwix, make_model, learned, tokens, kind, variant):
    changes, lora = VARIANTS[variant]
    base = make_model(**changes)
    adapted = learned(base, lora, kind)
    merged = merge_lora(adapted)
    assert merged.config == base.config
    assert {n: a.dtype for n, a in merged.arrays().items()} == {
        n: a.dtype for n, a in base.arrays().items()
    }
    ours = logits(adapted, tokens)
    # fp32: sums are taken in another order.
    np.testing.assert_allclose(logits(merged, tokens), ours, rtol=0, atol=1e-5)
    assert np.abs(ours - logits(base, tokens)).max() > 0.1
    assert num_parameters(adapted.config) == num_parameters(base.config) + sum(
        adapted.arrays()[name].size for name in trainable(adapted.config)
    )


def test_merging_fresh_adapters_gives_the_very_weights_back(make_model):
    base = make_model(param_dtype="bfloat16", dtype="bfloat16")
    fresh = add_lora(base, Lora(4, 8.0, ("o",)))
    merged = merge_lora(fresh).arrays()
    for name, array in base.arrays().items():
        np.testing.assert_array_equal(merged[name], array)
    # Adapters are kept in fp32 all the same.
    assert {fresh.arrays()[name].dtype.name for name in trainable(fresh.config)} == {"float32"}


def test_adapters_add_alpha_over_r_times_b_a(make_model, learned):
    base = make_model()
    adapted = learned(base, Lora(2, 5.0))
    before, after, w = base.arrays(), merge_lora(adapted).arrays(), adapted.arrays()
    for name in PROJECTIONS:
        outputs = w[f"layers_{name}_lora_b"].reshape(2, -1, 2)
        inputs = w[f"layers_{name}_lora_a"].reshape(2, 2, -1)
        change = after[f"layers_{name}"] - before[f"layers_{name}"]
        change = change.reshape(2, -1, inputs.shape[-1])
        np.testing.assert_allclose(change, 2.5 * (outputs @ inputs), atol=1e-6)


@pytest.mark.parametrize(("kind", "variant"), [("nf4", "plain"), ("int8", "experts")])
def test_unrolling_and_rematerialising_change_no_gradient(
    needs_qwix, make_model, learned, tokens, kind, variant
):
    changes, lora = VARIANTS[variant]
    adapted = learned(make_model(**changes), lora, kind)
    frozen = adapted.arrays()
    trained = {name: frozen.pop(name) for name in sorted(trainable(adapted.config))}

    @functools.partial(jax.jit, static_argnums=0)
    def gradient(config, trained, frozen):
        return jax.grad(lambda t: (_logits(config, frozen | t, tokens) ** 2).mean())(trained)

    expected = gradient(adapted.config, trained, frozen)
    assert all(np.abs(array).max() > 0 for array in expected.values())
    other = dataclasses.replace(adapted.config, scan_unroll=2, remat=True)
    for name, array in gradient(other, trained, frozen).items():
        scale = np.abs(expected[name]).max()
        np.testing.assert_allclose(array / scale, expected[name] / scale, atol=1e-5)


def _mesh(*sizes: int) -> Mesh:
    devices = np.array(jax.devices()[: np.prod(sizes)]).reshape(sizes)
    return Mesh(devices, MESH_AXES, axis_types=(AxisType.Auto,) * 3)


def _placed(model: Transformer, mesh: Mesh) -> Transformer:
    places = shardings(model.config, mesh, ShardingRules())
    return Transformer(model.config, jax.device_put(model.arrays(), places), mesh)


def test_a_mesh_makes_the_same_adapters(needs_qwix, model):
    cut = _mesh(2, 2, 2)
    one, eight = (
        add_lora(m, Lora(2, 1.0, ("q", "o")), "nf4") for m in (model, _placed(model, cut))
    )
    places = shardings(eight.config, cut, ShardingRules())
    for name, array in eight.arrays().items():
        np.testing.assert_array_equal(array, one.arrays()[name], err_msg=name)
        assert array.sharding.is_equivalent_to(places[name], array.ndim), name


@pytest.mark.parametrize(("kind", "variant"), [("nf4", "plain"), ("int8", "experts")])
def test_a_mesh_answers_and_merges_the_same(needs_qwix, make_model, learned, tokens, kind, variant):
    changes, lora = VARIANTS[variant]
    base, cut = make_model(**changes), _mesh(2, 2, 2)
    one, eight = (learned(m, lora, kind) for m in (base, _placed(base, cut)))
    rows = np.concatenate([tokens, tokens[:1]])
    # fp32: sums over shards are taken in another order.
    np.testing.assert_allclose(logits(eight, rows), logits(one, rows), atol=1e-4)
    merged = merge_lora(eight).arrays()["layers_o"]
    np.testing.assert_allclose(merged, merge_lora(one).arrays()["layers_o"], atol=1e-6)
    place = shardings(base.config, cut, ShardingRules())["layers_o"]
    assert merged.sharding.is_equivalent_to(place, merged.ndim)


def test_the_engine_generates_what_reading_all_tokens_says(needs_qwix, learned, model, tokens):
    adapted = learned(model, LORA, "nf4")
    settings = EngineConfig((24,), 3, 1, 3, 1, 24, 6, 1)
    sampling = SamplingParams(temperature=0.0, max_tokens=6)
    requests = [
        Request(f"r{i}", tuple(row.tolist()), 0, sampling, i) for i, row in enumerate(tokens[:, :6])
    ]
    expected = tokens.copy()
    for at in range(6, 12):
        expected[:, at] = logits(adapted, expected)[:, at - 1].argmax(axis=-1)
    generations = Engine(adapted, settings).generate(requests)
    assert [list(g.ids) for g in generations] == expected[:, 6:].tolist()


def test_decoding_never_holds_all_layers_dequantised(needs_qwix, make_model):
    """Each step of the loop makes its own: XLA would rather make them once, before the loop."""
    config = dataclasses.replace(make_model(d_ff=96).config, num_heads=2, base_quantization="nf4")
    weights = {n: jnp.zeros(spec.shape, spec.dtype) for n, spec in weight_specs(config).items()}
    model = Transformer(config, weights)
    slots, waiting = (decode.empty_rows(config, n, 8, 1) for n in (2, 1))
    order, cancelled = jnp.zeros(1, jnp.int32), jnp.full(1, decode.NO_CALL, jnp.int32)
    lowered = decode.decode_block.lower(
        decode.Spec(config, None),
        unstacked(model.arrays()),
        slots,
        waiting,
        order,
        cancelled,
        4,
        0,
        jnp.int32(0),
    )
    program = lowered.compile().as_text()
    inside, _, entry = program.partition("\nENTRY ")
    made = re.compile(r"= f32\[(?:96,32|32,96)\]")
    assert made.search(inside) and not made.search(entry)


@pytest.mark.parametrize("kind", ["none", "int8", "nf4"])
def test_models_with_adapters_are_saved_and_loaded(needs_qwix, learned, model, kind, tmp_path):
    adapted = learned(model, ATTENTION, kind)
    save_model(tmp_path / "model", adapted, {})
    for mesh in (_mesh(1, 1, 1), _mesh(2, 2, 2)):
        loaded = load_model(tmp_path / "model", mesh, ShardingRules())
        assert loaded.config == adapted.config
        assert loaded.arrays().keys() == adapted.arrays().keys()
        for name, array in adapted.arrays().items():
            assert loaded.arrays()[name].dtype == array.dtype
            np.testing.assert_array_equal(loaded.arrays()[name], array)


@pytest.mark.fast
def test_a_config_with_adapters_goes_through_json(model):
    config = dataclasses.replace(model.config, lora=Lora(2, 0.5, ("o",)), base_quantization="int8")
    assert config_from_json(json.loads(json.dumps(dataclasses.asdict(config)))) == config


@pytest.mark.fast
def test_only_adapters_are_trained_and_a_quantised_base_never(model):
    specs = weight_specs(dataclasses.replace(model.config, lora=Lora(2, 1.0, ("q", "up"))))
    names = trainable(dataclasses.replace(model.config, lora=Lora(2, 1.0, ("q", "up"))))
    assert names == {name for name in specs if "lora" in name} and len(names) == 4
    assert trainable(model.config) == weight_specs(model.config).keys()
    with pytest.raises(ConfigError, match="base_quantization is 'nf4'.*add adapters"):
        trainable(dataclasses.replace(model.config, base_quantization="nf4"))


@pytest.mark.fast
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda c: Lora(0, 1.0), "lora.rank is 0"),
        (lambda c: Lora(1, 0.0), "lora.alpha is 0.0"),
        (lambda c: Lora(1, float("inf")), "lora.alpha is inf"),
        (lambda c: Lora(1, 1.0, ()), "lora.targets is"),
        (lambda c: Lora(1, 1.0, ("q", "q")), "lora.targets is .*each once"),
        (lambda c: Lora(1, 1.0, ("q_proj",)), "lora.targets is .*q, k, v, o, gate, up, down"),
        (
            lambda c: dataclasses.replace(c, experts=Experts(4, 2), lora=Lora(1, 1.0)),
            "experts have no adapters.*q, k, v, o",
        ),
        (
            lambda c: dataclasses.replace(c, base_quantization="int4"),
            "'int4': expected one of none",
        ),
        (
            lambda c: init_weights(dataclasses.replace(c, base_quantization="int8"), 0),
            "make the model without it",
        ),
    ],
)
def test_impossible_adapters_are_refused_by_name(model, make, message):
    with pytest.raises(ConfigError, match=message) as error:
        make(model.config)
    assert "\n" not in str(error.value)


def test_adapters_are_not_added_twice_nor_weights_quantised_twice(needs_qwix, model):
    few = Lora(1, 1.0, ("k",))
    quantised = quantize_model(model, "int8")
    with pytest.raises(ConfigError, match="merge_lora"):
        quantize_model(quantised, "nf4")
    # What was quantised before can have adapters.
    adapted = add_lora(quantised, few)
    assert adapted.config.base_quantization == "int8"
    with pytest.raises(ConfigError, match="merge_lora"):
        add_lora(adapted, few)
