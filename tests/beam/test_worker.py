"""A worker outlives no command."""

import os
import signal
import subprocess
import sys

import pytest

pytestmark = pytest.mark.fast

WORKER = """
import os
from arkjax.beam.worker import _end_with
print(os.getpid(), flush=True)
_end_with(os.getppid())
"""
COMMAND = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {WORKER!r}])"


def test_a_worker_ends_when_its_command_is_killed():
    command = subprocess.Popen([sys.executable, "-c", COMMAND], stdout=subprocess.PIPE)
    worker = int(command.stdout.readline())
    try:
        os.kill(worker, 0)  # It is there.
        command.send_signal(signal.SIGKILL)
        # The worker holds the other end: this returns when it has ended.
        assert command.stdout.read() == b""
        command.wait(timeout=60)
    finally:
        if command.poll() is None:
            command.kill()
