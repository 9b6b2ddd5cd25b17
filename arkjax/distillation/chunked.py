"""Losses and log-probabilities from hidden states, one chunk of tokens at a time.

Logits exist as `[chunk, V]`, for student and teacher alike, forward and backward; `[N, V]` never
does. A linear head lets the loss's forward pass finish the gradients too: each chunk's logits give
its loss, its `d hidden` and its share of `d head` before the next chunk begins, and the backward
pass only scales them by the incoming cotangent. Nothing is recomputed and nothing is kept.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from arkjax.distillation.chunks import Chunk, for_each_chunk
from arkjax.distillation.divergences import coarsen, cross_entropy, log_distribution
from arkjax.distillation.objective import Objective
from arkjax.distillation.targets import HiddenTarget, TapeTarget, Target
from arkjax.distillation.token_loss import (
    MEASURES,
    finish_logits,
    head_product,
    teacher_logits,
    token_losses,
)
from arkjax.errors import ConfigError

Aux = dict[str, jax.Array]


class TokenScores(NamedTuple):
    """What a model says about given tokens: all leading axes as the hidden states'.

    `logprobs [...]` of the labels at temperature 1; `top_ids [..., k]` int32, `top_logprobs
    [..., k]` and `log_tail [...]` at the asked temperature. Positions left out by the mask hold 0.
    """

    logprobs: jax.Array
    top_ids: jax.Array
    top_logprobs: jax.Array
    log_tail: jax.Array


class _Static(NamedTuple):
    """What the compiler must know: hashable, the one argument that is no array."""

    objective: Objective
    chunk_size: int
    vocab_size: int
    width: int
    train_head: bool
    soft_cap: float | None
    token_axes: tuple[str, ...]


def linear_divergence(
    hidden: jax.Array,
    head: jax.Array,
    labels: jax.Array,
    mask: jax.Array,
    *,
    objective: Objective,
    target: Target = None,
    chunk_size: int = 512,
    vocab_size: int | None = None,
    train_head: bool = True,
    soft_cap: float | None = None,
    mesh: jax.sharding.Mesh | None = None,
    token_axes: tuple[str, ...] = (),
) -> tuple[jax.Array, Aux]:
    """Sum over tokens of mask times the objective's loss, with gradients to hidden and head.

    Divide by the global number of valid tokens outside: a sum needs no knowledge of micro-batches.
    All sums are float32 whatever the inputs are. Tokens of zero mask cost next to nothing, get
    exactly zero gradient and may hold anything, NaN included.

    Args:
      hidden: `[..., D]`, the student's last hidden states, each predicting its label.
      head: `[D, V]` in the dtype to compute with; the transposed embedding when they are tied.
      labels: `[...]` int.
      mask: `[...]` float32 weights; negative ones are fine (a policy gradient is a weighted
        cross-entropy). No gradient flows to it.
      objective: what is minimised.
      target: the teacher, aligned with hidden; None for hard labels only.
      chunk_size: tokens whose logits exist at once.
      vocab_size: number of real tokens where heads are padded beyond it; None: the whole head.
      train_head: False (adapters on a frozen head) saves the `[D, V]` float32 accumulator.
      soft_cap: the student's final-logit soft cap, cap * tanh(z / cap).
      mesh, token_axes: with them, leading axis 0 is split over these mesh axes, every device packs
        and chunks its own tokens, and other mesh axes (a vocabulary-sharded head) are left to the
        compiler. Needed under jit whenever tokens are sharded.

    Returns:
      The loss, float32 `[]`, and aux, which carries no gradient. Sums weighted by mask:
      `cross_entropy`, `divergence` (unweighted, as scaled), `student_entropy` (nats), `label_top1`
      (label is the student's argmax), `teacher_top1` (teacher's argmax is the student's),
      `teacher_tail_mass` (outside the tape's top k), `weight` (of mask itself); `tokens`, the count
      of non-zero mask; and `token_losses [...]`, each token's loss before mask, 0 where masked.

    Raises:
      ConfigError: objective and target do not fit together, or shapes disagree.
    """
    _check_tokens(hidden, head, labels, mask)
    _check_target(objective, target, labels.shape)
    heads = [head, target.head] if isinstance(target, HiddenTarget) else [head]
    width, vocab_size = _common_vocabulary(heads, vocab_size)
    static = _Static(objective, chunk_size, vocab_size, width, train_head, soft_cap, token_axes)
    target = jax.lax.stop_gradient(target)
    mask = jax.lax.stop_gradient(mask.astype(jnp.float32))
    if mesh is None or not token_axes:
        loss, aux = _on_tokens(static._replace(token_axes=()), hidden, head, labels, mask, target)
    else:
        loss, aux = _over_mesh(static, mesh, hidden, head, labels, mask, target)
    return loss, jax.lax.stop_gradient(aux)


def linear_logprobs(
    hidden: jax.Array,
    head: jax.Array,
    labels: jax.Array,
    *,
    mask: jax.Array | None = None,
    top_k: int = 0,
    kd_temperature: float = 1.0,
    chunk_size: int = 512,
    vocab_size: int | None = None,
    soft_cap: float | None = None,
) -> TokenScores:
    """The labels' log-probabilities and, with `top_k`, what a tape records; not differentiable.

    Args:
      hidden, head, labels, mask, chunk_size, vocab_size, soft_cap: as in `linear_divergence`.
      top_k: how many of the most probable tokens to return.
      kd_temperature: of `top_logprobs` and `log_tail`; `logprobs` are always at temperature 1.

    Raises:
      ConfigError: shapes disagree, or top_k exceeds the vocabulary.
    """
    mask = jnp.ones(labels.shape, jnp.float32) if mask is None else mask
    _check_tokens(hidden, head, labels, mask)
    _, vocab_size = _common_vocabulary([head], vocab_size)
    if top_k > vocab_size:
        raise ConfigError(f"top_k is {top_k}, but the vocabulary has only {vocab_size} tokens")
    flat_hidden, flat_labels, flat_mask = _flatten((hidden, labels, mask), labels.shape)
    num_tokens = flat_labels.shape[0]

    def step(chunk: Chunk, out: TokenScores) -> TokenScores:
        z = finish_logits(head_product(chunk.read(flat_hidden), head), vocab_size, soft_cap)
        log_q = log_distribution(z, kd_temperature)
        top_logprobs, top_ids = jax.lax.top_k(log_q, top_k)
        rows = TokenScores(
            logprobs=-cross_entropy(z, chunk.read(flat_labels)),
            top_ids=top_ids,
            top_logprobs=top_logprobs,
            log_tail=coarsen(log_q, top_ids)[:, -1],
        )
        return jax.tree.map(chunk.write, out, rows)

    zeros = TokenScores(
        logprobs=jnp.zeros((num_tokens,), jnp.float32),
        top_ids=jnp.zeros((num_tokens, top_k), jnp.int32),
        top_logprobs=jnp.zeros((num_tokens, top_k), jnp.float32),
        log_tail=jnp.zeros((num_tokens,), jnp.float32),
    )
    scores = for_each_chunk(step, flat_mask, zeros, chunk_size=chunk_size)
    return jax.tree.map(lambda x: x.reshape(labels.shape + x.shape[1:]), scores)


def _on_tokens(static: _Static, hidden, head, labels, mask, target) -> tuple[jax.Array, Aux]:
    """The loss of the tokens at hand: leading axes flattened, and restored in what is per token."""
    shape = labels.shape
    hidden, labels, mask = _flatten((hidden, labels, mask), shape)
    if target is not None:
        target = target.map_tokens(lambda x: _flatten(x, shape))
    loss, sums, per_token = _loss(static, hidden, head, labels, mask, target)
    return loss, {**sums, "token_losses": per_token.reshape(shape)}


def _over_mesh(static: _Static, mesh, hidden, head, labels, mask, target) -> tuple[jax.Array, Aux]:
    """`_on_tokens` on every device's share of axis 0; sums are added up, heads' gradients too."""
    split, whole = PartitionSpec(static.token_axes), PartitionSpec()
    target_spec = jax.tree.map(lambda _: whole, target)
    if target is not None:
        target_spec = target_spec.map_tokens(lambda _: split)

    def share(*args):
        loss, aux = _on_tokens(static, *args)
        per_token = aux.pop("token_losses")
        return jax.tree.map(lambda x: x[None], (loss, aux)), per_token

    sharded = jax.shard_map(
        share,
        mesh=mesh,
        in_specs=(split, whole, split, split, target_spec),
        out_specs=split,
        axis_names=set(static.token_axes),
        check_vma=False,
    )
    # A shard_map that leaves axes to the compiler needs one: jit, also when called without.
    parts, per_token = jax.jit(sharded)(hidden, head, labels, mask, target)
    loss, sums = jax.tree.map(lambda x: jnp.sum(x, axis=0), parts)
    return loss, {**sums, "token_losses": per_token}


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _loss(static: _Static, hidden, head, labels, mask, target):
    """(loss, sums, token losses) of N tokens; gradients are computed only when asked for."""
    out, _ = _walk(static, hidden, head, labels, mask, target, with_gradients=False)
    return out


def _loss_forward(static: _Static, hidden, head, labels, mask, target):
    return _walk(static, hidden, head, labels, mask, target, with_gradients=True)


def _loss_backward(static: _Static, gradients, cotangents):
    d_loss = cotangents[0]
    d_hidden, d_head = jax.tree.map(lambda g: (g * d_loss).astype(g.dtype), gradients)
    return d_hidden, d_head, None, None, None


_loss.defvjp(_loss_forward, _loss_backward)


def _walk(static: _Static, hidden, head, labels, mask, target, *, with_gradients: bool):
    """One pass over the chunks: the outputs of `_loss`, and (d hidden, d head) of its loss."""

    def step(chunk: Chunk, carry):
        sums, per_token, d_hidden, d_head = carry
        h, label, weight = chunk.read(hidden), chunk.read(labels), chunk.read(mask)
        teacher = None if target is None else target.map_tokens(chunk.read)
        z_t = teacher_logits(teacher, static.vocab_size, static.width)
        top_ids = teacher.top_ids if isinstance(teacher, TapeTarget) else None

        def chunk_loss(product):
            z = finish_logits(product, static.vocab_size, static.soft_cap, static.width)
            losses, measures = token_losses(static.objective, z, label, z_t, top_ids)
            return jnp.sum(weight * losses), (losses, measures)

        product = head_product(h, head)
        if with_gradients:
            run = jax.value_and_grad(chunk_loss, has_aux=True)
            (loss, (losses, measures)), d_product = run(product)
            d_product = d_product.astype(product_dtype)
            d_hidden = chunk.write(d_hidden, head_product(d_product, head.T))
            if static.train_head:
                d_head += head_product(h.T, d_product)
        else:
            loss, (losses, measures) = chunk_loss(product)
        chunk_sums = {name: jnp.sum(weight * measure) for name, measure in measures.items()}
        chunk_sums |= {"loss": loss, "weight": jnp.sum(weight)}
        sums = {name: total + chunk_sums[name] for name, total in sums.items()}
        return sums, chunk.write(per_token, losses), d_hidden, d_head

    # In bfloat16 the gradient's matrix products run at the speed of the forward ones.
    product_dtype = jnp.result_type(hidden, head)
    start = (
        {name: jnp.zeros((), jnp.float32) for name in ("loss", "weight", *MEASURES)},
        jnp.zeros(labels.shape, jnp.float32),
        jnp.zeros_like(hidden) if with_gradients else None,
        jnp.zeros(head.shape, jnp.float32) if with_gradients and static.train_head else None,
    )
    sums, per_token, d_hidden, d_head = for_each_chunk(
        step, mask, start, chunk_size=static.chunk_size, axes=static.token_axes
    )
    loss = sums.pop("loss")
    sums["tokens"] = jnp.sum(mask != 0, dtype=jnp.int32)
    d_head = None if d_head is None else d_head.astype(head.dtype)
    return (loss, sums, per_token), (d_hidden, d_head)


def _flatten(tree, leading: tuple[int, ...]):
    """Arrays `[*leading, ...]` to `[N, ...]`."""
    return jax.tree.map(lambda x: x.reshape((-1, *x.shape[len(leading) :])), tree)


def _check_tokens(hidden, head, labels, mask) -> None:
    if hidden.shape[:-1] != labels.shape or mask.shape != labels.shape:
        raise ConfigError(
            f"hidden {hidden.shape}, labels {labels.shape} and mask {mask.shape} "
            "do not describe the same tokens; expected [..., D], [...] and [...]"
        )
    if head.ndim != 2 or head.shape[0] != hidden.shape[-1]:
        raise ConfigError(
            f"head is {head.shape}; expected [{hidden.shape[-1]}, V] as hidden is {hidden.shape} "
            "(transpose a tied embedding)"
        )


def _check_target(objective: Objective, target: Target, tokens: tuple[int, ...]) -> None:
    if target is None:
        if objective.needs_teacher:
            raise ConfigError(
                f"objective.divergence is {objective.divergence!r}, but no teacher is given; "
                "give a target, or set objective.divergence to 'none'"
            )
        return
    if isinstance(target, TapeTarget):
        shapes = {"top_logprobs": target.top_ids.shape, "log_tail": target.top_ids.shape[:-1]}
        wrong = [name for name, shape in shapes.items() if getattr(target, name).shape != shape]
        if wrong or target.top_ids.shape[:-1] != tokens:
            raise ConfigError(
                f"tape target {jax.tree.map(jnp.shape, target)} does not match tokens {tokens}"
            )
        if objective.needs_teacher and target.kd_temperature != objective.kd_temperature:
            raise ConfigError(
                f"objective.kd_temperature is {objective.kd_temperature:g}, but the tape was "
                f"written at {target.kd_temperature:g} and cannot be reheated; "
                "write it again at that temperature, or use the tape's"
            )
    elif target.hidden.shape[:-1] != tokens or target.hidden.shape[-1] != target.head.shape[0]:
        raise ConfigError(
            f"teacher hidden {target.hidden.shape} and head {target.head.shape} do not match "
            f"tokens {tokens}; expected [..., Dt] and [Dt, V]"
        )


def _common_vocabulary(heads: list[jax.Array], vocab_size: int | None) -> tuple[int, int]:
    """(columns to keep, real tokens) of heads that may be padded differently."""
    widths = [head.shape[1] for head in heads]
    if vocab_size is None and len(set(widths)) > 1:
        raise ConfigError(
            f"student and teacher heads have {widths[0]} and {widths[1]} columns; "
            "if both are padded, say how many tokens are real with vocab_size"
        )
    width = min(widths)
    vocab_size = width if vocab_size is None else vocab_size
    if not 0 < vocab_size <= width:
        raise ConfigError(f"vocab_size is {vocab_size}; expected 1 to {width}, the head's columns")
    return width, vocab_size
