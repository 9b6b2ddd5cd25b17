import os
import re
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest

import arkjax
from arkjax import cli, doctor
from arkjax.errors import DataError
from arkjax.progress import Progress

pytestmark = pytest.mark.fast

CONFIG = (
    "import ml_collections\ndef get_config():\n    return ml_collections.ConfigDict({'n': 1})\n"
)
# Stands in for the pipeline: says that it works, then is busy inside a C call.
BUSY = """
# Whoever starts the tests in the background has it ignored for all their processes.
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
import sys, time, types
pipeline, schema = types.ModuleType("arkjax.pipeline"), types.ModuleType("arkjax.run_config")
import dataclasses
@dataclasses.dataclass(frozen=True)
class RunConfig:
    n: int
schema.RunConfig = RunConfig
def run(*_):
    print("working", flush=True)
    {work}
pipeline.run = run
sys.modules.update({{"arkjax.pipeline": pipeline, "arkjax.run_config": schema}})
import arkjax
arkjax.pipeline = pipeline
from arkjax import cli
cli._GRACE_SECONDS = 1.0
cli.entry()
"""


@pytest.fixture
def config(tmp_path) -> str:
    path = tmp_path / "mine.py"
    path.write_text(CONFIG)
    return str(path)


@pytest.fixture
def pipeline(monkeypatch):
    """A pipeline that records its arguments, or raises what a test puts into `raises`."""
    import dataclasses

    @dataclasses.dataclass(frozen=True)
    class RunConfig:
        n: int

    seen = types.SimpleNamespace(arguments=None, raises=None, report=None)

    def run(*arguments):
        seen.arguments = arguments
        if seen.raises is not None:
            raise seen.raises
        return seen.report

    module, schema = types.ModuleType("arkjax.pipeline"), types.ModuleType("arkjax.run_config")
    module.run, schema.RunConfig = run, RunConfig
    monkeypatch.setitem(sys.modules, "arkjax.pipeline", module)
    monkeypatch.setitem(sys.modules, "arkjax.run_config", schema)
    monkeypatch.setattr(arkjax, "pipeline", module, raising=False)
    return seen


def python(*arguments: str, **settings) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=60, **settings
    )


def test_arguments_reach_the_pipeline(pipeline, config, tmp_path):
    work = str(tmp_path / "run")
    common = ["--config", config, "--workdir", work]
    assert cli.main(["run", *common, "--config.n=3", "--seed", "2", "--redo", "score"]) == 0
    made, workdir, stages, redo, seed, progress, options = pipeline.arguments
    assert (made.n, workdir, redo, seed) == (3, Path(work), "score", 2)
    assert stages == ("base", "sample", "synthesize", "score", "distill", "evaluate", "report")
    assert isinstance(progress, Progress)
    assert options[0] == "--config" and options[2:] == ("--config.n=3",)
    assert cli.main(["sample", *common, "--config.n", "4", "--quiet"]) == 0
    made, _, stages, redo, seed, *_ = pipeline.arguments
    assert (made.n, stages, redo, seed) == (4, ("sample",), None, None)


def test_a_report_is_told_where_nobody_said_quiet(pipeline, config, tmp_path, capsys):
    arguments = ["run", "--config", config, "--workdir", str(tmp_path)]
    pipeline.report = {"first_line": "Missing: a.", "headline": ["On test, b."], "splits": {}}
    assert cli.main(arguments) == 0
    told = capsys.readouterr()
    assert told.out == "Missing: a.\n\nOn test, b.\n"
    assert told.err == f"report: {tmp_path / 'report' / 'report.html'}\n"
    assert cli.main([*arguments, "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")
    pipeline.report = None
    assert cli.main(["sample", *arguments[1:]]) == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["smaple"], "unknown command smaple: did you mean sample?"),
        (["--versoin"], "unknown option --versoin: did you mean --version?"),
        (["run", "--confg=x", "--config=x", "--workdir=y"], "--confg: did you mean --config?"),
        (["run", "--config=x", "--workdir=y", "more"], "unknown argument more"),
        (["run", "--config=x"], "the following arguments are required: --workdir"),
        (["run", "--config=x", "--workdir=y", "--redo=smple"], "did you mean sample?"),
        (["run", "--config=x", "--workdir=y", "--seed=a"], "invalid int value: 'a'"),
        (["run", "--config=nosuchconfig", "--workdir=y"], "no config nosuchconfig"),
        (["doctor", "--config.n=1"], "unknown option --config.n"),
    ],
)
def test_wrong_usage_exits_2_and_names_the_nearest_word(arguments, said, capsys):
    assert cli.main(arguments) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert "arkjax: error: " in captured.err and "\033" not in captured.err


def test_errors_become_one_line_and_their_exit_code(pipeline, config, tmp_path, capsys):
    arguments = ["run", "--config", config, "--workdir", str(tmp_path)]
    expected = {
        DataError("calls are damaged"): (3, "arkjax: error: calls are damaged\n"),
        OSError(28, "No space left on device", str(tmp_path)): (5, "the disk is full"),
        KeyboardInterrupt(): (130, "interrupted; the same command goes on"),
    }
    for error, (code, said) in expected.items():
        pipeline.raises = error
        assert cli.main(arguments) == code
        captured = capsys.readouterr().err
        assert said in captured and "Traceback" not in captured
    assert cli.main([*arguments, "--config.m=1"]) == 2
    assert "unknown field config.m" in capsys.readouterr().err
    pipeline.raises = ZeroDivisionError("a defect keeps its traceback")
    with pytest.raises(ZeroDivisionError):
        cli.main(arguments)


@pytest.mark.parametrize(
    ("work", "number", "code", "said"),
    [
        ("time.sleep(60)", signal.SIGTERM, 143, "terminated"),
        ("time.sleep(60)", signal.SIGINT, 130, "interrupted"),
        # Code that never lets the exception through, as a long XLA computation.
        ("while True:\n        try: time.sleep(60)\n        except BaseException: pass",
         signal.SIGTERM, 143, ""),
    ],
)  # fmt: skip
def test_signals_end_the_process_promptly(config, tmp_path, work, number, code, said):
    process = subprocess.Popen(
        [sys.executable, "-c", BUSY.format(work=work), "run", "--config", config]
        + ["--workdir", str(tmp_path / "run")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "working\n"
    sent = time.monotonic()
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == code
    assert time.monotonic() - sent < 5
    assert said in errors and "Traceback" not in errors


def test_help_teaches_and_module_is_the_same_program(tmp_path):
    help_text = python("-m", "arkjax", "run", "--help", cwd=tmp_path, env=environment())
    assert help_text.returncode == 0
    for word in ("exit codes", "examples", "--redo STAGE", "seed-N", "--config.FIELD=VALUE"):
        assert word in help_text.stdout
    version = python("-m", "arkjax", "--version", cwd=tmp_path, env=environment())
    assert version.stdout == f"arkjax {arkjax.__version__}\n"
    assert python("-m", "arkjax", cwd=tmp_path, env=environment()).returncode == 2


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(arkjax.__file__).parents[1])}


def test_import_is_light_and_names_are_lazy(tmp_path):
    heavy = "jax flax tensorflow seqio torch pyarrow numpy rich ml_collections"
    code = (
        "import sys, arkjax, arkjax.cli; "
        f"print([m for m in '{heavy}'.split() if m in sys.modules], 'teams' in dir(arkjax))"
    )
    assert python("-c", code, cwd=tmp_path, env=environment()).stdout == "[] True\n"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = arkjax.nothing


def test_doctor_knows_which_versions_go_together():
    assert doctor.check_pair((3, 11, 7), "0.10.2", "0.12.8").level == "ok"
    assert doctor.check_pair((3, 12, 1), "0.12.0.1", "0.12.12").level == "ok"
    assert doctor.check_pair((3, 12, 1), "0.11.1", "0.12.8").level == "broken"
    assert doctor.check_pair((3, 11, 7), "0.10.1", "0.12.8").level == "warning"
    assert doctor.check_pair((3, 10, 0), "0.6.2", "0.10.0").level == "broken"


def test_doctor_reports_what_is_broken_with_its_remedy(tmp_path, monkeypatch, capsys):
    def broken():
        raise RuntimeError("no driver\nmore")
        yield

    monkeypatch.setattr(doctor, "_devices", broken)
    (tmp_path / "file").touch()
    assert cli.main(["doctor", "--workdir", str(tmp_path / "file")]) == 1
    said = capsys.readouterr().out
    assert "checking the devices failed: RuntimeError: no driver ->" in said
    assert "is a file -> choose another --workdir" in said
    assert "2 thing(s) broken" in said
    assert "a jitted matrix product is right" in said and "\033" not in said


class Clock:
    """A clock that tests set."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_plain_progress_is_rare_and_shows_rate_and_time_left(capsys):
    clock = Clock()
    progress = Progress(stream=sys.stderr, clock=clock)
    progress.say("hello [red]world")
    with progress.task("sample", total=1000, unit="calls", done=400) as task:
        for _ in range(5):
            clock.now += 4
            task.advance(40, note="0.5 correct")
        clock.now += 30
        task.advance(400)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "hello [red]world",
        "sample: 560/1,000 calls, 10 calls/s, 44s left, 0.5 correct",
        "sample: 1,000/1,000 calls, 12 calls/s, took 50s, 0.5 correct",
    ]
    with progress.task("resumed", total=1000, unit="calls") as task:
        clock.now += 2
        task.advance(900)
        task.restart()
        clock.now += 50
        task.advance(50)
        clock.now += 50
        task.advance(50)
    # What was there already does not make the rest look quick.
    assert capsys.readouterr().err.splitlines() == [
        "resumed: 950/1,000 calls",
        "resumed: 1,000/1,000 calls, 1 calls/s, took 1m40s",
    ]
    with Progress(enabled=False).task("quiet") as task:
        task.advance()
    assert capsys.readouterr().err == ""


def test_progress_on_a_terminal_draws_bars_and_obeys_no_color(monkeypatch):
    import io

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    for no_color in ("", "1"):
        monkeypatch.setenv("NO_COLOR", no_color)
        stream = Terminal()
        progress = Progress(stream=stream)
        with progress.task("outer", total=2, unit="stages") as outer:
            with progress.task("inner", total=3, unit="rows") as inner:
                inner.advance(3, note="loss 0.1")
                progress.say("[said]")
            outer.advance(2)
        text = stream.getvalue()
        assert "3/3 rows" in text and "loss 0.1" in text and "[said]" in text
        assert bool(re.search(r"\033\[[39]\d[;m]", text)) is (no_color == "")
    monkeypatch.setenv("TERM", "dumb")
    stream = Terminal()
    with Progress(stream=stream).task("a", total=1) as task:
        task.advance()
    assert "\033" not in stream.getvalue()
