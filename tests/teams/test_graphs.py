"""Shapes in which work is passed on: as published, acyclic, with nobody left out."""

import itertools

import pytest

from arkjax.errors import ConfigError
from arkjax.teams.graphs import SHAPES, edges, leaves
from arkjax.teams.primitives import View
from arkjax.teams.views import levels

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    ("shape", "nodes", "expected", "ends"),
    [
        ("chain", 4, "01 12 23", [3]),
        ("star", 4, "01 02 03", [1, 2, 3]),
        ("tree", 6, "01 02 13 14 25", [3, 4, 5]),
        ("net", 4, "01 02 03 12 13 23", [3]),
        # Floor of log2 layers of equal width, the remainder in the first: 2+2, 3+2, 4+2+2.
        ("mlp", 4, "02 03 12 13", [2, 3]),
        ("mlp", 5, "03 04 13 14 23 24", [3, 4]),
        ("mlp", 8, "04 05 14 15 24 25 34 35 46 47 56 57", [6, 7]),
        # One layer: nobody passes anything on.
        ("mlp", 2, "", [0, 1]),
        ("mlp", 3, "", [0, 1, 2]),
    ],
)
def test_shapes_are_those_of_the_published_code(shape, nodes, expected, ends):
    assert edges(shape, nodes) == [(int(a), int(b)) for a, b in expected.split()]
    assert leaves(shape, nodes) == ends


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("nodes", [1, 2, 3, 4, 7, 12, 33])
def test_work_flows_one_way_and_reaches_all(shape, nodes):
    for seed in range(5):
        made = edges(shape, nodes, seed)
        assert len(set(made)) == len(made)
        assert all(0 <= a < b < nodes for a, b in made)
        assert made == edges(shape, nodes, seed)
        sources = set(range(nodes)) - {b for _, b in made}
        # Only layers have more than one source: the whole first layer.
        assert sources == ({0} if shape != "mlp" else set(range(len(sources))))
        reached = set(sources)
        for a, b in sorted(made):
            reached |= {b} if a in reached else set()
        assert reached == set(range(nodes))
        ends = leaves(shape, nodes, seed)
        assert ends and not {a for a, _ in made} & set(ends)


@pytest.mark.parametrize("nodes", [2, 4, 9, 40])
def test_as_many_edges_as_a_shape_has(nodes):
    pairs = nodes * (nodes - 1) // 2
    for shape in ("chain", "star", "tree"):
        assert len(edges(shape, nodes)) == nodes - 1
    assert len(edges("net", nodes)) == pairs
    drawn = [len(edges("random", nodes, seed)) for seed in range(30)]
    assert nodes - 1 <= min(drawn) and max(drawn) <= pairs
    assert len(set(drawn)) > 1 or nodes == 2


def test_seeds_draw_differently_and_only_where_something_is_drawn():
    assert len({tuple(edges("random", 6, seed)) for seed in range(20)}) > 15
    for shape in set(SHAPES) - {"random"}:
        assert edges(shape, 6, 1) == edges(shape, 6, 2)
    for seed in range(20):
        drawn = edges("random", 7, seed)
        assert leaves("random", 7, seed) == [n for n in range(7) if all(a != n for a, _ in drawn)]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_stage_can_be_played_on_them(shape):
    names = [f"n{i}" for i in range(8)]
    made = edges(shape, 8, seed=3)
    view = View("edges", edges=tuple((names[a], names[b]) for a, b in made))
    waves = levels(view, names)
    assert sorted(itertools.chain(*waves)) == names
    depth = {name: i for i, wave in enumerate(waves) for name in wave}
    assert all(depth[names[a]] < depth[names[b]] for a, b in made)
    assert len(waves) == {"chain": 8, "star": 2, "tree": 4, "net": 8, "mlp": 3}.get(
        shape, len(waves)
    )


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(ConfigError, match="no shape 'mesh'.*known: chain, mlp, net, random"):
        edges("mesh", 4)
    with pytest.raises(ConfigError, match="did you mean 'star'"):
        leaves("stra", 4)
    with pytest.raises(ConfigError, match="nodes is 0: a graph needs at least one"):
        edges("net", 0)
    assert edges("random", 1) == [] and leaves("random", 1) == [0]
