"""The teacher at work: its distributions on the student's rows, under the team's prompts."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from arkjax.distillation.rows import Rows, batch
from arkjax.distillation.scores import Dense, linear_draws, linear_hidden, linear_top_k
from arkjax.distillation.tape import ScoreFn
from arkjax.distillation.tape_format import Recorded, TapeFormat
from arkjax.distillation.targets import HiddenTarget
from arkjax.distillation.teacher import mixture_target, teacher_batch
from arkjax.models.transformer import Transformer

Prompts = Sequence[Sequence[Sequence[int]]]


def live_teacher(
    model: Transformer, rows: Rows, prompts: Prompts, row_length: int
) -> Callable[[np.ndarray], HiddenTarget]:
    """A teacher for `training.supervised.train` that reads each batch as it comes.

    Args:
      model: plays every context.
      rows: the student's rows.
      prompts: for each example, the prompts under which the teacher reads its target; their
        distributions are mixed geometrically.
      row_length: T of the rows that hold a prompt and a target.
    """
    most = max(map(len, prompts))
    config, mesh = model.config, model.mesh

    @jax.jit
    def hidden(weights, tokens, positions, segment_ids):
        return Transformer(config, weights, mesh)(tokens, positions, segment_ids)

    def target(indices: np.ndarray) -> HiddenTarget:
        contexts = teacher_batch(rows, indices, prompts, row_length, num_contexts=most)

        def hidden_fn(tokens, positions, segment_ids):
            return hidden(model.arrays(), tokens, positions, segment_ids)

        return mixture_target(
            hidden_fn, contexts, model.head, soft_cap=config.logit_soft_cap or None
        )

    return target


def tape_scorer(
    teacher: Callable[[np.ndarray], Dense],
    rows: Rows,
    tape_format: TapeFormat,
    *,
    vocab_size: int | None = None,
    chunk_tokens: int = 256,
) -> ScoreFn:
    """A teacher as what a tape keeps of it: for `distillation.tape.write_tape`, or to train on.

    Both are the same: what `Tape.targets` gives is what this function gave, rounded to the tape's
    dtype, so a teacher of any kind can also be used without a file.

    Args:
      teacher: gives the target of row indices, such as `live_teacher` makes.
      rows: the student's rows.
      tape_format: what is kept.
      vocab_size: of the teacher, where its head is padded beyond; None: the whole head.
      chunk_tokens: positions whose logits exist at once.

    Raises:
      ConfigError: the format asks for more tokens than the vocabulary has, or for hidden states of
        a mixture that no mean of them is; raised when rows are scored.
    """
    common = {
        "kd_temperature": tape_format.kd_temperature,
        "chunk_size": chunk_tokens,
        "vocab_size": vocab_size,
    }

    @jax.jit
    def record(target: Dense, mask: np.ndarray, indices: np.ndarray):
        if target.gate is not None:
            mask = jnp.where(target.gate != 0, mask, 0.0)
        if tape_format.kind == "top_k":
            return linear_top_k(target, mask, k=tape_format.k, **common)
        n, seed = tape_format.draws, tape_format.seed
        return linear_draws(target, mask, indices, draws=n, seed=seed, **common)

    def score(indices: np.ndarray) -> Recorded:
        target = teacher(indices)
        if tape_format.kind == "hidden":
            return linear_hidden(target)
        weights = batch(rows, indices).weights
        return record(target, weights, np.asarray(indices, np.uint32))

    return score
