"""Keys and values of past tokens, and how those of new ones come among them."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from arkjax.models.cache_tpu import TILE_WIDTH, store_in_place, tile_rows
from arkjax.models.config import ModelConfig
from arkjax.sharding import BATCH_AXES


class KVCache(NamedTuple):
    """Keys and values of past tokens: one array [S, K, M, h] for each layer.

    One array a layer, not one stacked array: a decode loop then updates each in place, where a
    slice of a stacked array is copied at every step.
    """

    keys: tuple[jax.Array, ...]
    values: tuple[jax.Array, ...]

    @property
    def max_len(self) -> int:
        """M, the most tokens that a slot holds."""
        return self.keys[0].shape[2]


def init_cache(config: ModelConfig, slots: int, max_len: int) -> KVCache:
    """An empty cache for `slots` sequences of up to `max_len` tokens."""
    shape = (slots, config.num_kv_heads, max_len, config.head_dim)

    def zeros() -> tuple[jax.Array, ...]:
        return tuple(jnp.zeros(shape, config.dtype) for _ in range(config.num_layers))

    return KVCache(zeros(), zeros())


def cache_spec(shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
    """How an array [S, K, ...] lies on a mesh: slots over the batch axes, key heads over tensor.

    Axes that the mesh does not divide stay whole.
    """
    spread = math.prod(mesh.shape[axis] for axis in BATCH_AXES)
    return PartitionSpec(
        BATCH_AXES if shape[0] % spread == 0 else None,
        "tensor" if shape[1] % mesh.shape["tensor"] == 0 else None,
    )


def store(
    keys: jax.Array,
    values: jax.Array,
    new_keys: jax.Array,
    new_values: jax.Array,
    positions: jax.Array,
    mesh: Mesh | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Put new tokens of every slot into the cache of one layer.

    Args:
      keys, values: [S, K, M, h].
      new_keys, new_values: [S, T, K, h].
      positions: [S, T] int32, where each goes; one at or beyond M goes nowhere.
      mesh: the devices that the cache lies on, as `cache_spec` says; None is one device of the
        default kind.

    Returns:
      Keys and values with the new tokens in them.
    """
    # The mesh, not the process, says what is compiled for: it may hold devices that are not here.
    device = jax.devices()[0] if mesh is None else mesh.devices.flat[0]
    one_token, (M, h) = positions.shape[1] == 1, keys.shape[2:]
    # Narrower heads lie in another order in memory, and the kernel's would be copied to and fro.
    whole_tiles = M % tile_rows(keys.dtype) == 0 and h % TILE_WIDTH == 0
    if device.platform == "tpu" and one_token and whole_tiles:
        return store_on_tpu(keys, values, new_keys, new_values, positions, mesh)
    return _store(keys, new_keys, positions), _store(values, new_values, positions)


def store_on_tpu(
    keys: jax.Array,
    values: jax.Array,
    new_keys: jax.Array,
    new_values: jax.Array,
    positions: jax.Array,
    mesh: Mesh | None,
    interpret: bool = False,
) -> tuple[jax.Array, jax.Array]:
    """As `store`, of one token a slot, by the kernel for TPUs.

    Args:
      keys, values, new_keys, new_values, positions, mesh: as for `store`, with T = 1.
      interpret: run the kernel's Python on any device, for tests.
    """

    def kernel(*arrays: jax.Array) -> tuple[jax.Array, jax.Array]:
        return tuple(store_in_place(*arrays, interpret=interpret))

    if mesh is not None and mesh.size > 1:
        spec = cache_spec(keys.shape, mesh)
        # The compiler cannot split a kernel: every device runs it on its own slots and heads.
        kernel = jax.shard_map(
            kernel,
            mesh=mesh,
            in_specs=(spec, spec, spec, spec, PartitionSpec(spec[0])),
            out_specs=(spec, spec),
            # A kernel does not say which axes its results vary over, so that cannot be checked.
            check_vma=False,
        )
    return kernel(keys, values, new_keys[:, 0], new_values[:, 0], positions[:, 0])


def move_row(
    to: jax.Array, of: jax.Array, slot: jax.Array, row: jax.Array, mesh: Mesh | None = None
) -> jax.Array:
    """`to` [S, K, M, h] with its `slot` taken from `row` of `of` [N, K, P, h], as far as both go.

    Args:
      to: where to.
      of: where from.
      slot, row: [] int32.
      mesh: as for `store`; both lie as `cache_spec` says.
    """
    M = min(to.shape[2], of.shape[2])
    if mesh is None or math.prod(mesh.shape[axis] for axis in BATCH_AXES) == 1:
        return to.at[slot, :, :M].set(of[row, :, :M])
    to_spec, of_spec = cache_spec(to.shape, mesh), cache_spec(of.shape, mesh)

    def own(x: jax.Array, spec: PartitionSpec, index: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Where this device has a row of `x`, if it has it, and whether."""
        if spec[0] is None:
            return index, jnp.bool(True)
        at = index - jax.lax.axis_index(BATCH_AXES) * x.shape[0]
        return jnp.clip(at, 0, x.shape[0] - 1), (at >= 0) & (at < x.shape[0])

    # Left to itself, the compiler takes all of `of` to every device and goes through all of `to`.
    def move(to: jax.Array, of: jax.Array, slot: jax.Array, row: jax.Array) -> jax.Array:
        at, mine = own(of, of_spec, row)
        call = jnp.where(mine, of[at, :, :M], 0)
        if of_spec[0] is not None:
            call = jax.lax.psum(call, BATCH_AXES)
        at, mine = own(to, to_spec, slot)
        return to.at[at, :, :M].set(jnp.where(mine, call, to[at, :, :M]))

    one = PartitionSpec()
    specs = (to_spec, of_spec, one, one)
    moved = jax.shard_map(move, mesh=mesh, in_specs=specs, out_specs=to_spec, check_vma=False)
    return moved(to, of, slot, row)


def _store(cache: jax.Array, new: jax.Array, positions: jax.Array) -> jax.Array:
    """Put `new` [S, T, K, h] at `positions` [S, T] of each slot of `cache` [S, K, M, h]."""

    def slot(cache: jax.Array, new: jax.Array, positions: jax.Array) -> jax.Array:
        return cache.at[:, positions].set(new.swapaxes(0, 1), mode="drop")

    # Slot by slot, so that slots on different devices need nothing of each other.
    return jax.vmap(slot)(cache, new, positions)
