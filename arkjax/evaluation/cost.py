"""What an answer costs: calls, tokens and time, by problem and by correct answer."""

from arkjax.evaluation.outcomes import Outcomes

COST_FIELDS = ("calls", "prompt_tokens", "generated_tokens", "seconds")


def cost_per_problem(outcomes: Outcomes, devices: int = 1) -> dict[str, float]:
    """What one answer takes on average, over problems and seeds alike.

    Args:
      outcomes: the rows of one system; none cost nothing.
      devices: how many devices the generator had. All of them are held while it works, so a second
        of it costs as many device-seconds. The seconds of a model behind a server count as if it
        had been spent here: what that server has is not known.

    Returns:
      `calls`, `prompt_tokens`, `generated_tokens`, `seconds` and `device_seconds`.
    """
    rows = max(len(outcomes), 1)
    costs = {name: float(outcomes[name].sum()) / rows for name in COST_FIELDS}
    return {**costs, "device_seconds": costs["seconds"] * devices}


def cost_per_correct(outcomes: Outcomes, devices: int = 1) -> dict[str, float | None]:
    """What was spent on all answers, divided by the number of correct ones.

    As `cost_per_problem`; None where no answer is correct: no price buys one.
    """
    correct = int(outcomes["correct"].sum())
    return {
        name: cost * len(outcomes) / correct if correct else None
        for name, cost in cost_per_problem(outcomes, devices).items()
    }


def cost_by_system(outcomes: Outcomes, split: str) -> dict[str, dict[str, float]]:
    """`cost_per_problem` of every system in a split."""
    rows = outcomes.select(split=split)
    return {name: cost_per_problem(rows.select(system=name)) for name in rows.distinct("system")}
