"""The tape: a teacher's token distributions on every row, written once and read by index.

Row i of the tape belongs to row i of the rows, and position t holds what the teacher expects
*after* token t, as in `rows.Batch`. Each position keeps the k most probable tokens and the mass of
all others, so that the divergence of the coarsened distributions is exact (`divergences.coarsen`).
On the disk:

    meta.json       whose tape it is: hash of the rows, teacher, k, temperature, vocabulary
    shard-00000/    top_ids, top_logprobs, log_tail of `shard_rows` rows, and their hashes
"""

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from arkjax.distillation.arrays import load_arrays, read_meta, save_arrays, write_meta
from arkjax.distillation.rows import Rows, batch
from arkjax.distillation.targets import TapeTarget
from arkjax.errors import ConfigError, DataError, StaleArtifactError
from arkjax.storage import (
    content_hash,
    remove_leftovers,
    storage_errors,
    write_directory_atomic,
)

# indices [B] -> top_ids [B, T, k], top_logprobs [B, T, k], log_tail [B, T]; host or device arrays.
ScoreFn = Callable[[np.ndarray], tuple[Any, Any, Any]]

_DTYPES = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16, "float32": np.float32}
_REMAKE = "delete it and score the rows again"
_REMAKE_SHARD = "delete this shard and score again: only its rows are scored anew"


@dataclasses.dataclass(frozen=True, eq=False)
class Tape:
    """An open tape: arrays stay on the disk.

    Attributes:
      meta: `rows` (content hash), `num_rows`, `row_length`, `teacher_id`, `k`, `kd_temperature`,
        `vocab_size`, `dtype`, `shard_rows`.
      shards: the arrays of each shard, in order of rows.
    """

    meta: Mapping[str, Any]
    shards: tuple[Mapping[str, np.ndarray], ...]

    @classmethod
    def open(cls, path: Path, rows: Rows, *, hashes: bool = True) -> "Tape":
        """Opens a finished tape of these very rows.

        `hashes=False` compares only sizes: for the other hosts of a run that has checked once.

        Raises:
          DataError: the tape is of other rows, unfinished, or damaged; names the shard.
        """
        path = Path(path)
        meta = read_meta(path / "meta.json", "tape", _REMAKE)
        if meta["rows"] != rows.content_hash:
            raise DataError(
                f"{path} was written for other rows (hash {meta['rows'][:12]}, these have "
                f"{rows.content_hash[:12]}); {_REMAKE}"
            )
        count = -(-meta["num_rows"] // meta["shard_rows"])
        shards = [_read_shard(path, shard, meta, hashes) for shard in range(count)]
        return cls(meta, tuple(shards))

    @property
    def bytes_per_token(self) -> int:
        """Bytes on the disk for each position of a row."""
        k, width = self.meta["k"], np.dtype(_DTYPES[self.meta["dtype"]]).itemsize
        return k * (4 + width) + 4

    def targets(self, indices: np.ndarray) -> TapeTarget:
        """The tape of rows `indices [B]`: arrays `[B, T, k]`, `[B, T, k]` and `[B, T]`."""
        shard_of, within = np.divmod(np.asarray(indices), self.meta["shard_rows"])
        columns = {}
        for name, example in self.shards[0].items():
            column = np.empty((len(shard_of), *example.shape[1:]), example.dtype)
            for shard in np.unique(shard_of):
                here = shard_of == shard
                column[here] = self.shards[shard][name][within[here]]
            columns[name] = column
        columns["top_logprobs"] = columns["top_logprobs"].view(_DTYPES[self.meta["dtype"]])
        return TapeTarget(**columns, kd_temperature=self.meta["kd_temperature"])


def write_tape(
    path: Path,
    rows: Rows,
    score_fn: ScoreFn,
    *,
    teacher_id: str,
    k: int,
    vocab_size: int,
    batch_rows: int,
    kd_temperature: float = 1.0,
    dtype: str = "float16",
    shard_rows: int = 1024,
    process_index: int = 0,
    process_count: int = 1,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Writes what is missing of a tape; killed anywhere, the same call goes on.

    Args:
      path: directory of the tape.
      rows: the rows it belongs to.
      score_fn: called with `batch_rows` row indices each time (the last batch of a shard repeats an
        index, so that one shape is compiled); may return device arrays, which are awaited one batch
        late. Only positions of non-zero weight are kept, the others hold zeros.
      teacher_id: which weights and which prompts stand behind score_fn.
      k: tokens kept at each position.
      vocab_size: of the teacher, without padding.
      batch_rows: rows in one call of score_fn.
      kd_temperature: at which score_fn's probabilities were taken.
      dtype: of the log-probabilities: float16 (error below .004 nat down to p = 3e-4), bfloat16
        or float32.
      shard_rows: rows in one shard, the unit of resumption.
      process_index, process_count: this host writes every process_count-th shard.
      progress: called with the number of rows that are new on the tape.

    Raises:
      StaleArtifactError: the directory holds the tape of other rows, or of another teacher.
      DataError: score_fn returned something that is no tape.
      StorageError: the file system refuses.
    """
    path = Path(path)
    if dtype not in _DTYPES:
        raise ConfigError(f"tape dtype is {dtype!r}; expected one of {', '.join(_DTYPES)}")
    if not 0 < k <= vocab_size:
        raise ConfigError(f"tape k is {k}; expected 1 to the vocabulary's {vocab_size} tokens")
    meta = {
        "kind": "tape",
        "rows": rows.content_hash,
        "num_rows": rows.num_rows,
        "row_length": rows.row_length,
        "teacher_id": teacher_id,
        "k": k,
        "kd_temperature": float(kd_temperature),
        "vocab_size": vocab_size,
        "dtype": dtype,
        "shard_rows": shard_rows,
    }
    _begin(path, meta)
    if process_count == 1:
        remove_leftovers(path)
    for shard in range(process_index, -(-rows.num_rows // shard_rows), process_count):
        indices = np.arange(shard * shard_rows, min((shard + 1) * shard_rows, rows.num_rows))
        if not _is_whole(path, shard, meta):
            arrays = _score(rows, indices, score_fn, batch_rows, meta)
            with write_directory_atomic(_shard_path(path, shard)) as directory:
                save_arrays(directory, arrays, _shard_meta(shard, meta))
        if progress is not None:
            progress(len(indices))


def _begin(path: Path, meta: Mapping[str, Any]) -> None:
    meta_path = path / "meta.json"
    if not meta_path.exists():
        with storage_errors(path):
            path.mkdir(parents=True, exist_ok=True)
        write_meta(meta_path, meta)
    old = read_meta(meta_path, "tape", _REMAKE)
    changes = [
        f"{name}: {json.dumps(old.get(name))} -> {json.dumps(value)}"
        for name, value in meta.items()
        if old.get(name) != value
    ]
    if changes:
        raise StaleArtifactError(
            f"{path} holds another tape ({', '.join(changes)}); delete it or choose another path"
        )


def _score(
    rows: Rows, indices: np.ndarray, score_fn: ScoreFn, batch_rows: int, meta: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    shape, k = (len(indices), meta["row_length"]), meta["k"]
    store = np.dtype(_DTYPES[meta["dtype"]])
    # NumPy files know no bfloat16: its bits are stored.
    bits = np.uint16 if meta["dtype"] == "bfloat16" else store
    top_ids = np.zeros((*shape, k), np.int32)
    top_logprobs = np.zeros((*shape, k), bits)
    log_tail = np.zeros(shape, np.float32)
    for at, scores in _one_batch_late(indices, score_fn, batch_rows):
        here = slice(at, min(at + batch_rows, len(indices)))
        count = here.stop - here.start
        valid = batch(rows, indices[here]).weights != 0
        ids, logprobs, tail = (np.asarray(x)[:count] for x in scores)
        _check(ids, logprobs, tail, valid, meta)
        lowest = float(ml_dtypes.finfo(store).min)
        logprobs = np.maximum(logprobs.astype(np.float32), lowest).astype(store).view(bits)
        top_ids[here] = np.where(valid[..., None], ids, 0)
        top_logprobs[here] = np.where(valid[..., None], logprobs, np.zeros((), bits))
        log_tail[here] = np.where(valid, tail, 0.0)
    return {"top_ids": top_ids, "top_logprobs": top_logprobs, "log_tail": log_tail}


def _one_batch_late(
    indices: np.ndarray, score_fn: ScoreFn, batch_rows: int
) -> Iterator[tuple[int, tuple[Any, Any, Any]]]:
    """Scores batch t + 1 before batch t is read, so that the device never waits for the host."""
    waiting = None
    for at in range(0, len(indices), batch_rows):
        chosen = indices[np.minimum(np.arange(at, at + batch_rows), len(indices) - 1)]
        started = at, score_fn(chosen)
        if waiting is not None:
            yield waiting
        waiting = started
    if waiting is not None:
        yield waiting


def _check(ids, logprobs, tail, valid: np.ndarray, meta: Mapping[str, Any]) -> None:
    shape, k = valid.shape, meta["k"]
    if ids.shape != (*shape, k) or logprobs.shape != (*shape, k) or tail.shape != shape:
        raise DataError(
            f"the teacher returned {ids.shape}, {logprobs.shape} and {tail.shape} for {shape} "
            f"positions and k = {k}; expected [B, T, k], [B, T, k] and [B, T]"
        )
    if ids[valid].size and not (0 <= ids[valid].min() and ids[valid].max() < meta["vocab_size"]):
        raise DataError(f"the teacher returned token ids outside 0 to {meta['vocab_size'] - 1}")
    mass = np.exp(logprobs[valid].astype(np.float64)).sum(-1) + np.exp(tail[valid], dtype=float)
    if not np.all(np.abs(mass - 1.0) < 0.05):
        raise DataError(
            f"the teacher's probabilities sum to {mass[np.argmax(np.abs(mass - 1.0))]:.3g}, not 1: "
            "its weights may be damaged, or its vocabulary padded"
        )


def _shard_path(path: Path, shard: int) -> Path:
    return path / f"shard-{shard:05d}"


def _shard_meta(shard: int, meta: Mapping[str, Any]) -> dict[str, Any]:
    return {"kind": "tape shard", "shard": shard, "tape": content_hash(meta)}


def _read_shard(
    path: Path, shard: int, meta: Mapping[str, Any], hashes: bool
) -> dict[str, np.ndarray]:
    directory = _shard_path(path, shard)
    arrays, found = load_arrays(directory, "tape shard", _REMAKE_SHARD, hashes=hashes)
    if any(found.get(name) != value for name, value in _shard_meta(shard, meta).items()):
        raise DataError(f"{directory} belongs to another tape; {_REMAKE_SHARD}")
    return arrays


def _is_whole(path: Path, shard: int, meta: Mapping[str, Any]) -> bool:
    try:
        _read_shard(path, shard, meta, hashes=True)
    except DataError:
        return False
    return True
