"""The teacher at work: its distributions on the student's rows, under the team's prompts."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from arkjax.distillation.rows import Rows, batch
from arkjax.distillation.scores import Dense, linear_draws, linear_hidden, linear_top_k
from arkjax.distillation.tape import ScoreFn
from arkjax.distillation.tape_format import Recorded, TapeFormat
from arkjax.models.transformer import Transformer
from arkjax.synthesis.contexts import ContextConfig, TeacherView
from arkjax.training.team_teacher import TeamTeacher, Views


class LiveTeacher(NamedTuple):
    """A teacher for `training.supervised.train` that reads each batch as it comes.

    Attributes:
      team: what it costs and leaves out is in its `summary()`.
      rows: the student's rows.
      views: for each example.
    """

    team: TeamTeacher
    rows: Rows
    views: Views

    def __call__(self, indices: np.ndarray) -> Dense:
        """The team's distributions on rows `indices [B]`."""
        return self.team.target(self.rows, indices, self.views)


def live_teacher(
    model: Transformer,
    rows: Rows,
    views: Views,
    row_length: int,
    config: ContextConfig | None = None,
    **settings: Any,
) -> LiveTeacher:
    """A teacher of these rows.

    Args:
      model: plays every context.
      rows: the student's rows.
      views: for each example how the teacher sees it (`synthesis.contexts.teacher_views`), or the
        prompts under which it reads its target.
      row_length: T of the rows that hold a prompt and a target.
      config: how contexts are mixed and tokens gated; None: geometrically, and not at all.
      settings: further ones of `TeamTeacher`.
    """
    return LiveTeacher(_of_all(model, views, row_length, config, settings), rows, views)


class FreshTeacher(NamedTuple):
    """A teacher of rows that were made this moment, such as answers that a student just wrote.

    Attributes:
      team: what it costs and leaves out is in its `summary()`.
      views: for each example of the run.
    """

    team: TeamTeacher
    views: Views

    def __call__(self, rows: Rows, of: Sequence[int]) -> Dense:
        """The team's distributions on all rows `[N, T]`.

        Args:
          rows: packed examples.
          of: for each of them the example of the run whose question it answers.
        """
        views = [self.views[example] for example in of]
        return self.team.target(rows, np.arange(rows.num_rows), views)


def fresh_teacher(
    model: Transformer,
    views: Views,
    row_length: int,
    config: ContextConfig | None = None,
    **settings: Any,
) -> FreshTeacher:
    """A teacher of whatever is answered to the questions of a run's examples.

    Gates of the examples were made for their recorded answers. Of views made with another
    `ContextConfig.gate` than "none" a fresh answer takes over the gate.

    Args:
      model, views, row_length, config, settings: as of `live_teacher`. With `num_rows` among the
        settings every step has the same shapes.
    """
    return FreshTeacher(_of_all(model, views, row_length, config, settings), views)


def _of_all(
    model: Transformer,
    views: Views,
    row_length: int,
    config: ContextConfig | None,
    settings: dict[str, Any],
) -> TeamTeacher:
    """A teacher with one program for all batches of these views."""
    of_all = {
        "num_contexts": max(
            len(view.contexts) if isinstance(view, TeacherView) else len(view) for view in views
        ),
        "gated": any(isinstance(view, TeacherView) and view.gate != 1 for view in views),
    }
    return TeamTeacher(model, row_length, config, **of_all | settings)


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
