"""The `arkjax` command: reads arguments, runs stages, turns mistakes into one clear line."""

import argparse
import contextlib
import difflib
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from arkjax import __version__
from arkjax.errors import ArkJAXError, ConfigError
from arkjax.options import add_talking_options
from arkjax.progress import Progress, colours
from arkjax.records.command import add_parser as records_parser
from arkjax.reporting.viewer.command import add_parser as view_parser
from arkjax.serving.command import add_parser as serve_parser
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

_WITHOUT_CONFIG = ("doctor", "view", "trajectories", "import", "export", "chat", "serve")
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
    made = {}
    for name, does in {"run": f"all stages in order: {', '.join(STAGES)}", **STAGES}.items():
        made[name] = _stage_parser(commands, name, does)
    doctor = commands.add_parser(
        "doctor",
        help="check versions, devices, memory, disk, and a small computation",
        description="Check the installation and the machine; exit code 1 if something is broken.",
    )
    doctor.add_argument(
        "--workdir", type=Path, default=Path("."), help="where runs are going to be written"
    )
    made["doctor"] = doctor
    for name, add in {
        "view": view_parser,
        "import": _import_parser,
        "export": _export_parser,
        "chat": _chat_parser,
        "serve": serve_parser,
        "trajectories": records_parser,
    }.items():
        made[name] = add(commands, name)
    return parser, made


def _import_parser(commands: argparse._SubParsersAction, name: str) -> _Parser:
    does = "turn a Hugging Face checkpoint into an ArkJAX model"
    parser = commands.add_parser(name, help=does, description=does)
    parser.add_argument(
        "source", help="folder with config.json and safetensors files, or hf:OWNER/NAME[@REVISION]"
    )
    parser.add_argument("--out", required=True, type=Path, help="the model directory to be made")
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "float16"),
        help="of the computation; by default bfloat16 for 16-bit checkpoints",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a model that is there")
    _quiet(parser)
    return parser


def _export_parser(commands: argparse._SubParsersAction, name: str) -> _Parser:
    does = "write a model as a Hugging Face checkpoint that transformers, vLLM and SGLang load"
    parser = commands.add_parser(name, help=does, description=does)
    parser.add_argument(
        "checkpoint", help="a model directory, such as RUN/seed-0/distill/student_da/model"
    )
    parser.add_argument("--out", required=True, type=Path, help="the folder to be made")
    parser.add_argument("--base", help="name of the published base model, for card and adapter")
    parser.add_argument(
        "--adapter", action="store_true", help="a PEFT folder of the LoRA adapters alone"
    )
    parser.add_argument(
        "--max-shard-gib", type=_positive, default=5.0, help="largest file of weights (default 5)"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace the folder, whatever it holds"
    )
    _quiet(parser)
    return parser


def _chat_parser(commands: argparse._SubParsersAction, name: str) -> _Parser:
    does = "talk to a model in the terminal"
    parser = commands.add_parser(name, help=does, description=does)
    parser.add_argument("checkpoint", help="a model directory, or a Hugging Face checkpoint")
    parser.add_argument("--role", help="system prompt; in the embedded world a byline")
    parser.add_argument("--temperature", type=float, default=0.7, help="0 is greedy (default 0.7)")
    parser.add_argument("--top-p", type=float, default=1.0)
    parser.add_argument("--max-tokens", type=int, default=512, help="of one answer (default 512)")
    parser.add_argument("--max-context", type=int, default=4096, help="of a talk (default 4096)")
    parser.add_argument("--seed", type=int, default=0)
    add_talking_options(parser)
    return parser


def _positive(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return value


def _quiet(parser: _Parser) -> None:
    parser.add_argument("--quiet", action="store_true", help="no progress, only errors")


def _stage_parser(commands: argparse._SubParsersAction, name: str, does: str) -> _Parser:
    parser = commands.add_parser(name, help=does, description=does, epilog=_EPILOG)
    parser.add_argument(
        "--config",
        required=True,
        help="a config file, FILE:ARGUMENT, or the name of a shipped config such as quickstart",
    )
    parser.add_argument(
        "--workdir", required=True, type=Path, help="the run directory; made if it does not exist"
    )
    parser.add_argument(
        "--redo", metavar="STAGE", help="delete this stage and all after it, then do them again"
    )
    parser.add_argument("--seed", type=int, help="only this one of the config's seeds")
    _quiet(parser)
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
    if arguments.command in _WITHOUT_CONFIG and overrides:
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
    return arguments, overrides


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
    if arguments.command == "doctor":
        from arkjax import doctor

        return doctor.main(arguments.workdir)
    if arguments.command in _WITHOUT_CONFIG:
        return _convert(arguments)
    from arkjax import config as configs

    loaded = configs.load(arguments.config, overrides)

    from arkjax import pipeline
    from arkjax.run_config import RunConfig

    stages = tuple(STAGES) if arguments.command == "run" else (arguments.command,)
    pipeline.run(
        configs.build(RunConfig, loaded),
        arguments.workdir,
        stages,
        arguments.redo,
        arguments.seed,
        Progress(enabled=not arguments.quiet),
    )
    return 0


def _convert(arguments: argparse.Namespace) -> int:
    """What needs no config: look at recorded calls; import, export, serve or ask a checkpoint."""
    if arguments.command == "view":
        from arkjax.reporting.viewer import command as viewer

        return viewer.run(arguments)
    if arguments.command == "trajectories":
        from arkjax.records import command as records

        return records.run(arguments)
    if arguments.command == "serve":
        from arkjax.serving import command

        return command.run(arguments)
    if arguments.command == "chat":
        from arkjax import chat

        return chat.main(
            arguments.checkpoint,
            role=arguments.role,
            sampling=chat.SamplingParams(
                temperature=arguments.temperature,
                top_p=arguments.top_p,
                max_tokens=arguments.max_tokens,
            ),
            seed=arguments.seed,
            max_context=arguments.max_context,
            cache=arguments.cache,
            weights=arguments.weights,
            variables=arguments.variable,
        )
    from arkjax import convert

    progress = Progress(enabled=not arguments.quiet)
    if arguments.command == "import":
        convert.import_checkpoint(
            arguments.source,
            arguments.out,
            arguments.dtype,
            overwrite=arguments.overwrite,
            progress=progress,
        )
    else:
        convert.export_checkpoint(
            arguments.checkpoint,
            arguments.out,
            base=arguments.base,
            adapter=arguments.adapter,
            max_shard_bytes=int(arguments.max_shard_gib * 2**30),
            overwrite=arguments.overwrite,
            progress=progress,
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
    return not any(word in _WITHOUT_CONFIG for word in words[:1])


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
