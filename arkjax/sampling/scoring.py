"""Log-probabilities of given tokens, by the forward pass that training uses."""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from arkjax.errors import DataError
from arkjax.models.transformer import Transformer, Weight
from arkjax.sampling.decode import Spec
from arkjax.sampling.engine_profile import EngineProfile
from arkjax.sampling.params import token_ids
from arkjax.sampling.sampler import tail_mass, top_logprobs

# Positions whose logits exist at once, over all rows.
_POSITIONS = 256


@dataclasses.dataclass(frozen=True)
class Scored:
    """What a model makes of T given tokens.

    Attributes:
      logprobs: [T - 1] f32; entry t is that of token t + 1 after tokens 0 to t.
      top_ids: [T - 1, k] int32, the most probable tokens after tokens 0 to t, the best first.
      top_logprobs: [T - 1, k] f32.
      tail: [T - 1] f32, log of the mass outside those k; zero for k = 0.
    """

    logprobs: np.ndarray
    top_ids: np.ndarray
    top_logprobs: np.ndarray
    tail: np.ndarray


def check_ids(ids: Sequence[int], size: int, name: str) -> None:
    """Raise DataError unless all ids are tokens of a vocabulary of this size."""
    for extreme in (min(ids), max(ids)):
        if not 0 <= extreme < size:
            raise DataError(
                f"{name} has the token id {extreme}, but the model's go from 0 to {size - 1}: it"
                " was encoded by the tokenizer of another model"
            )


def checked(sequences: Sequence[Sequence[int]], longest: int, size: int) -> list[tuple[int, ...]]:
    """The sequences as tuples of token ids.

    Raises:
      DataError: naming a sequence that is empty, has more than `longest` tokens, or ids that are
        not in a vocabulary of `size`.
    """
    read = []
    for i, sequence in enumerate(sequences):
        ids = token_ids(sequence, f"sequence {i}")
        if len(ids) > longest:
            raise DataError(
                f"sequence {i} has {len(ids)} tokens: expected 1 to {longest}, the engine's "
                "longest context"
            )
        check_ids(ids, size, f"sequence {i}")
        read.append(ids)
    return read


def own_logprobs(model: Transformer, hidden: jax.Array, target: jax.Array) -> jax.Array:
    """[N] f32, the log-probability of each `target` [N] after its hidden state [N, D]."""
    logits = model.logits(hidden)
    own = jnp.take_along_axis(logits, target[:, None], axis=-1)[:, 0]
    return own - jax.nn.logsumexp(logits, axis=-1)


def score(
    spec: Spec,
    weights: dict[str, Weight],
    sequences: Sequence[Sequence[int]],
    widths: Sequence[int],
    tokens: int,
    top: int,
    profile: EngineProfile,
) -> list[Scored]:
    """Score sequences, in few shapes.

    Args:
      spec, weights: the model.
      sequences: token ids.
      widths: that sequences are padded to, ascending.
      tokens: most tokens that are read at once, unless one sequence is longer.
      top: k, most probable tokens to report.
      profile: where tokens are counted.

    Returns:
      In the order of the sequences.

    Raises:
      DataError: as `checked`.
    """
    sequences = checked(sequences, widths[-1], spec.config.vocab_size)
    by_width: dict[int, list[int]] = {}
    for i, sequence in enumerate(sequences):
        width = next(n for n in widths if n >= len(sequence))
        by_width.setdefault(width, []).append(i)
    scored: dict[int, Scored] = {}
    for width, members in sorted(by_width.items()):
        rows = max(1, tokens // width)
        for start in range(0, len(members), rows):
            batch = members[start : start + rows]
            ids, lengths = np.zeros((rows, width), np.int32), np.zeros(rows, np.int32)
            for row, i in enumerate(batch):
                lengths[row] = len(sequences[i])
                ids[row, : lengths[row]] = sequences[i]
            columns = jax.tree.map(np.asarray, _score(spec, weights, ids, lengths, top))
            profile.scored_tokens += int(lengths.sum())
            profile.scoring_tokens += int(lengths.sum())
            profile.scoring_padded += ids.size
            for row, i in enumerate(batch):
                scored[i] = Scored(*(column[row, : lengths[row] - 1] for column in columns))
    return [scored[i] for i in range(len(sequences))]


@functools.partial(jax.jit, static_argnums=(0, 4))
def _score(
    spec: Spec, weights: dict[str, Weight], ids: jax.Array, lengths: jax.Array, top: int
) -> tuple[jax.Array, ...]:
    model = Transformer(spec.config, weights, spec.mesh)
    R, T = ids.shape
    positions = jnp.broadcast_to(jnp.arange(T)[None], (R, T))
    hidden = model(ids, positions, (positions < lengths[:, None]).astype(jnp.int32))
    following = jnp.roll(ids, -1, axis=1)

    def chunk(inputs: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, ...]:
        hidden, target = inputs
        logits = model.logits(hidden)
        total = jax.nn.logsumexp(logits, axis=-1)
        ids, values = top_logprobs(logits, top)
        tail = tail_mass(logits, ids)
        own = jnp.take_along_axis(logits, target[:, None], axis=-1)[:, 0]
        return own - total, ids, values, tail

    size = min(_POSITIONS, R * T)
    chunks = -(-R * T // size)

    def cut(x: jax.Array) -> jax.Array:
        x = x.reshape(R * T, *x.shape[2:])
        padding = [(0, chunks * size - R * T)] + [(0, 0)] * (x.ndim - 1)
        return jnp.pad(x, padding).reshape(chunks, size, *x.shape[1:])

    def join(x: jax.Array) -> jax.Array:
        return x.reshape(chunks * size, *x.shape[2:])[: R * T].reshape(R, T, *x.shape[2:])

    return jax.tree.map(join, jax.lax.map(chunk, (cut(hidden), cut(following))))
