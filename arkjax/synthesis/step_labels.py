"""Which steps are right: by what those who answered right, or as the team did, say at that point.

AgentArk (arXiv 2602.03955) takes the step that agrees with the consensus as the positive and the
other agents' steps at that point as its negatives (eq. 7), and says no more. Here a step *agrees*
with another answer if that has a step of the same content (`step_alignment.step_content`), whatever
the order; it *disagrees* if its counterpart there says something else; an answer without a
counterpart says nothing of it. Labels of other origin, such as those of `step_rollouts`, take the
place of these and make sets in the same way.
"""

import dataclasses
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Literal, get_args

from arkjax.errors import ConfigError, DataError
from arkjax.progress import Task
from arkjax.synthesis.judged_answers import UNKNOWN, Judged, JudgedAnswer, Step, StepSet, by_problem
from arkjax.synthesis.step_alignment import Content, align, step_content
from arkjax.synthesis.steps import StepKind, check_step_kind, step_ends
from arkjax.tasks.problems import Grader
from arkjax.text.tokenizer import Tokenizer
from arkjax.trajectories.schema import Call

LabelSource = Literal["peers", "rollouts"]
Gate = Literal["gold", "team"]


@dataclasses.dataclass(frozen=True)
class StepLabelConfig:
    """How the steps of recorded answers are labelled.

    Attributes:
      source: "peers" compares the team's answers with each other and asks no model; "rollouts"
        continues each step and counts the right ends (Math-Shepherd, arXiv 2312.08935).
      gate: whose word counts: "gold" that of answers that the grader accepts; "team" that of
        answers that agree with the team's own, and no gold answer is looked at.
      steps: what a step is; see `steps.step_ends`.
      content: when two steps say the same; see `step_alignment.step_content`.
      hard: labels are 0 or 1: of peers whether at least half agree, of roll-outs whether any ends
        right (hard estimation there, eq. 3); else the share itself (soft estimation, eq. 4).
      min_references: problems with fewer answers whose word counts are left out, since the only
        one may be right by luck (AgentArk drops those with fewer than two).
      negatives: most negatives of one set.
      rollouts: N, continuations of each step.
      rollout_temperature: at which they are drawn.
      rollout_tokens: most tokens of an answer and its continuation together; steps that end there
        or later get no label.
    """

    source: LabelSource = "peers"
    gate: Gate = "gold"
    steps: StepKind = "auto"
    content: Content = "numbers"
    hard: bool = False
    min_references: int = 2
    negatives: int = 4
    rollouts: int = 8
    rollout_temperature: float = 1.0
    rollout_tokens: int = 1024

    def __post_init__(self) -> None:
        check_step_kind(self.steps)
        for name, choices in (("source", LabelSource), ("gate", Gate), ("content", Content)):
            if getattr(self, name) not in get_args(choices):
                raise ConfigError(
                    f"labels.{name} is {getattr(self, name)!r}: expected "
                    f"{' or '.join(map(repr, get_args(choices)))}"
                )
        if self.min_references < 2:
            raise ConfigError(
                f"labels.min_references is {self.min_references}: a step is compared with other "
                "answers than its own, so there must be at least 2"
            )
        for name in ("negatives", "rollouts", "rollout_tokens"):
            if getattr(self, name) < 1:
                raise ConfigError(f"labels.{name} is {getattr(self, name)}: it must be positive")
        if self.rollout_temperature <= 0:
            raise ConfigError(
                f"labels.rollout_temperature is {self.rollout_temperature}: it must be positive, "
                "or all continuations are the same"
            )


def judged_answers(
    calls: Iterable[Call],
    prompts: Mapping[str, Sequence[int]],
    team_answers: Mapping[str, str | None],
    grader: Grader,
    tokenizer: Tokenizer,
    config: StepLabelConfig,
    *,
    end_ids: Collection[int] | None = None,
) -> list[JudgedAnswer]:
    """Recorded calls as answers to the bare prompt: outcomes known, steps not yet labelled.

    Calls of one problem with the same tokens become one answer with as many votes. Actions of tools
    and calls without words are passed over.

    Args:
      calls: in any order.
      prompts: what the reward model reads before the answers, by problem id: the prompt under which
        students are asked.
      team_answers: the team's answer by problem id, for the gate "team".
      grader: says when two answers are equal.
      tokenizer: of the calls' tokens.
      config: gate and kind of steps.
      end_ids: tokens that end an answer; None takes the tokenizer's.

    Raises:
      DataError: if a problem has no prompt.
    """
    found: dict[tuple[str, tuple[int, ...]], JudgedAnswer] = {}
    ordered = sorted(calls, key=lambda c: (c.problem_id, c.round, c.agent, c.sample, c.step))
    for call in ordered:
        if call.is_action:
            continue
        key = call.problem_id, call.gen_ids
        if (same := found.get(key)) is not None:
            found[key] = dataclasses.replace(same, votes=same.votes + 1)
            continue
        ends = step_ends(call.gen_ids, tokenizer, config.steps, end_ids)
        if not ends:
            continue
        if call.problem_id not in prompts:
            raise DataError(
                f"call {call.call_id} is about problem {call.problem_id}, for which no prompt is "
                "given: give the problems that the calls were made for"
            )
        found[key] = JudgedAnswer(
            problem_id=call.problem_id,
            call_id=call.call_id,
            prompt_ids=tuple(prompts[call.problem_id]),
            answer_ids=call.gen_ids,
            step_ends=ends,
            labels=(UNKNOWN,) * len(ends),
            outcome=_outcome(call, team_answers.get(call.problem_id), grader, config.gate),
        )
    return list(found.values())


def label_by_peers(
    answers: Sequence[JudgedAnswer],
    tokenizer: Tokenizer,
    config: StepLabelConfig,
    task: Task | None = None,
) -> Judged:
    """Label each step by its agreement with the answers whose word counts, and make sets of steps.

    A step's label is the share of them that agrees with it, among those that say something of it;
    an answer never votes on its own steps, unless other calls said the very same.

    Args:
      answers: as `judged_answers` gives them.
      tokenizer: of their tokens.
      config: how to label.
      task: told how many problems are done.
    """

    def labels(own: Sequence[JudgedAnswer], reading: "_Reading") -> list[tuple[float, ...]]:
        references = [i for i, answer in enumerate(own) if answer.outcome == 1]
        return [
            tuple(
                _label(reading.shares(i, step, references, own), config.hard)
                for step in range(len(own[i].step_ends))
            )
            for i in range(len(own))
        ]

    return _judged(answers, tokenizer, config, labels, task)


def with_sets(
    answers: Sequence[JudgedAnswer],
    tokenizer: Tokenizer,
    config: StepLabelConfig,
    task: Task | None = None,
) -> Judged:
    """Answers that have labels already, with the sets of steps that follow from these."""
    return _judged(answers, tokenizer, config, lambda own, _: [a.labels for a in own], task)


class _Reading:
    """What the steps of one problem's answers say, and how they go together."""

    def __init__(
        self, answers: Sequence[JudgedAnswer], tokenizer: Tokenizer, content: Content
    ) -> None:
        self._texts = [answer.texts(tokenizer) for answer in answers]
        self.contents = [[step_content(t, content) for t in texts] for texts in self._texts]
        self._sets = [frozenset(contents) for contents in self.contents]
        self._aligned: dict[tuple[int, int], list[int | None]] = {}

    def counterpart(self, answer: int, step: int, other: int) -> int | None:
        """The step of another answer at the point of this one."""
        if (answer, other) not in self._aligned:
            self._aligned[answer, other] = align(self._texts[answer], self._texts[other])
        return self._aligned[answer, other][step]

    def says(self, answer: int, step: int, other: int) -> bool | None:
        """Whether another answer agrees with a step; None if it says nothing of it."""
        if self.contents[answer][step] in self._sets[other]:
            return True
        return None if self.counterpart(answer, step, other) is None else False

    def shares(
        self, answer: int, step: int, references: Sequence[int], answers: Sequence[JudgedAnswer]
    ) -> tuple[int, int]:
        """How many calls agree with a step, and how many say something of it."""
        agree = say = 0
        for other in references:
            votes = answers[other].votes - (other == answer)
            said = True if other == answer else self.says(answer, step, other)
            if said is not None:
                agree += votes * said
                say += votes
        return agree, say


def _judged(
    answers: Sequence[JudgedAnswer],
    tokenizer: Tokenizer,
    config: StepLabelConfig,
    label: Callable[[Sequence[JudgedAnswer], _Reading], list[tuple[float, ...]]],
    task: Task | None,
) -> Judged:
    labelled: list[JudgedAnswer] = []
    sets: list[StepSet] = []
    for _, indices in by_problem(answers):
        own = [answers[i] for i in indices]
        if task:
            task.advance(1)
        if sum(a.votes for a in own if a.outcome == 1) < config.min_references:
            continue
        reading = _Reading(own, tokenizer, config.content)
        own = [
            dataclasses.replace(answer, labels=labels)
            for answer, labels in zip(own, label(own, reading), strict=True)
        ]
        sets += _sets(own, reading, config.negatives, len(labelled))
        labelled += own
    return Judged(tuple(labelled), tuple(sets))


def _sets(
    answers: Sequence[JudgedAnswer], reading: _Reading, most: int, offset: int
) -> list[StepSet]:
    """One set for each right step of an answer that ends right, where others go wrong.

    A reward is a function of the answer up to its step: of steps with the same beginning one is
    taken. Those that say what the positive says are no negatives, however they go on.
    """
    sets, done = [], set()
    for i, answer in enumerate(answers):
        if answer.outcome != 1:
            continue
        for step, label in enumerate(answer.labels):
            prefix = answer.prefix(step)
            # False too where nothing is known of the step.
            if not label >= 0.5 or prefix in done:
                continue
            done.add(prefix)
            negatives: dict[tuple[int, ...], Step] = {}
            for j, other in enumerate(answers):
                at = reading.counterpart(i, step, j) if i != j else None
                if (
                    at is not None
                    and other.labels[at] < 0.5
                    and reading.contents[j][at] != reading.contents[i][step]
                ):
                    negatives.setdefault(other.prefix(at), Step(offset + j, at))
            if negatives:
                chosen = tuple(negatives.values())[:most]
                sets.append(StepSet(Step(offset + i, step), chosen))
    return sets


def _label(shares: tuple[int, int], hard: bool) -> float:
    agree, say = shares
    if not say:
        return UNKNOWN
    return float(2 * agree >= say) if hard else agree / say


def _outcome(call: Call, team_answer: str | None, grader: Grader, gate: Gate) -> float:
    if gate == "gold":
        return UNKNOWN if call.correct is None else float(call.correct)
    answer = call.parsed.get("answer")
    if team_answer is None:
        return UNKNOWN
    return float(answer is not None and grader.equal(answer, team_answer))
