"""Finds what a command works on: a store, and the tokenizer of the run that it lies in."""

import json
import re
from collections.abc import Iterable
from pathlib import Path

from arkjax.errors import ConfigError, DataError
from arkjax.shipped import shipped_path
from arkjax.text.tokenizer import Tokenizer
from arkjax.trajectories.shards import lost_shards, store_directories
from arkjax.trajectories.store import CallStore, read_run_info


def open_store(path: Path) -> CallStore:
    """The one store at or below `path`, its checksums verified.

    Raises:
      DataError: if there is none, or it is damaged.
      ConfigError: if there are several, naming them.
    """
    stores = store_directories(path)
    if len(stores) > 1:
        listed = ", ".join(str(store) for store in stores[:12])
        more = f", and {len(stores) - 12} more" if len(stores) > 12 else ""
        raise ConfigError(f"{path} holds {len(stores)} stores: give one of {listed}{more}")
    return CallStore(stores[0])


def find_tokenizer(path: Path, given: Path | None) -> Tokenizer | None:
    """The tokenizer at `given`, or that of the run directory in which `path` lies, if it does.

    Raises:
      DataError: if there is none at `given`, or it is not the one that calls were made with.
    """
    tokenizer = Tokenizer(given) if given is not None else _of_run(path)
    expected = _recorded_hash(path)
    if tokenizer is not None and expected not in (None, tokenizer.hash):
        raise DataError(
            f"the calls in {path} were made with another tokenizer than {tokenizer.path} (hash "
            f"{expected[:12]}, this one has {tokenizer.hash[:12]}): give its file as --tokenizer"
        )
    return tokenizer


def missing_shards(paths: Iterable[Path]) -> list[Path]:
    """Shards below the paths that a finished stage has recorded and that are not there.

    Those that a gap in a store's numbers tells of are left to `consistency.verify`.
    """
    missing = []
    for path in dict.fromkeys(map(Path.resolve, paths)):
        states = {*path.rglob("stage.json"), *(above / "stage.json" for above in path.parents)}
        for state in sorted(state for state in states if state.is_file()):
            for name in _recorded_files(state):
                shard = state.parent / name
                known = shard.name not in lost_shards(shard.parent)
                if shard.is_relative_to(path) and known and not shard.exists():
                    missing.append(shard)
    return missing


def _recorded_files(state: Path) -> list[str]:
    """Names of the shards that a finished stage has recorded; none if its state is damaged."""
    try:
        files = json.loads(state.read_text(encoding="utf-8")).get("files") or {}
        return [name for name in files if re.fullmatch(r"calls-\d+\.parquet", Path(name).name)]
    except (OSError, ValueError, AttributeError):
        return []


def run_root(path: Path) -> Path | None:
    """The run directory in which `path` lies, or None."""
    for place in (path.absolute(), *path.absolute().parents):
        if (place / "lock").is_file() and (place / "config.json").is_file():
            return place
    return None


def run_config(root: Path) -> dict:
    """The config of a run, as plain data.

    Raises:
      DataError: if it is missing or damaged.
    """
    path = root / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}): give a run directory") from None
    if not isinstance(config, dict):
        raise DataError(f"{path} holds a {type(config).__name__}, not the config of a run")
    return config


def _of_run(path: Path) -> Tokenizer | None:
    root = run_root(path)
    if root is None:
        return None
    name = run_config(root).get("tokenizer")
    if isinstance(name, str) and name:
        return Tokenizer(name if Path(name).exists() else shipped_path(name))
    # Where the config names none it came with the base model, and models keep a copy of theirs.
    kept = next(iter(sorted(root.glob("seed-*/base/model/tokenizer"))), None)
    return Tokenizer(kept) if kept is not None else None


def _recorded_hash(path: Path) -> str | None:
    """The hash of the tokenizer by the nearest `run.json` above the calls, if it says one."""
    for place in list((path.absolute(), *path.absolute().parents))[:4]:
        if (place / "run.json").is_file():
            value = read_run_info(place).get("tokenizer")
            return value if isinstance(value, str) else None
    return None
