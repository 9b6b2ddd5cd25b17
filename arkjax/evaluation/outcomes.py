"""The outcome table: what each system answered to each problem, and what the answer cost."""

import dataclasses
import io
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from arkjax.errors import DataError
from arkjax.storage import write_atomic


@dataclasses.dataclass(frozen=True)
class Outcome:
    """One system's answer to one problem in one run.

    Attributes:
      seed: the run's seed.
      split: e.g. "test" or "ood".
      system: what answered, e.g. "base", "team", "student_da", "control_no_debate".
      problem_id: `Problem.id`.
      part: part of the split that the problem belongs to (`Problem.meta["part"]`), or "".
      domain: `Problem.domain`.
      correct: the grader's verdict.
      answer: the extracted answer, "" when there was none.
      calls: generations that the answer took.
      prompt_tokens: tokens read over all calls, shared prefixes counted once for each call.
      generated_tokens: tokens written over all calls.
      seconds: wall time over all calls, of the generator: all its devices work in it together.
      difficulty: how hard the problem is said to be (`Problem.meta["difficulty"]`), or "".
      in_pool: whether the right answer was there to be chosen: some message states it.
      opening_correct: whether the team would have been right without talking, see
        `arkjax.teams.opening.opening_answer`; where nobody talks the same as `correct`.
      confidence: how sure the system is of its answer, in [0, 1], see `arkjax.teams.confidence`;
        NaN where that is not known.
      rounds: how many stages of its schedule the system played.
    """

    seed: int
    split: str
    system: str
    problem_id: str
    part: str
    domain: str
    correct: bool
    answer: str
    calls: int
    prompt_tokens: int
    generated_tokens: int
    seconds: float
    difficulty: str
    in_pool: bool
    opening_correct: bool
    confidence: float
    rounds: int


FIELDS = tuple(field.name for field in dataclasses.fields(Outcome))
_KINDS = {field.name: field.type for field in dataclasses.fields(Outcome)}
_DTYPES = {int: np.int64, float: np.float64, bool: np.bool_, str: np.str_}


def _column(name: str, values: Sequence[Any]) -> np.ndarray:
    if name == "answer":
        # Free text of any length: in a fixed-width array the longest would set the memory.
        column = np.empty(len(values), dtype=object)
        column[:] = ["" if value is None else str(value) for value in values]
        return column
    kind = _KINDS[name]
    for row, value in enumerate(values):
        numpy_kind = {int: np.integer, float: (np.floating, np.integer), bool: np.bool_, str: str}
        accepted = (kind, int) if kind is float else kind
        if not isinstance(value, accepted) and not isinstance(value, numpy_kind[kind]):
            raise DataError(
                f"outcome {row}, field {name!r} is {value!r}: expected {kind.__name__}; "
                "the system that made this record must be mended"
            )
    return np.array(values, dtype=_DTYPES[kind])


@dataclasses.dataclass(frozen=True)
class Outcomes:
    """The outcome table as columns: one array [N] for each field of `Outcome`.

    `columns` maps field names to arrays of equal length; rows keep the order they came in.
    """

    columns: Mapping[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.columns["seed"])

    def __getitem__(self, name: str) -> np.ndarray:
        """The column `name` [N]."""
        return self.columns[name]

    @classmethod
    def from_records(cls, records: Iterable[Outcome | Mapping[str, Any]]) -> "Outcomes":
        """Build the table from outcomes or from mappings with the same fields.

        Raises:
          DataError: if a record lacks a field, has one too many, or has a value of another type.
        """
        rows = [vars(record) if isinstance(record, Outcome) else record for record in records]
        for number, row in enumerate(rows):
            if set(row) != set(FIELDS):
                lacking = sorted(set(FIELDS) - set(row))
                unknown = sorted(set(row) - set(FIELDS))
                raise DataError(
                    f"outcome {number}: missing fields {lacking}, unknown fields {unknown}; "
                    f"expected exactly {list(FIELDS)}"
                )
        return cls({name: _column(name, [row[name] for row in rows]) for name in FIELDS})

    @classmethod
    def concatenate(cls, tables: Sequence["Outcomes"]) -> "Outcomes":
        """One table with the rows of all `tables`, in order."""
        if not tables:
            return cls.from_records([])
        return cls({name: np.concatenate([table[name] for table in tables]) for name in FIELDS})

    def without(self, systems: Collection[str]) -> "Outcomes":
        """The rows of all other systems, in order."""
        kept = ~np.isin(self.columns["system"], sorted(systems))
        return Outcomes({name: column[kept] for name, column in self.columns.items()})

    def records(self) -> list[Outcome]:
        """The rows as `Outcome` objects."""
        values = [self.columns[name].tolist() for name in FIELDS]
        return [Outcome(*row) for row in zip(*values, strict=True)]

    def save(self, path: str | Path) -> None:
        """Write the table as Parquet; a reader sees the old file or the whole new one.

        Raises:
          StorageError: if the file cannot be written.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        types = {int: pa.int64(), float: pa.float64(), bool: pa.bool_(), str: pa.string()}
        schema = pa.schema([(name, types[_KINDS[name]]) for name in FIELDS])
        table = pa.table({name: self.columns[name].tolist() for name in FIELDS}, schema=schema)
        buffer = io.BytesIO()
        pq.write_table(table, buffer)
        write_atomic(Path(path), buffer.getvalue())

    @classmethod
    def load(cls, path: str | Path) -> "Outcomes":
        """Read a table that `save` wrote.

        Raises:
          DataError: if the file is missing, damaged, or not an outcome table.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        remedy = "run `arkjax evaluate --redo evaluate` to make it anew from the recorded calls"
        if not Path(path).is_file():
            raise DataError(f"{path}: no outcome table here; {remedy}")
        try:
            table = pq.read_table(io.BytesIO(Path(path).read_bytes()))
            columns = {name: table.column(name).to_pylist() for name in table.column_names}
        except (OSError, pa.ArrowException) as error:
            reason = str(error).splitlines()[0]
            raise DataError(f"{path}: damaged outcome table ({reason}); {remedy}") from error
        if set(columns) != set(FIELDS):
            raise DataError(
                f"{path}: has columns {sorted(columns)}, an outcome table has {list(FIELDS)}; "
                f"{remedy}"
            )
        try:
            return cls({name: _column(name, columns[name]) for name in FIELDS})
        except DataError as error:
            raise DataError(f"{path}: {error}") from error

    def select(
        self,
        *,
        split: str | None = None,
        system: str | None = None,
        seed: int | None = None,
        part: str | None = None,
        domain: str | None = None,
    ) -> "Outcomes":
        """The rows that agree with every argument given."""
        keep = np.ones(len(self), dtype=bool)
        wanted = {"split": split, "system": system, "seed": seed, "part": part, "domain": domain}
        for name, value in wanted.items():
            if value is not None:
                keep &= self.columns[name] == value
        return Outcomes({name: column[keep] for name, column in self.columns.items()})

    def distinct(self, name: str) -> list:
        """The different values of a column, sorted."""
        return np.unique(self.columns[name]).tolist()

    def problems(self, split: str) -> dict[str, np.ndarray]:
        """The problems of a split in canonical order, by id.

        `problem_id`, `part`, `domain` and `difficulty`, each [P].

        Raises:
          DataError: if the table says two different things about the same problem.
        """
        rows = self.select(split=split)
        ids, first, group = np.unique(rows["problem_id"], return_index=True, return_inverse=True)
        facts = {"problem_id": ids}
        for name in ("part", "domain", "difficulty"):
            facts[name] = rows[name][first]
            differs = np.flatnonzero(rows[name] != facts[name][group])
            if differs.size:
                row = differs[0]
                raise DataError(
                    f"split {split!r}, problem {str(rows['problem_id'][row])!r}: {name} is "
                    f"{str(rows[name][row])!r} for {str(rows['system'][row])!r} and "
                    f"{str(facts[name][group[row]])!r} elsewhere; evaluate all systems again "
                    "on one problem set"
                )
        return facts

    def matrix(self, system: str, split: str, column: str = "correct") -> np.ndarray:
        """One column of a system as [seeds, problems], aligned with every other system's.

        Rows follow the table's seeds in rising order, columns the order of `problems`.

        Raises:
          DataError: if the system lacks a problem or seed that another system has in this
            split, or has it twice: such systems cannot be compared pairwise.
        """
        split_rows = self.select(split=split)
        rows = split_rows.select(system=system)
        if not len(rows):
            raise DataError(
                f"split {split!r}: system {system!r} was not evaluated; evaluated are "
                f"{split_rows.distinct('system')}"
            )
        seeds = np.unique(split_rows["seed"])
        problems = np.unique(split_rows["problem_id"])
        cell = np.searchsorted(seeds, rows["seed"]) * len(problems)
        cell = cell + np.searchsorted(problems, rows["problem_id"])
        times = np.bincount(cell, minlength=len(seeds) * len(problems))
        if (times != 1).any():
            wrong = int(np.flatnonzero(times != 1)[0])
            seed, problem = seeds[wrong // len(problems)], problems[wrong % len(problems)]
            raise DataError(
                f"split {split!r}, system {system!r}: problem {str(problem)!r} of seed {seed} "
                f"was answered {times[wrong]} times, expected once ({int((times == 0).sum())} "
                f"answers are missing, {int((times > 1).sum())} are repeated); evaluate all "
                "systems on the same problems"
            )
        aligned = np.empty(len(cell), dtype=rows[column].dtype)
        aligned[cell] = rows[column]
        return aligned.reshape(len(seeds), len(problems))
