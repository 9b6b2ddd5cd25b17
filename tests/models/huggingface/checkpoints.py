"""Safetensors files, read and written for the tests by the format's description alone."""

import json
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np

GOLDEN = Path(__file__).parents[2] / "golden" / "models"
FAMILIES = sorted(folder.name for folder in GOLDEN.iterdir())
_DTYPES = {"F32": np.dtype("f4"), "F16": np.dtype("f2"), "BF16": np.dtype(ml_dtypes.bfloat16)}


def read_file(path: Path) -> dict[str, np.ndarray]:
    """Every tensor of a file."""
    content = path.read_bytes()
    data = 8 + int.from_bytes(content[:8], "little")
    tensors = {}
    for name, entry in json.loads(content[8:data]).items():
        if name != "__metadata__":
            begin, end = (data + offset for offset in entry["data_offsets"])
            values = np.frombuffer(content[begin:end], _DTYPES[entry["dtype"]])
            tensors[name] = values.reshape(entry["shape"])
    return tensors


def read_folder(folder: Path) -> dict[str, np.ndarray]:
    """Every tensor of a checkpoint; each must be in one file only."""
    tensors: dict[str, np.ndarray] = {}
    for file in sorted(folder.glob("*.safetensors")):
        found = read_file(file)
        assert not found.keys() & tensors.keys()
        tensors |= found
    return tensors


def write_file(
    path: Path, tensors: dict[str, np.ndarray], change: Callable[[dict], None] | None = None
) -> None:
    """Write a file; `change` may spoil its header first."""
    codes = {dtype: code for code, dtype in _DTYPES.items()}
    header, data = {}, b""
    for name, values in tensors.items():
        begin, data = len(data), data + values.tobytes()
        header[name] = {
            "dtype": codes[values.dtype],
            "shape": list(values.shape),
            "data_offsets": [begin, len(data)],
        }
    if change is not None:
        change(header)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def assert_same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> None:
    """The same tensors, bit by bit."""
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].dtype == b[name].dtype and a[name].shape == b[name].shape, name
        assert a[name].tobytes() == b[name].tobytes(), name
