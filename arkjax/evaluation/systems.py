"""What is compared: which model plays which team."""

import dataclasses
import math
from collections.abc import Sequence

from arkjax.evaluation.outcomes import Outcome
from arkjax.teams.debate import Debate
from arkjax.teams.spec import TeamSpec


@dataclasses.dataclass(frozen=True)
class System:
    """One row of the comparison.

    Attributes:
      name: as in the report.
      model: "base", the name of a student, or that of a remote.
      team: who plays.
      shares: systems whose calls are the same where they coincide, and need not be made again.
    """

    name: str
    model: str
    team: TeamSpec
    shares: tuple[str, ...] = ()


def systems(
    team: TeamSpec,
    single: TeamSpec,
    samples: TeamSpec,
    roles: TeamSpec,
    students: Sequence[str],
    policy: str = "base",
) -> list[System]:
    """All systems of a run, cheapest shared calls first.

    Args:
      team: the team.
      single: one greedy call of the bare prompt.
      samples: samples of the bare prompt that vote, at the team's token budget.
      roles: the team's roles without communication.
      students: names of the students; each answers the bare prompt once, like `base`.
      policy: the model of the team, and of the roles and samples that it is compared with.
    """
    return [
        System("base", "base", single),
        System("self_consistency", policy, samples),
        System("role_vote", policy, roles),
        System("team", policy, team, shares=("role_vote",)),
        *(System(name, name, single) for name in students),
    ]


def samples_for_budget(team_tokens: float, sample_tokens: float) -> int:
    """How many samples of the single agent cost at least as many generated tokens as the team.

    Args:
      team_tokens: generated tokens of the team for one problem, on average.
      sample_tokens: generated tokens of one sample, on average.
    """
    return max(1, math.ceil(team_tokens / sample_tokens))


def outcomes_of(debates: Sequence[Debate], *, system: str, split: str, seed: int) -> list[Outcome]:
    """Outcomes of one system on one split, with costs counted from its recorded calls."""
    return [
        Outcome(
            seed=seed,
            split=split,
            system=system,
            problem_id=debate.problem.id,
            part=str(debate.problem.meta.get("part", "")),
            domain=debate.problem.domain,
            correct=debate.correct,
            answer=debate.answer,
            calls=debate.cost.calls,
            prompt_tokens=debate.cost.prompt_tokens,
            generated_tokens=debate.cost.generated_tokens,
            seconds=debate.cost.seconds,
            difficulty=_text(debate.problem.meta.get("difficulty")),
            in_pool=debate.in_pool,
            opening_correct=debate.opening_correct,
            confidence=debate.confidence,
            rounds=debate.rounds,
        )
        for debate in debates
    ]


def _text(value: object) -> str:
    return "" if value is None else str(value)
