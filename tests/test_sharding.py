"""Meshes and rules: mistakes are refused, and no placement changes a result."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from arkjax.errors import ConfigError
from arkjax.models.config import ModelConfig
from arkjax.models.placement import shardings
from arkjax.models.transformer import Transformer
from arkjax.models.weights import weight_specs
from arkjax.sharding import MeshConfig, ShardingRules, batch_sharding, make_mesh

CONFIG = ModelConfig(
    vocab_size=48,
    d_model=32,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    d_ff=64,
    tie_embeddings=False,
)


@pytest.mark.fast
@pytest.mark.parametrize(
    "sizes, expected",
    [
        ((8, 1, 1), (8, 1, 1)),
        ((-1, 2, 2), (2, 2, 2)),
        ((1, -1, 1), (1, 8, 1)),
        ((2, 1, -1), (2, 1, 4)),
    ],
)
def test_a_mesh_takes_all_devices(sizes, expected):
    mesh = make_mesh(MeshConfig(*sizes))
    assert (tuple(mesh.shape.values()), mesh.axis_names) == (expected, ("data", "fsdp", "tensor"))


@pytest.mark.fast
def test_without_a_config_every_device_is_a_replica():
    assert dict(make_mesh().shape) == {"data": 8, "fsdp": 1, "tensor": 1}


@pytest.mark.fast
@pytest.mark.parametrize(
    "sizes",
    [(3, 1, 1), (2, 2, 1), (4, 4, 1), (-1, 3, 1), (-1, -1, 1), (0, 1, 8), (-2, 1, 1), (-1, 16, 1)],
)
def test_sizes_that_do_not_fit_are_refused(sizes):
    with pytest.raises(ConfigError, match="mesh") as error:
        make_mesh(MeshConfig(*sizes))
    assert "\n" not in str(error.value)


@pytest.mark.fast
def test_rules_name_axes_of_the_mesh():
    with pytest.raises(ConfigError, match="sharding.mlp is 'model'.*data, fsdp, tensor"):
        ShardingRules(mlp="model")


@pytest.mark.fast
def test_two_axes_of_one_array_cannot_share_a_mesh_axis():
    mesh = make_mesh(MeshConfig(1, 2, 4))
    with pytest.raises(ConfigError, match="one mesh axis"):
        shardings(CONFIG, mesh, ShardingRules(mlp="fsdp"))


@pytest.mark.fast
def test_axes_that_do_not_divide_stay_whole():
    mesh = make_mesh(MeshConfig(1, 1, 8))
    places = shardings(CONFIG, mesh, ShardingRules())
    # Four query and two key heads on eight devices; 64 hidden units and 48 tokens divide.
    assert places["layers_q"].spec == PartitionSpec(None, None, None, None)
    assert places["layers_k"].spec == PartitionSpec(None, None, None, None)
    assert places["layers_gate"].spec == PartitionSpec(None, "tensor", None)
    assert places["embedding"].spec == PartitionSpec("tensor", None)


@pytest.mark.fast
def test_weights_really_lie_in_pieces():
    mesh = make_mesh(MeshConfig(2, 2, 2))
    places = shardings(CONFIG, mesh, ShardingRules())
    divided = {
        "embedding": (2, 2),
        "head": (2, 2),
        "layers_q": (1, 2, 1, 2),
        "layers_k": (1, 2, 1, 2),
        "layers_o": (1, 2, 2, 1),
        "layers_gate": (1, 2, 2),
        "layers_down": (1, 2, 2),
        "layers_attn_norm": (1, 1),
    }
    for name, parts in divided.items():
        shape = weight_specs(CONFIG)[name].shape
        placed = jax.device_put(np.zeros(shape, np.float32), places[name])
        expected = tuple(size // part for size, part in zip(shape, parts, strict=True))
        assert {s.data.shape for s in placed.addressable_shards} == {expected}, name


@pytest.fixture(scope="module")
def weights() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        name: (
            rng.normal(0, spec.fan_in**-0.5, spec.shape)
            if spec.fan_in
            else np.full(spec.shape, spec.constant)
        ).astype(np.float32)
        for name, spec in weight_specs(CONFIG).items()
    }


@pytest.fixture(scope="module")
def packed() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tokens, positions and segment ids, each [8, 10]: two segments and some padding a row."""
    tokens = np.random.default_rng(1).integers(0, CONFIG.vocab_size, (8, 10), dtype=np.int32)
    positions = np.array([[0, 1, 2, 3, 0, 1, 2, 3, 4, 0]] * 8, np.int32)
    segments = np.array([[1, 1, 1, 1, 2, 2, 2, 2, 2, 0]] * 8, np.int32)
    return tokens, positions, segments


def _loss(weights, tokens, positions, segments):
    model = Transformer(CONFIG, weights)
    logprobs = jax.nn.log_softmax(model.logits(model(tokens, positions, segments)))
    picked = jnp.take_along_axis(logprobs, jnp.roll(tokens, -1, axis=1)[..., None], axis=-1)
    return -jnp.where(segments > 0, picked[..., 0], 0.0).mean(), logprobs


@pytest.fixture(scope="module")
def on_one_device(weights, packed):
    return jax.jit(jax.value_and_grad(_loss, has_aux=True))(weights, *packed)


@pytest.mark.parametrize("sizes", [(8, 1, 1), (2, 2, 2), (1, 8, 1), (1, 1, 8)])
def test_any_mesh_computes_the_same(weights, packed, on_one_device, sizes):
    """Loss, log-probabilities and gradients in fp32; sums are taken in another order."""
    mesh = make_mesh(MeshConfig(*sizes))
    places = shardings(CONFIG, mesh, ShardingRules())
    step = jax.jit(jax.value_and_grad(_loss, has_aux=True), out_shardings=(None, places))
    (loss, logprobs), gradient = step(
        jax.device_put(weights, places), *jax.device_put(packed, batch_sharding(mesh))
    )
    (expected_loss, expected_logprobs), expected = on_one_device
    np.testing.assert_allclose(loss, expected_loss, atol=1e-5)
    segments = packed[2] > 0
    np.testing.assert_allclose(
        np.asarray(logprobs)[segments], np.asarray(expected_logprobs)[segments], atol=1e-5
    )
    for name, value in gradient.items():
        np.testing.assert_allclose(value, expected[name], atol=1e-5, err_msg=name)
        assert value.sharding == places[name]


def test_rules_choose_what_is_divided(weights):
    mesh = make_mesh(MeshConfig(1, 4, 2))
    rules = dataclasses.replace(ShardingRules(), embed=None, vocab="fsdp")
    places = shardings(CONFIG, mesh, rules)
    assert places["embedding"].spec == PartitionSpec("fsdp", None)
    assert places["layers_gate"].spec == PartitionSpec(None, "tensor", None)


@pytest.mark.fast
def test_a_batch_lies_in_rows():
    mesh = make_mesh(MeshConfig(2, 2, 2))
    batch = jax.device_put(np.zeros((8, 10), np.int32), batch_sharding(mesh))
    assert {shard.data.shape for shard in batch.addressable_shards} == {(2, 10)}
