"""The teacher at work: its distributions on the student's rows, under the team's prompts."""

from collections.abc import Callable, Sequence

import jax
import numpy as np

from arkjax.distillation.chunked import linear_logprobs
from arkjax.distillation.rows import Rows, batch
from arkjax.distillation.tape import ScoreFn
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
    model: Transformer,
    rows: Rows,
    prompts: Prompts,
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
