"""The teacher at work: its distributions on the student's rows, under the team's prompts."""

from typing import Any, NamedTuple

import jax
import numpy as np

from arkjax.distillation.chunked import linear_logprobs
from arkjax.distillation.rows import Rows, batch
from arkjax.distillation.tape import ScoreFn
from arkjax.distillation.targets import HiddenTarget, MixtureTarget
from arkjax.models.transformer import Transformer
from arkjax.synthesis.contexts import ContextConfig, TeacherView, plain_view
from arkjax.training.team_teacher import TeamTeacher, Views


class LiveTeacher(NamedTuple):
    """A teacher for `training.loop.train` that reads each batch as it comes.

    Attributes:
      team: what it costs and leaves out is in its `summary()`.
      rows: the student's rows.
      views: for each example.
    """

    team: TeamTeacher
    rows: Rows
    views: Views

    def __call__(self, indices: np.ndarray) -> HiddenTarget | MixtureTarget:
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
    views = [view if isinstance(view, TeacherView) else plain_view(view) for view in views]
    of_all = {
        "num_contexts": max(len(view.contexts) for view in views),
        "gated": any(view.gate != 1 for view in views),
    }
    return LiveTeacher(TeamTeacher(model, row_length, config, **of_all | settings), rows, views)


def tape_scorer(
    model: Transformer,
    rows: Rows,
    prompts: Views,
    row_length: int,
    top_k: int,
    kd_temperature: float,
) -> ScoreFn:
    """The same teacher for `distillation.tape.write_tape`: its k most probable tokens and the rest.

    Args:
      model, rows, prompts, row_length: as of `live_teacher`.
      top_k: k.
      kd_temperature: of the probabilities.
    """
    teacher = live_teacher(model, rows, prompts, row_length)

    @jax.jit
    def top(target: HiddenTarget, labels: np.ndarray, mask: np.ndarray):
        scores = linear_logprobs(
            target.hidden,
            target.head,
            labels,
            mask=mask,
            top_k=top_k,
            kd_temperature=kd_temperature,
            soft_cap=target.soft_cap,
        )
        return scores.top_ids, scores.top_logprobs, scores.log_tail

    def score(indices: np.ndarray):
        of_batch = batch(rows, indices)
        return top(teacher(indices), of_batch.targets, of_batch.weights)

    return score
