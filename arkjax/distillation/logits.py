"""Head products, a teacher's logits from hidden states, and how both sides' logits are kept."""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp

from arkjax.distillation.targets import HiddenTarget, MixtureTarget, Target
from arkjax.distillation.vocabulary import LOG_ZERO, Softmax, Vocabulary

Tokens = TypeVar("Tokens")

# How many columns the base of `Kept` is found by: a hundredth of a large vocabulary's work.
BASE_COLUMNS = 2048


def head_product(x: jax.Array, head: jax.Array) -> jax.Array:
    """`[C, D] @ [D, V]` in the dtype of x, accumulated and returned in float32."""
    return jnp.matmul(x, head.astype(x.dtype), preferred_element_type=jnp.float32)


def cap(z: jax.Array, soft_cap: float | None) -> jax.Array:
    """soft_cap * tanh(z / soft_cap), or z where there is no cap."""
    return z if soft_cap is None else soft_cap * jnp.tanh(z / soft_cap)


def shut_out(z: jax.Array, vocabulary: Vocabulary, vocab_size: int) -> jax.Array:
    """z `[C, V]` with `LOG_ZERO` in columns that hold no token.

    They are masked, not cut: an uneven cut of a sharded axis would move it between devices.
    """
    return jnp.where(vocabulary.ids(z) < vocab_size, z, LOG_ZERO)


def teacher_logits(
    target: Target,
    kd_temperature: float,
    vocabulary: Vocabulary,
    finish: Callable[[jax.Array], jax.Array],
) -> jax.Array | None:
    """The teacher's logits `[C, V]` over the temperature; None of a target without hidden states.

    Args:
      target: of C tokens.
      kd_temperature: divides logits. An arithmetic mixture mixes distributions that are tempered.
      vocabulary: which columns are here.
      finish: cuts capped logits `[C, Vt]` to the student's columns and shuts out padded ones.
    """

    def logits(hidden: jax.Array) -> jax.Array:
        z = finish(cap(head_product(hidden, target.head), target.soft_cap))
        return z if kd_temperature == 1.0 else z / kd_temperature

    if isinstance(target, HiddenTarget):
        return logits(target.hidden)
    if not isinstance(target, MixtureTarget):
        return None
    weights = target.weights.astype(jnp.float32)
    # A context without a share may hold anything.
    hidden = jnp.where(weights[..., None] != 0, target.hidden, jnp.zeros((), target.hidden.dtype))
    if target.mixture == "geometric" and target.soft_cap is None:
        # Logits are linear in hidden states, and what normalises each context cancels.
        mean = jnp.einsum("ckd,ck->cd", hidden.astype(jnp.float32), weights)
        return logits(mean.astype(hidden.dtype))

    def add(k: jax.Array, mixed: jax.Array) -> jax.Array:
        z = logits(jax.lax.dynamic_index_in_dim(hidden, k, axis=1, keepdims=False))
        weight = jax.lax.dynamic_index_in_dim(weights, k, axis=1)
        if target.mixture == "geometric":
            return mixed + weight * z
        log_p = Softmax.of(vocabulary, z).log_distribution(z)
        log_share = jnp.where(weight > 0, jnp.log(jnp.where(weight > 0, weight, 1.0)), LOG_ZERO)
        return jnp.maximum(jnp.logaddexp(mixed, log_share + log_p), LOG_ZERO)

    columns = jax.eval_shape(logits, hidden[:, 0]).shape
    empty = 0.0 if target.mixture == "geometric" else LOG_ZERO
    start = jnp.full(columns, empty, jnp.float32)
    mixed = jax.lax.fori_loop(0, hidden.shape[1], add, vary_like(start, hidden, target.head))
    # Padded columns again: nothing shuts them out where no context has a share.
    return finish(mixed)


class Kept(NamedTuple):
    """Logits of C tokens as they lie in memory until their gradient is made.

    Of float32 hidden states they are float32. Of 16-bit ones they are float16, less a base that is
    near each token's greatest: products are added up in float32 and rounded once, to 11 bits of
    their distance from there, so that the likelier a token the finer its logit. Half the memory a
    token is twice the tokens at once, and with enough of them the products outlast the traffic of
    the head and of its gradient.

    Attributes:
      values: `[C, V]`.
      base: `[C]` float32, to be added; None: nothing is.
    """

    values: jax.Array
    base: jax.Array | None = None

    @classmethod
    def of(
        cls,
        product: Callable[[Tokens, jax.Array], jax.Array],
        tokens: Tokens,
        head: jax.Array,
        dtype: jnp.dtype,
    ) -> "Kept":
        """Of `product(tokens, head)`, float32 `[C, V]`, from hidden states of this dtype.

        The base is the greatest of the first columns, which are multiplied on their own: it has to
        be known when the others come, or they would lie in memory in float32. In a vocabulary of
        merged pairs they are the commonest tokens.
        """
        if jnp.dtype(dtype).itemsize > 2:
            return cls(product(tokens, head))
        base = jnp.max(product(tokens, head[:, :BASE_COLUMNS]), axis=-1)
        # The compiler would make one product of the two, with a head of its own.
        tokens, base = jax.lax.optimization_barrier((tokens, base))
        most = float(jnp.finfo(jnp.float16).max)
        values = jnp.clip(product(tokens, head) - base[:, None], -most, most).astype(jnp.float16)
        # It may also leave out a rounding that it can see through, and would keep float32.
        return cls(jax.lax.optimization_barrier(values), base)

    def logits(self) -> jax.Array:
        """`[C, V]` float32."""
        return self.restored(self.values)

    def restored(self, values: jax.Array) -> jax.Array:
        """The logits float32 of values `[C, ...]` kept as these."""
        z = values.astype(jnp.float32)
        return z if self.base is None else z + self.base[:, None]

    def read_again(self, after: jax.Array) -> "Kept":
        """The same, of which nothing that was computed before `after` is held in its place.

        What has been made of float32 logits is as large as they are, and takes longer to write and
        to read than to make again. Not so on a CPU, which writes nearly every step down.
        """
        if self.base is None:
            return self
        values, base, _ = jax.lax.platform_dependent(
            self.values,
            self.base,
            vary_like(after, self.values),
            cpu=lambda *same: same,
            default=lambda *same: tuple(jax.lax.optimization_barrier(same)),
        )
        return Kept(values, base)

    def at(self, ids: jax.Array, vocabulary: Vocabulary) -> jax.Array:
        """The logits `[C, k]` float32 of ids `[C, k]`."""
        return vocabulary.take(self.values, ids, self.restored)


def vary_like(x: jax.Array, *others: jax.Array) -> jax.Array:
    """x, typed as varying over every mesh axis that any of others varies over (in a shard_map).

    What a loop carries must be typed from the start as it will be in the end. The sum of no numbers
    has the type of what it sums up, and compiles to nothing.
    """
    zero = sum(jnp.sum(other[:0], dtype=jnp.float32) for other in others)
    return x + zero.astype(x.dtype)
