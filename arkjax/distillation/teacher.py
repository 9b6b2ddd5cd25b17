"""The teacher under other prompts: the student's answers, read as continuations of a debate.

A team's agents are one set of weights under different prompts. To hold the student, who sees only
the question, against agents who saw the debate, the same target tokens are put behind each agent's
prompt, packed into rows of their own, and the last (post-norm) hidden states are gathered back to
the student's positions. What prompts and targets have in common is read once. The weighted mean
over an example's prompts is the geometric mixture of these agents: sum_k w_k log p_k =
log softmax(W . sum_k w_k h_k) + const, one head product for any number of agents.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from arkjax.distillation.rows import Rows
from arkjax.distillation.shared_rows import pack_shared
from arkjax.distillation.targets import HiddenTarget, Mixture, MixtureTarget
from arkjax.errors import DataError

T = TypeVar("T")
PerExample = Sequence[T] | Mapping[int, T]
"""One for each example of the rows, or by its number for those of a batch."""

# tokens, positions, segment_ids, parents [Bt, Tt] int32 -> last hidden states [Bt, Tt, D]; parents
# are None where nothing is shared.
HiddenFn = Callable[[jax.Array, jax.Array, jax.Array, jax.Array | None], jax.Array]


class TeacherBatch(NamedTuple):
    """Teacher rows for one batch of student rows, and where each student position looks.

    `tokens, segment_ids, positions, parents [Bt, Tt]` int32 are packed prompts and targets;
    `parents` (see `Transformer.forward`) is None where nothing is shared. For context k, `sources
    [K, B, T]` int32 index the flattened `[Bt * Tt]` teacher positions and `weights [K, B, T]`
    float32 their share: over K they sum to one where the student has a target to predict and its
    example's gate is not zero, elsewhere they are zero. `gate [B, T]` float32 is the example's gate
    where there is a target to predict, elsewhere zero. Of the teacher rows `used` tokens are real;
    without sharing they would be `unshared`.
    """

    tokens: np.ndarray
    segment_ids: np.ndarray
    positions: np.ndarray
    parents: np.ndarray | None
    sources: np.ndarray
    weights: np.ndarray
    gate: np.ndarray
    used: int
    unshared: int


def teacher_batch(
    rows: Rows,
    indices: np.ndarray,
    prompts: PerExample[Sequence[Sequence[int]]],
    row_length: int,
    *,
    weights: PerExample[Sequence[float]] | None = None,
    gates: PerExample[float] | None = None,
    num_rows: int | None = None,
    multiple_of: int = 1,
    num_contexts: int | None = None,
    share: bool = True,
) -> TeacherBatch:
    """Packs the targets of student rows `indices [B]` behind their teacher prompts.

    Args:
      rows: the student's rows.
      indices: a batch of them; an index may repeat, and -1 is a row without anything in it.
      prompts: for each example one or more teacher prompts (token ids), such as question, whole
        transcript and a role's header; examples may have different numbers of them.
      row_length: Tt, enough for the longest prompt with its target.
      weights: for each example one weight a prompt, scaled to sum to one; None: equal ones.
      gates: for each example; the teacher does not read those of gate 0. None: all open.
      num_rows: Bt; None: the smallest multiple_of * 2^n that holds them, so that a jitted hidden_fn
        meets few shapes.
      multiple_of: of Bt, when the rows are split over that many devices.
      num_contexts: K; None: the most prompts that any of the examples has.
      share: whether what prompts and targets begin with is read once for all.

    Raises:
      DataError: an example has no prompt, an empty one, or one too long for row_length; or num_rows
        are too few.
    """
    for name, given in (("prompts", prompts), ("weights", weights), ("gates", gates)):
        if isinstance(given, Sequence) and len(given) != len(rows.placements):
            raise DataError(f"{len(given)} sets of teacher {name}, {len(rows.placements)} examples")
    indices = np.asarray(indices)
    # In order of first appearance, each example once although its row may repeat.
    chosen = list(dict.fromkeys(rows.example_ids[indices[indices >= 0]].ravel().tolist()))
    chosen = [example for example in chosen if example >= 0]
    read = [example for example in chosen if gates is None or gates[example] > 0]
    sequences = list(_sequences(rows, read, prompts, row_length))
    packed = pack_shared(sequences, row_length, share=share)
    if num_contexts is None:
        every = prompts.values() if isinstance(prompts, Mapping) else prompts
        num_contexts = max(map(len, every), default=1)
    needed = len(packed.tokens)
    if num_rows is None:
        num_rows = multiple_of * 2 ** math.ceil(math.log2(max(1, needed / multiple_of)))
    if needed > num_rows:
        raise DataError(
            f"the batch needs {needed} teacher rows of {row_length} tokens, but only "
            f"{num_rows} are allowed; raise the number or their length, or shrink the batch"
        )

    # First the map over whole student rows, then the batch's choice of them.
    places = {row: at for at, row in enumerate(dict.fromkeys(indices.tolist()))}
    shape = (num_contexts, len(places), rows.row_length)
    sources, shares = np.zeros(shape, np.int32), np.zeros(shape, np.float32)
    gate = np.zeros(shape[1:], np.float32)
    where = iter(packed.places)
    for example in chosen:
        at = rows.placements[example]
        predicting = slice(at.target_start - 1, at.target_start + at.target_length - 1)
        gate[places[at.row], predicting] = 1.0 if gates is None else gates[example]
    for example in read:
        at = rows.placements[example]
        predicting = slice(at.target_start - 1, at.target_start + at.target_length - 1)
        given = None if weights is None else weights[example]
        for k, share_k in enumerate(_shares(given, len(prompts[example]), num_contexts, example)):
            sources[k, places[at.row], predicting] = next(where)[-at.target_length :]
            shares[k, places[at.row], predicting] = share_k

    repeat = [places[row] for row in indices.tolist()]
    empty = ((0, num_rows - needed), (0, 0))
    return TeacherBatch(
        tokens=np.pad(packed.tokens, empty),
        segment_ids=np.pad(packed.segment_ids, empty),
        positions=np.pad(packed.positions, empty),
        parents=np.pad(packed.parents, empty) if packed.parents.any() else None,
        sources=sources[:, repeat],
        weights=shares[:, repeat],
        gate=gate[repeat],
        used=int((packed.segment_ids > 0).sum()),
        unshared=sum(map(len, sequences)),
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
    mixture: Mixture = "geometric",
    gate: Callable[[jax.Array], jax.Array] | None = None,
) -> HiddenTarget | MixtureTarget:
    """The mixture of an example's contexts, as a target aligned with the student's batch.

    Args:
      hidden_fn: the teacher.
      contexts: what it reads.
      head: `[D, V]`, the teacher's.
      soft_cap: of its logits.
      mixture: "geometric" is a mean hidden state and costs one head, unless logits are soft-capped;
        else, and if "arithmetic", the target holds the K hidden states of each token.
      gate: maps the teacher's hidden states `[Bt, Tt, D]` to the target's gate `[B, T]`.
    """
    hidden = hidden_fn(contexts.tokens, contexts.positions, contexts.segment_ids, contexts.parents)
    gates = None if gate is None else gate(hidden)
    if contexts.sources.shape[0] == 1 or (mixture == "geometric" and soft_cap is None):
        return HiddenTarget(gather_hidden(hidden, contexts), head, soft_cap, gate=gates)
    flat = hidden.reshape((-1, hidden.shape[-1]))
    weights = jnp.moveaxis(jnp.asarray(contexts.weights), 0, -1)
    # Positions without a share read position 0, which may hold anything.
    of_contexts = jnp.where(
        weights[..., None] != 0, flat[jnp.moveaxis(jnp.asarray(contexts.sources), 0, -1)], 0
    )
    return MixtureTarget(of_contexts, weights, head, soft_cap, mixture, gate=gates)


def _sequences(
    rows: Rows,
    chosen: Sequence[int],
    prompts: PerExample[Sequence[Sequence[int]]],
    row_length: int,
) -> Iterator[tuple[int, ...]]:
    """Prompt and target of each context; nothing has to follow the target's last token."""
    for index in chosen:
        example = rows.example(index)
        name = f"example {index} (problem {example.provenance.get('problem_id', 'unknown')})"
        if not prompts[index]:
            raise DataError(f"{name} has no teacher prompt")
        for prompt in prompts[index]:
            if not len(prompt):
                raise DataError(
                    f"{name} has an empty teacher prompt, so that nothing predicts its first "
                    "target token; drop the prompt"
                )
            target = example.target_ids
            if len(prompt) + len(target) > row_length:
                raise DataError(
                    f"{name} has {len(prompt)} tokens in a teacher prompt and {len(target)} in "
                    f"its target, together {len(prompt) + len(target)}, but a teacher row holds "
                    f"{row_length}; raise teacher.row_length or drop long examples"
                )
            yield (*prompt, *target[:-1])


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
