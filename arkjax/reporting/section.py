"""One split of a report: every figure of every system on it."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from arkjax.evaluation import cost, evidence
from arkjax.evaluation.outcomes import Outcomes
from arkjax.evaluation.statistics import Estimate, PairedBootstrap
from arkjax.reporting import systems


class Split:
    """One split's outcomes, with the bootstraps over it and over its parts, domains and levels.

    Args:
      outcomes: of all splits.
      split: which one.
      resamples: draws of every bootstrap.
      devices: how many the generator had.
      measured_by: by system the base and the team that its gain is a share of; of others it is
        "base" and "team".

    Raises:
      DataError: if its systems were not evaluated on the same problems and seeds.
    """

    def __init__(
        self,
        outcomes: Outcomes,
        split: str,
        resamples: int,
        devices: int = 1,
        measured_by: Mapping[str, tuple[str, str]] | None = None,
    ) -> None:
        self.rows = outcomes.select(split=split)
        self.name = split
        self.resamples = resamples
        self.devices = devices
        self._measured_by = measured_by or {}
        self.problems = self.rows.problems(split)
        self.systems = systems.ordered(self.rows.distinct("system"))
        self.cells = self._matrices("correct")
        self._bootstraps: dict[tuple[str, str] | None, PairedBootstrap] = {}

    def _matrices(self, column: str) -> dict[str, np.ndarray]:
        """A column of every system, [S, P] each."""
        return {name: self.rows.matrix(name, self.name, column) for name in self.systems}

    def groups(self, column: str) -> list[str]:
        """The different parts, domains or levels of difficulty of its problems."""
        return sorted(set(self.problems[column].tolist()))

    @functools.cached_property
    def levels(self) -> list[str]:
        """The levels of difficulty that its problems name, the lowest number first."""
        return systems.ordered_levels(level for level in self.groups("difficulty") if level)

    def chosen(self, system: str, subset: tuple[str, str] | None) -> np.ndarray:
        """Cells [S, P'] of the subset's problems; a subset is (column, value)."""
        cells = self.cells[system]
        return cells if subset is None else cells[:, self.problems[subset[0]] == subset[1]]

    def bootstrap(self, subset: tuple[str, str] | None = None) -> PairedBootstrap:
        """The accuracies of all systems on the subset's problems, resampled once."""
        if subset not in self._bootstraps:
            cells = {name: self.chosen(name, subset) for name in self.systems}
            self._bootstraps[subset] = PairedBootstrap(cells, resamples=self.resamples)
        return self._bootstraps[subset]

    @functools.cached_property
    def _pools(self) -> dict[str, evidence.Pool]:
        return evidence.pools(self.cells, self._matrices("in_pool"), self.resamples)

    @functools.cached_property
    def _flips(self) -> dict[str, evidence.Flips]:
        """Of the systems that play several stages."""
        rounds = self._matrices("rounds")
        talking = {name: cells for name, cells in self.cells.items() if rounds[name].max() > 1}
        if not talking:
            return {}
        return evidence.flips(talking, self._matrices("opening_correct"), self.resamples)

    def section(self, oracle: Sequence[str]) -> dict[str, Any]:
        """What `report.json` has of this split."""
        parts, domains = systems.ordered_parts(self.groups("part")), self.groups("domain")
        return {
            "n": len(self.problems["problem_id"]),
            "parts": {part: self._size("part", part) for part in parts},
            "domains": {domain: self._size("domain", domain) for domain in domains},
            "difficulties": {level: self._size("difficulty", level) for level in self.levels},
            "systems": {name: self._system(name, parts, domains, oracle) for name in self.systems},
        }

    def _size(self, column: str, value: str) -> int:
        return int((self.problems[column] == value).sum())

    def _system(
        self, name: str, parts: list[str], domains: list[str], oracle: Sequence[str]
    ) -> dict[str, Any]:
        rows = self.rows.select(system=name)
        by_seed = [float(row.mean()) for row in self.cells[name]]
        by_level = {
            level: {
                "n": self._size("difficulty", level),
                **self._accuracy(name, "difficulty", level),
            }
            for level in self.levels
        }
        by_domain = {domain: self._accuracy(name, "domain", domain) for domain in domains}
        return {
            **_shown(self.bootstrap().accuracy(name)),
            **cost.cost_per_problem(rows, self.devices),
            "per_correct": cost.cost_per_correct(rows, self.devices),
            "by_domain": {domain: entry["accuracy"] for domain, entry in by_domain.items()},
            "by_domain_ci95": {domain: entry["ci95"] for domain, entry in by_domain.items()},
            "by_part": {part: self._accuracy(name, "part", part) for part in parts},
            "by_difficulty": by_level,
            "by_seed": by_seed,
            "over_seeds": _spread(by_seed),
            "pool": _pool(self._pools[name]),
            "flips": _flips(self._flips.get(name)),
            "calibration": self._calibration(name),
            "oracle": name in oracle,
        }

    def _calibration(self, name: str) -> dict[str, Any] | None:
        confidence = self.rows.matrix(name, self.name, "confidence")
        found = evidence.calibration(confidence.ravel(), self.cells[name].ravel())
        if found is None:
            return None
        return {**vars(found), "bins": [vars(one) for one in found.bins]}

    def _accuracy(self, name: str, column: str, value: str) -> dict[str, Any]:
        return _shown(self.bootstrap((column, value)).accuracy(name))

    def _gains_over(self, subset: tuple[str, str] | None) -> dict[str, Any]:
        ends = {name: self._measured_by.get(name, ("base", "team")) for name in self.systems}
        gains = {}
        for name, (base, team) in ends.items():
            measures = any(name in pair for pair in ends.values())
            if not measures and {base, team} <= set(self.systems):
                gain = self.bootstrap(subset).captured_gain(name, base, team)
                ci95 = list(gain.ci95) if gain.ci95 else None
                gains[name] = {"value": gain.value, "ci95": ci95, "reason": gain.reason}
        return gains

    def gains(self) -> dict[str, Any]:
        """The captured gain of every system but base and team; empty without these."""
        return self._gains_over(None)

    def gains_by_domain(self) -> dict[str, Any]:
        """The same in each domain."""
        return {domain: self._gains_over(("domain", domain)) for domain in self.groups("domain")}


def _shown(estimate: Estimate) -> dict[str, Any]:
    return {"accuracy": estimate.value, "ci95": list(estimate.ci95)}


def _spread(by_seed: Sequence[float]) -> dict[str, float] | None:
    """How far runs lie apart: sample standard deviation, lowest and highest; None of one run."""
    if len(by_seed) < 2:
        return None
    deviation = float(np.std(by_seed, ddof=1))
    return {"sd": deviation, "low": min(by_seed), "high": max(by_seed)}


def _pool(pool: evidence.Pool) -> dict[str, Any]:
    gap = {"gap": pool.gap.value, "gap_ci95": list(pool.gap.ci95)}
    return {**_shown(pool.accuracy), **gap}


def _turned(turned: evidence.Turned) -> dict[str, Any]:
    rate = turned.rate
    return {
        "n": turned.n,
        "count": turned.count,
        "rate": None if rate is None else rate.value,
        "ci95": None if rate is None else list(rate.ci95),
    }


def _flips(flips: evidence.Flips | None) -> dict[str, Any] | None:
    if flips is None:
        return None
    return {
        "corrected": _turned(flips.corrected),
        "misled": _turned(flips.misled),
        "net": {"value": flips.net.value, "ci95": list(flips.net.ci95)},
    }
