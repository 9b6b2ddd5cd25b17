"""What passes between the workers of the pipeline: texts, numbers and bytes, never objects.

Whatever is made of more than that is JSON, compressed. So nothing that stood in a shard is ever
unpickled, and every coder of the pipeline is one of Beam's own for these types.
"""

import base64
import hashlib
import json
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from arkjax.trajectories.schema import Call

COLUMNS = (
    *("call_id", "problem_id", "stage", "round", "agent", "sample", "parents", "gen_ids"),
    *("parsed", "parse_ok", "finish_reason", "model", "correct", "step"),
)
"""The columns of a record that selection looks at."""

OPTIONAL = ("correct",)
"""Of these, what may be null."""

_PLACE = COLUMNS.index("problem_id")
_PARENTS, _WORDS = COLUMNS.index("parents"), COLUMNS.index("gen_ids")
# What selection does not look at, in a call that is built from what it does.
_ABSENT: dict[str, Any] = {
    **{"system": "", "text": "", "sampling": {}, "seed": 0, "seconds": 0.0},
    **{"prompt_segments": (), "prompt_ids": (), "prefix_len": 0, "cached_len": 0},
    **{"logprobs": (), "sampling_logprobs": ()},
}

Row = list[Any]
"""Number of the file, of the row in it, and the values of `COLUMNS` but for the problem's."""


def packed(value: Any) -> bytes:
    """JSON in compressed bytes; the same value gives the same ones."""
    text = json.dumps(value, separators=(",", ":"), sort_keys=True)
    return zlib.compress(text.encode(), 1)


def unpacked(data: bytes) -> Any:
    """What `packed` was given, tuples as lists."""
    return json.loads(zlib.decompress(data))


def row_of(file: int, number: int, values: Sequence[Any]) -> Row:
    """A row as it travels, given its values of `COLUMNS`."""
    return [file, number, *values[:_PLACE], *values[_PLACE + 1 :]]


def call_of(problem_id: str, row: Row) -> Call:
    """The call of a row, without what selection does not look at."""
    values = [*row[2 : 2 + _PLACE], problem_id, *row[2 + _PLACE :]]
    values[_PARENTS], values[_WORDS] = tuple(values[_PARENTS]), tuple(values[_WORDS])
    return Call(**dict(zip(COLUMNS, values, strict=True)), **_ABSENT)


def block(told: Any, data: bytes) -> bytes:
    """JSON and bytes beside it as one value."""
    text = packed(told)
    return len(text).to_bytes(4, "little") + text + data


def unblocked(value: bytes) -> tuple[Any, bytes]:
    """What `block` was given."""
    end = 4 + int.from_bytes(value[:4], "little")
    return unpacked(value[4:end]), value[end:]


def ids_text(ids: Sequence[int]) -> str:
    """Token ids as text: a list of numbers would be ten times as large once it is read again."""
    return base64.b64encode(np.asarray(ids, "<i4").tobytes()).decode()


def ids_of(text: str) -> tuple[int, ...]:
    """What `ids_text` was given."""
    return tuple(np.frombuffer(base64.b64decode(text), "<i4").tolist())


def part_of(text: str, parts: int) -> str:
    """Which of so many parts something of this name belongs to, as a key."""
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    return str(int.from_bytes(digest[:8], "big") % parts)
