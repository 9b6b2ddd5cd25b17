"""Tools that run the Python of an agent: as it is, or against the public tests of its problem."""

import dataclasses
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from arkjax.storage import content_hash
from arkjax.tasks.problems import Problem
from arkjax.tools.assertions import DamagedTests, run_tests, why
from arkjax.tools.protocol import MAX_INPUT, ToolResult, bounded, failed, scrubbed
from arkjax.tools.python_runner import Limits, Outcome, run_python

_FENCE = re.compile(r"^[ \t]*```[ \t]*([\w+.-]*)[^\n`]*$", re.M)
_PYTHON = ("python", "py", "python3", "")


def extract_code(text: str) -> str:
    """The Python of a message: its last fenced block, or all of it where it has no fences.

    Blocks of other languages do not count. One that is not closed goes on to the end. Fences lie on
    lines of their own.
    """
    blocks: list[tuple[str, str]] = []
    opened: re.Match[str] | None = None
    for match in _FENCE.finditer(text):
        if opened is None:
            opened = match
        elif not match[1]:
            blocks.append((opened[1].casefold(), text[opened.end() + 1 : match.start()]))
            opened = None
    if opened is not None:
        blocks.append((opened[1].casefold(), text[opened.end() + 1 :]))
    if not blocks:
        return text.strip("\n")
    named = [code for language, code in blocks if language in _PYTHON[:-1]]
    return (named or [code for language, code in blocks if language in _PYTHON] or [""])[-1]


@dataclasses.dataclass(frozen=True)
class CodeOptions:
    """Options of both tools.

    Attributes:
      seconds: of processor time for one program; on the clock it has three times as long.
      memory_mib: of address space.
      characters: at most about so many of what the program wrote are shown.
    """

    seconds: int = 5
    memory_mib: int = 512
    characters: int = 2000

    @property
    def limits(self) -> Limits:
        """What a program may use."""
        return Limits(
            seconds=3.0 * self.seconds,
            cpu_seconds=self.seconds,
            memory_bytes=self.memory_mib * 2**20,
        )

    @property
    def version(self) -> str:
        """Of the tools: results depend on the options and on the Python that runs."""
        python = f"py{sys.version_info.major}.{sys.version_info.minor}"
        return f"1-{python}-{content_hash(self)[:8]}"


class PythonTool:
    """Runs a program and says what it wrote."""

    name = "python"
    description = (
        "Runs a Python program with the standard library, without network or files, and gives what "
        "it prints. Input: the program, as it is or between ``` and ```."
    )

    def __init__(self, options: CodeOptions = CodeOptions()) -> None:
        self.options, self.version = options, options.version

    def run(self, input: str, problem: Problem) -> ToolResult:
        """Run the program in `input`; see `Tool.run`."""
        code = _code(input)
        if isinstance(code, ToolResult):
            return code
        outcome = run_python(code, limits=self.options.limits)
        return ToolResult(_wrote(outcome, self.options.characters), outcome.status)


class TestsTool:
    """Runs code against the public tests of its problem.

    `problem.meta` may have `public_tests`: a list whose items are {"stdin", "stdout"} or Python
    with assertions; `test_setup`: Python before the assertions, or a list of it; `entry_point`: the
    name of what is tested. Without tests the code is run, and passes if it ends without an error.
    Fields of the result: `passed` ("yes" or "no"), `n_passed`, `n_tests`.
    """

    # pytest takes what is named Test... for tests.
    __test__ = False

    name = "tests"
    description = (
        "Runs Python code against the problem's public tests and gives how many passed and the "
        "first failure. Input: the code, as it is or as the last block between ``` and ```."
    )

    def __init__(self, options: CodeOptions = CodeOptions()) -> None:
        self.options, self.version = options, options.version

    def run(self, input: str, problem: Problem) -> ToolResult:
        """Test the code in `input`; see `Tool.run`."""
        tests = problem.meta.get("public_tests") or ()
        none = {"passed": "no", "n_passed": "0", "n_tests": _count(tests)}
        code = _code(input)
        if isinstance(code, ToolResult):
            return dataclasses.replace(code, fields=none)
        if not tests:
            return self._only_run(code)
        setup = problem.meta.get("test_setup") or ()
        setup = [setup] if isinstance(setup, str) else setup
        entry_point = problem.meta.get("entry_point") or ""
        try:
            verdict = run_tests(code, tests, setup, entry_point, self.options.limits)
        except DamagedTests as error:
            return failed(f"this problem's public tests are damaged: {error}", **none)
        n = sum(verdict.passed)
        text = f"{n} of {len(tests)} tests passed"
        if verdict.failure:
            first = verdict.passed.index(False) + 1
            text += f"\ntest {first} failed: " + bounded(verdict.failure, self.options.characters)
        passed = "yes" if n == len(tests) else "no"
        return ToolResult(text, "ok", none | {"passed": passed, "n_passed": str(n)})

    def _only_run(self, code: str) -> ToolResult:
        outcome = run_python(code, limits=self.options.limits)
        ran = outcome.status == "ok"
        told = "it ran without an error" if ran else "it did not run to its end"
        text = f"there are no public tests; {told}\n{_wrote(outcome, self.options.characters)}"
        fields = {"passed": "yes" if ran else "no", "n_passed": "0", "n_tests": "0"}
        return ToolResult(text, outcome.status, fields)


def _count(tests: Any) -> str:
    known = isinstance(tests, Sequence) and not isinstance(tests, str | Mapping)
    return str(len(tests)) if known else "0"


def _code(input: str) -> str | ToolResult:
    """The code of an input, or the result that says that it has none."""
    if len(input) > MAX_INPUT:
        return failed(f"the input has {len(input)} characters; {MAX_INPUT} at most")
    code = extract_code(input)
    return code if code.strip() else failed("there is no Python code in the input")


def _wrote(outcome: Outcome, characters: int) -> str:
    """What a program wrote, and why it did not end well if so."""
    text = bounded(scrubbed(outcome.stdout.strip("\n")), characters)
    if outcome.status == "ok":
        return text or "(it printed nothing)"
    return f"{text}\n{why(outcome)}".strip("\n")
