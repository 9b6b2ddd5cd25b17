"""How many agents: 1 to 20.

On the embedded world the experts debate in a ring, where each reads itself and two neighbours: so
nobody reads more than the base model has learned to read, however many there are. There are four
roles, so that of eight agents two are of each; fewer than four lack roles, and with them skills.
With `base=agentark` it is the paper's debate, whose agents have no roles and read all others: the
paper has 5, 10 and 20 of them (section 4.3). What they read grows with them, and the contexts of
the engine with that.

`--config sweeps/agents:agents=5` is one run, `sweeps/agents:base=agentark,agents=5` one on the
paper's models; further options are those of `configs/agentark.py`.
"""

from arkjax.sweeps import Study, Sweep

# Of the quickstart, what is cheap enough for many runs.
COMMON = {
    "sample.problems": 300,
    "students": ("student_da", "control_single_agent", "control_no_debate"),
    "evaluation.limit": 400,
}

SWEEP = Sweep(
    "agents",
    [
        Study(
            {"agents": str(n)},
            embedded={
                "team": f"sparse_debate:agents={n},rounds=2,max_tokens=36",
                "sample.roles": f"roles:agents={n},max_tokens=36",
            },
            agentark=f"agents={n}",
        )
        for n in (1, 2, 3, 4, 5, 6, 8, 10, 15, 20)
    ],
    COMMON,
)

get_config, get_sweep, get_base = SWEEP.get_config, SWEEP.get_sweep, SWEEP.get_base
