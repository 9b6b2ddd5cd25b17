"""Calls as a folder of TensorFlow Datasets, for `tfds.builder_from_directory`.

The shards are TFRecord files. Of the formats that TFDS reads this is its own default, and the one
that `as_dataset`, SeqIO and plain `tf.data` take; and it is simple enough to be written without
TensorFlow. ArrayRecord would allow reading by index, but needs a library to be written, and
`as_dataset` refuses it.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from arkjax.trajectories.exports.folder import Selection
from arkjax.trajectories.exports.tfrecord import example, write_records
from arkjax.trajectories.schema import Call, canonical_json, from_table
from arkjax.trajectories.store import CallStore
from arkjax.trajectories.transcript import Decoder

_NAME, _VERSION, _SPLIT = "arkjax_calls", "1.0.0", "train"
_CALLS_IN_FILE = 65_536
_MODULE = "tensorflow_datasets.core.features"
_TEXTS = ("call_id", "problem_id", "system", "stage", "agent", "text", "finish_reason", "model")
_INTEGERS = {
    **dict.fromkeys(("round", "sample", "step", "prefix_len", "cached_len"), "int32"),
    "seed": "int64",
    "correct": "int32",
}
_ARRAYS = {
    **dict.fromkeys(("prompt_ids", "gen_ids", "top_ids"), "int32"),
    **dict.fromkeys(("logprobs", "sampling_logprobs", "top_logprobs"), "float32"),
}
_DESCRIPTION = (
    "Calls of a team of agents, one an example, as recorded by ArkJAX. `correct` is 1, 0, or -1 "
    "where no answer was graded; `parsed` and `sampling` are JSON; `prompt_segments` covers "
    "`prompt_ids`, and a source is `template` or the id of the call whose `gen_ids` stand there."
)


def write_tfds(
    store: CallStore,
    selection: Selection,
    folder: Path,
    tokenizer: Decoder | None,
    advance: Callable[[int], None],
) -> int:
    """Write TFRecord shards of the split "train", `features.json` and `dataset_info.json`.

    With a tokenizer a feature `prompt` has the text of `prompt_ids`, special tokens included.
    """
    files: list[Path] = []
    lengths: list[int] = []
    size = 0
    file = None
    try:
        for table in selection.tables(store):
            if file is None:
                files.append(folder / f"part-{len(files):05d}")
                lengths.append(0)
                file = files[-1].open("wb")
            records = [example(*features(call, tokenizer)) for call in from_table(table)]
            write_records(file, records)
            # TFDS counts the examples alone, without what frames them.
            size += sum(map(len, records))
            lengths[-1] += len(records)
            advance(len(records))
            if lengths[-1] >= _CALLS_IN_FILE:
                file.close()
                file = None
    finally:
        if file is not None:
            file.close()
    # How many files there are is part of their names.
    for i, path in enumerate(files):
        path.rename(folder / f"{_NAME}-{_SPLIT}.tfrecord-{i:05d}-of-{len(files):05d}")
    _write_json(folder / "features.json", features_json(with_prompt=tokenizer is not None))
    _write_json(folder / "dataset_info.json", _info(lengths, size))
    return sum(lengths)


def features(call: Call, tokenizer: Decoder | None) -> tuple[dict, dict, dict]:
    """The texts, integers and floats of a call, as `example` takes them."""
    segments = call.prompt_segments
    texts = {name: [getattr(call, name)] for name in _TEXTS}
    texts |= {name: [canonical_json(dict(getattr(call, name)))] for name in ("parsed", "sampling")}
    texts["parents"] = list(call.parents)
    texts["prompt_segments/source"] = [source for source, _, _ in segments]
    if tokenizer is not None:
        texts["prompt"] = [tokenizer.decode(call.prompt_ids, special=True)]
    integers = {name: [int(getattr(call, name))] for name in _INTEGERS if name != "correct"}
    integers["correct"] = [-1 if call.correct is None else int(call.correct)]
    integers["parse_ok"] = [int(call.parse_ok)]
    integers["prompt_segments/start"] = [start for _, start, _ in segments]
    integers["prompt_segments/end"] = [end for _, _, end in segments]
    floats = {"seconds": np.array([call.seconds], np.float32)}
    for name, kind in _ARRAYS.items():
        values = getattr(call, name)
        if kind == "float32":
            floats[name] = np.asarray(values, np.float32)
        else:
            integers[name] = values
    return {name: list(map(_bytes, some)) for name, some in texts.items()}, integers, floats


def features_json(with_prompt: bool) -> dict[str, Any]:
    """What `features.json` says: the class and type of each feature, as TFDS writes it."""
    segment = {"source": _text_feature(), "start": _tensor("int32"), "end": _tensor("int32")}
    named = {
        **{name: _text_feature() for name in (*_TEXTS, "parsed", "sampling")},
        **{name: _tensor(kind) for name, kind in _INTEGERS.items()},
        **{name: _sequence(_tensor(kind)) for name, kind in _ARRAYS.items()},
        "seconds": _tensor("float32"),
        "parse_ok": _tensor("bool"),
        "parents": _sequence(_text_feature()),
        "prompt_segments": _sequence(_dictionary(segment)),
    }
    if with_prompt:
        named["prompt"] = _text_feature()
    return _dictionary(named)


def _info(lengths: list[int], size: int) -> dict[str, Any]:
    return {
        "description": _DESCRIPTION,
        "fileFormat": "tfrecord",
        "name": _NAME,
        "splits": [
            {
                "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
                "name": _SPLIT,
                "numBytes": str(size),
                "shardLengths": [str(length) for length in lengths],
            }
        ],
        "version": _VERSION,
    }


def _text_feature() -> dict[str, Any]:
    return {"pythonClassName": f"{_MODULE}.text_feature.Text", "text": {}}


def _tensor(dtype: str) -> dict[str, Any]:
    tensor = {"dtype": dtype, "encoding": "none", "shape": {}}
    return {"pythonClassName": f"{_MODULE}.tensor_feature.Tensor", "tensor": tensor}


def _sequence(feature: dict[str, Any]) -> dict[str, Any]:
    sequence = {"feature": feature, "length": "-1"}
    return {"pythonClassName": f"{_MODULE}.sequence_feature.Sequence", "sequence": sequence}


def _dictionary(features: dict[str, Any]) -> dict[str, Any]:
    return {
        "pythonClassName": f"{_MODULE}.features_dict.FeaturesDict",
        "featuresDict": {"features": features},
    }


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "replace")


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n", encoding="utf-8")
