"""Which recorded calls become traces to learn from, and how many each filter kept and dropped."""

import collections
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from arkjax.errors import ConfigError
from arkjax.synthesis.attribution import AttributionConfig
from arkjax.synthesis.diversity import most_diverse
from arkjax.synthesis.weights import CreditKind, credit_of
from arkjax.tasks.problems import Grader
from arkjax.trajectories.attribution import Attribution
from arkjax.trajectories.schema import Call

Gate = Literal["gold", "team"]


@dataclasses.dataclass(frozen=True)
class SelectionConfig:
    """How traces are chosen.

    Attributes:
      max_traces: k, most traces of one problem.
      min_agreeing: problems with fewer correct calls than this are dropped (AgentArk drops those
        with fewer than two for DA, since a lone right answer may be luck).
      prefer_corrective: take corrective traces before others.
      gate: "gold" keeps calls whose answer the grader accepts; "team" keeps those that agree with
        the team's own answer and never looks at the gold one.
      attribution: what is worked out about who contributed what to the team's debates.
      prefer: of the team's traces, after corrective ones, take first those with the most credit of
        this kind: "none", "influence", "shapley" or "corrected" (`arkjax.synthesis.weights`).
      weights: examples made of the team's traces weigh in training by their credit of this kind;
        "none" gives all the same weight. Neither touches students that never look at gold
        answers, since credit is given for what helped towards these.
    """

    max_traces: int
    min_agreeing: int
    prefer_corrective: bool
    gate: Gate = "gold"
    attribution: AttributionConfig = AttributionConfig()
    prefer: CreditKind = "none"
    weights: CreditKind = "none"

    def __post_init__(self) -> None:
        if self.max_traces < 1 or self.min_agreeing < 1:
            raise ConfigError("synthesis: max_traces and min_agreeing must be at least 1")
        for name in ("prefer", "weights"):
            kind = getattr(self, name)
            # Who corrected whom is in every attribution.
            if kind not in ("none", "corrected", *self.attribution.kinds):
                raise ConfigError(
                    f"synthesis.{name} is {kind!r}, but synthesis.attribution.kinds is "
                    f"{self.attribution.kinds}: add {kind!r} to it"
                )


@dataclasses.dataclass(frozen=True)
class Trace:
    """A chosen call and why it was kept: "corrective" or "agreeing"."""

    call: Call
    kind: str


@dataclasses.dataclass
class Counts:
    """What the filters of one selection did.

    Attributes:
      problems: problems looked at; `problems_kept` gave at least one trace.
      too_few_agreeing: problems dropped for too few agreeing calls.
      calls: calls looked at; `calls_accepted` passed the gate.
      unfinished: calls dropped because they ran into their token limit.
      repeated: accepted calls whose words stood there already.
      beyond_limit: accepted, distinct calls beyond `max_traces`.
      corrective: traces kept that correct an earlier error; `traces` counts all kept.
      sampled_tokens: tokens generated for all calls looked at: the sampling budget.
    """

    problems: int = 0
    problems_kept: int = 0
    too_few_agreeing: int = 0
    calls: int = 0
    calls_accepted: int = 0
    unfinished: int = 0
    repeated: int = 0
    beyond_limit: int = 0
    corrective: int = 0
    traces: int = 0
    sampled_tokens: int = 0


def select(
    calls: Iterable[Call],
    team_answers: Mapping[str, str | None],
    grader: Grader,
    config: SelectionConfig,
    attribution: Attribution | None = None,
) -> tuple[list[Trace], Counts]:
    """Choose the traces to learn from, problem by problem.

    Args:
      calls: recorded calls of one system; actions of tools are passed over.
      team_answers: the team's answer by problem id, for the gate "team".
      grader: says when two answers are equal.
      config: the filters.
      attribution: of the debates that the calls are from, for `config.prefer`.

    Returns:
      The traces, ordered by problem id and then by preference, and the counts.
    """
    by_problem: dict[str, list[Call]] = collections.defaultdict(list)
    for call in calls:
        # What a tool has written is nobody's words to learn.
        if not call.is_action:
            by_problem[call.problem_id].append(call)
    counts, traces = Counts(), []
    for problem_id in sorted(by_problem):
        of_problem = sorted(by_problem[problem_id], key=lambda c: (c.round, c.agent, c.sample))
        answer = team_answers.get(problem_id)
        chosen = _of_problem(of_problem, answer, grader, config, attribution, counts)
        counts.problems += 1
        counts.problems_kept += bool(chosen)
        traces += chosen
    counts.traces = len(traces)
    counts.corrective = sum(trace.kind == "corrective" for trace in traces)
    return traces, counts


def _of_problem(
    calls: Sequence[Call],
    team_answer: str | None,
    grader: Grader,
    config: SelectionConfig,
    attribution: Attribution | None,
    counts: Counts,
) -> list[Trace]:
    def accepted(call: Call) -> bool:
        if config.gate == "gold":
            return bool(call.correct)
        answer = call.parsed.get("answer")
        return answer is not None and team_answer is not None and grader.equal(answer, team_answer)

    agreeing = [call for call in calls if accepted(call)]
    counts.calls += len(calls)
    counts.sampled_tokens += sum(len(call.gen_ids) for call in calls)
    counts.calls_accepted += len(agreeing)
    if len(agreeing) < config.min_agreeing:
        counts.too_few_agreeing += bool(agreeing)
        return []
    finished = [call for call in agreeing if call.finish_reason == "stop"]
    counts.unfinished += len(agreeing) - len(finished)
    corrects = {call.call_id: is_corrective(call, calls, accepted) for call in finished}

    def credit(call: Call) -> float:
        known = attribution and credit_of(call, attribution, config.prefer)
        return known or 0.0

    # Corrective traces first; then what was said latest, with the most knowledge of the others.
    finished.sort(
        key=lambda c: (
            not (config.prefer_corrective and corrects[c.call_id]),
            -credit(c),
            -c.round,
            c.agent,
            c.sample,
        )
    )
    by_words: dict[tuple[int, ...], Call] = {}
    for call in finished:
        by_words.setdefault(call.gen_ids, call)
    distinct = list(by_words.values())
    counts.repeated += len(finished) - len(distinct)
    chosen = most_diverse(distinct, config.max_traces)
    counts.beyond_limit += len(distinct) - len(chosen)
    return [Trace(call, "corrective" if corrects[call.call_id] else "agreeing") for call in chosen]


def is_corrective(call: Call, calls: Sequence[Call], accepted) -> bool:
    """Whether an agent, wrong before, is right here after a visible message disagreed with it.

    Args:
      call: the call in question.
      calls: all calls on the same problem.
      accepted: says whether a call's answer counts as right.
    """
    if not accepted(call):
        return False
    seen = [other for other in calls if other.call_id in set(call.parents)]
    before = [c for c in calls if c.agent == call.agent and c.round < call.round]
    if not before:
        return False
    last = max(before, key=lambda c: (c.round, c.sample))
    wrong_answer = last.parsed.get("answer")
    return not accepted(last) and any(
        other.agent != call.agent and other.parsed.get("answer") != wrong_answer for other in seen
    )
