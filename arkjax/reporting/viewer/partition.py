"""A record of any size, debate by debate: its shards are sorted into parts on the disk first.

The calls of a debate lie wherever they were finished, in any of a store's shards. So the record is
gone through twice: once for the ids, which decides what belongs together, and once to write each
shard's rows, sorted by part, into a temporary file. Each part is then read back alone. Memory holds
one shard, one part, and the ids; the temporary file has no name and goes with the process.
"""

import dataclasses
import io
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from arkjax.storage import storage_errors
from arkjax.trajectories.schema import SCHEMA, Call, from_table
from arkjax.trajectories.store import CallStore

PART_DEBATES = 256
"""Most debates of a part."""

PART_CHARACTERS = 2_000_000
"""Most characters of a part's messages, unless one debate has more."""


@dataclasses.dataclass(frozen=True)
class Part:
    """Some debates.

    Attributes:
      problem_ids: of the debates, in rising order.
      calls: of each, in the order in which they were recorded.
    """

    problem_ids: tuple[str, ...]
    calls: tuple[tuple[Call, ...], ...]


def parts(
    store: CallStore,
    scratch: Path,
    *,
    limit: int | None = None,
    part_debates: int = PART_DEBATES,
    part_characters: int = PART_CHARACTERS,
    read: Callable[[int], None] = lambda calls: None,
) -> Iterator[Part]:
    """The debates of a store in rising order of their problem's id.

    Args:
      store: of one play, so that a problem is a debate.
      scratch: a folder on a disk with room for the record, uncompressed.
      limit: only so many debates, the first ones by id.
      part_debates: most debates of a part.
      part_characters: most characters of a part's messages, unless one debate has more.
      read: told of the number of calls sorted, shard by shard.

    Raises:
      DataError: if a shard is damaged.
      StorageError: if the temporary file cannot be written.
    """
    ids, where = _plan(store, limit, part_debates, part_characters)
    place = pa.array(ids)
    with storage_errors(scratch), tempfile.TemporaryFile(dir=scratch) as file:
        pieces: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for table in store.tables():
            _sort(table, place, where, file, pieces)
            read(len(table))
        for number in range(int(where[-1]) + 1 if len(where) else 0):
            yield _part(file, pieces[number], [ids[i] for i in np.flatnonzero(where == number)])


def _plan(
    store: CallStore, limit: int | None, part_debates: int, part_characters: int
) -> tuple[list[str], np.ndarray]:
    """The problem ids in order, and the part [P] of each."""
    sizes: dict[str, int] = defaultdict(int)
    for table in store.tables(["problem_id", "text"]):
        lengths = pc.fill_null(pc.utf8_length(table.column("text")), 0).to_pylist()
        for problem, length in zip(table.column("problem_id").to_pylist(), lengths, strict=True):
            sizes[problem] += length
    ids = sorted(sizes)[:limit]
    where = np.zeros(len(ids), np.int64)
    part = debates = characters = 0
    for i, problem in enumerate(ids):
        full = debates == part_debates or characters + sizes[problem] > part_characters
        if debates and full:
            part, debates, characters = part + 1, 0, 0
        where[i] = part
        debates, characters = debates + 1, characters + sizes[problem]
    return ids, where


def _sort(
    table: pa.Table,
    ids: pa.Array,
    where: np.ndarray,
    file: io.BufferedRandom,
    pieces: dict[int, list[tuple[int, int]]],
) -> None:
    """Write the rows of a shard part by part; `pieces` learns where in the file they are."""
    found = pc.index_in(table.column("problem_id"), value_set=ids)
    index = pc.fill_null(found, -1).to_numpy()
    wanted = np.flatnonzero(index >= 0)
    if not len(wanted):
        return
    numbers = where[index[wanted]]
    order = np.argsort(numbers, kind="stable")
    rows = table.take(pa.array(wanted[order])).combine_chunks()
    starts = [0, *(np.flatnonzero(np.diff(numbers[order])) + 1), len(order)]
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    for start, end in zip(starts, starts[1:], strict=False):
        for batch in rows.slice(start, end - start).to_batches():
            data = _serialized(batch, options)
            at = file.seek(0, io.SEEK_END)
            file.write(data)
            pieces[int(numbers[order[start]])].append((at, len(data)))


def _serialized(batch: pa.RecordBatch, options: pa.ipc.IpcWriteOptions) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema, options=options) as writer:
        writer.write_batch(batch)
    return sink.getvalue().to_pybytes()


def _part(file: io.BufferedRandom, pieces: list[tuple[int, int]], ids: list[str]) -> Part:
    calls: dict[str, list[Call]] = {problem: [] for problem in ids}
    for at, size in pieces:
        file.seek(at)
        table = pa.ipc.open_stream(file.read(size)).read_all()
        for call in from_table(table.cast(SCHEMA)):
            calls[call.problem_id].append(call)
    return Part(tuple(ids), tuple(tuple(of_one) for of_one in calls.values()))
