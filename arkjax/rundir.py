"""The run directory: whose it is, which stages are finished, and files that are whole or absent.

    root/lock                        held by the process that works on the run
    root/config.json                 the config of the last command
    root/seed-<n>/<stage>/stage.json state of the stage: its inputs, summary, and a hash per file
    root/report/                     what the report stage writes

A process may be killed at any point: a stage counts as finished only once its `stage.json`, written
last and at once, says so.

A stage may be made of parts, such as students, each with inputs of its own: those are
`inputs["parts"]`, by name. It can be taken up again for further parts, and keeps those it has.
"""

import contextlib
import errno
import fcntl
import json
import os
import socket
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from arkjax.errors import DataError, StaleArtifactError
from arkjax.storage import (
    ASIDE,
    content_hash,
    flush,
    plain,
    remove,
    remove_leftovers,
    sha256_file,
    storage_errors,
    write_atomic,
    write_directory_atomic,
)

__all__ = [
    "RunDirectory",
    "StageDirectory",
    "apart",
    "content_hash",
    "sha256_file",
    "write_atomic",
    "write_directory_atomic",
]

# Finding a damaged file must not take as long as making it: larger files are only measured.
_HASHED_ON_VERIFY = 64 * 2**20
_SHOWN_DIFFERENCES = 8
_SIGNATURE = "arkjax run directory"
_PARTS = "parts"
# Some network file systems know no locks; there only the pid in the lock file can tell.
_LOCKS_UNSUPPORTED = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL}


def _read_json(path: Path) -> dict:
    """A JSON object. Raises DataError, saying where, if the file is something else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, UnicodeError) as error:
        raise DataError(f"{path} is damaged: {error}") from error
    if not isinstance(value, dict):
        raise DataError(f"{path} is damaged: expected a JSON object, found {type(value).__name__}")
    return value


def _differences(old: Any, new: Any, path: str = "") -> Iterator[str]:
    """Dotted fields in which two plain objects differ, as `field: old -> new`."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            field = f"{path}.{key}" if path else key
            if key not in old:
                yield f"{field}: (absent) -> {json.dumps(new[key])}"
            elif key not in new:
                yield f"{field}: {json.dumps(old[key])} -> (absent)"
            else:
                yield from _differences(old[key], new[key], field)
    elif old != new:
        yield f"{path}: {json.dumps(old)} -> {json.dumps(new)}"


def apart(inputs: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Inputs of a stage as a whole, and of its parts."""
    whole = dict(inputs)
    return whole, whole.pop(_PARTS, {})


def _made(state: Mapping[str, Any] | None) -> dict[str, Any]:
    """Summaries of the parts that a state records as finished."""
    return {} if state is None else state.get("summary", {}).get(_PARTS, {})


class StageDirectory:
    """One stage of one seed: where its files are, what they were made from, whether they are whole.

    Attributes:
      path: the directory; it exists once `begin` was called.
      name: the stage's name.
    """

    def __init__(self, path: Path, name: str, root: Path, option: str = "--workdir") -> None:
        self.path = path
        self.name = name
        self._root = root
        self._option = option

    @property
    def _state_path(self) -> Path:
        return self.path / "stage.json"

    @property
    def _redo(self) -> str:
        return f"pass `--redo {self.name}` to delete and remake this stage and all after it"

    def _state(self) -> dict | None:
        if not self._state_path.exists():
            return None
        try:
            state = _read_json(self._state_path)
        except DataError as error:
            raise DataError(f"{error}; {self._redo}") from error
        if state.get("status") not in ("running", "done") or "inputs" not in state:
            raise DataError(f"{self._state_path} is damaged: no status or inputs; {self._redo}")
        if not all(isinstance(state.get(name, {}), dict) for name in ("summary", "files")):
            raise DataError(f"{self._state_path} is damaged: no files or summary; {self._redo}")
        return state

    def made_from(self) -> dict[str, Any]:
        """The inputs that the stage was begun with; empty if it was not begun.

        Raises:
          DataError: if its state is damaged.
        """
        state = self._state()
        return {} if state is None else state["inputs"]

    def made(self) -> dict[str, Any]:
        """The summaries of the parts that are finished, by name; also while others are made.

        Raises:
          DataError: if its state is damaged.
        """
        return _made(self._state())

    def seconds(self) -> float:
        """What a finished summary says of the time that the stage took, before further parts."""
        state = self._state() or {}
        return state.get("summary", {}).get("seconds", 0.0)

    def check(self, inputs: Mapping[str, Any]) -> None:
        """Make sure that the stage, if it was begun at all, is made from these `inputs`.

        Parts that only one side has are no difference.

        Raises:
          StaleArtifactError: if it was begun with others; names those that differ.
          DataError: if its state is damaged.
        """
        state = self._state()
        if state is None:
            return
        new, parts = apart(json.loads(json.dumps(plain(inputs))))
        old, begun = apart(state["inputs"])
        common = begun.keys() & parts.keys()
        changes = list(_differences(old, new))
        changes += _differences({n: begun[n] for n in common}, {n: parts[n] for n in common})
        if not changes:
            return
        more = len(changes) - _SHOWN_DIFFERENCES
        shown = ", ".join(changes[:_SHOWN_DIFFERENCES]) + (f", and {more} more" * (more > 0))
        raise StaleArtifactError(
            f"{self.path} was made with another config ({shown}); {self._redo}, "
            f"or choose another {self._option}"
        )

    def begin(self, inputs: Mapping[str, Any]) -> bool:
        """Take up the stage. True if it is finished, whole, and made from the same `inputs`.

        When False, what an interrupted run of the stage has finished writing is still there, and so
        are the parts that are `made`.

        Raises:
          StaleArtifactError: if the stage was begun with other inputs; names those that differ.
          DataError: if a finished file is missing or damaged, or the directory is not a stage.
          StorageError: if the directory cannot be written.
        """
        self.check(inputs)
        inputs, state = plain(inputs), self._state()
        if state is not None and state["status"] == "done":
            self.verify()
            if not self.missing(inputs):
                return True
        with storage_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            remove_leftovers(self.path)
            if state is None and any(self.path.iterdir()):
                raise DataError(f"{self.path} holds files but no stage.json; {self._redo}")
        begun = (state or {}) | {"status": "running", "inputs": dict(inputs)}
        if state is not None and _PARTS in inputs:
            begun["inputs"][_PARTS] = state["inputs"].get(_PARTS, {}) | inputs[_PARTS]
        if begun != state:
            self._write(begun)
        return False

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Record the stage as finished, with `summary` and the size and hash of each of its files.

        Of a stage with parts `summary["parts"]` are the summaries of those that were made now;
        those of the others stay.

        Raises:
          StorageError: if a file cannot be flushed to the disk or `stage.json` not be written.
        """
        state = self._state()
        if state is None:
            raise RuntimeError(f"finish() of stage {self.name} without begin()")
        kept, known = _made(state), state.get("files", {})
        if _PARTS in state["inputs"]:
            summary = {**summary, _PARTS: kept | dict(summary.get(_PARTS, {}))}
        files = {}
        with storage_errors(self.path):
            remove_leftovers(self.path)
            for path in sorted(self.path.rglob("*")):
                if not path.is_file() or path == self._state_path:
                    continue
                name = path.relative_to(self.path)
                files[name.as_posix()] = recorded = {"bytes": path.stat().st_size}
                before = known.get(name.as_posix(), {}) if name.parts[0] in kept else {}
                if before.get("bytes") == recorded["bytes"]:  # `begin` has verified it.
                    recorded["sha256"] = before["sha256"]
                else:
                    flush(path)
                    recorded["sha256"] = sha256_file(path)
        self._write(
            {"status": "done", "inputs": state["inputs"], "summary": summary, "files": files}
        )

    def _write(self, state: dict) -> None:
        write_atomic(self._state_path, json.dumps(plain(state), indent=1, sort_keys=True) + "\n")

    def verify(self) -> None:
        """Check every recorded file: its size, and its hash if it is smaller than 64 MiB.

        Raises:
          DataError: if the stage is not finished, or a file is missing or damaged.
        """
        state = self._finished()
        for name, recorded in state["files"].items():
            path = self.path / name
            if not path.is_file():
                raise DataError(f"{path} is missing; {self._redo}")
            size = path.stat().st_size
            if size != recorded["bytes"]:
                written = recorded["bytes"]
                raise DataError(
                    f"{path} is damaged: {size} bytes, {written} were written; {self._redo}"
                )
            if size < _HASHED_ON_VERIFY and sha256_file(path) != recorded["sha256"]:
                raise DataError(
                    f"{path} is damaged: its hash is not the recorded one; {self._redo}"
                )

    def _finished(self) -> dict:
        state = self._state()
        if state is None or state["status"] != "done":
            raise DataError(
                f"{self.path} is not finished: run `arkjax {self.name} --workdir {self._root} "
                "--config ...` first"
            )
        if "files" not in state or "summary" not in state:
            raise DataError(f"{self._state_path} is damaged: no files or summary; {self._redo}")
        return state

    @property
    def finished(self) -> bool:
        """Whether the stage is recorded as finished; says nothing of its inputs."""
        state = self._state()
        return state is not None and state["status"] == "done"

    def missing(self, inputs: Mapping[str, Any]) -> set[str]:
        """The parts that `inputs` name and that are not made yet; says nothing of what from."""
        return inputs.get(_PARTS, {}).keys() - self.made().keys()

    def require(self, inputs: Mapping[str, Any]) -> dict:
        """The summary of a stage that is finished with all its parts and made from `inputs`.

        Raises:
          StaleArtifactError: if it was made from others; names those that differ.
          DataError: if it is not finished, lacks a part, or its state is damaged.
        """
        summary = self._finished()["summary"]
        self.check(inputs)
        if missing := self.missing(inputs):
            raise DataError(
                f"{self.path} has no {', '.join(sorted(missing))} yet: run `arkjax {self.name} "
                f"--workdir {self._root} --config ...` first"
            )
        return summary

    def summary(self) -> dict:
        """What `finish` was given. Raises DataError if the stage is not finished."""
        return self._finished()["summary"]

    def clear(self) -> None:
        """Delete the stage and all its files. Raises StorageError if that is refused."""
        with storage_errors(self.path):
            remove(self.path)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


class RunDirectory:
    """A run's directory, held by one process at a time; also a context manager.

    The kernel drops the lock of a killed process at once, so a lock file that stayed behind never
    stands in the way of the next run.

    Args:
      root: the directory; made if it does not exist.
      lock: False to only read a run, also while another process works on it.
      option: what the command line calls the directory; errors name it.

    Raises:
      StaleArtifactError: if another process holds the run, or `root` holds something else.
      StorageError: if it cannot be made or written.
      DataError: if `lock` is False and there is no run.
    """

    def __init__(
        self, root: str | os.PathLike, *, lock: bool = True, option: str = "--workdir"
    ) -> None:
        self.root = Path(root)
        self._option = option
        if not lock:
            if not (self.root.is_dir() and self._is_run()):
                raise DataError(
                    f"{self.root} is not an ArkJAX run directory; pass the --workdir of a run"
                )
            return
        with storage_errors(self.root):
            if self.root.exists() and not self.root.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, "not a directory", str(self.root))
            self.root.mkdir(parents=True, exist_ok=True)
            if not self._is_run():
                raise StaleArtifactError(
                    f"{self.root} is not empty and not an ArkJAX run directory; "
                    f"choose an empty or a new {self._option}"
                )
            self._acquire()
            # The first run of a killed process may have left its own deletions half done.
            for folder in (self.root, *self.root.glob("seed-*")):
                for path in folder.glob(f".*{ASIDE}*"):
                    remove(path)

    def _is_run(self) -> bool:
        # A volume of its own starts with lost+found; a killed first run leaves an empty lock.
        names = {path.name for path in self.root.iterdir()} - {"lost+found", "lock"}
        if not {name for name in names if ASIDE not in name}:
            return True
        with contextlib.suppress(OSError):
            return _SIGNATURE in (self.root / "lock").read_text(errors="replace")
        return False

    def _acquire(self) -> None:
        path = self.root / "lock"
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        release = weakref.finalize(self, os.close, handle)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = self._holder()
            pid, host = holder.get("pid"), holder.get("host")
            unsupported = error.errno in _LOCKS_UNSUPPORTED
            here = host == socket.gethostname()
            if not unsupported and not isinstance(error, BlockingIOError):
                release()
                raise
            if not unsupported or (pid and not (here and not _alive(pid))):
                release()
                remedy = f"wait for it or stop it, or choose another {self._option}"
                if unsupported:
                    remedy += f"; if it no longer runs, delete {path}"
                raise StaleArtifactError(
                    f"{self.root} is in use by process {pid} on {host}: {remedy}"
                ) from error
        owner = {"what": _SIGNATURE, "pid": os.getpid(), "host": socket.gethostname()}
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(owner).encode(), 0)
        self._release = release

    def _holder(self) -> dict:
        with contextlib.suppress(OSError, ValueError):
            holder = json.loads((self.root / "lock").read_text())
            return holder if isinstance(holder, dict) else {}
        return {}

    def close(self) -> None:
        """Give the directory free for other processes."""
        release = getattr(self, "_release", None)
        if release is not None and release.alive:
            with contextlib.suppress(OSError):
                (self.root / "lock").write_text(json.dumps({"what": _SIGNATURE}))
            release()

    def __enter__(self) -> "RunDirectory":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def report(self) -> Path:
        """Where the report goes."""
        return self.root / "report"

    def stage(self, seed: int, name: str) -> StageDirectory:
        """The directory of one stage of one seed; nothing is made on the disk yet."""
        path = self.root / f"seed-{seed}" / name
        return StageDirectory(path, name, self.root, self._option)

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Record the config of this command in `config.json`."""
        text = json.dumps(plain(config), indent=1, sort_keys=True) + "\n"
        write_atomic(self.root / "config.json", text)
