"""A published data set as problems: what its records become, and where they lie."""

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from arkjax.errors import ConfigError, DataError
from arkjax.tasks.benchmarks.places import Layout, rows
from arkjax.tasks.benchmarks.records import Record
from arkjax.tasks.problems import Grader, Problem


@dataclasses.dataclass(frozen=True)
class Draft:
    """A problem before it has its id.

    Attributes:
      question: what the model reads, without the sentence that says how to answer.
      answer, domain, meta: as of `Problem`; `meta` must be what JSON can hold.
    """

    question: str
    answer: str
    domain: str = ""
    meta: Mapping[str, Any] = dataclasses.field(default_factory=dict)


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
    """

    name: str
    read: Callable[[Record], Iterable[Draft]]
    grader: Grader
    splits: tuple[str, ...] = ("train", "validation", "test")
    layout: Layout | None = None
    instruction: str = ""
    several: bool = False
    begin: Callable[[list[Record]], Callable[[Record], Iterable[Draft]]] | None = None

    def load(
        self,
        split: str,
        limit: int | None = None,
        *,
        source: str = "",
        instruct: bool = True,
        seed: int | None = None,
    ) -> list[Problem]:
        """Problems of a split, as published.

        Args:
          split: one of `splits`.
          limit: how many; only as much is read as that takes. None: all.
          source: where they lie: a file (.jsonl, .json, .csv, .parquet; all but the last also
            packed, .gz), a folder, `hf:owner/name[@revision]` or `tfds:name`. Empty:
            `$ARKJAX_DATASETS/NAME` if that is a folder, else the data set's home on the Hub.
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
            raise ConfigError(
                f"there is no split {split!r} of {self.name}; known: {', '.join(self.splits)}"
            )
        if limit is not None and limit < 1:
            raise ConfigError(f"{limit} problems asked of split {split!r}: ask for at least one")
        stream = self._problems(split, source, instruct)
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
            read, records = self.begin(first), itertools.chain(first, records)
        ending = f"\n\n{self.instruction}" if instruct and self.instruction else ""
        for index, record in enumerate(records):
            for number, draft in enumerate(read(record)):
                part = f"-{number}" if self.several else ""
                _check_meta(record, draft.meta)
                yield Problem(
                    id=f"{self.name}-{split}-{index:05d}{part}",
                    question=draft.question + ending,
                    answer=draft.answer,
                    task=self.name,
                    domain=draft.domain or self.name,
                    meta=draft.meta,
                )


def _draw(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed} {name}".encode()).digest()


def _check_meta(record: Record, meta: Mapping[str, Any]) -> None:
    try:
        json.dumps(meta, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise record.wrong(
            "meta", f"the reader made of it what JSON cannot hold ({error})"
        ) from error
