"""The Pareto front of accuracy against cost: which systems no other one makes superfluous."""

from collections.abc import Mapping
from typing import Any

from arkjax.reporting import systems

# What a system costs a problem, by the field of the report; the first that a reader asks for first.
COSTS = {
    "generated_tokens": "generated tokens",
    "calls": "calls",
    "device_seconds": "device-seconds",
    "seconds": "seconds",
}


def pareto(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """The names on the front of `points` (cost, accuracy), the cheapest first, then by name.

    A point is on the front if no other costs at most as much and is at least as accurate, and
    better in one of the two (Pareto 1906). Of equal points all are on it or none.
    """
    ranked = sorted(points, key=lambda name: (points[name][0], -points[name][1], name))
    front: list[str] = []
    best = None
    for name in ranked:
        cost, accuracy = points[name]
        if best is None or accuracy > best[1] or (cost, accuracy) == best:
            front.append(name)
            best = (cost, accuracy)
    return front


def costs(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The costs that every system of a split has; seconds only where device-seconds are unknown."""
    known = [name for name in COSTS if all(entry.get(name) is not None for entry in found.values())]
    return [name for name in known if name != "seconds" or "device_seconds" not in known]


def front(report: Mapping[str, Any], split: str, cost: str) -> list[str]:
    """The systems of a split that are on the front by a cost of `COSTS`, by point estimates."""
    found = report["splits"][split]["systems"]
    return pareto({name: (entry[cost], entry["accuracy"]) for name, entry in found.items()})


def front_sentence(report: Mapping[str, Any], split: str) -> str:
    """Who is on the front, for each cost; costs with the same front share a clause."""
    fronts: dict[tuple[str, ...], list[str]] = {}
    for cost in costs(report["splits"][split]["systems"]):
        on_it = tuple(front(report, split, cost))
        fronts.setdefault(on_it, []).append(COSTS[cost])
    clauses = [
        f"by {listed(measures)} {listed([systems.label(name) for name in on_it])}"
        for on_it, measures in fronts.items()
    ]
    return (
        f"On the Pareto front of {split}, where no other system is both as cheap and as often "
        f"right, stand {'; '.join(clauses)}. Point estimates decide it: where intervals overlap, "
        "another draw of problems may turn the order."
    )


def listed(phrases: list[str]) -> str:
    """Phrases in a row: "a, b and c"."""
    return ", ".join(phrases[:-1]) + " and " + phrases[-1] if len(phrases) > 1 else phrases[0]
