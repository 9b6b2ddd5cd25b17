"""Under which prompts the teacher scores the student's words, and with what weight each."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from arkjax.errors import ConfigError, DataError
from arkjax.storage import added
from arkjax.synthesis.weights import credit_of, example_weights
from arkjax.tasks.problems import Grader
from arkjax.trajectories.attribution import Attribution
from arkjax.trajectories.schema import Call

Weighting = Literal["uniform", "correctness", "accuracy", "attribution", "consensus"]


@dataclasses.dataclass(frozen=True)
class ContextConfig:
    """Which of the team's prompts condition the teacher, how they are mixed, and where they count.

    Attributes:
      rounds: "first" uses the roles' prompts before anybody has spoken; "last" those of the last
        round, role and transcript; "all" both.
      agents: "correct" uses the prompts under which the agent's own answer was right, where there
        are any; "all" uses every agent's.
      most: most contexts of one example, earlier rounds dropped first.
      speakers: whose prompts: "all"; "judge", those of agents that speak in the last round alone,
        having read others: a judge, a synthesizer, an aggregator; "debaters", of all others. A
        problem on which none of them spoke uses all. `rounds` counts theirs.
      weights: of an example's contexts, scaled to sum to one; where all would be zero they are
        equal, and contexts of no weight are left out. With N contexts, context k weighs:
        "uniform" 1;
        "correctness" the share of right answers among the calls of this prompt;
        "accuracy" the share of problems that its agent's last answer is right on;
        "attribution" 1/2 + (r - 1/2) / N, r the rank of its credit among the example's contexts
        (`synthesis.weights.example_weights`);
        "consensus" the share of the team's agents whose last answer is that of this context's call.
      credit: what "attribution" ranks: "influence", "shapley" or "corrected".
      mixture: "geometric" is sum_k w_k log p_k, normalised: what all contexts find likely;
        "arithmetic" is sum_k w_k p_k: what any of them does.
      gate: which examples are held to the teacher at all: "none" leaves none out; "verified" keeps
        those whose own answer is right while some context's is right too; "consensus" those whose
        answer is the last one of at least the share `agreement` of the agents.
      agreement: see `gate`.
      token_gate: which tokens are: "none" leaves none out; "consensus" keeps those of which
        contexts of at least the share `token_agreement` of the weight name one token as the most
        probable.
      token_agreement: see `token_gate`.
    """

    rounds: Literal["first", "last", "all"]
    agents: Literal["correct", "all"]
    most: int
    speakers: Literal["all", "debaters", "judge"] = added("all")
    weights: Weighting = added("uniform")
    credit: Literal["influence", "shapley", "corrected"] = added("corrected")
    mixture: Literal["geometric", "arithmetic"] = added("geometric")
    gate: Literal["none", "verified", "consensus"] = added("none")
    agreement: float = added(0.5)
    token_gate: Literal["none", "consensus"] = added("none")
    token_agreement: float = added(0.5)

    def __post_init__(self) -> None:
        if self.most < 1:
            raise ConfigError(f"teacher.contexts.most is {self.most}: it must be at least 1")
        for name in ("agreement", "token_agreement"):
            if not 0 < getattr(self, name) <= 1:
                raise ConfigError(
                    f"teacher.contexts.{name} is {getattr(self, name)}: it is a share, above 0 and "
                    "at most 1"
                )

    @property
    def uses_gold(self) -> bool:
        """Whether gold answers decide what the teacher says."""
        weighed = self.weights in ("correctness", "accuracy", "attribution")
        return self.agents == "correct" or weighed or self.gate == "verified"


class TeacherContext(NamedTuple):
    """A prompt under which the teacher reads an example's target, and its share of the mixture."""

    prompt: tuple[int, ...]
    weight: float


@dataclasses.dataclass(frozen=True)
class TeacherView:
    """How the teacher sees one example.

    Attributes:
      contexts: at least one; their weights sum to one.
      gate: 1 where the example is held to the teacher, 0 where it is not.
    """

    contexts: tuple[TeacherContext, ...]
    gate: float = 1.0


def plain_view(prompts: Sequence[Sequence[int]]) -> TeacherView:
    """Prompts of equal weight behind an open gate."""
    share = 1.0 / max(len(prompts), 1)
    return TeacherView(tuple(TeacherContext(tuple(prompt), share) for prompt in prompts))


def teacher_views(
    calls: Mapping[str, Sequence[Call]],
    provenances: Sequence[Mapping[str, Any]],
    config: ContextConfig,
    grader: Grader,
    attribution: Attribution | None = None,
) -> list[TeacherView]:
    """How the teacher sees each of the examples: `teacher_contexts` for all of them.

    Args:
      calls: the team's calls by problem.
      provenances: of the examples.
      config: which contexts.
      grader: says when two answers are equal.
      attribution: of the debates, for `config.weights` "attribution".

    Raises:
      ConfigError: as `teacher_contexts`, or if prompts of a judge are asked for and nowhere is one.
      DataError: as `teacher_contexts`.
    """
    if config.speakers == "judge" and not any(map(_judges, calls.values())):
        raise ConfigError(
            'teacher.contexts.speakers is "judge", but in this team nobody speaks in the last '
            'round alone, having read others: set it to "all", or choose a team with a judge'
        )
    accuracy = agent_accuracy(calls) if config.weights == "accuracy" else None
    return [
        teacher_contexts(
            calls.get(provenance.get("problem_id"), ()),
            provenance,
            config,
            grader,
            attribution=attribution,
            accuracy=accuracy,
        )
        for provenance in provenances
    ]


def teacher_contexts(
    calls: Sequence[Call],
    provenance: Mapping[str, Any],
    config: ContextConfig,
    grader: Grader,
    *,
    attribution: Attribution | None = None,
    accuracy: Mapping[str, float] | None = None,
) -> TeacherView:
    """How the teacher sees one example.

    Args:
      calls: the team's calls on its problem.
      provenance: of the example; the last of its `call_ids` is the call whose answer it gives,
        unless it says `answer` and `correct` itself.
      config: which contexts.
      grader: says when two answers are equal.
      attribution: of the debates, for `config.weights` "attribution".
      accuracy: by agent, for `config.weights` "accuracy".

    Raises:
      ConfigError: if `config.weights` needs attribution or accuracy that is not given.
      DataError: if there is no call on the problem, or a gate has to know the example's answer and
        its call is not among them.
    """
    calls = [call for call in calls if not call.is_action]
    if not calls:
        raise DataError(
            f"the team made no call on problem {provenance.get('problem_id', 'unknown')}, on which "
            "there is an example: sample it with the team, or drop the example"
        )
    by_prompt: dict[tuple[int, ...], list[Call]] = {}
    for call in _chosen(calls, config):
        by_prompt.setdefault(call.prompt_ids, []).append(call)
    voters = _last_answers(calls)
    weights = _weights(list(by_prompt.values()), voters, config, grader, attribution, accuracy)
    contexts = [
        TeacherContext(prompt, weight)
        for prompt, weight in zip(by_prompt, weights, strict=True)
        if weight > 0
    ][: config.most]
    total = sum(context.weight for context in contexts)
    shares = tuple(context._replace(weight=context.weight / total) for context in contexts)
    kept = {context.prompt for context in shares}
    right = any(call.correct for prompt in kept for call in by_prompt[prompt])
    return TeacherView(shares, float(_open(calls, provenance, config, grader, voters, right)))


def teacher_prompts(calls: Sequence[Call], config: ContextConfig) -> list[tuple[int, ...]]:
    """Prompts of the team, as recorded, that make its distribution over a student's answer.

    Args:
      calls: the team's calls on one problem.
      config: which to take; weights and gates are `teacher_contexts`'.

    Returns:
      Distinct prompts, latest round first; at least one if there is any call.
    """
    calls = [call for call in calls if not call.is_action]
    return list(dict.fromkeys(call.prompt_ids for call in _chosen(calls, config)))[: config.most]


def agent_accuracy(calls: Mapping[str, Sequence[Call]]) -> dict[str, float]:
    """Of each agent, the share of the problems it answered that its last answer is right on.

    Args:
      calls: by problem.
    """
    verdicts: dict[str, list[bool]] = {}
    for of_problem in calls.values():
        for agent, call in _last_answers(of_problem).items():
            verdicts.setdefault(agent, []).append(bool(call.correct))
    return {agent: sum(right) / len(right) for agent, right in verdicts.items()}


def _chosen(calls: Sequence[Call], config: ContextConfig) -> list[Call]:
    """The calls whose prompts are taken, latest round first."""
    judges = _judges(calls)
    if config.speakers != "all":
        wanted = config.speakers == "judge"
        calls = [call for call in calls if (call.agent in judges) == wanted] or calls
    rounds = sorted({call.round for call in calls})
    wanted = {"first": rounds[:1], "last": rounds[-1:], "all": rounds}[config.rounds]
    chosen = [call for call in calls if call.round in wanted]
    if config.agents == "correct":
        chosen = [call for call in chosen if call.correct] or chosen
    return sorted(chosen, key=lambda c: (-c.round, c.agent, c.sample, c.step))


def _judges(calls: Sequence[Call]) -> set[str]:
    """Agents that speak in the last round alone, having read others."""
    calls = [call for call in calls if not call.is_action]
    last = max((call.round for call in calls), default=0)
    by_agent: dict[str, list[Call]] = {}
    for call in calls:
        by_agent.setdefault(call.agent, []).append(call)
    return {
        agent
        for agent, own in by_agent.items()
        if last > 0 and all(call.round == last and call.parents for call in own)
    }


def _last_answers(calls: Sequence[Call]) -> dict[str, Call]:
    """The last call of each agent that states an answer."""
    answering = [c for c in calls if not c.is_action and c.parsed.get("answer") is not None]
    answering.sort(key=lambda c: (c.agent, c.round, c.step, c.sample))
    return {call.agent: call for call in answering}


def _agreeing(answer: str | None, voters: Mapping[str, Call], grader: Grader) -> float:
    """The share of agents whose last answer is this one."""
    if answer is None or not voters:
        return 0.0
    equal = [grader.equal(call.parsed["answer"], answer) for call in voters.values()]
    return sum(equal) / len(equal)


def _weights(
    contexts: Sequence[Sequence[Call]],
    voters: Mapping[str, Call],
    config: ContextConfig,
    grader: Grader,
    attribution: Attribution | None,
    accuracy: Mapping[str, float] | None,
) -> list[float]:
    """Of contexts, each given by the calls of its prompt; see `ContextConfig.weights`."""
    match config.weights:
        case "correctness":
            weights = [_mean([float(bool(c.correct)) for c in calls]) for calls in contexts]
        case "accuracy":
            if accuracy is None:
                raise ConfigError('teacher.contexts.weights is "accuracy": give the agents\'')
            weights = [_mean([accuracy.get(c.agent, 0.0) for c in calls]) for calls in contexts]
        case "attribution":
            if attribution is None:
                raise ConfigError(
                    'teacher.contexts.weights is "attribution", but the debates were not '
                    "attributed: attribute them, or choose other weights"
                )
            credits = []
            for calls in contexts:
                of_calls = [credit_of(c, attribution, config.credit) for c in calls]
                known = [credit for credit in of_calls if credit is not None]
                credits.append(_mean(known) if known else None)
            weights = example_weights(credits)
        case "consensus":
            weights = [
                _mean([_agreeing(c.parsed.get("answer"), voters, grader) for c in calls])
                for calls in contexts
            ]
        case _:
            weights = [1.0] * len(contexts)
    return weights if any(weights) else [1.0] * len(contexts)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _open(
    calls: Sequence[Call],
    provenance: Mapping[str, Any],
    config: ContextConfig,
    grader: Grader,
    voters: Mapping[str, Call],
    right: bool,
) -> bool:
    """Whether the example passes `config.gate`; `right`: whether a context's own answer is."""
    if config.gate == "none":
        return True
    if "answer" in provenance and "correct" in provenance:
        answer, correct = provenance["answer"], provenance["correct"]
    else:
        own = provenance.get("call_ids") or (None,)
        call = next((call for call in calls if call.call_id == own[-1]), None)
        if call is None:
            raise DataError(
                f"teacher.contexts.gate is {config.gate!r}, but the call {own[-1]} that an example "
                f"on problem {provenance.get('problem_id', 'unknown')} comes from is none of the "
                "team's: set the gate to \"none\", or make examples of the team's calls"
            )
        answer, correct = call.parsed.get("answer"), call.correct
    if config.gate == "verified":
        return bool(correct) and right
    # A share is a fraction of few agents: the tolerance is for its rounding alone.
    return _agreeing(answer, voters, grader) >= config.agreement - 1e-9
