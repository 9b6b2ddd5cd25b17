"""Who hears whom: nobody, neighbours in a ring, groups, the edges of a graph, or everybody.

All teams have the same four experts and, but for MacNet's, two rounds; MacNet's actors work one
after the other along its graph, with a critic on every edge (arXiv 2406.07155). With
`base=agentark` the agents are five and have no roles; there are no groups of them, since these are
told by roles.

`--config sweeps/topology:topology=ring`, or `sweeps/topology:base=agentark,topology=ring`.
"""

from arkjax.sweeps import Study, Sweep

# Of the quickstart, what is cheap enough for many runs.
COMMON = {
    "sample.problems": 300,
    "students": ("student_da", "control_single_agent", "control_no_debate"),
    "evaluation.limit": 400,
}

# By name: the team on the embedded world, and the one without roles.
TEAMS = {
    "none": ("roles:", "roles:experts=answer,agents=5,"),
    "ring": ("sparse_debate:rounds=2,", "sparse_debate:experts=answer,agents=5,rounds=2,"),
    "groups": ("group_debate:stages=1,", None),
    "chain": ("macnet:topology=chain,", "macnet:topology=chain,experts=answer,nodes=5,"),
    "tree": ("macnet:topology=tree,", "macnet:topology=tree,experts=answer,nodes=5,"),
    "net": ("macnet:topology=net,", "macnet:topology=net,experts=answer,nodes=5,"),
    "full": ("debate:rounds=2,", "agentark:agents=5,rounds=2,"),
}

SWEEP = Sweep(
    "topology",
    [
        Study(
            {"topology": name},
            embedded={"team": f"{embedded}max_tokens=36"},
            agentark=None if bare is None else "rounds=2",
            fields={} if bare is None else {"team": f"{bare}temperature=0.5,max_tokens=1024"},
        )
        for name, (embedded, bare) in TEAMS.items()
    ],
    COMMON,
)

get_config, get_sweep, get_base = SWEEP.get_config, SWEEP.get_sweep, SWEEP.get_base
