"""Files in the safetensors format: described by a header that is believed only when it adds up.

The format is `https://github.com/huggingface/safetensors#format`: eight bytes with the length of a
JSON header, the header, and the tensors' bytes without gaps. It is read here, not by its library,
because a part of a tensor is wanted in memory that is already there: the library copies it once
more (3.1 GB/s against 6.4 GB/s of `preadv` from a warm cache), and maps whole files into memory.
"""

import dataclasses
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from arkjax.errors import DataError
from arkjax.text.files import damaged, read_json

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
# From the names of the format to those of NumPy, and back.
DTYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}
_CODES = {name: code for code, name in DTYPES.items()}
_OTHER_BYTES = {"F64": 8, "I64": 8, "U64": 8, "C64": 8, "I32": 4, "U32": 4, "I16": 2, "U16": 2}
_LONGEST_HEADER = 100_000_000  # as the format's own library has it
_BLOCK = 4 * 2**20  # bytes read at once where columns are picked out of rows

Box = tuple[tuple[int, int], ...]


@dataclasses.dataclass(frozen=True)
class StoredTensor:
    """Where a tensor lies.

    Attributes:
      path: the file.
      dtype: as the format calls it, such as "BF16".
      shape: its shape.
      start: of its bytes in the file.
      size: in bytes.
    """

    path: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    size: int


def numpy_dtype(name: str) -> np.dtype:
    """The dtype that NumPy and JAX know by this name."""
    return np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)


def read_header(path: Path) -> dict[str, StoredTensor]:
    """The tensors of a file, by name.

    Raises:
      DataError: if the file is missing, or its header is not one, or the header and the file do not
        agree to the byte.
    """
    try:
        with path.open("rb") as handle:
            total = os.fstat(handle.fileno()).st_size
            length = int.from_bytes(handle.read(8), "little")
            if total < 8 or not 2 <= length <= min(_LONGEST_HEADER, total - 8):
                raise ValueError(f"its header would take {length:,} of {total:,} bytes")
            header = json.loads(handle.read(length).decode("utf-8"))
        if not isinstance(header, dict):
            raise ValueError(f"its header is not an object but {type(header).__name__}")
        header.pop("__metadata__", None)
        tensors = {name: _stored(path, name, entry, 8 + length) for name, entry in header.items()}
        _check_layout(tensors, 8 + length, total)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}; download it again") from error
    except (ValueError, RecursionError) as error:
        raise damaged(path, "a whole safetensors file", error) from error
    return tensors


def _stored(path: Path, name: str, entry: Any, data: int) -> StoredTensor:
    """One entry of a header whose file's data begins at byte `data`."""
    fields = entry if isinstance(entry, dict) else {}
    dtype, shape, offsets = (fields.get(key) for key in ("dtype", "shape", "data_offsets"))
    if not isinstance(dtype, str) or not _are_counts(shape) or not _are_counts(offsets):
        raise ValueError(f"the header describes tensor {name[:100]!r} by {str(entry)[:100]}")
    if len(offsets) != 2 or offsets[0] > offsets[1]:
        raise ValueError(f"tensor {name[:100]!r} has the offsets {offsets}")
    size = offsets[1] - offsets[0]
    width = numpy_dtype(DTYPES[dtype]).itemsize if dtype in DTYPES else _OTHER_BYTES.get(dtype)
    if width is not None and math.prod(shape) * width != size:
        raise ValueError(
            f"tensor {name[:100]!r} of shape {shape} in {dtype} has {size:,} bytes between its "
            f"offsets, not {math.prod(shape) * width:,}"
        )
    return StoredTensor(path, dtype, tuple(shape), data + offsets[0], size)


def _are_counts(value: Any) -> bool:
    return isinstance(value, list) and all(type(n) is int and 0 <= n < 2**63 for n in value)


def _check_layout(tensors: Mapping[str, StoredTensor], at: int, total: int) -> None:
    """The tensors follow each other from byte `at` to the end of the file."""
    end = max((tensor.start + tensor.size for tensor in tensors.values()), default=at)
    if end > total:
        raise ValueError(f"it should have {end:,} bytes and ends after {total:,}: it is cut off")
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].size)):
        if tensor.start != at:
            relation = "overlaps the one before it" if tensor.start < at else "follows a gap"
            raise ValueError(f"tensor {name[:100]!r} {relation}")
        at += tensor.size
    if at != total:
        raise ValueError(f"{total - at:,} bytes follow its last tensor")


def read_headers(folder: Path) -> dict[str, StoredTensor]:
    """The tensors of a checkpoint of one file, or of several with an index, by name.

    Raises:
      DataError: if there is none, or a file is damaged, or files and index do not agree.
    """
    if (folder / SINGLE).exists():
        return read_header(folder / SINGLE)
    index = folder / INDEX
    if not index.exists():
        raise DataError(_no_weights(folder))
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise DataError(f"{index} has no weight_map: download it again")
    tensors: dict[str, StoredTensor] = {}
    for shard in sorted({str(shard) for shard in weight_map.values()}):
        if Path(shard).name != shard or not shard.endswith(".safetensors"):
            raise DataError(f"{index} names the shard {shard[:100]!r}: expected a file beside it")
        if not (folder / shard).exists():
            raise DataError(f"{index} names {shard}, which is not there: download it as well")
        for name, tensor in read_header(folder / shard).items():
            if name in tensors:
                raise DataError(
                    f"tensor {name} is in {tensors[name].path.name} and in {shard} of {folder}: "
                    "keep the files of one checkpoint only, and download it again"
                )
            tensors[name] = tensor
    for name in sorted(tensors.keys() | weight_map.keys()):
        found = tensors[name].path.name if name in tensors else "in no shard"
        if weight_map.get(name) != found:
            raise DataError(
                f"{index} has tensor {name} in {weight_map.get(name, 'no shard')}, but it is "
                f"{found if name not in tensors else f'in {found}'}: index and shards are of "
                "different checkpoints; download all of them again"
            )
    return tensors


def _no_weights(folder: Path) -> str:
    """Why there is nothing to read in `folder`, and what to do."""
    if not folder.is_dir():
        return f"no checkpoint at {folder}: expected a folder with config.json and {SINGLE}"
    names = sorted(path.name for path in folder.iterdir())
    pickles = [n for n in names if n.endswith((".bin", ".pt", ".pth", ".ckpt", ".pkl"))]
    if pickles:
        return (
            f"{folder / pickles[0]} is a pickle, which can run code and is never loaded: write the "
            "model anew with transformers' save_pretrained(folder, safe_serialization=True)"
        )
    if "adapter_config.json" in names:
        return f"{folder} holds a PEFT adapter alone: merge it into its base model, and save that"
    others = [n for n in names if n.endswith((".safetensors", ".gguf"))]
    found = f"found {', '.join(others[:3])}" if others else "found no weights"
    return (
        f"no {SINGLE} and no {INDEX} in {folder}: {found}; "
        "take a checkpoint in the layout of transformers"
    )


def read_into(
    tensor: StoredTensor, shape: tuple[int, ...], targets: Sequence[tuple[Box, np.ndarray]]
) -> None:
    """Read boxes of a tensor into arrays; the dtype of an array may be wider than the file's.

    A box that is one piece of the file goes straight to its array. Otherwise the rows (along the
    first axis) that any box touches are read a few at a time and columns picked: what lies between
    the columns is read too, which costs less than a system call for each row.

    Args:
      tensor: where it lies.
      shape: to take it as, with as many elements.
      targets: box and array; the array has the shape of the box and is contiguous.

    Raises:
      DataError: if the file has become shorter than it was.
    """
    dtype = numpy_dtype(DTYPES[tensor.dtype])
    with tensor.path.open("rb", buffering=0) as handle:
        scattered = []
        for box, target in targets:
            first = _piece(shape, box) if target.dtype == dtype else None
            if first is None:
                scattered.append((box, target))
            else:
                _read(handle.fileno(), tensor, first * dtype.itemsize, target)
        if not scattered:
            return
        row = math.prod(shape[1:]) * dtype.itemsize
        count = max(1, _BLOCK // row)
        begin = min(box[0][0] for box, _ in scattered)
        end = max(box[0][1] for box, _ in scattered)
        scratch = np.empty((min(count, end - begin), *shape[1:]), dtype)
        for at in range(begin, end, count):
            rows = scratch[: min(count, end - at)]
            _read(handle.fileno(), tensor, at * row, rows)
            for box, target in scattered:
                low, high = max(box[0][0], at), min(box[0][1], at + len(rows))
                if low < high:
                    columns = tuple(slice(*span) for span in box[1:])
                    picked = rows[(slice(low - at, high - at), *columns)]
                    target[low - box[0][0] : high - box[0][0]] = picked


def _piece(shape: tuple[int, ...], box: Box) -> int | None:
    """Number of elements before a box that is one run of a row-major array; else None."""
    whole = len(shape)
    while whole and box[whole - 1] == (0, shape[whole - 1]):
        whole -= 1
    if any(stop - start != 1 for start, stop in box[: max(whole - 1, 0)]):
        return None
    first = 0
    for size, (start, _) in zip(shape, box, strict=True):
        first = first * size + start
    return first


def _read(handle: int, tensor: StoredTensor, skip: int, target: np.ndarray) -> None:
    """Fill a contiguous array with the bytes of a tensor that follow its first `skip`."""
    view = memoryview(target.reshape(-1).view(np.uint8))
    done = 0
    while done < len(view):
        got = os.preadv(handle, [view[done:]], tensor.start + skip + done)
        if got == 0:
            raise DataError(f"{tensor.path} has become shorter while it was read; read it again")
        done += got


def blocks(tensor: StoredTensor) -> Iterator[bytes]:
    """The bytes of a tensor, a few MiB at a time."""
    with tensor.path.open("rb", buffering=0) as handle:
        handle.seek(tensor.start)
        left = tensor.size
        while left:
            block = handle.read(min(left, _BLOCK))
            if not block:
                raise DataError(
                    f"{tensor.path} has become shorter while it was read; read it again"
                )
            left -= len(block)
            yield block


def write_file(
    path: Path,
    tensors: Mapping[str, tuple[np.dtype, tuple[int, ...]]],
    read: Callable[[str], np.ndarray],
) -> None:
    """Write a file, one tensor after another: one at a time is in memory.

    Args:
      path: a file that is not there yet.
      tensors: dtype and shape of each by name, in the order in which they are written.
      read: gives a tensor by its name.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (dtype, shape) in tensors.items():
        begin, end = end, end + math.prod(shape) * dtype.itemsize
        header[name] = {
            "dtype": _CODES[dtype.name],
            "shape": list(shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    # So that the data begins at a multiple of eight bytes.
    text += b" " * (-len(text) % 8)
    with path.open("xb") as handle:
        handle.write(len(text).to_bytes(8, "little") + text)
        for name, (dtype, shape) in tensors.items():
            value = np.ascontiguousarray(read(name))
            if value.dtype != dtype or value.size != math.prod(shape):
                raise ValueError(f"{name}: {value.dtype} {value.shape} is not {dtype} {shape}")
            handle.write(memoryview(value.reshape(-1).view(np.uint8)))
