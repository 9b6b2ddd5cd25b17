"""Embeddings of answers: the mean of hidden states, whatever stands beside them in a batch."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from arkjax.training.embeddings import answer_embeddings


@dataclasses.dataclass(frozen=True)
class Said:
    """As much of a call as matters here."""

    call_id: str
    gen_ids: tuple[int, ...]


PROMPT = (3, 4, 5)
RNG = np.random.default_rng(0)
SAID = [
    Said(str(i), tuple(RNG.integers(1, 32, length).tolist()))
    for i, length in enumerate((5, 70, 1, 12, 64))
]


def test_an_answer_is_the_mean_over_its_own_tokens(model):
    embed = answer_embeddings(model, lambda call: PROMPT, batch_rows=3)
    found = embed(SAID)
    assert found.shape == (5, 16) and found.dtype == np.float32
    for call, mean in zip(SAID, found, strict=True):
        ids = jnp.asarray([(*PROMPT, *call.gen_ids)], jnp.int32)
        hidden = model(ids, jnp.arange(ids.shape[1])[None], jnp.ones_like(ids))
        # float32: the same sums in another order.
        np.testing.assert_allclose(mean, np.asarray(hidden)[0, 3:].mean(0), atol=2e-5)


def test_neighbours_and_order_do_not_matter(model):
    embed = answer_embeddings(model, lambda call: PROMPT, batch_rows=2)
    found = embed(SAID)
    np.testing.assert_allclose(embed(SAID[::-1])[::-1], found, atol=2e-5)
    np.testing.assert_allclose(embed(SAID[1:2])[0], found[1], atol=2e-5)
    assert embed([]).shape == (0, 16)


def test_what_does_not_fit_is_left_out(model):
    limit = model.config.max_context
    long = Said("long", tuple(RNG.integers(1, 32, limit + 50).tolist()))
    cut = Said("cut", long.gen_ids[: limit - len(PROMPT)])
    embed = answer_embeddings(model, lambda call: PROMPT, batch_rows=1)
    found = embed([long, cut])
    np.testing.assert_array_equal(found[0], found[1])
    beyond = answer_embeddings(model, lambda call: (3,) * (limit + 1), batch_rows=1)
    assert beyond([cut]) == pytest.approx(np.zeros((1, 16)))
