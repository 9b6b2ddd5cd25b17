"""Keys and values of past tokens, and how those of new ones come among them."""

import functools
import math
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from arkjax.models.cache_tpu import TILE_WIDTH, store_in_place, tile_positions
from arkjax.models.config import ModelConfig
from arkjax.models.quantized import Quantized, quantize_vectors
from arkjax.sharding import BATCH_AXES

Precision = Literal["model", "int8"]
"""How a cache, or the matrices that decoding reads, are kept: as the model has them, or in int8."""


class KVCache(NamedTuple):
    """Keys and values of past tokens: one array [S, K, M, h] for each layer.

    One array a layer, not one stacked array: a decode loop then updates each in place, where a
    slice of a stacked array is copied at every step. In int8 each is a `Quantized` of values
    [S, K, M, h] and fp32 scales [S, K, M], one for each slot, key head and position: what is stored
    for a token depends on that token alone.
    """

    keys: tuple[jax.Array | Quantized, ...]
    values: tuple[jax.Array | Quantized, ...]

    @property
    def max_len(self) -> int:
        """M, the most tokens that a slot holds."""
        return jax.tree.leaves(self.keys[0])[0].shape[2]


def init_cache(
    config: ModelConfig, slots: int, max_len: int, precision: Precision = "model"
) -> KVCache:
    """An empty cache for `slots` sequences of up to `max_len` tokens."""
    shape = (slots, config.num_kv_heads, max_len, config.head_dim)

    def layer() -> jax.Array | Quantized:
        if precision == "model":
            return jnp.zeros(shape, config.dtype)
        return Quantized(jnp.zeros(shape, jnp.int8), jnp.zeros(shape[:-1]))

    def layers() -> tuple[jax.Array | Quantized, ...]:
        return tuple(layer() for _ in range(config.num_layers))

    return KVCache(layers(), layers())


def precision_of(cache: KVCache) -> Precision:
    """How a cache is kept."""
    return "int8" if isinstance(cache.keys[0], Quantized) else "model"


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
    keys: jax.Array | Quantized,
    values: jax.Array | Quantized,
    new_keys: jax.Array,
    new_values: jax.Array,
    positions: jax.Array,
    mesh: Mesh | None = None,
) -> tuple[jax.Array | Quantized, jax.Array | Quantized]:
    """Put new tokens of every slot into the cache of one layer.

    Args:
      keys, values: [S, K, M, h]; into quantised ones the new tokens go quantised.
      new_keys, new_values: [S, T, K, h].
      positions: [S, T] int32, where each goes; one at or beyond M goes nowhere.
      mesh: the devices that the cache lies on, as `cache_spec` says; None is one device of the
        default kind.

    Returns:
      Keys and values with the new tokens in them.
    """
    if isinstance(keys, Quantized):
        new_keys, new_values = quantize_vectors(new_keys), quantize_vectors(new_values)
    # The mesh, not the process, says what is compiled for: it may hold devices that are not here.
    device = jax.devices()[0] if mesh is None else mesh.devices.flat[0]
    one_token, cached = positions.shape[1] == 1, jax.tree.leaves((keys, values))
    if device.platform == "tpu" and one_token and all(map(_whole_tiles, cached)):
        return store_on_tpu(keys, values, new_keys, new_values, positions, mesh)
    put = functools.partial(_store, positions)
    return jax.tree.map(put, (keys, values), (new_keys, new_values))


def store_on_tpu(
    keys: jax.Array | Quantized,
    values: jax.Array | Quantized,
    new_keys: jax.Array | Quantized,
    new_values: jax.Array | Quantized,
    positions: jax.Array,
    mesh: Mesh | None,
    interpret: bool = False,
) -> tuple[jax.Array | Quantized, jax.Array | Quantized]:
    """As `store`, of one token a slot, by the kernel for TPUs.

    Args:
      keys, values, new_keys, new_values: as for `store`, with T = 1; new ones quantised as the
        cache is.
      positions, mesh: as for `store`.
      interpret: run the kernel's Python on any device, for tests.
    """
    old, form = jax.tree.flatten((keys, values))
    new = [x[:, 0] for x in jax.tree.leaves((new_keys, new_values))]
    kernel = functools.partial(store_in_place, interpret=interpret)
    if mesh is not None and mesh.size > 1:
        spec = cache_spec(old[0].shape, mesh)
        # The compiler cannot split a kernel: every device runs it on its own slots and heads.
        kernel = jax.shard_map(
            kernel,
            mesh=mesh,
            in_specs=(spec, spec, PartitionSpec(spec[0])),
            out_specs=spec,
            # A kernel does not say which axes its results vary over, so that cannot be checked.
            check_vma=False,
        )
    return jax.tree.unflatten(form, kernel(old, new, positions[:, 0]))


def _whole_tiles(x: jax.Array) -> bool:
    """Whether the kernel can store into this array [S, K, M, h] or [S, K, M]."""
    # Narrower heads lie in another order in memory, and the kernel's would be copied to and fro.
    return x.shape[2] % tile_positions(x) == 0 and (x.ndim == 3 or x.shape[3] % TILE_WIDTH == 0)


def move_row(
    to: jax.Array, of: jax.Array, slot: jax.Array, row: jax.Array, mesh: Mesh | None = None
) -> jax.Array:
    """`to` [S, K, M, ...] with its `slot` from `row` of `of` [N, K, P, ...], as far as both go.

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


def _store(positions: jax.Array, cache: jax.Array, new: jax.Array) -> jax.Array:
    """Put `new` [S, T, K, ...] at `positions` [S, T] of each slot of `cache` [S, K, M, ...]."""

    def slot(cache: jax.Array, new: jax.Array, positions: jax.Array) -> jax.Array:
        return cache.at[:, positions].set(new.swapaxes(0, 1), mode="drop")

    # Slot by slot, so that slots on different devices need nothing of each other.
    return jax.vmap(slot)(cache, new, positions)
