"""A program of ours that works on untrusted input, in a process beside this one, with limits.

Nothing inside a thread can stop work without end. So it is done by `server.py` in a process to
which the system grants some processor time for each request and some memory, and which is killed
when that is not enough. The next request starts another. One process serves all threads, one
request after the other.
"""

import atexit
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any

from arkjax.errors import ArkJAXError, DataError

# The process ends itself by a timer. Where the system's timers do not work, its time is read here.
_TOLERANCE = 1.5
_INTERVAL = 0.2
# Seconds on the wall after which a process that gets no processor time is given up.
_PATIENCE = 60.0
_SERVER = Path(__file__).with_name("server.py")
# The process sees nothing else of the environment: where programs and libraries lie.
_VARIABLES = ("LANG", "LC_ALL", "LD_LIBRARY_PATH", "PATH")


class Stopped(Exception):
    """The process was ended over a request; says what it did: "it takes more than 1 s ..."."""


class _Overdue(EOFError):
    """The process has taken more processor time than it may."""


class Worker:
    """The process, started when it is first needed, and again after it was ended."""

    def __init__(
        self,
        program: Path,
        *,
        purpose: str,
        remedy: str,
        memory: int,
        opens_files: bool,
        variables: Sequence[str] = (),
    ) -> None:
        """Start nothing yet.

        Args:
          program: a Python file with `warm()`, which imports and loads all that can be needed
            before anything is limited, and `answer(request)`, from and to objects of JSON. It is
            loaded by itself: it may import installed packages, but no neighbour.
          purpose: for messages, what is done there: "render chat templates".
          remedy: for messages, what to do if `warm` finds a package missing.
          memory: bytes of address space that the process may have.
          opens_files: whether it may still open files, to read them, after `warm`.
          variables: of the environment, what it sees beside its language and where programs and
            libraries lie.
        """
        self._program, self._purpose, self._remedy = program, purpose, remedy
        self._memory, self._opens_files = memory, opens_files
        self._variables = (*_VARIABLES, *variables)
        self._lock = threading.Lock()
        self._process: subprocess.Popen | None = None
        self._connection: Connection | None = None
        self._owner = 0
        atexit.register(self.close)

    def ask(self, request: dict[str, Any], seconds: float) -> Any:
        """What the program answers. Safe to call from any thread.

        Args:
          request: an object of JSON.
          seconds: processor time that the answer may take.

        Raises:
          Stopped: if the process was ended over it; the next request gets a new one.
          ArkJAXError: if no process can be started.
          DataError: if the program lacks a package.
        """
        message = _packed({"seconds": seconds, "request": request})
        with self._lock:
            try:
                self._send(message)
                reply = self._receive(seconds)
            except (OSError, EOFError) as error:
                code = self._stop()
                if isinstance(error, _Overdue) or code == -signal.SIGPROF:
                    said = f"it takes more than {seconds:g} s of processor time"
                else:
                    said = f"it ended the process that works on it (exit code {code})"
                raise Stopped(said) from None
            except BaseException:
                # Interrupted: the reply would be taken for that of the next request.
                self._stop()
                raise
        return _unpacked(reply)

    def close(self) -> None:
        """End the process; the next request starts another."""
        with self._lock:
            self._stop()

    def _runs(self) -> bool:
        # After a fork the process belongs to the parent; anybody may have killed it.
        mine = self._process is not None and self._owner == os.getpid()
        return mine and self._process.poll() is None

    def _send(self, message: bytes) -> None:
        """Hand over a message, to a process anew if somebody ends it before it has anything to do.

        Raises:
          OSError: if that happens again.
        """
        for last in (False, True):
            if not self._runs():
                self._start()
            try:
                return self._connection.send_bytes(message)
            except OSError:
                if last:
                    raise
                self._stop()

    def _start(self) -> None:
        if self._process is not None:
            self._connection.close()
            # The parent's is not this process's to wait for.
            self._process.returncode = 0
        try:
            ours, theirs = Pipe()
            try:
                process = subprocess.Popen(
                    # Isolated and without the site's own start-up code.
                    [
                        *(sys.executable, "-I", "-S"),
                        *map(str, (_SERVER, self._program, theirs.fileno())),
                    ],
                    pass_fds=[theirs.fileno()],
                    env={name: os.environ[name] for name in self._variables if name in os.environ},
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    # Ctrl-C is for this process; the other ends when the connection does.
                    start_new_session=True,
                )
            except BaseException:
                ours.close()
                raise
            finally:
                theirs.close()
        except OSError as error:
            raise ArkJAXError(f"cannot start a process to {self._purpose}: {error}") from error
        self._process, self._connection, self._owner = process, ours, os.getpid()
        limits = {"memory": self._memory, "opens_files": self._opens_files}
        try:
            ours.send_bytes(_packed({"path": sys.path, **limits}))
            error = _unpacked(self._receive(math.inf)).get("error")
        except (OSError, EOFError):
            error = f"the process for it ended with exit code {self._stop()}"
        if error is not None:
            self._stop()
            raise DataError(f"cannot {self._purpose} ({error}): {self._remedy}")

    def _receive(self, seconds: float) -> bytes:
        """The next reply, for which the process may take this much processor time.

        Raises:
          OSError, EOFError: if there comes none, or none in time.
        """
        start, spent = time.monotonic(), _processor_time(self._process)
        while not self._connection.poll(_INTERVAL):
            if _processor_time(self._process) - spent > _TOLERANCE * seconds:
                raise _Overdue
            if time.monotonic() - start > _PATIENCE:
                raise EOFError
        return self._connection.recv_bytes()

    def _stop(self) -> int:
        """End the process. Returns its exit code."""
        process, self._process = self._process, None
        if process is None or self._owner != os.getpid():
            return 0
        self._connection.close()
        try:
            return process.wait(0.2)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()


def _packed(value: Any) -> bytes:
    # Half of a surrogate pair is no character, but it may be part of a text.
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")


def _unpacked(message: bytes) -> Any:
    return json.loads(message.decode("utf-8", "surrogatepass"))


def _processor_time(process: subprocess.Popen) -> float:
    """Seconds of processor time that a process has taken; 0 where the system does not tell."""
    try:
        # Linux's clock of another process (clock_getcpuclockid).
        return time.clock_gettime(~process.pid << 3 | 2)
    except (OSError, AttributeError):
        return 0.0
