"""The team as one teacher: its mixture of contexts on any rows, and what that costs and leaves out.

It reads rows that lie on a disk (`scoring.live_teacher`), and as well those that a student has just
written (`rows.one_a_row`): both are prompts and answers as token ids.
"""

import collections
import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from arkjax.distillation.rows import Rows, batch
from arkjax.distillation.targets import HiddenTarget, Mixture, MixtureTarget
from arkjax.distillation.teacher import TeacherBatch, mixture_target, teacher_batch
from arkjax.distillation.token_gate import agreement_gate
from arkjax.models.config import ModelConfig
from arkjax.models.transformer import Transformer
from arkjax.sharding import BATCH_AXES, batch_sharding
from arkjax.synthesis.contexts import ContextConfig, TeacherView, plain_view

# Batches whose counts are still on the device: reading older ones makes nothing wait.
_WAITING = 8

Views = Sequence[TeacherView | Sequence[Sequence[int]]]
"""For each example how the teacher sees it, or its prompts alone, of equal weight."""


@dataclasses.dataclass
class TeacherProfile:
    """What a teacher has read so far; an example counts each time that it is in a batch.

    Attributes:
      batches: of student rows.
      tokens: that were computed, padding apart.
      unshared_tokens: that they would have been, had every context been read whole.
      padded_tokens: that were computed, padding included.
      examples, examples_kept: in the batches, and those of an open gate.
      predicted, predicted_kept: tokens with a loss, and those that gates leave to the teacher.
    """

    batches: int = 0
    tokens: int = 0
    unshared_tokens: int = 0
    padded_tokens: int = 0
    examples: int = 0
    examples_kept: int = 0
    predicted: int = 0
    predicted_kept: int = 0

    def summary(self) -> dict[str, float]:
        """The counts, and `sharing`: how many times fewer tokens were computed than unshared."""
        counts = dataclasses.asdict(self)
        return {**counts, "sharing": self.unshared_tokens / max(self.tokens, 1)}


class _Static(NamedTuple):
    """What the compiler must know."""

    config: ModelConfig
    mesh: Mesh | None
    mixture: Mixture
    gated: bool
    token_agreement: float | None
    chunk_tokens: int
    vocab_size: int | None


class TeamTeacher:
    """One set of weights under the prompts of a team, as the target of a student's rows."""

    def __init__(
        self,
        model: Transformer,
        row_length: int,
        config: ContextConfig | None = None,
        *,
        num_contexts: int | None = None,
        num_rows: int | None = None,
        gated: bool = False,
        share: bool | None = None,
        vocab_size: int | None = None,
        chunk_tokens: int = 512,
    ):
        """A teacher that has read nothing yet.

        Args:
          model: plays every context.
          row_length: Tt of the rows that hold a prompt and a target.
          config: how contexts are mixed and tokens gated; None: geometrically, and not at all.
          num_contexts: K, the most contexts that any example will have; None: the most of the views
            that come with a batch.
          num_rows: Bt; None: the smallest number of the devices times a power of two that suffices.
          gated: whether targets have gates even where all in a batch are open and the config has
            none: one program then does for all batches.
          share: whether what contexts begin with is read once; None: unless the model's attention
            is a kernel that is asked for by name, which could not do it.
          vocab_size: number of real tokens where the model's head is padded beyond it.
          chunk_tokens: tokens whose logits exist at once.
        """
        self.profile = TeacherProfile()
        self._model, self._head = model, model.head
        self._row_length, self._num_rows = row_length, num_rows
        self._num_contexts = num_contexts
        self._share = model.config.attention in ("auto", "xla") if share is None else share
        self._static = _Static(
            config=model.config,
            mesh=model.mesh,
            mixture="geometric" if config is None else config.mixture,
            gated=gated
            or (config is not None and (config.gate, config.token_gate) != ("none", "none")),
            token_agreement=config.token_agreement
            if config is not None and config.token_gate == "consensus"
            else None,
            chunk_tokens=chunk_tokens,
            vocab_size=vocab_size,
        )
        self._waiting: collections.deque[jax.Array] = collections.deque()

    def target(self, rows: Rows, indices: np.ndarray, views: Views) -> HiddenTarget | MixtureTarget:
        """The team's distributions on student rows `indices [B]`.

        Args:
          rows: the student's.
          indices: a batch of them; an index may repeat, and -1 is a row without anything in it.
          views: for each example of rows.

        Returns:
          A target of `[B, T]` with a gate if there are any. A geometric mixture without soft cap is
          one hidden state a token.

        Raises:
          DataError: as `teacher_batch`.
        """
        indices = np.asarray(indices)
        here = set(np.asarray(rows.example_ids[indices[indices >= 0]]).ravel().tolist()) - {-1}
        of_batch = {example: _view(views[example]) for example in here}
        gates = {example: view.gate for example, view in of_batch.items()}
        mesh = self._model.mesh
        spread = 1 if mesh is None else int(np.prod([mesh.shape[axis] for axis in BATCH_AXES]))
        contexts = teacher_batch(
            rows,
            indices,
            {i: [context.prompt for context in view.contexts] for i, view in of_batch.items()},
            self._row_length,
            weights={
                i: [context.weight for context in view.contexts] for i, view in of_batch.items()
            },
            gates=gates,
            num_rows=self._num_rows,
            multiple_of=spread,
            num_contexts=self._num_contexts,
            share=self._share,
        )
        learned = (batch(rows, indices).weights != 0) & (indices >= 0)[:, None]
        self._count(contexts, gates, int(learned.sum()))
        if spread > 1 and len(contexts.tokens) % spread == 0:
            names = ("tokens", "segment_ids", "positions", "parents")
            placed = {name: getattr(contexts, name) for name in names}
            contexts = contexts._replace(**jax.device_put(placed, batch_sharding(mesh)))
        gated = self._static.gated or any(gate != 1 for gate in gates.values())
        made, kept = _read(
            self._static._replace(gated=gated),
            self._model.arrays(),
            self._head,
            contexts._replace(used=0, unshared=0),
            learned,
        )
        self._waiting.append(kept)
        if len(self._waiting) > _WAITING:
            self.profile.predicted_kept += int(self._waiting.popleft())
        return dataclasses.replace(made, head=self._head)

    def summary(self) -> dict[str, float]:
        """`TeacherProfile.summary` of all batches: waits for those that are under way."""
        while self._waiting:
            self.profile.predicted_kept += int(self._waiting.popleft())
        return self.profile.summary()

    def _count(self, contexts: TeacherBatch, gates: Mapping[int, float], predicted: int) -> None:
        profile = self.profile
        profile.batches += 1
        profile.tokens += contexts.used
        profile.unshared_tokens += contexts.unshared
        profile.padded_tokens += contexts.tokens.size
        profile.examples += len(gates)
        profile.examples_kept += sum(gate > 0 for gate in gates.values())
        profile.predicted += predicted


def _view(view: TeacherView | Sequence[Sequence[int]]) -> TeacherView:
    return view if isinstance(view, TeacherView) else plain_view(view)


@functools.partial(jax.jit, static_argnums=0)
def _read(
    static: _Static,
    weights: dict[str, jax.Array],
    head: jax.Array,
    contexts: TeacherBatch,
    learned: jax.Array,
) -> tuple[HiddenTarget | MixtureTarget, jax.Array]:
    """The target without its head, and how many tokens of `learned [B, T]` have an open gate."""
    model = Transformer(static.config, weights, static.mesh)

    def hidden_fn(tokens, positions, segment_ids, parents) -> jax.Array:
        return model.forward(tokens, positions, segment_ids, parents).hidden

    def gate(hidden: jax.Array) -> jax.Array:
        open_ = jnp.asarray(contexts.gate)
        if static.token_agreement is None:
            return open_
        return open_ * agreement_gate(
            hidden,
            contexts,
            head,
            static.token_agreement,
            chunk_size=static.chunk_tokens,
            vocab_size=static.vocab_size,
            mesh=static.mesh,
        )

    made = mixture_target(
        hidden_fn,
        contexts,
        head,
        soft_cap=static.config.logit_soft_cap or None,
        mixture=static.mixture,
        gate=gate if static.gated else None,
    )
    kept = learned if made.gate is None else learned & (made.gate > 0)
    # The head as it came is attached outside: an output would be a copy of it.
    return dataclasses.replace(made, head=None), jnp.sum(kept, dtype=jnp.int32)
