"""The store of recorded calls: a directory of shards that is appended to, resumed and searched."""

import json
import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa

from arkjax.errors import DataError
from arkjax.storage import storage_errors, write_atomic
from arkjax.trajectories.index import IdIndex, ProblemIndex, keys_of
from arkjax.trajectories.schema import (
    COLUMNS,
    Call,
    canonical_order,
    content_hash,
    from_table,
    to_table,
)
from arkjax.trajectories.shards import (
    ahead,
    next_shard_name,
    read_shard,
    shard_names,
    sweep,
    write_shard,
)

_CALLS_IN_MEMORY = 32_768


class CallStore:
    """A directory of recorded calls that can be appended to, resumed and read.

    Appended calls are buffered and become a shard when `shard_calls` of them are there, when the
    oldest has waited `flush_seconds`, and on `flush` and `close`. At opening the checksum of every
    shard is verified, and where each call is is read from them: 20 bytes of memory a call, 28 once
    problems were asked for. Beside that, memory holds the calls of the shards in use, not the whole
    record. A directory has one writer at a time.

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
        self._names: list[str] = []
        self._starts = np.zeros(1, np.int64)
        self._ids = IdIndex()
        self._doubles: dict[str, set[int]] = {}
        self._problem_index: ProblemIndex | None = None
        self._swept = False
        self._index(shard_names(self.directory))

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
        return self._ids.unique + len(self._buffer)

    def __contains__(self, call_id: object) -> bool:
        if not isinstance(call_id, str):
            return False
        return call_id in self._buffer or self._ids.find(call_id) >= 0

    def __iter__(self) -> Iterator[Call]:
        """Every call once, shard by shard: the way to read a record larger than memory."""
        for table in self.tables():
            yield from from_table(table)
        yield from self._buffer.values()

    def tables(self, columns: Sequence[str] = COLUMNS) -> Iterator[pa.Table]:
        """The recorded calls as Arrow tables of some columns of `SCHEMA`, one for each shard.

        Every call is there once. It is the way to go through a large record column by column;
        calls that are not flushed yet are left out.
        """
        for name, table in self._every_row(list(columns)):
            doubles = self._doubles.get(name)
            if doubles:
                kept = [row for row in range(len(table)) if row not in doubles]
                table = table.take(pa.array(kept, pa.int64()))
            yield table

    def unique_tables(self) -> Iterator[pa.Table]:
        """Every call once, those that are not flushed yet included, as tables of `SCHEMA`."""
        yield from self.tables()
        if self._buffer:
            yield to_table(list(self._buffer.values()))

    def ids(self) -> set[str]:
        """The ids of all recorded calls."""
        recorded = (table["call_id"].to_pylist() for table in self.tables(["call_id"]))
        return set(self._buffer).union(*recorded)

    def get(self, call_id: str) -> Call | None:
        """The recorded call of that id, or None."""
        if call_id in self._buffer:
            return self._buffer[call_id]
        position = self._ids.find(call_id)
        if position < 0:
            return None
        name, row = self._place(position)
        return self._calls(name)[row]

    def systems(self) -> set[str]:
        """The names of all teams that calls were made for."""
        recorded = (table["system"].unique().to_pylist() for table in self.tables(["system"]))
        return {call.system for call in self._buffer.values()}.union(*recorded)

    def problems(self) -> list[str]:
        """The ids of all problems, in the order in which they were first recorded."""
        names = dict.fromkeys(self._by_problem())
        return list(names | dict.fromkeys(call.problem_id for call in self._buffer.values()))

    def of_problem(self, problem_id: str) -> list[Call]:
        """The calls of a problem in the order of its debate; only their shards are read."""
        return next(iter(self.by_problem([problem_id])))[1]

    def by_problem(self, problems: Iterable[str] | None = None) -> Iterator[tuple[str, list[Call]]]:
        """Each problem with its calls, in the order of its debate.

        Shards are read for many problems at once, so that also a record in which every problem is
        spread over all shards is read a few times, and not once for each problem.

        Args:
          problems: their ids; all, in the order of `problems`, if None.
        """
        index = self._by_problem()
        buffered: dict[str, list[Call]] = defaultdict(list)
        for call in self._buffer.values():
            buffered[call.problem_id].append(call)
        batch: dict[str, np.ndarray] = {}
        size = 0
        for problem in self.problems() if problems is None else problems:
            batch[problem] = index.rows(problem)
            size += len(batch[problem])
            if size >= _CALLS_IN_MEMORY:
                yield from self._of_problems(batch, buffered)
                batch, size = {}, 0
        yield from self._of_problems(batch, buffered)

    def lookup(self, column: str) -> Callable[[str], str | None]:
        """A text column by call id: 4 bytes of memory for each recorded call.

        Args:
          column: such as "agent"; of few different values.
        """
        values: dict[str, int] = {}
        codes = [np.zeros(0, np.int32)]
        for _, table in self._every_row([column]):
            encoded = table[column].combine_chunks().dictionary_encode()
            for chunk in encoded.chunks if isinstance(encoded, pa.ChunkedArray) else [encoded]:
                own = [values.setdefault(v, len(values)) for v in chunk.dictionary.to_pylist()]
                indices = chunk.indices.to_numpy(zero_copy_only=False)
                codes.append(np.array(own, np.int32)[indices])
        every, names = np.concatenate(codes), list(values)

        def find(call_id: str) -> str | None:
            if call_id in self._buffer:
                return getattr(self._buffer[call_id], column)
            position = self._ids.find(call_id)
            return names[every[position]] if 0 <= position < len(every) else None

        return find

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
            if not self._swept:
                # Once, and only when this process writes.
                sweep(self.directory)
                self._swept = True
        name = next_shard_name(self.directory)
        table = to_table(list(self._buffer.values()))
        write_shard(self.directory / name, table)
        self._add(name, keys_of(table.column("call_id")))
        if self._problem_index is not None:
            self._problem_index.add(table.column("problem_id"))
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

    def _index(self, names: list[str]) -> None:
        """Verify shards and note where their calls are."""

        def keys(name: str) -> np.ndarray:
            return keys_of(read_shard(self.directory / name, ["call_id"]).column("call_id"))

        # Joined before they are added: one sort instead of one for each shard.
        every = list(ahead(keys, names))
        if every:
            new = self._ids.add(np.concatenate(every))
            for name, some in zip(names, every, strict=True):
                self._note(name, len(some), new[: len(some)])
                new = new[len(some) :]
            self._problem_index = None

    def _add(self, name: str, keys: np.ndarray) -> None:
        self._note(name, len(keys), self._ids.add(keys))

    def _note(self, name: str, rows: int, new: np.ndarray) -> None:
        self._names.append(name)
        self._starts = np.append(self._starts, self._starts[-1] + rows)
        if not new.all():
            self._doubles[name] = set(np.flatnonzero(~new).tolist())

    def _every_row(self, columns: list[str]) -> Iterator[tuple[str, pa.Table]]:
        """Name and table of each shard, what another process has written by now included."""
        known = set(self._names)
        self._index([name for name in shard_names(self.directory) if name not in known])
        names = list(self._names)
        tables = ahead(lambda name: read_shard(self.directory / name, columns), names)
        yield from zip(names, tables, strict=True)

    def _by_problem(self) -> ProblemIndex:
        if self._problem_index is None:
            index = ProblemIndex()
            for table in ahead(
                lambda name: read_shard(self.directory / name, ["problem_id"]), self._names
            ):
                index.add(table.column("problem_id"))
            self._problem_index = index
        return self._problem_index

    def _of_problems(
        self, batch: Mapping[str, np.ndarray], buffered: Mapping[str, list[Call]]
    ) -> Iterator[tuple[str, list[Call]]]:
        calls: dict[str, list[Call]] = {problem: [] for problem in batch}
        positions = np.unique(np.concatenate([*batch.values(), np.zeros(0, np.int64)]))
        shards = self._starts.searchsorted(positions, "right") - 1
        for shard in np.unique(shards).tolist():
            rows = positions[shards == shard] - self._starts[shard]
            name = self._names[shard]
            doubles = self._doubles.get(name, ())
            kept = [row for row in rows.tolist() if row not in doubles]
            if name in self._recent:
                found = [self._recent[name][row] for row in kept]
            else:
                found = from_table(read_shard(self.directory / name, rows=kept))
            for call in found:
                calls[call.problem_id].append(call)
        for problem, several in calls.items():
            yield problem, canonical_order([*several, *buffered.get(problem, ())])

    def _place(self, position: int) -> tuple[str, int]:
        """Shard and row of a position."""
        shard = int(self._starts.searchsorted(position, "right")) - 1
        return self._names[shard], position - int(self._starts[shard])

    def _calls(self, name: str) -> list[Call]:
        # Resumed debates ask for calls that were recorded close together: few shards are hot.
        if name not in self._recent:
            self._recent[name] = from_table(read_shard(self.directory / name))
            while len(self._recent) > 1 and sum(map(len, self._recent.values())) > _CALLS_IN_MEMORY:
                self._recent.popitem(last=False)
        self._recent.move_to_end(name)
        return self._recent[name]


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
