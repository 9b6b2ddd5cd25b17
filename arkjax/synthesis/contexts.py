"""Under which prompts the teacher scores the student's words."""

import dataclasses
from collections.abc import Sequence
from typing import Literal

from arkjax.errors import ConfigError
from arkjax.trajectories.schema import Call


@dataclasses.dataclass(frozen=True)
class ContextConfig:
    """Which of the team's prompts condition the teacher.

    Attributes:
      rounds: "first" uses the roles' prompts before anybody has spoken; "last" those of the last
        round, role and transcript; "all" both.
      agents: "correct" uses the prompts under which the agent's own answer was right, where there
        are any; "all" uses every agent's.
      most: most contexts of one example, earlier rounds dropped first.
    """

    rounds: Literal["first", "last", "all"]
    agents: Literal["correct", "all"]
    most: int

    def __post_init__(self) -> None:
        if self.most < 1:
            raise ConfigError(f"teacher.contexts.most is {self.most}: it must be at least 1")


def teacher_prompts(calls: Sequence[Call], config: ContextConfig) -> list[tuple[int, ...]]:
    """Prompts of the team, as recorded, that make its distribution over a student's answer.

    Args:
      calls: the team's calls on one problem.
      config: which to take.

    Returns:
      Distinct prompts, latest round first; at least one if there is any call.
    """
    calls = [call for call in calls if not call.is_action]
    rounds = sorted({call.round for call in calls})
    wanted = {"first": rounds[:1], "last": rounds[-1:], "all": rounds}[config.rounds]
    chosen = [call for call in calls if call.round in wanted]
    if config.agents == "correct":
        chosen = [call for call in chosen if call.correct] or chosen
    chosen = sorted(chosen, key=lambda c: (-c.round, c.agent, c.sample))
    return list(dict.fromkeys(call.prompt_ids for call in chosen))[: config.most]
