"""Training examples as shards of Parquet: `examples-00000.parquet`, each with its checksum.

Within a shard they are in the order of problem and place, and all of a problem are in one shard.
`counts.json` beside them, written last, names the shards, and those of dead letters, which have no
"examples": without it they are not whole.
"""

import heapq
import io
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from arkjax.errors import DataError
from arkjax.storage import sha256_file
from arkjax.synthesis.examples import Example

COUNTS = "counts.json"
"""What the shards are and how they came about."""

SCHEMA = pa.schema(
    [
        ("problem_id", pa.string()),
        ("place", pa.int32()),
        ("prompt_ids", pa.list_(pa.int32())),
        ("target_ids", pa.list_(pa.int32())),
        ("weight", pa.float64()),
        ("target_weights", pa.list_(pa.float64())),
        ("provenance", pa.string()),
    ],
    metadata={"arkjax.examples": "1"},
)
"""Columns of a shard: the problem, which of its examples, and the fields of `Example`, of which
`target_weights` is null where each token has the whole weight, and `provenance` is JSON."""

_REMEDY = "select the examples again"
_ROWS = 1024
Placed = tuple[str, int, Example]


def shard_name(number: int) -> str:
    """File name of a shard."""
    return f"examples-{number:05d}.parquet"


def to_bytes(examples: Iterable[Placed]) -> bytes:
    """A shard of problem ids, places and examples, in their order; the same ones, the same bytes.

    Of the examples some are held at a time.
    """
    sink, left = io.BytesIO(), iter(examples)
    with pq.ParquetWriter(sink, SCHEMA, compression="zstd") as writer:
        while some := list(itertools.islice(left, _ROWS)):
            columns = zip(*map(_values, some), strict=True)
            pairs = zip(columns, SCHEMA, strict=True)
            arrays = [pa.array(column, field.type) for column, field in pairs]
            writer.write_table(pa.Table.from_arrays(arrays, schema=SCHEMA))
    return sink.getvalue()


def read_counts(directory: str | Path) -> dict[str, Any]:
    """What `counts.json` says.

    Raises:
      DataError: if it is missing, as where a selection was interrupted, or damaged.
    """
    path = Path(directory) / COUNTS
    try:
        counts = json.loads(path.read_text(encoding="utf-8"))
        shards = counts["shards"]
        if not all(Path(name).name == name and "sha256" in shards[name] for name in shards):
            raise ValueError("its shards are not named as shards are")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path} cannot be read ({error}): {directory} holds no whole set of examples; "
            f"{_REMEDY}"
        ) from None
    return counts


def read_examples(directory: str | Path) -> Iterator[Example]:
    """The examples in a directory, by problem and place: the order in which they were made.

    Checksums are verified before the first one; memory holds some rows of every shard. What has to
    be packed into rows goes to `arkjax.distillation.rows.pack`.

    Raises:
      DataError: naming the file that is missing or damaged.
    """
    paths = []
    for name, facts in read_counts(directory)["shards"].items():
        if "examples" not in facts:
            continue
        paths.append(path := Path(directory) / name)
        try:
            found = sha256_file(path)
        except OSError as error:
            raise DataError(f"{path} cannot be read ({error}): {_REMEDY}") from None
        if found != facts["sha256"]:
            raise DataError(f"{path} is damaged: its SHA-256 is {found[:12]}…: {_REMEDY}")
    for _, _, example in heapq.merge(*map(_placed, paths), key=lambda e: e[:2]):
        yield example


def _placed(path: Path) -> Iterator[Placed]:
    try:
        with pq.ParquetFile(path) as file:
            if file.schema_arrow.remove_metadata() != SCHEMA.remove_metadata():
                raise DataError(f"{path} has other columns than {', '.join(SCHEMA.names)}")
            for batch in file.iter_batches(_ROWS):
                for row in batch.to_pylist():
                    yield _example(row)
    except (OSError, pa.ArrowException, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}): {_REMEDY}") from error


def _values(placed: Placed) -> Sequence[Any]:
    problem_id, place, e = placed
    told = json.dumps(e.provenance, separators=(",", ":"), sort_keys=True, ensure_ascii=False)
    return problem_id, place, e.prompt_ids, e.target_ids, e.weight, e.target_weights, told


def _example(row: dict[str, Any]) -> Placed:
    shares = row["target_weights"]
    example = Example(
        tuple(row["prompt_ids"]),
        tuple(row["target_ids"]),
        row["weight"],
        json.loads(row["provenance"]),
        None if shares is None else tuple(shares),
    )
    return row["problem_id"], row["place"], example
