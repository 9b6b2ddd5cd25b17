"""The keys and values of one new token a slot put into the cache in place, on TPU: a Pallas kernel.

XLA's own scatter of single positions wants an array where the heads of a position lie together.
Everything else wants the positions of a head together. The compiler then keeps the cache of
a decode loop twice and copies all of it where the loop begins and ends: for Qwen3-8B on four v6e
chips, with 128 slots of 2,048 positions and blocks of 16 steps, that is 9 GiB a chip and a seventh
of all bytes that move.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

TILE_WIDTH = 128
"""Numbers that lie side by side in a tile of memory."""

# Bytes of keys and values that a turn of the kernel holds; a core has 16 MiB at least.
_ROOM = 4 << 20


def tile_rows(dtype: Any) -> int:
    """Positions that lie in one tile of memory, the least that is read or written at once."""
    return 32 // jnp.dtype(dtype).itemsize


def store_in_place(
    keys: jax.Array,
    values: jax.Array,
    new_keys: jax.Array,
    new_values: jax.Array,
    positions: jax.Array,
    *,
    interpret: bool = False,
) -> tuple[jax.Array, jax.Array]:
    """Put one token into each slot, on one device; nothing else of the cache is touched.

    The tile that holds the position is read, changed and written back, for all heads of a slot at
    once and many slots side by side.

    Args:
      keys, values: [S, K, M, h], given up; `tile_rows` of their type divides M, and on a TPU
        `TILE_WIDTH` divides h.
      new_keys, new_values: [S, K, h].
      positions: [S] int32, at least 0; one at or beyond M is stored nowhere.
      interpret: run the kernel's Python on any device, for tests.

    Returns:
      Keys and values with the tokens in them.
    """
    from jax.experimental import pallas as pl
    from jax.experimental.pallas import tpu as pltpu

    S, K, M, h = keys.shape
    rows = tile_rows(keys.dtype)
    group = _group(S, 2 * K * rows * h * keys.dtype.itemsize)

    def kernel(positions, new_keys, new_values, _, __, keys, values, tiles, semaphores):
        first = pl.program_id(0) * group
        sides = ((keys, new_keys), (values, new_values))

        def each(act: Callable[[jax.Array], None]) -> None:
            """For all slots of this turn whose token is stored."""

            def one(slot: jax.Array, _: None) -> None:
                pl.when(positions[first + slot] < M)(lambda: act(slot))

            jax.lax.fori_loop(0, group, one, None)

        def copies(slot: jax.Array, back: bool) -> list:
            """Those of the tiles that hold the position: to here, or back."""
            start = pl.multiple_of(positions[first + slot] // rows * rows, rows)
            made = []
            for side, (cache, _) in enumerate(sides):
                there = cache.at[first + slot, :, pl.ds(start, rows)]
                pair = (tiles.at[side, slot], there) if back else (there, tiles.at[side, slot])
                made.append(pltpu.make_async_copy(*pair, semaphores.at[side]))
            return made

        def change(slot: jax.Array) -> None:
            here = positions[first + slot] % rows
            at = jax.lax.broadcasted_iota(jnp.int32, (K, rows, h), 1) == here
            for side, (_, new) in enumerate(sides):
                # In 32 bits, of which every TPU can choose single rows; there and back is exact.
                old, token = (x.astype(_wide(x.dtype)) for x in (tiles[side, slot], new[slot]))
                tiles[side, slot] = jnp.where(at, token[:, None], old).astype(tiles.dtype)

        def move(back: bool) -> None:
            """All at once: each takes far less time than it takes to arrive."""

            def start(slot: jax.Array) -> None:
                for copy in copies(slot, back):
                    copy.start()

            def wait(slot: jax.Array) -> None:
                for copy in copies(slot, back):
                    copy.wait()

            each(start)
            each(wait)

        move(back=False)
        each(change)
        move(back=True)

    tokens = pl.BlockSpec((group, K, h), lambda i, _: (i, 0, 0))
    cache = pl.BlockSpec(memory_space=pl.ANY)
    moved = 2 * S * K * h * (2 * rows + 1) * keys.dtype.itemsize + positions.nbytes
    return pl.pallas_call(
        kernel,
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=1,
            grid=(S // group,),
            in_specs=[tokens, tokens, cache, cache],
            out_specs=[cache, cache],
            scratch_shapes=[
                pltpu.VMEM((2, group, K, rows, h), keys.dtype),
                pltpu.SemaphoreType.DMA((2,)),
            ],
        ),
        out_shape=[jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (keys, values)],
        # Counted with the positions.
        input_output_aliases={3: 0, 4: 1},
        # Else the whole cache is counted as moved, and what surrounds the kernel is planned so.
        cost_estimate=pl.CostEstimate(flops=0, transcendentals=0, bytes_accessed=moved),
        interpret=interpret,
        name="store_in_place",
    )(positions, new_keys, new_values, keys, values)


def _group(slots: int, size: int) -> int:
    """The most slots of `size` bytes that have room together and divide all."""
    most = max(1, _ROOM // size)
    return next(n for n in range(min(slots, most), 0, -1) if slots % n == 0)


def _wide(dtype: Any) -> Any:
    return jnp.float32 if jnp.issubdtype(dtype, jnp.floating) else jnp.int32
