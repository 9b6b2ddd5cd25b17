"""Selects examples from any number of shards: runs the pipeline and keeps what is whole."""

import contextlib
import dataclasses
import json
import logging
import os
import re
import shlex
import shutil
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from arkjax import errors
from arkjax.beam import files
from arkjax.beam.recipe import Recipe, facts
from arkjax.beam.tally import Tally
from arkjax.errors import ConfigError, DataError
from arkjax.extras import install
from arkjax.progress import Progress, Task
from arkjax.storage import ASIDE, flush, plain, remove, storage_errors
from arkjax.synthesis.example_files import COUNTS
from arkjax.tasks.problems import Problem
from arkjax.trajectories.attribution import Attribution
from arkjax.trajectories.shards import rows_of

DIRECT = "DirectRunner"
_PROBLEMS_A_FILE = 4096
_PROBLEMS_A_SHARD = 4096
_POLL_SECONDS = 1.0
_OWN_ERROR = re.compile(r"^(?:arkjax\.errors\.)?(\w+Error): (.*)$", re.M)
_BEAMS_OWN = re.compile(r" \[while running .*", re.S)


def select(
    out: str | os.PathLike,
    paths: Sequence[str | os.PathLike],
    recipe: Recipe,
    problems: Iterable[Problem],
    team_answers: dict[str, str | None],
    attribution: Attribution | None = None,
    *,
    runner: str = DIRECT,
    workers: int = 0,
    options: Sequence[str] = (),
    shards: int = 0,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Tally:
    """Make the examples of all recorded calls, on any runner that Beam has.

    The examples, their weights and the counts are those of a `Unifier` that is given the calls of
    all shards at once, each call once, problems in the order of their ids. Read them with
    `arkjax.synthesis.example_files.read_examples`. What is written does not depend on the number of
    workers, nor on how calls are spread over shards.

    `out` appears when it is whole: on this machine under its name, elsewhere by its `counts.json`,
    which comes last. After an interruption the same command begins anew.

    Args:
      out: the directory to be made, here or on any of Beam's file systems.
      paths: where the calls are; see `arkjax.beam.files.sources`.
      recipe: how examples are made.
      problems: those that the calls are about, and maybe others.
      team_answers: the team's answer by problem id, for the gate "team".
      attribution: of the debates, if there is one.
      runner: Beam's name of it. With "DirectRunner" everything is done here, and what is grouped is
        held in memory.
      workers: processes of the DirectRunner; 0 takes one a core.
      options: of the runner, as Beam's command line takes them: "--project=x".
      shards: files that examples are spread over; 0 takes one for 4,096 problems.
      overwrite: replace a selection that is there.
      progress: shows calls read and problems done, with rates.

    Returns:
      The account: what became of every record.

    Raises:
      ConfigError: if Beam is not installed, an option is wrong, or something stands at `out`.
      DataError: if there are no calls, or the account does not add up.
      StorageError: if `out` cannot be written.
    """
    with _quiet(logging.CRITICAL if runner == DIRECT else logging.WARNING):
        _check_installed()
        return _select(
            os.fspath(out),
            list(map(os.fspath, paths)),
            dataclasses.replace(recipe, attributed=attribution is not None),
            facts(problems, team_answers, attribution),
            runner=runner,
            options=_options(runner, workers, options),
            shards=shards,
            overwrite=overwrite,
            progress=progress or Progress(enabled=False),
        )


def _select(
    out: str,
    paths: Sequence[str],
    recipe: Recipe,
    known: Iterable[tuple[str, dict[str, Any]]],
    *,
    runner: str,
    options: Any,
    shards: int,
    overwrite: bool,
    progress: Progress,
) -> Tally:
    sources = files.sources(paths)
    work = _place(out, overwrite)
    told, count = _write_facts(work, known)
    shards = shards or -(-count // _PROBLEMS_A_SHARD) or 1
    account = files.join(work, "scratch", "account.json")
    local = runner == DIRECT and not files.is_remote(work)
    ticks = files.join(work, "scratch", "ticks") if local else ""
    try:
        if local:
            Path(ticks).mkdir()
        pipeline = _pipeline(
            options, runner, files.join(work, "scratch/workers.log") if local else os.devnull
        )
        from arkjax.beam.flow import build

        build(pipeline, sources, told, recipe, work, account, shards, ticks)
        total = None if files.is_remote(sources[0].path) else rows_of(Path(s.path) for s in sources)
        _run(pipeline, Path(ticks) if ticks else None, total, progress)
        tally = Tally.of(json.loads(files.read(account)))
        tally.check(len(sources))
        made_of = {"config": plain(recipe.config), "runner": runner}
        _publish(out, work, {**tally.plain(), **made_of, "from": [s.path for s in sources]})
    except BaseException:
        if not files.is_remote(work):
            shutil.rmtree(work, ignore_errors=True)
        raise
    return tally


def _check_installed() -> None:
    try:
        import apache_beam  # noqa: F401
    except ImportError as error:
        raise ConfigError(f"Apache Beam cannot be imported ({error}): {install('beam')}") from None


def _place(out: str, overwrite: bool) -> str:
    """Where to work, emptied of what a killed command may have left."""
    if files.is_remote(out):
        from apache_beam.io.filesystems import FileSystems

        with _clear(out):
            if FileSystems.exists(files.join(out, COUNTS)):
                if not overwrite:
                    raise ConfigError(f"{out} holds a selection: choose another, or --overwrite")
            (match,) = FileSystems.match([files.join(out, "**")])
            FileSystems.delete([entry.path for entry in match.metadata_list])
        return out
    path = Path(out).absolute()
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        ours = path.is_dir() and (path / COUNTS).is_file()
        if not (overwrite and ours):
            remedy = "--overwrite replaces it" if ours else "choose another place"
            raise ConfigError(f"{out} is there already: {remedy}")
    work = path.with_name(f".{path.name}{ASIDE}selecting")
    with storage_errors(out):
        remove(work)
        (work / "scratch").mkdir(parents=True)
    return str(work)


@contextlib.contextmanager
def _clear(out: str) -> Iterator[None]:
    try:
        yield
    except errors.ArkJAXError:
        raise
    except ValueError as error:
        raise ConfigError(f"{out}: Beam has no file system for it ({error})") from error
    except Exception as error:
        raise errors.StorageError(f"{out} cannot be used: {error}") from error


def _options(runner: str, workers: int, options: Sequence[str]) -> Any:
    from apache_beam.options.pipeline_options import PipelineOptions

    flags = [f"--runner={runner}", *options]
    if runner == DIRECT:
        workers = workers or len(os.sched_getaffinity(0))
        if not any(option.startswith("--direct_num_workers") for option in options):
            flags.append(f"--direct_num_workers={workers}")
    elif workers:
        raise ConfigError(f"--workers is of the DirectRunner: give {runner} its own --beam option")
    try:
        made = PipelineOptions(flags)
        made.get_all_options()
    except (SystemExit, ValueError, TypeError) as error:
        raise ConfigError(f"Beam refuses {' '.join(flags)} ({error})") from None
    known = PipelineOptions([]).get_all_options()
    told = PipelineOptions(list(options)).get_all_options(retain_unknown_options=True)
    if unknown := sorted(set(told) - set(known)):
        raise ConfigError(f"--{unknown[0]}: Beam has no such option")
    return made


def _write_facts(work: str, told: Iterable[tuple[str, dict[str, Any]]]) -> tuple[list[str], int]:
    """Write the facts about problems for the workers; returns the files and how many problems."""
    paths: list[str] = []
    lines: list[str] = []
    count = 0

    def written() -> None:
        path = files.join(work, "scratch", f"facts-{len(paths):05d}.jsonl")
        files.write(path, "".join(lines).encode())
        paths.append(path)
        lines.clear()

    for fact in told:
        lines.append(json.dumps(fact) + "\n")
        count += 1
        if len(lines) == _PROBLEMS_A_FILE:
            written()
    if lines or not paths:
        written()
    return paths, count


def _pipeline(options: Any, runner: str, log: str) -> Any:
    import apache_beam as beam

    made: Any = runner
    if runner == DIRECT:
        # Beam's own switch of that name first looks for a binary that it would download.
        from apache_beam.options.pipeline_options import DirectOptions
        from apache_beam.runners.portability.fn_api_runner import FnApiRunner
        from apache_beam.transforms.environments import SubprocessSDKEnvironment

        made, worker = FnApiRunner(), "arkjax.beam.worker"
        if options.view_as(DirectOptions).direct_num_workers != 1:
            # As its mode "multi_processing" has it, with workers of our own and what they say kept.
            python = shlex.quote(sys.executable)
            command = f"exec {python} -m {worker} {os.getpid()} 2>>{shlex.quote(log)}"
            made = FnApiRunner(SubprocessSDKEnvironment.from_command_string(command))
    try:
        return beam.Pipeline(runner=made, options=options)
    except (ValueError, ImportError, AttributeError) as error:
        raise ConfigError(f"runner {runner!r}: {error}") from error


@contextlib.contextmanager
def _quiet(level: int) -> Iterator[None]:
    """Without what Beam logs up to a level: what matters of it is raised."""
    before = logging.root.manager.disable
    logging.disable(max(before, level))
    try:
        yield
    finally:
        logging.disable(before)


def _run(pipeline: Any, ticks: Path | None, total: int | None, progress: Progress) -> None:
    """Run the pipeline to its end, and show how far it is."""
    finished = threading.Event()
    with (
        progress.task("read", total=total, unit="calls") as read,
        progress.task("select", unit="problems") as made,
    ):
        tasks = {"calls": read, "problems": made}
        watch = threading.Thread(target=_watch, args=(ticks, tasks, finished), daemon=True)
        if ticks:
            watch.start()
        try:
            result = pipeline.run()
            if not ticks:
                _poll(result, tasks)
            state = result.wait_until_finish()
        except Exception as error:
            if own := _own(error):
                raise own from None
            raise
        finally:
            finished.set()
            if ticks:
                watch.join()
    if state not in (None, "DONE"):
        raise DataError(f"the pipeline ended as {state}: see the runner's own log")


def _own(error: Exception) -> errors.ArkJAXError | None:
    """An error of ours that a worker met, without what Beam says of where that was."""
    if isinstance(error, errors.ArkJAXError):
        return type(error)(_BEAMS_OWN.sub("", str(error)))
    # From another process comes the text alone.
    for name, message in reversed(_OWN_ERROR.findall(str(error))):
        kind = getattr(errors, name, None)
        if kind is not None and kind is not errors.ProcessError:
            return kind(_BEAMS_OWN.sub("", message))
    return None


def _watch(ticks: Path, tasks: dict[str, Task], finished: threading.Event) -> None:
    over = False
    while not over:
        over = finished.wait(_POLL_SECONDS)
        done = dict.fromkeys(tasks, 0)
        for path in ticks.glob("*"):
            if path.suffix:
                continue  # It is being written.
            with contextlib.suppress(OSError, ValueError):
                for what, count in json.loads(path.read_text()).items():
                    done[what] = done.get(what, 0) + count
        for what, task in tasks.items():
            if done[what] > task.done:
                task.advance(done[what] - task.done)


def _poll(result: Any, tasks: dict[str, Task]) -> None:
    """Follow a job elsewhere by its counters, where its runner tells them while it runs."""
    import time

    names = {"calls_read": "calls", "problems": "problems"}
    while result.state in ("RUNNING", "STARTING", "PENDING"):
        time.sleep(_POLL_SECONDS)
        with contextlib.suppress(Exception):
            for counter in result.metrics().query()["counters"]:
                task = tasks.get(names.get(counter.key.metric.name, ""))
                if task and (counter.attempted or 0) > task.done:
                    task.advance(counter.attempted - task.done)


def _publish(out: str, work: str, counts: dict[str, Any]) -> None:
    files.write(files.join(work, COUNTS), (json.dumps(counts, indent=1) + "\n").encode())
    if files.is_remote(out):
        from apache_beam.io.filesystems import FileSystems

        FileSystems.delete([files.join(out, "scratch")])
        return
    path = Path(out).absolute()
    with storage_errors(out):
        shutil.rmtree(Path(work, "scratch"))
        remove(path)
        os.replace(work, path)
        flush(path.parent)
