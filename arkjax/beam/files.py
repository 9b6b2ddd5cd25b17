"""Files here or elsewhere: whatever Beam's file systems reach, such as `gs://` or `s3://`."""

import dataclasses
import glob
import hashlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from arkjax.errors import ConfigError, DataError, StorageError
from arkjax.storage import open_atomic, storage_errors
from arkjax.trajectories.shards import shard_names, store_directories

_REMOTE = re.compile(r"[a-z][a-z0-9+.-]*://")


def is_remote(path: str) -> bool:
    """Whether a path names another file system than that of this machine."""
    return bool(_REMOTE.match(path))


def join(folder: str, *names: str) -> str:
    """A path below a folder of either kind."""
    return "/".join([folder.rstrip("/"), *names])


def read(path: str) -> bytes:
    """All of a file. Raises OSError if it cannot be read."""
    if not is_remote(path):
        return Path(path).read_bytes()
    with _file_systems().open(path, compression_type="uncompressed") as handle:
        return handle.read()


def write(path: str, data: bytes) -> str:
    """Write a file whole or not at all; returns its SHA-256.

    Raises:
      StorageError: if the file system refuses.
    """
    if is_remote(path):
        systems = _file_systems()
        aside = f"{path}.aside-{hashlib.sha256(data).hexdigest()[:12]}"
        try:
            with systems.create(aside, compression_type="uncompressed") as handle:
                handle.write(data)
            if systems.exists(path):
                systems.delete([path])
            systems.rename([aside], [path])
        except Exception as error:
            raise StorageError(f"cannot write {path}: {error}") from error
    else:
        with storage_errors(path):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        with open_atomic(path) as handle:
            handle.write(data)
    return hashlib.sha256(data).hexdigest()


@dataclasses.dataclass(frozen=True)
class Source:
    """A shard to be read.

    Attributes:
      number: its place among all of them: of a call that is recorded twice the first one counts.
      path: where it is.
    """

    number: int
    path: str

    def plain(self) -> dict[str, Any]:
        """As JSON says it."""
        return dataclasses.asdict(self)


def sources(paths: Iterable[str]) -> list[Source]:
    """The shards at these places, each once, in order.

    Args:
      paths: directories of stores, or of runs: then all their stores; shards; or patterns of any of
        these, such as `runs/*/seed-0/sample/team` or `gs://bucket/calls-*.parquet`. Elsewhere than
        on this machine, a directory is that of one store.

    Raises:
      DataError: if there is nothing at one of them.
    """
    found: dict[str, None] = {}
    for path in paths:
        some = _remote_shards(path) if is_remote(path) else _local_shards(path)
        if not some:
            raise DataError(f"{path} holds no recorded calls (calls-*.parquet)")
        found |= dict.fromkeys(some)
    return [Source(number, path) for number, path in enumerate(found)]


def _local_shards(path: str) -> list[str]:
    shards: list[str] = []
    for place in [path] if Path(path).exists() else sorted(glob.glob(path)) or [path]:
        if Path(place).is_file():
            shards.append(str(Path(place).absolute()))
            continue
        for store in store_directories(Path(place)):
            shards += [str((store / name).absolute()) for name in shard_names(store)]
    return shards


def _remote_shards(path: str) -> list[str]:
    pattern = path if path.endswith(".parquet") else join(path, "calls-*.parquet")
    try:
        (match,) = _file_systems().match([pattern])
    except ValueError as error:
        raise ConfigError(f"{path}: Beam has no file system for it ({error})") from error
    except Exception as error:
        raise DataError(f"{path} cannot be listed: {error}") from error
    return sorted(entry.path for entry in match.metadata_list)


def _file_systems() -> Any:
    from apache_beam.io.filesystems import FileSystems

    return FileSystems
