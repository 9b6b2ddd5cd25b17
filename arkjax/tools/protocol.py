"""What every tool is to those who use it, and what it gives back."""

import dataclasses
import os
import re
from collections.abc import Mapping
from typing import Protocol

from arkjax.tasks.problems import Problem

MAX_INPUT = 2**16
"""Most characters of a call's input that a tool reads."""

_LIBRARY = os.path.dirname(os.__file__)
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+>")


@dataclasses.dataclass(frozen=True)
class ToolResult:
    """What a tool did.

    Attributes:
      text: what the agent reads; bounded, and never without a word.
      status: "ok"; "error": it could not do what was asked, and `text` says why; tools that run
        programs also have the statuses of `python_runner.Outcome`.
      fields: facts about it for teams' rules, e.g. {"passed": "yes", "n_tests": "3"}.
    """

    text: str
    status: str = "ok"
    fields: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", storable(self.text) or "(nothing)")
        fields = {storable(key): storable(value) for key, value in self.fields.items()}
        object.__setattr__(self, "fields", fields)


class Tool(Protocol):
    """Something that an agent can use by its name.

    Attributes:
      name: as agents call it.
      version: part of the identity of what is recorded: it changes when results may change, so it
        stands for the tool's code, its options, and the files that it reads.
      description: one or two sentences for an agent's prompt, with the form of the input.
    """

    name: str
    version: str
    description: str

    def run(self, input: str, problem: Problem) -> ToolResult:
        """Do what an agent asked for. No input raises: what is wrong with it is a result.

        Only the public facts of the problem are looked at, `question` and `meta`, never its answer.
        The same input gives the same result, as far as limits of time allow.
        """


def storable(text: str) -> str:
    """A text that UTF-8 can say: halves of surrogate pairs, which JSON can spell, become "?"."""
    return text.encode("utf-8", "replace").decode("utf-8")


def failed(reason: str, **fields: str) -> ToolResult:
    """The result of an input that a tool can do nothing with: why, in one line."""
    return ToolResult(f"error: {' '.join(reason.split())[:500]}", "error", fields)


def bounded(text: str, characters: int) -> str:
    """At most about so many characters of a text: its beginning and its end."""
    if len(text) <= characters:
        return text
    head = characters // 2
    tail = characters - head
    return f"{text[:head]}\n... ({len(text) - characters} characters left out) ...\n{text[-tail:]}"


def scrubbed(text: str) -> str:
    """A program's text without what no two machines have in common.

    That is addresses in memory, and where Python's own library lies.
    """
    return _ADDRESS.sub(" at 0x...>", text).replace(_LIBRARY, "lib/python")
