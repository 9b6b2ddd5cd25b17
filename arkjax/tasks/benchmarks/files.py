"""Records out of data files: JSON lines, JSON, CSV and Parquet, each with its place in its file.

Files are read piece by piece: the first records of a large file cost no more than those of a small
one, but for a JSON object that holds all records by their keys. Any of them but Parquet may be
packed with gzip.
"""

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from arkjax.errors import DataError

SUFFIXES = (".parquet", ".jsonl", ".json", ".csv")
"""The kinds of files that can be read, the ones that are taken first in front."""

_PIECE = 1 << 20
_PARQUET_ROWS = 256
# Longer than any field of a data set: what breaks a CSV file's quotes must not fill the memory.
_LONGEST_CELL = 1 << 24


def kind(name: str) -> str | None:
    """The suffix in `SUFFIXES` that a file's name ends with, packed or not; None if with none."""
    plain = name.lower().removesuffix(".gz")
    found = next((suffix for suffix in SUFFIXES if plain.endswith(suffix)), None)
    return None if found == ".parquet" and plain != name.lower() else found


def read(path: Path, keyed: bool = False) -> Iterator[tuple[str, dict[str, Any]]]:
    """The records of a file in order, each with its place for people, such as "line 7".

    Args:
      path: of a kind in `SUFFIXES`.
      keyed: a JSON object holds records by their keys; each then has its key as "_key". Otherwise
        such an object is one record.

    Raises:
      DataError: naming the file, the line or row, and what is wrong with it.
    """
    suffix = kind(path.name)
    if suffix is None:
        raise DataError(f"{path} is no data file: expected one of {', '.join(SUFFIXES)}")
    if suffix == ".parquet":
        yield from _parquet(path)
        return
    try:
        with open(path, "rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        with gzip.open(path) if packed else open(path, "rb") as file:
            if suffix == ".csv":
                yield from _csv(path, file)
            elif suffix == ".jsonl":
                yield from _lines(path, file)
            else:
                yield from _json(path, file, keyed)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist: give the path of a data file") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path} is damaged ({error}): fetch it again") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error


def _record(path: Path, place: str, value: Any) -> tuple[str, dict[str, Any]]:
    if not isinstance(value, dict):
        raise DataError(
            f"{path}, {place}: expected a JSON object, found {type(value).__name__}; "
            "give the file as it was published"
        )
    return place, value


def _decoded(path: Path, place: str, raw: bytes) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}, {place}: not UTF-8 ({error.reason}, byte {error.start}): fetch the file again"
        ) from error


def _parsed(path: Path, place: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else type(error).__name__
        raise DataError(
            f"{path}, {place}: no valid JSON ({reason}): mend the line, or fetch the file again"
        ) from error


def _lines(path: Path, file: BinaryIO) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, raw in enumerate(file, 1):
        place = f"line {number}"
        text = _decoded(path, place, raw).strip()
        if text:
            yield _record(path, place, _parsed(path, place, text))


def _json(path: Path, file: BinaryIO, keyed: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    start = file.read(_PIECE).lstrip(b"\xef\xbb\xbf \t\r\n")
    file.seek(0)
    if start.startswith(b"["):
        yield from _array(path, file)
        return
    if not keyed and _is_lines(start):
        yield from _lines(path, file)
        return
    whole = _parsed(path, "its whole", _decoded(path, "its whole", file.read()))
    if not keyed:
        yield _record(path, "record 1", whole)
        return
    for key, value in _record(path, "its whole", whole)[1].items():
        place, record = _record(path, f"record {key!r}", value)
        yield place, {"_key": key, **record}


def _is_lines(start: bytes) -> bool:
    """Whether the first line is a whole object, as in files of JSON lines."""
    line = start.partition(b"\n")[0]
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _array(path: Path, file: BinaryIO) -> Iterator[tuple[str, dict[str, Any]]]:
    """The elements of one JSON array, parsed one after the other."""
    text = io.TextIOWrapper(file, encoding="utf-8-sig")
    decode = json.JSONDecoder().raw_decode
    held, at, number, piece, ended = "", 0, 1, _PIECE, False

    def wrong(reason: str) -> DataError:
        return DataError(f"{path}, record {number}: no valid JSON ({reason}): fetch the file again")

    expects = ("[",)
    while True:
        while at < len(held) and held[at] in " \t\r\n":
            at += 1
        if at == len(held) and not ended:
            held, at, ended = _more(path, text, "", piece)
            continue
        if expects:
            mark = held[at : at + 1]
            if mark == "]" and mark in expects:
                return
            if mark in expects:
                at += 1
            elif "value" not in expects:
                raise wrong(f"expected {expects[0]!r}, found {mark!r}" if mark else "it ends early")
            expects = ("]", "value") if mark == "[" and expects == ("[",) else ()
            continue
        try:
            value, end = decode(held, at)
            # A number that ends with the piece may go on in the next one.
            cut = end == len(held) and not ended
        except (ValueError, RecursionError) as error:
            reason = error.msg if isinstance(error, json.JSONDecodeError) else type(error).__name__
            if ended or isinstance(error, RecursionError):
                raise wrong(reason) from error
            cut = True
        if cut:
            # Ever larger pieces: a record of any length is parsed a few times only.
            held, at, ended = _more(path, text, held[at:], piece)
            piece *= 2
            continue
        yield _record(path, f"record {number}", value)
        at, expects, piece, number = end, (",", "]"), _PIECE, number + 1


def _more(path: Path, text: io.TextIOWrapper, held: str, count: int) -> tuple[str, int, bool]:
    try:
        fresh = text.read(count)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 ({error.reason}): fetch the file again") from error
    return held + fresh, 0, not fresh


def _csv(path: Path, file: BinaryIO) -> Iterator[tuple[str, dict[str, Any]]]:
    text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
    csv.field_size_limit(_LONGEST_CELL)
    rows = csv.DictReader(text, strict=True)
    while True:
        try:
            row = next(rows, None)
        except (csv.Error, UnicodeDecodeError) as error:
            raise DataError(
                f"{path}, line {rows.reader.line_num}: no valid CSV ({error})"
            ) from error
        if row is None:
            return
        place = f"line {rows.line_num}"
        if None in row or None in row.values():
            raise DataError(
                f"{path}, {place}: expected {len(rows.fieldnames or ())} cells "
                f"({', '.join(rows.fieldnames or ())}): mend the row, or fetch the file again"
            )
        yield place, row


def _parquet(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.exists():
        raise DataError(f"{path} does not exist: give the path of a data file")
    try:
        # Pages as they are needed, not a whole row group at once.
        with pq.ParquetFile(path, buffer_size=_PIECE, pre_buffer=False) as file:
            number = 0
            for batch in file.iter_batches(batch_size=_PARQUET_ROWS):
                for row in batch.to_pylist():
                    number += 1
                    yield f"row {number}", row
    except (OSError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{path} is no whole Parquet file ({reason}): fetch it again") from error
