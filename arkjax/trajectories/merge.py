"""Several stores of calls as one."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from arkjax.errors import ConfigError, DataError
from arkjax.progress import Progress
from arkjax.storage import ASIDE, flush, remove, storage_errors, write_atomic
from arkjax.trajectories.index import IdIndex, keys_of
from arkjax.trajectories.schema import COLUMNS, Call, call_digest, from_table
from arkjax.trajectories.shards import (
    ahead,
    read_shard,
    recorded_checksum,
    rows_of,
    shard_names,
)
from arkjax.trajectories.store import CallStore

_FILE = "merge.json"
_CLOCK = ("seconds", "cached_len")


def merge(
    out: Path,
    sources: Sequence[Path],
    *,
    prefer_first: bool = False,
    progress: Progress | None = None,
) -> int:
    """Write the calls of several stores as one store; returns how many it holds.

    A call that several sources have is taken once, from the first; it may differ in `seconds` and
    `cached_len`, which depend on the clock and the neighbours in a batch. The store is made beside
    `out` under another name and takes its place when it is whole. After an interruption the same
    command keeps what was written; once finished it does nothing. `merge.json` in the store names
    the sources and the checksums of their shards.

    Args:
      out: the store to be made.
      sources: directories of stores.
      prefer_first: where two sources tell a call differently, keep what the first one says.
      progress: shows calls read, rate and remaining time.

    Raises:
      DataError: if two sources tell a call differently, naming both and the fields; or if a shard
        is damaged.
      ConfigError: if something else stands at `out`.
      StorageError: if `out` cannot be written.
    """
    progress = progress or Progress(enabled=False)
    places = [(source, name) for source in sources for name in shard_names(source)]
    made_of = {"prefer_first": prefer_first, "sources": [_facts(source) for source in sources]}
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        if out.is_dir() and _made_of(out) == made_of:
            progress.say(f"{out}: merged before")
            return len(CallStore(out))
        raise ConfigError(
            f"{out} is there already and not a merge of these stores: choose another place"
        )
    # A name that no search for stores takes for one.
    work = out.with_name(f".{out.name}{ASIDE}merging")
    if work.exists() and _made_of(work) != made_of:
        with storage_errors(work):
            remove(work)
    with storage_errors(out):
        work.mkdir(parents=True, exist_ok=True)
    write_atomic(work / _FILE, json.dumps(made_of, indent=1, sort_keys=True) + "\n")
    try:
        kept = _fill(work, places, prefer_first, progress)
    except _Conflict:
        # Nothing can go on from it: the next merge is of other stores, or prefers the first.
        remove(work)
        raise
    with storage_errors(out):
        if out.exists():
            out.rmdir()
        os.replace(work, out)
        flush(out.parent)
    return kept


class _Conflict(DataError):
    """Two sources tell a call differently."""


def _fill(
    work: Path, places: Sequence[tuple[Path, str]], prefer_first: bool, progress: Progress
) -> int:
    """Append the calls of all shards to the store at `work`; returns how many it holds."""
    total = rows_of(source / name for source, name in places)
    index, starts, digests = IdIndex(), [0], np.zeros(total, np.uint64)
    with (
        progress.task("merge", unit="calls", total=total) as task,
        CallStore(work, flush_seconds=float("inf")) as store,
    ):
        tables = ahead(lambda place: read_shard(place[0] / place[1]), places)
        for place, table in zip(places, tables, strict=True):
            calls = from_table(table)
            begin, end = starts[-1], starts[-1] + len(calls)
            own = np.frombuffer(b"".join(call_digest(c, _CLOCK)[:8] for c in calls), np.uint64)
            digests[begin:end] = own
            keys = keys_of(table["call_id"])
            index.add(keys)
            # Where each of these calls was recorded first: here, or in a shard before.
            first = index.find_many(keys)
            different = np.flatnonzero(digests[first] != own)
            if len(different) and not prefer_first:
                row = int(different[0])
                raise _conflict(places, starts, int(first[row]), place, calls[row])
            starts.append(end)
            store.append(calls)
            task.advance(len(calls))
    return len(store)


def _facts(source: Path) -> dict[str, Any]:
    shards = {name: recorded_checksum(source / name) for name in shard_names(source)}
    return {"store": str(source.resolve()), "shards": shards}


def _made_of(directory: Path) -> Any:
    try:
        return json.loads((directory / _FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _conflict(
    places: Sequence[tuple[Path, str]],
    starts: Sequence[int],
    position: int,
    place: tuple[Path, str],
    call: Call,
) -> _Conflict:
    shard = int(np.searchsorted(starts, position, "right")) - 1
    first = places[shard]
    row = position - starts[shard]
    (other,) = from_table(read_shard(first[0] / first[1]).slice(row, 1))
    fields = [
        name
        for name in COLUMNS
        if name not in _CLOCK
        # As texts, in which what is no number equals itself.
        and str(getattr(call, name)) != str(getattr(other, name))
    ]
    return _Conflict(
        f"call {call.call_id} is recorded differently in {first[0] / first[1]} and in "
        f"{place[0] / place[1]} ({', '.join(fields)}): leave one of the stores out, or take what "
        "the first says with --prefer-first"
    )
