"""MacNet (arXiv 2406.07155): agents on a graph pass their work on along its edges.

An actor on every node writes or rewrites the solution; a critic on every edge reviews what comes
from one node for the next. All wait for those before them, and who does not runs at once. At the
end a merger makes one of the solutions of the nodes that pass nothing on, which are reviewed as
well. On an edge the paper lets critic and actor talk several times, and a node with several edges
merge what comes of them by further calls; here a critic reviews once, and one call of the actor
rewrites and merges. Options: topology (chain star tree net mlp random), nodes, seed (of random),
experts (bylines of the actors in turn, joined by "+"), temperature, max_tokens.
"""

from ml_collections import ConfigDict

from arkjax.teams.arguments import options
from arkjax.teams.graphs import edges, leaves

EXPERTS = ("accountant", "watchman", "surveyor", "climber")
ACTOR = (
    "Write a solution. If there are solutions and reviews above, improve them into one that is "
    "better."
)
CRITIC = "Review the solution above: name what most needs to be improved, and how."
MERGER = (
    "Compare the solutions above and their reviews, and merge them into one that is better than "
    "each."
)


def get_config(arg: str = "") -> ConfigDict:
    o = options(
        arg, topology="chain", nodes=4, seed=0, experts=EXPERTS, temperature=0.7, max_tokens=64
    )
    talk = {"temperature": o.temperature, "max_tokens": o.max_tokens}
    pairs = edges(o.topology, o.nodes, o.seed)
    # The merger is one more node, behind all that pass nothing on.
    last = [(i, o.nodes) for i in leaves(o.topology, o.nodes, o.seed)]
    return ConfigDict(
        {
            "name": "macnet",
            "agents": [
                {
                    "id": f"actor-{i}",
                    "byline": o.experts[i % len(o.experts)],
                    "role": ACTOR,
                    "sampling": talk,
                }
                for i in range(o.nodes)
            ]
            + [
                {"id": f"critic-{i}-{j}", "byline": "judge", "role": CRITIC, "sampling": talk}
                for i, j in pairs + last
            ]
            + [{"id": "merger", "byline": "judge", "role": MERGER, "sampling": talk}],
            "stages": [
                {
                    "name": "work",
                    "speakers": [f"actor-{i}" for i in range(o.nodes)]
                    + [f"critic-{i}-{j}" for i, j in pairs + last],
                    "order": "graph",
                    "view": {
                        "graph": "edges",
                        "edges": [(f"actor-{i}", f"critic-{i}-{j}") for i, j in pairs + last]
                        + [(f"critic-{i}-{j}", f"actor-{j}") for i, j in pairs]
                        + [(f"actor-{i}", f"actor-{j}") for i, j in pairs],
                        "own": False,
                    },
                },
                {
                    "name": "merge",
                    "speakers": ["merger"],
                    "view": {
                        "authors": [f"actor-{i}" for i, _ in last]
                        + [f"critic-{i}-{j}" for i, j in last],
                        "own": False,
                    },
                },
            ],
            "schedule": ["work", "merge"],
            "reducer": {"kind": "synthesize", "agent": "merger"},
        }
    )
