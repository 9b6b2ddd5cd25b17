"""What the workers do: read shards, make examples of a problem, weigh them, write them."""

import json
import os
import time
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.windowed_value import WindowedValue

from arkjax.beam import files
from arkjax.beam.elements import call_of, example_name, packed, unpacked
from arkjax.beam.reading import dead_letter, read_shard
from arkjax.beam.recipe import Recipe, with_facts
from arkjax.beam.tally import Tally, add_counts
from arkjax.errors import ArkJAXError
from arkjax.synthesis import minhash
from arkjax.synthesis.counts import Counts
from arkjax.synthesis.example_files import shard_name, to_bytes
from arkjax.synthesis.examples import Example
from arkjax.synthesis.selection import SelectionConfig
from arkjax.synthesis.unified import Made, compares
from arkjax.synthesis.weights import Ranks
from arkjax.trajectories.schema import Call, canonical_order
from arkjax.trajectories.shards import SIDECAR

Told = tuple[str, str, bytes]
"""Kind, key and content of an element of a step that gives more than one kind."""
CALLS, MADE, BAND, SIGNATURE, DEAD, TALLY = "calls", "made", "band", "signature", "dead", "tally"
FACTS = "facts"
_SECONDS = 0.5


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
    """All that there is about a problem to the examples that it gives."""

    def __init__(self, recipe: Recipe, ticks: str) -> None:
        self.recipe, self.ticks = recipe, ticks

    def setup(self) -> None:
        super().setup()
        self.unifier = self.recipe.unifier()

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
            why = "there is no such problem: give the run, or the config, whose task has it"
            yield self.letter(dead_letter("problem", problem, why, calls=len(calls)))
            return
        counts = Counts()
        try:
            ours = [call for call in calls if call.model not in self.recipe.foreign]
            unifier = with_facts(self.unifier, told, self.recipe.attributed)
            debate, answers = (problem, ours), {problem: told["team_answer"]}
            made = [one for some in unifier.each([debate], answers, counts) for one in some]
            found = packed([_told(one, unifier.weighs(one)) for one in made])
        except ArkJAXError:
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
            yield MADE, problem, found
        if made and compares(unifier.config):
            yield from _signed(problem, made, unifier.config.near_duplicates)

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


def _told(made: Made, rank: float | None) -> dict[str, Any]:
    e = made.example
    return {
        "prompt": e.prompt_ids,
        "target": e.target_ids,
        "shares": e.target_weights,
        "provenance": e.provenance,
        "rank": rank,
        "share": made.share,
        "corrective": made.corrective,
    }


def _signed(problem: str, made: list[Made], threshold: float) -> Iterator[Told]:
    """By what near-duplicates among all problems are found; `place` is that among the made."""
    of = minhash.signatures([one.example.target_ids for one in made])
    bands, rows = minhash.bands_for(threshold, of.shape[1])
    names = [example_name(problem, place) for place in range(len(made))]
    for name, signature in zip(names, of, strict=True):
        yield SIGNATURE, name, signature.astype("<u4").tobytes()
    for band in range(bands):
        for name, key in zip(names, minhash.band_keys(of, band, rows).tolist(), strict=True):
            yield BAND, f"{band}:{key:x}", name.encode()


# --- weights and files ----------------------------------------------------------------------------


class Weigh(Counting):
    """The examples of a problem that all filters left, weighed against all others."""

    def __init__(self, config: SelectionConfig) -> None:
        self.config = config

    def process(self, element: tuple[str, bytes], whole: bytes = b"") -> Iterator[Told]:
        problem, data = element
        found = unpacked(data)
        weights = [1.0] * len(found)
        if whole:
            facts = unpacked(whole)
            ranks = Ranks(facts["values"], facts["below"])
            weights = [ranks.weight(one["rank"]) for one in found]
            if self.config.balance != "none":
                share, own = facts["examples"] / facts["problems"], 0.0
                for weight in weights:
                    own += weight
                weights = [weight * share / own for weight in weights]
        counts = self.tally.counts
        counts.problems_kept += 1
        counts.corrective += sum(one["corrective"] for one in found)
        counts.traces += len(found)
        counts.examples += len(found)
        self.count("examples", len(found))
        for one, weight in zip(found, weights, strict=True):
            one["weight"] = weight
        yield MADE, problem, packed(found)


class WriteExamples(Counting):
    """All examples of a shard to its file and its checksum."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def process(self, element: tuple[int, Iterable[bytes]]) -> Iterator[Told]:
        number, parts = element
        examples = []
        for problem, data in map(unkeyed, parts):
            for place, one in enumerate(unpacked(data)):
                shares = one["shares"]
                example = Example(
                    tuple(one["prompt"]),
                    tuple(one["target"]),
                    one["weight"],
                    one["provenance"],
                    None if shares is None else tuple(shares),
                )
                examples.append((problem, place, example))
        name = shard_name(number)
        path = files.join(self.folder, name)
        digest = files.write(path, to_bytes(examples))
        files.write(path + SIDECAR, f"{digest}  {name}\n".encode())
        self.tally.shards[name] = {"examples": len(examples), "sha256": digest}
        return iter(())


class WriteLetters(Counting):
    """Dead letters to their file, by file and row."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def process(self, element: tuple[int, Iterable[bytes]]) -> Iterator[Told]:
        number, parts = element
        letters = sorted(
            map(unpacked, parts), key=lambda x: (x["file"], -1 if x["row"] is None else x["row"])
        )
        name = f"dead-letters-{number:05d}.jsonl"
        lines = "".join(json.dumps(letter, sort_keys=True) + "\n" for letter in letters)
        digest = files.write(files.join(self.folder, name), lines.encode())
        self.tally.shards[name] = {"letters": len(letters), "sha256": digest}
        return iter(())


class WriteTally(beam.DoFn):
    """The whole account to a file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def process(self, element: tuple[int, Iterable[bytes]]) -> Iterator[str]:
        whole = Tally()
        for part in element[1]:
            whole.add(Tally.of(unpacked(part)))
        files.write(self.path, json.dumps(whole.plain()).encode())
        yield self.path


def keyed(problem: str, data: bytes) -> bytes:
    """A problem's id and its content as one value."""
    name = problem.encode("utf-8", "surrogatepass")
    return len(name).to_bytes(4, "little") + name + data


def unkeyed(value: bytes) -> tuple[str, bytes]:
    """What `keyed` was given."""
    end = 4 + int.from_bytes(value[:4], "little")
    return value[4:end].decode("utf-8", "surrogatepass"), value[end:]
