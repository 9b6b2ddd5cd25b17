"""What the workers do: read shards, make examples of a problem, weigh them, write them."""

import json
import os
import time
import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
from apache_beam.metrics import Metrics
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.windowed_value import WindowedValue

from arkjax.beam import files
from arkjax.beam.elements import block, call_of, ids_of, ids_text, packed, part_of, unpacked
from arkjax.beam.reading import dead_letter, read_shard
from arkjax.beam.recipe import Recipe, with_facts
from arkjax.beam.tally import Tally, add_counts
from arkjax.errors import ConfigError, StorageError
from arkjax.synthesis import minhash
from arkjax.synthesis.counts import Counts
from arkjax.synthesis.example_files import Placed, shard_name, to_bytes
from arkjax.synthesis.examples import Example
from arkjax.synthesis.foreign import in_own_tokens
from arkjax.synthesis.selection import SelectionConfig
from arkjax.synthesis.unified import Made, compares
from arkjax.synthesis.weights import Ranks
from arkjax.trajectories.schema import Call, canonical_order
from arkjax.trajectories.shards import SIDECAR

Told = tuple[str, str, bytes]
"""Kind, key and content of an element of a step that gives more than one kind."""
Name = list[Any]
"""Problem and place of an example: examples are in the order of these."""
CALLS, MADE, BAND, SIGNATURE, DEAD, TALLY = "calls", "made", "band", "signature", "dead", "tally"
FACTS = "facts"
_SECONDS = 0.5
# Examples that are put together.
_TOGETHER = 4096


def at_the_end(value: Any) -> WindowedValue:
    """An element that is given when a bundle is done."""
    window = GlobalWindow()
    return WindowedValue(value, window.max_timestamp(), [window])


class Ticker:
    """Tells how far a process of the DirectRunner is, in a file of its own.

    Args:
      folder: where to; empty tells nothing, as on workers elsewhere.
    """

    def __init__(self, folder: str) -> None:
        self._path = Path(folder, uuid.uuid4().hex) if folder else None
        self._done: dict[str, int] = {}
        self._told = 0.0

    def advance(self, what: str, count: int, end: bool = False) -> None:
        """Count units of a kind of work."""
        self._done[what] = self._done.get(what, 0) + count
        if self._path and (end or time.monotonic() - self._told > _SECONDS):
            self._told = time.monotonic()
            aside = self._path.with_suffix(".aside")
            aside.write_text(json.dumps(self._done))
            os.replace(aside, self._path)


class Counting(beam.DoFn):
    """A step that keeps an account: one part a bundle, given when the bundle is done.

    Beam's own counters are for who watches a job; where a bundle is done twice they may count it
    twice, and the account does not.
    """

    ticks = ""

    def setup(self) -> None:
        self.ticker = Ticker(self.ticks)

    def start_bundle(self) -> None:
        self.tally = Tally()

    def finish_bundle(self) -> Iterator[WindowedValue]:
        self.ticker.advance("", 0, end=True)
        yield at_the_end((TALLY, "", packed(self.tally.plain())))

    def count(self, name: str, number: int) -> None:
        """Add to one of Beam's counters."""
        if number:
            Metrics.counter("arkjax", name).inc(number)

    def passed(self, name: str, came: int, kept: int) -> None:
        """Count what a filter over all problems keeps of the examples of one."""
        self.tally.counts.passed(name, came, kept)
        self.count(f"dropped_{name}", came - kept)

    def letter(self, letter: dict[str, Any]) -> Told:
        """A dead letter, counted."""
        self.tally.dead(letter)
        self.count("dead_letters", 1)
        return DEAD, letter["file"], packed(letter)


class Read(Counting):
    """Files to the calls of each problem in them."""

    def __init__(self, ticks: str) -> None:
        self.ticks = ticks

    def process(self, element: tuple[int, Iterable[str]]) -> Iterator[Told]:
        number, paths = element
        for path in paths:
            for some in read_shard(files.Source(number, path)):
                self.tally.records["calls"] += some.rows
                self.tally.records["shards"] += some.last
                self.count("calls_read", some.rows)
                self.ticker.advance("calls", some.rows)
                for letter in some.dead:
                    yield self.letter(letter)
                for problem, rows in some.calls.items():
                    yield CALLS, problem, packed(rows)


class ReadFacts(beam.DoFn):
    """Files of facts to the facts about each problem."""

    def process(self, element: tuple[int, Iterable[str]]) -> Iterator[Told]:
        for path in element[1]:
            for line in files.read(path).splitlines():
                problem, told = json.loads(line)
                yield FACTS, problem, packed(told)


class Make(Counting):
    """All that there is about a problem to the examples that it gives.

    They are put together, as many as a bundle gives up to some thousand, by the shard that they
    will be written to; so is what finds near-duplicates among all problems.
    """

    def __init__(self, recipe: Recipe, shards: int, ticks: str) -> None:
        self.recipe, self.shards, self.ticks = recipe, shards, ticks

    def setup(self) -> None:
        super().setup()
        self.unifier = self.recipe.unifier()

    def start_bundle(self) -> None:
        super().start_bundle()
        self._clear()

    def finish_bundle(self) -> Iterator[WindowedValue]:
        yield from map(at_the_end, self._put_together())
        yield from super().finish_bundle()

    def process(self, element: tuple[str, Iterable[bytes]]) -> Iterator[Told]:
        problem, parts = element
        rows, told = [], None
        for part in parts:
            if part[:1] == b"f":
                told = unpacked(part[1:])
            else:
                rows += unpacked(part[1:])
        if not rows:
            return
        self.ticker.advance("problems", 1)
        self.count("problems", 1)
        calls = self._once(problem, rows)
        if told is None:
            why = "there is no such problem: give the run whose task has it"
            yield self.letter(dead_letter("problem", problem, why, calls=len(calls)))
            return
        counts = Counts()
        try:
            unifier, recipe = self.unifier, self.recipe
            end_id = (unifier.end_ids or unifier.tokenizer.end_ids)[0]
            ours = in_own_tokens(
                calls, recipe.foreign, recipe.config.foreign, unifier.tokenizer, end_id
            )
            unifier = with_facts(unifier, recipe, told, calls)
            debate, answers = (problem, ours), {problem: told["team_answer"]}
            made = [one for some in unifier.each([debate], answers, counts) for one in some]
        except (ConfigError, StorageError):
            raise
        except Exception as error:
            why = f"no examples can be made of it: {type(error).__name__}: {error}"
            yield self.letter(dead_letter("problem", problem, why, calls=len(calls)))
            return
        self.tally.records["foreign"] += len(calls) - len(ours)
        self.tally.records["actions"] += sum(call.is_action for call in ours)
        add_counts(self.tally.counts, counts)
        for name, passed in counts.filters.items():
            self.count(f"dropped_{name}", passed.calls_dropped)
        if made:
            found = [_told(one, unifier.weighs(one)) for one in made]
            self.made[part_of(problem, self.shards)].append([problem, found])
            self.words += [
                ([problem, place], one.example.target_ids) for place, one in enumerate(made)
            ]
        if len(self.words) >= _TOGETHER:
            yield from self._put_together()

    def _once(self, problem: str, rows: list[list[Any]]) -> list[Call]:
        """Each call once, as the first shard tells it, in the order of the debate."""
        rows.sort(key=lambda row: row[:2])
        first: dict[str, list[Any]] = {}
        for row in rows:
            known = first.setdefault(row[2], row)
            self.tally.records["told_differently"] += known[2:] != row[2:]
        self.tally.records["repeated"] += len(rows) - len(first)
        self.count("repeated", len(rows) - len(first))
        return canonical_order(call_of(problem, row) for row in first.values())

    def _clear(self) -> None:
        self.made: dict[str, list[Any]] = defaultdict(list)
        self.words: list[tuple[Name, Sequence[int]]] = []

    def _put_together(self) -> list[Told]:
        told = [(MADE, part, packed(made)) for part, made in self.made.items()]
        if self.words and compares(self.recipe.config):
            threshold = self.recipe.config.near_duplicates
            told += signed(self.words, threshold, self.shards)
        self._clear()
        return told


def _told(made: Made, rank: float | None) -> dict[str, Any]:
    e = made.example
    return {
        "prompt": ids_text(e.prompt_ids),
        "target": ids_text(e.target_ids),
        "shares": e.target_weights,
        "provenance": e.provenance,
        "rank": rank,
        "share": made.share,
        "corrective": made.corrective,
    }


def signed(words: Sequence[tuple[Name, Sequence[int]]], threshold: float, parts: int) -> list[Told]:
    """By what near-duplicates are found: signatures, and what their bands have in common.

    Args:
      words: name and token ids of each example.
      threshold: from which two are alike.
      parts: how many the names, and the keys of a band, are spread over.
    """
    of = minhash.signatures([ids for _, ids in words])
    names = [name for name, _ in words]
    told: list[Told] = []
    own: dict[str, list[int]] = defaultdict(list)
    for at, (problem, _) in enumerate(names):
        own[part_of(problem, parts)].append(at)
    for part, places in own.items():
        data = of[places].astype("<u4").tobytes()
        told.append((SIGNATURE, part, block([names[at] for at in places], data)))
    bands, rows = minhash.bands_for(threshold, of.shape[1])
    for band in range(bands):
        keys = minhash.band_keys(of, band, rows)
        which = keys % np.uint64(parts)
        for part in np.unique(which).tolist():
            places = np.flatnonzero(which == part)
            data = keys[places].astype("<u8").tobytes()
            told.append((BAND, f"{band}:{part}", block([names[at] for at in places], data)))
    return told


# --- weights and files ----------------------------------------------------------------------------


class WriteExamples(Counting):
    """The examples of a shard that all filters left, weighed against all others, to its file."""

    def __init__(self, config: SelectionConfig, folder: str) -> None:
        self.config, self.folder = config, folder

    def process(self, element: tuple[str, bytes], whole: bytes = b"") -> Iterator[Told]:
        problems = unpacked(element[1])
        facts = unpacked(whole) if whole else None
        ranks = Ranks(facts["values"], facts["below"]) if facts else None
        counts = self.tally.counts
        for _, made in problems:
            weights = [ranks.weight(one["rank"]) if ranks else 1.0 for one in made]
            if facts and self.config.balance != "none":
                share, own = facts["examples"] / facts["problems"], 0.0
                for weight in weights:
                    own += weight
                weights = [weight * share / own for weight in weights]
            for one, weight in zip(made, weights, strict=True):
                one["weight"] = weight
            counts.problems_kept += 1
            counts.corrective += sum(one["corrective"] for one in made)
            counts.traces += len(made)
            counts.examples += len(made)
        written = sum(len(made) for _, made in problems)
        self.count("examples", written)
        name = shard_name(int(element[0]))
        path = files.join(self.folder, name)
        digest = files.write(path, to_bytes(_placed(problems)))
        files.write(path + SIDECAR, f"{digest}  {name}\n".encode())
        self.tally.shards[name] = {"examples": written, "sha256": digest}
        return iter(())


def _placed(problems: list[Any]) -> Iterator[Placed]:
    for problem, made in problems:
        for place, one in enumerate(made):
            shares = one["shares"]
            example = Example(
                ids_of(one["prompt"]),
                ids_of(one["target"]),
                one["weight"],
                one["provenance"],
                None if shares is None else tuple(shares),
            )
            yield problem, place, example


class WriteLetters(Counting):
    """Dead letters to their file, by file and row."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def process(self, element: tuple[str, Iterable[bytes]]) -> Iterator[Told]:
        number, parts = element
        letters = sorted(
            map(unpacked, parts), key=lambda x: (x["file"], -1 if x["row"] is None else x["row"])
        )
        name = f"dead-letters-{int(number):05d}.jsonl"
        lines = "".join(json.dumps(letter, sort_keys=True) + "\n" for letter in letters)
        digest = files.write(files.join(self.folder, name), lines.encode())
        self.tally.shards[name] = {"letters": len(letters), "sha256": digest}
        return iter(())


class WriteTally(beam.DoFn):
    """The whole account to a file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def process(self, element: tuple[str, Iterable[bytes]]) -> Iterator[str]:
        whole = Tally()
        for part in element[1]:
            whole.add(Tally.of(unpacked(part)))
        files.write(self.path, json.dumps(whole.plain()).encode())
        yield self.path
