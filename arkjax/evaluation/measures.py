"""Figures of single answers, in a table that every number of the report can be traced to."""

import dataclasses
import io
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from arkjax.errors import ConfigError, DataError
from arkjax.evaluation.statistics import (
    RESAMPLES,
    PairedRatios,
    exact_interval,
    finite_interval,
)
from arkjax.storage import write_atomic

PERPLEXITY = "perplexity"
JUDGED = "judge_"
"""How the names of measures begin that a judge gives."""

MEANINGS = {
    PERPLEXITY: "exp of minus the mean log-probability of a token of the team's right last-round "
    "messages, read as answers to the bare prompt; lower is better.",
    "right_steps": "Share of all steps of final answers that are right.",
    "steps_verified": "Share of all steps of final answers that follow from what was stated "
    "before, right or wrong.",
    "first_wrong_step": "Mean number of the first wrong step of wrong answers, counted from 1.",
    "sound_answers": "Share of final answers that are right in every step and leave none out.",
    "wrong_starts_corrected": "Of answers with a wrong step before their last, the share that is "
    "right in the end, in one call; mistakes that cancel each other count.",
    "wrong_openings_corrected": "Of debates whose opening was wrong in at least half of its "
    "answers, the share that ends right.",
    "judge_correct": "Share of answers that the judge takes to be right.",
    "judge_agrees": "Share of answers on which judge and grader agree.",
}
# Between 0 and 1, so that an interval is known also where all answers are alike.
_SHARES = {name for name in MEANINGS if name not in (PERPLEXITY, "first_wrong_step")}


@dataclasses.dataclass(frozen=True)
class QualityConfig:
    """What is measured of the reasoning of all systems, beside whether they are right.

    Attributes:
      proxies: whether the steps of answers are checked, where the task's grader can.
      traces: of the team's right messages in each split, whose perplexity is measured under the
        base model and each student; 0: none.
    """

    proxies: bool = True
    traces: int = 200

    def __post_init__(self) -> None:
        if self.traces < 0:
            raise ConfigError(f"traces is {self.traces}: it must be 0 or more")


@dataclasses.dataclass(frozen=True)
class Measured:
    """One measure of one answer.

    Attributes:
      seed, split, system, problem_id: as of `Outcome`.
      measure: what was measured.
      value: the figure; of perplexity minus the mean log-probability of a token, in nats.
      weight: how much it counts: figures of a system are weighted means.
      call_id: the recorded call that it is about, or the judge's own.
    """

    seed: int
    split: str
    system: str
    problem_id: str
    measure: str
    value: float
    weight: float
    call_id: str


_BASE = "base"  # the system from which the others' differences are told
_FIELDS = {field.name: field.type for field in dataclasses.fields(Measured)}


def save_measured(path: Path, rows: Iterable[Measured]) -> None:
    """Write rows as Parquet, in an order of their own. Raises StorageError if that fails."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {int: pa.int64(), float: pa.float64(), str: pa.string()}
    schema = pa.schema([(name, types[kind]) for name, kind in _FIELDS.items()])
    ordered = sorted(rows, key=dataclasses.astuple)
    columns = {name: [getattr(row, name) for row in ordered] for name in _FIELDS}
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns, schema=schema), buffer)
    write_atomic(path, buffer.getvalue())


def load_measured(path: Path) -> list[Measured]:
    """Read what `save_measured` wrote; nothing where there is no such file.

    Raises:
      DataError: if the file is damaged or something else.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    remedy = "pass `--redo evaluate` to make it again"
    if not path.is_file():
        return []
    try:
        table = pq.read_table(io.BytesIO(path.read_bytes()))
    except (OSError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{path}: damaged table of measures ({reason}); {remedy}") from error
    if table.column_names != list(_FIELDS):
        raise DataError(f"{path}: has columns {table.column_names}, not {[*_FIELDS]}; {remedy}")
    return [Measured(**row) for row in table.to_pylist()]


def quality_section(
    rows: Sequence[Measured],
    meanings: dict[str, str] | None = None,
    *,
    resamples: int = RESAMPLES,
) -> dict[str, Any]:
    """Figures of all systems with intervals, as a report holds them.

    One paired bootstrap over problems and seeds serves all figures of a split. An interval is None
    where fewer than two problems tell anything, or where all tell the same of a measure that is no
    share.

    Args:
      rows: of all seeds.
      meanings: of measures beyond `MEANINGS`, by name.
      resamples: draws of the bootstrap.

    Returns:
      {"measures": {NAME: meaning}, "splits": {SPLIT: {SYSTEM: {NAME: figure}}}}; a figure has
      "value", "ci95" and "n" answers, and of all systems but base "minus_base", with a value and an
      interval of its own; the first wrong step has its "distribution".
    """
    known = {**MEANINGS, **(meanings or {})}
    present = {row.measure for row in rows}
    by_split: dict[str, list[Measured]] = defaultdict(list)
    for row in rows:
        by_split[row.split].append(row)
    return {
        "measures": {name: known.get(name, "") for name in [*known, *sorted(present - {*known})]
                     if name in present},
        "splits": {s: _figures(of, resamples) for s, of in sorted(by_split.items())},
    }  # fmt: skip


def _figures(rows: Sequence[Measured], resamples: int) -> dict[str, Any]:
    seeds = {seed: i for i, seed in enumerate(sorted({row.seed for row in rows}))}
    problems = {name: i for i, name in enumerate(sorted({row.problem_id for row in rows}))}
    shape = len(seeds), len(problems)
    cells: dict[tuple[str, str], tuple[np.ndarray, np.ndarray]] = {}
    values: dict[tuple[str, str], list[float]] = defaultdict(list)
    for row in sorted(rows, key=dataclasses.astuple):
        key, at = (row.system, row.measure), (seeds[row.seed], problems[row.problem_id])
        sums, weights = cells.setdefault(key, (np.zeros(shape), np.zeros(shape)))
        sums[at] += row.weight * row.value
        weights[at] += row.weight
        values[key].append(row.value)
    ratios = PairedRatios(cells, resamples=resamples)
    figures: dict[str, Any] = defaultdict(dict)
    for system, measure in cells:
        told = np.count_nonzero(cells[system, measure][1].any(axis=0))
        found = _figure(ratios, system, measure, values, told)
        if found is not None:
            figures[system][measure] = found
    return dict(figures)


def _figure(
    ratios: PairedRatios,
    system: str,
    measure: str,
    values: dict[tuple[str, str], list[float]],
    told: int,
) -> dict[str, Any] | None:
    key, other = (system, measure), (_BASE, measure)
    point = ratios.value(key)
    if point is None:
        return None
    # Of the mean, not of single figures: quantiles do not care (exp is monotone), and the ratio
    # that was resampled is the token-weighted one.
    shown = np.exp if measure == PERPLEXITY else np.asarray
    own = shown(ratios.replicates(key))
    interval = finite_interval(own) if told > 1 else None
    if len(set(values[key])) == 1:
        is_edge = measure in _SHARES and point in (0.0, 1.0)
        interval = exact_interval(point, told) if is_edge else None
    figure: dict[str, Any] = {
        "value": _finite(shown(point)),
        "ci95": _listed(interval),
        "n": len(values[key]),
    }
    if measure == "first_wrong_step":
        counts = sorted(Counter(map(int, values[key])).items())
        figure["distribution"] = {str(step): count for step, count in counts}
    if system != _BASE and other in values and (base := ratios.value(other)) is not None:
        apart = own - shown(ratios.replicates(other))
        figure["minus_base"] = {
            "value": _finite(shown(point) - shown(base)),
            "ci95": _listed(finite_interval(apart) if told > 1 else None),
        }
    return figure


def _finite(value: Any) -> float | None:
    return float(value) if math.isfinite(value) else None


def _listed(interval: tuple[float, float] | None) -> list[float] | None:
    return None if interval is None else list(interval)
