"""Which strategy, and for those that learn the team's distributions with which divergence.

With `base=agentark` teacher and student are the same model, Qwen3-8B: distributions over one
vocabulary can be learned of the model that students start from alone.

`--config sweeps/strategy_loss:strategy=logit,loss=jsd`, `sweeps/strategy_loss:strategy=da`; with
`base=agentark` in front for the paper's benchmarks.
"""

from arkjax.distillation.objective import DIVERGENCES
from arkjax.sweeps import Study, Sweep, axis, chain, product

COMMON = {
    "sample.problems": 300,
    "student.reward_model.epochs": 4,  # there are fewer answers to learn from
    "evaluation.limit": 400,
}
WORDS = ("rsft", "da", "corrective", "consolidated", "rsft+da", "pad", "pad+da", "da+pad", "grpo")
DISTRIBUTIONS = ("logit", "sequence+logit", "on_policy")

CHOICES = chain(
    axis("strategy", WORDS),
    product(axis("strategy", DISTRIBUTIONS), axis("loss", DIVERGENCES)),
)


def _study(choice: dict[str, str]) -> Study:
    name = choice["strategy"]
    phases = [name] if name in DISTRIBUTIONS else name.split("+")
    student = "student_" + "_then_".join(phases)
    fields = {"students": (student, "control_single_agent", "control_no_debate")}
    if loss := choice.get("loss"):
        fields |= {"student.objective.divergence": loss, "student.on_policy.divergence": loss}
    return Study(choice, fields, "teacher=Qwen3-8B,student=Qwen3-8B", fields)


SWEEP = Sweep("strategy_loss", [_study(choice) for choice in CHOICES], COMMON)

get_config, get_sweep, get_base = SWEEP.get_config, SWEEP.get_sweep, SWEEP.get_base
