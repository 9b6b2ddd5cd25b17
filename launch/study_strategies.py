"""Every strategy on the embedded world, three seeds, in one table.

    python launch/study_strategies.py --workdir runs/strategies

Runs configs/strategies.py, and each of its variants from the same base models and debates. Killed
and called again it goes on. `WORKDIR/report` then holds them all as systems of one report, a
variant's students with its name behind theirs; the table in the README is made from it by
`launch/readme_table.py WORKDIR/report/report.json README.md --block strategies`.
"""

import argparse
import dataclasses
import json
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

from arkjax.config import build, load
from arkjax.evaluation.outcomes import Outcomes
from arkjax.reporting.claims import standard_claims
from arkjax.reporting.report import build_report, write_report
from arkjax.run_config import RunConfig
from arkjax.rundir import RunDirectory
from arkjax.shipped import shipped_path

CONFIG = "strategies"
VARIANTS = tuple(runpy.run_path(str(shipped_path(f"configs/{CONFIG}.py")))["VARIANTS"])
SHARED = ("base", "sample")


def main(arguments: list[str] | None = None) -> None:
    """Run what is not finished, then write the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", type=Path, default=Path("runs/strategies"))
    parser.epilog = "--config.FIELD=VALUE changes a field of all runs."
    options, overrides = parser.parse_known_args(arguments)
    whole = options.workdir / "all"
    run(CONFIG, whole, overrides)
    seeds = build(RunConfig, load(CONFIG, overrides)).seeds
    for variant in VARIANTS:
        with RunDirectory(options.workdir / variant) as directory:
            for seed in seeds:
                share(whole / f"seed-{seed}", directory.root / f"seed-{seed}")
        run(f"{CONFIG}:{variant}", options.workdir / variant, overrides)
    report = combined(options.workdir, seeds)
    write_report(options.workdir / "report", report, curves={}, debates=[])
    print(options.workdir / "report" / "report.html")


def run(config: str, workdir: Path, overrides: list[str]) -> None:
    """All stages of a run that are not finished."""
    command = [sys.executable, "-m", "arkjax", "run", "--config", config, "--workdir", str(workdir)]
    subprocess.run([*command, *overrides], check=True)


def share(source: Path, target: Path) -> None:
    """The finished stages that all variants have in common, each copied whole or not at all."""
    for stage in SHARED:
        if not (target / stage).exists():
            partial = target / f"{stage}.partial"
            shutil.rmtree(partial, ignore_errors=True)
            shutil.copytree(source / stage, partial)
            partial.rename(target / stage)


def outcomes_of(workdir: Path, seeds: tuple[int, ...]) -> Outcomes:
    """The outcomes of a run's seeds."""
    files = [workdir / f"seed-{seed}" / "evaluate" / "outcomes.parquet" for seed in seeds]
    return Outcomes.concatenate([Outcomes.load(file) for file in files])


def combined(workdir: Path, seeds: tuple[int, ...]) -> dict:
    """One report of all systems of all runs; a variant's students are held against their like."""
    first = json.loads((workdir / "all" / "report" / "report.json").read_text())
    tables = [outcomes_of(workdir / "all", seeds)]
    claims = standard_claims(tables[0])
    for variant in VARIANTS:
        rows = outcomes_of(workdir / variant, seeds)
        students = [s for s in rows.distinct("system") if s.startswith("student_")]
        renamed = {student: f"{student}, {variant}" for student in students}
        tables.append(
            Outcomes.from_records(
                dataclasses.replace(record, system=renamed[record.system])
                for record in rows.records()
                if record.system in renamed
            )
        )
        splits = rows.distinct("split")
        claims += [(new, old, split, None) for split in splits for old, new in renamed.items()]
    return build_report(
        Outcomes.concatenate(tables),
        config_hash=first["config_hash"],
        versions=first["versions"],
        device=first["device"],
        seeds=list(seeds),
        claims=claims,
        wall_seconds=first["wall_seconds"],
        counts=first["counts"],
        process_rewards={n: f["by_seed"] for n, f in first["process_rewards"].items()},
        command="python launch/study_strategies.py",
    )


if __name__ == "__main__":
    main()
