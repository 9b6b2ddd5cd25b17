"""Every strategy with a tenth of the quickstart's problems and a third of its steps; three seeds.

`launch/study_strategies.py` runs this config and its variants and puts them into one table.
"""

from ml_collections import ConfigDict

from arkjax.config import load

# How the team's distributions are mixed and gated, beside the quickstart's way: the geometric
# mixture of those contexts in which an agent was right.
VARIANTS = {
    "arithmetic": {"mixture": "arithmetic"},
    "ungated": {"agents": "all"},
    "gated": {"agents": "all", "gate": "verified", "token_gate": "consensus"},
}


def get_config(arg: str = "") -> ConfigDict:
    """All students; with `arg`, the name of a variant, those that learn distributions."""
    c = load("quickstart")
    c.name = "strategies"
    c.seeds = (0, 1, 2)
    c.sample.problems = 100
    for phase in (c.student, c.student.on_policy):
        phase.train.steps = 18
        phase.train.optimizer.warmup_steps = 2
    c.student.reward_model.epochs = 10  # over so few answers two would be some twenty steps
    c.evaluation.splits = ("test",)
    c.evaluation.limit = 400
    c.students = (
        "student_rsft",
        "student_da",
        "student_rsft_unverified",
        "student_da_unverified",
        "student_corrective",
        "student_consolidated",
        "student_rsft_then_da",
        "student_logit",
        "student_sequence+logit",
        "student_on_policy",
        "student_da_then_on_policy",
        "student_pad",
        "student_pad_then_da",
        "student_da_then_pad",
        "student_grpo",
        "student_da_then_grpo",
        "control_answer_only",
        "control_single_agent",
        "control_no_debate",
    )
    if arg:
        if arg not in VARIANTS:
            raise ValueError(f"no variant {arg!r}: there are {', '.join(VARIANTS)}")
        c.name = f"strategies-{arg}"
        c.teacher.contexts.update(VARIANTS[arg])
        c.students = ("student_logit", "student_sequence+logit", "student_on_policy")
    return c
