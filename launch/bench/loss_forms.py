"""The same losses in three forms, for `bench_loss`: chunked, dense by hand, and dense by autodiff.

All take hidden states `[T, D]`, a head `[D, V]`, the teacher's `[T, Dt]` and `[Dt, V]`, labels and
a mask that holds 1 / T already, and return the mean loss with the gradients of hidden and head.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from arkjax.distillation.chunked import linear_divergence
from arkjax.distillation.objective import Objective
from arkjax.distillation.targets import Target

BETA = 0.5


class Inputs(NamedTuple):
    """What a loss is made of; target is a `HiddenTarget`, or for the chunked form a tape."""

    hidden: jax.Array
    head: jax.Array
    labels: jax.Array
    mask: jax.Array
    target: Target


def chunked(name: str, chunk_size: int) -> Callable:
    """ArkJAX's loss: one divergence, no cross-entropy; what it measures beside is returned too."""

    def step(inputs: Inputs):
        def loss(hidden, head):
            return linear_divergence(
                hidden,
                head,
                inputs.labels,
                inputs.mask,
                objective=Objective(0.0, name, beta=BETA),
                target=inputs.target,
                chunk_size=chunk_size,
            )

        return jax.value_and_grad(loss, (0, 1), has_aux=True)(inputs.hidden, inputs.head)

    return step


def dense(name: str) -> Callable:
    """All logits at once, losses and gradients written out by hand; nothing is measured beside."""

    def step(inputs: Inputs):
        z_s, z_t = products(inputs)
        log_q, log_p = jax.nn.log_softmax(z_s), jax.nn.log_softmax(z_t)
        q, p = jnp.exp(log_q), jnp.exp(log_p)
        if name == "forward_kl":
            losses = jnp.sum(p * (log_p - log_q), axis=-1)
            d = q - p
        elif name == "reverse_kl":
            r = log_q - log_p
            losses = jnp.sum(q * r, axis=-1)
            d = q * (r - losses[:, None])
        else:
            log_m = jnp.log(jnp.maximum(BETA * p + (1 - BETA) * q, 1.2e-38))
            r = log_q - log_m
            of_student = jnp.sum(q * r, axis=-1)
            of_teacher = jnp.sum(p * (log_p - log_m), axis=-1)
            losses = BETA * of_teacher + (1 - BETA) * of_student
            d = (1 - BETA) * q * (r - of_student[:, None])
        d = (inputs.mask[:, None] * d).astype(inputs.hidden.dtype)
        head = inputs.head.astype(inputs.hidden.dtype)
        d_hidden = jnp.matmul(d, head.T, preferred_element_type=jnp.float32)
        d_head = jnp.matmul(inputs.hidden.T, d, preferred_element_type=jnp.float32)
        gradients = d_hidden.astype(inputs.hidden.dtype), d_head.astype(inputs.head.dtype)
        return jnp.sum(inputs.mask * losses), gradients

    return step


def published(inputs: Inputs):
    """The forward KL as Tunix publishes it: float32 log-softmaxes of all logits, one-hot labels.

    Its loss is the KL plus a cross-entropy on one-hot labels (here of weight 0.5 each), with
    the teacher's cross-entropy as a metric; gradients are autodiff's.
    """

    def loss(hidden, head):
        z_s, z_t = products(inputs._replace(hidden=hidden, head=head))
        log_q, p = jax.nn.log_softmax(z_s), jax.nn.softmax(z_t)
        log_p = jnp.log(jnp.where(p > 0, p, 1.0))
        kl = jnp.sum(p * (log_p - log_q), axis=-1)
        one_hot = jax.nn.one_hot(inputs.labels, z_s.shape[-1], dtype=jnp.float32)
        of_student = -jnp.sum(one_hot * jax.nn.log_softmax(z_s), axis=-1)
        of_teacher = -jnp.sum(one_hot * jax.nn.log_softmax(z_t), axis=-1)
        total = jnp.sum(inputs.mask * (0.5 * kl + 0.5 * of_student))
        return total, jnp.sum(inputs.mask * of_teacher)

    return jax.value_and_grad(loss, (0, 1), has_aux=True)(inputs.hidden, inputs.head)


def products(inputs: Inputs) -> tuple[jax.Array, jax.Array]:
    """Both sides' logits `[T, V]` float32."""

    def logits(hidden, head):
        return jnp.matmul(hidden, head.astype(hidden.dtype), preferred_element_type=jnp.float32)

    teacher = jax.lax.stop_gradient(inputs.target)
    return logits(inputs.hidden, inputs.head), logits(teacher.hidden, teacher.head)
