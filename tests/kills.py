"""Processes that are killed once they have come so far."""

import signal
import time
from pathlib import Path


def wait_for(process, workdir: Path, pattern: str) -> None:
    deadline = time.monotonic() + 120
    while not list(workdir.glob(pattern)):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, f"no {pattern} came"
        time.sleep(0.02)


def kill_at(process, workdir: Path, pattern: str, seconds: float) -> None:
    """SIGKILL a process so long after a file has appeared."""
    wait_for(process, workdir, pattern)
    time.sleep(seconds)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "it had ended before it was killed"
