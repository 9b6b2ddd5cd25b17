"""The systems a report shows: their order, their names for people, what each of them is."""

from collections.abc import Iterable

# What each control is for: the report's first line names those that are missing, and why.
CONTROLS = {
    "self_consistency": "whether votes over single samples at the team's budget do as well",
    "role_vote": "whether the roles without talking do as well",
    "control_single_agent": "whether a student of single-agent samples does as well",
    "control_no_debate": "whether a student of role samples without debate does as well",
}

_FIRST = ("base", "self_consistency", "role_vote", "team")
_NAMES = {
    "base": "base",
    "self_consistency": "self-consistency",
    "role_vote": "role vote",
    "team": "team",
    "control_single_agent": "control: single agent",
    "control_no_debate": "control: no debate",
}
_ACRONYMS = {"da", "rsft", "pad", "kl", "grpo", "gkd"}
MEANINGS = {
    "base": "the model, one greedy call",
    "vote": "many calls, one vote, no communication",
    "team": "many calls that read each other",
    "student": "one call, trained on verified team traces",
    "unverified": "one call, trained on what the team agreed on, no gold answers",
    "control": "one call, trained without any debate, or on answers alone",
    "other": "another system",
}


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


def label(system: str) -> str:
    """The name that people read."""
    system, run = of_run(system)
    if run:
        return f"{label(system)}, {run}"
    if system in _NAMES:
        return _NAMES[system]
    if system.startswith("control_"):
        return "control: " + system.removeprefix("control_").replace("_", " ")
    if kind(system) == "unverified":
        return label(system.removesuffix("_unverified")) + ", no gold"
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


def ordered_splits(splits: Iterable[str]) -> list[str]:
    """The test split first, then the others by name."""
    return sorted(splits, key=lambda split: (split != "test", split))


def ordered_parts(parts: Iterable[str]) -> list[str]:
    """From the easiest part of the embedded world to the hardest, then others by name."""
    known = ("plain", "single", "multi")
    return sorted(parts, key=lambda part: (known.index(part) if part in known else 9, part))


def verified_students(systems: Iterable[str]) -> list[str]:
    """The students that were trained on verified traces."""
    return [system for system in ordered(systems) if kind(system) == "student"]


def start(student: str) -> str | None:
    """The name of the student whose weights a student's last phase began with; None if the base."""
    own, run = of_run(student)
    before = own.rpartition("_then_")[0]
    return with_run(before, run) if before else None


def twin(student: str) -> str:
    """The name of a student's twin that was trained without gold answers."""
    own, run = of_run(student)
    return with_run(f"{own}_unverified", run)


def with_run(system: str, run: str) -> str:
    """The name of a run's system among those of other runs; as it is where `run` is ""."""
    return f"{system}, {run}" if run else system
