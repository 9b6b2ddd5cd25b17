"""Losses and log-probabilities from hidden states, one chunk of tokens at a time.

Logits exist as `[chunk, V]`, for student and teacher alike, forward and backward; `[N, V]` never
does. A linear head lets the loss's forward pass finish the gradients too: each chunk's logits give
its loss, its `d hidden` and its share of `d head` before the next chunk begins, and the backward
pass only scales them by the incoming cotangent. No logits are made twice, and none outlive it.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from arkjax.distillation.checks import check_target, check_tokens, common_vocabulary
from arkjax.distillation.chunks import Chunk, for_each_chunk
from arkjax.distillation.divergences import coarsen, cross_entropy, log_distribution
from arkjax.distillation.logits import (
    Kept,
    cap,
    head_product,
    shut_out,
    teacher_logits,
    vary_like,
)
from arkjax.distillation.objective import Objective
from arkjax.distillation.targets import HiddenTarget, MixtureTarget, Target
from arkjax.distillation.token_loss import MEASURES, Gradient, token_losses
from arkjax.distillation.vocabulary import Vocabulary
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
    vocab_axis: str | None


class _Labelled(NamedTuple):
    """What the student's tokens are weighed by: `[...]` each."""

    labels: jax.Array
    mask: jax.Array
    label_weights: jax.Array | None


def linear_divergence(
    hidden: jax.Array,
    head: jax.Array,
    labels: jax.Array,
    mask: jax.Array,
    *,
    objective: Objective,
    target: Target = None,
    label_weights: jax.Array | None = None,
    chunk_size: int = 896,
    vocab_size: int | None = None,
    train_head: bool = True,
    soft_cap: float | None = None,
    mesh: jax.sharding.Mesh | None = None,
    token_axes: tuple[str, ...] = (),
    vocab_axis: str | None = None,
) -> tuple[jax.Array, Aux]:
    """Sum over tokens of mask times the objective's loss, with gradients to hidden and head.

    Divide by the global number of valid tokens outside: a sum needs no knowledge of micro-batches.
    All sums are float32 whatever the inputs are. Tokens of zero mask cost next to nothing, get
    exactly zero gradient and may hold anything, NaN included.

    Args:
      hidden: `[..., D]`, the student's last hidden states, each predicting its label.
      head: `[D, V]`; the transposed embedding when they are tied. Products are made in the dtype of
        hidden; the gradient is added up in float32 and comes back in the head's own dtype, so that
        a float32 master is used and trained without a rounded copy of either.
      labels: `[...]` int.
      mask: `[...]` float32 weights; negative ones are fine (a policy gradient is a weighted
        cross-entropy). No gradient flows to it.
      objective: what is minimised.
      target: the teacher, aligned with hidden; None for hard labels only.
      label_weights: `[...]` float32 factors of each token's cross-entropy alone, of any sign; None:
        ones. With minus a policy gradient's coefficients, and the reference policy as target, both
        are one pass. No gradient flows to them.
      chunk_size: tokens whose logits exist at once.
      vocab_size: number of real tokens where heads are padded beyond it; None: the whole head.
      train_head: False (adapters on a frozen head) saves the `[D, V]` float32 accumulator.
      soft_cap: the student's final-logit soft cap, cap * tanh(z / cap).
      mesh, token_axes: with them, leading axis 0 is split over these mesh axes, every device packs
        and chunks its own tokens, and other mesh axes (a vocabulary-sharded head) are left to the
        compiler. Needed under jit whenever tokens are sharded.
      vocab_axis: for callers inside a shard_map of their own: the mesh axis that splits the columns
        of head, and of the target's head, evenly and in order. `head` is then this device's
        `[D, V / n]`, as is its gradient; hidden, labels, mask and target's tokens are the same
        along the axis, as are the loss and d hidden, which the devices add up. Take the gradient
        inside the shard_map, or let it check varying axes (`check_vma`): where it does not, JAX
        divides what comes from outside by the number of devices.

    Returns:
      The loss, float32 `[]`, and aux, which carries no gradient. Sums weighted by mask:
      `cross_entropy` (without label weights), `divergence` (unweighted, as scaled, with gate),
      `gate`, `student_entropy` (nats), `label_top1` (label is the student's argmax),
      `teacher_top1` (teacher's argmax is the student's), `teacher_tail_mass` (outside the tape's
      top k), `weight` (of mask itself); `tokens`, the count
      of non-zero mask; and `token_losses [...]`, each token's loss before mask, 0 where masked.

    Raises:
      ConfigError: objective and target do not fit together, or shapes disagree.
    """
    check_tokens(hidden, head, labels, mask, label_weights)
    check_target(objective, target, labels.shape)
    if vocab_axis is not None and mesh is not None:
        raise ConfigError("give mesh and token_axes, or inside a shard_map vocab_axis, not both")
    heads = [head, *([target.head] if isinstance(target, HiddenTarget | MixtureTarget) else [])]
    shards = 1 if vocab_axis is None else jax.lax.axis_size(vocab_axis)
    width, vocab_size = common_vocabulary(heads, vocab_size, shards)
    if mesh is None:
        token_axes = ()
    static = _Static(
        objective, chunk_size, vocab_size, width, train_head, soft_cap, token_axes, vocab_axis
    )
    labelled = _Labelled(
        labels,
        mask.astype(jnp.float32),
        None if label_weights is None else label_weights.astype(jnp.float32),
    )
    labelled, target = jax.lax.stop_gradient((labelled, target))
    if vocab_axis is not None:
        # A device of another share of tokens has another gradient: both say so before they meet.
        tokens = (hidden, *jax.tree.leaves(labelled))
        hidden, head = vary_like(hidden, *tokens), vary_like(head, *tokens)
    if token_axes:
        loss, aux = _over_mesh(static, mesh, hidden, head, labelled, target)
    else:
        loss, aux = _on_tokens(static, hidden, head, labelled, target)
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
    check_tokens(hidden, head, labels, mask)
    _, vocab_size = common_vocabulary([head], vocab_size)
    if top_k > vocab_size:
        raise ConfigError(f"top_k is {top_k}, but the vocabulary has only {vocab_size} tokens")
    flat_hidden, flat_labels, flat_mask = _flatten((hidden, labels, mask), labels.shape)
    num_tokens = flat_labels.shape[0]

    def step(chunk: Chunk, out: TokenScores) -> TokenScores:
        z = cap(head_product(chunk.read(flat_hidden), head), soft_cap)
        z = shut_out(z, Vocabulary(), vocab_size)
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


def _on_tokens(static: _Static, hidden, head, labelled: _Labelled, target) -> tuple[jax.Array, Aux]:
    """The loss of the tokens at hand: leading axes flattened, and restored in what is per token."""
    shape = labelled.labels.shape
    hidden, labelled = _flatten((hidden, labelled), shape)
    if target is not None:
        target = target.map_tokens(lambda x: _flatten(x, shape))
    loss, sums, per_token = _loss(static, hidden, head, labelled, target)
    return loss, {**sums, "token_losses": per_token.reshape(shape)}


def _over_mesh(
    static: _Static, mesh, hidden, head, labelled: _Labelled, target
) -> tuple[jax.Array, Aux]:
    """`_on_tokens` on every device's share of axis 0; sums are added up, heads' gradients too."""
    split, whole = PartitionSpec(static.token_axes), PartitionSpec()
    labelled_spec = jax.tree.map(lambda _: split, labelled)
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
        in_specs=(split, whole, labelled_spec, target_spec),
        out_specs=split,
        axis_names=set(static.token_axes),
        check_vma=False,
    )
    # A shard_map that leaves axes to the compiler needs one: jit, also when called without.
    parts, per_token = jax.jit(sharded)(hidden, head, labelled, target)
    loss, sums = jax.tree.map(lambda x: jnp.sum(x, axis=0), parts)
    return loss, {**sums, "token_losses": per_token}


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _loss(static: _Static, hidden, head, labelled, target):
    """(loss, sums, token losses) of N tokens; gradients are computed only when asked for."""
    out, _ = _walk(static, hidden, head, labelled, target, with_gradients=False)
    return out


def _loss_forward(static: _Static, hidden, head, labelled, target):
    return _walk(static, hidden, head, labelled, target, with_gradients=True)


def _loss_backward(static: _Static, gradients, cotangents):
    d_loss = cotangents[0]
    d_hidden, d_head = jax.tree.map(lambda g: (g * d_loss).astype(g.dtype), gradients)
    return d_hidden, d_head, None, None


_loss.defvjp(_loss_forward, _loss_backward)


def _walk(static: _Static, hidden, head, labelled: _Labelled, target, *, with_gradients: bool):
    """One pass over the chunks: the outputs of `_loss`, and (d hidden, d head) of its loss."""
    vocabulary = Vocabulary(static.vocab_axis)

    def finish(z: jax.Array) -> jax.Array:
        return shut_out(z[:, : static.width], vocabulary, static.vocab_size)

    def step(chunk: Chunk, carry):
        sums, per_token, d_hidden, d_head = carry
        h = chunk.read(hidden)
        label, weight, label_weight = jax.tree.map(chunk.read, labelled)
        teacher = _open_gates(None if target is None else target.map_tokens(chunk.read))

        def in_chunk(head: jax.Array) -> jax.Array:
            return head if head.dtype == h.dtype else head * chunk.one(head.dtype)

        def student(h: jax.Array, head: jax.Array) -> jax.Array:
            z = cap(head_product(h, in_chunk(head)), static.soft_cap)
            return z[:, : static.width]

        kept = Kept.of(student, h, head, h.dtype)
        found = token_losses(
            static.objective,
            kept,
            label,
            teacher,
            _teacher_kept(static, teacher, vocabulary, finish),
            label_weights=label_weight,
            vocabulary=vocabulary,
            finish=finish,
        )
        if with_gradients:
            d = _on_products(static, found.gradient(weight), kept, vocabulary, hidden.dtype)
            d = jnp.pad(d, ((0, 0), (0, head.shape[1] - static.width)))
            (d_h,) = vocabulary.together(head_product(d, in_chunk(head).T))
            d_hidden = chunk.write(d_hidden, d_h)
            if static.train_head:
                d_head += head_product(h.T, d)
        chunk_sums = {name: jnp.sum(weight * x) for name, x in found.measures.items()}
        chunk_sums |= {"loss": jnp.sum(weight * found.losses), "weight": jnp.sum(weight)}
        sums = {name: total + chunk_sums[name] for name, total in sums.items()}
        return sums, chunk.write(per_token, found.losses), d_hidden, d_head

    per_token = jnp.zeros(labelled.labels.shape, jnp.float32)
    d_hidden = jnp.zeros(hidden.shape, hidden.dtype)
    start = (
        {name: jnp.zeros((), jnp.float32) for name in ("loss", "weight", *MEASURES)},
        per_token,
        d_hidden if with_gradients else None,
        jnp.zeros(head.shape, jnp.float32) if with_gradients and static.train_head else None,
    )
    if static.vocab_axis is not None:
        of_tokens = start[:3]
        start = (
            *jax.tree.map(lambda x: vary_like(x, hidden), of_tokens),
            None if start[3] is None else vary_like(start[3], head),
        )
    sums, per_token, d_hidden, d_head = for_each_chunk(
        step, labelled.mask, start, chunk_size=static.chunk_size, axes=static.token_axes
    )
    loss = sums.pop("loss")
    sums["tokens"] = jnp.sum(labelled.mask != 0, dtype=jnp.int32)
    d_head = None if d_head is None else d_head.astype(head.dtype)
    return (loss, sums, per_token), (d_hidden, d_head)


def _teacher_kept(static: _Static, teacher: Target, vocabulary: Vocabulary, finish) -> Kept | None:
    """The teacher's logits over the temperature; None of targets without hidden states."""
    if not isinstance(teacher, HiddenTarget | MixtureTarget):
        return None

    def product(tokens: dict[str, jax.Array], head: jax.Array) -> jax.Array:
        columns = dataclasses.replace(teacher, **tokens, head=head)
        return teacher_logits(columns, static.objective.kd_temperature, vocabulary, finish)

    names = ("hidden", "weights") if isinstance(teacher, MixtureTarget) else ("hidden",)
    tokens = {name: getattr(teacher, name) for name in names}
    return Kept.of(product, tokens, teacher.head, teacher.hidden.dtype)


def _on_products(
    static: _Static, gradient: Gradient, kept: Kept, vocabulary: Vocabulary, dtype
) -> jax.Array:
    """The gradient on capped logits `[C, V]` as one on the head's products, in dtype."""

    def before_the_cap(d: jax.Array, capped: jax.Array) -> jax.Array:
        if static.soft_cap is None:
            return d
        return d * (1.0 - jnp.square(capped / static.soft_cap))

    # In bfloat16 the gradient's matrix products run at the speed of the forward ones. Made once:
    # both products would otherwise compute it anew for each of their tiles.
    d = jax.lax.optimization_barrier(
        before_the_cap(gradient.everywhere, kept.logits()).astype(dtype)
    )
    if gradient.ids is None:
        return d
    there = before_the_cap(gradient.there, kept.at(gradient.ids, vocabulary))
    return vocabulary.put(d, gradient.ids, there)


def _open_gates(target: Target) -> Target:
    """The target with zeros wherever its gate is shut, which may hold anything, NaN included."""
    if target is None or target.gate is None:
        return target

    def open_only(x: jax.Array) -> jax.Array:
        opened = (target.gate != 0).reshape(target.gate.shape + (1,) * (x.ndim - 1))
        return jnp.where(opened, x, jnp.zeros((), x.dtype))

    return target.map_tokens(open_only)


def _flatten(tree, leading: tuple[int, ...]):
    """Arrays `[*leading, ...]` to `[N, ...]`."""
    return jax.tree.map(lambda x: x.reshape((-1, *x.shape[len(leading) :])), tree)
