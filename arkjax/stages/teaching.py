"""The team as a teacher of its students' examples, as stages need it."""

from collections.abc import Mapping, Sequence
from typing import Any

from arkjax.session import Session
from arkjax.synthesis.contexts import ContextConfig, TeacherView, teacher_views
from arkjax.trajectories.attribution import Attribution
from arkjax.trajectories.store import CallStore


def team_views(
    session: Session, provenances: Sequence[Mapping[str, Any]], config: ContextConfig
) -> list[TeacherView]:
    """How the team sees each of the examples.

    Args:
      session: whose debates are recorded.
      provenances: of the examples.
      config: under which of its prompts.
    """
    by_problem: dict[str, list] = {}
    team = CallStore(session.stage("sample").path / "team").load()
    for call in session.players.in_own_tokens(team):
        by_problem.setdefault(call.problem_id, []).append(call)
    attribution = None
    if config.weights == "attribution":
        attribution = Attribution.load(session.stage("synthesize").path / "attribution")
    return teacher_views(by_problem, provenances, config, session.task.grader, attribution)
