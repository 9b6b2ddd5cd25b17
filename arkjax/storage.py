"""Files that are whole or absent, errors that say what the disk wants, and content hashes.

A process may be killed at any point. Files and directories are therefore written aside, flushed to
the disk and renamed.
"""

import contextlib
import dataclasses
import errno
import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Container, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from arkjax.errors import ArkJAXError, StorageError

# Part of the name of everything that is still being written or deleted.
ASIDE = ".aside-"
_STORAGE_ERRNOS = {
    errno.EACCES: "no permission to write there",
    errno.EPERM: "no permission to write there",
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the file system is read-only",
    errno.ENOTDIR: "a part of the path is a file, not a directory",
    errno.EFBIG: "the file is larger than the file system or a limit allows",
    errno.ENAMETOOLONG: "the name is too long",
    errno.ENOENT: "a folder of the path does not exist and cannot be made",
    errno.EEXIST: "a part of the path is a file, not a directory",
    errno.EISDIR: "it is a directory",
    errno.EBUSY: "it is a mount point, or in use",
    errno.EIO: "the disk reports an input/output error",
}


# TensorStore raises a ValueError whose message holds the number that the system gave.
_TENSORSTORE_ERRNO = re.compile(r"os_error_code='([0-9]+)'")


def storage_error(path: str | os.PathLike, error: Exception) -> StorageError | None:
    """The `StorageError` that explains `error` at `path`, or None if storage is not its cause."""
    number = error.errno if isinstance(error, OSError) else None
    if number is None and (match := _TENSORSTORE_ERRNO.search(str(error))):
        number = int(match[1])
    reason = _STORAGE_ERRNOS.get(number)
    if reason is None:
        return None
    remedy = "choose another --workdir or change the permissions"
    if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        remedy = "free some space or choose another --workdir, then repeat the command: it goes on"
    elif number in (errno.ENOTDIR, errno.ENOENT, errno.EEXIST, errno.EISDIR):
        remedy = "choose another path"
    elif number == errno.EBUSY:
        remedy = "choose a folder in it"
    elif number == errno.EIO:
        remedy = "check the disk, or choose a --workdir on another one"
    return StorageError(f"cannot write {path}: {reason} ({_free_space(path)}); {remedy}")


def _free_space(path: str | os.PathLike) -> str:
    for place in (Path(path), *Path(path).absolute().parents):
        with contextlib.suppress(OSError):
            return f"{shutil.disk_usage(place).free / 2**30:.1f} GiB free"
    return "free space unknown"


@contextlib.contextmanager
def storage_errors(path: str | os.PathLike) -> Iterator[None]:
    """Turn an error of the storage met while writing `path` into a `StorageError`.

    The system's own (`OSError`) and those that Orbax passes on from TensorStore.
    """
    try:
        yield
    except ArkJAXError:
        raise
    except Exception as error:
        explained = storage_error(path, error)
        if explained is None:
            raise
        raise explained from error


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name[:100]}{ASIDE}{uuid.uuid4().hex[:12]}")


def flush(path: Path) -> None:
    """Wait until a file, or the names in a directory, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        # File systems that cannot flush a directory say EINVAL; the rename is all they offer.
        if error.errno != errno.EINVAL:
            raise
    finally:
        os.close(handle)


def write_atomic(path: str | os.PathLike, data: bytes | str) -> None:
    """Write a file so that it holds all of `data` or what it held before, whenever we are killed.

    Raises:
      StorageError: if the file system refuses, with its free space and the remedy.
    """
    with open_atomic(path) as handle:
        handle.write(data.encode() if isinstance(data, str) else data)


@contextlib.contextmanager
def open_atomic(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """Yield a file to write that takes the place of `path` when the block ends without error.

    For what is too large to be put together in memory; `write_atomic` is for the rest.

    Raises:
      StorageError: if the file system refuses, in the block or at the end of it.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        kind = "a directory" if path.is_dir() else "a device or a pipe"
        raise StorageError(f"cannot write {path}: it is {kind}; choose another path")
    aside = _aside(path)
    with storage_errors(path):
        try:
            with open(aside, "xb") as handle:
                yield handle
                handle.flush()
                os.fsync(handle.fileno())
            os.replace(aside, path)
            flush(path.parent)
        except BaseException:
            with contextlib.suppress(OSError):
                aside.unlink()
            raise


@contextlib.contextmanager
def write_directory_atomic(path: str | os.PathLike) -> Iterator[Path]:
    """Yield an empty directory that takes the place of `path` when the block ends without error.

    Raises:
      StorageError: if the file system refuses, in the block or at the end of it.
    """
    path = Path(path)
    aside = _aside(path)
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        aside.mkdir()
        try:
            yield aside
            for folder, _, files in os.walk(aside):
                for name in files:
                    flush(Path(folder, name))
                flush(Path(folder))
            remove(path)
            os.replace(aside, path)
            flush(path.parent)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise


def remove(path: Path) -> None:
    """Delete a file or directory at once for any reader: renamed first, then taken apart."""
    if not os.path.lexists(path):
        return
    aside = _aside(path)
    os.replace(path, aside)
    if aside.is_dir() and not aside.is_symlink():
        shutil.rmtree(aside)
    else:
        aside.unlink()


def remove_leftovers(directory: Path) -> None:
    """Delete below `directory` what a killed process was still writing aside."""
    for folder, folders, files in os.walk(directory):
        for name in [name for name in (*folders, *files) if ASIDE in name and name[0] == "."]:
            remove(Path(folder, name))
        folders[:] = [name for name in folders if ASIDE not in name]


def remove_leftovers_of(directory: Path, names: Container[str]) -> None:
    """Delete in `directory` what killed processes were writing aside of `names`, no one else's.

    For a directory in which several processes write at once.
    """
    for path in list(directory.iterdir()):
        # Who is killed while deleting leaves the aside of an aside.
        if path.name[0] == "." and path.name.lstrip(".").partition(ASIDE)[0] in names:
            remove(path)


def sha256_file(path: str | os.PathLike) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def added(default: Any) -> Any:
    """A dataclass field that came later: it is named in plain data only where it is set.

    So what could be described before the field was there keeps its content hash, and what was made
    from it stays valid.
    """
    metadata = {"added": True}
    if isinstance(default, dict):
        return dataclasses.field(default_factory=default.copy, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def named_fields(value: Any) -> Iterator[tuple[str, Any]]:
    """Names and values of a dataclass's fields, without those `added` ones that are not set."""
    for field in dataclasses.fields(value):
        item, default = getattr(value, field.name), field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        if not (field.metadata.get("added") and item == default):
            yield field.name, item


def plain(value: Any) -> Any:
    """`value` as what JSON can say and give back unchanged."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {name: plain(item) for name, item in named_fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "tolist"):  # NumPy and JAX scalars and arrays
        return value.tolist()
    return value


def content_hash(obj: Any) -> str:
    """SHA-256 (hex) of an object's canonical JSON: key order and tuple versus list do not matter.

    Takes nested mappings, sequences, dataclasses, paths, arrays and JSON scalars.

    Raises:
      TypeError: if a part of it has no JSON form.
    """
    text = json.dumps(plain(obj), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
