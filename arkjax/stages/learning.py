"""What each kind of phase does: words, distributions, own answers, rewards."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from arkjax.distillation.objective import Objective
from arkjax.distillation.rows import Rows
from arkjax.distillation.tape import Tape
from arkjax.models.transformer import Transformer
from arkjax.sampling.engine import Engine
from arkjax.session import Session
from arkjax.stages.teaching import team_views
from arkjax.synthesis.judged_answers import Judged
from arkjax.synthesis.step_labels import judged_answers, label_by_peers, with_sets
from arkjax.synthesis.step_rollouts import label_by_rollouts, num_starts
from arkjax.synthesis.strategies import Phase
from arkjax.training.held_out import HeldOut
from arkjax.training.on_policy import train_on_policy
from arkjax.training.policy import Process, graded, train_policy
from arkjax.training.reward_model import RewardModel
from arkjax.training.reward_scoring import step_scorer
from arkjax.training.reward_training import train_reward_model
from arkjax.training.scoring import fresh_teacher
from arkjax.training.supervised import Teacher, train
from arkjax.trajectories.store import CallStore


@dataclasses.dataclass
class Lessons:
    """One phase of one student.

    Attributes:
      session: of the run.
      name: of the student.
      directory: of its files.
      student: the model that the phase begins with; a policy is held to it by its KL.
      rows: the phase's examples, if it has some.
      loaded: the base model, where it is in memory already.
    """

    session: Session
    name: str
    directory: Path
    student: Transformer
    rows: Rows | None
    loaded: Transformer | None = None

    @functools.cached_property
    def base(self) -> Transformer:
        """The base model, which plays the team as a teacher."""
        return self.session.model("base") if self.loaded is None else self.loaded

    @functools.cached_property
    def engine(self) -> Engine:
        """Generates with the student's live weights."""
        return Engine(self.student, self.session.players.engine_config, self.session.tokenizer)

    @functools.cached_property
    def common(self) -> dict[str, Any]:
        """What every training takes."""
        session = self.session
        return {
            "seed": session.seed,
            "mesh": session.mesh,
            "rules": session.config.sharding,
            "progress": session.progress,
            "name": self.name,
        }

    def held_out(self) -> HeldOut | None:
        """Accuracy on problems that are neither trained nor evaluated on, if there are such."""
        count = self.session.config.student.held_out
        if not count:
            return None
        problems = self.session.problems("validation", count)

        def accuracy(model: Transformer) -> float:
            self.engine.update(model)
            return self.session.accuracy(self.engine, problems)

        return accuracy


def learn(lessons: Lessons, phase: Phase) -> Transformer:
    """Do one phase; killed at any moment and called again, it ends with the same weights."""
    if phase.learns == "on_policy":
        return _own_answers(lessons)
    if phase.learns in ("pad", "grpo"):
        return _rewards(lessons, process=phase.learns == "pad")
    return _words(lessons, phase)


def _words(lessons: Lessons, phase: Phase) -> Transformer:
    config, objective = lessons.session.config.student, Objective(cross_entropy=1.0)
    if phase.needs_tape:
        objective = config.objective
    if phase.learns == "logit":
        objective = dataclasses.replace(objective, cross_entropy=0.0)
    return train(
        lessons.student,
        lessons.rows,
        objective,
        config.train,
        lessons.directory,
        teacher=_tape(lessons, phase) if phase.needs_tape else None,
        held_out=lessons.held_out(),
        **lessons.common,
    )


def _tape(lessons: Lessons, phase: Phase) -> Teacher:
    session = lessons.session
    tape = Tape.open(session.stage("score").path / phase.dataset.name, lessons.rows)
    if session.config.teacher.tape != "hidden":
        return tape.targets
    return functools.partial(tape.targets, head=lessons.base.head)


def _own_answers(lessons: Lessons) -> Transformer:
    session, rows = lessons.session, lessons.rows
    config = session.config.student.on_policy
    teacher = session.config.teacher
    # A gate on recorded answers says nothing of fresh ones.
    contexts = dataclasses.replace(teacher.contexts, gate="none")
    views = team_views(session, [placement.provenance for placement in rows.placements], contexts)
    return train_on_policy(
        lessons.student,
        lessons.engine,
        [rows.example(i) for i in range(len(rows.placements))],
        fresh_teacher(
            lessons.base,
            views,
            teacher.row_length,
            contexts,
            vocab_size=session.tokenizer.vocab_size,
        ),
        config.objective(session.config.student.objective),
        config.rollouts,
        config.own,
        config.train,
        lessons.directory,
        end_ids=session.chat.end_ids,
        held_out=lessons.held_out(),
        **lessons.common,
    )


# --- rewards --------------------------------------------------------------------------------------


def _rewards(lessons: Lessons, process: bool) -> Transformer:
    session = lessons.session
    config = session.config.student.policy
    grpo = config.grpo if process else dataclasses.replace(config.grpo, process_weight=0.0)
    problems = list(session.training_problems.values())
    return train_policy(
        lessons.student,
        lessons.engine,
        [session.prompt(problem.question) for problem in problems],
        graded(problems, session.task.grader, session.tokenizer, session.chat.end_ids),
        config.rollouts,
        grpo,
        config.train,
        lessons.directory,
        end_ids=session.chat.end_ids,
        process=_step_rewards(lessons) if process and grpo.process_weight else None,
        reference=lessons.student if grpo.kl_coefficient else None,
        held_out=lessons.held_out(),
        **lessons.common,
    )


def _step_rewards(lessons: Lessons) -> Process:
    session = lessons.session
    config = session.config.student.reward_model
    return step_scorer(
        reward_model(lessons),
        session.tokenizer,
        config.labels.steps,
        config.batch_rows,
        config.row_length,
        end_ids=session.chat.end_ids,
    )


def reward_model(lessons: Lessons) -> RewardModel:
    """The process reward model of a phase, trained unless it is there."""
    session = lessons.session
    common = {key: lessons.common[key] for key in ("seed", "mesh", "rules", "progress")}
    judged = _judged(lessons)
    judged.save(lessons.directory / "judged")
    return train_reward_model(
        lessons.student,
        judged,
        session.config.student.reward_model,
        lessons.directory / "reward_model",
        name=f"{lessons.name}, reward model",
        info={"tokenizer": session.tokenizer.hash},
        files=session.tokenizer_files,
        **common,
    )


def _judged(lessons: Lessons) -> Judged:
    """The team's recorded answers with labels of their steps."""
    session = lessons.session
    config = session.config.student.reward_model.labels
    sampled = session.stage("sample")
    team_answers, problems = sampled.summary()["team_answers"], session.training_problems
    answers = judged_answers(
        session.players.in_own_tokens(CallStore(sampled.path / "team").load()),
        {name: session.prompt(problem.question) for name, problem in problems.items()},
        team_answers,
        session.task.grader,
        session.tokenizer,
        config,
        end_ids=session.chat.end_ids,
    )
    label = f"{lessons.name}, step labels"
    if config.source == "peers":
        with session.progress.task(label, total=len(problems), unit="problems") as task:
            return label_by_peers(answers, session.tokenizer, config, task)
    return _continued(lessons, answers, label)


def _continued(lessons: Lessons, answers: Sequence[Any], label: str) -> Judged:
    session = lessons.session
    config = session.config.student.reward_model.labels
    problems, grader = session.training_problems, session.task.grader
    team_answers = session.stage("sample").summary()["team_answers"]

    def accept(problem_id: str, text: str) -> bool:
        grade = grader.grade(problems[problem_id], text)
        if config.gate == "gold":
            return grade.correct
        team = team_answers.get(problem_id)
        return None not in (grade.extracted, team) and grader.equal(grade.extracted, team)

    store = CallStore(lessons.directory / "continuations")
    total = num_starts(answers, config)
    with session.progress.task(label, total=total, unit="starts") as task, store:
        labelled, _ = label_by_rollouts(
            answers,
            lessons.engine,
            accept,
            session.tokenizer,
            config,
            model_id=lessons.name,
            seed=session.seed,
            end_ids=session.chat.end_ids,
            store=store,
            task=task,
        )
    return with_sets(labelled, session.tokenizer, config)
