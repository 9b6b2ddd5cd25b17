"""The process beside this one in which chat templates are rendered."""

from pathlib import Path
from typing import Any

from arkjax.isolation.worker import Worker

SECONDS = 1.0
"""Processor time that one rendering may take."""
MEMORY = 2**30
"""Bytes of address space that the process may have."""

_WORKER = Worker(
    Path(__file__).with_name("renderer.py"),
    purpose="render chat templates",
    remedy='install jinja2 (pip install "jinja2>=3.1.6,<4")',
    memory=MEMORY,
    opens_files=False,
    variables=("TZ",),  # what tells the time
)


def ask(request: dict[str, Any]) -> dict[str, Any]:
    """Have `renderer.answer` answer a request in the process beside this one.

    Safe to call from any thread; requests are answered one after the other.

    Raises:
      isolation.worker.Stopped: if the process was ended over it; the next request gets a new one.
      ArkJAXError: if no process can be started.
      DataError: if jinja2 is missing.
    """
    return _WORKER.ask(request, SECONDS)


def close() -> None:
    """End the process; the next request starts another."""
    _WORKER.close()
