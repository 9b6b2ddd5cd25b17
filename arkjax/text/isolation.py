"""The process beside this one in which chat templates are rendered."""

import atexit
import functools
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from multiprocessing.connection import Pipe
from pathlib import Path
from typing import Any

from arkjax.errors import ArkJAXError, DataError

SECONDS = 1.0
"""Processor time that one rendering may take."""
MEMORY = 2**30
"""Bytes of address space that the process may have."""
# The process ends itself by a timer. Where the system's timers do not work, its time is read here.
_TOLERANCE = 1.5
_INTERVAL = 0.2
# Seconds on the wall after which a process that gets no processor time is given up.
_PATIENCE = 60.0
_PROGRAM = Path(__file__).with_name("renderer.py")
# The process sees nothing else of the environment: what tells the time, and where libraries lie.
_VARIABLES = ("LANG", "LC_ALL", "LD_LIBRARY_PATH", "PATH", "TZ")


class Stopped(Exception):
    """The process was ended because a template used up what it may have."""


class _Renderer:
    """The process, started when it is first needed, and again after it was ended."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen | None = None
        self._owner = 0
        self._overdue = False

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        message = json.dumps(request, ensure_ascii=False).encode("utf-8", "surrogatepass")
        with self._lock:
            if not self._runs():
                self._start()
            try:
                self._connection.send_bytes(message)
                reply = self._receive(SECONDS)
            except (OSError, EOFError):
                raise Stopped(self._stop()) from None
            except BaseException:
                # Interrupted: the reply would be taken for that of the next request.
                self._stop()
                raise
        return json.loads(reply.decode("utf-8", "surrogatepass"))

    def _runs(self) -> bool:
        # After a fork the process belongs to the parent; anybody may have killed it.
        mine = self._process is not None and self._owner == os.getpid()
        return mine and self._process.poll() is None

    def _start(self) -> None:
        if self._process is not None:
            self._connection.close()
            # The parent's is not this process's to wait for.
            self._process.returncode = 0
        ours, theirs = Pipe()
        environment = {name: os.environ[name] for name in _VARIABLES if name in os.environ}
        try:
            self._process = subprocess.Popen(
                # Isolated and without the site's own start-up code: it needs nothing but jinja2.
                [sys.executable, "-I", "-S", str(_PROGRAM), str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                # Ctrl-C is for this process; the other ends when the connection does.
                start_new_session=True,
            )
        except OSError as error:
            raise ArkJAXError(
                f"cannot start a process to render chat templates: {error}"
            ) from error
        finally:
            theirs.close()
        self._connection, self._owner = ours, os.getpid()
        start = {"path": sys.path, "memory": MEMORY, "seconds": SECONDS}
        try:
            ours.send_bytes(json.dumps(start).encode())
            error = json.loads(self._receive()).get("error")
        except (OSError, EOFError):
            error = self._stop()
        except BaseException:
            self._stop()
            raise
        if error is not None:
            self._stop()
            raise DataError(
                f"chat templates cannot be rendered ({error}): install jinja2 "
                '(pip install "jinja2>=3.1.6,<4")'
            )

    def _receive(self, seconds: float = math.inf) -> bytes:
        """The next reply, for which the process may take this much processor time."""
        start, spent = time.monotonic(), _processor_time(self._process)
        while not self._connection.poll(_INTERVAL):
            if _processor_time(self._process) - spent > _TOLERANCE * seconds:
                self._overdue = True
                raise EOFError
            if time.monotonic() - start > _PATIENCE:
                raise EOFError
        return self._connection.recv_bytes()

    def _stop(self) -> str:
        """End the process and say what ended it."""
        process, self._process = self._process, None
        overdue, self._overdue = self._overdue, False
        if process is None or self._owner != os.getpid():
            return "it was ended"
        self._connection.close()
        try:
            code = process.wait(0.2)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        if overdue or code == -signal.SIGPROF:
            return f"it takes more than {SECONDS:g} s of processor time"
        return f"it ended the process that renders it (exit code {code})"

    def close(self) -> None:
        with self._lock:
            self._stop()


def _processor_time(process: subprocess.Popen) -> float:
    """Seconds of processor time that a process has taken; 0 where the system does not tell."""
    try:
        # Linux's clock of another process (clock_getcpuclockid).
        return time.clock_gettime(~process.pid << 3 | 2)
    except (OSError, AttributeError):
        return 0.0


@functools.cache
def _renderer() -> _Renderer:
    renderer = _Renderer()
    atexit.register(renderer.close)
    return renderer


def ask(request: dict[str, Any]) -> dict[str, Any]:
    """Have `renderer.answer` answer a request in the process beside this one.

    Safe to call from any thread; requests are answered one after the other.

    Raises:
      Stopped: if the process was ended over it; the next request gets a new one.
      ArkJAXError: if no process can be started.
      DataError: if jinja2 is missing.
    """
    return _renderer().ask(request)


def close() -> None:
    """End the process; the next request starts another."""
    _renderer().close()
