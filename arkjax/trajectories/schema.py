"""The recorded call: one generation of one agent, with all it takes to train on it or replay it.

What a tool did for an agent, its *action*, is a call too: its words are the tool's, nobody
generated them, and its `model` is "tool:" and the tool's name and version.
"""

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from arkjax.sampling.params import SamplingParams

TEMPLATE = "template"
"""Source of the prompt segments that no agent wrote: question, headers, closing tokens."""

ACTION = "tool:"
"""How the `model` of an action begins."""

Segment = tuple[str, int, int]


@dataclasses.dataclass(frozen=True, slots=True)
class Call:
    """One generation, as it was asked for and as it came back.

    Attributes:
      call_id: content hash of what determines the tokens; see `call_id`.
      problem_id: the problem that the team was working on.
      system: name of the team specification that had the call made.
      stage: name of the team's stage.
      round: how many stages this debate had played before this one.
      agent: id of the agent that spoke.
      sample: which of the agent's samples in this stage; retries count on after the first ones.
      parents: ids of the calls that the prompt shows, in the prompt's order.
      prompt_segments: (source, start, end) over `prompt_ids`, in order and without gaps; the source
        is `"template"` or the id of the call whose `gen_ids` stand there word for word.
      prompt_ids: the prompt as token ids.
      prefix_len: how many of them agents with the same view share.
      cached_len: how many of them needed no prefill, because another call had paid for them.
      gen_ids: the generated ids, the end token included when it was met.
      logprobs: log-probability of each generated id in the unmodified distribution, in nats.
      sampling_logprobs: the same in the distribution that it was drawn from.
      text: `gen_ids` decoded, without the end token.
      parsed: what the stage's parser read, field to value; empty where it read nothing.
      parse_ok: whether every field of the parser was found.
      finish_reason: "stop", "length", or for an action "tool".
      sampling: the fields of `SamplingParams`.
      seed: seed of the request.
      model: identity of the model that spoke, as hashed into `call_id`.
      correct: the grader's verdict on `text`; None where the stage states no answer.
      seconds: the call's share of the generator's wall time; see `Generation.seconds`.
      step: which part of the agent's turn: an agent that uses tools speaks, acts and speaks again.
      top_ids: the k most probable ids at each generated one, the best first, one list of k after
        the other; empty unless `SamplingParams.top_logprobs` asked for them.
      top_logprobs: their log-probabilities in the unmodified distribution.
    """

    call_id: str
    problem_id: str
    system: str
    stage: str
    round: int
    agent: str
    sample: int
    parents: tuple[str, ...]
    prompt_segments: tuple[Segment, ...]
    prompt_ids: tuple[int, ...]
    prefix_len: int
    cached_len: int
    gen_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    sampling_logprobs: tuple[float, ...]
    text: str
    parsed: Mapping[str, str]
    parse_ok: bool
    finish_reason: str
    sampling: Mapping[str, Any]
    seed: int
    model: str
    correct: bool | None
    seconds: float
    step: int = 0
    top_ids: tuple[int, ...] = ()
    top_logprobs: tuple[float, ...] = ()

    @property
    def is_action(self) -> bool:
        """Whether a tool wrote this, and no model."""
        return self.model.startswith(ACTION)


_STRINGS = ("call_id", "problem_id", "system", "stage", "agent", "text", "finish_reason", "model")
_INTEGERS = ("round", "sample", "prefix_len", "cached_len", "step")
_LISTS = {
    "prompt_ids": np.int32,
    "gen_ids": np.int32,
    "logprobs": np.float32,
    "sampling_logprobs": np.float32,
    "top_ids": np.int32,
    "top_logprobs": np.float32,
}
_JSON = ("parsed", "sampling")
_SEGMENT = pa.struct([("source", pa.string()), ("start", pa.int32()), ("end", pa.int32())])
_TYPES: dict[str, pa.DataType] = {
    **dict.fromkeys(_STRINGS, pa.string()),
    **dict.fromkeys(_INTEGERS, pa.int32()),
    **{name: pa.list_(pa.from_numpy_dtype(dtype)) for name, dtype in _LISTS.items()},
    **dict.fromkeys(_JSON, pa.string()),
    "parents": pa.list_(pa.string()),
    "prompt_segments": pa.list_(_SEGMENT),
    "parse_ok": pa.bool_(),
    "seed": pa.int64(),
    "correct": pa.bool_(),
    "seconds": pa.float64(),
}
COLUMNS = tuple(field.name for field in dataclasses.fields(Call))
SCHEMA = pa.schema([(name, _TYPES[name]) for name in COLUMNS], metadata={"arkjax.calls": "1"})
"""Arrow schema of a shard: the fields of `Call`, in order; `parsed` and `sampling` are JSON."""

# Columns that older records have not, and what stands for them there.
_ADDED: dict[str, Any] = {"step": 0, "top_ids": [], "top_logprobs": []}
_CLOCK = ("seconds", "cached_len")
_ENCODER = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
)


def canonical_json(value: Any) -> str:
    """JSON text that is equal for equal values: sorted keys, no spaces, no NaN."""
    return _ENCODER.encode(value)


def sampling_dict(sampling: SamplingParams) -> dict[str, Any]:
    """The fields of `sampling` as plain values that are equal whenever the sampling is."""
    fields = {
        "temperature": float(sampling.temperature),
        "top_k": int(sampling.top_k),
        "top_p": float(sampling.top_p),
        "min_p": float(sampling.min_p),
        "max_tokens": int(sampling.max_tokens),
        "stop_ids": [int(token) for token in sampling.stop_ids],
    }
    # Named only where there are any, so that calls recorded before there were keep their ids.
    return fields | ({"stop": list(sampling.stop)} if sampling.stop else {})


def call_id(
    *,
    problem_id: str,
    model: str,
    stage: str,
    round: int,
    agent: str,
    sample: int,
    prompt_ids: Sequence[int],
    sampling: Mapping[str, Any],
    seed: int,
) -> str:
    """Name of a call: the first 32 hex digits of the SHA-256 of what determines its tokens.

    The team is not part of it. Two teams that make the very same call, such as a debate's first
    round and the same roles without communication, share its id, and it is sampled once.
    """
    identity = [problem_id, model, stage, round, agent, sample, list(prompt_ids), sampling, seed]
    return hashlib.sha256(canonical_json(identity).encode()).hexdigest()[:32]


def call_seed(
    run_seed: int, problem_id: str, agent: str, seed_group: str, round: int, sample: int
) -> int:
    """Seed of a call, in [0, 2^31): the same for calls that hold the same place in two teams."""
    place = canonical_json([run_seed, problem_id, agent, seed_group, round, sample])
    return int.from_bytes(hashlib.sha256(place.encode()).digest()[:4], "big") & 0x7FFFFFFF


def canonical_order(calls: Iterable[Call]) -> list[Call]:
    """The calls by problem, round, stage, agent, sample and step: each debate in its own order."""
    return sorted(
        calls, key=lambda c: (c.problem_id, c.round, c.stage, c.agent, c.sample, c.step, c.call_id)
    )


def to_table(calls: Sequence[Call]) -> pa.Table:
    """Calls as an Arrow table of `SCHEMA`, column by column."""
    arrays = [_to_array(name, [getattr(call, name) for call in calls]) for name in COLUMNS]
    return pa.Table.from_arrays(arrays, schema=SCHEMA)


def upgraded(table: pa.Table, names: Sequence[str]) -> pa.Table:
    """The table with what was not yet recorded when it was written, among the columns `names`."""
    for name in _ADDED:
        if name in names and name not in table.schema.names:
            column = pa.array([_ADDED[name]] * len(table), _TYPES[name])
            table = table.add_column(names.index(name), SCHEMA.field(name), column)
    return table


def from_table(table: pa.Table) -> list[Call]:
    """The calls of a table of `SCHEMA`, in its order."""
    return [Call(*values) for values in rows_of_columns(table, COLUMNS)]


def rows_of_columns(table: pa.Table, names: Sequence[str]) -> Iterator[tuple]:
    """The values of some columns of `SCHEMA` row by row, as `Call` has them.

    Raises:
      ValueError: if a text is not UTF-8, or not JSON where it has to be.
    """
    columns = [_from_array(name, table.column(name)) for name in names]
    return zip(*columns, strict=True)


def call_digest(call: Call, ignore: Sequence[str] = _CLOCK) -> bytes:
    """SHA-256 of one call's fields but for those of `ignore`; see `content_hash`."""
    row: list[Any] = []
    for name in COLUMNS:
        if name in ignore:
            continue
        value = getattr(call, name)
        if _LISTS.get(name) is np.float32:
            value = np.asarray(value, np.float32).tobytes().hex()
        row.append(value)
    return hashlib.sha256(canonical_json(row).encode()).digest()


def content_hash(calls: Iterable[Call], ignore: Sequence[str] = _CLOCK) -> str:
    """SHA-256 over the calls, whatever their order and however they are spread over shards.

    By default it leaves out what depends on the clock and on the neighbours in a batch: `seconds`
    and `cached_len`. Floats count at float32, as they are stored. Of each call 32 bytes are kept,
    so a record may be larger than memory.
    """
    total = hashlib.sha256()
    for digest in sorted(call_digest(call, ignore) for call in calls):
        total.update(digest)
    return total.hexdigest()


def _to_array(name: str, values: list[Any]) -> pa.Array:
    if name in _LISTS:
        flat = np.fromiter(itertools.chain.from_iterable(values), dtype=_LISTS[name])
        return pa.ListArray.from_arrays(_offsets(values), pa.array(flat))
    if name == "parents":
        flat = pa.array(list(itertools.chain.from_iterable(values)), pa.string())
        return pa.ListArray.from_arrays(_offsets(values), flat)
    if name == "prompt_segments":
        rows = list(itertools.chain.from_iterable(values))
        sources, starts, ends = zip(*rows, strict=True) if rows else ((), (), ())
        parts = [
            pa.array(sources, pa.string()),
            pa.array(starts, pa.int32()),
            pa.array(ends, pa.int32()),
        ]
        flat = pa.StructArray.from_arrays(parts, fields=list(_SEGMENT))
        return pa.ListArray.from_arrays(_offsets(values), flat)
    if name in _JSON:
        values = [canonical_json(dict(value)) for value in values]
    return pa.array(values, _TYPES[name])


def _from_array(name: str, column: pa.ChunkedArray) -> list[Any]:
    if name not in _LISTS and name not in ("parents", "prompt_segments"):
        values = column.to_pylist()
        return [json.loads(value) for value in values] if name in _JSON else values
    lists: list[Any] = []
    for chunk in column.chunks:
        offsets = chunk.offsets.to_pylist()
        # Slicing plain lists of the flat values is far faster than a Python object per cell. The
        # values of a slice are those of the whole column, so they are cut to what it spans.
        first, last = offsets[0], offsets[-1]
        flat = _flat_values(name, chunk.values.slice(first, last - first))
        lists += [tuple(flat[a - first : b - first]) for a, b in itertools.pairwise(offsets)]
    return lists


def _flat_values(name: str, values: pa.Array) -> list[Any]:
    if name == "prompt_segments":
        parts = (values.field(i).to_pylist() for i in range(len(_SEGMENT)))
        return list(zip(*parts, strict=True))
    if name == "parents":
        return values.to_pylist()
    return values.to_numpy(zero_copy_only=False).tolist()


def _offsets(values: list[Any]) -> pa.Array:
    lengths = np.fromiter(map(len, values), dtype=np.int32, count=len(values))
    return pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
