"""Shapes in which agents can pass their work on: edges between places, always from low to high.

The six of MacNet (arXiv 2406.07155, section 3.1), as its published code draws them. They are
acyclic, so that a stage in the order `graph` can be played on them.
"""

import itertools
import math
import random

from arkjax.errors import ConfigError
from arkjax.teams.fields import unknown_name

SHAPES = ("chain", "star", "tree", "net", "mlp", "random")


def edges(shape: str, nodes: int, seed: int = 0) -> list[tuple[int, int]]:
    """Edges (from, to) between the nodes 0 to `nodes` - 1.

    Args:
      shape: `chain`: each to the next; `star`: the first to all others; `tree`: each to its two
        children; `net`: each to all after it; `mlp`: layers, each node to all of the next layer;
        `random`: as many edges of the net as a draw between a chain's and all says.
      nodes: how many nodes there are.
      seed: of the random shape. There every node but the first has an edge that leads to it, so
        that none is left out.

    Raises:
      ConfigError: if there is no such shape, or no node.
    """
    if shape not in SHAPES:
        raise unknown_name("topology", shape, SHAPES, "shape")
    if nodes < 1:
        raise ConfigError(f"nodes is {nodes}: a graph needs at least one")
    if shape == "chain":
        return list(itertools.pairwise(range(nodes)))
    if shape == "star":
        return [(0, i) for i in range(1, nodes)]
    if shape == "tree":
        return [((i - 1) // 2, i) for i in range(1, nodes)]
    net = list(itertools.combinations(range(nodes), 2))
    if shape == "net":
        return net
    if shape == "mlp":
        layers = _layers(nodes)
        return [e for a, b in itertools.pairwise(layers) for e in itertools.product(a, b)]
    draw = random.Random(seed)
    reached = {(draw.randrange(i), i) for i in range(1, nodes)}
    rest = [edge for edge in net if edge not in reached]
    more = draw.randint(0, len(rest))
    return sorted(reached | set(draw.sample(rest, more)))


def leaves(shape: str, nodes: int, seed: int = 0) -> list[int]:
    """The nodes that pass nothing on; arguments as of `edges`."""
    passing = {a for a, _ in edges(shape, nodes, seed)}
    return [node for node in range(nodes) if node not in passing]


def _layers(nodes: int) -> list[range]:
    """Floor of log2 of n layers of equal width, what is left over in the first."""
    count = max(1, int(math.log2(nodes)))
    width = nodes // count
    sizes = [width + nodes % count] + [width] * (count - 1)
    starts = itertools.accumulate(sizes, initial=0)
    return [range(start, start + size) for start, size in zip(starts, sizes, strict=False)]
