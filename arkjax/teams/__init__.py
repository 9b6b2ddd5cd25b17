"""Teams of agents: what they are, as data, and how they are played."""

from arkjax.teams.debate import Cost, Debate
from arkjax.teams.library import debate, debate_judge, judge, load, roles, self_consistency, vanilla
from arkjax.teams.runner import play, play_as_finished
from arkjax.teams.spec import TeamSpec

__all__ = [
    "Cost",
    "Debate",
    "TeamSpec",
    "debate",
    "debate_judge",
    "judge",
    "load",
    "play",
    "play_as_finished",
    "roles",
    "self_consistency",
    "vanilla",
]
