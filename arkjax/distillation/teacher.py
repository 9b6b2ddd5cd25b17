"""The teacher under other prompts: the student's answers, read as continuations of a debate.

A team's agents are one set of weights under different prompts. To hold the student, who sees only
the question, against agents who saw the debate, the same target tokens are put behind each agent's
prompt, packed into rows of their own, and the last (post-norm) hidden states are gathered back to
the student's positions. The weighted mean over an example's prompts is the geometric mixture of
these agents: sum_k w_k log p_k = log softmax(W . sum_k w_k h_k) + const, one head product for any
number of agents.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from arkjax.distillation.rows import Rows, pack
from arkjax.distillation.targets import HiddenTarget
from arkjax.errors import ConfigError, DataError
from arkjax.synthesis.examples import Example

# tokens, positions, segment_ids [Bt, Tt] int32 -> last hidden states [Bt, Tt, D].
HiddenFn = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


class TeacherBatch(NamedTuple):
    """Teacher rows for one batch of student rows, and where each student position looks.

    `tokens, segment_ids, positions [Bt, Tt]` int32 are packed prompts and targets. For context k,
    `sources [K, B, T]` int32 index the flattened `[Bt * Tt]` teacher positions and `weights
    [K, B, T]` float32 their share: over K they sum to one where the student has a target to
    predict, elsewhere they are zero.
    """

    tokens: np.ndarray
    segment_ids: np.ndarray
    positions: np.ndarray
    sources: np.ndarray
    weights: np.ndarray


def teacher_batch(
    rows: Rows,
    indices: np.ndarray,
    prompts: Sequence[Sequence[Sequence[int]]],
    row_length: int,
    *,
    weights: Sequence[Sequence[float]] | None = None,
    num_rows: int | None = None,
    multiple_of: int = 1,
    num_contexts: int | None = None,
) -> TeacherBatch:
    """Packs the targets of student rows `indices [B]` behind their teacher prompts.

    Args:
      rows: the student's rows.
      indices: a batch of them; an index may repeat.
      prompts: for each example of rows, one or more teacher prompts (token ids), such as question,
        whole transcript and a role's header; examples may have different numbers of them.
      row_length: Tt, enough for the longest prompt with its target.
      weights: for each example one weight a prompt, scaled to sum to one; None: equal ones.
      num_rows: Bt; None: the smallest multiple_of * 2^n that holds them, so that a jitted hidden_fn
        meets few shapes.
      multiple_of: of Bt, when the rows are split over that many devices.
      num_contexts: K; None: the most prompts that any example of rows has.

    Raises:
      DataError: an example has no prompt, an empty one, or one too long for row_length; or num_rows
        are too few.
    """
    if len(prompts) != len(rows.placements):
        raise DataError(f"{len(prompts)} sets of teacher prompts, {len(rows.placements)} examples")
    indices = np.asarray(indices)
    # In order of first appearance, each example once although its row may repeat.
    chosen = list(dict.fromkeys(rows.example_ids[indices].ravel().tolist()))
    chosen = [example for example in chosen if example >= 0]
    packed = pack(_contexts(rows, chosen, prompts), row_length)
    num_contexts = max(map(len, prompts)) if num_contexts is None else num_contexts
    if num_rows is None:
        num_rows = multiple_of * 2 ** math.ceil(math.log2(max(1, packed.num_rows / multiple_of)))
    if packed.num_rows > num_rows:
        raise DataError(
            f"the batch needs {packed.num_rows} teacher rows of {row_length} tokens, but only "
            f"{num_rows} are allowed; raise the number or their length, or shrink the batch"
        )

    # First the map over whole student rows, then the batch's choice of them.
    places = {row: at for at, row in enumerate(dict.fromkeys(indices.tolist()))}
    shape = (num_contexts, len(places), rows.row_length)
    sources, shares = np.zeros(shape, np.int32), np.zeros(shape, np.float32)
    context = iter(packed.placements)
    for example in chosen:
        at = rows.placements[example]
        predicting = slice(at.target_start - 1, at.target_start + at.target_length - 1)
        given = None if weights is None else weights[example]
        for k, share in enumerate(_shares(given, len(prompts[example]), num_contexts, example)):
            there = next(context)
            first = there.row * row_length + there.target_start - 1
            sources[k, places[at.row], predicting] = np.arange(first, first + at.target_length)
            shares[k, places[at.row], predicting] = share

    repeat = [places[row] for row in indices.tolist()]
    empty = ((0, num_rows - packed.num_rows), (0, 0))
    return TeacherBatch(
        tokens=np.pad(packed.tokens, empty),
        segment_ids=np.pad(packed.segment_ids, empty),
        positions=np.pad(packed.positions, empty),
        sources=sources[:, repeat],
        weights=shares[:, repeat],
    )


def gather_hidden(teacher_hidden: jax.Array, contexts: TeacherBatch) -> jax.Array:
    """Weighted mean over contexts, aligned with the student: `[Bt, Tt, D]` to `[B, T, D]`.

    Added up in float32, returned in the teacher's dtype; zero where there is nothing to predict.
    """
    flat = teacher_hidden.reshape((-1, teacher_hidden.shape[-1]))
    mean = jnp.zeros((*contexts.sources.shape[1:], flat.shape[-1]), jnp.float32)
    # One context at a time: `[K, B, T, D]` never exists.
    for source, weight in zip(contexts.sources, contexts.weights, strict=True):
        weight = jnp.asarray(weight)[..., None]
        # Positions without a share read position 0, which may hold anything.
        mean += jnp.where(weight != 0, weight * flat[source].astype(jnp.float32), 0.0)
    return mean.astype(teacher_hidden.dtype)


def mixture_target(
    hidden_fn: HiddenFn,
    contexts: TeacherBatch,
    head: jax.Array,
    *,
    soft_cap: float | None = None,
) -> HiddenTarget:
    """The geometric mixture of an example's contexts, as a target aligned with the student's batch.

    Raises:
      ConfigError: several contexts under a soft-capped head: the mean hidden state is then not
        the mixture.
    """
    if soft_cap is not None and contexts.sources.shape[0] > 1:
        raise ConfigError(
            "the teacher soft-caps its logits, so its contexts cannot be mixed in hidden states; "
            "give one teacher prompt an example"
        )
    hidden = hidden_fn(contexts.tokens, contexts.positions, contexts.segment_ids)
    return HiddenTarget(gather_hidden(hidden, contexts), head, soft_cap)


def _contexts(
    rows: Rows, chosen: Sequence[int], prompts: Sequence[Sequence[Sequence[int]]]
) -> list[Example]:
    contexts = []
    for index in chosen:
        example = rows.example(index)
        if not prompts[index]:
            problem = example.provenance.get("problem_id", "unknown")
            raise DataError(f"example {index} (problem {problem}) has no teacher prompt")
        for prompt in prompts[index]:
            contexts.append(
                Example(tuple(prompt), example.target_ids, example.weight, example.provenance)
            )
    return contexts


def _shares(
    weights: Sequence[float] | None, count: int, num_contexts: int, example: int
) -> np.ndarray:
    weights = np.ones(count) if weights is None else np.asarray(weights, np.float64)
    if len(weights) != count or count > num_contexts or not (weights >= 0).all():
        raise DataError(
            f"example {example} has {count} teacher prompts and weights {weights.tolist()}; "
            f"expected as many weights, none negative, and at most {num_contexts} prompts"
        )
    if not weights.sum() > 0:
        raise DataError(f"example {example} has teacher weights that are all zero")
    return weights / weights.sum()
