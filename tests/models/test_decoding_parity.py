"""Every family decodes as it reads, and greedily as Hugging Face's implementation does."""

import functools

import jax
import numpy as np

from arkjax.models.cache import init_cache
from arkjax.models.transformer import Transformer
from arkjax.sampling.engine import Engine, EngineConfig
from arkjax.sampling.params import Request, SamplingParams

ENGINE = EngineConfig(
    length_classes=(96,),
    slots=3,
    prefixes=3,
    admit_rows=3,
    prefix_rows=1,
    chunk=24,  # one width for all prompts here: little to compile
    block_steps=64,
    max_stop_ids=1,
)
PIECE = 7


def test_greedy_decoding_gives_the_same_tokens(family):
    """Prompts of unequal length side by side: no step of theirs was close to another choice."""
    golden = family.golden
    prompts = [
        tuple(row[:length].tolist())
        for row, length in zip(golden["prompts"], golden["prompt_lengths"], strict=True)
    ]
    count = golden["generated"].shape[1]
    greedy = SamplingParams(temperature=0.0, max_tokens=count)
    requests = [Request(f"p{i}", prompt, 0, greedy, 0) for i, prompt in enumerate(prompts)]
    generations = Engine(family.model, ENGINE).generate(requests)
    for generation, expected in zip(generations, golden["generated"], strict=True):
        assert generation.ids == tuple(expected.tolist()), generation.request_id


# LLVM takes longer to make this fast than it then runs.
@functools.partial(
    jax.jit, static_argnums=0, compiler_options={"xla_backend_optimization_level": 0}
)
def _extend(config, weights, tokens, positions, cache):
    model = Transformer(config, weights)
    hidden, cache = model.extend(tokens, positions, cache)
    return model.logits(hidden), cache


def test_reading_in_ragged_pieces_equals_reading_at_once(golden_family):
    """Each row goes on by a number of tokens of its own, none included, and ends by itself."""
    model, golden = golden_family.model, golden_family.golden
    kinds = golden_family.kinds()
    rows = np.flatnonzero((kinds["plain"] | kinds["padded"]).any(axis=1))
    tokens, lengths = golden["tokens"][rows], (golden["segments"][rows] > 0).sum(axis=1)
    full, at = golden_family.reading.logits[rows], np.zeros(len(rows), int)
    room = tokens.shape[1]
    cache = init_cache(model.config, len(rows), room)
    rng = np.random.default_rng(0)
    while (at < lengths).any():
        take = np.minimum(rng.integers(0, PIECE + 1, len(rows)), lengths - at)
        steps = np.arange(PIECE)[None]
        real = steps < take[:, None]
        # What pads a piece stands beyond the cache, where nothing is stored.
        positions = np.where(real, at[:, None] + steps, room).astype(np.int32)
        piece = np.take_along_axis(tokens, np.minimum(positions, room - 1), axis=1)
        logits, cache = _extend(model.config, model.arrays(), piece, positions, cache)
        expected = np.take_along_axis(full, np.minimum(positions, room - 1)[..., None], axis=1)
        # Equal up to the order of fp32 sums.
        np.testing.assert_allclose(np.asarray(logits)[real], expected[real], rtol=0, atol=1e-4)
        at += take
