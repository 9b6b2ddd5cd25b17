"""The report of a run as data: every figure with its interval, every claim with its test."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from arkjax.errors import DataError
from arkjax.evaluation import cost, statistics
from arkjax.evaluation.outcomes import Outcomes
from arkjax.evaluation.statistics import RESAMPLES, PairedBootstrap, mcnemar
from arkjax.reporting import headline, html, plots, systems
from arkjax.storage import storage_errors, write_atomic

SCHEMA = 1
Claim = tuple[str, str, str, str | None]

# Facts of the machine and the hour: two runs of the same config and seeds may differ in these.
_HOST_FACTS = frozenset({"seconds", "wall_seconds", "device", "versions"})


def build_report(
    outcomes: Outcomes,
    *,
    config_hash: str,
    versions: Mapping[str, str],
    device: Mapping[str, Any],
    seeds: Sequence[int],
    wall_seconds: Mapping[str, float],
    claims: Sequence[Claim] | None = None,
    counts: Mapping[str, Any] | None = None,
    process_rewards: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    quality: Mapping[str, Any] | None = None,
    notes: Sequence[str] = (),
    oracle: Sequence[str] = (),
    command: str | None = None,
    resamples: int = RESAMPLES,
) -> dict[str, Any]:
    """Turn the outcome table into the content of `report.json`.

    Args:
      outcomes: rows of all systems, splits and seeds.
      config_hash: of the config that made them.
      versions: of the software; device: what it ran on; wall_seconds: of each stage.
      seeds: the seeds that the outcomes must hold.
      claims: pairs (a, b, split, part or None for the whole split) to compare; None takes
        `standard_claims`.
      counts: what synthesis kept and dropped: nested mappings of numbers.
      process_rewards: by student the figures of its reward model, one mapping a seed.
      quality: how the systems reason, as `arkjax.evaluation.measures.quality_section` gives it, and
        under "judge" what the judge is and took.
      notes: further sentences for the reader.
      oracle: systems with a stop that looks at the gold answer.
      command: what reproduces the run.
      resamples: draws of every bootstrap.

    Returns:
      A mapping that JSON can hold.

    Raises:
      DataError: if the outcomes are empty, hold other seeds, or systems of one split were not
        evaluated on the same problems.
    """
    if not len(outcomes):
        raise DataError("report: no outcomes; run `arkjax evaluate` first")
    if outcomes.distinct("seed") != sorted(seeds):
        raise DataError(
            f"report: outcomes hold seeds {outcomes.distinct('seed')}, the run has "
            f"{sorted(seeds)}; evaluate every seed before reporting"
        )
    names = systems.ordered_splits(outcomes.distinct("split"))
    splits = {name: _Split(outcomes, name, resamples) for name in names}
    sections = {name: split.section(oracle) for name, split in splits.items()}
    gains = {name: split.gains() for name, split in splits.items()}
    claims = standard_claims(outcomes) if claims is None else claims
    comparisons, not_compared = _compare(splits, claims)
    report = {
        "schema": SCHEMA,
        "config_hash": config_hash,
        "versions": dict(versions),
        "device": dict(device),
        "seeds": list(seeds),
        "splits": sections,
        "captured_gain": {
            name: {**gain, "split": names[0]}
            for name, gain in gains[names[0]].items()
            if name.startswith("student")
        },
        "captured_gain_by_split": gains,
        "captured_gain_by_domain": {
            name: split.gains_by_domain() for name, split in splits.items()
        },
        "comparisons": comparisons,
        "not_compared": not_compared,
        "wall_seconds": dict(wall_seconds),
        "counts": dict(counts or {}),
        "process_rewards": {
            name: {**_means(figures), "by_seed": [dict(of_seed) for of_seed in figures]}
            for name, figures in (process_rewards or {}).items()
        },
        "quality": dict(quality or {"measures": {}, "splits": {}, "judge": None}),
        "command": command,
        "missing": _missing(outcomes.distinct("system")),
        "oracle": sorted(oracle),
        "resamples": resamples,
    }
    report["notes"] = [*notes, *_standing_notes(report)]
    sentences = headline.sentences(report)
    report["headline"] = sentences
    return {"first_line": headline.first_line(report), **report}


def _means(figures: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Means over seeds of the numbers that every seed has."""
    numbers = [
        name
        for name in figures[0]
        if all(isinstance(of_seed.get(name), int | float) for of_seed in figures)
    ]
    return {name: sum(one[name] for one in figures) / len(figures) for name in numbers}


def standard_claims(outcomes: Outcomes) -> list[Claim]:
    """The comparisons that every run is asked for, over each split and over its hardest part.

    The team against the votes; each verified student against base, team, its twin without gold
    answers, the controls, and the student that its last phase began with; each such twin against
    the team.
    """
    present = outcomes.distinct("system")
    claims: list[Claim] = []
    for split in systems.ordered_splits(outcomes.distinct("split")):
        parts = outcomes.select(split=split).distinct("part")
        for part in (None, "multi") if "multi" in parts and len(parts) > 1 else (None,):
            rivals = ("base", "self_consistency", "role_vote")
            claims += [("team", rival, split, part) for rival in rivals]
            for student in systems.verified_students(present):
                rivals = ("base", "team", systems.twin(student))
                rivals += ("control_single_agent", "control_no_debate")
                rivals += tuple(
                    rival
                    for rival in ("control_answer_only", systems.start(student))
                    if rival in present
                )
                claims += [(student, rival, split, part) for rival in rivals]
                if systems.twin(student) in present:
                    claims.append((systems.twin(student), "team", split, part))
    return claims


class _Split:
    """One split's outcomes, with the bootstraps over it and over its parts and domains."""

    def __init__(self, outcomes: Outcomes, split: str, resamples: int) -> None:
        self.rows = outcomes.select(split=split)
        self.resamples = resamples
        self.problems = self.rows.problems(split)
        self.systems = systems.ordered(self.rows.distinct("system"))
        self.cells = {name: self.rows.matrix(name, split) for name in self.systems}
        self._bootstraps: dict[tuple[str, str] | None, PairedBootstrap] = {}

    def groups(self, column: str) -> list[str]:
        return sorted(set(self.problems[column].tolist()))

    def chosen(self, system: str, subset: tuple[str, str] | None) -> Any:
        """Cells [S, P'] of the subset's problems; a subset is (column, value)."""
        cells = self.cells[system]
        return cells if subset is None else cells[:, self.problems[subset[0]] == subset[1]]

    def bootstrap(self, subset: tuple[str, str] | None = None) -> PairedBootstrap:
        if subset not in self._bootstraps:
            cells = {name: self.chosen(name, subset) for name in self.systems}
            self._bootstraps[subset] = PairedBootstrap(cells, resamples=self.resamples)
        return self._bootstraps[subset]

    def section(self, oracle: Sequence[str]) -> dict[str, Any]:
        parts, domains = systems.ordered_parts(self.groups("part")), self.groups("domain")
        return {
            "n": len(self.problems["problem_id"]),
            "parts": {part: int((self.problems["part"] == part).sum()) for part in parts},
            "domains": {d: int((self.problems["domain"] == d).sum()) for d in domains},
            "systems": {
                name: self._system(name, parts, domains, name in oracle) for name in self.systems
            },
        }

    def _system(
        self, name: str, parts: list[str], domains: list[str], oracle: bool
    ) -> dict[str, Any]:
        rows = self.rows.select(system=name)
        by_part = {}
        for part in parts:
            estimate = self.bootstrap(("part", part)).accuracy(name)
            by_part[part] = {"accuracy": estimate.value, "ci95": list(estimate.ci95)}
        estimate = self.bootstrap().accuracy(name)
        return {
            "accuracy": estimate.value,
            "ci95": list(estimate.ci95),
            **cost.cost_per_problem(rows),
            "per_correct": cost.cost_per_correct(rows),
            "by_domain": {d: float(self.chosen(name, ("domain", d)).mean()) for d in domains},
            "by_part": by_part,
            "by_seed": [float(row.mean()) for row in self.cells[name]],
            "oracle": oracle,
        }

    def _gains_over(self, subset: tuple[str, str] | None) -> dict[str, Any]:
        if not {"base", "team"} <= set(self.systems):
            return {}
        gains = {}
        for name in self.systems:
            if name not in ("base", "team"):
                gain = self.bootstrap(subset).captured_gain(name)
                ci95 = list(gain.ci95) if gain.ci95 else None
                gains[name] = {"value": gain.value, "ci95": ci95, "reason": gain.reason}
        return gains

    def gains(self) -> dict[str, Any]:
        return self._gains_over(None)

    def gains_by_domain(self) -> dict[str, Any]:
        return {domain: self._gains_over(("domain", domain)) for domain in self.groups("domain")}


def _compare(
    splits: Mapping[str, _Split], claims: Sequence[Claim]
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
        compared.append(
            {
                **claim,
                "n": cells_a.shape[1],
                "difference": difference.value,
                "ci95": list(difference.ci95),
                "p": difference.p,
                "mcnemar_p_by_seed": [test.p for test in tests],
            }
        )
    adjusted = statistics.holm([entry["p"] for entry in compared])
    for entry, p in zip(compared, adjusted, strict=True):
        entry["p_holm"] = p
        entry["verdict"] = headline.verdict(entry)
    return compared, not_compared


def _missing(present: Sequence[str]) -> dict[str, str]:
    """What a full comparison needs and this run lacks, each with what therefore stays unknown."""
    missing = {name: why for name, why in systems.CONTROLS.items() if name not in present}
    for name in ("base", "team"):
        if name not in present:
            missing[name] = "what the team adds to the model"
    students = systems.verified_students(present)
    if not students:
        missing["student"] = "what one call keeps of the team"
    elif not any(systems.twin(student) in present for student in students):
        missing["student_*_unverified"] = "how much of a student's gain is due to the gold answers"
    return missing


def _all_systems(report: Mapping[str, Any]) -> set[str]:
    return {name for split in report["splits"].values() for name in split["systems"]}


def _standing_notes(report: Mapping[str, Any]) -> list[str]:
    """The sentences that a report of this kind always owes its reader."""
    notes = [
        "Intervals are 95% percentile intervals of a paired bootstrap over problems and seeds "
        f"({report['resamples']:,} draws, the same for all systems).",
        "Costs are what answering takes, averaged over problems and seeds and counted from "
        "recorded calls; training a student is not in them.",
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
    students = systems.verified_students(sorted(_all_systems(report)))
    twins = [s for s in students if systems.twin(s) in _all_systems(report)]
    if twins and len(twins) < len(students):
        notes.append(
            f"The unverified twin of {', '.join(twins)} stands for all students: it shows what "
            "remains when no gold answer chooses the traces."
        )
    for name in report["oracle"]:
        notes.append(f"The stop of {name} looks at the gold answer (oracle): no user has that.")
    return notes


def deterministic_view(report: Any) -> Any:
    """The report without times and facts of the host: equal for two runs of the same seeds."""
    if isinstance(report, Mapping):
        kept = (key for key in report if key not in _HOST_FACTS)
        return {key: deterministic_view(report[key]) for key in kept}
    if isinstance(report, list):
        return [deterministic_view(entry) for entry in report]
    return report


def write_report(
    directory: str | Path,
    report: Mapping[str, Any],
    *,
    curves: Mapping[str, Sequence[tuple[float, float]]] | None = None,
    debates: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Write `report.json`, `report.html` and `plots/*.svg`, each whole or not at all.

    Args:
      directory: made if it is not there.
      report: of `build_report`.
      curves: training loss by name: lists of (step, loss).
      debates: of `choose_debates`.

    Raises:
      StorageError: if a file cannot be written.
    """
    directory = Path(directory)
    first = {name: report[name] for name in ("first_line", "schema") if name in report}
    rest = {name: report[name] for name in sorted(report) if name not in first}
    text = json.dumps(_sorted({**first, **rest}), indent=1, ensure_ascii=False, allow_nan=False)
    figures = plots.all_plots(report, curves)
    page = html.render_html(report, curves, debates, figures=figures)
    with storage_errors(directory):
        (directory / "plots").mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        write_atomic(directory / "plots" / f"{name}.svg", plots.standalone(figure))
    write_atomic(directory / "report.html", page)
    write_atomic(directory / "report.json", text + "\n")


def _sorted(value: Any, top: bool = True) -> Any:
    """Mappings below the top in the order of their keys, so that two reports can be diffed."""
    if isinstance(value, Mapping):
        keys = value if top else sorted(value)
        return {key: _sorted(value[key], top=False) for key in keys}
    return [_sorted(entry, False) for entry in value] if isinstance(value, list) else value
