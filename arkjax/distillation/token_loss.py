"""The objective on a few tokens whose logits are at hand: what every chunk computes.

Losses and their gradients on the logits are in closed form (`divergences`), so that a chunk's
logits are read as few times as the sums over V demand: once for their maxima, once for their
log-sum-exps, once for the summands, once for the gradient.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from arkjax.distillation.divergences import scale, summands
from arkjax.distillation.logits import Kept
from arkjax.distillation.objective import Objective
from arkjax.distillation.targets import SampledTarget, TapeTarget, Target
from arkjax.distillation.vocabulary import LOG_ZERO, Softmax, Vocabulary

# What is measured on every token beside its loss; `chunked.linear_divergence` explains each.
MEASURES = (
    "cross_entropy",
    "divergence",
    "student_entropy",
    "label_top1",
    "teacher_top1",
    "teacher_tail_mass",
    "gate",
)


class Gradient(NamedTuple):
    """A gradient on logits `[C, V]`: the same formula `everywhere`, but at ids `[C, k]` `there`.

    Apart, because what stands at a few ids is written into an array that is in memory already, in
    the products' dtype: with it the formula's own array would be made, in float32, as well.
    """

    everywhere: jax.Array
    ids: jax.Array | None = None
    there: jax.Array | None = None


class TokenLosses(NamedTuple):
    """What a chunk gives: `losses [C]`, `MEASURES` of `[C]` each, and the gradient's recipe.

    `gradient(weights [C])` is the gradient of the weighted sum of losses on the student's logits.
    """

    losses: jax.Array
    measures: dict[str, jax.Array]
    gradient: Callable[[jax.Array], Gradient]


class _Divergence(NamedTuple):
    """D of each token `[C]` before scale and gate, and its gradient, from a factor `[C]`."""

    values: jax.Array
    gradient: Callable[[jax.Array], Gradient]


def token_losses(
    objective: Objective,
    kept: Kept,
    labels: jax.Array,
    target: Target = None,
    teacher: Kept | None = None,
    *,
    label_weights: jax.Array | None = None,
    vocabulary: Vocabulary = Vocabulary(),  # noqa: B008  a constant
    finish: Callable[[jax.Array], jax.Array] = lambda z: z,
) -> TokenLosses:
    """Each token's loss, what is measured beside, and the gradient, without autodiff.

    Args:
      objective: what is minimised.
      kept: the student's logits.
      labels: `[C]` int, ids of the whole vocabulary.
      target: the teacher of these tokens.
      teacher: its logits over the temperature, of targets that have any.
      label_weights: `[C]` factors of their cross-entropies; None: ones.
      vocabulary: which columns are here.
      finish: shuts padded columns out of float32 logits.
    """
    kappa = objective.kd_temperature
    z = finish(kept.logits())
    z_t = None if teacher is None else finish(teacher.logits())
    # All maxima first, all sums next: a sharded vocabulary exchanges once for each.
    tops = vocabulary.tops(*([z] if z_t is None else [z, z_t]))
    top = tops[0]
    label_here = vocabulary.one_hot(labels, z)
    centred = z - top[:, None]
    e = jnp.exp(centred)
    sums = [
        jnp.sum(e, axis=-1),
        jnp.sum(e * centred, axis=-1),
        jnp.sum(jnp.where(label_here, centred, 0.0), axis=-1),
    ]
    warm = kappa != 1.0 and objective.needs_teacher
    if warm:
        sums.append(jnp.sum(jnp.exp(centred / kappa), axis=-1))
    if z_t is not None:
        sums.append(jnp.sum(jnp.exp(z_t - tops[1][:, None]), axis=-1))
    total, weighted, label_z, *others = vocabulary.together(*sums)
    softmax = Softmax(top, jnp.log(total))
    warm_softmax = Softmax(top / kappa, jnp.log(others.pop(0))) if warm else softmax

    measures = dict.fromkeys(MEASURES, jnp.zeros(labels.shape, jnp.float32))
    # A label of probability 0 (a padded column) would have an infinite loss, as -inf logits do.
    measures["cross_entropy"] = softmax.log_sum - label_z
    measures["student_entropy"] = softmax.log_sum - weighted / total
    measures["label_top1"] = (label_z >= 0.0).astype(jnp.float32)
    factor = objective.cross_entropy * (1.0 if label_weights is None else label_weights)
    losses = factor * measures["cross_entropy"]
    if z_t is not None:
        favourite = jnp.where(z_t == tops[1][:, None], z, LOG_ZERO)
        measures["teacher_top1"] = (vocabulary.tops(favourite)[0] >= top).astype(jnp.float32)
    elif target is not None:
        measures |= _sparse_measures(target, kept, top, vocabulary)

    found = None
    if objective.needs_teacher:
        if z_t is not None:
            softmaxes = (warm_softmax, Softmax(tops[1], jnp.log(others[0])))
            found = _dense(objective, kept, teacher, softmaxes, vocabulary, finish)
        elif isinstance(target, TapeTarget):
            found = _coarse(objective, kept, target, vocabulary, finish)
        else:
            found = _drawn(objective, kept, target, warm_softmax, vocabulary, finish)
        gate = jnp.ones_like(losses) if target.gate is None else target.gate
        values = found.values * scale(objective)
        below = jnp.ones_like(values)
        if objective.token_clip is not None:
            below = (values <= objective.token_clip).astype(jnp.float32)
            values = jnp.minimum(values, objective.token_clip)
        measures["gate"] = gate
        measures["divergence"] = gate * values
        losses += objective.weight * measures["divergence"]
        slope = objective.weight * gate * below * (scale(objective) / kappa)

    def of_labels(z: jax.Array, label_here: jax.Array, weights: jax.Array) -> jax.Array:
        q = jnp.exp(softmax.log_distribution(z))
        return (weights * factor)[:, None] * (q - label_here)

    def gradient(weights: jax.Array) -> Gradient:
        everywhere, ids, there = Gradient(jnp.zeros(z.shape, jnp.float32))
        if found is not None:
            everywhere, ids, there = found.gradient(weights * slope)
        if objective.cross_entropy:
            z_again = finish(kept.read_again(total).logits())
            everywhere = everywhere + of_labels(z_again, label_here, weights)
            if ids is not None:
                z_there = kept.at(ids, vocabulary)
                there = there + of_labels(z_there, ids == labels[:, None], weights)
        return Gradient(everywhere, ids, there)

    return TokenLosses(losses, measures, gradient)


def _dense(
    objective: Objective,
    kept: Kept,
    teacher: Kept,
    softmaxes: tuple[Softmax, Softmax],
    vocabulary: Vocabulary,
    finish: Callable[[jax.Array], jax.Array],
) -> _Divergence:
    """Against a teacher's whole distribution; its logits are at the temperature already."""

    def summed_up(kept: Kept, teacher: Kept) -> tuple[jax.Array, ...]:
        z, z_t = finish(kept.logits()), finish(teacher.logits())
        log_q = softmaxes[0].log_distribution(_over(z, objective.kd_temperature))
        return log_q, *summands(objective, softmaxes[1].log_distribution(z_t), log_q, vocabulary)

    log_q, f, u = summed_up(kept, teacher)
    values, total = vocabulary.sums(f, u)

    def gradient(factor: jax.Array) -> Gradient:
        log_share, flow = log_q, u
        # One term searches for its flow, which takes longer than to read it.
        if all(term.name != "adaptive_kl" for term in objective.terms):
            log_share, _, flow = summed_up(kept.read_again(total), teacher.read_again(total))
        return Gradient(factor[:, None] * (flow - jnp.exp(log_share) * total[:, None]))

    return _Divergence(values, gradient)


def _coarse(
    objective: Objective,
    kept: Kept,
    target: TapeTarget,
    vocabulary: Vocabulary,
    finish: Callable[[jax.Array], jax.Array],
) -> _Divergence:
    """Against a tape: the same sums over k + 1 buckets, and a bucket's gradient over its tokens."""
    kappa, ids = objective.kd_temperature, target.top_ids
    nothing = jnp.asarray(max(LOG_ZERO, float(jnp.finfo(kept.values.dtype).min)), kept.values.dtype)
    others = vocabulary.put(kept.values, ids, jnp.full(ids.shape, nothing))
    rest = _over(jnp.where(others == nothing, LOG_ZERO, finish(kept.restored(others))), kappa)
    tail = Softmax.of(vocabulary, rest)
    z_tail = jnp.maximum(tail.top + tail.log_sum, LOG_ZERO)
    z_top = _over(kept.at(ids, vocabulary), kappa)
    buckets = jnp.concatenate([z_top, z_tail[:, None]], axis=-1)
    taped = [target.top_logprobs, target.log_tail[:, None]]
    taped = jnp.concatenate([part.astype(jnp.float32) for part in taped], axis=-1)
    # Every device has all buckets, so these sums need no exchange.
    here = Vocabulary()
    taped = jnp.maximum(taped, LOG_ZERO)
    log_p = Softmax.of(here, taped).log_distribution(taped)
    log_q = Softmax.of(here, buckets).log_distribution(buckets)
    f, u = summands(objective, log_p, log_q, here)
    values, total = here.sums(f, u)

    def gradient(factor: jax.Array) -> Gradient:
        d = factor[:, None] * (u - jnp.exp(log_q) * total[:, None])
        # Within the tail a token takes part by its share of it; a padded column by none.
        share = jnp.where(rest > LOG_ZERO / 2, jnp.exp(tail.log_distribution(rest)), 0.0)
        return Gradient(d[:, -1:] * share, ids, d[:, :-1])

    return _Divergence(values, gradient)


def _drawn(
    objective: Objective,
    kept: Kept,
    target: SampledTarget,
    student: Softmax,
    vocabulary: Vocabulary,
    finish: Callable[[jax.Array], jax.Array],
) -> _Divergence:
    """Forward KL from the distribution of the draws: sum_i w_i (log w_i - log q_i)."""
    kappa, w = objective.kd_temperature, target.weights.astype(jnp.float32)
    used = w > 0
    log_q = student.log_distribution(_over(kept.at(target.ids, vocabulary), kappa))
    log_w = jnp.log(jnp.where(used, w, 1.0))
    values = jnp.sum(jnp.where(used, w * (log_w - log_q), 0.0), axis=-1)
    mass = jnp.sum(w, axis=-1)

    def gradient(factor: jax.Array) -> Gradient:
        q = jnp.exp(student.log_distribution(_over(finish(kept.logits()), kappa)))
        factor = factor[:, None]
        there = factor * (mass[:, None] * jnp.exp(log_q) - w)
        # An unused slot's id may be another's: it stands for no column.
        return Gradient(factor * mass[:, None] * q, jnp.where(used, target.ids, -1), there)

    return _Divergence(values, gradient)


def _sparse_measures(
    target: TapeTarget | SampledTarget, kept: Kept, top: jax.Array, vocabulary: Vocabulary
) -> dict[str, jax.Array]:
    """Of a tape, whether its first token is the student's, and its tail; of draws, nothing."""
    if not isinstance(target, TapeTarget):
        return {}
    p = target.top_logprobs
    favourite = p == jnp.max(p, axis=-1, keepdims=True)
    z_top = jnp.where(favourite, kept.at(target.top_ids, vocabulary), LOG_ZERO)
    return {
        "teacher_top1": (jnp.max(z_top, axis=-1) >= top).astype(jnp.float32),
        "teacher_tail_mass": jnp.exp(target.log_tail.astype(jnp.float32)),
    }


def _over(z: jax.Array, kappa: float) -> jax.Array:
    return z if kappa == 1.0 else z / kappa
