"""Whether two expressions are equal, found out by math-verify in a process beside this one.

SymPy can be led into work without end by a short text. So the work is done by a program
(`symbolic_worker.py`) to which a `Worker` grants some seconds of processor time per comparison and
some memory. One process serves all threads, one comparison after the other.
"""

import dataclasses
import functools
from pathlib import Path

from arkjax.isolation.worker import Stopped, Worker
from arkjax.tasks.graders import magnitude

SECONDS = 5.0
"""Processor time that one comparison may take."""
MEMORY = 2 * 2**30
"""Bytes of address space that the process may have."""
LONGEST = 1000
"""Characters of an expression that is compared; a longer one equals only itself."""
_CACHED = 2**16

_WORKER = Worker(
    Path(__file__).with_name("symbolic_worker.py"),
    purpose="compare answers",
    remedy='install math-verify (pip install "math-verify>=0.9.0,<0.10")',
    memory=MEMORY,
    opens_files=True,  # SymPy imports parts of itself when it first needs them
)


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Whether two expressions are equal, and what kept it from being found out, if anything."""

    equal: bool
    hindrance: str = ""


@functools.lru_cache(_CACHED)
def compare(gold: str, answer: str, seconds: float = SECONDS) -> Verdict:
    """Whether `answer` is what `gold` is, by `math_verify.verify`, which is not symmetric.

    Verdicts are kept, so that votes over the same answers cost one comparison each. One that takes
    more than `seconds` of processor time, or too much memory, is not equal, and says so. What is
    too large by inspection (`magnitude.hindrance`) is not tried.

    Raises:
      ArkJAXError: if no process can be started.
      DataError: if math-verify is missing.
    """
    if max(len(gold), len(answer)) > LONGEST:
        return Verdict(gold == answer, f"expressions of over {LONGEST} characters are not compared")
    for text in (gold, answer):
        if hindrance := magnitude.hindrance(text):
            return Verdict(gold == answer, hindrance)
    try:
        reply = _WORKER.ask({"gold": gold, "answer": answer}, seconds)
    except Stopped:
        return Verdict(False, f"the comparison took more than {seconds:g} s or too much memory")
    return Verdict(reply["equal"])


def close() -> None:
    """End the process; the next comparison starts another."""
    _WORKER.close()
