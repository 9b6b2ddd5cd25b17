"""Several systems on the problems of one set: their outcomes, and what each of them said.

A problem whose longest call does not fit into the model's context is not played: the system has no
answer to it, which is wrong, and it is counted apart.
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from arkjax.errors import DataError
from arkjax.evaluation.outcomes import Outcome
from arkjax.evaluation.systems import outcomes_of
from arkjax.progress import Progress
from arkjax.sampling.params import Generator
from arkjax.storage import open_atomic
from arkjax.tasks.problems import Grader, Problem, ScoredGrader
from arkjax.teams.context import tokens_needed
from arkjax.teams.debate import Debate
from arkjax.teams.runner import play_as_finished, team_tools
from arkjax.teams.spec import TeamSpec
from arkjax.text.chat import Chat
from arkjax.text.tokenizer import Tokenizer
from arkjax.trajectories.store import CallStore

NO_ROOM = "the question does not fit into the model's context"


@dataclasses.dataclass(frozen=True)
class Answer:
    """What one system answered to one problem.

    Attributes:
      outcome: the row of the outcome table.
      text: the words in which the answer was given; of a vote, the last that gave it.
      reason: why the grader said so.
      scores: graded figures, such as "f1", by name; none if the grader has none.
    """

    outcome: Outcome
    text: str
    reason: str
    scores: Mapping[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Contest:
    """The problems, and what all systems have in common.

    Attributes:
      problems: of one task.
      split: their split.
      grader: the task's; a `ScoredGrader` gives graded figures as well.
      chat, tokenizer: of the model.
      context: tokens that the model holds.
      seed: with team, problem and model it determines every token.
      model_id: identity of the model's weights.
      directory: where calls are recorded, a store for each system.
    """

    problems: Sequence[Problem]
    split: str
    grader: Grader
    chat: Chat
    tokenizer: Tokenizer
    context: int
    seed: int
    model_id: str
    directory: Path

    def tokens(self, team: TeamSpec) -> list[int]:
        """Tokens that the longest call of each problem can need."""
        return tokens_needed(team, self.problems, self.chat, team_tools(team))

    def needed(self, team: TeamSpec) -> list[int]:
        """As `tokens`, of a team that can play.

        Raises:
          DataError: if not one of the problems fits into the context: figures of none would read as
            if something had been measured.
        """
        tokens = self.tokens(team)
        if min(tokens) > self.context:
            task = self.problems[0].task
            raise DataError(
                f"{task}, split {self.split}: none of the {len(tokens):,} problems fits into the "
                f"model's context with team {team.name!r}: the shortest needs {min(tokens):,} "
                f"tokens with its answer, and the model holds {self.context:,}; give a model with "
                "a longer context, shorter problems or a smaller --max-tokens"
            )
        return tokens

    def play(
        self,
        system: str,
        team: TeamSpec,
        generator: Generator,
        progress: Progress,
        known: Sequence[str] = (),
    ) -> list[Answer]:
        """A system's answers, in the order of the problems; recorded calls are not made again.

        Args:
          system: its name.
          team: who plays.
          generator: plays every agent.
          progress: shows problems, rate, time left and accuracy.
          known: systems whose calls are the same where they coincide.
        """
        fits = [needed <= self.context for needed in self.tokens(team)]
        played = [problem for problem, fit in zip(self.problems, fits, strict=True) if fit]
        answers: dict[str, Answer] = {}
        right = 0
        store = CallStore(self.directory / system)
        shown = progress.task(system, total=len(played), unit="problems")
        with shown as task, store:
            for _, debate in play_as_finished(
                team,
                played,
                dict.fromkeys(team.models, generator),
                self.chat,
                self.tokenizer,
                self.grader,
                store,
                self.seed,
                None,
                [CallStore(self.directory / name) for name in known],
                model_ids=dict.fromkeys(team.models, self.model_id),
            ):
                answers[debate.problem.id] = self._answer(system, debate)
                right += debate.correct
                task.advance(1, f"{right / len(answers):.1%} right")
        return [answers.get(p.id) or self._none(system, p) for p in self.problems]

    def _answer(self, system: str, debate: Debate) -> Answer:
        (outcome,) = outcomes_of([debate], system=system, split=self.split, seed=self.seed)
        text = self._said(debate)
        reason = self.grader.grade(debate.problem, text).reason
        return Answer(outcome, text, reason, self._scores(debate.problem, text))

    def _said(self, debate: Debate) -> str:
        """The last words that gave the answer; the last at all if none was given."""
        spoken = [call.text for call in debate.calls if not call.is_action]
        for text in reversed(spoken):
            read = self.grader.extract(text)
            if None not in (read, debate.answer) and self.grader.equal(read, debate.answer):
                return text
        return spoken[-1] if spoken else ""

    def _none(self, system: str, problem: Problem) -> Answer:
        outcome = Outcome(
            seed=self.seed,
            split=self.split,
            system=system,
            problem_id=problem.id,
            part=str(problem.meta.get("part", "")),
            domain=problem.domain,
            correct=False,
            answer="",
            calls=0,
            prompt_tokens=0,
            generated_tokens=0,
            seconds=0.0,
            difficulty=str(problem.meta.get("difficulty", "")),
            in_pool=False,
            opening_correct=False,
            confidence=0.0,
            rounds=0,
        )
        return Answer(outcome, "", NO_ROOM, self._scores(problem, ""))

    def _scores(self, problem: Problem, text: str) -> dict[str, float]:
        graded = isinstance(self.grader, ScoredGrader)
        return dict(self.grader.score(problem, text)) if graded else {}


def with_tokens(team: TeamSpec, name: str, most: int) -> TeamSpec:
    """A shipped team with answers as long as everybody else's; others say theirs themselves."""
    base, _, options = name.partition(":")
    if base.endswith(".py") or "max_tokens" in options:
        return team
    agents = tuple(
        dataclasses.replace(a, sampling=dataclasses.replace(a.sampling, max_tokens=most))
        for a in team.agents
    )
    return dataclasses.replace(team, agents=agents, path=f"team {name}")


def opening_roles(team: TeamSpec) -> list[str]:
    """The roles that speak in a team's first stage; none if there is only one."""
    stage, _ = next(iter(team.plays()))
    speakers = [team.agent(name) for name in team.select(stage.speakers)]
    roles = [agent.role for agent in speakers if not agent.tool]
    return roles if len(roles) > 1 else []


def unplayed(answers: Sequence[Answer]) -> int:
    """How many problems did not fit into the context."""
    return sum(answer.reason == NO_ROOM for answer in answers)


def mean_scores(answers: Sequence[Answer]) -> dict[str, float]:
    """The graded figures, averaged over all problems."""
    names = list(dict.fromkeys(name for answer in answers for name in answer.scores))
    return {
        name: sum(answer.scores.get(name, 0.0) for answer in answers) / len(answers)
        for name in names
    }


def write_answers(path: Path, problems: Sequence[Problem], answers: Sequence[Answer]) -> None:
    """Write one JSON object a line for each answer: problem, gold, what was read in it, and why.

    Raises:
      StorageError: if the file cannot be written.
    """
    with open_atomic(path) as file:
        for row in _rows(problems, answers):
            file.write(json.dumps(row, ensure_ascii=False).encode(errors="replace") + b"\n")


def _rows(problems: Sequence[Problem], answers: Sequence[Answer]) -> Iterator[dict[str, Any]]:
    by_id = {problem.id: problem for problem in problems}
    for answer in answers:
        outcome = answer.outcome
        yield {
            "system": outcome.system,
            "id": outcome.problem_id,
            "gold": by_id[outcome.problem_id].answer,
            "extracted": outcome.answer or None,
            "correct": outcome.correct,
            "reason": answer.reason,
            "text": answer.text,
            **({"scores": dict(answer.scores)} if answer.scores else {}),
        }
