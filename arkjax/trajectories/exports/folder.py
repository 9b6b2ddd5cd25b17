"""The folder of an export: whole or absent, and never in place of something else."""

import dataclasses
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from arkjax.errors import ConfigError, DataError
from arkjax.progress import Progress
from arkjax.storage import write_directory_atomic
from arkjax.trajectories.schema import Call, from_table
from arkjax.trajectories.store import CallStore
from arkjax.trajectories.transcript import Decoder

MARK = "arkjax_export.json"
"""The file that tells an export from a folder of somebody's own."""
_SPELLED = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff]")


@dataclasses.dataclass(frozen=True)
class Selection:
    """Which calls are exported.

    Attributes:
      system: only those of this team; of all if None.
      only_correct: only those that were graded right.
      content: whether spans hold the words of prompts and answers.
    """

    system: str | None = None
    only_correct: bool = False
    content: bool = False

    def tables(self, store: CallStore) -> Iterator[pa.Table]:
        """The chosen calls, shard by shard, each once; shards without any are left out."""
        for table in store.unique_tables():
            mask = np.ones(len(table), bool)
            if self.system is not None:
                mask &= pc.equal(table["system"], self.system).to_numpy()
            if self.only_correct:
                mask &= pc.fill_null(table["correct"], False).to_numpy()
            if mask.any():
                yield table.filter(pa.array(mask))

    def calls(self, store: CallStore) -> Iterator[Call]:
        """The chosen calls."""
        for table in self.tables(store):
            yield from from_table(table)


class Writer(Protocol):
    """Writes one format into an empty folder."""

    def __call__(
        self,
        store: CallStore,
        selection: Selection,
        folder: Path,
        tokenizer: Decoder | None,
        advance: Callable[[int], None],
    ) -> int:
        """Write the chosen calls; returns how many records were written.

        `advance` is told of them as they are.
        """


def export(
    store: CallStore,
    name: str,
    writer: Writer,
    out: Path,
    selection: Selection,
    *,
    tokenizer: Decoder | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> int:
    """Export a store; returns the number of records in the folder.

    The folder appears when all of it is on the disk, with a file `arkjax_export.json` that says
    what it was made from.

    Args:
      store: the calls.
      name: of the format.
      writer: of the format.
      out: the folder to be made.
      selection: which calls.
      tokenizer: turns prompts into text; formats that can do without leave their text out.
      overwrite: replace an export that stands there; never anything else.
      progress: shows records, rate and remaining time.

    Raises:
      ConfigError: if something stands at `out`, or the format needs what was not given.
      DataError: if a shard is damaged, or no call is chosen.
      StorageError: if `out` cannot be written.
    """
    progress = progress or Progress(enabled=False)
    _check_out(out, overwrite)
    with (
        write_directory_atomic(out) as folder,
        progress.task(f"export {name}", unit="calls", total=len(store)) as task,
    ):
        written = writer(store, selection, folder, tokenizer, task.advance)
        task.total = task.done  # Without those that were not chosen.
        if not written:
            raise DataError(
                f"{store.directory} has no calls that are chosen ({_chosen(selection)}): "
                f"its systems are {', '.join(sorted(store.systems()))}"
            )
        facts = {
            "what": "arkjax export",
            "format": name,
            "store": str(store.directory.resolve()),
            "records": written,
            **dataclasses.asdict(selection),
        }
        (folder / MARK).write_text(json.dumps(facts, indent=1, sort_keys=True) + "\n")
    return written


def json_line(value: Any) -> str:
    """A value as one line of JSON, for files of lines.

    Lone surrogates, which no UTF-8 file can hold, and characters that some readers take for the end
    of a line are spelled with escapes; all others stay readable.
    """
    text = json.dumps(value, ensure_ascii=False)
    return _SPELLED.sub(lambda match: f"\\u{ord(match[0]):04x}", text) + "\n"


def _chosen(selection: Selection) -> str:
    parts = [f"--system {selection.system}"] if selection.system is not None else []
    parts += ["--only-correct"] if selection.only_correct else []
    return " ".join(parts) or "it is empty"


def _check_out(out: Path, overwrite: bool) -> None:
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not (out / MARK).is_file():
        raise ConfigError(f"{out} is there already and no export: choose another --out")
    if not overwrite:
        raise ConfigError(
            f"{out} holds an export already: choose another --out, or replace it with --overwrite"
        )
