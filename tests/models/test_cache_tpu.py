"""The decode loop compiled for TPUs that are not here: the cache stays where it lies."""

import functools
import os
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from arkjax.models.cache import cache_spec, store
from arkjax.models.config import ModelConfig
from arkjax.models.quantized import Quantized
from arkjax.models.transformer import unstacked
from arkjax.models.weights import init_weights
from arkjax.sampling import decode
from arkjax.sharding import BATCH_AXES, MESH_AXES

# Where the compiler is promised, its absence is a failure.
if os.environ.get("ARKJAX_PARITY") != "1":
    pytest.importorskip("libtpu")

KERNEL = 'custom_call_target="tpu_custom_call"'
MODEL = ModelConfig(
    vocab_size=1024,
    d_model=256,
    num_layers=2,
    num_heads=16,
    num_kv_heads=4,
    head_dim=128,
    d_ff=512,
    dtype="bfloat16",
    param_dtype="bfloat16",
)
SLOTS, WAITING, LENGTH = 64, 8, 8192


@pytest.fixture
def mesh_of(monkeypatch):
    """A function from a TPU's name and a shape to a mesh of its four devices."""
    # Else libtpu asks a cloud machine's metadata server where it runs.
    monkeypatch.setenv("TPU_SKIP_MDS_QUERY", "1")
    monkeypatch.setenv("TPU_WORKER_HOSTNAMES", "localhost")
    # There is no TPU to fight over: other processes may compile at the same time.
    monkeypatch.setenv("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    from jax.experimental import topologies

    def mesh(name: str, shape: tuple[int, int, int]) -> Mesh:
        devices = topologies.get_topology_desc(platform="tpu", topology_name=name).devices
        return Mesh(np.array(devices).reshape(shape), MESH_AXES, (AxisType.Auto,) * 3)

    return mesh


def laid(mesh: Mesh, tree):
    """Arrays as the engine lays them, without their values."""

    def lay(x) -> jax.ShapeDtypeStruct:
        spec = cache_spec(x.shape, mesh) if x.ndim >= 3 else PartitionSpec(BATCH_AXES)
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(mesh, spec))

    return jax.tree.map(lay, tree)


def whole(mesh: Mesh, tree):
    place = NamedSharding(mesh, PartitionSpec())
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), tree)


def decode_block(mesh: Mesh, config: ModelConfig, length: int, cache: str):
    """The engine's program, with weights that lie whole on every device."""

    def rows(count: int):
        made = jax.eval_shape(lambda: decode.empty_rows(config, count, length, 4, cache=cache))
        return laid(mesh, made)

    def numbers(*shape: int):
        return whole(mesh, jax.ShapeDtypeStruct(shape, jnp.int32))

    weights = whole(mesh, jax.eval_shape(lambda: unstacked(init_weights(config, 0))))
    return decode.decode_block.lower(
        decode.Spec(config, mesh),
        weights,
        rows(SLOTS),
        rows(WAITING),
        numbers(WAITING),
        numbers(SLOTS + WAITING),
        8,
        0,
        numbers(),
    ).compile()


@pytest.mark.slow
@pytest.mark.parametrize(
    "shape, cache",
    [((1, 1, 4), "model"), ((2, 2, 1), "model"), ((1, 2, 2), "model"), ((1, 2, 2), "int8")],
)
def test_a_block_of_steps_neither_copies_nor_gathers_the_cache(mesh_of, shape, cache):
    if cache == "int8":
        pytest.importorskip("qwix")
    # A layer's keys must be more than the memory of the core, to which they are moved else.
    length, width = (LENGTH, 2 * MODEL.head_dim) if cache == "model" else (2 * LENGTH, 128 + 4)
    program = decode_block(mesh_of("v6e:2x2", shape), MODEL, length, cache)
    text = program.as_text()
    assert text.count(KERNEL) == MODEL.num_layers
    data, fsdp, tensor = shape
    slots, heads = SLOTS // (data * fsdp), MODEL.num_kv_heads // tensor
    one = slots * heads * length * width
    # Neither a layer's keys, nor the rows where calls wait, as they lie or gathered.
    for count in {slots, SLOTS, WAITING}:
        array = rf"(?:bf16|s8)\[{count},\d+,{length},{MODEL.head_dim}\]\S*"
        assert not re.search(rf"= \(?{array}.* (copy-start|all-gather)\(", text)
        # Inside a fusion a copy can be the same bytes under another name.
        for line in re.findall(rf"^.*= {array} copy\(.*$", text, re.MULTILINE):
            assert cache == "int8" and re.search(r"T\(8,128\)\(4,1\)", line), line
    assert program.memory_analysis().temp_size_in_bytes < one
    # Keys and values of all layers once. Scores, the entry of a call and what moves in the core
    # itself, which XLA counts too, come to less than one and a half of that; a pass over the cache
    # for each call that enters, or a copy at either end, to far more.
    assert program.cost_analysis()["bytes accessed"] < 2.5 * 2 * MODEL.num_layers * one


def store_alone(mesh: Mesh, slots: int, heads: int, length: int, width: int, dtype: str):
    keys = jax.ShapeDtypeStruct((slots, heads, length, width), dtype)
    new = jax.ShapeDtypeStruct((slots, 1, heads, width), "float32" if dtype == "int8" else dtype)
    if dtype == "int8":
        keys = Quantized(keys, jax.ShapeDtypeStruct(keys.shape[:-1], "float32"))
    positions = jax.ShapeDtypeStruct((slots, 1), jnp.int32)
    arguments = (*laid(mesh, (keys, keys)), *whole(mesh, (new, new, positions)))
    form = jax.jit(functools.partial(store, mesh=mesh), donate_argnums=(0, 1))
    return form.lower(*arguments).compile()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["v5e:2x2", "v5p:2x2x1", "v6e:2x2"])
@pytest.mark.parametrize(
    "slots, heads, width, dtype",
    [
        (512, 16, 256, "float32"),
        (34, 4, 128, "bfloat16"),
        (6, 2, 128, "float32"),
        (34, 4, 128, "int8"),
        (6, 16, 256, "int8"),
    ],
)
def test_the_kernel_compiles_on_every_tpu(mesh_of, name, slots, heads, width, dtype):
    if dtype == "int8":
        pytest.importorskip("qwix")
    program = store_alone(mesh_of(name, (1, 2, 2)), slots, heads, 512, width, dtype)
    assert program.as_text().count(KERNEL) == 1
    # What is given up is written in place.
    share = slots * heads * 512 * width * jnp.dtype(dtype).itemsize // 4
    assert program.memory_analysis().temp_size_in_bytes < share


@pytest.mark.slow
@pytest.mark.parametrize("length, width", [(100, 128), (512, 64)])
def test_what_tiles_do_not_divide_is_stored_without_the_kernel(mesh_of, length, width):
    program = store_alone(mesh_of("v6e:2x2", (1, 1, 4)), 4, 4, length, width, "bfloat16")
    assert KERNEL not in program.as_text()
