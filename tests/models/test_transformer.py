"""What must hold for any decoder: causality, packing, the cache, and equal forms of one model."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arkjax.errors import ConfigError
from arkjax.models.cache import init_cache
from arkjax.models.rope import rope_frequencies, rope_tables, rotate
from arkjax.models.transformer import Transformer
from arkjax.models.weights import init_weights, num_parameters, weight_specs

# Equal up to the order of fp32 sums.
TOLERANCE = 1e-4


def test_no_gradient_flows_from_a_later_token(model, tokens):
    """Perturb the embeddings of tokens after t: the hidden state at t has zero gradient there."""
    T = tokens.shape[1]
    positions = np.broadcast_to(np.arange(T, dtype=np.int32), tokens.shape)
    segments = np.ones_like(tokens)
    # Every position gets an embedding row of its own, so that gradients do not mix.
    weights = model.arrays()
    rows = weights["embedding"][tokens[0]]
    index = np.arange(T, dtype=np.int32)[None]

    def state(rows, t):
        own = Transformer(model.config, weights | {"embedding": rows})
        return own(index, positions[:1], segments[:1])[0, t].sum()

    gradient_at = jax.jit(jax.grad(state))
    for t in (0, 4, T - 1):
        gradient = np.asarray(gradient_at(rows, t))
        assert (gradient[t + 1 :] == 0).all()
        assert (np.abs(gradient[: t + 1]).max(axis=1) > 0).all()


def test_packed_segments_equal_separate_sequences(model, tokens, read):
    a, b = tokens[:1, :5], tokens[1:2, :7]
    packed = read(model, np.concatenate([a, b], axis=1), np.array([[1] * 5 + [2] * 7], np.int32))
    np.testing.assert_allclose(packed[:, :5], read(model, a), atol=TOLERANCE)
    np.testing.assert_allclose(packed[:, 5:], read(model, b), atol=TOLERANCE)


def test_padding_changes_nothing(model, tokens, read):
    segments = np.array([[1] * 8 + [0] * 4] * 3, np.int32)
    padded = read(model, tokens, segments)
    other = tokens.copy()
    other[:, 8:] = 7
    np.testing.assert_array_equal(padded[:, :8], read(model, other, segments)[:, :8])
    np.testing.assert_allclose(padded[:, :8], read(model, tokens[:, :8]), atol=TOLERANCE)


def test_rows_do_not_see_each_other(model, tokens, read):
    other = tokens.copy()
    other[1:] = 3
    np.testing.assert_array_equal(read(model, tokens)[0], read(model, other)[0])


def test_shared_key_heads_equal_repeated_ones(make_model, tokens, read):
    grouped = make_model(num_kv_heads=2)
    full = make_model(num_kv_heads=4)
    weights = grouped.arrays()
    for name in ("layers_k", "layers_v"):
        weights[name] = jnp.repeat(weights[name], 2, axis=1)
    repeated = Transformer(full.config, weights)
    np.testing.assert_allclose(read(grouped, tokens), read(repeated, tokens), atol=TOLERANCE)


@pytest.mark.parametrize("qk_norm", [True, False])
@pytest.mark.parametrize("tie_embeddings", [True, False])
def test_variants_have_their_weights_and_run(make_model, tokens, read, qk_norm, tie_embeddings):
    model = make_model(qk_norm=qk_norm, tie_embeddings=tie_embeddings)
    weights = model.arrays()
    assert ("layers_q_norm" in weights) == qk_norm
    assert ("head" in weights) == (not tie_embeddings)
    assert num_parameters(model.config) == sum(w.size for w in weights.values())
    logits = model.logits(read(model, tokens))
    assert logits.shape == (*tokens.shape, model.config.vocab_size)
    assert logits.dtype == jnp.float32 and np.isfinite(logits).all()
    # The residual stream starts at variance one and the head keeps it: neither dead nor certain.
    assert 0.2 < np.std(logits) < 5


def test_query_and_key_norm_ignore_the_scale_of_their_weights(make_model, tokens, read):
    for qk_norm, expected in ((True, True), (False, False)):
        model = make_model(qk_norm=qk_norm)
        weights = model.arrays()
        scaled = weights | {"layers_q": weights["layers_q"] * 50.0}
        same = np.allclose(
            read(model, tokens), read(Transformer(model.config, scaled), tokens), atol=TOLERANCE
        )
        assert same == expected


def test_unrolling_and_rematerialising_change_no_result(make_model, tokens):
    positions = np.broadcast_to(np.arange(tokens.shape[1], dtype=np.int32), tokens.shape)

    def loss_and_gradient(config, weights):
        def loss(weights):
            model = Transformer(config, weights)
            return (model(tokens, positions, np.ones_like(tokens)) ** 3).sum()

        return jax.jit(jax.value_and_grad(loss))(weights)

    plain = make_model()
    weights = plain.arrays()
    expected, gradient = loss_and_gradient(plain.config, weights)
    for changes in ({"scan_unroll": 2}, {"remat": True}):
        got, other = loss_and_gradient(dataclasses.replace(plain.config, **changes), weights)
        # A sum of cubes of either sign.
        np.testing.assert_allclose(got, expected, rtol=5e-5)
        for name in gradient:
            scale = np.abs(gradient[name]).max()
            np.testing.assert_allclose(other[name] / scale, gradient[name] / scale, atol=1e-5)


def test_the_program_does_not_grow_with_depth(make_model, tokens):
    def size(layers: int) -> int:
        config = dataclasses.replace(make_model().config, num_layers=layers)
        weights = jax.eval_shape(lambda: init_weights(config, 0))
        shape = jax.ShapeDtypeStruct(tokens.shape, jnp.int32)

        def loss(weights, tokens):
            return Transformer(config, weights)(tokens, tokens, tokens).sum()

        return len(jax.jit(jax.grad(loss)).lower(weights, shape).as_text())

    assert size(16) < 1.05 * size(2)


def _turn(x, at: int, theta: float):
    positions = np.full((1, 1), at, np.int32)
    return rotate(x, *rope_tables(positions, *rope_frequencies(x.shape[-1], theta)))


@pytest.mark.fast
def test_rotary_scores_depend_on_the_distance_only():
    rng = np.random.default_rng(0)
    q, k = (rng.normal(size=(1, 1, 1, 8)).astype(np.float32) for _ in range(2))

    def score(at_q: int, at_k: int) -> float:
        def turn(x, at):
            return np.asarray(_turn(x, at, 10_000.0))

        return float((turn(q, at_q) * turn(k, at_k)).sum())

    assert score(7, 3) == pytest.approx(score(504, 500), abs=1e-4)
    assert abs(score(7, 3) - score(7, 4)) > 1e-3
    assert score(0, 0) == pytest.approx(float((q * k).sum()), abs=1e-5)


@pytest.mark.fast
def test_rope_uses_its_base():
    x = np.ones((1, 1, 1, 8), np.float32)
    assert not np.allclose(_turn(x, 100, 1e4), _turn(x, 100, 1e6), atol=1e-2)


def test_bfloat16_runs_close_to_float32(make_model, tokens, read):
    full = make_model()
    half = Transformer(dataclasses.replace(full.config, dtype="bfloat16"), full.arrays())
    hidden = read(half, tokens)
    assert hidden.dtype == jnp.bfloat16
    assert half.logits(hidden).dtype == jnp.float32
    # bf16 keeps 8 bits; two layers add a few roundings.
    np.testing.assert_allclose(hidden.astype(np.float32), read(full, tokens), atol=0.15)
    stored = make_model(dtype="bfloat16", param_dtype="bfloat16")
    assert {w.dtype for w in stored.arrays().values()} == {jnp.dtype("bfloat16")}
    assert read(stored, tokens).dtype == jnp.bfloat16


@pytest.mark.fast
def test_initial_weights_have_the_described_shapes_and_spread(make_model):
    config = make_model(tie_embeddings=False).config
    specs = weight_specs(config)
    made = jax.eval_shape(lambda: init_weights(config, 0))
    assert {name: w.shape for name, w in made.items()} == {n: s.shape for n, s in specs.items()}
    assert all(len(spec.axes) == len(spec.shape) for spec in specs.values())
    for name, weight in jax.jit(lambda: init_weights(config, 0))().items():
        expected = specs[name].fan_in ** -0.5 if specs[name].fan_in else 0.0
        assert np.std(weight) == pytest.approx(expected, rel=0.15), name


def test_adding_a_weight_changes_no_other(make_model):
    draw = jax.jit(init_weights, static_argnums=0)
    tied = make_model().config
    untied = draw(dataclasses.replace(tied, tie_embeddings=False), 0)
    for name, weight in draw(tied, 0).items():
        np.testing.assert_array_equal(weight, untied[name])
    assert not np.array_equal(untied["embedding"], draw(tied, 1)["embedding"])


@pytest.mark.fast
@pytest.mark.parametrize(
    "changes, named",
    [
        ({"num_kv_heads": 3}, "num_kv_heads"),
        ({"head_dim": 7}, "head_dim"),
        ({"d_model": 0}, "d_model"),
        ({"scan_unroll": 0}, "scan_unroll"),
        ({"dtype": "float99"}, "dtype is 'float99': expected one of float32, bfloat16"),
        ({"param_dtype": "fp8"}, "param_dtype"),
    ],
)
def test_impossible_shapes_are_refused_by_name(make_model, changes, named):
    with pytest.raises(ConfigError, match=f"model.{named}") as error:
        make_model(**changes)
    assert "\n" not in str(error.value)


# --- the cache ----------------------------------------------------------------------------------


@functools.partial(jax.jit, static_argnums=0)
def _run(config, weights, tokens, positions, cache):
    return Transformer(config, weights).extend(tokens, positions, cache)


def _extend(model, tokens, positions, cache):
    return _run(model.config, model.arrays(), tokens, positions, cache)


@pytest.mark.parametrize("pieces", [[12], [5, 4, 3], [1] * 12, [7] + [1] * 5])
def test_reading_in_pieces_equals_reading_at_once(model, tokens, read, pieces):
    cache = init_cache(model.config, 3, 16)
    parts, at = [], 0
    for length in pieces:
        positions = np.broadcast_to(np.arange(at, at + length, dtype=np.int32), (3, length))
        hidden, cache = _extend(model, tokens[:, at : at + length], positions, cache)
        parts.append(hidden)
        at += length
    np.testing.assert_allclose(np.concatenate(parts, axis=1), read(model, tokens), atol=TOLERANCE)


def test_rows_of_unequal_length_go_on_where_each_ends(model, tokens, read):
    """Padding at the end of a short prompt leaves nothing behind that a later token can see."""
    lengths = np.array([3, 8, 5], np.int32)
    cache = init_cache(model.config, 3, 12)
    positions = np.broadcast_to(np.arange(8, dtype=np.int32), (3, 8))
    _, cache = _extend(model, tokens[:, :8], positions, cache)
    expected = read(model, tokens)
    for step in range(4):
        at = lengths + step
        hidden, cache = _extend(model, tokens[np.arange(3), at][:, None], at[:, None], cache)
        np.testing.assert_allclose(hidden[:, 0], expected[np.arange(3), at], atol=TOLERANCE)


def test_positions_beyond_the_cache_are_written_nowhere(model, tokens):
    cache = init_cache(model.config, 3, 12)
    positions = np.broadcast_to(np.arange(12, dtype=np.int32), (3, 12))
    _, cache = _extend(model, tokens, positions, cache)
    beyond = np.full((3, 1), 12, np.int32)
    _, after = _extend(model, tokens[:, :1], beyond, cache)
    for old, new in zip(jax.tree.leaves(cache), jax.tree.leaves(after), strict=True):
        np.testing.assert_array_equal(old, new)
