"""What a model sees in recorded answers: the mean of its last hidden states over each."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from arkjax.models.transformer import Transformer
from arkjax.synthesis.diversity import Embedding
from arkjax.trajectories.schema import Call

# Rows are as long as a power of two, so that few shapes are compiled.
_SHORTEST = 64


def answer_embeddings(
    model: Transformer, prompt: Callable[[Call], Sequence[int]], batch_rows: int = 16
) -> Embedding:
    """A function that embeds N calls as `[N, D]` float32; see `arkjax.synthesis.diversity`.

    A call is read behind a prompt, and its embedding is the mean over its generated tokens of the
    hidden states after the final norm, taken in float32. What does not fit into the model's context
    is left out; a call of which nothing fits is the zero vector.

    Args:
      model: reads the answers.
      prompt: the prompt of a call, the same for calls that are compared, such as the bare question:
        under the recorded ones the transcripts would be compared as well.
      batch_rows: B, answers that are read at once.
    """
    config, mesh = model.config, model.mesh

    @jax.jit
    def mean(weights, tokens, positions, segment_ids, counts):
        hidden = Transformer(config, weights, mesh)(tokens, positions, segment_ids)
        counts = counts[..., None].astype(jnp.float32)
        total = (hidden.astype(jnp.float32) * counts).sum(1)
        return total / jnp.maximum(counts.sum(1), 1.0)

    def embed(calls: Sequence[Call]) -> np.ndarray:
        texts = []
        for call in calls:
            start = tuple(prompt(call))
            texts.append(((*start, *call.gen_ids)[: config.max_context], len(start)))
        order = sorted(range(len(texts)), key=lambda i: len(texts[i][0]))
        found = np.zeros((len(texts), config.d_model), np.float32)
        for at in range(0, len(order), batch_rows):
            some = order[at : at + batch_rows]
            longest = max(len(texts[i][0]) for i in some)
            length = min(1 << (max(longest, _SHORTEST) - 1).bit_length(), config.max_context)
            tokens = np.zeros((batch_rows, length), np.int32)
            segment_ids, counts = np.zeros_like(tokens), np.zeros_like(tokens)
            for row, i in enumerate(some):
                ids, start = texts[i]
                tokens[row, : len(ids)] = ids
                segment_ids[row, : len(ids)] = 1
                counts[row, start : len(ids)] = 1
            positions = np.broadcast_to(np.arange(length, dtype=np.int32), tokens.shape)
            read = mean(model.arrays(), tokens, positions, segment_ids, counts)
            found[some] = np.asarray(read)[: len(some)]
        return found

    return embed
