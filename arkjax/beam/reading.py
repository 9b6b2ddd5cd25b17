"""Reads a shard of calls as somebody else may have written it: nothing in it stops the pipeline.

What cannot be read becomes a dead letter that says where it stood and why, with the first bytes of
it: a whole shard if it is damaged, has no checksum or has other columns than a record; the rest of
a row group that cannot be decoded; or one row.
"""

import base64
import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from arkjax.beam import files
from arkjax.beam.elements import COLUMNS, OPTIONAL, Row, row_of
from arkjax.trajectories.schema import SCHEMA, rows_of_columns, upgraded
from arkjax.trajectories.shards import SIDECAR

RAW_BYTES = 2048
"""Most bytes of what could not be read that a dead letter holds."""

_BATCH_ROWS = 1024
# Calls whose debates are put together before they are passed on.
_CALLS_TOGETHER = 8192
_REQUIRED = [name for name in COLUMNS if name not in OPTIONAL]
_AT = {name: place for place, name in enumerate(COLUMNS)}


class Some(NamedTuple):
    """A part of a shard.

    Attributes:
      calls: rows by problem.
      dead: the dead letters.
      rows: how many rows of the shard these are.
      last: whether it ends a shard that could be read.
    """

    calls: dict[str, list[Row]]
    dead: list[dict[str, Any]]
    rows: int
    last: bool = False


def dead_letter(
    kind: str,
    file: str,
    reason: str,
    raw: bytes = b"",
    *,
    row: int | None = None,
    calls: int = 0,
) -> dict[str, Any]:
    """What could not be parsed, as JSON says it.

    Args:
      kind: "shard", "row_group", "row" or "problem".
      file: where it stood; of a problem its id.
      reason: why it could not be.
      raw: its bytes, of which the first are kept.
      row: its row; None for more than one.
      calls: how many rows it stands for; 0 for a shard whose rows nobody can count.
    """
    return {
        "kind": kind,
        "file": file,
        "row": row,
        "calls": calls,
        "reason": reason[:500],
        "bytes": len(raw),
        "raw": base64.b64encode(raw[:RAW_BYTES]).decode(),
    }


def read_shard(source: files.Source) -> Iterator[Some]:
    """The calls of a shard, some at a time: its bytes are held, and few thousand of its calls."""
    found = _opened(source.path)
    if isinstance(found, dict):
        yield Some({}, [found], 0)
        return
    calls: dict[str, list[Row]] = defaultdict(list)
    dead: list[dict[str, Any]] = []
    waiting, first = 0, 0
    names = [name for name in COLUMNS if name in found.schema_arrow.names]
    for group in range(found.num_row_groups):
        left = found.metadata.row_group(group).num_rows
        end = first + left
        try:
            for batch in found.iter_batches(_BATCH_ROWS, [group], names):
                table = upgraded(pa.Table.from_batches([batch]), COLUMNS).select(list(COLUMNS))
                dead += _into(calls, table, source, end - left)
                left -= len(table)
                waiting += len(table)
                if waiting >= _CALLS_TOGETHER:
                    yield Some(calls, dead, waiting)
                    calls, dead, waiting = defaultdict(list), [], 0
        except (OSError, pa.ArrowException, ValueError, MemoryError) as error:
            why = f"row group {group} cannot be decoded: {error}"
            dead.append(dead_letter("row_group", source.path, why, calls=left))
            waiting += left
        first = end
    yield Some(calls, dead, waiting, last=True)


def _opened(path: str) -> pq.ParquetFile | dict[str, Any]:
    """A shard whose checksum is right; or why there is none."""
    try:
        data = files.read(path)
    except Exception as error:
        return dead_letter("shard", path, f"cannot be read: {error}")
    try:
        expected = files.read(path + SIDECAR).decode().split()[0]
    except Exception as error:
        return dead_letter("shard", path, f"has no readable checksum: {error}", data)
    if (found := hashlib.sha256(data).hexdigest()) != expected:
        return dead_letter("shard", path, f"its SHA-256 is {found}, not {expected[:64]}", data)
    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        schema = file.schema_arrow
        known = [SCHEMA.field(name) for name in COLUMNS]
        there = [schema.field(f.name) for f in known if f.name in schema.names]
        whole = upgraded(pa.schema(there).empty_table(), COLUMNS).select(list(COLUMNS))
        if whole.schema.types == [field.type for field in known]:
            return file
    except KeyError:
        pass  # A column is missing.
    except (OSError, pa.ArrowException, ValueError) as error:
        return dead_letter("shard", path, f"is no shard: {error}", data)
    return dead_letter("shard", path, "has other columns than a record of calls", data)


def _into(
    calls: dict[str, list[Row]], table: pa.Table, source: files.Source, first: int
) -> list[dict[str, Any]]:
    """Add the rows of a table to those of their problems; returns the dead letters."""
    rows, dead = _rows(table), []
    for number, values in enumerate(rows, first):
        if isinstance(values, str):
            raw = _raw(table.slice(number - first, 1))
            dead.append(dead_letter("row", source.path, values, raw, row=number, calls=1))
        else:
            calls[values[_AT["problem_id"]]].append(row_of(source.number, number, values))
    return dead


def _rows(table: pa.Table) -> list[tuple | str]:
    """The values of every row, or why it has none."""
    if not _has_nulls(table):
        try:
            rows = list(rows_of_columns(table, COLUMNS))
            return [_fault(values) or values for values in rows]
        except (ValueError, RecursionError, TypeError):
            pass  # At least one row is at fault: each by itself.
    found: list[tuple | str] = []
    for number in range(len(table)):
        one = table.slice(number, 1)
        try:
            null = next((name for name in _REQUIRED if _null(one[name])), None)
            if null is not None:
                found.append(f"{null} is null, or holds a null")
                continue
            (values,) = rows_of_columns(one, COLUMNS)
            found.append(_fault(values) or values)
        except (ValueError, RecursionError, TypeError, OverflowError) as error:
            found.append(f"{type(error).__name__}: {error}")
    return found


def _has_nulls(table: pa.Table) -> bool:
    return any(_null(table[name]) for name in _REQUIRED)


def _null(column: pa.ChunkedArray) -> bool:
    if column.null_count:
        return True
    return pa.types.is_list(column.type) and pc.list_flatten(column).null_count > 0


def _fault(values: tuple) -> str:
    """What is wrong with a row whose types are right; empty if nothing is."""
    parsed = values[_AT["parsed"]]
    if not isinstance(parsed, dict) or not all(isinstance(v, str) for v in parsed.values()):
        return "parsed is no JSON object of texts"
    for name in ("call_id", "problem_id"):
        if not values[_AT[name]]:
            return f"{name} is empty"
    if min(values[_AT["gen_ids"]], default=0) < 0:
        return "gen_ids holds a negative id"
    return ""


def _raw(row: pa.Table) -> bytes:
    """The values of a row as JSON, whatever they are."""
    told: dict[str, Any] = {}
    for name in COLUMNS:
        try:
            told[name] = row[name][0].as_py()
        except ValueError:
            told[name] = bytes(row[name].combine_chunks().cast(pa.binary())[0].as_py()).hex()
    return json.dumps(told, sort_keys=True).encode()
