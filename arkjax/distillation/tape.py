"""The tape: a teacher's token distributions on every row, written once and read by index.

Row i of the tape belongs to row i of the rows, and position t holds what the teacher expects
*after* token t, as in `rows.Batch`. What is kept of a position is the tape's format
(`tape_format.TapeFormat`). On the disk:

    meta.json       whose tape it is: hash of the rows, teacher, format, vocabulary
    shard-00000/    the columns of `shard_rows` rows, and their hashes
"""

import contextlib
import dataclasses
import functools
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from arkjax.distillation.arrays import (
    ArrayFile,
    check_arrays,
    open_arrays,
    read_meta,
    seal_arrays,
    write_meta,
)
from arkjax.distillation.rows import Rows, batch
from arkjax.distillation.tape_format import (
    DTYPES,
    KINDS,
    Recorded,
    TapeFormat,
    decode,
    empty_columns,
    encode,
    widened,
)
from arkjax.distillation.targets import HiddenTarget, SampledTarget, TapeTarget
from arkjax.errors import ConfigError, DataError, StaleArtifactError
from arkjax.storage import (
    content_hash,
    remove_leftovers,
    remove_leftovers_of,
    storage_errors,
    write_directory_atomic,
)

# indices [B] -> the target of these rows, of the tape's kind; host or device arrays.
ScoreFn = Callable[[np.ndarray], Recorded]

_REMAKE = "delete it and score the rows again"
_REMAKE_SHARD = "delete this shard and score again: only its rows are scored anew"
# Shards whose files are mapped at once: a process may hold some 65,000 maps on Linux.
_OPEN_SHARDS = 2048


@dataclasses.dataclass(frozen=True, eq=False)
class Tape:
    """An open tape: arrays stay on the disk, and only rows asked for are read.

    Attributes:
      path: its directory.
      meta: `rows` (content hash), `num_rows`, `row_length`, `teacher_id`, `shard_rows`,
        `vocab_size`, and the format: `tape_kind` and what belongs to it. Tapes that were written
        before there were kinds have none, and are of the k most probable tokens.
      shards: the meta of each shard, in order of rows.
    """

    path: Path
    meta: Mapping[str, Any]
    shards: tuple[Mapping[str, Any], ...]

    @classmethod
    def open(cls, path: Path, rows: Rows, *, hashes: bool = True) -> "Tape":
        """Opens a finished tape of these very rows.

        `hashes=False` compares only sizes, so that no array is read: for a tape that was checked
        before, and for the other hosts of a run.

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
        if meta.get("tape_kind", "top_k") not in KINDS:
            raise DataError(
                f"{path} is a tape of kind {meta['tape_kind']!r}, which this version does not "
                "know: use the one that wrote it"
            )
        count = -(-meta["num_rows"] // meta["shard_rows"])
        hashed = content_hash(meta)
        shards = [_check_shard(path, shard, hashed, hashes) for shard in range(count)]
        for name in ("width", "soft_cap"):
            values = {shard.get(name) for shard in shards if shard.get("predicted")}
            if len(values) > 1:
                raise DataError(
                    f"{path} has shards of different teachers ({name} {values}); {_REMAKE}"
                )
        return cls(path, meta, tuple(shards))

    @property
    def kind(self) -> str:
        """ "top_k", "sampled" or "hidden"."""
        return self.meta.get("tape_kind", "top_k")

    @property
    def predicted(self) -> int:
        """Positions that the tape holds: those that predict something and whose gate is open."""
        if "tape_kind" not in self.meta:
            return self.meta["num_rows"] * self.meta["row_length"]
        return sum(shard["predicted"] for shard in self.shards)

    @property
    def bytes_per_token(self) -> float:
        """Bytes of all arrays on the disk for each position that the tape holds."""
        sizes = (
            shard["files"][f"{name}.npy"]["bytes"]
            for shard in self.shards
            for name in shard["arrays"]
        )
        return sum(sizes) / max(1, self.predicted)

    def targets(self, indices: np.ndarray, head: jax.Array | None = None) -> Recorded:
        """The tape of rows `indices [B]`; positions that it does not hold are zeros.

        Args:
          indices: they may repeat.
          head: `[Dt, V]`, the teacher's, which a tape of hidden states needs; else unused.

        Returns:
          A `TapeTarget`, `SampledTarget` or `HiddenTarget` of `[B, T, ...]`, with a `gate` if the
          teacher gave one for any shard.

        Raises:
          ConfigError: there is no head for hidden states, or one of another width.
          DataError: a file of the tape has gone.
        """
        indices = np.asarray(indices)
        if "tape_kind" not in self.meta:
            return self._plain_targets(indices)
        if self.kind == "hidden" and (head is None or head.shape[0] != self._width):
            given = "none" if head is None else f"one {tuple(head.shape)}"
            raise ConfigError(
                f"{self.path} holds hidden states of width {self._width} and needs the teacher's "
                f"head [{self._width}, V], but {given} is given"
            )
        shape = (len(indices), self.meta["row_length"])
        columns = empty_columns(self.meta, shape, self._slots, self._width)
        if self._gated:
            columns["gate"] = np.ones(shape, np.float32)
        for at, (shard, row) in enumerate(self._places(indices)):
            arrays = self._arrays(shard)
            mask = _unpack_mask(arrays["predicted"][row], shape[1])
            if "gate" in arrays:
                columns["gate"][at] = 0
            for name, values in decode(self.meta, arrays, row, self._slots).items():
                columns[name][at, mask] = values
        if self.kind == "hidden":
            # As a live teacher's: the product with the head is made in the dtype of hidden states.
            columns["hidden"] = widened(columns["hidden"], head.dtype)
            return HiddenTarget(**columns, head=head, soft_cap=self._soft_cap)
        made = TapeTarget if self.kind == "top_k" else SampledTarget
        return made(**columns, kd_temperature=self.meta["kd_temperature"])

    def _plain_targets(self, indices: np.ndarray) -> TapeTarget:
        """Of a tape from before there were kinds: `[n, T, ...]` arrays, ids as int32."""
        rows = [(self._arrays(shard), row) for shard, row in self._places(indices)]
        names = ("top_ids", "top_logprobs", "log_tail")
        columns = {name: np.stack([arrays[name][row] for arrays, row in rows]) for name in names}
        columns["top_logprobs"] = columns["top_logprobs"].view(DTYPES[self.meta["dtype"]])
        return TapeTarget(**columns, kd_temperature=self.meta["kd_temperature"])

    def _places(self, indices: np.ndarray) -> list[tuple[int, int]]:
        """Shard and row in it of each index."""
        return [divmod(index, self.meta["shard_rows"]) for index in indices.tolist()]

    @functools.cached_property
    def _arrays(self) -> Callable[[int], Mapping[str, np.ndarray]]:
        """Maps a shard's files when it is first asked for."""

        def arrays(shard: int) -> Mapping[str, np.ndarray]:
            return open_arrays(_shard_path(self.path, shard), self.shards[shard], _REMAKE_SHARD)

        return functools.lru_cache(_OPEN_SHARDS)(arrays)

    @functools.cached_property
    def _slots(self) -> int:
        return max(1, max(shard.get("slots", 0) for shard in self.shards))

    @functools.cached_property
    def _width(self) -> int:
        return max(shard.get("width", 0) for shard in self.shards)

    @functools.cached_property
    def _soft_cap(self) -> float | None:
        return next((s["soft_cap"] for s in self.shards if s.get("predicted")), None)

    @functools.cached_property
    def _gated(self) -> bool:
        return any("gate" in shard["arrays"] for shard in self.shards)


def write_tape(
    path: Path,
    rows: Rows,
    score_fn: ScoreFn,
    tape_format: TapeFormat,
    *,
    teacher_id: str,
    vocab_size: int,
    batch_rows: int,
    shard_rows: int = 1024,
    process_index: int = 0,
    process_count: int = 1,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Writes what is missing of a tape; killed anywhere, the same call goes on.

    No more than two batches are in memory at once.

    Args:
      path: directory of the tape.
      rows: the rows it belongs to.
      score_fn: called with `batch_rows` row indices each time (the last batch of a shard repeats an
        index, so that one shape is compiled); may return device arrays, which are awaited one batch
        late. Only positions of non-zero weight and gate are kept.
      tape_format: what is kept of them; `training.scoring.tape_scorer` makes the score_fn for it.
      teacher_id: which weights and which prompts stand behind score_fn.
      vocab_size: of the teacher, without padding.
      batch_rows: rows in one call of score_fn.
      shard_rows: rows in one shard, the unit of resumption.
      process_index, process_count: this host writes every process_count-th shard.
      progress: called with the number of rows that are new on the tape.

    Raises:
      StaleArtifactError: the directory holds the tape of other rows, or of another teacher.
      DataError: score_fn returned something that is no tape of this format.
      StorageError: the file system refuses.
    """
    path = Path(path)
    meta = {
        "kind": "tape",
        "rows": rows.content_hash,
        "num_rows": rows.num_rows,
        "row_length": rows.row_length,
        "teacher_id": teacher_id,
        "shard_rows": shard_rows,
        **tape_format.meta(vocab_size),
    }
    written = _begin(path, meta)
    hashed = content_hash(written)
    own = range(process_index, -(-rows.num_rows // shard_rows), process_count)
    if process_count == 1:
        remove_leftovers(path)
    else:
        remove_leftovers_of(path, {_shard_path(path, shard).name for shard in own})
    for shard in own:
        indices = np.arange(shard * shard_rows, min((shard + 1) * shard_rows, rows.num_rows))
        place = _shard_path(path, shard)
        if not _is_whole(path, shard, hashed):
            if "tape_kind" not in written:
                raise StaleArtifactError(
                    f"{path} is an unfinished tape of an older format; "
                    "delete it or choose another path"
                )
            with write_directory_atomic(place) as directory:
                names, kept = _write_shard(directory, rows, indices, score_fn, batch_rows, meta)
                seal_arrays(directory, names, {**_shard_meta(shard, hashed), **kept})
        if progress is not None:
            progress(len(indices))


def _begin(path: Path, meta: Mapping[str, Any]) -> dict[str, Any]:
    """The meta that stands on the disk: this one, or that of the same tape in an older format."""
    meta_path = path / "meta.json"
    if not meta_path.exists():
        with storage_errors(path):
            path.mkdir(parents=True, exist_ok=True)
        write_meta(meta_path, meta)
    old = read_meta(meta_path, "tape", _REMAKE)
    older = "tape_kind" not in old and meta["tape_kind"] == "top_k"
    changes = [
        f"{name}: {json.dumps(old.get(name))} -> {json.dumps(meta.get(name))}"
        for name in sorted(meta.keys() | old.keys())
        if old.get(name) != meta.get(name) and not (older and name in ("tape_kind", "id_bits"))
    ]
    if changes:
        raise StaleArtifactError(
            f"{path} holds another tape ({', '.join(changes)}); delete it or choose another path"
        )
    return old


def _write_shard(
    directory: Path,
    rows: Rows,
    indices: np.ndarray,
    score_fn: ScoreFn,
    batch_rows: int,
    meta: Mapping[str, Any],
) -> tuple[list[str], dict[str, Any]]:
    """Scores rows and appends their columns, a batch at a time.

    Returns:
      The names of the arrays, and what the shard's meta keeps.
    """
    files: dict[str, ArrayFile] = {}
    kept: dict[str, Any] = {"predicted": 0}
    draw_start = 0
    with contextlib.ExitStack() as stack:

        def append(name: str, values: np.ndarray) -> None:
            if name not in files:
                files[name] = ArrayFile(directory / f"{name}.npy", values.dtype, values.shape[1:])
                stack.callback(files[name].abandon)
                if name.endswith("starts"):
                    files[name].append(np.zeros(1, values.dtype))
            files[name].append(values)

        for at, target in _one_batch_late(indices, score_fn, batch_rows):
            here = indices[at : at + batch_rows]
            valid = batch(rows, here).weights != 0
            if (target.gate is None) != ("gate" not in files) and at > 0:
                raise DataError("the teacher gave a gate for some batches only")
            gate = None
            if target.gate is not None:
                gate = _gate(np.asarray(target.gate)[: len(here)], valid)
                # Behind a closed gate a target may hold anything, and nobody looks at it.
                valid &= gate != 0
            columns, noted = encode(meta, target, valid)
            if "draw_starts" in columns:
                columns["draw_starts"] += draw_start
                draw_start = int(columns["draw_starts"][-1])
            if gate is not None:
                columns["gate"] = gate[valid]
            columns["predicted"] = np.packbits(valid, axis=-1, bitorder="little")
            columns["starts"] = kept["predicted"] + np.cumsum(valid.sum(-1), dtype=np.int64)
            for name, values in columns.items():
                append(name, values)
            kept["predicted"] = int(columns["starts"][-1])
            kept |= {name: value for name, value in noted.items() if name != "slots"}
            if "slots" in noted:
                kept["slots"] = max(kept.get("slots", 0), noted["slots"])
        for file in files.values():
            file.close()
    return list(files), kept


def _gate(gate: np.ndarray, valid: np.ndarray) -> np.ndarray:
    if gate.shape != valid.shape or not np.isfinite(gate[valid]).all():
        raise DataError(
            f"the teacher's gate is {gate.shape} for {valid.shape} positions, or not finite; "
            "expected [B, T] finite numbers"
        )
    return gate.astype(np.float32)


def _one_batch_late(
    indices: np.ndarray, score_fn: ScoreFn, batch_rows: int
) -> Iterator[tuple[int, Recorded]]:
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


def _unpack_mask(packed: np.ndarray, row_length: int) -> np.ndarray:
    return np.unpackbits(packed, count=row_length, bitorder="little").astype(bool)


def _shard_path(path: Path, shard: int) -> Path:
    return path / f"shard-{shard:05d}"


def _shard_meta(shard: int, hashed: str) -> dict[str, Any]:
    return {"kind": "tape shard", "shard": shard, "tape": hashed}


def _check_shard(path: Path, shard: int, hashed: str, hashes: bool) -> dict[str, Any]:
    """The meta of a whole shard of the tape whose meta has the hash `hashed`."""
    directory = _shard_path(path, shard)
    found = check_arrays(directory, "tape shard", _REMAKE_SHARD, hashes=hashes)
    if any(found.get(name) != value for name, value in _shard_meta(shard, hashed).items()):
        raise DataError(f"{directory} belongs to another tape; {_REMAKE_SHARD}")
    return found


def _is_whole(path: Path, shard: int, hashed: str) -> bool:
    try:
        _check_shard(path, shard, hashed, hashes=True)
    except DataError:
        return False
    return True
