"""The keys and values of one new token a slot put into the cache in place, on TPU: a Pallas kernel.

XLA's own scatter of single positions wants an array where the heads of a position lie together.
Everything else wants the positions of a head together. The compiler then keeps the cache of
a decode loop twice and copies all of it where the loop begins and ends: for Qwen3-8B on four v6e
chips, with 128 slots of 2,048 positions and blocks of 16 steps, that is 9 GiB a chip and a seventh
of all bytes that move.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

TILE_WIDTH = 128
"""Numbers that lie side by side in a tile of memory."""

# Bytes of keys and values that a turn of the kernel holds; a core has 16 MiB at least.
_ROOM = 4 << 20


def tile_rows(dtype: Any) -> int:
    """Rows of one tile of memory, the least that is read or written at once."""
    return 32 // jnp.dtype(dtype).itemsize


def tile_positions(cache: jax.Array) -> int:
    """Positions in one tile of an array [S, K, M, h], or of scales [S, K, M] that lie in a row."""
    return tile_rows(cache.dtype) if cache.ndim == 4 else TILE_WIDTH


def store_in_place(
    cached: Sequence[jax.Array],
    new: Sequence[jax.Array],
    positions: jax.Array,
    *,
    interpret: bool = False,
) -> list[jax.Array]:
    """Put one token into each slot, on one device; nothing else of the cache is touched.

    The tiles that hold the position are read, changed and written back, for all heads of a slot at
    once and many slots side by side.

    Args:
      cached: arrays [S, K, M, h], and scales [S, K, M] of quantised ones, given up;
        `tile_positions` divides M, and on a TPU `TILE_WIDTH` divides h.
      new: [S, K, h] for each of the former, [S, K] for each of the latter.
      positions: [S] int32, at least 0; one at or beyond M is stored nowhere.
      interpret: run the kernel's Python on any device, for tests.

    Returns:
      The arrays with the tokens in them.
    """
    from jax.experimental import pallas as pl
    from jax.experimental.pallas import tpu as pltpu

    (S, K, M), count = cached[0].shape[:3], len(cached)
    tiles = [(K, tile_positions(x), *x.shape[3:]) for x in cached]
    sizes = [math.prod(t) * x.dtype.itemsize for t, x in zip(tiles, cached, strict=True)]
    group = _group(S, sum(sizes))
    # Numbers of a token lie as they do in its tile: side by side, or one for each head.
    new = [x if x.ndim == 3 else x[:, :, None] for x in new]

    def kernel(positions, *refs):
        new, caches, held = refs[:count], refs[2 * count : 3 * count], refs[3 * count : 4 * count]
        semaphores, first = refs[4 * count], pl.program_id(0) * group

        def each(act: Callable[[jax.Array], None]) -> None:
            """For all slots of this turn whose token is stored."""

            def one(slot: jax.Array, _: None) -> None:
                pl.when(positions[first + slot] < M)(lambda: act(slot))

            jax.lax.fori_loop(0, group, one, None)

        def copies(slot: jax.Array, back: bool) -> list:
            """Those of the tiles that hold the position: to here, or back."""
            made = []
            for i, (tile, cache) in enumerate(zip(tiles, caches, strict=True)):
                start = pl.multiple_of(positions[first + slot] // tile[1] * tile[1], tile[1])
                here, there = held[i].at[slot], cache.at[first + slot, :, pl.ds(start, tile[1])]
                pair = (here, there) if back else (there, here)
                made.append(pltpu.make_async_copy(*pair, semaphores.at[i]))
            return made

        def change(slot: jax.Array) -> None:
            for tile, token, here in zip(tiles, new, held, strict=True):
                at = jax.lax.broadcasted_iota(jnp.int32, tile, 1)
                at = at == positions[first + slot] % tile[1]
                # In 32 bits, of which every TPU can choose single rows; there and back is exact.
                old, one = (x.astype(_wide(x.dtype)) for x in (here[slot], token[slot]))
                one = one[:, None] if len(tile) == 3 else one
                here[slot] = jnp.where(at, one, old).astype(here.dtype)

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

    tokens = [pl.BlockSpec((group, *x.shape[1:]), lambda i, _: (i, 0, 0)) for x in new]
    whole = [pl.BlockSpec(memory_space=pl.ANY)] * count
    return pl.pallas_call(
        kernel,
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=1,
            grid=(S // group,),
            in_specs=[*tokens, *whole],
            out_specs=whole,
            scratch_shapes=[
                *(pltpu.VMEM((group, *t), x.dtype) for t, x in zip(tiles, cached, strict=True)),
                pltpu.SemaphoreType.DMA((count,)),
            ],
        ),
        out_shape=[jax.ShapeDtypeStruct(x.shape, x.dtype) for x in cached],
        # Counted with the positions.
        input_output_aliases={1 + count + i: i for i in range(count)},
        # Else the whole cache is counted as moved, and what surrounds the kernel is planned so.
        cost_estimate=pl.CostEstimate(
            flops=0,
            transcendentals=0,
            bytes_accessed=2 * S * sum(sizes) + sum(x.nbytes for x in new) + positions.nbytes,
        ),
        interpret=interpret,
        name="store_in_place",
    )(positions, *new, *cached)


def _group(slots: int, size: int) -> int:
    """The most slots of `size` bytes that have room together and divide all."""
    most = max(1, _ROOM // size)
    return next(n for n in range(min(slots, most), 0, -1) if slots % n == 0)


def _wide(dtype: Any) -> Any:
    return jnp.float32 if jnp.issubdtype(dtype, jnp.floating) else jnp.int32
