"""The process that `worker.py` starts: it serves requests to one program, within limits.

It takes two arguments, the program's file and the descriptor of the connection. Messages are JSON.
Once the program has loaded what it needs, the process gives up what it does not: it writes no file,
has no more memory than it is granted, and opens no file unless that is allowed. A timer of
processor time, set for each request, ends it whatever it is at.
"""

import contextlib
import importlib.util
import json
import os
import resource
import signal
import sys
from multiprocessing.connection import Connection
from types import ModuleType
from typing import Any


def _restrict(memory: int, opens_files: bool, connection: Connection) -> None:
    """Take from this process what the program does not need."""

    def lower(kind: int, value: int) -> None:
        _, hard = resource.getrlimit(kind)
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        # Not every system has every limit.
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(kind, (value, value))

    lower(resource.RLIMIT_AS, memory)
    lower(resource.RLIMIT_FSIZE, 0)
    lower(resource.RLIMIT_CORE, 0)
    if not opens_files:
        lower(resource.RLIMIT_NOFILE, connection.fileno() + 1)


def _lowest(handle: int) -> int:
    """The same handle under the lowest free number: the limit on open files is just above it."""
    other = os.dup(handle)
    os.close(max(handle, other))
    return min(handle, other)


def _load(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location("isolated_program", path)
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    return program


def _receive(connection: Connection) -> Any:
    return json.loads(connection.recv_bytes().decode("utf-8", "surrogatepass"))


def _packed(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")


def main() -> None:
    """Serve requests until the other side closes the connection."""
    connection = Connection(_lowest(int(sys.argv[2])))
    start = _receive(connection)
    sys.path[:] = start["path"]
    try:
        program = _load(sys.argv[1])
        program.warm()
    except ImportError as error:
        connection.send_bytes(_packed({"error": str(error)}))
        return
    _restrict(start["memory"], start["opens_files"], connection)
    # Who starts programs may have had the signal ignored or held back, which programs inherit.
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGPROF])
    connection.send_bytes(_packed({}))
    while True:
        try:
            asked = _receive(connection)
        except EOFError:
            return
        # Of processor time, so that a busy machine stops nothing that is innocent.
        signal.setitimer(signal.ITIMER_PROF, asked["seconds"])
        reply = _packed(program.answer(asked["request"]))
        # Before the reply is sent: a late signal would be blamed on the next request.
        signal.setitimer(signal.ITIMER_PROF, 0)
        connection.send_bytes(reply)


if __name__ == "__main__":
    main()
