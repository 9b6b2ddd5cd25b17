"""Routed experts: each token is sent to k of E feed-forward layers."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from arkjax.models.config import Experts
from arkjax.sharding import BATCH_AXES


class RouterLoad(NamedTuple):
    """How a router spread its tokens: sums over those that count, for `balance_loss`.

    Attributes:
      sent: [E] fp32, tokens sent to each expert.
      probability: [E] fp32, the router's probabilities added up.
      tokens: [] fp32, how many tokens counted.
    """

    sent: jax.Array
    probability: jax.Array
    tokens: jax.Array


def balance_loss(load: RouterLoad) -> jax.Array:
    """E times the sum over experts of (share of tokens sent there) * (mean probability).

    Switch Transformer (arXiv 2101.03961, eqs. 4-6) with k choices a token, over the tokens of all
    layers together: k when the load is even, more when it is not.

    Args:
      load: sums over the tokens of every layer.
    """
    tokens = jnp.maximum(load.tokens, 1.0)
    share, probability = load.sent / tokens, load.probability / tokens
    return share.shape[0] * (share * probability).sum()


def routed_experts(
    x: jax.Array,
    router: jax.Array,
    gate: jax.Array,
    up: jax.Array,
    down: jax.Array,
    counts: jax.Array,
    *,
    experts: Experts,
    activation: Callable[[jax.Array], jax.Array],
    mesh: Mesh | None = None,
) -> tuple[jax.Array, RouterLoad]:
    """The experts' answers, weighted by the router.

    Tokens are sorted by expert, so that each expert is one stretch of one ragged matrix product:
    nothing is dropped and nothing is padded to a capacity. On a mesh every device sorts its own
    tokens; experts are gathered layer by layer, as FSDP does with any weight.

    Args:
      x: [B, T, D].
      router: [E, D].
      gate, up: [E, F, D].
      down: [E, D, F].
      counts: [B, T] bool, tokens that the load counts; padding is routed but not counted.
      experts: their number and how many a token is sent to.
      activation: of the gate.
      mesh: where x and the weights lie; None is one device.

    Returns:
      [B, T, D], and the load.
    """

    if mesh is None or mesh.size == 1:
        return _route(x, counts, router, gate, up, down, experts, activation)
    rows = PartitionSpec(BATCH_AXES)
    if x.shape[0] % (mesh.shape["data"] * mesh.shape["fsdp"]):
        rows = PartitionSpec()  # Too few rows to share: every device computes them all.
    split = "tensor" if gate.shape[1] % mesh.shape["tensor"] == 0 else None
    spread_rows, spread_units = rows != PartitionSpec(), split is not None

    def on_mesh(x, counts, router, gate, up, down):
        y, load = _route(x, counts, router, gate, up, down, experts, activation)
        if spread_rows:
            load = jax.tree.map(lambda total: jax.lax.psum(total, BATCH_AXES), load)
        return (jax.lax.psum(y, "tensor") if spread_units else y), load

    units = PartitionSpec(None, split, None)
    return jax.shard_map(
        on_mesh,
        mesh=mesh,
        in_specs=(rows, rows, PartitionSpec(), units, units, PartitionSpec(None, None, split)),
        out_specs=(rows, PartitionSpec()),
        check_vma=False,
    )(x, counts, router, gate, up, down)


def _route(x, counts, router, gate, up, down, experts, activation) -> tuple[jax.Array, RouterLoad]:
    B, T, D = x.shape
    E, k = experts.number, experts.per_token
    tokens = x.reshape(-1, D)
    logits = jnp.einsum("nd,ed->ne", tokens, router).astype(jnp.float32)
    probabilities = jax.nn.softmax(logits)
    weights, chosen = jax.lax.top_k(probabilities, k)
    if experts.normalize:
        weights = weights / weights.sum(axis=-1, keepdims=True)

    order = jnp.argsort(chosen.reshape(-1), stable=True)
    sizes = jnp.bincount(chosen.reshape(-1), length=E).astype(jnp.int32)
    sent = tokens[order // k]

    def product(rows: jax.Array, matrices: jax.Array) -> jax.Array:
        return jax.lax.ragged_dot(rows, matrices.swapaxes(1, 2), sizes)

    answers = product(activation(product(sent, gate)) * product(sent, up), down)
    # Back in the order of the tokens, where the k answers to each are added up.
    answers = answers[jnp.argsort(order)].reshape(-1, k, D)
    y = jnp.einsum("nkd,nk->nd", answers, weights.astype(x.dtype)).reshape(B, T, D)

    counted = counts.reshape(-1, 1).astype(jnp.float32)
    hits = jax.nn.one_hot(chosen, E, dtype=jnp.float32).sum(axis=1)
    load = RouterLoad((hits * counted).sum(0), (probabilities * counted).sum(0), counted.sum())
    return y, load
