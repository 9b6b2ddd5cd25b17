"""Which recorded calls become traces to learn from, and how many each filter kept and dropped.

What is preferred follows one order: that an answer was verified (or, without gold answers, is the
team's) decides whether a call is a trace at all; agreement decides about problems (`min_agreeing`,
`weights="agreement"`); attribution decides among the traces of one problem. What agents say of
their own confidence is not used: turned into weights it is nearly uniform (.27 to .73 for two
teachers in MAD-OPD, arXiv 2605.01347), and it is the model's word on itself.
"""

import collections
import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Literal, get_args

import numpy as np

from arkjax.errors import ConfigError
from arkjax.storage import added
from arkjax.synthesis.attribution import AttributionConfig
from arkjax.synthesis.counts import Counts
from arkjax.synthesis.diversity import (
    Distance,
    Diversity,
    Embedding,
    distance,
    hidden_distance,
    most_diverse,
    step_distance,
)
from arkjax.synthesis.foreign import Foreign
from arkjax.synthesis.minhash import near_duplicates, signatures
from arkjax.synthesis.operations import StepReader
from arkjax.synthesis.steps import StepKind, check_step_kind
from arkjax.synthesis.weights import CreditKind, credit_of
from arkjax.tasks.problems import Grader
from arkjax.trajectories.attribution import Attribution
from arkjax.trajectories.schema import Call

Gate = Literal["gold", "team"]
Form = Literal[
    "none", "best", "corrective", "consolidated", "synthesizer", "deliberation", "answer_only"
]
Attempts = Literal["learned", "shown"]
Balance = Literal["none", "problems"]
Accepted = Callable[[Call], bool]

# Debates whose candidates are embedded together.
_TOGETHER = 64


@dataclasses.dataclass(frozen=True)
class SelectionConfig:
    """How traces are chosen.

    Attributes:
      max_traces: k, most traces of one problem, and most examples.
      min_agreeing: problems with fewer correct calls than this are dropped (AgentArk drops those
        with fewer than two for DA, since a lone right answer may be luck).
      prefer_corrective: take corrective traces before others.
      gate: "gold" keeps calls whose answer the grader accepts; "team" keeps those that agree with
        the team's own answer and never looks at the gold one.
      attribution: what is worked out about who contributed what to the team's debates.
      prefer: of the team's traces, after corrective ones, take first those with the most credit of
        this kind: "none", "influence", "shapley" or "corrected" (`arkjax.synthesis.weights`).
      weights: examples made of the team's traces weigh in training by their credit of this kind, or
        by the share of the problem's answers that agree with theirs ("agreement"); "none" gives all
        the same weight. Neither touches students that never look at gold answers, since credit is
        given for what helped towards these; their agreement is with the team's answer.
      diversity: in what traces of one problem are to differ: "ngrams" of tokens; "steps", what they
        work out in which order; "hidden", what the base model sees in them.
      form: what becomes of a problem's traces: "none", examples as they are; "best", one of them;
        or one of the unified forms of `arkjax.synthesis.unified`.
      fallback: where a form cannot be had, take the best trace as it is, so that forms are compared
        on the same problems; else the problem is left out.
      steps: how answers are cut into steps; see `step_ends`.
      correction: what stands between a wrong step and its correction in corrective examples.
      between: what stands between two messages of a deliberation.
      attempts: whether the wrong attempts of a deliberation are "learned" with the rest of it, or
        only "shown", with weight 0.
      near_duplicates: estimated Jaccard index of token n-grams, in (0, 1], from which an example
        counts as one that is there already, whatever its problem; 0 keeps all.
      balance: "problems" gives every problem the same weight, however many examples it has.
      max_per_difficulty: most problems of each fifth of difficulty, which is the share of answers
        that were accepted; 0 keeps all. Those kept are drawn by a hash of their names.
      foreign: what becomes of calls of a model whose tokenizer is not the student's: "leave_out"
        does that; "reencode" encodes their words anew (`arkjax.synthesis.foreign`).
    """

    max_traces: int
    min_agreeing: int
    prefer_corrective: bool
    gate: Gate = "gold"
    attribution: AttributionConfig = AttributionConfig()
    prefer: CreditKind = "none"
    weights: CreditKind | Literal["agreement"] = "none"
    diversity: Diversity = added("ngrams")
    form: Form = added("none")
    fallback: bool = added(True)
    steps: StepKind = added("auto")
    correction: str = added("\n\nWait, that is not right.\n\n")
    between: str = added("\n\n")
    attempts: Attempts = added("learned")
    near_duplicates: float = added(0.0)
    balance: Balance = added("none")
    max_per_difficulty: int = added(0)
    foreign: Foreign = added("leave_out")

    def __post_init__(self) -> None:
        if self.max_traces < 1 or self.min_agreeing < 1:
            raise ConfigError("synthesis: max_traces and min_agreeing must be at least 1")
        for name in ("prefer", "weights"):
            kind = getattr(self, name)
            if name == "weights" and kind == "agreement":
                continue
            # Who corrected whom is in every attribution.
            if kind not in ("none", "corrected", *self.attribution.kinds):
                raise ConfigError(
                    f"synthesis.{name} is {kind!r}, but synthesis.attribution.kinds is "
                    f"{self.attribution.kinds}: add {kind!r} to it"
                )
        for name, kinds in (
            ("diversity", Diversity),
            ("form", Form),
            ("attempts", Attempts),
            ("balance", Balance),
            ("foreign", Foreign),
        ):
            if getattr(self, name) not in get_args(kinds):
                raise ConfigError(
                    f"synthesis.{name} is {getattr(self, name)!r}: choose one of "
                    f"{', '.join(get_args(kinds))}"
                )
        check_step_kind(self.steps)
        if not 0 <= self.near_duplicates <= 1:
            raise ConfigError(
                f"synthesis.near_duplicates is {self.near_duplicates}: give a similarity in (0, 1],"
                " or 0 to keep all"
            )
        if self.max_per_difficulty < 0:
            raise ConfigError(
                f"synthesis.max_per_difficulty is {self.max_per_difficulty}: give a number of "
                "problems, or 0 to keep all"
            )


@dataclasses.dataclass(frozen=True)
class Trace:
    """A chosen call and why it was kept: "corrective" or "agreeing"."""

    call: Call
    kind: str


@dataclasses.dataclass(frozen=True)
class Correction:
    """How an agent came to be right: what it had said, and who had disagreed with that."""

    before: Call
    objections: tuple[Call, ...]


@dataclasses.dataclass(frozen=True)
class Chosen:
    """What is chosen of one problem.

    Attributes:
      problem_id: the problem.
      calls: all its calls, those of tools aside, in the order spoken.
      finished: the accepted, finished ones, the preferred first.
      traces: the chosen ones of these.
      corrections: of those of `finished` that correct an error, by call id.
      share: of the calls that state an answer, how many were accepted.
    """

    problem_id: str
    calls: tuple[Call, ...]
    finished: tuple[Call, ...]
    traces: tuple[Trace, ...]
    corrections: Mapping[str, Correction]
    share: float


def grouped(calls: Iterable[Call]) -> list[tuple[str, list[Call]]]:
    """Each problem with its calls, by problem id."""
    by_problem: dict[str, list[Call]] = collections.defaultdict(list)
    for call in calls:
        by_problem[call.problem_id].append(call)
    return sorted(by_problem.items())


def unlike(sequences: Sequence[Sequence[int]], threshold: float) -> list[bool]:
    """Which token sequences are not near-duplicates of an earlier one; all, at threshold 0."""
    if not threshold or not sequences:
        return [True] * len(sequences)
    first = near_duplicates(signatures(sequences), threshold)
    return (first == np.arange(len(first))).tolist()


def choose(
    debates: Iterable[tuple[str, Sequence[Call]]],
    team_answers: Mapping[str, str | None],
    grader: Grader,
    config: SelectionConfig,
    counts: Counts,
    attribution: Attribution | None = None,
    reader: StepReader | None = None,
    embed: Embedding | None = None,
) -> Iterator[Chosen]:
    """Choose the traces to learn from, debate by debate; a few debates are held at a time.

    Args:
      debates: problem ids, each once, with all calls of the problem; actions of tools are passed
        over.
      team_answers: the team's answer by problem id, for the gate "team".
      grader: says when two answers are equal.
      config: the filters.
      counts: added to.
      attribution: of the debates that the calls are from, for `config.prefer`.
      reader: of steps, for `config.diversity` "steps".
      embed: of calls, for `config.diversity` "hidden".

    Yields:
      For each debate, in their order, what was chosen of it: traces in the order of preference.

    Raises:
      ConfigError: if the diversity asked for needs what was not given.
    """
    needed = {"steps": ("a reader of steps", reader), "hidden": ("an embedding", embed)}
    what, given = needed.get(config.diversity, ("", True))
    if given is None:
        raise ConfigError(f"synthesis.diversity is {config.diversity!r}: it needs {what}")
    left = iter(debates)
    while some := list(itertools.islice(left, _TOGETHER)):
        found = [
            _candidates(name, calls, team_answers.get(name), grader, config, attribution, counts)
            for name, calls in some
        ]
        between = _between([distinct for _, distinct in found], config, reader, embed)
        for candidates, distinct in found:
            # Where there is nothing to choose, no model was asked.
            by = between if _is_chosen_of(distinct, config) else distance
            calls = most_diverse(distinct, config.max_traces, by)
            counts.beyond_limit += len(distinct) - len(calls)
            counts.passed("limit", len(distinct), len(calls))
            traces = tuple(
                Trace(c, "corrective" if c.call_id in candidates.corrections else "agreeing")
                for c in calls
            )
            yield dataclasses.replace(candidates, traces=traces)


def _between(
    of_problems: Sequence[Sequence[Call]],
    config: SelectionConfig,
    reader: StepReader | None,
    embed: Embedding | None,
) -> Distance:
    """The distance by which the candidates of some problems are compared."""
    if config.diversity == "steps":
        return step_distance(reader)
    if config.diversity == "ngrams":
        return distance
    calls = [call for some in of_problems if _is_chosen_of(some, config) for call in some]
    return hidden_distance(calls, embed(calls)) if calls else distance


def _is_chosen_of(distinct: Sequence[Call], config: SelectionConfig) -> bool:
    """Whether some of a problem's traces have to be left out, and not all but the first."""
    return config.diversity != "hidden" or len(distinct) > config.max_traces > 1


def _candidates(
    problem_id: str,
    calls: Sequence[Call],
    team_answer: str | None,
    grader: Grader,
    config: SelectionConfig,
    attribution: Attribution | None,
    counts: Counts,
) -> tuple[Chosen, list[Call]]:
    """The calls of one problem that may become traces, and of these the distinct ones."""
    # What a tool has written is nobody's words to learn.
    spoken = [call for call in calls if not call.is_action]
    spoken.sort(key=lambda c: (c.round, c.agent, c.sample))
    accepted = acceptance(grader, config.gate, team_answer)
    agreeing = [call for call in spoken if accepted(call)]
    stated = sum(call.parsed.get("answer") is not None or accepted(call) for call in spoken)
    share = len(agreeing) / stated if stated else 0.0
    none = Chosen(problem_id, tuple(spoken), (), (), {}, share)
    # A problem about which only tools have spoken was not looked at.
    counts.problems += bool(spoken)
    counts.calls += len(spoken)
    counts.sampled_tokens += sum(len(call.gen_ids) for call in spoken)
    counts.calls_accepted += len(agreeing)
    counts.passed("gate", len(spoken), len(agreeing))
    enough = len(agreeing) >= config.min_agreeing
    counts.passed("agreement", len(agreeing), len(agreeing) if enough else 0)
    if not enough:
        counts.too_few_agreeing += bool(agreeing)
        return none, []
    finished = [call for call in agreeing if call.finish_reason == "stop"]
    counts.unfinished += len(agreeing) - len(finished)
    counts.passed("finished", len(agreeing), len(finished))
    found = {call.call_id: correction_of(call, spoken, accepted) for call in finished}
    corrections = {name: correction for name, correction in found.items() if correction}

    def credit(call: Call) -> float:
        known = attribution and credit_of(call, attribution, config.prefer)
        return known or 0.0

    # Corrective traces first; then what was said latest, with the most knowledge of the others.
    corrective_first = config.prefer_corrective or config.form == "corrective"
    finished.sort(
        key=lambda c: (
            not (corrective_first and c.call_id in corrections),
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
    counts.passed("distinct", len(finished), len(distinct))
    made = dataclasses.replace(none, finished=tuple(finished), corrections=corrections)
    return made, distinct


def acceptance(grader: Grader, gate: Gate, team_answer: str | None) -> Accepted:
    """What a gate lets pass of one problem's calls."""

    def accepted(call: Call) -> bool:
        if gate == "gold":
            return bool(call.correct)
        answer = call.parsed.get("answer")
        return answer is not None and team_answer is not None and grader.equal(answer, team_answer)

    return accepted


def difficulty(share: float) -> int:
    """The fifth of difficulty of a problem, 0 the hardest, given the share of accepted answers."""
    return min(max(math.ceil(5 * share) - 1, 0), 4)


def correction_of(call: Call, calls: Sequence[Call], accepted: Accepted) -> Correction | None:
    """How a call corrects its author; None if it does not.

    It does if the author, wrong before, is right here after a visible message disagreed with it.

    Args:
      call: the call in question.
      calls: all calls on the same problem.
      accepted: says whether a call's answer counts as right.
    """
    if not accepted(call):
        return None
    before = [c for c in calls if c.agent == call.agent and c.round < call.round]
    if not before:
        return None
    last = max(before, key=lambda c: (c.round, c.sample))
    if accepted(last):
        return None
    wrong_answer, seen = last.parsed.get("answer"), set(call.parents)
    objections = tuple(
        other
        for other in calls
        if other.call_id in seen
        and other.agent != call.agent
        and other.parsed.get("answer") != wrong_answer
    )
    return Correction(last, objections) if objections else None


def is_corrective(call: Call, calls: Sequence[Call], accepted: Accepted) -> bool:
    """Whether a call corrects its author; see `correction_of`."""
    return correction_of(call, calls, accepted) is not None
