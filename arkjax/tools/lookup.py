"""The tool that looks things up, in passages by their words and in tables by columns or words."""

import dataclasses
import difflib
import functools
import os
import re
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from arkjax.errors import DataError
from arkjax.storage import content_hash
from arkjax.tasks.problems import Problem
from arkjax.tools.protocol import ToolResult, bounded, failed
from arkjax.tools.sources import (
    FilePassages,
    Passages,
    Table,
    as_passage,
    as_table,
    read_table,
    value_key,
)

T = TypeVar("T")

_KEPT = 64
"""Problems whose passages and tables are kept indexed."""
_LONGEST = 2000
"""Most characters of a query: each word of it goes through all passages that have it."""
_CONDITION = re.compile(r"\s*([^=<>!]{1,100}?)\s*==?\s*(.*)", re.S)


@dataclasses.dataclass(frozen=True)
class LookupOptions:
    """Options of the tool.

    Attributes:
      passages: a file of passages, for all problems: .jsonl, else one a line.
      table: a file with a table, for all problems: .tsv, else comma separated.
      top: how many passages or rows are shown at most.
      characters: at most about so many of a result are shown, shared among what was found.
    """

    passages: str = ""
    table: str = ""
    top: int = 3
    characters: int = 2000


class LookupTool:
    """Looks things up in the files of its options and in the problem's own facts.

    `problem.meta` may have `passages`, a list of texts or of {"title", "text"}, and `table`, a list
    of rows: objects, or lists with the names of the columns in the first. They come before a file.
    Field of the result: `found`, the number of passages and rows that are shown.
    """

    name = "lookup"
    description = (
        "Looks things up in passages of text and in tables. Input: some words to search for, or "
        "column=value to get the rows of a table (several conditions with ; between them)."
    )

    def __init__(self, options: LookupOptions = LookupOptions()) -> None:
        """Read and index the files of the options.

        Raises:
          DataError: if one cannot be read, or is damaged.
        """
        self.options = options
        self._passages = _of_file(FilePassages, options.passages)
        self._table = _of_file(read_table, options.table)
        self._kept: OrderedDict[tuple[str, int], tuple[Any, Any]] = OrderedDict()
        self._lock = threading.Lock()
        digests = [source.digest if source else "" for source in (self._passages, self._table)]
        self.version = "1-" + content_hash([options.top, options.characters, digests])[:8]

    def run(self, input: str, problem: Problem) -> ToolResult:
        """Look up what `input` asks for; see `Tool.run`."""
        if len(input) > _LONGEST:
            reason = f"the input has {len(input)} characters; {_LONGEST} at most"
            return failed(reason, found="0")
        query = " ".join(input.split())
        if not query:
            return failed("the input is empty: say what to look for", found="0")
        meta = problem.meta
        try:
            own = self._own("passages", meta.get("passages"), _passages)
            passages = own or self._passages
            table = self._own("table", meta.get("table"), as_table) or self._table
        except (ValueError, TypeError, AttributeError) as error:
            return failed(f"this problem's passages or table are damaged: {error}", found="0")
        if passages is None and table is None:
            return failed("this problem has no passages and no table", found="0")
        found: list[str] = []
        if table is not None:
            rows = _conditions(table, query, passages is None)
            if isinstance(rows, ToolResult):
                return rows
            if rows is not None:
                return self._result(query, [table.show(table.rows[i]) for i in rows])
        if passages is not None:
            for i, _ in passages.index.search(query, self.options.top):
                title, text = passages.passage(i)
                found.append(f"{title}\n{text}" if title else text)
        if table is not None:
            best = table.index.search(query, self.options.top)
            found += [table.show(table.rows[i]) for i, _ in best]
        return self._result(query, found)

    def _own(self, kind: str, value: Any, make: Callable[[Any], T]) -> T | None:
        """What is made of a problem's own passages or table; the last ones are kept."""
        if not value:
            return None
        key = (kind, id(value))
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key][1]
        made = make(value)
        with self._lock:
            # The value is kept too, so that no other one can get its id.
            self._kept[key] = (value, made)
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return made

    def _result(self, query: str, found: list[str]) -> ToolResult:
        shown = found[: self.options.top]
        if not shown:
            return ToolResult(f"nothing found for {query[:100]!r}", fields={"found": "0"})
        each = max(self.options.characters // len(shown), 50)
        lines = [f"[{i}] {bounded(text.strip(), each)}" for i, text in enumerate(shown, start=1)]
        if len(found) > len(shown):
            lines.append(f"({len(found) - len(shown)} more)")
        return ToolResult("\n".join(lines), fields={"found": str(len(shown))})


def _passages(value: Any) -> Passages:
    if isinstance(value, str):
        raise ValueError("passages must be a list")
    return Passages([as_passage(item) for item in value])


def _conditions(table: Table, query: str, only: bool) -> list[int] | ToolResult | None:
    """Rows that meet all conditions of a query; None if it has none.

    Args:
      table: the table.
      query: what was asked.
      only: there is nothing else to look at, so that an unknown column is a mistake.
    """
    names = {column.casefold(): i for i, column in enumerate(table.columns)}
    found: set[int] | None = None
    for part in _parts(query, table.columns):
        match = _CONDITION.fullmatch(part)
        if match is None:
            return None
        column = names.get(match[1].strip("\"'`").casefold())
        if column is None:
            if not only:
                return None
            near = difflib.get_close_matches(match[1].casefold(), list(names), n=1)
            hint = f"; did you mean {table.columns[names[near[0]]]!r}?" if near else ""
            listed = bounded(", ".join(table.columns), 300)
            reason = f"there is no column {match[1]!r}{hint} The columns are: {listed}"
            return failed(reason, found="0")
        value = match[2].strip().strip("\"'`")
        rows = set(table.by_value[column].get(value_key(value), ()))
        found = rows if found is None else found & rows
    return None if found is None else sorted(found)


def _parts(query: str, columns: tuple[str, ...]) -> list[str]:
    """The conditions of a query: a comma or "and" parts two of them if a column follows it."""
    names = "|".join(sorted(map(re.escape, columns), key=len, reverse=True))
    joint = rf"\s*(?:;|(?:,|&|\band\b)\s*(?=(?:{names})\s*=))\s*"
    return [part for part in re.split(joint, query, flags=re.I) if part]


def _of_file(make: Callable[[Path], T], name: str) -> T | None:
    if not name:
        return None
    path = Path(name).expanduser()
    try:
        status = os.stat(path)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}: expected a file") from error
    return _made(make, path.resolve(), status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=4)
def _made(make: Callable[[Path], T], path: Path, size: int, changed: int) -> T:
    """What is made of a file, once for as long as it stays as it is."""
    return make(path)
