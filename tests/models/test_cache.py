"""New tokens come into the cache where they belong, and nothing else of it changes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding

from arkjax.models.cache import cache_spec, move_row, store, store_on_tpu
from arkjax.models.cache_tpu import tile_rows
from arkjax.models.quantized import Quantized, quantize_vectors
from arkjax.sharding import MESH_AXES

# Of slots of 64, in many places of a tile, and some beyond the end.
POSITIONS = np.array([0, 1, 7, 8, 15, 16, 31, 33, 62, 63, 64, 65, 1000, 40, 47, 48], np.int32)


def arrays(slots: int, heads: int, length: int, width: int, dtype) -> list[np.ndarray]:
    """Keys, values [S, K, M, h], and new ones [S, 1, K, h]."""
    rng = np.random.default_rng(0)
    shapes = [(slots, heads, length, width)] * 2 + [(slots, 1, heads, width)] * 2
    return [np.asarray(jnp.asarray(rng.normal(0, 50, shape), dtype)) for shape in shapes]


def expected(cache: np.ndarray, new: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """[S, K, M, h], written slot by slot."""
    cache = cache.copy()
    for slot, row in enumerate(positions):
        for t, position in enumerate(row):
            if position < cache.shape[2]:
                cache[slot, :, position] = new[slot, t]
    return cache


def on_mesh(shape: tuple[int, int, int]) -> Mesh:
    devices = np.array(jax.devices()[: int(np.prod(shape))]).reshape(shape)
    return Mesh(devices, MESH_AXES, (AxisType.Auto,) * 3)


@functools.partial(jax.jit, static_argnums=(0, 1))
def stored(form, mesh, *given):
    """The cache after `form`, in the way of a decode loop: given up, and inside a program."""
    return form(*given, mesh)


KERNEL = functools.partial(store_on_tpu, interpret=True)


@pytest.mark.fast
@pytest.mark.parametrize("form", [store, KERNEL], ids=["scatter", "kernel"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_one_token_of_each_slot_is_stored_and_nothing_else_changes(form, dtype):
    """Bit by bit."""
    given = arrays(16, 2, 64, 8, dtype)
    positions = POSITIONS[:, None]
    keys, values = stored(form, None, *given, positions)
    np.testing.assert_array_equal(keys, expected(given[0], given[2], positions))
    np.testing.assert_array_equal(values, expected(given[1], given[3], positions))


@pytest.mark.parametrize("mesh_shape", [None, (2, 2, 2), (1, 1, 8)])
def test_quantised_tokens_are_stored_with_their_scales(mesh_shape):
    """By either form bit by bit, and no other position has another value or scale."""
    pytest.importorskip("qwix")
    slots, length = len(POSITIONS), 256
    mesh = None if mesh_shape is None else on_mesh(mesh_shape)
    positions = np.where(POSITIONS < 64, 3 * POSITIONS, POSITIONS + 192)[:, None].astype(np.int32)
    rng = np.random.default_rng(0)
    caches = [
        Quantized(
            rng.integers(-128, 128, (slots, 2, length, 8), dtype=np.int8),
            rng.random((slots, 2, length), dtype=np.float32),
        )
        for _ in range(2)
    ]
    new = arrays(slots, 2, length, 8, "float32")[2:]
    if mesh is not None:

        def lay(x: np.ndarray) -> jax.Array:
            return jax.device_put(x, NamedSharding(mesh, cache_spec(x.shape, mesh)))

        caches = jax.tree.map(lay, caches)
    scattered = stored(store, mesh, *caches, *new, positions)
    small = [quantize_vectors(jnp.asarray(x)) for x in new]
    kernel = stored(KERNEL, mesh, *caches, *small, positions)
    jax.tree.map(np.testing.assert_array_equal, scattered, kernel)
    for cache, made, out in zip(caches, small, kernel, strict=True):
        for old, one, got in zip(cache, made, out, strict=True):
            np.testing.assert_array_equal(got, expected(np.asarray(old), one, positions))
    for got, cache in zip(jax.tree.leaves(kernel), jax.tree.leaves(caches), strict=True):
        assert mesh is None or got.sharding.is_equivalent_to(cache.sharding, got.ndim)


def test_the_kernel_takes_slots_in_turns_when_they_have_no_room_together():
    """Heads so wide that there is room for 6 of 15 slots: a turn takes 5, which divide them."""
    heads, width = 16, 640
    size = 2 * heads * tile_rows("float32") * width * 4
    assert (4 << 20) // size == 6
    given = arrays(15, heads, 16, width, "float32")
    positions = np.random.default_rng(1).integers(0, 17, (15, 1), dtype=np.int32)
    keys, values = stored(KERNEL, None, *given, positions)
    np.testing.assert_array_equal(keys, expected(given[0], given[2], positions))
    np.testing.assert_array_equal(values, expected(given[1], given[3], positions))


# Slots and heads divided; heads that the mesh does not divide; slots that it does not.
MESHES = [((2, 2, 2), 16, 4), ((1, 1, 8), 16, 4), ((4, 2, 1), 12, 4), ((1, 4, 2), 16, 2)]


@pytest.mark.parametrize("shape, slots, heads", MESHES)
def test_the_kernel_stores_the_same_on_many_devices(shape, slots, heads):
    mesh = on_mesh(shape)
    given = arrays(slots, heads, 64, 8, "bfloat16")
    positions = POSITIONS[:slots, None]
    place = NamedSharding(mesh, cache_spec(given[0].shape, mesh))
    placed = [jax.device_put(x, place) for x in given[:2]]
    keys, values = stored(KERNEL, mesh, *placed, *given[2:], positions)
    assert keys.sharding.is_equivalent_to(place, 4)
    np.testing.assert_array_equal(keys, expected(given[0], given[2], positions))
    np.testing.assert_array_equal(values, expected(given[1], given[3], positions))


def test_many_tokens_of_each_slot_are_stored():
    slots, T = 3, 5
    keys, values, *_ = arrays(slots, 2, 16, 8, "float32")
    rng = np.random.default_rng(2)
    new = rng.normal(size=(2, slots, T, 2, 8)).astype(np.float32)
    # The last slot's reach beyond the end.
    positions = np.array([[0], [7], [13]], np.int32) + np.arange(T, dtype=np.int32)[None]
    out = stored(store, None, keys, values, *new, positions)
    np.testing.assert_array_equal(out[0], expected(keys, new[0], positions))
    np.testing.assert_array_equal(out[1], expected(values, new[1], positions))


@functools.partial(jax.jit, static_argnums=4)
def moved(to, of, slot, row, mesh):
    return move_row(to, of, slot, row, mesh)


@pytest.mark.parametrize(
    "shape, slots, rows",
    [(None, 8, 3), ((2, 2, 2), 8, 4), ((4, 2, 1), 16, 3), ((2, 1, 1), 3, 4), ((1, 1, 8), 4, 4)],
)
def test_a_row_moves_to_a_slot_wherever_both_lie(shape, slots, rows):
    """Slots may be shorter than rows; rows or slots may lie whole on every device."""
    mesh = None if shape is None else on_mesh(shape)
    rng = np.random.default_rng(3)
    to = rng.normal(size=(slots, 2, 16, 4)).astype(np.float32)
    of = rng.normal(size=(rows, 2, 32, 4)).astype(np.float32)
    placed = (to, of)
    if mesh is not None:
        placed = [
            jax.device_put(x, NamedSharding(mesh, cache_spec(x.shape, mesh))) for x in (to, of)
        ]
    for slot, row in [(0, 0), (slots - 1, rows - 1), (slots // 2, 1)]:
        out = moved(*placed, np.int32(slot), np.int32(row), mesh)
        right = to.copy()
        right[slot] = of[row, :, :16]
        np.testing.assert_array_equal(out, right)
