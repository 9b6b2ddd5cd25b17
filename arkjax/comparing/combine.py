"""Several finished runs in one report: the same problems, the same seeds, each pair tested."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from arkjax.comparing.common import common_problems, common_seeds, restricted, same_task
from arkjax.comparing.runs import Run
from arkjax.errors import ConfigError
from arkjax.evaluation.outcomes import Outcomes
from arkjax.reporting import headline, systems
from arkjax.reporting.claims import Claim, missing, standard_claims
from arkjax.reporting.front import listed
from arkjax.reporting.report import build_report
from arkjax.storage import content_hash

# What makes two systems one and the same to a reader; how long they took does not.
_ALIKE = ("seed", "split", "problem_id", "correct", "answer", "calls", "generated_tokens")
_TRAINED = ("student", "unverified")
_SAID = 6  # pairs that the headline names


def combine(
    runs: Sequence[Run],
    *,
    splits: Collection[str] = (),
    claims_of: Collection[str] = (),
    command: str | None = None,
) -> dict[str, Any]:
    """One report of all systems of several runs, on the problems and seeds that all of them have.

    A system has its run's name behind its own where several runs have one of that name. Base,
    votes, teams and controls that answered everything alike in several runs are shown once; then
    the time is that of the first. Every run is held against the first that has a system of the
    same name.

    Args:
      runs: at least two, with different names; the first is what the others are held against.
      splits: those to compare; none: all that all runs have.
      claims_of: names of runs whose `standard_claims` are tested too.
      command: what made this report.

    Returns:
      As of `build_report`, and `title`, `left_out` (sentences), and `runs`: of each run `name`,
      `path`, `config_hash`, `seeds`, `device`, `versions` and `command`.

    Raises:
      ConfigError: if there is one run only, or no run has a split of `splits`.
      DataError: if runs are of different tasks, or have no seed or no problem in common.
    """
    if len(runs) < 2:
        raise ConfigError("to compare takes two runs at least: give another run directory")
    same_task(runs)
    seeds, notes = common_seeds(runs)
    problems, more = common_problems(runs, seeds, splits)
    notes += more
    tables = [restricted(run.outcomes, seeds, problems) for run in runs]
    names, alike = _names(runs, tables)
    claims = _pairs(runs, names, list(problems))
    for index, run in enumerate(runs):
        if run.name in claims_of:
            claims = [_renamed(c, names[index]) for c in standard_claims(tables[index])] + claims
    devices = {int(run.report["device"].get("count", 1)) for run in runs}
    device = _agreed([run.report["device"] for run in runs]) | {"count": min(devices)}
    shown = _together(tables, names)
    built = build_report(
        shown,
        config_hash=_hash([run.report["config_hash"] for run in runs]),
        versions=_agreed([run.report["versions"] for run in runs]),
        device=device if len(devices) == 1 else device | {"count": 1},
        seeds=seeds,
        claims=list(dict.fromkeys(claims)),
        wall_seconds={
            systems.with_run(stage, run.name): seconds
            for run in runs
            for stage, seconds in run.report["wall_seconds"].items()
        },
        counts={run.name or "all": run.report["counts"] for run in runs if run.report["counts"]},
        records=_records(runs, names, seeds),
        process_rewards={
            names[index][student]: figures["by_seed"]
            for index, run in enumerate(runs)
            for student, figures in run.report.get("process_rewards", {}).items()
            if student in names[index]
        },
        notes=[*notes, *alike],
        oracle=sorted(
            {
                names[index][system]
                for index, run in enumerate(runs)
                for system in run.report.get("oracle", ())
                if system in names[index]
            }
        ),
        command=command,
        measured_by={
            new: (own["base"], own["team"])
            for own in names
            for new in own.values()
            if {"base", "team"} <= own.keys()
        },
    )
    if len(devices) > 1:
        _count_devices(built, runs, names)
    built["missing"] = missing({systems.of_run(name)[0] for name in shown.distinct("system")})
    built["title"] = f"{listed([run.called for run in runs])} compared"
    built["runs"] = [_facts(run) for run in runs]
    built["left_out"] = notes
    built["headline"] = _headline(built, runs)
    built["first_line"] = headline.first_line(built)
    return built


def _key(outcomes: Outcomes) -> str:
    """Equal for outcomes that are alike in all that a reader cares for, in any order of rows."""
    order = np.lexsort([outcomes[name] for name in ("problem_id", "split", "seed")])
    return content_hash({name: outcomes[name][order].tolist() for name in _ALIKE})


def _names(
    runs: Sequence[Run], tables: Sequence[Outcomes]
) -> tuple[list[dict[str, str]], list[str]]:
    """For each run the names of its systems in the report, and what is shown once for several."""
    holders: dict[str, list[int]] = {}
    for index, table in enumerate(tables):
        for system in table.distinct("system"):
            holders.setdefault(system, []).append(index)
    names: list[dict[str, str]] = [{} for _ in runs]
    notes = []
    for system in systems.ordered(holders):
        held = holders[system]
        groups: dict[Any, list[int]] = {}
        for index in held:
            trained = systems.kind(system) in _TRAINED
            key = index if trained or len(held) == 1 else _key(tables[index].select(system=system))
            groups.setdefault(key, []).append(index)
        for group in groups.values():
            name = system if len(groups) == 1 else systems.with_run(system, runs[group[0]].name)
            for index in group:
                names[index][system] = name
            if len(group) > 1:
                which = listed([runs[index].called for index in group])
                notes.append(
                    f"{systems.label(name)} answered every problem alike in {which} and is shown "
                    "once."
                )
    return names, notes


def _pairs(
    runs: Sequence[Run], names: Sequence[Mapping[str, str]], splits: Sequence[str]
) -> list[Claim]:
    """Each system against that of the same name of the first run that has one."""
    claims: list[Claim] = []
    for split in systems.ordered_splits(splits):
        for system in systems.ordered({system for own in names for system in own}):
            new = list(dict.fromkeys(own[system] for own in names if system in own))
            claims += [(name, new[0], split, None) for name in new[1:]]
    return claims


def _renamed(claim: Claim, names: Mapping[str, str]) -> Claim:
    a, b, split, part = claim
    return names.get(a, a), names.get(b, b), split, part


def _together(tables: Sequence[Outcomes], names: Sequence[Mapping[str, str]]) -> Outcomes:
    """All rows under their new names; of what several runs share, those of the first."""
    kept, seen = [], set()
    for table, own in zip(tables, names, strict=True):
        for system in table.distinct("system"):
            if own[system] not in seen:
                seen.add(own[system])
                rows = table.select(system=system)
                renamed = np.full(len(rows), own[system])
                kept.append(Outcomes({**rows.columns, "system": renamed}))
    return Outcomes.concatenate(kept)


def _agreed(of_runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What all say alike; where they differ, what each of them says."""
    found = {}
    for key in sorted({key for one in of_runs for key in one}):
        said = list(dict.fromkeys(str(one.get(key, "–")) for one in of_runs))
        found[key] = of_runs[0][key] if len(said) == 1 else " / ".join(said)
    return found


def _hash(hashes: Sequence[str]) -> str:
    return hashes[0] if len(set(hashes)) == 1 else content_hash(list(hashes))


def _records(
    runs: Sequence[Run], names: Sequence[Mapping[str, str]], seeds: Sequence[int]
) -> dict[str, dict[str, list[dict]]]:
    found: dict[str, dict[str, list[dict]]] = {}
    for run, own in zip(runs, names, strict=True):
        for split, by_system in (run.report.get("records") or {}).items():
            for system, stores in by_system.items():
                if system in own and own[system] not in found.get(split, {}):
                    paths = [
                        {**one, "path": f"{run.root.as_posix()}/{one['path']}"}
                        for one in stores
                        if one.get("seed") in seeds
                    ]
                    found.setdefault(split, {})[own[system]] = paths
    return found


def _count_devices(
    built: Mapping[str, Any], runs: Sequence[Run], names: Sequence[Mapping[str, str]]
) -> None:
    """Runs on different numbers of devices: each system's seconds count for those of its run."""
    done = set()
    for run, own in zip(runs, names, strict=True):
        devices = int(run.report["device"].get("count", 1))
        for section in built["splits"].values():
            for name in set(own.values()) - done:
                entry = section["systems"].get(name)
                for costs in (entry, entry["per_correct"]) if entry else ():
                    if costs["seconds"] is not None:
                        costs["device_seconds"] = costs["seconds"] * devices
        done |= set(own.values())


def _facts(run: Run) -> dict[str, Any]:
    copied = ("config_hash", "seeds", "device", "versions")
    return {
        "name": run.called,
        "path": str(run.root),
        **{key: run.report[key] for key in copied},
        "command": run.report.get("command"),
    }


def _headline(report: Mapping[str, Any], runs: Sequence[Run]) -> list[str]:
    """What was compared; what base and team did where the runs share them; pair by pair."""
    split = systems.ordered_splits(report["splits"])[0]
    n, seeds = report["splits"][split]["n"], ", ".join(map(str, report["seeds"]))
    said = [
        f"{listed([run.called for run in runs])} are compared on {n:,} problems of "
        f"{split} that all of them answered (seed{'s' * (len(report['seeds']) > 1)} {seeds})."
    ]
    if {"base", "team"} <= report["splits"][split]["systems"].keys():
        said += headline.sentences(report)
    pairs = [
        entry
        for entry in report["comparisons"]
        if entry["split"] == split
        and systems.of_run(entry["a"])[0] == systems.of_run(entry["b"])[0]
    ]
    shown = sorted(
        (entry for entry in pairs if headline.is_shown(entry)),
        key=lambda entry: -abs(entry["difference"]),
    )
    for entry in shown[:_SAID]:
        verdict, size = entry["verdict"], headline.points(entry["difference"])
        ends = headline.interval(entry["ci95"], headline.points)
        said.append(f"{verdict[0].upper()}{verdict[1:]}: {size} points {ends}.")
    rest = len(pairs) - len(shown)
    if rest:
        said.append(
            f"For {rest} of {len(pairs)} pair{'s' * (len(pairs) != 1)} of the same name no "
            f"difference is shown on {split}."
        )
    return said
