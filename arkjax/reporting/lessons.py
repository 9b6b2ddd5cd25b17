"""What each system is, and what it learned from: by its strategy and the counts of a report."""

import dataclasses
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from arkjax.errors import ConfigError
from arkjax.reporting import systems
from arkjax.synthesis.strategies import Dataset, Phase, Strategy, strategy

UNLIKE = 2.0
"""From this factor on, two numbers of examples are called very different."""

_UNTRAINED = {
    "base": "one greedy call of the bare prompt",
    "self_consistency": "a vote over samples of the bare prompt",
    "role_vote": "a vote over the team's roles, none of which hears another",
    "team": "many calls that read each other",
}
_BUDGET = ", as many as cost the team's generated tokens"
_SOURCES = {
    "single_agent": "samples of the bare prompt, as many calls as the team made",
    "roles": "samples of the roles before anybody is heard, as many calls as the team made",
}
_FORMS = {
    "best": "the best trace of a problem's debate",
    "corrective": "errors of the debates, each with the objection and its correction",
    "consolidated": "the steps that those agree on who were right in a debate",
    "synthesizer": "what the debate's judge or synthesiser said",
    "deliberation": "the messages of a debate that led to the answer, as one voice",
    "answer_only": "answers of the debates, without what led to them",
}
_FILTERS = {
    "gold": "right answer",
    "team": "agrees with the team; the gold answer is never looked at",
}
_LEARNS = {
    "sequence": "{}",
    "logit": "the team's token distributions over {}",
    "sequence+logit": "{}, and the team's token distributions over them",
    "on_policy": "{}, and the team's token distributions over the student's own words",
    "pad": "own answers to all training problems, rewarded step by step by a process reward model",
    "grpo": "own answers to all training problems, rewarded by the outcome alone",
}


@dataclasses.dataclass(frozen=True)
class Taught:
    """Of how many examples, of how many problems, one phase learned: of each seed."""

    examples: tuple[int, ...]
    problems: tuple[int, ...]

    @property
    def mean(self) -> float:
        """Examples, averaged over seeds."""
        return sum(self.examples) / len(self.examples)


def span(numbers: Collection[int]) -> str:
    """Numbers by their ends: "1,881", or "1,869 to 1,902"."""
    low, high = min(numbers), max(numbers)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _made(system: str) -> Strategy | None:
    try:
        return strategy(systems.of_run(system)[0])
    except ConfigError:
        return None


def _examples(dataset: Dataset) -> str:
    if dataset.form:
        return _FORMS.get(dataset.form, f"traces of the debates in the form {dataset.form}")
    if dataset.source == "team":
        few = "one trace a problem" if dataset.one_trace else "several diverse traces a problem"
        return f"{few} from the debates (AgentArk eq. {1 if dataset.one_trace else 2})"
    return _SOURCES[dataset.source]


def _trained_on(phase: Phase) -> str:
    return _LEARNS[phase.learns].format(_examples(phase.dataset) if phase.dataset else "")


def _filter(phase: Phase) -> str:
    return _FILTERS[phase.dataset.gate] if phase.dataset else "none: rewards need the gold answer"


def _then(phrases: Iterable[str]) -> str:
    """What each phase says, in order; once if all say the same."""
    said = list(phrases)
    return said[0] if len(set(said)) == 1 else "; then ".join(said)


def what(system: str, present: Collection[str] = ()) -> str:
    """What a system does, or was trained on, in a clause of its own.

    Args:
      system: its name; one that tells no strategy is described by its kind.
      present: the systems of its report; votes have the team's budget where there is a team.
    """
    own = systems.of_run(system)[0]
    if own in _UNTRAINED:
        teams = any(systems.of_run(name)[0] == "team" for name in present)
        return _UNTRAINED[own] + (_BUDGET if own == "self_consistency" and teams else "")
    made = _made(system)
    if made is None:
        return systems.MEANINGS[systems.kind(system)]
    return _then(_trained_on(phase) for phase in made.phases)


def kept(system: str) -> str | None:
    """Which examples a student or control was given; None of what was not trained, or unknown."""
    made = _made(system)
    return _then(_filter(phase) for phase in made.phases) if made else None


def _counted(counts: Mapping[str, Any], dataset: str) -> tuple[int, int] | None:
    found = counts.get(dataset)
    if not isinstance(found, Mapping):
        return None
    examples, problems = found.get("examples") or found.get("traces"), found.get("problems_kept")
    known = isinstance(examples, int) and isinstance(problems, int)
    return (examples, problems) if known else None


def _all_counts(report: Mapping[str, Any], run: str) -> list[Mapping[str, Any]]:
    """The counts that can be about a system: of each seed, or of its run where runs are compared.

    What several runs share, and is shown once, has the counts of all of them.
    """
    if not report.get("runs"):
        return list((report.get("counts_by_seed") or {}).values()) or [report["counts"]]
    by_run = report["counts"]
    return [by_run[run]] if run in by_run else [] if run else list(by_run.values())


def taught(report: Mapping[str, Any], system: str) -> list[Taught | None] | None:
    """What each phase of a student learned from; None for a phase that takes no examples.

    None altogether where the report does not tell, or the system was not trained.
    """
    made = _made(system)
    if made is None:
        return None
    own, run = systems.of_run(system)
    found: list[Taught | None] = []
    for phase in made.phases:
        if phase.dataset is None:
            found.append(None)
            continue
        known = [_counted(one, phase.dataset.name) for one in _all_counts(report, run)]
        numbers = [pair for pair in known if pair]
        # Runs that differ tell nothing about what only one of them has.
        if not numbers or (report.get("runs") and len(set(numbers)) > 1):
            return None
        found.append(Taught(*(tuple(column) for column in zip(*numbers, strict=True))))
    return found


def most_taught(report: Mapping[str, Any], system: str) -> Taught | None:
    """The largest set of examples that a system learned from in any of its phases."""
    known = [one for one in taught(report, system) or () if one]
    return max(known, key=lambda one: one.mean, default=None)


def unlike(report: Mapping[str, Any], student: str, others: Iterable[str]) -> str | None:
    """A sentence for a student and controls that learned from very different numbers of examples.

    None where no number differs by `UNLIKE`, or none is known.
    """
    own = most_taught(report, student)
    if own is None:
        return None
    said = []
    for name in others:
        other = most_taught(report, name)
        if other is None:
            continue
        few, many = sorted((max(own.mean, 1), max(other.mean, 1)))
        if many >= UNLIKE * few:
            size = f"{span(other.examples)} of {span(other.problems)}"
            said.append(f"{systems.label(name)} from {size}")
    if not said:
        return None
    size = f"{span(own.examples)} examples of {span(own.problems)} problems"
    rest = ", ".join(said[:-1]) + " and " + said[-1] if len(said) > 1 else said[0]
    return f"It learned from {size}, but {rest}; that too may make a difference."
