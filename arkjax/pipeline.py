"""The stages in order: base, sample, synthesize, score, distill, evaluate, report.

Each stage reads what earlier ones wrote, writes its own directory, and can be killed at any moment:
the same command goes on and ends with the same result.
"""

import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from arkjax.errors import ConfigError
from arkjax.progress import Progress
from arkjax.run_config import RunConfig
from arkjax.run_report import report
from arkjax.rundir import RunDirectory
from arkjax.session import Session
from arkjax.stages.base import base
from arkjax.stages.distill import distill
from arkjax.stages.evaluate import evaluate
from arkjax.stages.sample import sample
from arkjax.stages.score import score
from arkjax.stages.synthesize import synthesize


def run(
    config: RunConfig,
    workdir: Path,
    stages: Sequence[str],
    redo: str | None = None,
    seed: int | None = None,
    progress: Progress | None = None,
    options: Sequence[str] = (),
) -> dict | None:
    """Do some stages of a run, those that are finished excepted.

    Args:
      config: of the run.
      workdir: the run directory; made if it does not exist.
      stages: names from `STAGES`, or "report", in order.
      redo: a stage that is done anew, and all that follow it.
      seed: only this one of the config's seeds.
      progress: where work is shown.
      options: of the command line that gave the config, for the report to name.

    Returns:
      What report.json holds, if "report" is among the stages; else None.

    Raises:
      ArkJAXError: one clear line; what was written before is kept.
    """
    progress = progress or Progress(enabled=False)
    if seed is not None and seed not in config.seeds:
        raise ConfigError(f"--seed {seed} is not one of the config's seeds {config.seeds}")
    if redo is not None and redo not in stages:
        raise ConfigError(
            f"--redo {redo} would delete that stage, but this command does not make it again: "
            f"give it to `arkjax {redo}` or to `arkjax run`"
        )
    with RunDirectory(workdir) as directory:
        directory.write_config(config.to_dict())
        for one in config.seeds if seed is None else (seed,):
            with contextlib.closing(Session(config, directory, one, progress)) as session:
                if stages != ("report",):
                    session.check(_ahead(session, stages, redo))
                _clear(session, redo)
                for name in stages:
                    if name != "report":
                        _do(session, name)
        if "report" in stages:
            return report(config, directory, STAGES, progress, options)
    return None


def _ahead(session: Session, stages: Sequence[str], redo: str | None) -> list[str]:
    """The stages that are going to be done: the unfinished ones, and those to be done anew."""
    names = [name for name in stages if name != "report"]
    again = names[names.index(redo) :] if redo in names else []
    return [name for name in names if name in again or not _finished(session, name)]


def _finished(session: Session, name: str) -> bool:
    stage = session.stage(name)
    return stage.finished and not stage.missing(session.inputs(name))


def _clear(session: Session, redo: str | None) -> None:
    if redo is None or redo == "report":
        return
    names = list(STAGES)
    # First, lest something is deleted and the command then stops at an earlier stage.
    for name in names[: names.index(redo)]:
        session.stage(name).check(session.inputs(name))
    for name in names[names.index(redo) :][::-1]:
        session.stage(name).clear()


def _do(session: Session, name: str) -> None:
    """Do one stage unless it is finished."""
    stage = session.stage(name)
    previous = list(STAGES)[: list(STAGES).index(name)]
    for earlier in previous:
        session.stage(earlier).require(session.inputs(earlier))
    if stage.begin(session.inputs(name)):
        session.progress.say(f"seed {session.seed}, {name}: finished before")
        return
    started = time.monotonic()
    summary = STAGES[name](session, stage.path)
    seconds = time.monotonic() - started
    stage.finish({**summary, "seconds": stage.seconds() + seconds})
    session.progress.say(f"seed {session.seed}, {name}: done in {seconds:.0f} s")


STAGES: dict[str, Callable[[Session, Path], dict]] = {
    "base": base,
    "sample": sample,
    "synthesize": synthesize,
    "score": score,
    "distill": distill,
    "evaluate": evaluate,
}
