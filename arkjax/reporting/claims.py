"""What a run is asked to compare, the test of each comparison, and what a run lacks for it."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from arkjax.evaluation import statistics
from arkjax.evaluation.outcomes import Outcomes
from arkjax.evaluation.statistics import mcnemar, mcnemar_over_seeds
from arkjax.reporting import headline, systems
from arkjax.reporting.section import Split

Claim = tuple[str, str, str, str | None]
TEAM_RIVALS = ("base", "self_consistency", "role_vote")
"""What every team is held against."""

_CALLED_ONE = (
    "A difference is called one only if its interval leaves out zero and its p is at most 0.05 "
    "once Holm's correction allows for all comparisons of this report."
)


def standard_claims(outcomes: Outcomes) -> list[Claim]:
    """The comparisons that every run is asked for, over each split and over its hardest part.

    The team against the votes; each verified student against base, team, its own twin without gold
    answers where there can be one, the controls, and the student that its last phase began with;
    each such twin against the team.
    """
    present = outcomes.distinct("system")
    claims: list[Claim] = []
    for split in systems.ordered_splits(outcomes.distinct("split")):
        hardest = systems.hardest(outcomes.select(split=split).distinct("part"))
        for part in (None, hardest) if hardest else (None,):
            claims += [("team", rival, split, part) for rival in TEAM_RIVALS]
            for student in systems.verified_students(present):
                twin, start = systems.twin(student), systems.start(student)
                named = ("base", "team", twin, *systems.STUDENT_CONTROLS)
                named += (start if start in present else None,)
                claims += [(student, rival, split, part) for rival in named if rival]
                if twin in present:
                    claims.append((twin, "team", split, part))
    return claims


def compare(
    splits: Mapping[str, Split], claims: Sequence[Claim]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Test each claim; those about what was not evaluated are listed apart, with the reason."""
    compared, not_compared = [], []
    for a, b, split_name, part in claims:
        claim = {"a": a, "b": b, "split": split_name, "part": part}
        split = splits.get(split_name)
        absent = [name for name in (a, b) if split and name not in split.systems]
        if split is None or absent or (part and part not in split.groups("part")):
            what = f"part {part!r}" if split and not absent else f"split {split_name!r}"
            what = " and ".join(absent) or what
            not_compared.append({**claim, "reason": f"{what} was not evaluated"})
            continue
        subset = ("part", part) if part else None
        difference = split.bootstrap(subset).difference(a, b)
        cells_a, cells_b = split.chosen(a, subset), split.chosen(b, subset)
        tests = [mcnemar(row_a, row_b) for row_a, row_b in zip(cells_a, cells_b, strict=True)]
        pooled = mcnemar_over_seeds(cells_a, cells_b)
        compared.append(
            {
                **claim,
                "n": cells_a.shape[1],
                "difference": difference.value,
                "ci95": list(difference.ci95),
                "p": difference.p,
                "mcnemar_p_by_seed": [test.p for test in tests],
                "mcnemar": {"only_a": pooled.only_a, "only_b": pooled.only_b, "p": pooled.p},
            }
        )
    adjusted = statistics.holm([entry["p"] for entry in compared])
    for entry, p in zip(compared, adjusted, strict=True):
        entry["p_holm"] = p
        entry["shown"] = headline.is_shown(entry)
        entry["verdict"] = headline.verdict(entry)
    return compared, not_compared


def compare_by_domain(split: Split) -> dict[str, dict[str, dict[str, Any]]]:
    """The team against base and votes in each domain of a split, with Holm over all of these.

    Returns:
      By domain and rival `difference`, `ci95`, `p`, `p_holm` and `shown`; empty without a team.
    """
    rivals = [name for name in TEAM_RIVALS if name in split.systems]
    if "team" not in split.systems:
        return {}
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for domain in split.groups("domain"):
        bootstrap = split.bootstrap(("domain", domain))
        for rival in rivals:
            difference = bootstrap.difference("team", rival)
            entry = {"difference": difference.value, "ci95": list(difference.ci95)}
            found.setdefault(domain, {})[rival] = {**entry, "p": difference.p}
    entries = [entry for of_domain in found.values() for entry in of_domain.values()]
    for entry, p in zip(entries, statistics.holm([e["p"] for e in entries]), strict=True):
        entry["p_holm"] = p
        entry["shown"] = headline.is_shown(entry)
    return found


def missing(present: Collection[str]) -> dict[str, str]:
    """What a full comparison needs and this run lacks, each with what therefore stays unknown.

    A student whose strategy can have no twin without gold answers does not lack one. A single
    system is no comparison, and lacks nothing.
    """
    if len(set(present)) < 2:
        return {}
    lacking = {name: why for name, why in systems.CONTROLS.items() if name not in present}
    for name in ("base", "team"):
        if name not in present:
            lacking[name] = "what the team adds to the model"
    students = systems.verified_students(present)
    if not students:
        lacking["student"] = "what one call keeps of the team"
    for student in students:
        twin = systems.twin(student)
        if twin and twin not in present:
            label = systems.label(student)
            lacking[twin] = f"how much of the gain of {label} is due to the gold answers"
    return lacking


def standing_notes(report: Mapping[str, Any]) -> list[str]:
    """The sentences that a report of this kind always owes its reader."""
    present = {name for split in report["splits"].values() for name in split["systems"]}
    trained = any(systems.kind(n) in ("student", "unverified", "control") for n in present)
    notes = [
        "Intervals are 95% percentile intervals of a paired bootstrap over problems and seeds "
        f"({min(report['resamples'], statistics.RESAMPLES):,} draws, the same for all systems).",
        *([_CALLED_ONE] if len(present) > 1 else []),
        "Costs are what answering takes, averaged over problems and seeds and counted from "
        f"recorded calls{'; training a student is not in them' if trained else ''}.",
        "Confidence is the share of a team's voters that state its answer; of a system of one "
        "call it is the probability that the model gave to the words of its answer.",
    ]
    if len(report["seeds"]) == 1:
        notes.append(
            "One seed: the intervals hold the choice of problems, not the variation between runs."
        )
    elif len(report["seeds"]) < 5:
        notes.append(
            f"{len(report['seeds'])} seeds: few to judge the variation between runs; the "
            "intervals may be too narrow in that respect."
        )
    students = systems.verified_students(present)
    twins = [s for s in students if systems.twin(s) in present]
    alone = [s for s in students if systems.twin(s) is None]
    if twins and alone:
        notes.append(
            f"There is no way to train {', '.join(alone)} without gold answers; what remains "
            f"without them shows the twin of {', '.join(twins)}."
        )
    for name in report["oracle"]:
        notes.append(f"The stop of {name} looks at the gold answer (oracle): no user has that.")
    return notes
