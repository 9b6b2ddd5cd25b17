"""How good the students' process reward models are, on samples that nobody was trained on."""

import dataclasses
import hashlib
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from arkjax.evaluation.process import ScoredAnswer, best_of_n, step_quality
from arkjax.session import Session
from arkjax.synthesis.steps import spans, step_ends
from arkjax.synthesis.strategies import Strategy, strategy
from arkjax.tasks.problems import Grader, Problem, StepGrader
from arkjax.training.reward_model import RewardModel, load_reward_model
from arkjax.training.reward_scoring import InSteps
from arkjax.trajectories.schema import Call
from arkjax.trajectories.store import CallStore

# Of the problems, in 256ths, whose answers choose the threshold for first errors.
_CHOOSING = 64


def process_rewards(
    session: Session,
    students: Collection[str],
    samples: Path,
    problems: Iterable[Problem],
    grader: Grader,
) -> dict:
    """Figures of some students' reward models, by student; nothing without reward models.

    Samples are the single agent's, as `self_consistency` has drawn them: choosing the best of them
    by reward is compared with its vote. Where a task's steps can be graded, first errors are found
    with a threshold that was chosen on a quarter of the problems and tested on the others.

    Args:
      session: of the run, its students trained.
      students: whose.
      samples: the record of `self_consistency`.
      problems: that it was about.
      grader: of these.
    """
    trained = {n: strategy(n) for n in students if strategy(n).last.learns == "pad"}
    if not trained:
        return {}
    by_id = {problem.id: problem for problem in problems}
    calls = [c for c in CallStore(samples).load() if not c.is_action and c.problem_id in by_id]
    calls = session.players.in_own_tokens(calls)
    if not calls:
        return {}
    return {
        name: _figures(
            session, _scored(session, _load(session, name, made), calls, by_id, grader), grader
        )
        for name, made in trained.items()
    }


def _load(session: Session, name: str, made: Strategy) -> RewardModel:
    reference = None
    if session.config.student.reward_model.loss == "implicit":
        before = made.before
        reference = session.model(before.student if before else "base")
    path = session.stage("distill").path / name / "reward_model" / "model"
    return load_reward_model(path, session.mesh, session.config.sharding, reference)


def _scored(
    session: Session,
    reward: RewardModel,
    calls: list[Call],
    by_id: dict[str, Problem],
    grader: Grader,
) -> list[ScoredAnswer]:
    config = session.config.student.reward_model
    written = [
        InSteps(
            tuple(session.prompt(by_id[call.problem_id].question)),
            call.gen_ids,
            step_ends(call.gen_ids, session.tokenizer, config.labels.steps, session.chat.end_ids),
        )
        for call in calls
    ]
    with session.progress.task("process rewards", total=len(calls), unit="answers") as task:
        rewards = reward.rewards(written, config.batch_rows, config.row_length, task)
    scored = []
    for call, answer, own in zip(calls, written, rewards, strict=True):
        right = (bool(call.correct),) * len(own)
        if isinstance(grader, StepGrader):
            texts = [
                session.tokenizer.decode(answer.answer_ids[start:end])
                for start, end in spans(answer.step_ends)
            ]
            right = tuple(grader.right_steps(by_id[call.problem_id], texts))
        stated = call.parsed.get("answer")
        scored.append(
            ScoredAnswer(call.problem_id, tuple(own.tolist()), right, stated, bool(call.correct))
        )
    return scored


def _figures(session: Session, scored: list[ScoredAnswer], grader: Grader) -> dict[str, Any]:
    how = session.config.student.reward_model.aggregation
    chosen = best_of_n(scored, how, equal=grader.equal, seed=session.seed)
    figures: dict[str, Any] = {
        "samples": chosen.samples,
        **{name: estimate.value for name, estimate in chosen.systems.items()},
        "lift_over_vote": chosen.lift.value,
        "lift_ci95": list(chosen.lift.ci95),
    }
    choosing = [a for a in scored if _digest(a.problem_id) < _CHOOSING]
    tested = [a for a in scored if _digest(a.problem_id) >= _CHOOSING]
    if isinstance(grader, StepGrader) and choosing and tested:
        quality = step_quality(choosing, tested)
        first = dataclasses.asdict(quality.first_errors)
        figures |= {"step_auroc": quality.auroc, "steps": quality.steps}
        figures |= {
            f"first_error_{name}": first[name]
            for name in ("accuracy", "on_wrong", "on_right", "f1", "threshold")
        }
    return figures


def _digest(problem_id: str) -> int:
    return hashlib.sha256(problem_id.encode()).digest()[0]
