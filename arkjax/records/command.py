"""`arkjax trajectories`: its arguments, and what each of its commands does."""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

from arkjax.errors import ArkJAXError, ConfigError, DataError
from arkjax.options import positive_count, quiet_option
from arkjax.progress import Progress

_FORMATS = ("chat-jsonl", "hf", "tfds", "otel")
_SHOWN_FINDINGS = 100


def add_parser(commands: argparse._SubParsersAction, name: str) -> argparse.ArgumentParser:
    """Add the command to the command line."""
    does = "look at, verify, merge, export and replay recorded calls"
    parser = commands.add_parser(name, help=does, description=does)
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True, title="actions")
    for action, (add, describes, run) in _ACTIONS.items():
        own = actions.add_parser(action, help=describes, description=describes)
        add(own)
        quiet_option(own)
        own.set_defaults(run=run, parser=own)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Do what the arguments of `arkjax trajectories` say. Returns the exit code.

    Raises:
      ArkJAXError: one clear line.
    """
    try:
        return arguments.run(arguments, Progress(enabled=not arguments.quiet))
    except ArkJAXError as error:
        from arkjax.trajectories.transcript import printable

        # It may name what somebody else has recorded.
        error.args = (printable(str(error)),)
        raise


# --- stats -----------------------------------------------------------------------------------


def _add_stats(parser: argparse.ArgumentParser) -> None:
    _path(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object with every figure")


def _stats(arguments: argparse.Namespace, progress: Progress) -> int:
    from arkjax.records import tables
    from arkjax.trajectories.shards import rows_of, store_directories
    from arkjax.trajectories.statistics import statistics

    stores = store_directories(arguments.path)
    rows = rows_of(path for store in stores for path in store.glob("calls-*.parquet"))
    with progress.task("count", total=rows, unit="calls") as task:
        counted = [statistics(store, task.advance) for store in stores]
    if arguments.json:
        print(json.dumps({"stores": counted}, indent=1))
    else:
        tables.show_statistics(counted, arguments.path, sys.stdout)
    return 0


# --- show ------------------------------------------------------------------------------------


def _add_show(parser: argparse.ArgumentParser) -> None:
    _path(parser, _STORE)
    parser.add_argument("--problem", metavar="ID", help="the debate of this problem")
    parser.add_argument("--call", metavar="ID", help="one call, with all of its prompt")
    parser.add_argument(
        "--limit", type=positive_count, default=1, help="debates to show (default 1)"
    )
    _tokenizer(parser)


def _show(arguments: argparse.Namespace, progress: Progress) -> int:
    from arkjax.records import places, tables

    store = places.open_store(arguments.path)
    tokenizer = places.find_tokenizer(arguments.path, arguments.tokenizer)
    if arguments.call is not None:
        call = store.get(arguments.call)
        if call is None:
            raise DataError(f"{store.directory} has no call {arguments.call}")
        tables.show_call(call, store.lookup("agent"), tokenizer, sys.stdout)
        return 0
    problems = store.problems()
    if arguments.problem is not None:
        if arguments.problem not in problems:
            raise DataError(
                f"{store.directory} has no problem {arguments.problem}; it has {len(problems):,}, "
                f"such as {', '.join(problems[:3])}"
            )
        problems = [arguments.problem]
    for problem, calls in store.by_problem(problems[: arguments.limit]):
        tables.show_debate(problem, calls, tokenizer, sys.stdout)
    return 0


# --- verify ----------------------------------------------------------------------------------


def _add_verify(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", type=Path, nargs="+", help=_PATH)


def _verify(arguments: argparse.Namespace, progress: Progress) -> int:
    from arkjax.records.places import missing_shards
    from arkjax.trajectories.consistency import verify
    from arkjax.trajectories.shards import rows_of, store_directories
    from arkjax.trajectories.transcript import printable

    stores = dict.fromkeys(store for path in arguments.path for store in store_directories(path))
    rows = rows_of(path for store in stores for path in store.glob("calls-*.parquet"))
    found, verified = 0, 0

    def count(calls: int) -> None:
        nonlocal verified
        verified += calls
        task.advance(calls)

    for lost in missing_shards(arguments.path):
        found += 1
        print(printable(f"{lost}: it is missing, and the calls in it are lost"), flush=True)
    with progress.task("verify", total=rows, unit="calls") as task:
        for store in stores:
            for finding in verify(store, count):
                found += 1
                if found <= _SHOWN_FINDINGS:
                    print(printable(str(finding)), flush=True)
    if found > _SHOWN_FINDINGS:
        print(f"and {found - _SHOWN_FINDINGS:,} more")
    if found:
        raise DataError(
            f"{found:,} faults in {len(stores)} stores with {verified:,} readable calls; what is "
            "missing or damaged is made again by the stage that made it: while it is unfinished by "
            "the same command, once a damaged shard is deleted, and else by --redo"
        )
    print(f"{verified:,} calls in {len(stores)} stores: all whole")
    return 0


# --- merge -----------------------------------------------------------------------------------


def _add_merge(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", type=Path, help="the store to be made")
    parser.add_argument("path", type=Path, nargs="+", help=_PATH)
    parser.add_argument(
        "--prefer-first",
        action="store_true",
        help="where two stores tell a call differently, take what the first one says",
    )


def _merge(arguments: argparse.Namespace, progress: Progress) -> int:
    from arkjax.trajectories.merge import merge
    from arkjax.trajectories.shards import store_directories

    found = dict.fromkeys(store for path in arguments.path for store in store_directories(path))
    # What an earlier merge has made of them may lie among them.
    sources = [store for store in found if store.resolve() != arguments.out.resolve()]
    if not sources:
        raise ConfigError(f"{arguments.out} is all that there is to merge: give its sources")
    kept = merge(arguments.out, sources, prefer_first=arguments.prefer_first, progress=progress)
    print(f"{arguments.out}: {kept:,} calls of {len(sources)} stores")
    return 0


# --- export ----------------------------------------------------------------------------------


def _add_export(parser: argparse.ArgumentParser) -> None:
    _path(parser, _STORE)
    parser.add_argument(
        "--format",
        required=True,
        choices=_FORMATS,
        help="OpenAI's messages, a dataset folder of Hugging Face or of TensorFlow Datasets, or "
        "OpenTelemetry spans",
    )
    parser.add_argument("--out", required=True, type=Path, help="the folder to be made")
    parser.add_argument("--system", metavar="NAME", help="only calls of this team")
    parser.add_argument("--only-correct", action="store_true", help="only calls graded right")
    parser.add_argument(
        "--content", action="store_true", help="otel: with the words of prompts and answers"
    )
    _tokenizer(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace an export that is there")


def _export(arguments: argparse.Namespace, progress: Progress) -> int:
    from arkjax.records import places
    from arkjax.trajectories.exports import FORMATS, Selection, export

    if arguments.content and arguments.format != "otel":
        raise ConfigError("--content is for --format otel: the others have all words anyway")
    store = places.open_store(arguments.path)
    written = export(
        store,
        arguments.format,
        FORMATS[arguments.format],
        arguments.out,
        Selection(arguments.system, arguments.only_correct, arguments.content),
        tokenizer=places.find_tokenizer(arguments.path, arguments.tokenizer),
        overwrite=arguments.overwrite,
        progress=progress,
    )
    print(f"{arguments.out}: {written:,} calls as {arguments.format}")
    return 0


# --- rescore, resample -----------------------------------------------------------------------


def _add_rescore(parser: argparse.ArgumentParser) -> None:
    _add_replay(parser)
    parser.add_argument(
        "--tolerance",
        type=float,
        metavar="NATS",
        help="how far a token may be off; by default 0.001 in float32, 1 in bfloat16, 0.25 in "
        "float16, and at least 0.5 where the engine keeps something in int8",
    )


def _add_replay(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", type=Path, metavar="RUN", help="a run directory")
    parser.add_argument(
        "--stage-name",
        choices=("sample", "evaluate"),
        default="sample",
        help="the stage whose calls are replayed (default sample)",
    )
    parser.add_argument("--limit", type=positive_count, help="at most so many calls of each store")
    parser.add_argument("--seed", type=int, help="only this one of the run's seeds")


def _replay(arguments: argparse.Namespace, progress: Progress) -> int:
    from arkjax.records import replays

    return replays.replay(
        arguments.action,
        arguments.directory,
        arguments.stage_name,
        limit=arguments.limit,
        seed=arguments.seed,
        tolerance=getattr(arguments, "tolerance", None),
        progress=progress,
    )


# --- select ----------------------------------------------------------------------------------


def _add_select(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "path",
        nargs="+",
        help="a run directory, a store, shards, or a pattern of any of these, here or elsewhere "
        "(gs://bucket/calls-*.parquet)",
    )
    parser.add_argument("--out", required=True, help="the directory to be made, here or elsewhere")
    parser.add_argument(
        "--data",
        default="da",
        metavar="NAME",
        help="which examples: da (default), rsft, corrective, consolidated, da_unverified, ...",
    )
    parser.add_argument(
        "--run",
        dest="of_run",
        type=Path,
        help="the run whose config, problems and team answers are taken",
    )
    parser.add_argument("--seed", type=int, help="of the run; by default that of the path, or all")
    parser.add_argument("--runner", default="DirectRunner", help="Beam's name of it")
    parser.add_argument(
        "--workers",
        type=positive_count,
        default=0,
        help="processes of the DirectRunner (one a core)",
    )
    parser.add_argument(
        "--beam",
        action="append",
        default=[],
        metavar="OPTION=VALUE",
        help="an option of the runner, such as flink_master=localhost:8081",
    )
    parser.add_argument(
        "--shards", type=positive_count, default=0, help="files of examples at most"
    )
    parser.add_argument("--rows", type=Path, help="also pack them into training rows, there")
    parser.add_argument("--overwrite", action="store_true", help="replace a selection there")


def _select(arguments: argparse.Namespace, progress: Progress) -> int:
    from arkjax.records.selecting import select

    return select(arguments, progress)


_PATH = "the directory of a store, or a run directory: then all its stores"
_STORE = "the directory of a store, such as RUN/seed-0/sample/team"


def _path(parser: argparse.ArgumentParser, what: str = _PATH) -> None:
    parser.add_argument("path", type=Path, help=what)


def _tokenizer(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--tokenizer",
        type=Path,
        metavar="PATH",
        help="a tokenizer's file or folder; by default that of the run which the store lies in",
    )


_ACTIONS: dict[str, tuple[Callable, str, Callable]] = {
    "stats": (_add_stats, "what there is: problems, calls, tokens, cost, right answers", _stats),
    "show": (_add_show, "a debate as a transcript, or one call with its prompt", _show),
    "verify": (
        _add_verify,
        "check every shard's checksum and every call's consistency; exit code 3 if one is wrong",
        _verify,
    ),
    "merge": (_add_merge, "several stores as one, each call once", _merge),
    "export": (_add_export, "write a store in a format of other programs", _export),
    "select": (
        _add_select,
        "choose training examples from any number of shards, by Apache Beam",
        _select,
    ),
    "rescore": (
        _add_rescore,
        "score the recorded tokens again by the same model; exit code 3 if it says otherwise",
        _replay,
    ),
    "resample": (
        _add_replay,
        "make the recorded calls again; exit code 3 if other tokens come out",
        _replay,
    ),
}
