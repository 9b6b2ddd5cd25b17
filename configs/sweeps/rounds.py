"""How many rounds of debate, the independent opening among them; everybody reads the latest one.

With one round nobody hears anybody: on the embedded world that is the vote of the roles. With
`base=agentark` it is the paper's debate, which has at most 3 (appendix A.2) and ends earlier where
all agree.

`--config sweeps/rounds:rounds=3`, or `sweeps/rounds:base=agentark,rounds=3`.
"""

from arkjax.sweeps import Study, Sweep

# Of the quickstart, what is cheap enough for many runs.
COMMON = {
    "sample.problems": 300,
    "students": ("student_da", "control_single_agent", "control_no_debate"),
    "evaluation.limit": 400,
}

SWEEP = Sweep(
    "rounds",
    [
        Study(
            {"rounds": str(n)},
            embedded={"team": f"debate:rounds={n},max_tokens=36"},
            agentark=f"rounds={n}",
        )
        for n in (1, 2, 3, 4, 5)
    ],
    COMMON,
)

get_config, get_sweep, get_base = SWEEP.get_config, SWEEP.get_sweep, SWEEP.get_base
