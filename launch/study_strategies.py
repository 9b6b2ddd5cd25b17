"""Every strategy on the embedded world, three seeds, in one table.

    python launch/study_strategies.py --workdir runs/strategies

Runs configs/strategies.py, and each of its variants from the same base models and debates. Killed
and called again it goes on. `WORKDIR/report` then holds them all as systems of one report, a
variant's students with its name behind theirs; the table in the README is made from it by
`launch/readme_table.py WORKDIR/report/report.json README.md --block strategies`.
"""

import argparse
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

from arkjax.comparing.combine import combine
from arkjax.comparing.runs import load_run
from arkjax.config import build, load
from arkjax.reporting.report import write_report
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
    report = combined(options.workdir)
    write_report(options.workdir / "report", report)
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


def combined(workdir: Path) -> dict:
    """One report of all systems of all runs; a variant's students are held against their like."""
    runs = [load_run(workdir / "all", "")]
    runs += [load_run(workdir / variant, variant) for variant in VARIANTS]
    return combine(runs, claims_of=("",), command="python launch/study_strategies.py")


if __name__ == "__main__":
    main()
