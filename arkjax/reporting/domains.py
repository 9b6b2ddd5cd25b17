"""Where the team does what a vote does not, by domain of the problems, as far as it is shown."""

from collections.abc import Mapping
from typing import Any

from arkjax.reporting import systems
from arkjax.reporting.front import listed

ABOVE = "team above every vote"
NOT_ABOVE = "team not shown above every vote"
NONE = "no gain shown"
_SAID = 8  # domains that a sentence names


def _tests(report: Mapping[str, Any], split: str) -> Mapping[str, Mapping[str, Any]]:
    return (report.get("comparisons_by_domain") or {}).get(split) or {}


def by_gain(report: Mapping[str, Any], split: str) -> list[dict[str, Any]]:
    """Each domain of a split, the one where the team adds most first.

    Returns:
      `domain`, `n`, `gain` (accuracy of the team minus that of base) and `verdict`: `NONE` where
      the team is not shown above base; `ABOVE` where it is, and above every vote that was
      evaluated; `NOT_ABOVE` where only the former holds; None where it was not tested, or there is
      no vote. Shown is what `comparisons_by_domain` says is, with Holm over all domains. Empty
      where base or team are missing.
    """
    section = report["splits"][split]
    found = section["systems"]
    if not {"base", "team"} <= set(found):
        return []
    rows = []
    for domain, n in section["domains"].items():
        gain = found["team"]["by_domain"][domain] - found["base"]["by_domain"][domain]
        tests = _tests(report, split).get(domain, {})
        above = {r: test["shown"] and test["difference"] > 0 for r, test in tests.items()}
        verdict = None
        if len(above) > 1:
            verdict = ABOVE if all(above.values()) else NOT_ABOVE if above["base"] else NONE
        rows.append({"domain": domain, "n": n, "gain": gain, "verdict": verdict})
    return sorted(rows, key=lambda row: (-row["gain"], row["domain"]))


def domain_sentence(report: Mapping[str, Any], split: str) -> str | None:
    """In which domains the team is shown above what a vote does; None where nothing tells."""
    rows = [row for row in by_gain(report, split) if row["verdict"]]
    if not rows:
        return None
    tests = _tests(report, split)
    tested = systems.ordered(next(iter(tests.values())))
    rivals = [systems.label(name) for name in tested if name != "base"]
    votes = listed(rivals)
    told = {
        ABOVE: f"In {{}} the team is above {votes}, and above base.",
        NOT_ABOVE: (
            f"In {{}} the team is above base, but not shown to be above "
            f"{'both ' if len(rivals) > 1 else ''}{votes}."
        ),
        NONE: "In {} the team's own gain over base is not shown.",
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
    count = sum(len(of_domain) for of_domain in tests.values())
    sentences.append(
        f"Tested by paired bootstrap in each domain, with Holm's correction over these {count} "
        "comparisons."
    )
    return " ".join(sentences)
