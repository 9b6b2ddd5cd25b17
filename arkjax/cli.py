"""The `arkjax` command: reads arguments, runs stages, turns mistakes into one clear line."""

import argparse
import contextlib
import dataclasses
import difflib
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from arkjax import __version__
from arkjax.commands import COMMANDS
from arkjax.errors import ArkJAXError, ConfigError
from arkjax.options import add_problem_set_options, problem_set_options, quiet_option
from arkjax.progress import Progress, colours
from arkjax.storage import storage_error

STAGES = {
    "base": "load a checkpoint, or train the embedded base model -> base/",
    "sample": "the team works on the problems, every call is recorded: base/ -> sample/",
    "synthesize": "grade, attribute, select, build training rows: sample/ -> synthesize/",
    "score": "the teacher's token distributions on those rows: base/, synthesize/ -> score/",
    "distill": "train the students: base/, synthesize/, score/ -> distill/",
    "evaluate": "base, votes, team, students, controls on the same problems -> evaluate/",
    "report": "report.html, report.json and plots: evaluate/ of every seed -> report/",
}

_INTERRUPTED, _TERMINATED = 130, 143
# How long an interrupted process may tidy up before it is ended where it stands.
_GRACE_SECONDS = 3.0

_EPILOG = """\
Stages read and write folders of the run directory: WORKDIR/seed-N/STAGE/ and WORKDIR/report/.
A stage that is finished is not done again; one that was interrupted goes on where it stopped.

overrides:
  --config.FIELD=VALUE    set any field of the config: --config.student.train.steps=300

examples:
  arkjax run --config quickstart --workdir runs/quickstart
  arkjax evaluate --task gsm8k --split test --limit 50 --model hf:OWNER/NAME
  arkjax distill --config configs/quickstart.py --workdir runs/quickstart --redo distill \\
      --config.student.train.optimizer.learning_rate=1e-4

exit codes:
  0 done                          3 data missing or damaged
  1 a defect, or broken install   4 run directory in use, foreign, or of another config
  2 wrong usage or config         5 cannot write: permission, disk full
  130 interrupted (Ctrl-C)        143 terminated (SIGTERM)
"""


class _Terminated(BaseException):
    """SIGTERM, as an exception: unwinds everything and is caught by nobody but `main`."""


class _Parser(argparse.ArgumentParser):
    """A parser whose errors name the nearest right word."""

    def __init__(self, **settings) -> None:
        settings.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(allow_abbrev=False, **settings)

    def error(self, message: str) -> None:
        self.print_usage(sys.stderr)
        _complain(message)
        raise SystemExit(ConfigError.exit_code)


def _nearest(word: str, words: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, list(words), n=1)
    return f"did you mean {close[0]}?" if close else f"there are {', '.join(words)}"


def _complain(message: str) -> None:
    label = "arkjax: error:"
    if colours(sys.stderr):
        label = f"\033[1;31m{label}\033[0m"
    print(f"{label} {message}", file=sys.stderr)


def _parsers() -> tuple[_Parser, dict[str, _Parser]]:
    parser = _Parser(
        prog="arkjax",
        description="Distill a team of language-model agents into one model.",
        epilog=_EPILOG,
    )
    parser.add_argument("--version", action="version", version=f"arkjax {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    made: dict[str, _Parser] = {}
    for name, does in {"run": f"all stages in order: {', '.join(STAGES)}", **STAGES}.items():
        made[name] = _stage_parser(commands, name, does)
    for name, command in COMMANDS.items():
        made[name] = command.add_parser(commands, name)
    return parser, made


def _stage_parser(commands: argparse._SubParsersAction, name: str, does: str) -> _Parser:
    parser = commands.add_parser(name, help=does, description=does, epilog=_EPILOG)
    # This one stage also takes a problem set alone.
    alone = name == "evaluate"
    parser.add_argument(
        "--config",
        required=not alone,
        help="a config file, FILE:ARGUMENT, or the name of a shipped config such as quickstart",
    )
    parser.add_argument(
        "--workdir",
        required=not alone,
        type=Path,
        help="the run directory; made if it does not exist",
    )
    parser.add_argument(
        "--redo", metavar="STAGE", help="delete this stage and all after it, then do them again"
    )
    parser.add_argument("--seed", type=int, help="only this one of the config's seeds")
    quiet_option(parser)
    if alone:
        add_problem_set_options(parser)
    return parser


def _parse(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """The arguments and the config overrides. Raises SystemExit on wrong usage or --help."""
    parser, commands = _parsers()
    words = [word for word in argv if not word.startswith("-")]
    if not argv:
        parser.print_help()
        raise SystemExit(ConfigError.exit_code)
    if not argv[0].startswith("-") and words[0] not in commands:
        parser.error(f"unknown command {words[0]}: {_nearest(words[0], list(commands))}")
    argv, overrides = _split_overrides(argv)
    arguments, unknown = parser.parse_known_args(argv)
    if arguments.command is None:
        known = ["--help", "--version"]
        parser.error(f"unknown option {unknown[0]}: {_nearest(unknown[0], known)}")
    command = getattr(arguments, "parser", commands[arguments.command])
    if arguments.command in COMMANDS and overrides:
        unknown.append(overrides[0])
    if unknown:
        option = unknown[0].partition("=")[0]
        known = [name for action in command._actions for name in action.option_strings]
        known = [name for name in known if name.startswith("--")]
        kind = "option" if option.startswith("-") else "argument"
        command.error(f"unknown {kind} {option}: {_nearest(option, known)}")
    redo = getattr(arguments, "redo", None)
    if redo is not None and redo not in STAGES:
        command.error(f"--redo {redo} is no stage: {_nearest(redo, list(STAGES))}")
    if arguments.command == "evaluate":
        _check_evaluate(arguments, overrides, command)
    return arguments, overrides


def _check_evaluate(arguments: argparse.Namespace, overrides: list[str], command: _Parser) -> None:
    """A run's stage takes a config, a problem set none."""
    of_set = problem_set_options(arguments)
    if arguments.task is None:
        missing = [f"--{name}" for name in ("config", "workdir") if not getattr(arguments, name)]
        if missing:
            command.error(
                f"{' and '.join(missing)} required: give --config with --workdir to evaluate a "
                "run, or --task to evaluate a model on a problem set"
            )
        if of_set:
            command.error(f"{of_set[0]} goes with --task, not with --config")
    elif foreign := [f"--{n}" for n in ("config", "workdir") if getattr(arguments, n)] + overrides:
        command.error(f"{foreign[0].partition('=')[0]} is for runs and does not go with --task")
    elif arguments.redo not in (None, "evaluate"):
        command.error(f"--redo {arguments.redo}: with --task there is only --redo evaluate")


def _split_overrides(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Take `--config.x=v`, `--config.x v` and `--noconfig.x` out of the arguments."""
    rest: list[str] = []
    overrides: list[str] = []
    expects_value = False
    for word in argv:
        if word.startswith(("--config.", "--noconfig.")):
            overrides.append(word)
            expects_value = "=" not in word and word.startswith("--config.")
        elif expects_value and not word.startswith("--"):
            overrides[-1] += f"={word}"
            expects_value = False
        else:
            rest.append(word)
            expects_value = False
    return rest, overrides


def _run(arguments: argparse.Namespace, overrides: list[str]) -> int:
    if arguments.command in COMMANDS:
        return COMMANDS[arguments.command].run(arguments)
    if getattr(arguments, "task", None) is not None:
        return _evaluate_problem_set(arguments)
    from arkjax import config as configs

    loaded = configs.load(arguments.config, overrides)

    from arkjax import pipeline
    from arkjax.run_config import RunConfig

    stages = tuple(STAGES) if arguments.command == "run" else (arguments.command,)
    progress = Progress(enabled=not arguments.quiet)
    report = pipeline.run(
        configs.build(RunConfig, loaded),
        arguments.workdir,
        stages,
        arguments.redo,
        arguments.seed,
        progress,
        ("--config", configs.shown(arguments.config), *overrides),
    )
    if report is not None and not arguments.quiet:
        from arkjax.reporting.terminal import findings

        print(findings(report), flush=True)
        progress.say(f"report: {arguments.workdir / 'report' / 'report.html'}")
    return 0


def _evaluate_problem_set(arguments: argparse.Namespace) -> int:
    from arkjax import benchmark

    names = [field.name for field in dataclasses.fields(benchmark.Wish)]
    given = {name: getattr(arguments, name) for name in names}
    benchmark.main(
        benchmark.Wish(**{name: value for name, value in given.items() if value is not None}),
        arguments.out,
        redo=arguments.redo is not None,
        progress=Progress(enabled=not arguments.quiet),
    )
    return 0


@contextlib.contextmanager
def _prompt_signals() -> Iterator[None]:
    """Make SIGTERM and Ctrl-C end the process soon, even while it computes deep inside XLA.

    Python runs signal handlers between two of its own instructions, which may be minutes away. So
    a thread is told of each signal at once, and ends the process if the handler's exception has
    not ended the work within `_GRACE_SECONDS`, or when Ctrl-C is pressed again.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def terminate(*_: object) -> None:
        raise _Terminated

    read, write = os.pipe()
    os.set_blocking(write, False)
    ended = threading.Event()
    codes = {signal.SIGTERM: _TERMINATED, signal.SIGINT: _INTERRUPTED}

    def watch() -> None:
        impatient = False
        while byte := os.read(read, 1):
            code = codes.get(byte[0])
            if code is None:
                continue
            if impatient:
                os._exit(code)
            impatient = True
            threading.Thread(target=give_up, args=(code,), daemon=True).start()

    def give_up(code: int) -> None:
        if not ended.wait(_GRACE_SECONDS):
            os._exit(code)

    old_handler = signal.signal(signal.SIGTERM, terminate)
    old_wakeup = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(old_wakeup)
        signal.signal(signal.SIGTERM, old_handler)
        os.close(write)
        watcher.join()
        os.close(read)
        ended.set()


_AGAIN = {True: "the same command goes on from here", False: "nothing was changed; start again"}


def _resumes(argv: Sequence[str] | None) -> bool:
    words = sys.argv[1:] if argv is None else argv
    return not any(word in COMMANDS for word in words[:1])


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line. Returns the exit code; see `arkjax --help` for their meaning.

    Args:
      argv: the arguments without the program's name; those of the process if None.
    """
    try:
        arguments, overrides = _parse(sys.argv[1:] if argv is None else argv)
        # In a talk Ctrl-C stops an answer, not the process.
        talking = arguments.command == "chat"
        with contextlib.nullcontext() if talking else _prompt_signals():
            return _run(arguments, overrides)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except ArkJAXError as error:
        _complain(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        _complain(f"interrupted; {_AGAIN[_resumes(argv)]}")
        return _INTERRUPTED
    except _Terminated:
        _complain(f"terminated; {_AGAIN[_resumes(argv)]}")
        return _TERMINATED
    except BrokenPipeError:
        # Whoever read our output has left; Python must not complain of it again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        explained = storage_error(error.filename or "the run directory", error)
        if explained is None:
            raise
        _complain(str(explained))
        return explained.exit_code


def _say_errors_once() -> None:
    """Keep libraries from printing, with a traceback, what they raise as well.

    Orbax's threads log each error before they hand it on. TensorStore goes on to report to event
    loops that were closed at the first error, and has that printed by Python's hooks.
    """
    logging.getLogger("absl").setLevel(logging.CRITICAL)

    def without_closed_loops(hook: Callable, error_of: Callable) -> Callable:
        def say(*args) -> None:
            if str(error_of(*args)) != "Event loop is closed":
                hook(*args)

        return say

    sys.excepthook = without_closed_loops(sys.excepthook, lambda kind, error, trace: error)
    sys.unraisablehook = without_closed_loops(sys.unraisablehook, lambda args: args.exc_value)


def entry() -> None:
    """What the installed `arkjax` runs: `main`, and the end of the process."""
    _say_errors_once()
    code = main()
    if code:
        # Threads of a library may be at work for long yet, and complain while the interpreter goes;
        # what is whole is on the disk already.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
