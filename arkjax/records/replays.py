"""`arkjax trajectories rescore` and `resample`: the calls of a run, replayed by its own models."""

import contextlib
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

from arkjax.config import build
from arkjax.errors import ConfigError, DataError
from arkjax.progress import Progress
from arkjax.records.places import run_config
from arkjax.run_config import BASE, RunConfig
from arkjax.rundir import RunDirectory
from arkjax.sampling.engine import Engine
from arkjax.session import Session
from arkjax.trajectories.replay import (
    INT8_TOLERANCE,
    TOLERANCE,
    Resampled,
    Rescored,
    resample,
    rescore,
)
from arkjax.trajectories.schema import Call
from arkjax.trajectories.shards import store_directories
from arkjax.trajectories.store import CallStore

_NAMED = 5


def replay(
    kind: str,
    directory: Path,
    stage: str,
    *,
    limit: int | None,
    seed: int | None,
    tolerance: float | None,
    progress: Progress,
) -> int:
    """Replay the calls of a stage, for each seed of a run; returns the exit code.

    Left out are actions of tools, and calls of models that are not in the run: those behind
    servers, and those that another config made.

    Args:
      kind: "rescore" or "resample".
      directory: of the run; it is only read.
      stage: "sample" or "evaluate".
      limit: most calls of each store; None replays all.
      seed: only this one of the run's seeds.
      tolerance: of rescore, in nats; None takes that of the dtype.
      progress: shows calls, rate and remaining time.

    Raises:
      DataError: if a call came out otherwise, naming the first ones; or if there is no run, none of
        its calls is by its models, or a shard is damaged.
      ConfigError: if the run has no such seed, or the tolerance is below zero.
    """
    if tolerance is not None and not tolerance >= 0:
        raise ConfigError(f"--tolerance {tolerance}: it must be 0 or more")
    with RunDirectory(directory, lock=False) as run:
        config = build(RunConfig, run_config(run.root))
        if seed is not None and seed not in config.seeds:
            raise ConfigError(f"--seed {seed} is not one of the run's seeds {config.seeds}")
        for one in config.seeds if seed is None else (seed,):
            with contextlib.closing(Session(config, run, one, progress)) as session:
                _replay_seed(kind, session, stage, limit, tolerance)
    return 0


def _replay_seed(
    kind: str, session: Session, stage: str, limit: int | None, tolerance: float | None
) -> None:
    path = session.stage(stage).path
    names = [BASE, *session.config.models]
    if stage == "evaluate":
        names += session.config.students
    models = {session.model_id(name): name for name in names}
    replayed = foreign = 0
    for directory in store_directories(path):
        store = CallStore(directory)
        label = f"{kind} seed {session.seed}, {directory.relative_to(path)}"
        total = min(len(store), limit or len(store))
        with session.progress.task(label, total=total, unit="calls") as task:
            result: Rescored | Resampled | None = None
            for model, calls in _by_model(islice(store, limit)):
                if model not in models:
                    foreign += sum(not call.is_action for call in calls)
                    task.advance(len(calls))
                    continue
                engine = session.players.engine(models[model])
                result = _replay(kind, calls, engine, tolerance, result, task.advance)
        if result is not None:
            replayed += result.calls
            session.progress.say(f"{label}: {_told(result)}")
            _check(result, store.directory)
    if foreign:
        session.progress.say(f"{foreign:,} calls are of models that this run has not: left out")
    if not replayed:
        raise DataError(
            f"{path}: none of its calls can be replayed: they are not of this run's models "
            f"({', '.join(models)}), which config.json may no longer describe"
        )


def _replay(
    kind: str,
    calls: list[Call],
    engine: Engine,
    tolerance: float | None,
    result: Rescored | Resampled | None,
    advance: Callable[[int], None],
) -> Rescored | Resampled:
    if kind == "resample":
        return resample(calls, engine, result, advance)
    if tolerance is None:
        tolerance = TOLERANCE[engine.dtype]
        if "int8" in (engine.config.cache, engine.config.weights):
            tolerance = max(tolerance, INT8_TOLERANCE)
    return rescore(calls, engine, tolerance, result, advance)


def _by_model(calls: Iterator[Call], most: int = 2048) -> Iterator[tuple[str, list[Call]]]:
    """Calls in stretches of one model, an action with those around it."""
    stretch: list[Call] = []
    model = ""
    for call in calls:
        other = not call.is_action and call.model != model
        if stretch and ((other and model) or len(stretch) >= most):
            yield model, stretch
            stretch = []
        if not call.is_action:
            model = call.model
        stretch.append(call)
    if stretch:
        yield model, stretch


def _told(result: Rescored | Resampled) -> str:
    head = f"{result.calls:,} calls, {result.tokens:,} tokens: "
    if isinstance(result, Resampled):
        return head + f"{result.calls - len(result.differing):,} calls with the same tokens"
    unknown = f"; {result.unknown:,} were recorded without" if result.unknown else ""
    return head + (
        f"log-probabilities differ by {result.rms:.2g} nats RMS and {result.largest:.2g} at most, "
        f"{result.beyond:,} by more than {result.tolerance:g}{unknown}"
    )


def _check(result: Rescored | Resampled, directory: Path) -> None:
    """Raise DataError that names the first calls which came out otherwise, if any did."""
    if not result.differing:
        return
    first = list(islice(result.differing.items(), _NAMED))
    more = f", and {len(result.differing) - _NAMED:,} more" * (len(result.differing) > _NAMED)
    if isinstance(result, Resampled):
        calls = ", ".join(f"{name} from token {at} on" for name, at in first)
        raise DataError(
            f"{directory}: {len(result.differing):,} of {result.calls:,} calls came out with other "
            f"tokens: {calls}{more}. Same tokens need the engine's sizes, versions and device as "
            "they were"
        )
    calls = ", ".join(f"{name} by {apart:.3g}" for name, apart in first)
    raise DataError(
        f"{directory}: {result.beyond:,} of {result.tokens:,} tokens have log-probabilities that "
        f"differ by more than {result.tolerance:g} nats, in {len(result.differing):,} calls: "
        f"{calls}{more}. Was the model in {directory.parents[1] / 'base'} replaced?"
    )
