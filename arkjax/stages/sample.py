"""The sample stage: the team at work, and the two controls of its sampling budget."""

from collections.abc import Sequence
from pathlib import Path

from arkjax.errors import DataError
from arkjax.evaluation.systems import samples_for_budget
from arkjax.session import Session
from arkjax.trajectories.store import write_run_info
from arkjax.versions import versions


def sample(session: Session, path: Path) -> dict:
    """The team works on training problems; two controls get the same number of calls."""
    problems = session.problems("train", session.config.sample.problems)
    _refuse_evaluation_problems(session, problems)
    policy, team = session.config.policy, session.team
    debates, store = session.play(team, problems, policy, path / "team", "team")
    calls = sum(debate.cost.calls for debate in debates)
    per_problem = round(calls / len(problems))
    members = len(session.roles(1).agents)
    plays = {
        "single_agent": (session.samples(per_problem), "single-agent samples"),
        "roles": (session.roles(max(1, round(per_problem / members))), "roles without debate"),
    }
    spent = {"team": debates}
    for source, (spec, label) in plays.items():
        spent[source], _ = session.play(spec, problems, policy, path / source, label, known=[store])
    players = session.config.players(team, policy)
    info = {
        "team": team.to_dict(),
        "team_hash": team.hash,
        "model": session.model_id(policy),
        "players": {name: session.model_id(player) for name, player in players.items()},
        "tokenizer": session.tokenizer.hash,
        "chat": {"kind": type(session.chat).__name__, "template": session.chat.identity},
        "mesh": dict(session.mesh.shape),
        "dtype": session.config.model.dtype,
        "seed": session.seed,
        "versions": versions(),
    }
    write_run_info(path, info)
    tokens = {
        source: sum(debate.cost.generated_tokens for debate in played) / len(problems)
        for source, played in spent.items()
    }
    return {
        "problems": len(problems),
        "calls": {source: sum(d.cost.calls for d in played) for source, played in spent.items()},
        "tokens_per_problem": tokens,
        "accuracy": {
            source: sum(d.correct for d in played) / len(problems)
            for source, played in spent.items()
        },
        # How many samples of the single agent cost as many tokens as the team does.
        "samples_for_budget": samples_for_budget(
            tokens["team"], tokens["single_agent"] / per_problem
        ),
        "team_answers": {debate.problem.id: debate.answer for debate in debates},
    }


def _refuse_evaluation_problems(session: Session, problems: Sequence) -> None:
    """No problem of the evaluation may be trained on."""
    limit = session.config.evaluation.limit or None
    evaluated = {
        problem.question_hash
        for split in session.config.evaluation.splits
        for problem in session.problems(split, limit)
    }
    leaked = [problem.id for problem in problems if problem.question_hash in evaluated]
    if leaked:
        raise DataError(
            f"training problem {leaked[0]} asks the same as an evaluation problem "
            f"({len(leaked)} such in all): take them out of the training split"
        )
