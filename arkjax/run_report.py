"""The last stage: the outcomes of all seeds, put together."""

import json
import shlex
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from arkjax.config import to_dict
from arkjax.evaluation.measures import JUDGED, Measured, quality_section
from arkjax.evaluation.outcomes import Outcomes
from arkjax.progress import Progress
from arkjax.reporting.debates import choose_debates
from arkjax.reporting.published import published
from arkjax.reporting.report import build_report, write_report
from arkjax.run_config import RunConfig
from arkjax.rundir import RunDirectory
from arkjax.session import Session, device_facts
from arkjax.stages.quality import JUDGE, quality_rows
from arkjax.storage import content_hash
from arkjax.teams.spec import TeamSpec
from arkjax.training.metrics import read_metrics
from arkjax.versions import versions


def report(
    config: RunConfig,
    directory: RunDirectory,
    names: Collection[str],
    progress: Progress,
    options: Sequence[str] = (),
) -> dict:
    """Put the outcomes of all seeds together: report.json, report.html and plots.

    Args:
      config: of the run.
      directory: the run directory.
      names: of the stages that every seed must have finished.
      progress: where work is shown.
      options: of the command line that gave the config; without them no command is named.

    Returns:
      What report.json holds.

    Raises:
      ArkJAXError: if a stage is unfinished, damaged, or of another config.
    """
    outcomes, wall, counts, curves, oracle = [], defaultdict(float), {}, {}, set()
    debates: list[dict] = []
    records: dict[str, dict[str, list[dict]]] = defaultdict(lambda: defaultdict(list))
    notes: list[str] = []
    rewards: dict[str, list[dict]] = defaultdict(list)
    measured: list[Measured] = []
    judged: list[dict] = []
    for seed in config.seeds:
        session = Session(config, directory, seed, progress)
        stages = {name: session.stage(name) for name in names}
        summaries = {n: stage.require(session.inputs(n)) for n, stage in stages.items()}
        stages["evaluate"].verify()
        evaluated, trained = (summaries[name]["parts"] for name in ("evaluate", "distill"))
        answered = Outcomes.load(stages["evaluate"].path / "outcomes.parquet")
        others = evaluated.keys() - set(config.students)
        outcomes.append(answered.without(others))
        for split, system, store in _stores(outcomes[-1], seed, stages["evaluate"].path, directory):
            records[split][system].append(store)
        measured += [r for r in quality_rows(stages["evaluate"].path) if r.system not in others]
        judged += [evaluated[JUDGE]] if config.evaluation.judge else []
        for name, summary in summaries.items():
            wall[name] += summary["seconds"]
        for student in config.students:
            if figures := evaluated[student].get("process_rewards"):
                rewards[student].append(figures)
        oracle |= set(summaries["evaluate"]["oracle"])
        kept = {name: trained[name].get("kept") for name in session.strategies}
        notes += _untrained(seed, {name: look for name, look in kept.items() if look})
        counted = summaries["synthesize"]["parts"]
        counts[seed] = {name: counted[name] for name in session.datasets}
        debates += json.loads((stages["evaluate"].path / "debates.json").read_text())
        if seed == config.seeds[0]:
            curves = _curves(config, stages["base"].path, stages["distill"].path)
    built = build_report(
        Outcomes.concatenate(outcomes),
        config_hash=content_hash(config.to_dict()),
        versions=versions(),
        device=device_facts(),
        seeds=list(config.seeds),
        wall_seconds=dict(wall),
        counts=counts[config.seeds[0]],
        counts_by_seed=counts,
        records=records,
        process_rewards=rewards,
        quality=_quality(config, measured, judged),
        notes=[*_remote_players(config, session.team), *notes],
        oracle=sorted(oracle),
        command=shlex.join(["arkjax", "run", *options, "--workdir", f"runs/{config.name}"])
        if options
        else None,
        name=config.name,
        task=config.task,
    )
    if figures := published(to_dict(config), built):
        built["published"] = figures
    write_report(directory.report, built, curves=curves, debates=choose_debates(debates))
    return built


def _stores(
    outcomes: Outcomes, seed: int, path: Path, directory: RunDirectory
) -> Iterator[tuple[str, str, dict]]:
    """Where the calls of a seed's outcomes are recorded: by split and system."""
    for split in outcomes.distinct("split"):
        rows = outcomes.select(split=split)
        for system in rows.distinct("system"):
            store = (path / split / system).relative_to(directory.root).as_posix()
            calls = int(rows.select(system=system)["calls"].sum())
            yield split, system, {"seed": seed, "path": store, "calls": calls}


def _quality(config: RunConfig, rows: list[Measured], judged: list[dict]) -> dict:
    """How the systems reason, over all seeds, and what the judge is and took in all."""
    judge = config.evaluation.judge
    if judge is None:
        # Left from when the run had one.
        rows = [row for row in rows if not row.measure.startswith(JUDGED)]
        return {**quality_section(rows), "judge": None}
    facts = {
        "player": judge.player,
        "rubric": to_dict(judge.rubric),
        "criterion": judge.criterion if judge.correctness else None,
        "problems": judge.problems,
        "repeats": judge.repeats,
    }
    took = {name: sum(of_seed[name] for of_seed in judged) for name in judged[0]}
    return {**quality_section(rows, judge.meanings()), "judge": {**facts, **took}}


def _remote_players(config: RunConfig, team: TeamSpec) -> list[str]:
    """Sentences that say what was said by models that are not of this run."""
    notes = []
    for name, remote in config.remotes.items():
        agents = [agent.id for agent in team.agents if agent.model == name]
        plays = [f"{', '.join(agents)} of the team"] if agents else []
        if name == config.policy:
            plays = ["self_consistency, role_vote and all of the team that names no other model"]
        if plays:
            notes.append(
                f"The model {remote.model} at {remote.url} played {plays[0]}; base and the "
                "students answered themselves."
            )
    return notes


def _untrained(seed: int, kept: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Sentences about students that training made no better on held-out problems."""
    return [
        f"Seed {seed}: {student} has the weights that its last phase began with, since no others "
        f"did as well on held-out problems ({look['accuracy']:.1%})."
        for student, look in kept.items()
        if look["step"] == 0
    ]


def _curves(config: RunConfig, base_path: Path, distill_path: Path) -> dict:
    paths = {"base": base_path, **{name: distill_path / name for name in config.students}}
    return {
        name: [(line["step"], line["loss"]) for line in read_metrics(path / "metrics.jsonl")]
        for name, path in paths.items()
    }
