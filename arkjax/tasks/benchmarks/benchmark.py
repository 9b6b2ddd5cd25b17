"""A published data set as problems: what its records become, and where they lie."""

import dataclasses
import hashlib
import itertools
import re
from collections.abc import Callable, Iterator

from arkjax.errors import ConfigError, DataError
from arkjax.tasks.benchmarks.drafts import Reader, check_gold, drafts_of, guarded
from arkjax.tasks.benchmarks.places import Layout, canonical_split, rows
from arkjax.tasks.benchmarks.records import Record
from arkjax.tasks.problems import Grader, Problem, check_grader


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """A data set whose records are problems.

    Attributes:
      name: of the task.
      read: what one record becomes; raises DataError by `Record.wrong` if it is not as published.
      grader: of the task.
      splits: those that are published with answers.
      layout: how its files are called; by default by their splits, in a folder of the task's name.
      instruction: how the answer is to be stated; the last paragraph of every question.
      several: a record may become several problems.
      begin: is shown the first records of a split, and makes the reader of all of them.
      published: its answers are taken as they are, without asking the grader whether it accepts
        them.

    Raises:
      ConfigError: if one of them is of the wrong kind.
    """

    name: str
    read: Reader
    grader: Grader
    splits: tuple[str, ...] = ("train", "validation", "test")
    layout: Layout | None = None
    instruction: str = ""
    several: bool = False
    begin: Callable[[list[Record]], Reader] | None = None
    published: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not re.fullmatch(r"[\w.-]+", self.name):
            raise ConfigError(
                f"Benchmark: name is {self.name!r}: give letters, digits, _, . and - only"
            )
        what = f"Benchmark {self.name!r}"
        check_grader(self.grader, what)
        for field in ("read", "begin"):
            value = getattr(self, field)
            if not callable(value) and (field, value) != ("begin", None):
                raise ConfigError(f"{what}: {field} is {value!r:.60}: give a function")
        splits = self.splits
        if isinstance(splits, str) or not splits or not all(isinstance(s, str) for s in splits):
            raise ConfigError(f'{what}: splits is {splits!r:.60}: give names, as in ("test",)')
        if not isinstance(self.layout, Layout | None):
            raise ConfigError(f"{what}: layout is {self.layout!r:.60}: give a Layout")
        if not isinstance(self.instruction, str):
            raise ConfigError(f"{what}: instruction is {self.instruction!r:.60}: give text")

    def load(
        self,
        split: str,
        limit: int | None = None,
        *,
        source: str | None = "",
        instruct: bool = True,
        seed: int | None = None,
    ) -> list[Problem]:
        """Problems of a split, as published.

        Args:
          split: one of `splits`.
          limit: how many; only as much is read as that takes. None: all.
          source: where they lie: a file (.jsonl, .json, .csv, .parquet; all but the last also
            packed, .gz), a folder, `hf:owner/name[@revision]` or `tfds:name`. Empty
            or None: `$ARKJAX_DATASETS/NAME` if that is a folder, else its home on the Hub.
          instruct: whether the question ends by saying how the answer is to be stated.
          seed: None keeps the order of the files; a number takes the problems in an order that it
            draws, for which all are read.

        Returns:
          Problems with ids such as "gsm8k-test-00012", by the record's place in the split, from 0;
          where a record may hold several, with their number in it at the end.

        Raises:
          ConfigError: if there is no such split, or it does not have that many problems.
          DataError: if the data are not there, or a record is not as published: names file, place,
            field and remedy.
        """
        if split not in self.splits:
            meant = canonical_split(split)
            hint = f"it is called {meant!r} here; " if meant != split else ""
            raise ConfigError(
                f"there is no split {split!r} of {self.name}; {hint}known: {', '.join(self.splits)}"
            )
        if limit is not None and limit < 1:
            raise ConfigError(f"{limit} problems asked of split {split!r}: ask for at least one")
        stream = self._problems(split, source or "", instruct)
        if seed is not None:
            stream = iter(sorted(stream, key=lambda p: _draw(seed, p.id)))
        problems = list(itertools.islice(stream, limit))
        if limit is not None and len(problems) < limit:
            raise ConfigError(
                f"{limit} problems asked of split {split!r} of {self.name}, which has "
                f"{len(problems)}: ask for at most that many"
            )
        if not problems:
            raise DataError(f"split {split!r} of {self.name} has no problems: its files are empty")
        return problems

    def _problems(self, split: str, source: str, instruct: bool) -> Iterator[Problem]:
        layout = self.layout or Layout(self.name)
        records = (
            Record(value, file, place, self.name)
            for file, place, value in rows(layout, self.name, split, source)
        )
        read = self.read
        if self.begin is not None:
            first = list(itertools.islice(records, 256))
            if first:
                read = guarded(self.begin, first, first[0])
            records = itertools.chain(first, records)
        ending = f"\n\n{self.instruction}" if instruct and self.instruction else ""
        for index, record in enumerate(records):
            for number, (draft, line) in enumerate(drafts_of(record, read, self.several)):
                part = f"-{number}" if self.several else ""
                problem = Problem(
                    id=f"{self.name}-{split}-{index:05d}{part}",
                    question=draft.question + ending,
                    answer=draft.answer,
                    task=self.name,
                    domain=draft.domain or self.name,
                    meta=draft.meta,
                )
                if not self.published:
                    check_gold(self.grader, problem, line, record)
                yield problem


def _draw(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed} {name}".encode()).digest()
