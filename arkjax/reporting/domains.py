"""Where specialists matter, and where the team is only redundancy: by domain of the problems."""

from collections.abc import Mapping
from typing import Any

from arkjax.reporting import systems
from arkjax.reporting.front import listed

MATTER = "specialists matter"
REDUNDANT = "only redundancy, as far as shown"
NONE = "no gain shown"
_SAID = 8  # domains that a sentence names


def vote(found: Mapping[str, Any]) -> str | None:
    """The vote that a team must beat: of single samples at its budget, else of its roles."""
    return next((name for name in ("self_consistency", "role_vote") if name in found), None)


def by_gain(report: Mapping[str, Any], split: str) -> list[dict[str, Any]]:
    """Each domain of a split, the one where the team adds most first.

    Returns:
      `domain`, `n`, `gain` (accuracy of the team minus that of base) and `verdict`: `MATTER`
      where the vote's share of the team's gain has an interval below 1; `REDUNDANT` where that
      interval reaches 1; `NONE` where the team's gain cannot be told from zero; None without a
      vote to tell. Empty where base or team are missing.
    """
    section = report["splits"][split]
    found = section["systems"]
    if not {"base", "team"} <= set(found):
        return []
    rival = vote(found)
    rows = []
    for domain, n in section["domains"].items():
        gains = report["captured_gain_by_domain"][split].get(domain, {})
        gain = found["team"]["by_domain"][domain] - found["base"]["by_domain"][domain]
        share = gains.get(rival or "")
        verdict = None
        if share:
            verdict = NONE
            if share["value"] is not None:
                verdict = MATTER if share["ci95"][1] < 1 else REDUNDANT
        rows.append({"domain": domain, "n": n, "gain": gain, "verdict": verdict})
    return sorted(rows, key=lambda row: (-row["gain"], row["domain"]))


def domain_sentence(report: Mapping[str, Any], split: str) -> str | None:
    """In which domains the team does what a vote cannot; None where nothing tells."""
    rows = [row for row in by_gain(report, split) if row["verdict"]]
    if not rows:
        return None
    rival = systems.label(vote(report["splits"][split]["systems"]) or "")
    told = {
        MATTER: (
            f"Specialists who talk matter in {{}}: there the interval of what {rival} shows of "
            "the team's gain stays below 100%."
        ),
        REDUNDANT: (
            f"In {{}} the team may be only redundancy: {rival} is not shown to gain less than it."
        ),
        NONE: "In {} the team's own gain cannot be told from zero.",
    }
    sentences = []
    for verdict, text in told.items():
        names = [row["domain"] for row in rows if row["verdict"] == verdict]
        if names:
            more = len(names) - _SAID
            shown = names[:_SAID] + ([f"{more} more"] if more > 0 else [])
            all_of_them = len(names) == len(rows) and len(names) > 1
            where = f"all {len(names)} domains" if all_of_them else listed(shown)
            sentences.append(text.format(where))
    return " ".join(sentences)
