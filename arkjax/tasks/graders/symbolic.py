"""Whether two expressions are equal, found out by math-verify in a process beside this one.

SymPy can be led into work without end by a short text. Nothing inside a thread can stop that, so
the work is done by a program (`symbolic_worker.py`) to which the system grants some seconds of
processor time per comparison and some memory, and which is killed when that is not enough. The next
comparison starts another. One process serves all threads, one comparison after the other.
"""

import atexit
import dataclasses
import functools
import json
import math
import os
import subprocess
import sys
import threading
import time
from multiprocessing.connection import Pipe
from pathlib import Path
from typing import Any

from arkjax.errors import ArkJAXError, DataError

SECONDS = 5.0
"""Processor time that one comparison may take."""
MEMORY = 2 * 2**30
"""Bytes of address space that the process may have."""
LONGEST = 1000
"""Characters of an expression that is compared; a longer one equals only itself."""
_CACHED = 2**16
# The process ends itself by a timer. Where the system's timers do not work, its time is read here.
_TOLERANCE = 1.5
_INTERVAL = 0.2
# Seconds on the wall after which a process that gets no processor time is given up.
_PATIENCE = 60.0
_PROGRAM = Path(__file__).with_name("symbolic_worker.py")
# The process sees nothing else of the environment: where programs and libraries lie.
_VARIABLES = ("LANG", "LC_ALL", "LD_LIBRARY_PATH", "PATH")


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Whether two expressions are equal, and what kept it from being found out, if anything."""

    equal: bool
    hindrance: str = ""


@functools.lru_cache(_CACHED)
def compare(gold: str, answer: str, seconds: float = SECONDS) -> Verdict:
    """Whether `answer` is what `gold` is, by `math_verify.verify`, which is not symmetric.

    Verdicts are kept, so that votes over the same answers cost one comparison each. One that takes
    more than `seconds` of processor time, or too much memory, is not equal, and says so.

    Raises:
      ArkJAXError: if no process can be started.
      DataError: if math-verify is missing.
    """
    if max(len(gold), len(answer)) > LONGEST:
        return Verdict(gold == answer, f"expressions of over {LONGEST} characters are not compared")
    try:
        reply = _worker().ask({"gold": gold, "answer": answer, "seconds": seconds}, seconds)
    except _Stopped:
        return Verdict(False, f"the comparison took more than {seconds:g} s or too much memory")
    return Verdict(reply["equal"])


def close() -> None:
    """End the process; the next comparison starts another."""
    _worker().close()


class _Stopped(Exception):
    """The process was ended because a comparison used up what it may have."""


class _Worker:
    """The process, started when it is first needed, and again after it was ended."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen | None = None
        self._owner = 0

    def ask(self, request: dict[str, Any], seconds: float) -> dict[str, Any]:
        message = json.dumps(request).encode()
        with self._lock:
            for last in (False, True):
                if not self._runs():
                    self._start()
                try:
                    self._connection.send_bytes(message)
                except OSError:
                    # Somebody ended the process while it had nothing to do.
                    self._stop()
                    if last:
                        raise _Stopped from None
                    continue
                break
            try:
                return json.loads(self._receive(seconds))
            except (OSError, EOFError):
                self._stop()
                raise _Stopped from None
            except BaseException:
                # Interrupted: the reply would be taken for that of the next request.
                self._stop()
                raise

    def close(self) -> None:
        with self._lock:
            self._stop()

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
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(_PROGRAM), str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env={name: os.environ[name] for name in _VARIABLES if name in os.environ},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                # Ctrl-C is for this process; the other ends when the connection does.
                start_new_session=True,
            )
        except OSError as error:
            ours.close()
            raise ArkJAXError(f"cannot start a process to compare answers: {error}") from error
        finally:
            theirs.close()
        self._connection, self._owner = ours, os.getpid()
        try:
            ours.send_bytes(json.dumps({"path": sys.path, "memory": MEMORY}).encode())
            error = json.loads(self._receive(math.inf)).get("error")
        except (OSError, EOFError):
            error = f"its process ended with exit code {self._stop()}"
        except BaseException:
            self._stop()
            raise
        if error is not None:
            self._stop()
            raise DataError(
                f"answers cannot be compared ({error}): install math-verify "
                '(pip install "math-verify>=0.9.0,<0.10")'
            )

    def _receive(self, seconds: float) -> bytes:
        """The next reply, for which the process may take this much processor time."""
        start, spent = time.monotonic(), _processor_time(self._process)
        while not self._connection.poll(_INTERVAL):
            if _processor_time(self._process) - spent > _TOLERANCE * seconds + 1:
                raise EOFError
            if time.monotonic() - start > _PATIENCE:
                raise EOFError
        return self._connection.recv_bytes()

    def _stop(self) -> int:
        process, self._process = self._process, None
        if process is None or self._owner != os.getpid():
            return 0
        self._connection.close()
        try:
            return process.wait(0.2)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()


def _processor_time(process: subprocess.Popen) -> float:
    """Seconds of processor time that a process has taken; 0 where the system does not tell."""
    try:
        # Linux's clock of another process (clock_getcpuclockid).
        return time.clock_gettime(~process.pid << 3 | 2)
    except (OSError, AttributeError):
        return 0.0


@functools.cache
def _worker() -> _Worker:
    worker = _Worker()
    atexit.register(worker.close)
    return worker
