"""Shards of a record: Parquet files that a kill at any instant leaves whole or absent.

A shard is written in two steps, each a whole file under a temporary name, synced and renamed: first
`calls-00000.parquet.sha256`, the checksum in the format of `sha256sum`, then `calls-00000.parquet`.
The checksum goes first so that a shard never exists without it: what a kill can leave behind is a
checksum without a shard, or a temporary file. Both mean nothing to a reader, and the next writer
removes them. `sha256sum --check *.sha256` verifies a directory without ArkJAX.
"""

import contextlib
import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from arkjax.errors import DataError
from arkjax.storage import ASIDE, remove_leftovers, write_atomic
from arkjax.trajectories.schema import COLUMNS, SCHEMA, upgraded

_SHARD = re.compile(r"calls-(\d{5,})\.parquet")
SIDECAR = ".sha256"
"""Behind the name of a file: that of its checksum, in the format of `sha256sum`."""
S, T = TypeVar("S"), TypeVar("T")
# Columns of few different values. A dictionary of token ids or numbers instead hides from the
# compressor that prompts repeat what calls generated: shards are up to 1.7 times as large.
_DICTIONARIES = [
    *("problem_id", "system", "stage", "agent", "finish_reason", "model", "sampling", "parsed"),
]
# Of a problem's calls only the row groups that hold them are decoded.
_GROUP_ROWS = 1024


def shard_names(directory: Path) -> list[str]:
    """Names of the shards in a directory in the order of their numbers; none if it is missing."""
    if not directory.is_dir():
        return []
    names = [path.name for path in directory.iterdir() if _SHARD.fullmatch(path.name)]
    return sorted(names, key=lambda name: (int(_SHARD.fullmatch(name)[1]), name))


def lost_shards(directory: Path) -> list[str]:
    """Names of shards that must have been there: those before the last one that is.

    One after it whose checksum is there may never have been finished: its writer was killed.
    """
    numbers = [int(_SHARD.fullmatch(name)[1]) for name in shard_names(directory)]
    missing = set(range(max(numbers, default=0))) - set(numbers)
    return [f"calls-{number:05d}.parquet" for number in sorted(missing)]


def next_shard_name(directory: Path) -> str:
    """Name of the shard that is written next."""
    last = max((int(_SHARD.fullmatch(name)[1]) for name in shard_names(directory)), default=-1)
    return f"calls-{last + 1:05d}.parquet"


def write_shard(path: Path, table: pa.Table) -> None:
    """Write a table of `SCHEMA` as a shard, its checksum first.

    Raises:
      StorageError: if the directory cannot be written.
    """
    sink = pa.BufferOutputStream()
    pq.write_table(
        table,
        sink,
        compression="zstd",
        use_dictionary=_DICTIONARIES,
        row_group_size=_GROUP_ROWS,
    )
    data = sink.getvalue().to_pybytes()
    digest = hashlib.sha256(data).hexdigest()
    write_atomic(path.with_name(path.name + SIDECAR), f"{digest}  {path.name}\n")
    write_atomic(path, data)


def read_shard(
    path: Path, columns: list[str] | None = None, rows: Sequence[int] | None = None
) -> pa.Table:
    """The shard's table from bytes whose checksum was verified.

    Args:
      path: of the shard.
      columns: those wanted; all if None.
      rows: ascending numbers of the rows wanted, of which the row groups alone are decoded; all if
        None.

    Raises:
      DataError: naming the file, if it is damaged or no shard, with the remedy.
    """
    remedy = (
        f"while its stage is unfinished, delete {path.name} and go on sampling, and just those "
        "calls are made again; a finished stage is made anew by --redo"
    )
    sidecar = path.with_name(path.name + SIDECAR)
    try:
        expected = sidecar.read_text(encoding="utf-8").split()[0]
    except (OSError, ValueError, IndexError):
        raise DataError(f"{path} has no readable checksum file {sidecar.name}: {remedy}") from None
    try:
        data = path.read_bytes()
        found = hashlib.sha256(data).hexdigest()
        if found != expected:
            raise DataError(
                f"{path} is damaged: its SHA-256 is {found[:12]}… where {expected[:12]}… was"
                f" recorded: {remedy}"
            )
        with pq.ParquetFile(pa.BufferReader(data)) as file:
            # Older records lack some columns, which are left out here and put in by `upgraded`.
            table = file.read(columns) if rows is None else _rows(file, columns, rows)
        if columns is not None:
            table = table.select([name for name in columns if name in table.schema.names])
        table = upgraded(table, columns or COLUMNS)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} cannot be read ({error}): {remedy}") from error
    names = columns or SCHEMA.names
    if table.schema.remove_metadata() != pa.schema([SCHEMA.field(name) for name in names]):
        raise DataError(f"{path} has other columns than this version of ArkJAX records: {remedy}")
    return table


def _rows(file: pq.ParquetFile, columns: list[str] | None, rows: Sequence[int]) -> pa.Table:
    groups, kept, before, start = [], [], 0, 0
    for group in range(file.num_row_groups):
        end = start + file.metadata.row_group(group).num_rows
        inside = [row - start + before for row in rows if start <= row < end]
        if inside:
            groups.append(group)
            kept += inside
            before += end - start
        start = end
    return file.read_row_groups(groups, columns).take(pa.array(kept, pa.int64()))


def rows_of(paths: Iterable[Path]) -> int:
    """Rows of shards by their footers: for a progress bar, since nothing is verified.

    One that cannot be read counts as none; whoever reads it says what is wrong with it.
    """
    total = 0
    for path in paths:
        with contextlib.suppress(OSError, pa.ArrowException):
            total += pq.read_metadata(path).num_rows
    return total


def recorded_checksum(path: Path) -> str:
    """The checksum beside a shard; empty if there is none that can be read."""
    try:
        text = path.with_name(path.name + SIDECAR).read_text(encoding="utf-8")
        return text.split()[0]
    except (OSError, ValueError, IndexError):
        return ""


def sweep(directory: Path) -> None:
    """Remove what a killed writer left behind."""
    remove_leftovers(directory)
    shards = set(shard_names(directory))
    for path in directory.glob(f"*{SIDECAR}"):
        if _SHARD.fullmatch(path.stem) and path.stem not in shards:
            path.unlink(missing_ok=True)


def store_directories(path: Path) -> list[Path]:
    """The directories at or below `path` that hold shards, in order of their names.

    Raises:
      DataError: if there are none.
    """
    found = []
    for folder, folders, files in os.walk(path):
        folders[:] = sorted(name for name in folders if ASIDE not in name)
        if any(_SHARD.fullmatch(name) for name in files):
            found.append(Path(folder))
    if not found:
        kind = "holds no recorded calls (calls-*.parquet)" if path.exists() else "does not exist"
        raise DataError(f"{path} {kind}: give a run directory, or the directory of a store")
    return sorted(found)


def ahead(function: Callable[[S], T], items: Sequence[S], workers: int = 2) -> Iterator[T]:
    """`function` of each item, in order, computed by threads a few items ahead of the reader.

    Hashing and decoding of a shard run outside of Python's lock, so that two cores share them.
    """
    left: Iterable[S] = iter(items)
    with ThreadPoolExecutor(workers) as pool:
        waiting = [pool.submit(function, item) for item in islice(left, workers)]
        try:
            while waiting:
                result = waiting.pop(0).result()
                waiting += [pool.submit(function, item) for item in islice(left, 1)]
                yield result
        finally:
            for future in waiting:
                future.cancel()
