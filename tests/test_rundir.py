import dataclasses
import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from arkjax import rundir
from arkjax.errors import DataError, StaleArtifactError, StorageError
from arkjax.rundir import RunDirectory, content_hash, write_atomic, write_directory_atomic

pytestmark = pytest.mark.fast

HOLDER = """
import sys, time
from arkjax.rundir import RunDirectory
run = RunDirectory(sys.argv[1])
print("held", flush=True)
time.sleep(60)
"""


def files_below(path: Path) -> list[str]:
    return sorted(p.relative_to(path).as_posix() for p in path.rglob("*"))


def finished_stage(root: Path, inputs: dict | None = None) -> rundir.StageDirectory:
    with RunDirectory(root) as run:
        stage = run.stage(0, "sample")
        stage.begin(inputs or {"lr": 1})
        write_atomic(stage.path / "calls.bin", b"0123456789")
        stage.finish({"calls": 10})
    return stage


def test_write_atomic_keeps_the_old_file_when_the_disk_fills_up(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    write_atomic(path, "old")

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match=r"a\.txt: the disk is full \(.*GiB free\); free some"):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert files_below(tmp_path) == ["a.txt"]


def test_directory_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "rows"
    with pytest.raises(ValueError, match="midway"), write_directory_atomic(path) as aside:
        (aside / "a.npy").write_bytes(b"half")
        raise ValueError("midway")
    assert files_below(tmp_path) == []
    for content in (b"one", b"two"):
        with write_directory_atomic(path) as aside:
            (aside / "sub").mkdir()
            (aside / "sub" / "a.npy").write_bytes(content)
            assert not path.exists() or (path / "sub" / "a.npy").read_bytes() == b"one"
    assert (path / "sub" / "a.npy").read_bytes() == b"two"
    assert files_below(tmp_path) == ["rows", "rows/sub", "rows/sub/a.npy"]


def test_content_hash_depends_on_content_alone():
    @dataclasses.dataclass(frozen=True)
    class Point:
        x: int
        y: tuple[int, ...]

    same = [{"x": 1, "y": (2, 3)}, {"y": [2, 3], "x": 1}, Point(1, (2, 3))]
    assert len({content_hash(value) for value in same}) == 1
    assert content_hash({"x": 1}) != content_hash({"x": True})
    with pytest.raises(TypeError):
        content_hash({"x": {1, 2}})


def test_second_process_is_refused_and_a_killed_one_frees_the_run_at_once(tmp_path):
    root = tmp_path / "run"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(root)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(StaleArtifactError, match=f"in use by process {holder.pid} on "):
            RunDirectory(root)
        RunDirectory(root, lock=False)
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        holder.stdout.close()
    with RunDirectory(root):
        assert json.loads((root / "lock").read_text())["pid"] == os.getpid()


def test_without_file_locks_the_pid_decides(tmp_path, monkeypatch):
    with RunDirectory(tmp_path):
        pass
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    host = rundir.socket.gethostname()

    def unsupported(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(rundir.fcntl, "flock", unsupported)
    owner = {"what": "arkjax run directory", "host": host}
    (tmp_path / "lock").write_text(json.dumps(owner | {"pid": os.getppid()}))
    with pytest.raises(StaleArtifactError, match="if it no longer runs, delete"):
        RunDirectory(tmp_path)
    (tmp_path / "lock").write_text(json.dumps(owner | {"pid": dead.pid}))
    with RunDirectory(tmp_path):
        pass
    with RunDirectory(tmp_path):
        pass


def test_foreign_directories_are_refused_untouched(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(StaleArtifactError, match="not an ArkJAX run directory"):
        RunDirectory(tmp_path)
    assert files_below(tmp_path) == ["thesis.tex"]
    with pytest.raises(DataError, match="not an ArkJAX run"):
        RunDirectory(tmp_path / "nowhere", lock=False)
    with pytest.raises(StorageError, match="a part of the path is a file"):
        RunDirectory(tmp_path / "thesis.tex")
    with pytest.raises(StorageError, match="a part of the path is a file"):
        RunDirectory(tmp_path / "thesis.tex" / "run")


def test_empty_volumes_and_killed_first_runs_are_taken(tmp_path):
    (tmp_path / "lost+found").mkdir()
    (tmp_path / "lock").touch()
    with RunDirectory(tmp_path) as run:
        run.write_config({"seeds": (0, 1)})
    (tmp_path / "notes.txt").touch()
    with RunDirectory(tmp_path):
        assert json.loads((tmp_path / "config.json").read_text()) == {"seeds": [0, 1]}


def test_an_interrupted_stage_goes_on_with_what_it_had(tmp_path):
    with RunDirectory(tmp_path) as run:
        stage = run.stage(3, "sample")
        assert not stage.begin({"k": 1})
        assert stage.path == tmp_path / "seed-3" / "sample"
        (stage.path / "kept.bin").write_bytes(b"whole")
        (stage.path / ".rows.aside-0123").mkdir()
        (stage.path / ".rows.aside-0123" / "half").touch()
        with pytest.raises(DataError, match="run `arkjax sample --workdir .* first"):
            stage.summary()
        assert not stage.begin({"k": 1})
        assert files_below(stage.path) == ["kept.bin", "stage.json"]
        stage.finish({"n": 1})
        assert stage.begin({"k": 1})
        assert stage.summary() == {"n": 1}


def test_other_inputs_are_named_field_by_field(tmp_path):
    inputs = {"student": {"lr": 1e-3, "steps": 10}, "seeds": (0, 1)}
    stage = finished_stage(tmp_path, inputs)
    assert stage.begin({"seeds": [0, 1], "student": {"steps": 10, "lr": 1e-3}})
    changed = {"student": {"lr": 1e-4, "steps": 10, "rank": 4}, "seeds": (0, 1)}
    with pytest.raises(StaleArtifactError) as caught:
        stage.begin(changed)
    message = str(caught.value)
    assert "(student.lr: 0.001 -> 0.0001, student.rank: (absent) -> 4)" in message
    assert "`--redo sample`" in message and "another --workdir" in message
    stage.clear()
    assert files_below(stage.path.parent) == []
    assert not stage.begin(changed)


def test_a_stage_is_taken_up_again_for_further_parts(tmp_path):
    """What it has stays: files, summaries, and what these were made from."""

    def inputs(**parts: int) -> dict:
        return {"lr": 1, "parts": {name: {"steps": steps} for name, steps in parts.items()}}

    def make(name: str) -> None:
        (stage.path / name).mkdir()
        (stage.path / name / "model.bin").write_bytes(name.encode() * 5)

    with RunDirectory(tmp_path) as run:
        stage = run.stage(0, "distill")
        assert not stage.begin(inputs(a=1)) and stage.made() == {}
        make("a")
        stage.finish({"n": 1, "seconds": 2.0, "parts": {"a": {"kept": 3}}})
        assert stage.begin(inputs(a=1)) and stage.require(inputs(a=1))["n"] == 1
        with pytest.raises(DataError, match="has no b, c yet: run `arkjax distill --workdir"):
            stage.require(inputs(a=1, c=1, b=1))

        assert not stage.begin(inputs(b=2))
        make("b")
        # Killed here, and begun again: for others, then for the same.
        with pytest.raises(DataError, match="is not finished"):
            stage.require(inputs(a=1))
        assert not stage.begin(inputs(a=1)) and not stage.begin(inputs(b=2))
        assert stage.made() == {"a": {"kept": 3}} and stage.seconds() == 2.0
        assert stage.missing(inputs(a=1, b=2)) == {"b"}
        with pytest.raises(StaleArtifactError, match=r"\(b.steps: 2 -> 3\)"):
            stage.begin(inputs(b=3))
        stage.finish({"n": 2, "parts": {"b": {}}})

        assert stage.begin(inputs(a=1)) and stage.begin(inputs(b=2)) and stage.begin(inputs())
        assert stage.summary() == {"n": 2, "parts": {"a": {"kept": 3}, "b": {}}}
        with pytest.raises(StaleArtifactError, match=r"\(a.steps: 1 -> 2\)"):
            stage.begin(inputs(a=2, c=1))
        with pytest.raises(StaleArtifactError, match=r"\(lr: 1 -> 2\)"):
            stage.begin(inputs(a=1) | {"lr": 2})
        # Nothing is added to what is damaged.
        (stage.path / "a" / "model.bin").write_bytes(b"bbbbb")
        with pytest.raises(DataError, match="its hash is not the recorded one"):
            stage.begin(inputs(c=1))


def test_many_changes_stay_one_readable_line(tmp_path):
    stage = finished_stage(tmp_path, {str(i): i for i in range(20)})
    with pytest.raises(StaleArtifactError, match="and 12 more"):
        stage.begin({str(i): i + 1 for i in range(20)})


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda path: path.unlink(), "calls.bin is missing"),
        (lambda path: path.write_bytes(b"012"), "damaged: 3 bytes, 10 were written"),
        (lambda path: path.write_bytes(b"0123456780"), "its hash is not the recorded one"),
    ],
)
def test_damage_to_a_finished_stage_is_found_and_the_remedy_named(tmp_path, damage, said):
    stage = finished_stage(tmp_path)
    damage(stage.path / "calls.bin")
    with pytest.raises(DataError, match=said) as caught:
        stage.begin({"lr": 1})
    assert "--redo sample" in str(caught.value)


def test_a_damaged_state_is_not_mistaken_for_an_unfinished_stage(tmp_path):
    stage = finished_stage(tmp_path)
    for text in ("{", "[]", "{}"):
        (stage.path / "stage.json").write_text(text)
        with pytest.raises(DataError, match="stage.json is damaged.*--redo sample"):
            stage.begin({"lr": 1})
    (stage.path / "stage.json").unlink()
    with pytest.raises(DataError, match="holds files but no stage.json"):
        stage.begin({"lr": 1})
