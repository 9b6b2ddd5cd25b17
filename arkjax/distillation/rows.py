"""Training examples packed into rows of one length, stored as arrays and read by index.

Several examples share a row, apart by segment ids; positions start anew in each. What a step trains
on is a pure function of its number (`order`), so that a resumed run, on any number of hosts, sees
what an unbroken one would have seen.
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from arkjax.distillation.arrays import load_arrays, save_arrays
from arkjax.errors import DataError
from arkjax.storage import write_directory_atomic
from arkjax.synthesis.examples import Example

_ARRAYS = ("tokens", "segment_ids", "positions", "loss_weights", "example_ids")
_REMEDY = "delete the directory and run the stage that makes the rows again"


class Batch(NamedTuple):
    """Rows as a training step takes them, `[B, T]`: position t predicts `targets[t]`.

    `tokens, segment_ids, positions` int32 are the model's inputs; `targets` int32 are the tokens
    shifted left by one, `weights` float32 their loss weights: 0 for prompts, padding, the last
    position, and wherever the next token belongs to another example.
    """

    tokens: np.ndarray
    segment_ids: np.ndarray
    positions: np.ndarray
    targets: np.ndarray
    weights: np.ndarray


@dataclasses.dataclass(frozen=True)
class Placement:
    """Where an example lies: `tokens[row, start : start + prompt_length + target_length]`."""

    row: int
    start: int
    prompt_length: int
    target_length: int
    weight: float
    provenance: Mapping[str, Any]

    @property
    def target_start(self) -> int:
        """Column of the first target token; the position before it predicts it."""
        return self.start + self.prompt_length


@dataclasses.dataclass(frozen=True, eq=False)
class Rows:
    """Packed examples: N rows of T tokens; arrays may be memory-mapped.

    Attributes:
      tokens: `[N, T]` int32, 0 in padding.
      segment_ids: `[N, T]` int32, from 1 in each row; 0 is padding.
      positions: `[N, T]` int32, from 0 in each segment.
      loss_weights: `[N, T]` float32, the weight of `tokens[n, t]` as a target; 0 in prompts.
      example_ids: `[N, T]` int32, index into placements; -1 is padding.
      placements: one an example, in the order the examples were given.
    """

    tokens: np.ndarray
    segment_ids: np.ndarray
    positions: np.ndarray
    loss_weights: np.ndarray
    example_ids: np.ndarray
    placements: tuple[Placement, ...]

    @property
    def num_rows(self) -> int:
        """N."""
        return self.tokens.shape[0]

    @property
    def row_length(self) -> int:
        """T."""
        return self.tokens.shape[1]

    @functools.cached_property
    def content_hash(self) -> str:
        """SHA-256 of all arrays: what a tape is bound to. Provenance has no part in it."""
        digest = hashlib.sha256()
        for name in _ARRAYS:
            array = np.ascontiguousarray(getattr(self, name))
            digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
            digest.update(array.data)
        return digest.hexdigest()

    def example(self, index: int) -> Example:
        """The example as it was packed."""
        at = self.placements[index]
        prompt = self.tokens[at.row, at.start : at.target_start]
        target = self.tokens[at.row, at.target_start : at.target_start + at.target_length]
        weights = self.loss_weights[at.row, at.target_start : at.target_start + at.target_length]
        shares = None if at.weight == 0 else tuple((weights / np.float32(at.weight)).tolist())
        if shares is not None and all(share == 1.0 for share in shares):
            shares = None
        return Example(
            tuple(prompt.tolist()), tuple(target.tolist()), at.weight, at.provenance, shares
        )

    def save(self, path: Path) -> None:
        """Writes a directory of arrays, `examples.jsonl` and `meta.json`, all of it or nothing.

        Raises:
          StorageError: the file system refuses.
        """
        with write_directory_atomic(path) as directory:
            with open(directory / "examples.jsonl", "w", encoding="utf-8") as lines:
                for placement in self.placements:
                    lines.write(json.dumps(dataclasses.asdict(placement), sort_keys=True) + "\n")
            meta = {
                "kind": "set of rows",
                "num_rows": self.num_rows,
                "row_length": self.row_length,
                "content_hash": self.content_hash,
            }
            save_arrays(directory, {name: getattr(self, name) for name in _ARRAYS}, meta)

    @classmethod
    def load(cls, path: Path) -> "Rows":
        """Opens what `save` wrote; the arrays stay on the disk.

        Raises:
          DataError: something is missing or not what was written; names the file.
        """
        path = Path(path)
        arrays, meta = load_arrays(path, "set of rows", _REMEDY)
        try:
            with open(path / "examples.jsonl", encoding="utf-8") as lines:
                placements = tuple(Placement(**json.loads(line)) for line in lines)
            rows = cls(**arrays, placements=placements)
            # The files were just verified, which saves reading the arrays once more.
            rows.__dict__["content_hash"] = meta["content_hash"]
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{path} does not hold rows ({error}); {_REMEDY}") from error
        return rows


def pack(examples: Sequence[Example], row_length: int) -> Rows:
    """Packs examples into as few rows as best-fit-decreasing finds; the same input, the same rows.

    Raises:
      DataError: no examples; an empty prompt or target; an example longer than a row; a weight
        that is no number.
    """
    if not examples:
        raise DataError(
            "there are no examples to pack: nothing passed the selection; "
            "sample more problems or relax the strategy's filters"
        )
    lengths = [_length(example, index, row_length) for index, example in enumerate(examples)]
    starts, num_rows = best_fit(lengths, row_length)
    return _fill(examples, starts, num_rows, row_length)


def one_a_row(examples: Sequence[Example], row_length: int, num_rows: int) -> Rows:
    """Each example in a row of its own, in order; rows behind the last are empty.

    For what was just sampled: the shape does not depend on how long the answers are.

    Raises:
      DataError: as `pack`, or there are more examples than rows.
    """
    if len(examples) > num_rows:
        raise DataError(f"{len(examples)} examples do not go into {num_rows} rows, one into each")
    for index, example in enumerate(examples):
        _length(example, index, row_length)
    starts = [(row, 0) for row in range(len(examples))]
    return _fill(examples, starts, num_rows, row_length)


def best_fit(lengths: Sequence[int], row_length: int) -> tuple[list[tuple[int, int]], int]:
    """Where stretches of these lengths lie, the longest first, each in the fullest row it fits in.

    Args:
      lengths: in tokens, from 1 to row_length.
      row_length: T.

    Returns:
      Row and first column of each, and the number of rows.
    """
    starts: list[tuple[int, int]] = [(0, 0)] * len(lengths)
    # open_rows[c] holds rows with c free tokens; bit c of `free` says whether there are any.
    open_rows: list[list[int]] = [[] for _ in range(row_length + 1)]
    free = 0
    num_rows = 0
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        fitting = free >> lengths[index] << lengths[index]
        if fitting:
            capacity = (fitting & -fitting).bit_length() - 1
            row = open_rows[capacity].pop()
            if not open_rows[capacity]:
                free &= ~(1 << capacity)
        else:
            capacity, row = row_length, num_rows
            num_rows += 1
        starts[index] = (row, row_length - capacity)
        capacity -= lengths[index]
        open_rows[capacity].append(row)
        free |= 1 << capacity
    return starts, num_rows


def batch(rows: Rows, indices: np.ndarray) -> Batch:
    """The rows `indices [B]`, inputs and targets; an index may repeat."""
    indices = np.asarray(indices)
    tokens, segments = np.asarray(rows.tokens[indices]), np.asarray(rows.segment_ids[indices])
    weights = np.zeros(tokens.shape, np.float32)
    same_example = segments[:, 1:] == segments[:, :-1]
    weights[:, :-1] = np.where(same_example, rows.loss_weights[indices][:, 1:], 0.0)
    targets = np.zeros_like(tokens)
    targets[:, :-1] = tokens[:, 1:]
    return Batch(tokens, segments, np.asarray(rows.positions[indices]), targets, weights)


def order(num_rows: int, batch_size: int, seed: int, step: int) -> np.ndarray:
    """Row indices `[batch_size]` of a step: every row once an epoch, shuffled anew in each.

    The steps read one endless sequence of epochs, so a batch that an epoch cannot fill goes on with
    the next one.
    """
    place = np.arange(batch_size, dtype=np.int64) + step * batch_size
    epochs = place // num_rows
    indices = np.empty(batch_size, np.int64)
    for epoch in np.unique(epochs):
        here = epochs == epoch
        indices[here] = _permutation(num_rows, seed, int(epoch))[place[here] % num_rows]
    return indices


@functools.lru_cache(maxsize=2)
def _permutation(num_rows: int, seed: int, epoch: int) -> np.ndarray:
    # NumPy promises this old generator's stream for ever; the new ones' shuffle may change.
    bits = np.random.MT19937(np.random.SeedSequence([seed, epoch]))
    return np.random.RandomState(bits).permutation(num_rows)


def _length(example: Example, index: int, row_length: int) -> int:
    prompt, target = len(example.prompt_ids), len(example.target_ids)
    name = f"example {index} (problem {example.provenance.get('problem_id', 'unknown')})"
    if not prompt or not target:
        empty = "target" if prompt else "prompt, so that nothing predicts its first target token"
        raise DataError(f"{name} has an empty {empty}; drop it")
    if example.target_weights is not None and len(example.target_weights) != target:
        raise DataError(
            f"{name} has {target} target tokens, but {len(example.target_weights)} weights for them"
        )
    if not np.isfinite(example.weight):
        raise DataError(f"{name} has weight {example.weight}; expected a finite number")
    if prompt + target > row_length:
        raise DataError(
            f"{name} has {prompt} prompt and {target} target tokens, together {prompt + target}, "
            f"but a row holds {row_length}; raise the row length or drop long examples"
        )
    return prompt + target


def _fill(
    examples: Sequence[Example], starts: list[tuple[int, int]], num_rows: int, row_length: int
) -> Rows:
    shape = (num_rows, row_length)
    tokens, positions = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    segment_ids, example_ids = np.zeros(shape, np.int32), np.full(shape, -1, np.int32)
    loss_weights = np.zeros(shape, np.float32)
    placements: list[Placement | None] = [None] * len(examples)
    segments = np.zeros(num_rows, np.int32)
    # By row and column, so that segment ids rise from left to right.
    for index in sorted(range(len(examples)), key=starts.__getitem__):
        example, (row, start) = examples[index], starts[index]
        prompt, target = len(example.prompt_ids), len(example.target_ids)
        end = start + prompt + target
        segments[row] += 1
        tokens[row, start : start + prompt] = example.prompt_ids
        tokens[row, start + prompt : end] = example.target_ids
        segment_ids[row, start:end] = segments[row]
        positions[row, start:end] = np.arange(end - start)
        shares = 1.0 if example.target_weights is None else example.target_weights
        loss_weights[row, start + prompt : end] = np.multiply(example.weight, shares)
        example_ids[row, start:end] = index
        placements[index] = Placement(
            row, start, prompt, target, float(example.weight), dict(example.provenance)
        )
    return Rows(tokens, segment_ids, positions, loss_weights, example_ids, tuple(placements))
