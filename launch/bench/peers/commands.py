"""Commands to a process of its own, and its answers: JSON, one value a line.

A bench starts each peer, and ArkJAX too, as such a process and lets them work in turn; one that is
not asked waits for its next line and takes no processor time. Peers' environments hold nothing of
ArkJAX, so this file needs Python alone.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

_LINES = 20


def serve(commands: Mapping[str, Callable[..., Any]]) -> None:
    """Answer lines `["NAME", ARGUMENT, ...]` with what the command of that name returns.

    What the commands and their libraries print goes to standard error, where it spoils no answer.
    """
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        for line in sys.stdin:
            name, *arguments = json.loads(line)
            print(json.dumps(commands[name](*arguments)), file=answers, flush=True)


class Process:
    """A process that serves commands; ends with the `with` block that it is used in."""

    def __init__(self, name: str, command: list[str | Path], environment: Mapping[str, str]):
        """Start it.

        Args:
          name: shown in errors.
          command: what to run; it calls `serve`.
          environment: the whole of it.
        """
        self.name = name
        self._log = tempfile.TemporaryFile("w+", errors="replace")
        self._process = subprocess.Popen(
            list(map(str, command)),
            env=dict(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )

    def ask(self, *command: Any) -> Any:
        """Send a command and wait for its answer.

        Raises:
          SystemExit: if the process has died; shows the end of what it wrote to standard error.
        """
        try:
            self._process.stdin.write(json.dumps(command) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            code = self._process.wait()
            self._log.seek(0)
            last = "".join(self._log.readlines()[-_LINES:])
            raise SystemExit(
                f"{last}error: {self.name} died (exit code {code}): its last words above"
            )
        return json.loads(answer)

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._log):
            try:
                pipe.close()
            except BrokenPipeError:
                pass
