"""A directory of arrays that knows whether it is whole: `.npy` files, hashes in `meta.json`."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from arkjax.errors import DataError
from arkjax.storage import content_hash, sha256_file, write_atomic


def save_arrays(directory: Path, arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> None:
    """Writes arrays, then `meta.json` with meta and the size and hash of every file beside it.

    Write into a directory of `storage.write_directory_atomic`; what is in it already is hashed too.
    """
    for name, array in arrays.items():
        np.save(directory / f"{name}.npy", np.ascontiguousarray(array), allow_pickle=False)
    files = {
        path.name: {"bytes": path.stat().st_size, "sha256": sha256_file(path)}
        for path in sorted(directory.iterdir())
    }
    write_meta(directory / "meta.json", {**meta, "arrays": sorted(arrays), "files": files})


def load_arrays(
    directory: Path, kind: str, remedy: str, *, hashes: bool = True
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays, memory-mapped read-only, and the meta of a directory whose files are all whole.

    Without `hashes` only sizes are compared, so that nothing needs to be read.

    Raises:
      DataError: a file is missing, damaged, or the directory is of another kind than `kind`; names
        the file and ends with remedy.
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
        arrays = {
            name: np.load(directory / f"{name}.npy", mmap_mode="r", allow_pickle=False)
            for name in meta["arrays"]
        }
    except (AttributeError, KeyError, TypeError) as error:
        raise DataError(f"{meta_path} is damaged: no {error}; {remedy}") from error
    return arrays, meta


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
