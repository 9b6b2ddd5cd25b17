"""A step's rows a few at a time: the gradient of all of them in the memory of one micro-batch."""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

Tree = TypeVar("Tree")


def num_micro_batches(rows: int, micro_rows: int) -> int:
    """How many micro-batches of `micro_rows` there are; 0 rows, or more than all, means one."""
    return rows // micro_rows if 0 < micro_rows < rows else 1


def micro_batch(rows: Tree, index: jax.Array, number: int) -> Tree:
    """One of `number` micro-batches of arrays `[B, ...]`: arrays `[B / number, ...]`.

    Every device gives rows of its own to each: those of micro-batch i are i, number + i, ...

    Args:
      rows: any tree of such arrays. Of the targets of a loss in it, what is stored token by token
        is taken apart, and their heads stay whole.
      index: i.
      number: of micro-batches.
    """

    def pick(x: jax.Array) -> jax.Array:
        split = x.reshape(x.shape[0] // number, number, *x.shape[1:])
        return jax.lax.dynamic_index_in_dim(split, index, axis=1, keepdims=False)

    def of(x: Any) -> Any:
        return x.map_tokens(pick) if hasattr(x, "map_tokens") else pick(x)

    return jax.tree.map(of, rows, is_leaf=lambda x: hasattr(x, "map_tokens"))


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
