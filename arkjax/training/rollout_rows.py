"""Roll-outs in rows: every step of a training has batches of one shape, whatever was answered."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from arkjax.distillation.rows import Rows, pack
from arkjax.errors import ConfigError, DataError
from arkjax.sharding import BATCH_AXES, batch_sharding
from arkjax.synthesis.examples import Example
from arkjax.training.rollouts import Answer, RolloutConfig


def example_of(answer: Answer, weight: float = 1.0) -> Example:
    """An answer as what is packed into rows: every one of its tokens is a target."""
    about = {"kind": "rollout", "problem": answer.problem, "sample": answer.sample}
    return Example(answer.prompt_ids, answer.ids, weight, about)


def rows_needed(count: int, longest: int, row_length: int, multiple_of: int = 1) -> int:
    """Rows into which any `count` examples of at most `longest` tokens can be packed.

    Best-fit opens a row only for an example that fits into no other; so all rows but one hold at
    least floor(row_length / longest) of them.
    """
    rows = -(-count // (row_length // longest))
    return -(-rows // multiple_of) * multiple_of


def pack_fixed(examples: Sequence[Example], row_length: int, num_rows: int) -> Rows:
    """`rows.pack` into a fixed number of rows, the last of them empty: every step has one shape.

    Raises:
      DataError: more rows are needed, or as `rows.pack`.
    """
    packed = pack(examples, row_length)
    empty = num_rows - packed.num_rows
    if empty < 0:
        raise DataError(
            f"the step's {len(examples)} answers need {packed.num_rows} rows of {row_length} "
            f"tokens, rollouts.rows is {num_rows}: raise it, or set it to 0, which is always enough"
        )
    below = ((0, empty), (0, 0))
    return dataclasses.replace(
        packed,
        tokens=np.pad(packed.tokens, below),
        segment_ids=np.pad(packed.segment_ids, below),
        positions=np.pad(packed.positions, below),
        loss_weights=np.pad(packed.loss_weights, below),
        example_ids=np.pad(packed.example_ids, below, constant_values=-1),
    )


def at_targets(
    rows: Rows,
    values: Sequence[Sequence[float] | float],
    fill: float = 0,
    dtype: type = np.float32,
) -> np.ndarray:
    """Numbers of each example's target tokens, where these are predicted: `[N, T]`.

    Args:
      rows: packed examples.
      values: for each example one number, or one for each of its target tokens.
      fill: everywhere else.
      dtype: of the result.
    """
    spread = np.full(rows.tokens.shape, fill, dtype)
    for at, own in zip(rows.placements, values, strict=True):
        first = at.target_start - 1
        spread[at.row, first : first + at.target_length] = own
    return spread


def num_rows(config: RolloutConfig, count: int, longest: int, mesh: Mesh) -> int:
    """B of every step: `config.rows`, or what is always enough.

    Args:
      config: says how many, or leaves it open.
      count: examples of a step.
      longest: tokens that the longest example can have.
      mesh: over whose data and fsdp axes the rows are spread.

    Raises:
      ConfigError: if a given number cannot be spread over the mesh.
    """
    spread = math.prod(mesh.shape[axis] for axis in BATCH_AXES)
    for name in ("rows", "micro_rows"):
        if getattr(config, name) % spread:
            raise ConfigError(
                f"rollouts.{name} is {getattr(config, name)}: it must be a multiple of the "
                f"{spread} devices along data and fsdp"
            )
    if config.rows:
        return config.rows
    rows = rows_needed(count, longest, config.row_length, spread)
    if not 0 < config.micro_rows < rows:
        return rows
    return -(-rows // config.micro_rows) * config.micro_rows


def placed(by_row: Any, measured: dict[str, float], mesh: Mesh) -> tuple[Any, Any]:
    """Arrays `[B, T]` spread over the mesh, and what to log as scalars that a step can return."""
    scalars = {name: np.float32(value) for name, value in measured.items()}
    return (
        jax.device_put(by_row, batch_sharding(mesh)),
        jax.device_put(scalars, NamedSharding(mesh, PartitionSpec())),
    )
