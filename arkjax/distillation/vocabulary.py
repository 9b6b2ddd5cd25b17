"""Sums over a vocabulary that may lie on several devices, and the softmax made of them.

Inside a shard_map whose axis splits the head's columns, each device holds `[C, V / n]` logits and a
sum over V is a sum over columns, then over devices. Token ids are those of the whole vocabulary.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

# Stands for log 0: finite, so that 0 * (log 0 - log 0) is 0 and not NaN.
LOG_ZERO = -1e30


class Vocabulary(NamedTuple):
    """Which columns are at hand: all, or the share of this device along a mesh axis.

    Attributes:
      axis: name of the mesh axis that splits the columns evenly and in order; None: all are here.
    """

    axis: str | None = None

    def sums(self, *xs: jax.Array) -> tuple[jax.Array, ...]:
        """Of each `[C, V]`, its sums over V `[C]`; one exchange between devices for all."""
        return self.together(*(jnp.sum(x, axis=-1) for x in xs))

    def together(self, *xs: jax.Array) -> tuple[jax.Array, ...]:
        """Partial sums of any shape, added up over devices."""
        return xs if self.axis is None else tuple(jax.lax.psum(xs, self.axis))

    def tops(self, *xs: jax.Array) -> tuple[jax.Array, ...]:
        """Of each `[C, V]`, its greatest over V `[C]`."""
        tops = tuple(jnp.max(x, axis=-1) for x in xs)
        return tops if self.axis is None else tuple(jax.lax.pmax(tops, self.axis))

    def ids(self, z: jax.Array) -> jax.Array:
        """The token id of each entry of z `[C, V]`."""
        columns = jax.lax.broadcasted_iota(jnp.int32, z.shape, z.ndim - 1)
        return columns + self._first(z)

    def one_hot(self, ids: jax.Array, z: jax.Array) -> jax.Array:
        """Where the columns of z `[C, V]` are ids `[C]`: bool; a sharded axis needs no gather."""
        return self.ids(z) == ids[..., None]

    def take(
        self,
        z: jax.Array,
        ids: jax.Array,
        f: Callable[[jax.Array], jax.Array] = lambda found: found,
    ) -> jax.Array:
        """z `[C, V]` at ids `[C, k]`: `[C, k]`; f is applied where they lie."""
        if self.axis is None:
            return f(jnp.take_along_axis(z, ids, axis=-1))
        columns = self._columns(z, ids)
        here = columns < z.shape[-1]
        found = f(jnp.take_along_axis(z, jnp.where(here, columns, 0), axis=-1))
        return self.together(jnp.where(here, found, 0.0))[0]

    def put(self, z: jax.Array, ids: jax.Array, values: jax.Array) -> jax.Array:
        """z `[C, V]` with values `[C, k]` at ids `[C, k]`, which name no column twice.

        Values of ids that no column has, such as -1, are left out.
        """
        rows = jnp.arange(z.shape[0], dtype=jnp.int32)[:, None]
        put = z.at[rows, self._columns(z, ids)].set(values.astype(z.dtype), mode="drop")
        # What comes after would else be computed before, on the flattened and widened array.
        return jax.lax.optimization_barrier(put)

    def _first(self, z: jax.Array) -> jax.Array | int:
        return 0 if self.axis is None else jax.lax.axis_index(self.axis) * z.shape[-1]

    def _columns(self, z: jax.Array, ids: jax.Array) -> jax.Array:
        """Columns of ids; those that lie elsewhere become V, which no column is."""
        columns = ids - self._first(z)
        here = (columns >= 0) & (columns < z.shape[-1])
        return jnp.where(here, columns, z.shape[-1])


class Softmax(NamedTuple):
    """What turns logits into a distribution: `top [C]`, the greatest, and `log_sum [C]`.

    The log-sum-exp is their sum, but is never formed: log-probabilities keep more digits as
    (z - top) - log_sum.
    """

    top: jax.Array
    log_sum: jax.Array

    @classmethod
    def of(cls, vocabulary: Vocabulary, z: jax.Array) -> "Softmax":
        """Of logits `[C, V]`."""
        (top,) = vocabulary.tops(z)
        (total,) = vocabulary.sums(jnp.exp(z - top[..., None]))
        return cls(top, jnp.log(total))

    def log_distribution(self, z: jax.Array) -> jax.Array:
        """Log-probabilities `[C, V]` of these logits, `LOG_ZERO` at the least."""
        return jnp.maximum((z - self.top[..., None]) - self.log_sum[..., None], LOG_ZERO)
