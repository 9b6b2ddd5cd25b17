"""Tools by name, made from the options that a config has for each."""

import dataclasses
import difflib
import typing
from collections.abc import Iterable, Mapping
from typing import Any

from arkjax.errors import ConfigError
from arkjax.tasks.problems import Problem
from arkjax.tools.calculator import CalculatorError, calculate
from arkjax.tools.code_tools import CodeOptions, PythonTool, TestsTool
from arkjax.tools.lookup import LookupOptions, LookupTool
from arkjax.tools.protocol import Tool, ToolResult, failed
from arkjax.tools.python_runner import IsolationError, can_isolate

__all__ = ["Tool", "ToolResult", "make_tools", "register_tool", "tool_names"]


class CalculatorTool:
    """Works out an arithmetic expression."""

    name = "calculator"
    version = "1"
    description = (
        "Works out arithmetic exactly: + - * / // % ** and functions such as sqrt, round, comb, "
        "log, sin. Input: one expression, for example 3/4 + sqrt(16)."
    )

    def run(self, input: str, problem: Problem) -> ToolResult:
        """Work out `input`; see `Tool.run`."""
        try:
            return ToolResult(calculate(input))
        except CalculatorError as error:
            return failed(str(error))


@dataclasses.dataclass(frozen=True)
class NoOptions:
    """Options of a tool that has none."""


@dataclasses.dataclass(frozen=True)
class _Kind:
    """How a tool is made.

    Attributes:
      options: a frozen dataclass of plain fields that all have defaults.
      make: makes the tool of its options.
      isolated: whether it runs programs.
    """

    options: type
    make: typing.Callable[[Any], Tool]
    isolated: bool = False


_KINDS = {
    "calculator": _Kind(NoOptions, lambda options: CalculatorTool()),
    "lookup": _Kind(LookupOptions, LookupTool),
    "python": _Kind(CodeOptions, PythonTool, isolated=True),
    "tests": _Kind(CodeOptions, TestsTool, isolated=True),
}
# The least and most of options that are numbers.
_RANGES = {
    "seconds": (1, 600),
    "memory_mib": (64, 2**16),
    "characters": (100, 100_000),
    "top": (1, 100),
}


def register_tool(
    name: str,
    make: typing.Callable[[Any], Tool],
    options: type = NoOptions,
    isolated: bool = False,
) -> None:
    """Make a tool of one's own known by its name.

    Args:
      name: as configs and agents call it.
      make: makes the tool of an object of `options`.
      options: a frozen dataclass of plain fields (text, whole number, number, truth), all of them
        with defaults.
      isolated: whether it needs `run_python`.

    Raises:
      ConfigError: if the name is taken.
    """
    if name in _KINDS:
        raise ConfigError(f"there is a tool {name!r} already: choose another name")
    _KINDS[name] = _Kind(options, make, isolated)


def tool_names() -> list[str]:
    """Names that `make_tools` knows."""
    return sorted(_KINDS)


def make_tools(configs: Mapping[str, Mapping[str, Any]], place: str = "tools") -> dict[str, Tool]:
    """The tools of a config, ready for use: files are read and isolation is tried out.

    Args:
      configs: for each tool its options, e.g. {"calculator": {}, "lookup": {"top": 5}}.
      place: what to call `configs` in messages.

    Raises:
      ConfigError: if a tool or an option is unknown, or an option's value is not what it must be.
      DataError: if a file that a tool is to read is missing or damaged.
      IsolationError: if a tool runs programs and this system cannot isolate them.
    """
    if not hasattr(configs, "items"):
        raise ConfigError(f"{place} is {configs!r}: expected names of tools with their options")
    checked = {}
    for name, options in configs.items():
        if name not in _KINDS:
            raise ConfigError(f"{place}.{name}: unknown tool{_hint(name, tool_names())}")
        checked[name] = _options(_KINDS[name].options, options, f"{place}.{name}")
    tools = {}
    for name, options in checked.items():
        if _KINDS[name].isolated and (reason := can_isolate()):
            raise IsolationError(f"{place}.{name}: {reason}")
        tools[name] = _KINDS[name].make(options)
    return tools


def _options(kind: type, given: Any, place: str) -> Any:
    if not hasattr(given, "items"):
        raise ConfigError(f"{place} is {given!r}: expected its options, or {{}} for none")
    fields = {field.name: field for field in dataclasses.fields(kind)}
    hints = typing.get_type_hints(kind)
    values = {}
    for name, value in given.items():
        if name not in fields:
            raise ConfigError(f"{place}.{name}: unknown option{_hint(name, fields)}")
        values[name] = _value(hints[name], value, f"{place}.{name}")
        least, most = _RANGES.get(name, (value, value))
        if not isinstance(value, str) and not least <= value <= most:
            raise ConfigError(f"{place}.{name} is {value!r}: expected {least} to {most}")
    return kind(**values)


_WORDS = {int: "a whole number", float: "a number", str: "a text", bool: "True or False"}


def _value(kind: type, value: Any, place: str) -> Any:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is str and hasattr(value, "__fspath__"):
        return value.__fspath__()
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ConfigError(f"{place} is {value!r}: expected {_WORDS.get(kind, kind.__name__)}")
    return value


def _hint(name: Any, known: Iterable[str]) -> str:
    names = sorted(known)
    close = difflib.get_close_matches(str(name), names, n=1)
    return (
        f" (did you mean {close[0]!r}?)" if close else f": there are {', '.join(names) or 'none'}"
    )
