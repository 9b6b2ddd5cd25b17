"""A step's rows a few at a time: the gradient of all of them in the memory of one micro-batch."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def num_micro_batches(rows: int, micro_rows: int) -> int:
    """How many micro-batches of `micro_rows` there are; 0 rows, or more than all, means one."""
    return rows // micro_rows if 0 < micro_rows < rows else 1


def micro_batch(rows: jax.Array, index: jax.Array, number: int) -> jax.Array:
    """One of `number` micro-batches of rows `[B, ...]`: `[B / number, ...]`.

    Every device gives rows of its own to each: those of micro-batch i are i, number + i, ...
    """
    split = rows.reshape(rows.shape[0] // number, number, *rows.shape[1:])
    return jax.lax.dynamic_index_in_dim(split, index, axis=1, keepdims=False)


def summed(of: Callable[[jax.Array], Any], number: int) -> Any:
    """The sum over micro-batches of what `of` gives for the index of each; differentiable.

    Only one micro-batch's activations exist at once: they are computed again in the backward pass.
    What is summed must be a sum over rows, divided by nothing that a micro-batch has of its own:
    a mean of means weighs rows by their company.
    """
    if number == 1:
        return of(jnp.int32(0))
    again = jax.checkpoint(of, prevent_cse=False)

    def step(total: Any, index: jax.Array) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, again(index)), None

    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(of, jnp.int32(0)))
    return jax.lax.scan(step, zeros, jnp.arange(number, dtype=jnp.int32))[0]
