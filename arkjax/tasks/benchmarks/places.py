"""Where the records of a split lie: a file, a folder, the Hugging Face Hub, or TFDS.

Of a folder or a repository those files belong to a split whose names say so, or the folders that
they are in: `test.jsonl`, `academic_val.jsonl`, `train-00000-of-00002.parquet`,
`test/algebra/1.json`.
"""

import dataclasses
import functools
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from arkjax.errors import DataError
from arkjax.extras import install
from arkjax.hub import check_reachable
from arkjax.tasks.benchmarks import files

VARIABLE = "ARKJAX_DATASETS"
"""Names a folder that holds a folder for each data set."""

HUB, TFDS = "hf:", "tfds:"
_REPOSITORY = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?", re.ASCII)
_ALIASES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing"),
}
_SHARD = re.compile(r"(?P<stem>.*)-(?P<number>\d{4,})-of-(?P<count>\d{4,})(?P<rest>\..*)$")
_SHOWN = 6

Rows = Iterator[tuple[str, str, Mapping[str, Any]]]
"""File, place and fields of record after record."""


@dataclasses.dataclass(frozen=True)
class Layout:
    """How a data set's files are called.

    Attributes:
      folder: its folder in `ARKJAX_DATASETS`.
      hub: `owner/name[@revision]` on the Hugging Face Hub; empty if it is not there as data files.
      names: for splits whose files are not called by the split's name: words in the names of their
        files, in the order in which the files are read.
      without: words in the names of files, or folders, that are left out where there are others.
      keyed: a JSON object holds records by their keys.
    """

    folder: str
    hub: str = ""
    names: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
    without: Sequence[str] = ()
    keyed: bool = False


def canonical_split(name: str) -> str:
    """What a split is called here, of which `dev` is another name of `validation`, and so on."""
    return next((split for split, words in _ALIASES.items() if name in words), name)


def rows(layout: Layout, task: str, split: str, source: str) -> Rows:
    """The records of a split in order, as they are read; see `Task.load` for `source`.

    Raises:
      DataError: if there is nothing of that split, or it cannot be read or fetched.
    """
    if source.startswith(TFDS):
        yield from _from_tfds(source.removeprefix(TFDS), split)
        return
    for name, fetch in _places(layout, task, split, source):
        for place, record in files.read(fetch(), layout.keyed):
            yield name, place, record


def _places(
    layout: Layout, task: str, split: str, source: str
) -> list[tuple[str, Callable[[], Path]]]:
    """The names of a split's files, and what brings each of them here."""
    if source.startswith(HUB):
        return _of_hub(layout, split, source.removeprefix(HUB))
    if source:
        return _of_path(layout, split, Path(source).expanduser())
    if (root := os.environ.get(VARIABLE)) and (folder := Path(root, layout.folder)).is_dir():
        return _of_path(layout, split, folder)
    ways = (
        f"give a file or folder as source (in a config `config.source`, on the command line "
        f"`--source`), `{HUB}owner/name`, or set {VARIABLE} to a folder that holds "
        f"{layout.folder}/"
    )
    if not layout.hub:
        raise DataError(f"task {task!r}: no data, and it has no home on the Hub: {ways}")
    try:
        return _of_hub(layout, split, layout.hub)
    except DataError as error:
        raise DataError(f"task {task!r}: no data here, and {error}; or {ways}") from error


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z]+|\d+", text.lower())


def _natural(text: str) -> list[tuple[bool, int | str]]:
    """A key by which 2.json comes before 10.json."""
    pieces = re.findall(r"\d+|\D+", text)
    return [(not piece.isdigit(), int(piece) if piece.isdigit() else piece) for piece in pieces]


def chosen(layout: Layout, split: str, names: Sequence[str]) -> list[str]:
    """Those of the relative file names that hold a split, in the order in which they are read.

    Where the same is there in several formats, that is taken which comes first in `SUFFIXES`.

    Raises:
      DataError: if one of several files of a split is missing.
    """
    wanted = tuple(layout.names.get(split, ())) or _ALIASES.get(split, (split,))

    def rank(name: str) -> int:
        words = {*_words(name), *(re.split(r"[^a-z0-9]+", name.lower()))}
        return next((i for i, word in enumerate(wanted) if word in words), len(wanted))

    found = [name for name in names if files.kind(name) and rank(name) < len(wanted)]
    for word in layout.without:
        found = [name for name in found if word not in _words(name)] or found
    kinds = {files.kind(name) for name in found}
    first = next((suffix for suffix in files.SUFFIXES if suffix in kinds), None)
    found = [name for name in found if files.kind(name) == first]
    packed = {name.removesuffix(".gz") for name in found if not name.endswith(".gz")}
    found = [name for name in found if not (name.endswith(".gz") and name[:-3] in packed)]
    _check_shards(found)
    return sorted(found, key=lambda name: (rank(name), _natural(name)))


def _check_shards(names: Sequence[str]) -> None:
    """Half of a split must not pass for the whole."""
    there: dict[tuple[str, str, int], set[int]] = {}
    for name in names:
        if match := _SHARD.match(name):
            key = match["stem"], match["rest"], int(match["count"])
            there.setdefault(key, set()).add(int(match["number"]))
    for (stem, rest, count), numbers in there.items():
        if missing := sorted(set(range(count)) - numbers):
            raise DataError(
                f"{stem}-*{rest}: file {missing[0]} of {count} is missing ({len(missing)} in all): "
                "fetch the data set again"
            )


def _of_path(layout: Layout, split: str, path: Path) -> list[tuple[str, Callable[[], Path]]]:
    if path.is_file():
        if split not in layout.names:
            _refuse_other_split(split, path)
        return [(str(path), lambda: path)]
    if not path.is_dir():
        raise DataError(
            f"source {path}: no such file or folder; of the Hub it would be {HUB}owner/name, "
            f"of TFDS {TFDS}name"
        )
    names = [
        Path(folder, name).relative_to(path).as_posix()
        for folder, _, here in os.walk(path)
        for name in here
        if not name.startswith(".")
    ]
    found = chosen(layout, split, names)
    if not found:
        raise DataError(f"source {path} has no data file of split {split!r}{_there(names)}")
    return [(str(path / name), functools.partial(Path, path, name)) for name in found]


def _refuse_other_split(split: str, path: Path) -> None:
    """A file that calls itself one split is not read as another."""
    named = {s for s, words in _ALIASES.items() if set(words) & set(_words(path.name))}
    if named and split in _ALIASES and split not in named:
        raise DataError(
            f"source {path} is by its name of split {min(named)!r}, and {split!r} is asked for: "
            "give the folder that holds both"
        )


def _there(names: Sequence[str]) -> str:
    data = sorted((name for name in names if files.kind(name)), key=_natural)
    if not data:
        return f": it holds no {', '.join(files.SUFFIXES)}"
    more = f", and {len(data) - _SHOWN:,} more" if len(data) > _SHOWN else ""
    return f": its name must say so; there are {', '.join(data[:_SHOWN])}{more}"


def _of_hub(layout: Layout, split: str, name: str) -> list[tuple[str, Callable[[], Path]]]:
    match = _REPOSITORY.fullmatch(name)
    if match is None:
        raise DataError(f"{HUB}{name} names no data set: expected {HUB}owner/name[@revision]")
    repo, revision = match["repo"], match["revision"]
    try:
        import huggingface_hub
    except ImportError as error:
        raise DataError(
            f"fetching {HUB}{name} needs huggingface_hub: pip install huggingface_hub"
        ) from error
    settings = {"repo_type": "dataset", "revision": revision}
    try:
        check_reachable()
        names = huggingface_hub.HfApi().list_repo_files(repo, **settings)
    except Exception as error:  # Of the network, of its libraries and of the Hub; many kinds.
        try:
            cached = huggingface_hub.snapshot_download(repo, local_files_only=True, **settings)
        except Exception:
            raise _unfetched(repo, revision, error) from error
        return _of_path(layout, split, Path(cached))

    def fetch(file: str) -> Path:
        try:
            return Path(huggingface_hub.hf_hub_download(repo, file, **settings))
        except Exception as error:
            raise _unfetched(repo, revision, error) from error

    found = chosen(layout, split, names)
    if not found:
        raise DataError(f"{HUB}{name} has no data file of split {split!r}{_there(names)}")
    return [(f"{HUB}{name}/{file}", functools.partial(fetch, file)) for file in found]


def _unfetched(repo: str, revision: str | None, error: Exception) -> DataError:
    lines = str(error).strip().splitlines()
    reason = lines[0][:200] if lines else type(error).__name__
    at = f" --revision {revision}" if revision else ""
    return DataError(
        f"data set {repo} cannot be fetched ({type(error).__name__}: {reason}): check its name and "
        f"the network, or run `hf download {repo} --repo-type dataset{at} --local-dir FOLDER` "
        "where there is one, and give the folder as source"
    )


def _from_tfds(name: str, split: str) -> Rows:
    if ":" in name.partition("/")[0]:
        # TFDS would hand it on to libraries that may run code which comes with the data.
        raise DataError(f"{TFDS}{name} is no set of TFDS itself: of the Hub give {HUB}owner/name")
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise DataError(f"{TFDS}{name} needs TensorFlow Datasets: {install('tasks')}") from error
    try:
        builder = tfds.builder(name)
        builder.download_and_prepare()
        known = list(builder.info.splits)
        there = [alias for alias in _ALIASES.get(split, (split,)) if alias in known]
        data = tfds.as_numpy(builder.as_dataset(split=there[0])) if there else ()
    except Exception as error:  # Of TFDS, of the network and of TensorFlow; many kinds.
        lines = str(error).strip().splitlines()
        reason = lines[0][:200] if lines else type(error).__name__
        raise DataError(
            f"{TFDS}{name} cannot be loaded ({type(error).__name__}: {reason}): check the name and "
            "the network, or give a file or folder as source"
        ) from error
    if not there:
        raise DataError(f"{TFDS}{name} has no split {split!r}: it has {', '.join(known)}")
    for number, row in enumerate(data, 1):
        yield f"{TFDS}{name}", f"example {number}", _plain(row)


def _plain(value: Any) -> Any:
    """What TFDS gives, as the text, numbers, lists and mappings of JSON."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if hasattr(value, "to_list"):  # of ragged length
        value = value.to_list()
    elif hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    return [_plain(item) for item in value] if isinstance(value, list) else value
