"""The systems a report shows: their order, their names for people, what each of them is."""

import contextlib
import contextvars
import re
from collections.abc import Iterable, Iterator, Mapping

from arkjax.errors import ConfigError
from arkjax.synthesis.strategies import PHASES, Strategy, strategy

# What each control is for: the report's first line names those that are missing, and why.
CONTROLS = {
    "self_consistency": "whether votes over single samples at the team's budget do as well",
    "role_vote": "whether the roles without talking do as well",
    "control_single_agent": "whether a student of single-agent samples does as well",
    "control_no_debate": "whether a student of role samples without debate does as well",
    "control_answer_only": "whether a student of the answers without their reasons does as well",
}
STUDENT_CONTROLS = tuple(name for name in CONTROLS if name.startswith("control_"))
"""Those that answer in one call, as students do."""

_UNVERIFIED = "_unverified"
_FIRST = ("base", "self_consistency", "role_vote", "team")
_NAMES = {
    "base": "base",
    "self_consistency": "self-consistency",
    "role_vote": "role vote",
    "team": "team",
    "control_single_agent": "control: single agent",
    "control_no_debate": "control: no debate",
}
_CALLED: contextvars.ContextVar[Mapping[str, str] | None]
_CALLED = contextvars.ContextVar("called", default=None)
_ACRONYMS = {"da", "rsft", "pad", "kl", "grpo", "gkd"}
MEANINGS = {
    "base": "the model, one greedy call",
    "vote": "many calls, one vote, no communication",
    "team": "many calls that read each other",
    "student": "one call of a model that was trained on what a team said",
    "unverified": "one call of a model that was trained on what a team said, no gold answers",
    "control": "one call of a model that was trained for comparison",
    "other": "another system",
}
"""What systems of each kind are; `arkjax.reporting.lessons` says more of those whose name does."""


def of_run(system: str) -> tuple[str, str]:
    """A system's own name, and the name of its run where several runs are compared, else ""."""
    name, _, run = system.partition(", ")
    return name, run


def kind(system: str) -> str:
    """Which of `MEANINGS` a system is, by its name."""
    system, _ = of_run(system)
    if system in ("self_consistency", "role_vote"):
        return "vote"
    if system.startswith("student"):
        return "unverified" if system.endswith("_unverified") else "student"
    if system.startswith("control"):
        return "control"
    return system if system in ("base", "team") else "other"


@contextlib.contextmanager
def called(names: Mapping[str, str]) -> Iterator[None]:
    """Within it, `label` gives systems these names."""
    before = _CALLED.set(dict(names))
    try:
        yield
    finally:
        _CALLED.reset(before)


def label(system: str) -> str:
    """The name that people read."""
    if own := (_CALLED.get() or {}).get(system):
        return own
    system, run = of_run(system)
    if run:
        return f"{label(system)}, {run}"
    if system in _NAMES:
        return _NAMES[system]
    if system.startswith("control_"):
        return "control: " + system.removeprefix("control_").replace("_", " ")
    if kind(system) == "unverified":
        phases = system.split("_then_")
        # A stack of which the last phase alone is unverified keeps the names of the others.
        whole = all(phase.endswith(_UNVERIFIED) for phase in phases)
        plain = system.replace(_UNVERIFIED, "") if whole else system.removesuffix(_UNVERIFIED)
        return label(plain) + ", no gold"
    words = (word.upper() if word in _ACRONYMS else word for word in system.split("_"))
    return " ".join(words).replace("on policy", "on-policy")


def ordered(systems: Iterable[str]) -> list[str]:
    """Base, votes, team, students each before its twin, controls, the rest by name."""
    ranks = {"student": 5, "unverified": 5, "control": 6, "other": 7}

    def rank(system: str) -> tuple:
        own, run = of_run(system)
        place = _FIRST.index(own) if own in _FIRST else ranks[kind(own)]
        return (place, own.removesuffix("_unverified"), own, run)

    return sorted(systems, key=rank)


HARDEST = {
    "multi": "problems that no single role can solve, so that only a team that shares its results "
    "can be right by skill",
    "far": "problems whose solution is far from what everybody guesses, so that only who checks "
    "and tries again can be right by skill",
}
"""Parts of the embedded worlds on which communication has to show its worth, and why."""


def hardest(parts: Iterable[str]) -> str | None:
    """Which of `HARDEST` is among the parts of a split; None if the split has no other part."""
    parts = list(parts)
    return next((part for part in HARDEST if part in parts and len(parts) > 1), None)


def ordered_splits(splits: Iterable[str]) -> list[str]:
    """The test split first, then the others by name."""
    return sorted(splits, key=lambda split: (split != "test", split))


def ordered_parts(parts: Iterable[str]) -> list[str]:
    """From the easiest part of an embedded world to the hardest, then others by name."""
    known = ("plain", "single", "near", *HARDEST)
    return sorted(parts, key=lambda part: (known.index(part) if part in known else 9, part))


def verified_students(systems: Iterable[str]) -> list[str]:
    """The students that were trained on verified traces."""
    return [system for system in ordered(systems) if kind(system) == "student"]


def start(student: str) -> str | None:
    """The name of the student whose weights a student's last phase began with; None if the base."""
    own, run = of_run(student)
    before = own.rpartition("_then_")[0]
    return with_run(before, run) if before else None


def with_run(system: str, run: str) -> str:
    """The name of a run's system among those of other runs; as it is where `run` is ""."""
    return f"{system}, {run}" if run else system


def twin(student: str) -> str | None:
    """The name of a student's twin: trained in the same phases without gold answers.

    None if there can be none: a phase that learns from rewards, or has no unverified form, needs
    the gold answers; nor is it known of a student whose name tells no phases.
    """
    own, run = of_run(student)
    try:
        phases = strategy(own).phases
    except ConfigError:
        return None
    names = [phase.name.removesuffix(_UNVERIFIED) + _UNVERIFIED for phase in phases]
    if not all(name in PHASES for name in names):
        return None
    return with_run(Strategy(tuple(PHASES[name] for name in names)).student, run)


def natural(text: str) -> tuple[list, str]:
    """What to sort texts by so that numbers in them count as numbers: "9" before "10"."""
    # Words and numbers take turns, so that like is compared with like. Numbers by their length
    # first: a text may have more digits than an integer can be read from.
    pieces: list = re.split("([0-9]+)", text)
    pieces[1::2] = [(len(number.lstrip("0")), number.lstrip("0")) for number in pieces[1::2]]
    return pieces, text


def ordered_levels(levels: Iterable[str]) -> list[str]:
    """Levels of difficulty by the numbers in them: "Level 2" before "Level 10"."""
    return sorted(levels, key=natural)
