"""A worker outlives no command."""

import os
import signal
import subprocess
import sys

import pytest

pytestmark = pytest.mark.fast

WORKER = """
import os, sys, time
from arkjax.beam.worker import _end_with
print(os.getpid(), flush=True)
time.sleep(float(sys.argv[2]))
_end_with(int(sys.argv[1]))
"""
COMMAND = """
import os, subprocess, sys
subprocess.run([sys.executable, "-c", sys.argv[1], str(os.getpid()), sys.argv[2]])
"""


@pytest.mark.parametrize("seconds", [0, 2], ids=["at once", "before it looks"])
def test_a_worker_ends_when_its_command_is_killed(seconds):
    command = subprocess.Popen(
        [sys.executable, "-c", COMMAND, WORKER, str(seconds)], stdout=subprocess.PIPE
    )
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
