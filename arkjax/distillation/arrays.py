"""A directory of arrays that knows whether it is whole: `.npy` files, hashes in `meta.json`."""

import contextlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from arkjax.errors import DataError
from arkjax.storage import content_hash, sha256_file, write_atomic


class ArrayFile:
    """An `.npy` file that grows by rows: what is written need not fit into memory.

    Args:
      path: of the file.
      dtype: of the array.
      shape: of one row.
    """

    def __init__(self, path: Path, dtype: Any, shape: tuple[int, ...]):
        self._handle = open(path, "xb")
        self._dtype, self._shape, self._rows = np.dtype(dtype), shape, 0
        self._write_header()

    def append(self, rows: np.ndarray) -> None:
        """Adds rows `[n, *shape]`. Raises the OSError of a file system that refuses."""
        if rows.shape[1:] != self._shape or rows.dtype != self._dtype:
            raise ValueError(f"{rows.dtype} {rows.shape} in a file of {self._dtype} {self._shape}")
        # Not `ndarray.tofile`: its error does not say that the disk is full.
        self._handle.write(memoryview(np.ascontiguousarray(rows)).cast("B") if rows.size else b"")
        self._rows += len(rows)

    def close(self) -> None:
        """Completes the file."""
        with self._handle:
            self._handle.seek(0)
            self._write_header()

    def abandon(self) -> None:
        """Closes the file as it is."""
        with contextlib.suppress(OSError):
            self._handle.close()

    def _write_header(self) -> None:
        # NumPy leaves room for the greatest number of rows: the header keeps its length.
        np.lib.format.write_array_header_1_0(
            self._handle,
            {
                "descr": np.lib.format.dtype_to_descr(self._dtype),
                "fortran_order": False,
                "shape": (self._rows, *self._shape),
            },
        )


def save_arrays(directory: Path, arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> None:
    """Writes arrays, then `meta.json` with meta and the size and hash of every file beside it.

    Write into a directory of `storage.write_directory_atomic`; what is in it already is hashed too.
    """
    for name, array in arrays.items():
        array = np.asarray(array)
        file = ArrayFile(directory / f"{name}.npy", array.dtype, array.shape[1:])
        try:
            file.append(array)
        except BaseException:
            file.abandon()
            raise
        file.close()
    seal_arrays(directory, sorted(arrays), meta)


def seal_arrays(directory: Path, names: Sequence[str], meta: Mapping[str, Any]) -> None:
    """Writes the `meta.json` of a directory in which the arrays `names` stand already."""
    files = {
        path.name: {"bytes": path.stat().st_size, "sha256": sha256_file(path)}
        for path in sorted(directory.iterdir())
    }
    write_meta(directory / "meta.json", {**meta, "arrays": sorted(names), "files": files})


def load_arrays(
    directory: Path, kind: str, remedy: str, *, hashes: bool = True
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays, memory-mapped read-only, and the meta of a directory whose files are all whole.

    Without `hashes` only sizes are compared, so that nothing needs to be read.

    Raises:
      DataError: a file is missing, damaged, or the directory is of another kind than `kind`; names
        the file and ends with remedy.
    """
    meta = check_arrays(directory, kind, remedy, hashes=hashes)
    return open_arrays(directory, meta, remedy), meta


def check_arrays(directory: Path, kind: str, remedy: str, *, hashes: bool = True) -> dict[str, Any]:
    """The meta of a directory of arrays whose files are all whole: `load_arrays` without opening.

    Raises:
      DataError: as `load_arrays`.
    """
    meta_path = directory / "meta.json"
    meta = read_meta(meta_path, kind, remedy)
    try:
        for name, written in meta["files"].items():
            path = directory / name
            if not path.is_file():
                raise DataError(f"{path} is missing; {remedy}")
            size = path.stat().st_size
            if size != written["bytes"]:
                raise DataError(
                    f"{path} is damaged: {size} bytes, {written['bytes']} were written; {remedy}"
                )
            if hashes and sha256_file(path) != written["sha256"]:
                raise DataError(f"{path} is damaged: its hash is not the recorded one; {remedy}")
        for name in meta["arrays"]:
            meta["files"][f"{name}.npy"]
    except (AttributeError, KeyError, TypeError) as error:
        raise DataError(f"{meta_path} is damaged: no {error}; {remedy}") from error
    return meta


def open_arrays(directory: Path, meta: Mapping[str, Any], remedy: str) -> dict[str, np.ndarray]:
    """The arrays that `check_arrays` has found whole, memory-mapped read-only.

    Raises:
      DataError: a file is no longer there, or no array; names it and ends with remedy.
    """
    arrays = {}
    for name in meta["arrays"]:
        path = directory / f"{name}.npy"
        try:
            arrays[name] = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise DataError(f"{path} is damaged: {error}; {remedy}") from error
    return arrays


def write_meta(path: Path, meta: Mapping[str, Any]) -> None:
    """Writes meta as JSON, sealed with its own hash. Raises StorageError if that is refused."""
    sealed = {**meta, "seal": content_hash(meta)}
    write_atomic(path, json.dumps(sealed, indent=1, sort_keys=True) + "\n")


def read_meta(path: Path, kind: str, remedy: str) -> dict[str, Any]:
    """What `write_meta` wrote, of the expected `kind`. Raises DataError, naming the file."""
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing: no {kind} here; {remedy}") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is damaged: {error}; {remedy}") from error
    if not isinstance(meta, dict) or meta.get("kind") != kind:
        raise DataError(f"{path} does not describe a {kind}; {remedy}")
    if meta.pop("seal", None) != content_hash(meta):
        raise DataError(f"{path} is damaged: its content is not what was written; {remedy}")
    return meta
