"""How many problems the team works on for training, and so how much its students have to learn.

Training is as much longer as there is more of it: everything is seen equally often. With
`base=agentark` up to all of GSM8K's, and strategies may be compared as in the paper (Figure 5):
`base=agentark,strategy=rsft`.

`--config sweeps/data_size:problems=100`, or `sweeps/data_size:base=agentark,problems=1000`.
"""

from arkjax.sweeps import Study, Sweep

COMMON = {
    "students": ("student_rsft", "student_da", "control_single_agent", "control_no_debate"),
    "evaluation.limit": 400,
}

SWEEP = Sweep(
    "data_size",
    [
        Study(
            {"problems": str(n)},
            # The quickstart's 60 steps are for 1,000 problems.
            embedded={"sample.problems": n, "student.train.steps": max(6, round(60 * n / 1000))},
        )
        for n in (30, 100, 300, 1000, 3000)
    ]
    + [
        Study({"problems": str(n)}, agentark=f"problems={n}")
        for n in (250, 500, 1000, 2000, 4000, 7473)
    ],
    COMMON,
)

get_config, get_sweep, get_base = SWEEP.get_config, SWEEP.get_sweep, SWEEP.get_base
