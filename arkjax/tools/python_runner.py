"""Runs Python that an agent wrote: in a process of its own that can reach nothing outside it.

What the process may do is decided in `jail.py`, by the kernel. Here is decided for how long: the
process is killed when its time on the clock is up, when it has written too much, or when its files
grow too large. Nothing of this process's environment, files or connections is handed on.
"""

import contextlib
import dataclasses
import functools
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from arkjax.errors import ArkJAXError
from arkjax.tools.jail import READY

_PROGRAM = Path(__file__).with_name("jail.py")
_INTERVAL = 0.05
_READ = 2**16


class IsolationError(ArkJAXError):
    """This system cannot isolate a program, so none is run."""


@dataclasses.dataclass(frozen=True)
class Limits:
    """What one program may use.

    Attributes:
      seconds: on the clock, from its start to its end.
      cpu_seconds: of processor time; whole seconds.
      memory_bytes: of address space, Python's own included (some 30 MiB).
      output_bytes: of standard output and standard error together.
      file_bytes: of all its files together.
      files: number of its files and folders.
    """

    seconds: float = 10.0
    cpu_seconds: int = 5
    memory_bytes: int = 512 * 2**20
    output_bytes: int = 64 * 2**10
    file_bytes: int = 16 * 2**20
    files: int = 256


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a program.

    Attributes:
      status: "ok": it ended by itself with code 0; "error": with another, or by an exception or a
        signal; "time", "output" or "files": it was killed for using too much of it.
      stdout, stderr: what it wrote, at most `Limits.output_bytes` together.
      code: its exit code, or minus the signal that ended it.
      seconds: how long it ran, on the clock.
    """

    status: str
    stdout: str
    stderr: str
    code: int
    seconds: float


def run_python(
    source: str, stdin: str = "", limits: Limits = Limits(), descriptors: Sequence[int] = ()
) -> Outcome:
    """Run a program and say what became of it. It is given `stdin`, and an empty folder.

    Args:
      source: the program.
      stdin: what it reads from standard input.
      limits: what it may use.
      descriptors: ends of pipes that it finds open under the same numbers; they are closed here
        once it has started, or could not be.

    It can compute, read Python's standard library, and read and write files in its folder, which
    is deleted afterwards. Everything else fails for it as the kernel's refusal (OSError): other
    files, processes, threads, sockets, signals. Of other files it can see that they exist, and how
    large they are. Text is hashed alike in every run, so that a set has one order, and the path of
    its folder reads "." in what it wrote: the same program gives the same texts.

    Raises:
      IsolationError: if this system does not let it be isolated, and then nothing has been run; or
        if it cannot run a program at all, for want of memory or disk.
    """
    held = list(descriptors)
    try:
        with _folder() as folder:
            scratch = folder / "scratch"
            scratch.mkdir()
            _write(folder / "program.py", source)
            _write(folder / "stdin", stdin)
            return _run(folder, scratch, limits, held)
    except OSError as error:
        raise IsolationError(f"cannot run an agent's program: {error}") from error
    finally:
        _close(held)


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="arkjax-python-", ignore_cleanup_errors=True) as home:
        yield Path(home)


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", errors="surrogatepass", newline="")


def _close(descriptors: list[int]) -> None:
    """Close descriptors, each once: its number may soon be that of another file."""
    while descriptors:
        os.close(descriptors.pop())


def _run(folder: Path, scratch: Path, limits: Limits, descriptors: list[int]) -> Outcome:
    start = time.monotonic()
    report, theirs = os.pipe()
    asked = {
        "source": str(folder / "program.py"),
        "report": theirs,
        "cpu_seconds": limits.cpu_seconds,
        "memory_bytes": limits.memory_bytes,
        "file_bytes": limits.file_bytes,
    }
    with open(folder / "stdin", "rb") as stdin:
        try:
            process = subprocess.Popen(
                # As -I, but for PYTHONHASHSEED.
                [sys.executable, "-s", "-P", "-S", "-B", _PROGRAM, scratch, json.dumps(asked)],
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=[theirs, *descriptors],
                env={"LANG": "C.UTF-8", "HOME": str(scratch), "PYTHONHASHSEED": "0"},
                cwd=scratch,
                start_new_session=True,
            )
        except OSError as error:
            os.close(report)
            raise IsolationError(
                f"cannot start a process for an agent's program: {error}"
            ) from error
        finally:
            os.close(theirs)
            _close(descriptors)
    with process, open(report, "rb") as reader:
        try:
            texts, status = _watch(process, scratch, start, limits)
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            code = process.wait()
        said = reader.read(1000)
    if said != READY:
        why = said.decode(errors="replace") or texts[1].decode(errors="replace")[-300:]
        raise IsolationError(f"agents' programs cannot be isolated here, so none is run: {why}")
    if status == "ok" and code == -signal.SIGXCPU:
        status = "time"
    if status == "ok" and code != 0:
        status = "error"
    stdout, stderr = (_text(text, scratch) for text in texts)
    return Outcome(status, stdout, stderr, code, time.monotonic() - start)


def _text(written: bytes, scratch: Path) -> str:
    text = written.decode("utf-8", errors="replace")
    return text.replace(str(scratch), ".").replace(os.path.realpath(scratch), ".")


def _watch(
    process: subprocess.Popen, scratch: Path, start: float, limits: Limits
) -> tuple[list[bytes], str]:
    """Read what the process writes until it ends or must be ended; `ok` if it ended by itself."""
    texts = [bytearray(), bytearray()]
    left = limits.output_bytes
    with selectors.DefaultSelector() as selector:
        for i, stream in enumerate((process.stdout, process.stderr)):
            selector.register(stream, selectors.EVENT_READ, i)
        status = "ok"
        while selector.get_map() and status == "ok":
            for key, _ in selector.select(_INTERVAL):
                chunk = os.read(key.fd, _READ)
                if not chunk:
                    selector.unregister(key.fileobj)
                texts[key.data] += chunk[:left]
                if len(chunk) > left:
                    status = "output"
                left -= min(len(chunk), left)
            if time.monotonic() - start > limits.seconds:
                status = "time"
            elif not _small(scratch, limits):
                status = "files"
    if status == "ok":
        # It has closed its outputs, which does not mean that it has ended.
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, start + limits.seconds - time.monotonic()))
        if process.poll() is None:
            status = "time"
    return [bytes(text) for text in texts], status


def _small(folder: Path, limits: Limits) -> bool:
    """Whether the files below a folder are as few and as small as they must be."""
    number = size = 0
    for root, folders, files in os.walk(folder):
        number += len(folders) + len(files)
        if number > limits.files:
            return False
        for name in files:
            with contextlib.suppress(OSError):
                size += os.lstat(os.path.join(root, name)).st_blocks * 512
        if size > limits.file_bytes:
            return False
    return True


@functools.cache
def can_isolate() -> str:
    """Empty if programs can be isolated here, else why not."""
    try:
        run_python("")
    except IsolationError as error:
        return str(error)
    return ""
