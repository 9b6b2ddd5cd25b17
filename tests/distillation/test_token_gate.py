"""Tokens on which contexts agree, against the same thing said with whole distributions."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arkjax.distillation.teacher import TeacherBatch
from arkjax.distillation.token_gate import agreement_gate, linear_argmax
from arkjax.sharding import MeshConfig, batch_sharding, make_mesh

K, B, T, D, V = 3, 4, 9, 8, 20


@pytest.fixture(scope="module")
def case():
    """(teacher's hidden states [8, 11, D], contexts, head [D, V])."""
    rng = np.random.default_rng(0)
    hidden = rng.standard_normal((8, 11, D)).astype(np.float32)
    head = rng.standard_normal((D, V)).astype(np.float32)
    weights = rng.dirichlet([1.0] * K, (B, T)).astype(np.float32)
    weights[rng.random((B, T)) < 0.2] = 0
    nothing = np.zeros((8, 11), np.int32)
    contexts = TeacherBatch(
        tokens=nothing,
        segment_ids=nothing,
        positions=nothing,
        parents=None,
        sources=rng.integers(0, 88, (K, B, T)).astype(np.int32),
        weights=np.moveaxis(weights, -1, 0),
        gate=np.ones((B, T), np.float32),
        used=0,
        unshared=0,
    )
    # Some look at the same place, and so agree.
    contexts.sources[1] = np.where(
        rng.random((B, T)) < 0.5, contexts.sources[0], contexts.sources[1]
    )
    # Nobody looks there: it may hold anything.
    unseen = sorted(set(range(88)) - set(contexts.sources.ravel().tolist()))
    hidden.reshape(-1, D)[unseen] = np.nan
    return hidden, contexts, head


def reference(hidden, contexts, head, agreement):
    """The gate, position by position."""
    best = (hidden.reshape(-1, D) @ head).argmax(-1)[contexts.sources]
    gate = np.zeros((B, T), np.float32)
    for b in range(B):
        for t in range(T):
            votes = np.bincount(best[:, b, t], contexts.weights[:, b, t], V)
            gate[b, t] = votes.max() >= agreement
    return gate


@pytest.mark.parametrize("mesh", [None, (2, 2, 2)])
@pytest.mark.parametrize("agreement", [0.4, 0.7, 0.999])
def test_a_token_counts_where_contexts_of_enough_weight_name_the_same(case, agreement, mesh):
    hidden, contexts, head = case
    mesh = mesh and make_mesh(MeshConfig(*mesh))
    gate = jax.jit(functools.partial(agreement_gate, agreement=agreement, chunk_size=5, mesh=mesh))
    given = hidden if mesh is None else jax.device_put(hidden, batch_sharding(mesh))
    want = reference(hidden, contexts, head, agreement)
    np.testing.assert_array_equal(gate(given, contexts, head), want)
    assert 0 < want.mean() < 1


def test_padded_vocabulary_is_never_named():
    hidden, head = np.ones((5, 2), np.float32), np.arange(12, dtype=np.float32).reshape(2, 6)
    mask = np.array([True, True, False, True, True])
    named = linear_argmax(jnp.asarray(hidden), jnp.asarray(head), jnp.asarray(mask), chunk_size=2)
    np.testing.assert_array_equal(named, [5, 5, 0, 5, 5])
    named = linear_argmax(
        jnp.asarray(hidden), jnp.asarray(head), jnp.asarray(mask), chunk_size=2, vocab_size=4
    )
    np.testing.assert_array_equal(named, [3, 3, 0, 3, 3])


def test_all_logits_never_exist_at_once(case):
    hidden, contexts, head = case
    made = jax.make_jaxpr(functools.partial(agreement_gate, agreement=0.5, chunk_size=5))(
        hidden, contexts, head
    )
    assert f"[5,{V}]" in str(made)
    assert f"[88,{V}]" not in str(made) and f"[8,11,{V}]" not in str(made)
