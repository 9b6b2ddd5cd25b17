"""The report of a run as data: every figure with its interval, every claim with its test."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from arkjax.errors import DataError
from arkjax.evaluation.outcomes import Outcomes
from arkjax.evaluation.statistics import RESAMPLES
from arkjax.reporting import headline, html, plots, systems
from arkjax.reporting.claims import (
    Claim,
    compare,
    compare_by_domain,
    missing,
    standard_claims,
    standing_notes,
)
from arkjax.reporting.section import Split
from arkjax.storage import storage_errors, write_atomic

SCHEMA = 1

# Facts of the machine and the hour: two runs of the same config and seeds may differ in these.
_HOST_FACTS = frozenset({"seconds", "device_seconds", "wall_seconds", "device", "versions"})


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
    counts_by_seed: Mapping[int, Mapping[str, Any]] | None = None,
    records: Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]] | None = None,
    process_rewards: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    quality: Mapping[str, Any] | None = None,
    notes: Sequence[str] = (),
    oracle: Sequence[str] = (),
    command: str | None = None,
    resamples: int | None = None,
    measured_by: Mapping[str, tuple[str, str]] | None = None,
    name: str | None = None,
    task: str | None = None,
    labels: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Turn the outcome table into the content of `report.json`.

    Args:
      outcomes: rows of all systems, splits and seeds.
      config_hash: of the config that made them.
      versions: of the software.
      device: what it ran on; `count` is how many devices the generator had, one if it is not there.
      wall_seconds: of each stage.
      seeds: the seeds that the outcomes must hold.
      claims: pairs (a, b, split, part or None for the whole split) to compare; None takes
        `standard_claims`.
      counts: what synthesis kept and dropped under the first seed: nested mappings of numbers.
      counts_by_seed: the same of every seed.
      records: by split and system where the calls are recorded that its figures were counted from:
        for each seed `seed`, `path` of the call store within the run directory, and `calls`.
      process_rewards: by student the figures of its reward model, one mapping a seed.
      quality: how the systems reason, as `arkjax.evaluation.measures.quality_section` gives it, and
        under "judge" what the judge is and took.
      notes: further sentences for the reader.
      oracle: systems with a stop that looks at the gold answer.
      command: what reproduces the run.
      resamples: draws of every bootstrap; None takes `statistics.RESAMPLES`, or as many as it
        takes for the least p that they can show to stay below 0.05 among so many comparisons.
      measured_by: by system the base and the team that its captured gain is a share of; None, and
        for systems not named: "base" and "team".
      name: what the run is called.
      task: of the problems.
      labels: what people read in place of a system's usual name.

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
    claims = standard_claims(outcomes) if claims is None else claims
    if resamples is None:
        # The least p is 2 / (draws + 1), and Holm's correction multiplies it by their number.
        resamples = max(RESAMPLES, math.ceil(4 * len(claims) / headline.LEVEL))
    devices = int(device.get("count", 1))
    splits = {name: Split(outcomes, name, resamples, devices, measured_by) for name in names}
    sections = {name: split.section(oracle) for name, split in splits.items()}
    gains = {name: split.gains() for name, split in splits.items()}
    comparisons, not_compared = compare(splits, claims)
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
        "comparisons_by_domain": {name: compare_by_domain(split) for name, split in splits.items()},
        "wall_seconds": dict(wall_seconds),
        "counts": dict(counts or {}),
        "counts_by_seed": {str(seed): dict(of) for seed, of in (counts_by_seed or {}).items()},
        "records": {
            split: {name: [dict(store) for store in stores] for name, stores in of_split.items()}
            for split, of_split in (records or {}).items()
        },
        "process_rewards": {
            name: {**_means(figures), "by_seed": [dict(of_seed) for of_seed in figures]}
            for name, figures in (process_rewards or {}).items()
        },
        "quality": dict(quality or {"measures": {}, "splits": {}, "judge": None}),
        "command": command,
        "missing": missing(outcomes.distinct("system")),
        "oracle": sorted(oracle),
        "resamples": resamples,
    }
    report |= {key: said for key, said in (("name", name), ("task", task)) if said}
    if labels:
        report["labels"] = dict(labels)
    with systems.called(labels or {}):
        report["notes"] = [*notes, *standing_notes(report)]
        report["headline"] = headline.sentences(report)
        return {"first_line": headline.first_line(report), **report}


def _means(figures: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Means over seeds of the numbers that every seed has."""
    numbers = [
        name
        for name in figures[0]
        if all(isinstance(of_seed.get(name), int | float) for of_seed in figures)
    ]
    return {name: sum(one[name] for one in figures) / len(figures) for name in numbers}


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
    with systems.called(report.get("labels", {})):
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
        keys = value if top else sorted(value, key=systems.natural)
        return {key: _sorted(value[key], top=False) for key in keys}
    return [_sorted(entry, False) for entry in value] if isinstance(value, list) else value
