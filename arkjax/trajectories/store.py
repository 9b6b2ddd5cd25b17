"""Where calls are kept: Parquet shards that a kill at any instant leaves whole or absent.

A shard is written in two steps, each a whole file under a temporary name, synced and renamed: first
`calls-00000.parquet.sha256`, the checksum in the format of `sha256sum`, then `calls-00000.parquet`.
The checksum goes first so that a shard never exists without it: what a kill can leave behind is a
checksum without a shard, or a temporary file. Both mean nothing to a reader, and the next writer
removes them. `sha256sum --check *.sha256` verifies a directory without ArkJAX.
"""

import hashlib
import json
import re
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from arkjax.errors import DataError
from arkjax.storage import remove_leftovers, sha256_file, storage_errors, write_atomic
from arkjax.trajectories.schema import (
    COLUMNS,
    SCHEMA,
    Call,
    canonical_order,
    content_hash,
    from_table,
    to_table,
    upgraded,
)

_SHARD = re.compile(r"calls-(\d{5,})\.parquet")
_SIDECAR = ".sha256"
_CALLS_IN_MEMORY = 32_768


class CallStore:
    """A directory of recorded calls that can be appended to, resumed and read.

    Appended calls are buffered and become a shard when `shard_calls` of them are there, when the
    oldest has waited `flush_seconds`, and on `flush` and `close`. Memory holds the ids of all calls
    and the calls of the shards in use, not the whole record. A directory has one writer at a time.

    Raises:
      DataError: if a shard is damaged; the message names the file and the remedy.
      StorageError: if the directory cannot be written.
    """

    def __init__(
        self, directory: str | Path, *, shard_calls: int = 4096, flush_seconds: float = 10.0
    ) -> None:
        self.directory = Path(directory)
        self.shard_calls = shard_calls
        self.flush_seconds = flush_seconds
        self._buffer: dict[str, Call] = {}
        self._buffered_since = 0.0
        self._recent: OrderedDict[str, list[Call]] = OrderedDict()
        self._places: dict[str, tuple[str, int]] = {}
        self._swept = False
        for name in self._shards():
            self._index(name, _read_shard(self.directory / name, columns=["call_id"]))

    def __enter__(self) -> "CallStore":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._places) + len(self._buffer)

    def __contains__(self, call_id: object) -> bool:
        return call_id in self._buffer or call_id in self._places

    def __iter__(self) -> Iterator[Call]:
        """Every call once, shard by shard: the way to read a record larger than memory."""
        for name in self._shards():
            for call in from_table(_read_shard(self.directory / name)):
                if self._places.get(call.call_id, (name,))[0] == name:
                    yield call
        yield from self._buffer.values()

    def tables(self, columns: Sequence[str] = COLUMNS) -> Iterator[pa.Table]:
        """The recorded calls as Arrow tables of some columns of `SCHEMA`, one for each shard.

        Every call is there once. It is the way to go through a large record column by column;
        calls that are not flushed yet are left out.
        """
        names = list(columns)
        wanted = names if "call_id" in names else ["call_id", *names]
        for name in self._shards():
            table = _read_shard(self.directory / name, wanted)
            ids = table.column("call_id").to_pylist()
            own = [self._places.get(key, (name, row)) == (name, row) for row, key in enumerate(ids)]
            if not all(own):
                table = table.filter(pa.array(own))
            yield table.select(names)

    def ids(self) -> set[str]:
        """The ids of all recorded calls."""
        return set(self._places) | set(self._buffer)

    def get(self, call_id: str) -> Call | None:
        """The recorded call of that id, or None."""
        if call_id in self._buffer:
            return self._buffer[call_id]
        if call_id not in self._places:
            return None
        name, row = self._places[call_id]
        return self._calls(name)[row]

    def append(self, calls: Call | Iterable[Call]) -> None:
        """Record calls; one whose id is there already is not recorded again."""
        for call in (calls,) if isinstance(calls, Call) else calls:
            if call.call_id in self:
                continue
            if not self._buffer:
                self._buffered_since = time.monotonic()
            self._buffer[call.call_id] = call
            if len(self._buffer) >= self.shard_calls:
                self.flush()
        if self._buffer and time.monotonic() - self._buffered_since >= self.flush_seconds:
            self.flush()

    def flush(self) -> None:
        """Make every appended call durable."""
        if not self._buffer:
            return
        with storage_errors(self.directory):
            self.directory.mkdir(parents=True, exist_ok=True)
            self._sweep()
        last = max((int(_SHARD.fullmatch(name)[1]) for name in self._shards()), default=-1)
        name = f"calls-{last + 1:05d}.parquet"
        table = to_table(list(self._buffer.values()))
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        data = sink.getvalue().to_pybytes()
        digest = hashlib.sha256(data).hexdigest()
        write_atomic(self.directory / (name + _SIDECAR), f"{digest}  {name}\n")
        write_atomic(self.directory / name, data)
        self._index(name, table)
        self._buffer.clear()

    def close(self) -> None:
        """Make every appended call durable; the store can still be read."""
        self.flush()

    def load(self) -> list[Call]:
        """All calls in canonical order: by problem, then in the order of its debate."""
        return canonical_order(self)

    def content_hash(self) -> str:
        """SHA-256 of the record, whatever its shards and order, without wall-clock columns."""
        return content_hash(self)

    def _shards(self) -> list[str]:
        if not self.directory.is_dir():
            return []
        return sorted(p.name for p in self.directory.iterdir() if _SHARD.fullmatch(p.name))

    def _index(self, name: str, table: pa.Table) -> None:
        for row, call_id in enumerate(table.column("call_id").to_pylist()):
            self._places.setdefault(call_id, (name, row))

    def _calls(self, name: str) -> list[Call]:
        # Resumed debates ask for calls that were recorded close together: few shards are hot.
        if name not in self._recent:
            self._recent[name] = from_table(_read_shard(self.directory / name))
            while len(self._recent) > 1 and sum(map(len, self._recent.values())) > _CALLS_IN_MEMORY:
                self._recent.popitem(last=False)
        self._recent.move_to_end(name)
        return self._recent[name]

    def _sweep(self) -> None:
        """Remove what a killed writer left behind: once, and only when this process writes."""
        if self._swept:
            return
        self._swept = True
        remove_leftovers(self.directory)
        shards = set(self._shards())
        for path in self.directory.glob(f"*{_SIDECAR}"):
            if _SHARD.fullmatch(path.stem) and path.stem not in shards:
                path.unlink(missing_ok=True)


def write_run_info(directory: str | Path, info: Mapping[str, Any]) -> None:
    """Write `run.json`: the facts under which the calls beside it were made.

    `info` holds the team's hash, the hashes of checkpoint, tokenizer and chat template, versions,
    mesh, dtype and seed; every value must be JSON.
    """
    with storage_errors(directory):
        Path(directory).mkdir(parents=True, exist_ok=True)
    text = json.dumps(info, indent=2, sort_keys=True, allow_nan=False) + "\n"
    write_atomic(Path(directory) / "run.json", text)


def read_run_info(directory: str | Path) -> dict[str, Any]:
    """What `write_run_info` wrote. Raises DataError if it is missing or not JSON."""
    path = Path(directory) / "run.json"
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path} is missing: sample the calls first (`arkjax sample`)") from None
    except ValueError as error:
        raise DataError(f"{path} is not JSON ({error}): delete it and sample again") from error
    if not isinstance(info, dict):
        raise DataError(f"{path} holds a {type(info).__name__}, not the facts of a run")
    return info


def _read_shard(path: Path, columns: list[str] | None = None) -> pa.Table:
    """The shard's table, its checksum verified first."""
    remedy = f"delete {path.name} and repeat the command: it samples just those calls again"
    sidecar = path.with_name(path.name + _SIDECAR)
    try:
        expected = sidecar.read_text(encoding="utf-8").split()[0]
    except (OSError, ValueError, IndexError):
        raise DataError(f"{path} has no readable checksum file {sidecar.name}: {remedy}") from None
    try:
        found = sha256_file(path)
        if found != expected:
            raise DataError(
                f"{path} is damaged: its SHA-256 is {found[:12]}… where {expected[:12]}… was"
                f" recorded: {remedy}"
            )
        there = set(pq.read_schema(path).names)
        # Older records lack some columns; `upgraded` puts them in.
        wanted = None if columns is None else [name for name in columns if name in there]
        table = upgraded(pq.read_table(path, columns=wanted, memory_map=False), columns or COLUMNS)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} cannot be read ({error}): {remedy}") from error
    names = columns or SCHEMA.names
    if table.schema.remove_metadata() != pa.schema([SCHEMA.field(name) for name in names]):
        raise DataError(f"{path} has other columns than this version of ArkJAX records: {remedy}")
    return table
