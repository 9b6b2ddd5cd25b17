"""Self-attention compiled for TPUs that are not here: libtpu compiles without one."""

import functools
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from arkjax.models.self_attention import choice_for, self_attention
from arkjax.sharding import BATCH_AXES, MESH_AXES

# Where the compiler is promised, its absence is a failure.
if os.environ.get("ARKJAX_PARITY") != "1":
    pytest.importorskip("libtpu")

KERNEL = 'custom_call_target="tpu_custom_call"'


@pytest.fixture
def mesh_of(monkeypatch):
    """A function from a TPU's name to a mesh of its four devices."""
    # Else libtpu asks a cloud machine's metadata server where it runs.
    monkeypatch.setenv("TPU_SKIP_MDS_QUERY", "1")
    monkeypatch.setenv("TPU_WORKER_HOSTNAMES", "localhost")
    # There is no TPU to fight over: other processes may compile at the same time.
    monkeypatch.setenv("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    from jax.experimental import topologies

    def mesh(name: str) -> Mesh:
        devices = topologies.get_topology_desc(platform="tpu", topology_name=name).devices
        return Mesh(np.array(devices).reshape(1, 2, 2), MESH_AXES, (AxisType.Auto,) * 3)

    return mesh


def compiled(mesh, batch, length, heads, kv_heads, head_dim, dtype=jnp.bfloat16, **settings):
    """The gradient of self-attention, for rows and heads spread over the mesh."""

    def array(dtype, *shape):
        spec = PartitionSpec(BATCH_AXES, None, "tensor") if len(shape) == 4 else None
        sharding = NamedSharding(mesh, spec or PartitionSpec(BATCH_AXES))
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)

    q = array(dtype, batch, length, heads, head_dim)
    k = array(dtype, batch, length, kv_heads, head_dim)
    segments = array(jnp.int32, batch, length)
    assert choice_for(q, k, soft_cap=0.0, implementation="auto", mesh=mesh)[0] == "splash"
    form = functools.partial(self_attention, scale=head_dim**-0.5, mesh=mesh, **settings)

    def loss(q, k, v, segments):
        return (form(q, k, v, segments).astype(jnp.float32) ** 2).sum()

    return jax.jit(jax.grad(loss, argnums=(0, 1, 2))).lower(q, k, k, segments).compile()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["v5e:2x2", "v5p:2x2x1"])
def test_auto_is_a_kernel_whose_memory_grows_with_the_sequence_only(mesh_of, name):
    mesh = mesh_of(name)
    B, T, H = 8, 4096, 32
    program = compiled(mesh, B, T, H, kv_heads=8, head_dim=128)
    # Forward, gradient of the queries, gradient of keys and values.
    assert program.as_text().count(KERNEL) == 3
    temporary = program.memory_analysis().temp_size_in_bytes
    # One device's scores would fill this much in 16 bits.
    assert temporary < (B // 2) * (H // 2) * T * T * 2 / 4
    double = compiled(mesh, B, 2 * T, H, kv_heads=8, head_dim=128)
    assert double.memory_analysis().temp_size_in_bytes < 2.2 * temporary


@pytest.mark.slow
@pytest.mark.parametrize(
    "head_dim, length, settings",
    [
        (8, 1000, {}),
        (64, 700, {"window": 100}),
        (80, 128, {}),
        (256, 2048, {"window": 1024, "soft_cap": 50.0, "dtype": jnp.float32}),
    ],
)
def test_every_width_of_heads_and_length_compiles(mesh_of, head_dim, length, settings):
    program = compiled(mesh_of("v5e:2x2"), 2, length, 8, 2, head_dim, **settings)
    assert program.as_text().count(KERNEL) == 3
