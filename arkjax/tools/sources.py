"""Passages and tables that agents look things up in: from files, or from a problem's own facts."""

import array
import csv
import dataclasses
import functools
import hashlib
import io
import json
import os
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from arkjax.errors import DataError
from arkjax.tools.bm25 import Index

# Longer fields than those of Python's default are no mistake in a table of texts.
_FIELD = 2**24
_NUMBER = re.compile(r"[+-]?(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]{1,15})(?:\.[0-9]{0,15})?")
_csv_lock = threading.Lock()


class Passages:
    """Texts with titles and the index of both.

    Attributes:
      digest: hash of the content.
    """

    def __init__(self, passages: Sequence[tuple[str, str]]) -> None:
        self._passages = passages
        self.index = Index(f"{title} {text}" for title, text in passages)
        self.digest = ""

    def passage(self, i: int) -> tuple[str, str]:
        """(title, text) of passage i; the title may be empty."""
        return self._passages[i]


class FilePassages(Passages):
    """Passages of a file, which stay there: in memory are the index and where each one begins."""

    def __init__(self, path: Path) -> None:
        """Read a file of passages, one a line: JSON (a text, or an object with text and title) in a
        .jsonl file, else the line itself. Empty lines are none.

        Raises:
          DataError: if it cannot be read, or a line is no passage.
        """
        self._path, self._starts, self._json = path, array.array("q"), path.suffix == ".jsonl"
        self._hash = hashlib.sha256()
        try:
            self._file = open(path, "rb")
            self.index = Index(f"{title} {text}" for title, text in self._read())
        except OSError as error:
            raise _unreadable(path, error) from error
        self.digest = self._hash.hexdigest()
        if not self._starts:
            raise DataError(f"{path} has no passages: expected one a line")

    def _read(self) -> Iterator[tuple[str, str]]:
        at = 0
        for number, line in enumerate(self._file, start=1):
            self._hash.update(line)
            if line.strip():
                self._starts.append(at)
                yield self._parse(line, f"{self._path}:{number}")
            at += len(line)

    def _parse(self, line: bytes, place: str) -> tuple[str, str]:
        try:
            text = line.decode("utf-8").strip()
            return as_passage(json.loads(text)) if self._json else ("", text)
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"{place}: no passage ({error}): expected "
                + ('a text or {"title": ..., "text": ...}' if self._json else "UTF-8")
            ) from None

    def passage(self, i: int) -> tuple[str, str]:
        """(title, text) of passage i, read from the file.

        Raises:
          DataError: if the file has changed since.
        """
        parts = []
        at = self._starts[i]
        # One position for all threads would not do.
        while chunk := os.pread(self._file.fileno(), 2**14, at):
            head, newline, _ = chunk.partition(b"\n")
            parts.append(head)
            at += len(chunk)
            if newline:
                break
        return self._parse(b"".join(parts), f"{self._path} (changed while in use)")


def as_passage(value: Any) -> tuple[str, str]:
    """(title, text) of a text or of an object with both. Raises ValueError if it is neither."""
    if isinstance(value, str):
        return "", value
    if not isinstance(value, Mapping) or not isinstance(value.get("text"), str):
        raise ValueError("it has no text")
    title = value.get("title") or ""
    if not isinstance(title, str):
        raise ValueError("its title is no text")
    return title, value["text"]


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of texts.

    Attributes:
      columns: names of the columns, all different.
      rows: each with as many cells as there are columns.
      digest: hash of the content, where it is a file's.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    digest: str = ""

    @functools.cached_property
    def index(self) -> Index:
        """The index of the rows, with the names of their columns."""
        return Index(self.show(row) for row in self.rows)

    def show(self, row: Sequence[str]) -> str:
        """A row in one line."""
        cells = zip(self.columns, row, strict=True)
        return " | ".join(f"{column}: {' '.join(cell.split())}" for column, cell in cells)

    @functools.cached_property
    def by_value(self) -> tuple[dict[str, list[int]], ...]:
        """For each column the rows that have a value, by the value's key."""
        found: tuple[dict[str, list[int]], ...] = tuple({} for _ in self.columns)
        for i, row in enumerate(self.rows):
            for column, cell in zip(found, row, strict=True):
                column.setdefault(value_key(cell), []).append(i)
        return found


def value_key(cell: str) -> str:
    """What two cells have in common that count as equal: case and space, or the number."""
    text = " ".join(cell.split()).casefold()
    if not _NUMBER.fullmatch(text):
        return text
    number = float(text.replace(",", ""))
    # Large whole numbers, such as identifiers, are not to be rounded into one.
    return repr(number) if abs(number) < 2**53 else text


def as_table(rows: Any) -> Table:
    """A table of rows that are all objects, or all lists with the columns' names in the first.

    Raises:
      ValueError: if they are neither, or differ in their columns.
    """
    if isinstance(rows, str | Mapping) or not isinstance(rows, Sequence) or not rows:
        raise ValueError("a table must be a list of rows")
    if isinstance(rows[0], Mapping):
        names = [str(name) for name in dict.fromkeys(key for row in rows for key in row)]
        cells = [[_cell(row.get(name, "")) for name in names] for row in rows]
    else:
        if not all(isinstance(row, Sequence) and not isinstance(row, str) for row in rows):
            raise ValueError("every row must be a list of cells")
        names, *cells = [[_cell(cell) for cell in row] for row in rows]
    names = [" ".join(name.split()) for name in names]
    if len({name.casefold() for name in names}) < len(names) or not all(names):
        raise ValueError("every column needs a name of its own")
    for number, row in enumerate(cells, start=1):
        if len(row) != len(names):
            raise ValueError(f"row {number} has {len(row)} cells where there are {len(names)}")
    return Table(tuple(names), tuple(map(tuple, cells)))


def _cell(value: Any) -> str:
    return "" if value is None else str(value)


def read_table(path: Path) -> Table:
    """A table from a file of comma or (.tsv) tab separated values, the first row with the names.

    Raises:
      DataError: if it cannot be read or is no table.
    """
    try:
        data = path.read_bytes()
        table = as_table(_rows(data.decode("utf-8-sig"), path.suffix == ".tsv"))
    except OSError as error:
        raise _unreadable(path, error) from error
    except (ValueError, csv.Error) as error:
        raise DataError(
            f"{path} is no table ({error}): expected columns' names in the first row, UTF-8"
        ) from None
    return dataclasses.replace(table, digest=hashlib.sha256(data).hexdigest())


def _rows(text: str, tabs: bool) -> list[list[str]]:
    dialect = csv.excel_tab if tabs else csv.excel
    # The limit is one for the whole process.
    with _csv_lock:
        before = csv.field_size_limit(_FIELD)
        try:
            reader = csv.reader(io.StringIO(text, newline=""), dialect, strict=True)
            return [row for row in reader if row]
        finally:
            csv.field_size_limit(before)


def _unreadable(path: Path, error: OSError) -> DataError:
    return DataError(f"cannot read {path}: {error.strerror}: expected a file for lookup")
