"""At what temperature the team speaks, and so how much its agents differ.

The votes that the team is compared with and the controls speak at the same one; students and base
model answer greedily. The paper's code has 0.5.

`--config sweeps/temperature:temperature=1.0`; on the paper's benchmarks
`sweeps/temperature:base=agentark,temperature=1.0`.
"""

from arkjax.sweeps import Study, Sweep

# Of the quickstart, what is cheap enough for many runs.
COMMON = {
    "sample.problems": 300,
    "students": ("student_da", "control_single_agent", "control_no_debate"),
    "evaluation.limit": 400,
}

SWEEP = Sweep(
    "temperature",
    [
        Study(
            {"temperature": str(t)},
            embedded={
                "team": f"debate:rounds=2,max_tokens=36,temperature={t}",
                "sample.samples": f"self_consistency:max_tokens=36,temperature={t}",
                "sample.roles": f"roles:max_tokens=36,temperature={t}",
            },
            agentark=f"temperature={t}",
        )
        for t in (0.3, 0.5, 0.7, 1.0, 1.3)
    ],
    COMMON,
)

get_config, get_sweep, get_base = SWEEP.get_config, SWEEP.get_sweep, SWEEP.get_base
