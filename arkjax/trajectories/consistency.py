"""Whether a record is whole and agrees with itself: checked shard by shard, in bounded memory.

Two passes. The first verifies checksums and keeps, of each call, where its id is and a digest of
its generated ids, 28 bytes in all. The second reads all columns and holds every call against the
rules of `Call` and, by those digests, against the calls that its prompt shows.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from arkjax.errors import DataError
from arkjax.trajectories.index import IdIndex, keys_of
from arkjax.trajectories.schema import ACTION, SCHEMA, TEMPLATE
from arkjax.trajectories.shards import ahead, lost_shards, read_shard, shard_names

_FINISHED = ("stop", "length", "tool")
_text = json.JSONEncoder(ensure_ascii=False).encode


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong with a record.

    Attributes:
      file: the shard.
      call_id: the call; empty where the shard as a whole is meant.
      what: what is wrong.
    """

    file: Path
    call_id: str
    what: str

    def __str__(self) -> str:
        return f"{self.file}: " + (f"call {self.call_id}: " if self.call_id else "") + self.what


def verify(
    directory: Path, advance: Callable[[int], None] = lambda calls: None
) -> Iterator[Finding]:
    """What is wrong with a store of calls, as it is found; nothing if it is whole.

    Verified are checksums and columns of every shard; of every call that its id is recorded once
    and follows from its content (not for actions, which nobody sampled), its segments cover its
    prompt in order and without gaps, what they copy stands in the source's `gen_ids` word for word,
    its parents are recorded and name all sources, each generated id has its log-probabilities, and
    its lengths and finish reason are possible.

    Args:
      directory: of the store.
      advance: told of calls as they are done, each once.
    """
    names = shard_names(directory)
    index, digests, broken = IdIndex(), [], set()
    lost = lost_shards(directory)
    for name in lost:
        yield Finding(directory / name, "", "it is missing, and the calls in it are lost")
    doubles: dict[str, np.ndarray] = {}
    sizes: list[int] = []
    first = ahead(lambda name: _read(directory / name, ["call_id", "gen_ids"]), names)
    for name, table in zip(names, first, strict=True):
        if isinstance(table, DataError):
            broken.add(name)
            yield Finding(directory / name, "", _without(str(table), directory / name))
            continue
        sizes.append(len(table))
        new = index.add(keys_of(table["call_id"]))
        doubles[name] = np.flatnonzero(~new)
        digests.append(_digests(*_lists(table["gen_ids"])))
    incomplete = bool(broken or lost)
    record = _Record(index, np.concatenate([*digests, np.zeros(0, np.uint64)]), incomplete)
    whole = [name for name in names if name not in broken]
    for name, table in zip(whole, ahead(lambda n: _read(directory / n), whole), strict=True):
        if isinstance(table, DataError):
            yield Finding(directory / name, "", _without(str(table), directory / name))
            continue
        ids = table["call_id"]
        for row in doubles[name].tolist():
            again = "its id is recorded before: of two records of a call only the first is read"
            yield Finding(directory / name, str(ids[row]), again)
        for row, what in sorted(_check(table.combine_chunks(), record)):
            yield Finding(directory / name, str(ids[row]), what)
        advance(len(table))


@dataclasses.dataclass(frozen=True)
class _Record:
    """What the first pass keeps: positions of ids, digests of `gen_ids` by position."""

    index: IdIndex
    digests: np.ndarray
    incomplete: bool


def _read(path: Path, columns: list[str] | None = None) -> pa.Table | DataError:
    try:
        return read_shard(path, columns)
    except DataError as error:
        return error


def _without(message: str, path: Path) -> str:
    return message.removeprefix(str(path)).strip()


def _lists(column: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """Offsets [n + 1] and values of a list column, as plain arrays that begin at 0."""
    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        if not array.num_chunks:
            return np.zeros(1, np.int64), np.zeros(0, np.int32)
        array = array.chunk(0)
    offsets = array.offsets.to_numpy().astype(np.int64)
    values = array.values.slice(offsets[0], offsets[-1] - offsets[0])
    if not pa.types.is_primitive(values.type):
        return offsets - offsets[0], values
    return offsets - offsets[0], values.to_numpy(zero_copy_only=False)


def _digests(offsets: np.ndarray, values: np.ndarray) -> np.ndarray:
    """[n] uint64: a digest of each list of int32."""
    data, ends = memoryview(values.astype(np.int32).tobytes()), (4 * offsets).tolist()
    found = [
        hashlib.blake2b(data[a:b], digest_size=8).digest()
        for a, b in zip(ends, ends[1:], strict=False)
    ]
    return np.frombuffer(b"".join(found), np.uint64)


def _check(table: pa.Table, record: _Record) -> Iterator[tuple[int, str]]:
    """Row and fault, for everything wrong with the calls of a shard."""
    for name in SCHEMA.names:
        if name != "correct" and table[name].null_count:
            for row in np.flatnonzero(table[name].is_null().to_numpy()).tolist():
                yield row, f"{name} is missing"
            return
    lengths = {
        name: np.diff(_lists(table[name])[0])
        for name in SCHEMA.names
        if pa.types.is_list(SCHEMA.field(name).type)
    }
    model = table["model"]
    action = pc.starts_with(model, ACTION).to_numpy()
    yield from _check_lengths(table, lengths, action)
    yield from _check_json(table)
    yield from _check_sources(table, lengths, record)
    for row in np.flatnonzero(_recomputed(table) & ~action).tolist():
        yield row, "its id does not follow from its content (problem, model, place, prompt, seed)"


def _check_lengths(
    table: pa.Table, lengths: dict[str, np.ndarray], action: np.ndarray
) -> Iterator[tuple[int, str]]:
    prompt, generated = lengths["prompt_ids"], lengths["gen_ids"]
    prefix, cached = table["prefix_len"].to_numpy(), table["cached_len"].to_numpy()
    reason = table["finish_reason"]
    rules = {
        "its prompt is empty": prompt == 0,
        "prefix_len is not within its prompt": (prefix < 0) | (prefix > prompt),
        "cached_len is not within its prompt": (cached < 0) | (cached > prompt),
        "top_ids and top_logprobs differ in length": lengths["top_ids"] != lengths["top_logprobs"],
        "top_ids are not equally many for each generated id": lengths["top_ids"]
        % np.maximum(generated, 1)
        != 0,
        "finish_reason is none of " + ", ".join(_FINISHED): ~pc.is_in(
            reason, pa.array(_FINISHED)
        ).to_numpy(),
        "a tool's action and a model's call end differently: finish_reason contradicts model": (
            pc.equal(reason, "tool").to_numpy() != action
        ),
    }
    for name in ("logprobs", "sampling_logprobs"):
        absent = action & (lengths[name] == 0)
        rules[f"{name} are not as many as gen_ids"] = (lengths[name] != generated) & ~absent
    for what, wrong in rules.items():
        for row in np.flatnonzero(wrong).tolist():
            yield row, what


def _check_json(table: pa.Table) -> Iterator[tuple[int, str]]:
    for name in ("parsed", "sampling"):
        encoded = table[name].combine_chunks().dictionary_encode()
        encoded = encoded.chunk(0) if isinstance(encoded, pa.ChunkedArray) else encoded
        bad = [i for i, text in enumerate(encoded.dictionary.to_pylist()) if not _is_object(text)]
        if bad:
            for row in np.flatnonzero(np.isin(encoded.indices.to_numpy(), bad)).tolist():
                yield row, f"{name} is no JSON object"


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


def _check_sources(
    table: pa.Table, lengths: dict[str, np.ndarray], record: _Record
) -> Iterator[tuple[int, str]]:
    """Segments and parents: gaps, and what does not stand where it should."""
    n = len(table)
    offsets, segments = _lists(table["prompt_segments"])
    owner = np.repeat(np.arange(n), np.diff(offsets))
    start, end = (segments.field(i).to_numpy(zero_copy_only=False) for i in (1, 2))
    begins = np.zeros(len(owner), bool)
    begins[offsets[:-1][np.diff(offsets) > 0]] = True
    ends = np.roll(begins, -1)
    before = np.where(begins, 0, np.roll(end, 1))
    after = np.where(ends, lengths["prompt_ids"][owner], end)
    gap = (start != before) | (end != after) | (end <= start)
    uncovered = (np.diff(offsets) == 0) & (lengths["prompt_ids"] > 0)
    gaps = np.union1d(owner[gap], np.flatnonzero(uncovered))
    for row in gaps.tolist():
        yield row, "its segments do not cover its prompt in order and without gaps"

    sources = segments.field(0)
    copied = np.flatnonzero(pc.not_equal(sources, TEMPLATE).to_numpy(zero_copy_only=False))
    at = record.index.find_many(keys_of(sources.take(copied)))
    parent_offsets, parents = _lists(table["parents"])
    parent_owner = np.repeat(np.arange(n), np.diff(parent_offsets))
    parent_at = record.index.find_many(keys_of(parents))
    missing = "is not recorded"
    if not record.incomplete:
        # Where a shard is damaged, it may well have held them: that was said already.
        for i in np.flatnonzero(parent_at < 0).tolist():
            yield int(parent_owner[i]), f"its parent {parents[i]} {missing}"
    ours = parent_owner.astype(np.int64) << 40 | parent_at
    shown = owner[copied].astype(np.int64) << 40 | at
    prompt_offsets, prompt = _lists(table["prompt_ids"])
    data = memoryview(prompt.astype(np.int32).tobytes())
    known = ~np.isin(owner[copied], gaps)
    for i in np.flatnonzero((at < 0) & known).tolist():
        source = sources[int(copied[i])]
        named = source in parents.slice(
            parent_offsets[owner[copied[i]]], lengths["parents"][owner[copied[i]]]
        )
        if not named or not record.incomplete:
            yield int(owner[copied[i]]), f"the source {source} of a segment {missing}"
    for i in np.flatnonzero((at >= 0) & known & ~np.isin(shown, ours)).tolist():
        source = sources[int(copied[i])]
        yield int(owner[copied[i]]), f"the source {source} of a segment is not among its parents"
    kept = np.flatnonzero((at >= 0) & known)
    base = prompt_offsets[owner[copied[kept]]]
    first = (4 * (base + start[copied[kept]])).tolist()
    last = (4 * (base + end[copied[kept]])).tolist()
    found = [
        hashlib.blake2b(data[a:b], digest_size=8).digest() for a, b in zip(first, last, strict=True)
    ]
    wrong = np.frombuffer(b"".join(found), np.uint64) != record.digests[at[kept]]
    for i in kept[wrong].tolist():
        source, where = sources[int(copied[i])], f"{start[copied[i]]} to {end[copied[i]]}"
        yield int(owner[copied[i]]), f"its prompt from {where} is not what {source} generated"


def _recomputed(table: pa.Table) -> np.ndarray:
    """[n] bool: whose id differs from `call_id` of its content.

    The JSON text is put together here, because encoding every field anew takes three times as long.
    """
    columns = [
        table[name].to_pylist()
        for name in ("problem_id", "model", "stage", "round", "agent", "sample", "sampling", "seed")
    ]
    offsets, values = _lists(table["prompt_ids"])
    flat, bounds = values.tolist(), offsets.tolist()
    wrong = np.zeros(len(table), bool)
    ids = table["call_id"].to_pylist()
    for row, (problem, model, stage, number, agent, sample, sampling, seed) in enumerate(
        zip(*columns, strict=True)
    ):
        prompt = str(flat[bounds[row] : bounds[row + 1]]).replace(" ", "")
        identity = (
            f"[{_text(problem)},{_text(model)},{_text(stage)},{number},{_text(agent)},{sample},"
            f"{prompt},{sampling},{seed}]"
        )
        wrong[row] = hashlib.sha256(identity.encode()).hexdigest()[:32] != ids[row]
    return wrong
