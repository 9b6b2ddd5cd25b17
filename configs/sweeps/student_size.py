"""How large the student is.

On the embedded world team and student are one model, trained from nothing: a smaller student has a
worse team as well, and what is compared is how much of its own team's gain each captures. With
`base=agentark` the team's model stays and the students are the paper's (section 4.1).

`--config sweeps/student_size:width=64`, or `sweeps/student_size:base=agentark,student=Qwen3-1.7B`.
"""

from arkjax.sweeps import Study, Sweep

# Of the quickstart, what is cheap enough for many runs.
COMMON = {
    "sample.problems": 300,
    "students": ("student_da", "control_single_agent", "control_no_debate"),
    "evaluation.limit": 400,
}

STUDENTS = ("Qwen3-0.6B", "Qwen3-1.7B", "Qwen3-8B", "Llama-3-8B-Instruct", "Gemma-7B")

SWEEP = Sweep(
    "student_size",
    [
        Study(
            {"width": str(width)},
            embedded={
                "model.d_model": width,
                "model.num_heads": width // 32,
                "model.num_kv_heads": max(1, width // 64),
                "model.d_ff": width * 5 // 2,
                "model.num_layers": layers,
                "model.scan_unroll": layers,
            },
        )
        for width, layers in ((64, 2), (128, 3), (192, 4), (256, 4))
    ]
    + [Study({"student": name}, agentark=f"student={name}") for name in STUDENTS],
    COMMON,
)

get_config, get_sweep, get_base = SWEEP.get_config, SWEEP.get_sweep, SWEEP.get_base
