"""Walking over tokens in chunks: the valid ones first, the others never."""

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp

Carry = TypeVar("Carry")


class Chunk:
    """Some of N tokens: reads rows of `[N, ...]` arrays, writes rows of them; C tokens at a time.

    The last chunk is filled up with dead slots. They read zeros, whatever the array holds there, so
    that no NaN of a masked position can enter a sum, and they write nothing.
    """

    def __init__(self, index: jax.Array, live: jax.Array):
        self._index = index
        self._live = live

    def read(self, x: jax.Array) -> jax.Array:
        """The chunk's rows of `[N, ...]`: `[C, ...]`."""
        live = self._live.reshape(self._live.shape + (1,) * (x.ndim - 1))
        return jnp.where(live, x.at[self._index].get(mode="clip"), jnp.zeros((), x.dtype))

    def one(self, dtype: jnp.dtype) -> jax.Array:
        """1, but the compiler does not know it: what is multiplied with it belongs to this chunk.

        A matrix that is converted for every chunk's product would else be converted ahead of all of
        them and kept, a second copy in memory; converted on its way into the product it takes none.
        """
        return (self._index[0] >= 0).astype(dtype)

    def write(self, x: jax.Array, rows: jax.Array) -> jax.Array:
        """`[N, ...]` with the chunk's rows replaced by `[C, ...]`."""
        nowhere = x.shape[0]
        index = jnp.where(self._live, self._index, nowhere)
        return x.at[index].set(rows.astype(x.dtype), mode="drop")


def for_each_chunk(
    step: Callable[[Chunk, Carry], Carry],
    mask: jax.Array,
    carry: Carry,
    *,
    chunk_size: int,
    axes: tuple[str, ...] = (),
) -> Carry:
    """Folds `step` over the tokens of non-zero mask `[N]`, at most `chunk_size` at once, in order.

    The chunks are as even as rows of eight allow: no last one is carried out nearly empty.

    The number of steps is found at run time, so padding costs nothing; the loop is therefore not
    differentiable in reverse. Inside a shard_map, `axes` names the axes that split the tokens: all
    devices then take as many steps as the fullest one, so that collectives inside stay in step.
    """
    num_tokens = mask.shape[0]
    if num_tokens == 0:
        return carry
    even = -(-num_tokens // -(-num_tokens // chunk_size))
    chunk_size = min(chunk_size, -(-even // 8) * 8, num_tokens)
    valid = mask != 0
    num_valid = jnp.sum(valid, dtype=jnp.int32)
    valid_first = jnp.argsort(~valid, stable=True)
    slots = jnp.arange(chunk_size, dtype=jnp.int32)

    def body(i: jax.Array, carry: Carry) -> Carry:
        slot = i * chunk_size + slots
        index = valid_first.at[slot].get(mode="clip")
        return step(Chunk(index, slot < num_valid), carry)

    steps = -(-num_valid // chunk_size)
    if axes:
        steps = jax.lax.pmax(steps, axes)
    return jax.lax.fori_loop(0, steps, body, carry)
