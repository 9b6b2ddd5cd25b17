"""Mistakes that people make: one clear line, the right exit code, and nothing lost."""

import contextlib
import hashlib
import os
import resource
import shutil
import subprocess
from pathlib import Path

import pytest

from arkjax import cli

LABEL = "arkjax: error: "


def said(error: str) -> str:
    """The one line of complaint in what was printed."""
    assert "Traceback" not in error, error
    (line,) = [line for line in error.splitlines() if LABEL in line]
    assert error.count(LABEL) == 1
    return line.removeprefix(LABEL)


@pytest.fixture
def refused(capfd):
    """A function that runs the command in this process: its exit code and its complaint."""

    def run(*arguments: object) -> tuple[int, str]:
        code = cli.main([str(argument) for argument in arguments])
        return code, said(capfd.readouterr().err)

    return run


@pytest.fixture
def run_copy(tiny_run, tmp_path):
    """A finished run of one's own."""
    return shutil.copytree(tiny_run, tmp_path / "copy")


def files(root: Path) -> dict[str, str]:
    """Every file of a run and its hash; but not the command's own config, nor the lock."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name not in ("lock", "config.json")
    }


# --- configs --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "code", "words"),
    [
        ("--config.sample.problem=3", 2, ["config.sample.problem", "did you mean 'problems'"]),
        ("--config.student.warmup=3", 2, ["config.student.warmup", "objective"]),
        ("--config.sample.problems=many", 2, ["config.sample.problems must be an integer"]),
        ("--config.sample.problems=0", 2, ["config.sample.problems is 0", "at least one"]),
        ("--config.base.train.steps=0", 2, ["config.base.train", "steps is 0"]),
        ("--config.teacher.dtype=float8", 2, ["config.teacher.dtype", "float16"]),
        ("--config.team=debait:rounds=2", 2, ["'debait'", "did you mean 'debate'"]),
        ("--config.team=debate:rouns=2", 2, ["rouns", "rounds"]),
        ("--config.sample.single=vanila", 2, ["'vanila'", "did you mean 'vanilla'"]),
        ("--config.students=('student_daa',)", 2, ["'student_daa'", "did you mean 'student_da'"]),
        ("--config.student.strategy=dda", 2, ["'dda'", "did you mean 'da'"]),
        ("--config.student.strategy=('rsft', 'padd')", 2, ["'padd'", "did you mean 'pad'"]),
        ("--config.student.objective.divergence=kl", 2, ["objective.divergence is 'kl'", "jsd"]),
        ("--config.student.objective.divergence=-1*jsd", 2, ["'-1' before jsd", "positive"]),
        ("--config.student.train.patience=2", 2, ["student.train.patience is 2", "held_out is 0"]),
        ("--config.student.train.micro_rows=3", 2, ["micro_rows is 3", "multiple"]),
        ("--config.teacher.contexts.mixture=mean", 2, ["contexts.mixture", "'geometric'"]),
        ("--config.task=embeded_world", 2, ["'embeded_world'", "did you mean 'embedded_world'"]),
        ("--config.evaluation.splits=('tset',)", 2, ["'tset'", "did you mean 'test'"]),
        ("--config.evaluation.limit=5000", 2, ["5000", "1000"]),
        ("--config.student.train.batch_rows=9", 2, ["student.train.batch_rows is 9", "8"]),
        ("--config.engine.length_classes=(48, 100)", 3, ["'debate'", "holds 100", "max_tokens"]),
        ("--config.engine.length_classes=(48, 20)", 2, ["engine.length_classes", "ascending"]),
        ("--config.engine.cache=int4", 2, ["config.engine.cache is 'int4'", "'int8'"]),
        ("--config.engine.weights=8", 2, ["config.engine.weights", "'model'", "'int8'"]),
        ("--config.tokenizer=nowhere.model", 3, ["nowhere.model"]),
        ("--config.base.checkpoint=/nope", 3, ["no model at /nope"]),
        ("--config.mesh.tensor=3", 2, ["mesh", "8 devices"]),
        ("--seed=4", 2, ["--seed 4", "(0,)"]),
        ("--redo=distil", 2, ["--redo distil", "did you mean distill"]),
    ],
)
def test_a_mistake_in_the_config_is_found_before_any_work(override, code, words, refused, tmp_path):
    found = refused("run", "--config", "tiny", "--workdir", tmp_path / "run", override)
    assert found[0] == code, found
    assert all(word in found[1] for word in words), found
    # At most an empty stage: no training, no calls.
    made = [path.name for path in tmp_path.rglob("*") if path.is_file()]
    assert set(made) <= {"lock", "config.json", "stage.json"}, made


def test_a_config_that_is_not_there(refused, tmp_path):
    code, line = refused("run", "--config", "tinny", "--workdir", tmp_path)
    assert code == 2 and "did you mean 'tiny'" in line
    code, line = refused("run", "--config", tmp_path / "my.py", "--workdir", tmp_path)
    assert code == 2 and "my.py" in line


def test_an_engine_too_short_for_the_bare_prompt(refused, tmp_path):
    arguments = ("--config.engine.length_classes=(40,)", "--config.team=vanilla:max_tokens=20")
    code, line = refused("run", "--config", "tiny", "--workdir", tmp_path, *arguments)
    assert code == 3 and "holds 40" in line


# --- checkpoints and directories ------------------------------------------------------------------


def test_a_damaged_checkpoint(tiny_run, refused, tmp_path):
    checkpoint = shutil.copytree(tiny_run / "seed-0" / "base" / "model", tmp_path / "model")
    largest = max(checkpoint.rglob("*"), key=lambda p: p.stat().st_size if p.is_file() else 0)
    largest.write_bytes(largest.read_bytes()[:-100])
    before = files(tmp_path)
    arguments = ("--workdir", tmp_path / "run", f"--config.base.checkpoint={checkpoint}")
    code, line = refused("base", "--config", "tiny", *arguments)
    assert code == 3 and largest.name in line and "damaged" in line
    assert before.items() <= files(tmp_path).items()


def test_a_directory_of_something_else(refused, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    code, line = refused("run", "--config", "tiny", "--workdir", tmp_path)
    assert code == 4 and "not an ArkJAX run directory" in line
    assert files(tmp_path).keys() == {"thesis.tex"}


def test_the_directory_of_another_run(run_copy, refused):
    before = files(run_copy)
    arguments = ("run", "--config", "tiny", "--workdir", run_copy)
    code, line = refused(*arguments, "--config.model.d_ff=96")
    assert code == 4 and "model.d_ff: 320 -> 96" in line and "--redo base" in line
    assert files(run_copy) == before


def test_a_workdir_below_a_file(refused, tmp_path):
    (tmp_path / "notes").write_text("")
    code, line = refused("run", "--config", "tiny", "--workdir", tmp_path / "notes" / "run")
    assert code == 5 and "is a file, not a directory" in line


@contextlib.contextmanager
def mounted(path: Path, options: str):
    """A small file system of its own; skips the test where none may be mounted."""
    path.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", path], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"cannot mount a file system: {done.stderr.strip()}")
    try:
        yield path
    finally:
        subprocess.run(["umount", path], check=True)


def test_a_workdir_that_cannot_be_written(refused, tmp_path):
    if os.geteuid():
        (tmp_path / "closed").mkdir(mode=0o500)
        reason, place = "no permission", contextlib.nullcontext(tmp_path / "closed")
    else:
        # Nothing is closed to root but a read-only file system.
        reason, place = "read-only", mounted(tmp_path / "closed", "ro")
    with place as closed:
        code, line = refused("run", "--config", "tiny", "--workdir", closed / "run")
    assert code == 5 and reason in line and "--workdir" in line


# --- damaged records ------------------------------------------------------------------------------


def first_shard(run: Path) -> Path:
    return min((run / "seed-0" / "sample" / "team").glob("calls-*.parquet"))


def test_a_truncated_shard_of_a_finished_stage(run_copy, refused):
    shard = first_shard(run_copy)
    shard.write_bytes(shard.read_bytes()[:-7])
    before = files(run_copy)
    code, line = refused("run", "--config", "tiny", "--workdir", run_copy)
    assert code == 3 and str(shard) in line and "--redo sample" in line
    assert files(run_copy) == before


def test_a_truncated_shard_of_an_interrupted_stage(run_copy, refused):
    sample = run_copy / "seed-0" / "sample"
    text = (sample / "stage.json").read_text()
    (sample / "stage.json").write_text(text.replace('"status": "done"', '"status": "running"'))
    shard = first_shard(run_copy)
    shard.write_bytes(shard.read_bytes()[:-7])
    before = files(run_copy)
    code, line = refused("sample", "--config", "tiny", "--workdir", run_copy)
    assert code == 3 and shard.name in line and "just those calls are made again" in line
    assert files(run_copy) == before


def test_nothing_to_learn_from(run_copy, refused):
    """A filter that no call passes is named, with the figures."""
    before = files(run_copy)
    arguments = ("--redo", "synthesize", "--config.synthesis.min_agreeing=99")
    code, line = refused("synthesize", "--config", "tiny", "--workdir", run_copy, *arguments)
    assert code == 3 and "none of 480 calls" in line and "min_agreeing" in line
    earlier = ("seed-0/base/", "seed-0/sample/")
    kept = {name: h for name, h in before.items() if name.startswith(earlier)}
    assert kept
    assert kept.items() <= files(run_copy).items()


# --- full disks -----------------------------------------------------------------------------------


def test_a_file_larger_than_allowed(tiny_run, arkjax_command, tmp_path):
    limit = 100_000

    def restrict():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    checkpoint = tiny_run / "seed-0" / "base" / "model"
    arguments = ["base", "--config", "tiny", "--workdir", tmp_path / "run"]
    arguments.append(f"--config.base.checkpoint={checkpoint}")
    done = arkjax_command(*arguments, preexec_fn=restrict)
    assert done.returncode == 5 and "larger than" in said(done.stderr), done.stderr
    done = arkjax_command(*arguments)
    assert done.returncode == 0, done.stderr


def test_a_disk_that_runs_full_in_training(arkjax_command, tmp_path):
    """Exit code 5; with space again, the same command goes on."""
    with mounted(tmp_path / "disk", "size=1m") as disk:
        arguments = ["base", "--config", "tiny", "--workdir", disk / "run"]
        arguments += ["--config.base.train.steps=12", "--config.base.train.checkpoint_every=4"]
        done = arkjax_command(*arguments)
        assert done.returncode == 5, done.stderr
        line = said(done.stderr)
        assert "the disk is full" in line and "it goes on" in line
        subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
        done = arkjax_command(*arguments)
        assert done.returncode == 0, done.stderr


def test_what_a_strategy_cannot_work_with_is_said_before_any_work(refused, tmp_path):
    arguments = ("run", "--config", "tiny", "--workdir", tmp_path / "run")
    rollouts = "--config.student.policy.rollouts.row_length=32"
    code, line = refused(*arguments, "--config.student.strategy=pad", rollouts)
    assert code == 2 and "config.student.policy.rollouts: the longest prompt has" in line
    sampled = "--config.teacher.tape=sampled"
    code, line = refused(*arguments, sampled, "--config.student.objective.divergence=jsd")
    assert code == 2 and "teacher.tape is 'sampled'" in line and "forward_kl" in line
    splits = "--config.evaluation.splits=('test', 'validation')"
    code, line = refused(*arguments, "--config.student.held_out=20", splits)
    assert code == 2 and "on problems that chose nothing" in line
    assert not (tmp_path / "run").exists() or not list((tmp_path / "run").glob("seed-*"))
