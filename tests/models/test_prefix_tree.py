"""Segments that go on from others compute what whole sequences do, in every form of attention."""

import functools
from typing import NamedTuple

import jax
import numpy as np
import pytest

from arkjax.errors import ConfigError
from arkjax.models import self_attention as module
from arkjax.models.blockwise import blockwise_attention
from arkjax.models.prefix_tree import prefix_tree
from arkjax.models.self_attention import choice_for, self_attention
from arkjax.models.transformer import Transformer
from arkjax.sharding import MeshConfig, batch_sharding, make_mesh


class Node(NamedTuple):
    """A segment of so many tokens and those that go on from it."""

    length: int
    children: tuple = ()


# A prompt with branches of unequal length, a prefix in a prefix, a lone sequence, two trees in a
# row, an only child; and rows of padding.
ROWS = (
    (Node(11, (Node(7), Node(1), Node(9))), Node(6)),
    (Node(5, (Node(8, (Node(4), Node(3), Node(4))), Node(7))),),
    (Node(30, (Node(9),)), Node(4, (Node(2), Node(3)))),
    (),
)
LENGTH = 56


class Forest(NamedTuple):
    """Trees as rows [R, LENGTH], and where the tokens of each path from root to leaf stand."""

    tokens: np.ndarray
    positions: np.ndarray
    segments: np.ndarray
    parents: np.ndarray
    paths: list[tuple[int, list[int]]]


def grow(rows=ROWS, length=LENGTH, vocab=48) -> Forest:
    rng = np.random.default_rng(0)
    tokens, positions, segments, parents = (np.zeros((len(rows), length), np.int32) for _ in "abcd")
    paths = []

    def plant(row, node, parent, start, path, count):
        end, segment, depth = start + node.length, count + 1, len(path)
        tokens[row, start:end] = rng.integers(1, vocab, node.length)
        positions[row, start:end] = np.arange(depth, depth + node.length)
        segments[row, start:end], parents[row, start:end] = segment, parent
        path, count = path + list(range(start, end)), segment
        for child in node.children:
            end, count = plant(row, child, segment, end, path, count)
        if not node.children:
            paths.append((row, path))
        return end, count

    for row, trees in enumerate(rows):
        end, count = 0, 0
        for tree in trees:
            end, count = plant(row, tree, 0, end, [], count)
    return Forest(tokens, positions, segments, parents, paths)


@functools.partial(jax.jit, static_argnums=(0, 1))
def read(config, mesh, weights, tokens, positions, segments, parents=None):
    return Transformer(config, weights, mesh).forward(tokens, positions, segments, parents).hidden


def whole_paths(model, forest: Forest) -> list[np.ndarray]:
    """Hidden states of every path, packed two to a row without sharing anything."""
    shape = (-(-len(forest.paths) // 2), 2 * LENGTH)
    tokens, positions, segments = (np.zeros(shape, np.int32) for _ in "abc")
    where = []
    for i, (row, path) in enumerate(forest.paths):
        start = where[-1][1].stop if i % 2 else 0
        at = slice(start, start + len(path))
        tokens[i // 2, at] = forest.tokens[row, path]
        positions[i // 2, at], segments[i // 2, at] = np.arange(len(path)), 1 + i % 2
        where.append((i // 2, at))
    hidden = read(model.config, None, model.arrays(), tokens, positions, segments)
    return [np.asarray(hidden[row, at]) for row, at in where]


KINDS = {
    "full": {"num_kv_heads": 4},
    "grouped heads": {"num_kv_heads": 1, "qk_norm": False},
    "windowed": {"sliding_window": 6, "attention_pattern": ("local",)},
    "windowed and not": {
        "sliding_window": 9,
        "attention_pattern": ("local", "global"),
        "local_rope_theta": 100.0,
    },
    "soft-capped": {"attention_soft_cap": 1.5, "post_norms": True, "zero_centered_norm": True},
    "soft-capped in windows": {
        "attention_soft_cap": 1.5,
        "sliding_window": 12,
        "attention_pattern": ("local",),
    },
}


@pytest.mark.parametrize("form", ["dense", "blockwise"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_tree_is_its_paths(make_model, monkeypatch, kind, form):
    model, forest = make_model(**KINDS[kind]), grow()
    if form == "blockwise":
        # Blocks of 16, so that prefixes lie blocks away from those that go on from them.
        monkeypatch.setattr(module, "BLOCKWISE_FROM", 1)
        small = functools.partial(blockwise_attention, block=16)
        monkeypatch.setattr(module, "blockwise_attention", small)
    read.clear_cache()
    wanted = whole_paths(model, forest)
    trees = [forest.tokens, forest.positions, forest.segments, forest.parents]
    found = np.asarray(read(model.config, None, model.arrays(), *trees))
    read.clear_cache()
    assert np.isfinite(found).all()
    for (row, path), hidden in zip(forest.paths, wanted, strict=True):
        # fp32, hidden states around one: sums over the same keys in another order.
        np.testing.assert_allclose(found[row, path], hidden, atol=1e-5)
    # The test would notice: without parents branches do not see their prompt.
    alone = np.asarray(read(model.config, None, model.arrays(), *trees[:3]))
    row, path = forest.paths[0]
    assert np.abs(alone[row, path] - wanted[0]).max() > 0.05


@pytest.mark.parametrize("kind", ["grouped heads", "windowed and not", "soft-capped in windows"])
def test_eight_devices_compute_what_one_does(make_model, kind):
    model, forest = make_model(**{"num_kv_heads": 2, **KINDS[kind]}), grow()
    mesh = make_mesh(MeshConfig(2, 2, 2))
    trees = [forest.tokens, forest.positions, forest.segments, forest.parents]
    alone = read(model.config, None, model.arrays(), *trees)
    spread = [jax.device_put(x, batch_sharding(mesh)) for x in trees]
    together = read(model.config, mesh, model.arrays(), *spread)
    real = forest.segments > 0
    np.testing.assert_allclose(np.asarray(together)[real], np.asarray(alone)[real], atol=1e-5)


@pytest.mark.parametrize("form", ["dense", "blockwise"])
@pytest.mark.parametrize("window", [0, 7])
def test_gradients_of_a_prefix_come_from_all_that_go_on_from_it(form, window):
    forest = grow()
    rng = np.random.default_rng(1)
    B, T = forest.tokens.shape
    q, k, v, weights = (
        rng.normal(size=(B, T, heads, 8)).astype(np.float32) for heads in (4, 2, 2, 4)
    )
    leaves = np.zeros((B, T), bool)
    for row, path in forest.paths:
        leaves[row, path[-1]] = True
    weights *= leaves[:, :, None, None]

    @jax.jit
    def shared(q, k, v):
        tree = prefix_tree(forest.segments, forest.parents, forest.positions)
        settings = {"scale": 0.4, "window": window, "soft_cap": 2.0, "tree": tree}
        if form == "dense":
            out = self_attention(q, k, v, forest.segments, **settings)
        else:
            out = blockwise_attention(q, k, v, forest.segments, **settings, block=16)
        return (weights * out).sum()

    @jax.jit
    def apart(q, k, v):
        total = 0.0
        for row, path in forest.paths:
            of_path = [x[row, np.array(path)][None] for x in (q, k, v)]
            one = np.ones((1, len(path)), np.int32)
            out = self_attention(*of_path, one, scale=0.4, window=window, soft_cap=2.0)
            total += (weights[row, path[-1]] * out[0, -1]).sum()
        return total

    found, wanted = (jax.value_and_grad(f, argnums=(0, 1, 2))(q, k, v) for f in (shared, apart))
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, atol=3e-5)


def test_no_token_sees_a_sibling_or_another_tree(make_model):
    """Gradients that must be exactly zero: of each path's last token with respect to the rest."""
    model, forest = make_model(num_layers=1), grow()
    weights = model.arrays()
    embedded = weights["embedding"][forest.tokens]

    @jax.jit
    def of_embedded(x, chosen):
        class Reader(Transformer):
            def _embed(self, tokens):
                return x

        reader = Reader(model.config, weights)
        trees = (forest.tokens, forest.positions, forest.segments, forest.parents)
        hidden = reader.forward(*trees).hidden
        return (hidden * chosen).sum()

    slope = jax.jit(jax.grad(of_embedded))
    for row, path in forest.paths:
        chosen = np.zeros((*forest.tokens.shape, 1), np.float32)
        chosen[row, path[-1]] = 1.0
        size = np.abs(np.asarray(slope(embedded, chosen * np.arange(32.0)))).sum(-1)
        seen = np.zeros(forest.tokens.shape, bool)
        seen[row, path] = True
        assert (size[seen] > 0).all() and (size[~seen] == 0).all()


def test_ends_are_found_at_any_depth():
    deep = Node(1)
    for _ in range(12):
        deep = Node(1, (Node(1), deep))
    forest = grow(((deep, Node(2)),), 40)
    ends = np.asarray(prefix_tree(forest.segments, forest.parents, forest.positions).ends)[0]
    # Along the spine everything up to the second tree goes on from each node.
    assert (ends[0:24:2] == 25).all() and (ends[1:24:2] == np.arange(2, 25, 2)).all()
    assert (ends[25:27] == 27).all() and not ends[27:].any()


@pytest.mark.fast
def test_kernels_stand_back_and_say_why():
    q = np.zeros((8, 64, 4, 16), np.float32)
    asked = functools.partial(choice_for, q, q, soft_cap=0.0, mesh=None, shared=True)
    assert asked(implementation="auto").implementation == "xla"
    with pytest.raises(ConfigError, match="share prefixes.*auto"):
        asked(implementation="splash")
    whole = choice_for(q, q, soft_cap=0.0, implementation="splash", mesh=None)
    assert whole.implementation == "splash"
