"""Calls as a dataset folder of Hugging Face: Parquet files and a card that declares them.

The card is the README.md with YAML in front, of which `datasets` reads `configs` (which files make
which split) and `dataset_info` (features, sizes). Nothing else is needed: `dataset_infos.json` is
what older versions wrote.
"""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from arkjax.trajectories.exports.folder import Selection
from arkjax.trajectories.schema import SCHEMA
from arkjax.trajectories.store import CallStore
from arkjax.trajectories.transcript import Decoder

_CALLS_IN_FILE = 65_536
_CATEGORIES = {1e3: "n<1K", 1e4: "1K<n<10K", 1e5: "10K<n<100K", 1e6: "100K<n<1M", 1e7: "1M<n<10M"}


def write_huggingface(
    store: CallStore,
    selection: Selection,
    folder: Path,
    tokenizer: Decoder | None,
    advance: Callable[[int], None],
) -> int:
    """Write `data/train-*.parquet` with all columns of the record, and `README.md`.

    With a tokenizer a column `prompt` has the text of `prompt_ids`, special tokens included.
    """
    schema = SCHEMA.remove_metadata()
    if tokenizer is not None:
        schema = schema.append(pa.field("prompt", pa.string()))
    data = folder / "data"
    data.mkdir()
    files: list[Path] = []
    writer, in_file, written, size = None, 0, 0, 0
    try:
        for table in selection.tables(store):
            table = table.replace_schema_metadata(None)
            if tokenizer is not None:
                prompts = [
                    tokenizer.decode(ids, special=True) for ids in table["prompt_ids"].to_pylist()
                ]
                table = table.append_column(schema.field("prompt"), pa.array(prompts, pa.string()))
            if writer is None:
                files.append(data / f"part-{len(files):05d}")
                writer, in_file = pq.ParquetWriter(files[-1], schema, compression="zstd"), 0
            writer.write_table(table)
            written, size, in_file = written + len(table), size + table.nbytes, in_file + len(table)
            advance(len(table))
            if in_file >= _CALLS_IN_FILE:
                writer.close()
                writer = None
    finally:
        if writer is not None:
            writer.close()
    # How many files there are is part of their names.
    for i, path in enumerate(files):
        path.rename(data / f"train-{i:05d}-of-{len(files):05d}.parquet")
    stored = sum(path.stat().st_size for path in data.iterdir())
    (folder / "README.md").write_text(_card(schema, written, size, stored), encoding="utf-8")
    return written


def _card(schema: pa.Schema, calls: int, size: int, stored: int) -> str:
    features = "\n".join(line for field in schema for line in _feature(field, "  "))
    category = next((name for most, name in _CATEGORIES.items() if calls < most), "n>1T")
    columns = "\n".join(f"- `{field.name}`: {field.type}" for field in schema)
    return f"""---
pretty_name: ArkJAX calls
size_categories:
- {category}
tags:
- arkjax
- multi-agent
- trajectories
configs:
- config_name: default
  data_files:
  - split: train
    path: data/train-*.parquet
dataset_info:
  features:
{features}
  splits:
  - name: train
    num_bytes: {size}
    num_examples: {calls}
  download_size: {stored}
  dataset_size: {size}
---

# Recorded calls of a team of agents

{calls:,} calls, one a row: what each agent was shown, what it answered, and where its words came
from. Made by `arkjax trajectories export`.

`prompt_segments` covers `prompt_ids` without gaps; a `source` is `template` or the `call_id` of the
call whose `gen_ids` stand there. `logprobs` are in nats, in the model's unmodified distribution,
`sampling_logprobs` in the one that tokens were drawn from. `parsed` and `sampling` are JSON. A
`model` that begins with `tool:` is a tool.

{columns}
"""


def _feature(field: pa.Field, indent: str) -> list[str]:
    """Lines of YAML for a column: names as `datasets` calls types."""
    name, kind = f"{indent}- name: {field.name}", field.type
    if not pa.types.is_list(kind):
        return [name, f"{indent}  dtype: {_dtype(kind)}"]
    if not pa.types.is_struct(kind.value_type):
        return [name, f"{indent}  list: {_dtype(kind.value_type)}"]
    inner = [line for part in kind.value_type for line in _feature(part, indent + "  ")]
    return [name, f"{indent}  list:", *inner]


def _dtype(kind: pa.DataType) -> str:
    names = {pa.string(): "string", pa.bool_(): "bool", pa.float32(): "float32"}
    names |= {pa.float64(): "float64", pa.int32(): "int32", pa.int64(): "int64"}
    return names[kind]
