"""What an answer costs: calls, tokens and seconds, by problem and by correct answer."""

from arkjax.evaluation.outcomes import Outcomes

COST_FIELDS = ("calls", "prompt_tokens", "generated_tokens", "seconds")


def cost_per_problem(outcomes: Outcomes) -> dict[str, float]:
    """Mean calls, prompt tokens, generated tokens and seconds of one answer.

    `outcomes` are the rows of one system; the mean is over problems and seeds alike. Empty rows
    cost zero.
    """
    rows = max(len(outcomes), 1)
    return {name: float(outcomes[name].sum()) / rows for name in COST_FIELDS}


def cost_per_correct(outcomes: Outcomes) -> dict[str, float | None]:
    """What was spent on all answers, divided by the number of correct ones.

    None where no answer is correct: no price buys one.
    """
    correct = int(outcomes["correct"].sum())
    return {
        name: float(outcomes[name].sum()) / correct if correct else None for name in COST_FIELDS
    }


def cost_by_system(outcomes: Outcomes, split: str) -> dict[str, dict[str, float]]:
    """`cost_per_problem` of every system in a split."""
    rows = outcomes.select(split=split)
    return {name: cost_per_problem(rows.select(system=name)) for name in rows.distinct("system")}
