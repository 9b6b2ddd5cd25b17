"""Tests an agent's code, without believing a word of it.

Tests that are assertions are executed in one locked process and the code in another
(`referee.py`); tests that are inputs and outputs are programs whose outputs are compared here.
"""

import ast
import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from arkjax.tools.protocol import scrubbed
from arkjax.tools.python_runner import Limits, Outcome, run_python
from arkjax.tools.wire import GONE

_WIRE, _REFEREE = (Path(__file__).with_name(name) for name in ("wire.py", "referee.py"))
# Locked in, a program finds no package: it is given the one module that it imports.
_START = """
import sys, types
name = "arkjax.tools.wire"
sys.modules[name] = types.ModuleType(name)
exec(compile({wire!r}, "wire.py", "exec"), sys.modules[name].__dict__)
exec(compile({referee!r}, "referee.py", "exec"), {{"__name__": "__main__"}})
"""
# How much longer than the code the tests may take: they wait for it, and then have to report.
_GRACE = 5.0
_LONGEST = 400
_TOO_LONG, _NOT_RUN = "error: it took too long", "it was not run"


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What tests showed.

    Attributes:
      passed: of each test, in order, whether it passed.
      failure: what is wrong in the first that did not, in a few lines; empty if all passed.
    """

    passed: tuple[bool, ...]
    failure: str


class DamagedTests(Exception):
    """A problem's tests are not of a known form: what is wrong with them."""


def run_tests(
    code: str, tests: Sequence[Any], setup: Sequence[str], entry_point: str, limits: Limits
) -> Verdict:
    """Run all tests of a problem on an agent's code.

    Args:
      code: a Python program, or the definitions that the tests use.
      tests: each {"stdin": ..., "stdout": ...}, or Python statements with assertions.
      setup: Python that comes before the assertions.
      entry_point: the function or class that the assertions are about, if that is known. Where its
        name is that of a function of Python's own, it is the code's that is tested.
      limits: of the code; all assertions share them, each input has its own. After an input on
        which the code took too long the others are not run, and count as failed.

    Raises:
      DamagedTests: if a test is of neither form.
      IsolationError: if the system cannot run isolated programs (any more).
    """
    _check(tests, setup, entry_point)
    asserts = [i for i, test in enumerate(tests) if isinstance(test, str)]
    found = dict(
        zip(
            asserts,
            _assertions(code, [tests[i] for i in asserts], setup, entry_point, limits),
            strict=True,
        )
    )
    passed, failure, slow = [], "", False
    for i, test in enumerate(tests):
        if i in found:
            complaint = found[i]
        elif slow:
            complaint = _NOT_RUN
        else:
            complaint = _input_output(code, test, limits)
            # What never ends on one input would take its time on each of a hundred.
            slow = _TOO_LONG in complaint
        passed.append(not complaint)
        failure = failure or complaint
    return Verdict(tuple(passed), failure)


def _check(tests: Sequence[Any], setup: Sequence[str], entry_point: str) -> None:
    if isinstance(tests, str | Mapping) or not isinstance(tests, Sequence):
        raise DamagedTests("they must be a list")
    for i, test in enumerate(tests):
        if isinstance(test, Mapping):
            if not all(isinstance(test.get(key), str) for key in ("stdin", "stdout")):
                raise DamagedTests(f'test {i + 1} must have the texts "stdin" and "stdout"')
        elif not isinstance(test, str) or not _is_python(test):
            raise DamagedTests(f"test {i + 1} is neither Python nor input and output")
    known = isinstance(setup, Sequence) and all(isinstance(text, str) for text in setup)
    if not known or not all(_is_python(text) for text in setup):
        raise DamagedTests("test_setup is no Python")
    if not isinstance(entry_point, str):
        raise DamagedTests("entry_point must be a name")


def _is_python(text: str) -> bool:
    try:
        ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


# --- inputs and outputs -------------------------------------------------------------------------


def _input_output(code: str, test: Mapping[str, str], limits: Limits) -> str:
    """Run the code as a program on one input; empty if its output is right, else what is wrong."""
    outcome = run_python(code, test["stdin"], limits)
    if outcome.status == "ok" and _lines(outcome.stdout) == _lines(test["stdout"]):
        return ""
    shown = [f"input: {_short(test['stdin'])}"]
    if outcome.status != "ok":
        return "\n".join([*shown, why(outcome)])
    expected, got = _short(test["stdout"]), _short(outcome.stdout)
    return "\n".join([*shown, f"expected: {expected}", f"got: {got}"])


def _lines(text: str) -> list[str]:
    """What is compared of an output: white space at the ends of lines and of the text is free."""
    return [line.rstrip() for line in text.strip().splitlines()]


def _short(text: str) -> str:
    text = text.strip("\n").rstrip()
    text = text if len(text) <= _LONGEST else text[:_LONGEST] + " ..."
    return "\n" + text if "\n" in text else text or "(nothing)"


def why(outcome: Outcome) -> str:
    """Why a program did not end well: its last words or the limit that it met."""
    if outcome.status == "time":
        return _TOO_LONG
    if outcome.status == "output":
        return "error: it wrote too much"
    if outcome.status == "files":
        return "error: its files grew too large or too many"
    last = scrubbed(outcome.stderr.strip())[-1000:]
    return last or f"error: it ended with exit code {outcome.code}"


# --- assertions ---------------------------------------------------------------------------------


def _assertions(
    code: str, tests: Sequence[str], setup: Sequence[str], entry_point: str, limits: Limits
) -> list[str]:
    """For each test what is wrong, empty if it passed."""
    if not tests:
        return []
    asked = {"setup": list(setup), "tests": list(tests), "entry_point": entry_point}
    player, found = _play({"code": code}, asked, limits)
    too_much = why(player) if player.status in ("time", "output", "files") else ""
    if not isinstance(found, dict):
        return [too_much or _UNREADABLE] * len(tests)
    if "loaded" in found:
        return [too_much or scrubbed(str(found["loaded"])).strip()] * len(tests)
    if "setup" in found:
        return [f"error in the preparation of the tests: {found['setup']}"] * len(tests)
    complaints = []
    for test, result in zip(tests, found["results"], strict=True):
        if isinstance(result, bool):
            complaints.append("" if result else "it failed, too")
        else:
            complaints.append(f"{_short(test)}\n{_complaint(test, result, too_much)}")
    return complaints


_UNREADABLE = "error: the code ended, or gave what cannot be read, while it was tested"


def _complaint(test: str, result: Mapping[str, Any], too_much: str) -> str:
    """What a failed assertion says; `too_much` is why the code was ended, if it was."""
    if "error" in result:
        return (
            too_much if too_much and GONE in result["error"] else scrubbed(result["error"]).strip()
        )
    if len(sides := [scrubbed(side) for side in result["sides"]]) == 2:
        compared, constant_first = _comparison(test)
        if compared != "==":
            return f"it is not so that {sides[0]} {compared} {sides[1]}"
        expected, got = sides if constant_first else sides[::-1]
        return f"expected: {expected}\ngot: {got}"
    return f"the assertion failed{': ' if result['said'] else ''}{result['said']}"


_SIGNS = {ast.Eq: "==", ast.NotEq: "!=", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">="}
_SIGNS |= {ast.Is: "is", ast.IsNot: "is not", ast.In: "in", ast.NotIn: "not in"}


def _comparison(test: str) -> tuple[str, bool]:
    """The sign of the last comparison that is asserted; whether its left side alone is constant."""
    found = ("==", False)
    for node in ast.walk(ast.parse(test)):
        if isinstance(node, ast.Assert) and isinstance(node.test, ast.Compare):
            calls = [
                any(isinstance(part, ast.Call) for part in ast.walk(side))
                for side in (node.test.left, node.test.comparators[0])
            ]
            found = (_SIGNS[type(node.test.ops[0])], calls == [False, True])
    return found


def _play(code: dict[str, Any], tests: dict[str, Any], limits: Limits) -> tuple[Outcome, Any]:
    """Run player and referee side by side: what became of the player, and the referee's verdict."""
    wire, referee_ = (path.read_text(encoding="utf-8") for path in (_WIRE, _REFEREE))
    source = _START.format(wire=wire, referee=referee_)
    questions, asking = os.pipe()
    answers, answering = os.pipe()
    code |= {"part": "player", "reading": questions, "writing": answering}
    tests |= {"part": "referee", "reading": answers, "writing": asking}
    patient = dataclasses.replace(limits, seconds=limits.seconds + _GRACE, output_bytes=2**20)
    with ThreadPoolExecutor(1) as pool:
        ends = (questions, answering)
        player = pool.submit(run_python, source, json.dumps(code), limits, ends)
        try:
            referee = run_python(source, json.dumps(tests), patient, (answers, asking))
        finally:
            outcome = player.result()
    try:
        found = json.loads(referee.stdout) if referee.status == "ok" else None
    except ValueError:
        found = None
    return outcome, found
